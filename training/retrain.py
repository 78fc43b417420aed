"""A model trained further, or anew, with what was said about its answers.

    export --compose--> RUN/data, RUN/retraining.{json,html} --train--> RUN/bundle

A run that was stopped goes on from where it was: its data is composed once, and its checkpoint is
that of every training run (`training.loop`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from ibinn import bundle as bundles
from ibinn.classifier import GenerativeClassifier
from ibinn.errors import CheckpointError, ConfigError, DataError
from ibinn.manifest import Manifest
from ibinn.ood.p_values import check_alpha
from ibinn.types import TestKind
from training.config import FitConfig, digest, from_dict, override
from training.data import open_data
from training.fit import Prepared, build_model, compiling
from training.image_set import ImageSet
from training.loop import Progress, Trained, TrainingData, train
from training.retraining.composed import NAME_PREFIX, OldData, write_composed
from training.retraining.composition import Base, Composition, Rules, compose
from training.retraining.growing import latent_codes, start_from
from training.retraining.intake import Intake, take_in, trusted_sources
from training.retraining.record import (
    Mode,
    Origin,
    read_record,
    record_of,
    rules_values,
    write_record,
)
from training.roles import recorded
from training.splits import Role, SplitManifest, role_set

DATA = "data"
"""Folder in the run's folder with old and new images as one data set."""

FINE_TUNE_RATE = 0.5
"""Learning rate of fine-tuning beside the recipe's."""
FINE_TUNE_EPOCHS = 0.25
"""Epochs of fine-tuning beside the recipe's, rounded up."""
MOST_REPEATS = 4
"""How often an image of the feedback comes in an epoch at most."""
FEEDBACK_SHARE = 1 / 3
"""Share of an epoch that the feedback should have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a retraining is asked for.

    Attributes:
        feedback: Folder of the export.
        base: Bundle of the base model.
        old: Its data.
        mode: Where the weights start.
        trusted: Patterns of sources that the operator vouches for.
        rules: What decides which feedback is used; its `trusted` is not read.
        exclude: Data whose images must not be trained on.
        assignments: ``key=value`` changes of the configuration.
    """

    feedback: Path
    base: Path
    old: OldData
    mode: Mode = Mode.FINE_TUNE
    trusted: tuple[str, ...] = ()
    rules: Rules
    exclude: tuple[str, ...] = ()
    assignments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A retraining that is ready to begin.

    Attributes:
        request: What was asked for.
        manifest: Of the base bundle.
        config: Of the training run.
        record: What it is made of, as in ``retraining.json``.
        prepared: Old and new images with their roles.
    """

    request: Request
    manifest: Manifest
    config: FitConfig
    record: Mapping[str, Any]
    prepared: Prepared

    @property
    def taxonomy(self) -> str:
        """Version of the new bundle's class list."""
        return str(self.record["taxonomy"]["version"])


def recipe_of(base: Path, manifest: Manifest) -> FitConfig:
    """The configuration that the first model of a line was trained from scratch with."""
    record = read_record(base)
    values = manifest.training.config if record is None else record["recipe"]
    return from_dict(dict(values))


def configuration(recipe: FitConfig, manifest: Manifest, request: Request) -> FitConfig:
    """The configuration of a retraining.

    From scratch it is the recipe's; fine-tuning has `FINE_TUNE_RATE` of its learning rate and
    `FINE_TUNE_EPOCHS` of its epochs. α, coverage and texts are those of the base bundle.

    Raises:
        ConfigError: An assignment is not valid, or changes what old images or weights hang on.
    """
    config = replace(
        recipe,
        alpha=manifest.alpha,
        conformal_coverage=manifest.conformal_coverage,
        intended_use=manifest.intended_use,
        training_data=manifest.training_data,
    )
    if request.mode is Mode.FINE_TUNE:
        config = replace(
            config,
            optimizer=replace(
                config.optimizer, learning_rate=FINE_TUNE_RATE * config.optimizer.learning_rate
            ),
            epochs=max(1, math.ceil(FINE_TUNE_EPOCHS * config.epochs)),
        )
    changed = override(config, request.assignments)
    fixed = ["split"]
    if request.mode is Mode.FINE_TUNE:
        fixed += ["architecture", "mixture", "preprocessing"]
    for name in fixed:
        if getattr(changed, name) != getattr(config, name):
            raise ConfigError(
                f"--set changes {name}, which is the base model's: old images keep their roles, "
                "and weights fit their architecture only; leave it out"
                + ("" if name == "split" else ", or use --mode scratch")
            )
    return changed


