"""The command `ibinn-train retrain` from its options to its bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ibinn import bundle as bundles
from ibinn.errors import ConfigError
from training.finish import finish, write_calibrated
from training.loop import Trained
from training.retrain import Plan, Request
from training.retraining.composed import NAME_PREFIX, OldData
from training.retraining.composition import Rules
from training.retraining.intake import read_trusted
from training.retraining.outcome import figures
from training.retraining.record import FILE, Mode, text_of, write_record
from training.retraining.sources import Probation
from training.scoring import Progress
from training.splits import Role, role_set
from training.trust_report import CURVE_FILE, OodFolders, curve_text

OUTCOME_FILE = "outcome.json"
"""Figures before and after, in the run's folder."""


def request_of(
    *,
    feedback: Path,
    base: Path,
    data: str,
    mode: str,
    trusted_file: Path | None,
    trusted: Sequence[str],
    min_checks: int,
    agreement: float,
    check_confidence: float,
    share: float,
    min_new_class: int,
    replay: float,
    calibrate_on: str,
    exclude: Sequence[str],
    seed: int,
    assignments: Sequence[str],
    group_by: str | None,
    skip_unreadable: bool,
) -> Request:
    """What the options ask for.

    Raises:
        ConfigError: One of them is not valid.
    """
    if mode not in tuple(Mode):
        raise ConfigError(f"--mode is {mode!r}; expected {' or '.join(Mode)}")
    if calibrate_on not in ("known", "all"):
        raise ConfigError(f"--calibrate-on is {calibrate_on!r}; expected known or all")
    from_file = () if trusted_file is None else read_trusted(trusted_file)
    return Request(
        feedback=feedback,
        base=base,
        old=OldData(data=data, group_by=group_by, skip_unreadable=skip_unreadable),
        mode=Mode(mode),
        trusted=(*from_file, *trusted),
        rules=Rules(
            probation=Probation(
                checks=min_checks, agreement=agreement, confidence=check_confidence
            ),
            share=share,
            min_new_class=min_new_class,
            replay=replay,
            calibrate_on_all=calibrate_on == "all",
            seed=seed,
        ),
        exclude=tuple(exclude),
        assignments=tuple(assignments),
    )


def complete(
    plan: Plan,
    trained: Trained,
    out: Path,
    *,
    command: str,
    ood: OodFolders,
    with_report: bool,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Calibrate, write ``out/bundle``, and say what has changed.

    Args:
        plan: What was trained.
        trained: From the loop.
        out: Folder of the run.
        command: For the manifest.
        ood: Data of other images for the report.
        with_report: Write the trust report and its figures into the bundle.
        device: Where to compute.
        progress: Called as the evaluation goes on.

    Returns:
        Headline figures.
    """
    extra = {FILE: text_of(plan.record)}
    headline: dict[str, float] = {}
    if with_report:
        evaluation = finish(
            trained,
            plan.config,
            plan.prepared,
            out,
            command=command,
            ood=ood,
            device=device,
            progress=progress,
            taxonomy_version=plan.taxonomy,
            extra=extra,
        )
        headline = evaluation.headline()
    else:
        write_calibrated(
            trained,
            plan.config,
            plan.prepared,
            out,
            command=command,
            device=device,
            taxonomy_version=plan.taxonomy,
            extra=extra | {CURVE_FILE: curve_text(trained.curve)},
        )
    outcome = outcome_of(plan, out, device=device)
    (out / OUTCOME_FILE).write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n")
    write_record({**plan.record, "outcome": outcome}, out)
    for name, models in outcome.items():
        for model, found in models.items():
            for figure in ("accuracy", "top_label_ece"):
                headline[f"{name} {figure} {model}"] = found[figure]
    return headline


def outcome_of(plan: Plan, out: Path, *, device: torch.device) -> dict[str, dict[str, Any]]:
    """Figures of the base and of the new model by name of the set: ``old`` and ``feedback``."""
    test = role_set(plan.prepared.source, plan.prepared.manifest, Role.TEST)
    fresh = [i for i, item in enumerate(test.items) if item.name.startswith(NAME_PREFIX)]
    old = [i for i, item in enumerate(test.items) if not item.name.startswith(NAME_PREFIX)]
    found: dict[str, dict[str, Any]] = {}
    for model, folder in (("before", plan.request.base), ("after", out / "bundle")):
        classifier = bundles.load(folder, device=device)
        for name, images in (("old", test.subset(old)), ("feedback", test.subset(fresh))):
            measured = figures(classifier, images)
            if measured is not None:
                found.setdefault(name, {})[model] = asdict(measured)
    return found