def prepare(request: Request, out: Path) -> Plan:
    """Compose the data of a run, or find it as it was composed before.

    Raises:
        DataError: The export, the base's data or a set to exclude cannot be used, or no feedback
            is left after all rules.
        BundleError: The base cannot be used.
        ConfigError: A setting is not valid.
        CheckpointError: The run in the folder was made of something else.
        AlphaTooSmallError: The calibration images are too few for the base's α.
    """
    manifest = bundles.verify(request.base)
    recipe = recipe_of(request.base, manifest)
    config = configuration(recipe, manifest, request)
    intake = take_in(request.feedback)
    trusted, unused = trusted_sources(request.trusted, intake.candidates)
    rules = replace(request.rules, trusted=trusted)
    origin = Origin(
        mode=request.mode,
        manifest=manifest,
        recipe=recipe,
        data=request.old.absolute().data,
        export=intake.info,
        export_digest=intake.digest,
        unused=unused,
    )
    found = read_record(out)
    if found is not None:
        names = sorted(map(_set_name, request.exclude))
        _check_same(found, rules, origin, config, out, excluded=names)
    record = found or _compose(request, rules, origin, intake, config, out)
    data = str(out / DATA)
    source = open_data(data)
    split = SplitManifest.load(out / DATA / "split.json")
    check_alpha(config.alpha, len(split.roles[Role.CALIBRATION_B]), TestKind.HIGH_IS_UNUSUAL)
    new = sum(role["new"] for role in record["roles"].values())
    text = (
        f"{config.training_data} With {new:,} images of feedback up to entry "
        f"{intake.info.sequence:,} of the records."
    )
    return Plan(
        request=request,
        manifest=manifest,
        config=replace(config, training_data=text),
        record=record,
        prepared=Prepared(source=source, manifest=split),
    )


def _compose(
    request: Request,
    rules: Rules,
    origin: Origin,
    intake: Intake,
    config: FitConfig,
    out: Path,
) -> Mapping[str, Any]:
    base = base_of(request, origin.manifest)
    excluded = {_set_name(data): _all_images(data) for data in request.exclude}
    composition = compose(intake.candidates, base, rules, excluded=excluded)
    record = record_of(
        composition,
        rules,
        origin,
        config,
        taxonomy=next_taxonomy(origin.manifest, composition),
        excluded=excluded,
        time=datetime.now(UTC),
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"out is {out}, which cannot be made ({error.strerror}); give a folder"
        ) from error
    if not composition.labelled:
        # What is there to be read is why nothing is left.
        steps = "; ".join(f"{s.name} {s.left_out:,}" for s in composition.steps if s.left_out)
        raise DataError(
            f"{request.feedback}: of {len(intake.candidates):,} answers with feedback none is left "
            f"to train with (left out: {steps}); name sources that you trust with "
            "--trusted-sources, or wait for more feedback"
        )
    write_composed(out / DATA, composition, request.old)
    write_record(record, out)
    return record


def base_of(request: Request, manifest: Manifest) -> Base:
    """The base model's classes and data, checked to be those that it was trained with.

    Raises:
        DataError: They are not.
    """
    old = request.old
    source, split = recorded(
        manifest, old.data, skip_unreadable=old.skip_unreadable, group_by=old.group_by
    )
    if source.train.class_names != manifest.classes:
        raise DataError(
            f"{old.data} has classes {', '.join(source.train.class_names)}, the base model "
            f"{', '.join(manifest.classes)}; give the data that it was trained with"
        )
    return Base(
        classes=manifest.classes, weights=manifest.weights_digest, source=source, split=split
    )


def next_taxonomy(manifest: Manifest, composition: Composition) -> str:
    """Version of the class list: the base's, and the next one where classes are added.

    >>> [_next_version(version) for version in ("1", "9", "2027-01")]
    ['2', '10', '2027-01.2']
    """
    version = manifest.taxonomy_version
    return _next_version(version) if composition.added else version


def _next_version(version: str) -> str:
    if version.isdecimal():
        return str(int(version) + 1)
    stem, dot, last = version.rpartition(".")
    return f"{stem}.{int(last) + 1}" if dot and last.isdecimal() else f"{version}.2"


def _set_name(data: str) -> str:
    return Path(data).resolve().name if Path(data).is_dir() else data


def _all_images(data: str) -> ImageSet:
    source = open_data(data, skip_unreadable=True)
    return source.train if source.test is None else source.train.joined(source.test)


def _check_same(
    record: Mapping[str, Any],
    rules: Rules,
    origin: Origin,
    config: FitConfig,
    out: Path,
    *,
    excluded: Sequence[str],
) -> None:
    stated = from_dict(dict(record["config"]))
    for what, found, expected in (
        ("base model", record["base"]["weights"], origin.manifest.weights_digest),
        ("export", record["export"]["sha256"], origin.export_digest),
        ("mode", record["mode"], origin.mode.value),
        *(
            (f"rule {name!r}", record["rules"].get(name), value)
            for name, value in rules_values(rules).items()
        ),
        ("set of images to exclude", sorted(record["rules"]["excluded"]), excluded),
        ("configuration", digest(stated), digest(config)),
    ):
        if found != expected:
            raise CheckpointError(
                f"{out}: holds a run with another {what} ({_short(found)}, this one has "
                f"{_short(expected)}); use the settings of that run or another --out folder"
            )


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text


def starting_model(plan: Plan, *, device: torch.device) -> GenerativeClassifier:
    """The classifier that the training begins with."""
    source = plan.prepared.source
    fresh = build_model(plan.config, len(source.train.class_names))
    if plan.request.mode is Mode.SCRATCH:
        return fresh
    base, preprocessing = bundles.load_model(plan.request.base)
    training = role_set(source, plan.prepared.manifest, Role.TRAIN)
    labels = training.labels
    codes = [
        latent_codes(
            base, preprocessing, training.subset(np.flatnonzero(labels == label)), device=device
        )
        for label in range(len(plan.manifest.classes), len(source.train.class_names))
    ]
    return start_from(fresh, base, codes)


def train_further(
    plan: Plan,
    out: Path,
    *,
    fabric: Fabric,
    progress: Progress,
    stop_after_s: float | None = None,
) -> Trained | None:
    """Train, going on from the folder's checkpoint if there is one; see `training.loop.train`."""
    source, split = plan.prepared.source, plan.prepared.manifest
    return train(
        starting_model(plan, device=fabric.device),
        TrainingData(
            train=balanced(role_set(source, split, Role.TRAIN), known=len(plan.manifest.classes)),
            validation=role_set(source, split, Role.VALIDATION),
            split_digest=plan.prepared.split_digest,
        ),
        compiling(plan.config, fabric.device),
        fabric=fabric,
        out=out,
        progress=progress,
        stop_after_s=stop_after_s,
    )


def balanced(training: ImageSet, *, known: int) -> ImageSet:
    """The training images, those of the feedback several times where they are few.

    Each comes as often as brings the feedback nearest to `FEEDBACK_SHARE` of an epoch, and images
    of a new class as often as brings that class nearest to the median of the old ones, if that is
    more; none comes more than `MOST_REPEATS` times. The mixture gives every class the same weight,
    and in few epochs a class or a domain with a tenth of the images is hardly seen.

    Args:
        training: All images of the role, old and new.
        known: Number of classes that the base knows, which come first.
    """
    labels = training.labels
    new = np.array([item.name.startswith(NAME_PREFIX) for item in training.items], bool)
    wished = FEEDBACK_SHARE / (1.0 - FEEDBACK_SHARE) * int((~new).sum())
    often = _times(wished, int(new.sum()))
    times = np.where(new, often, 1)
    counts = np.bincount(labels, weights=times, minlength=len(training.class_names))
    usual = float(np.median(counts[:known]))
    for label in range(known, len(counts)):
        own = labels == label
        times[own] = max(often, _times(usual, int(own.sum())))
    return training.subset(np.repeat(np.arange(len(labels)), times))


def _times(wished: float, there: int) -> int:
    return min(max(round(wished / max(there, 1)), 1), MOST_REPEATS)


def steps_said(record: Mapping[str, Any]) -> Sequence[str]:
    """The steps of the composition, a line each."""
    lines = [
        f"{step['name']}: {step['left_out']:,} left out, {step['left']:,} left"
        for step in record["steps"]
        if step["left_out"] or step is record["steps"][0]
    ]
    if record["taxonomy"]["added"]:
        lines.append(
            "new classes: "
            + ", ".join(f"{n} ({c:,})" for n, c in record["taxonomy"]["added"].items())
        )
    return [*lines, *(f"note: {warning}" for warning in record["warnings"])]
