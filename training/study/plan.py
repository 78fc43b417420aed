"""What a study is: models x data sets x seeds, as frozen values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ibinn.errors import ConfigError
from training.config import FitConfig, ObjectiveConfig, ObjectiveKind, digest
from training.discriminative import PEAK_RATE

MEASUREMENT = 1
"""Version of how runs are measured: results of another version are measured again."""


class ModelKind(StrEnum):
    """What is trained, and thus what can be measured: only generative models have a density."""

    GENERATIVE = "generative"
    LINEAR_HEAD = "linear_head"
    RESNET = "resnet"
    VIB = "vib"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the tables.

    Attributes:
        name: Short name for `--only` and folders, such as ``gamma-1``.
        label: As the tables print it.
        kind: What is trained.
        objective: The loss of a generative model; ignored for the others.
        sphere: Whether the means are fixed on a sphere of radius √d.
        peak_rate: Largest learning rate for batches of 128, of the discriminative ones.
        published: Name of its row in table 5.1; empty where it has none.
    """

    name: str
    label: str
    kind: ModelKind = ModelKind.GENERATIVE
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    sphere: bool = False
    peak_rate: float = PEAK_RATE
    published: str = ""

    @property
    def gamma(self) -> float | None:
        """γ of a member of the γ series, else None."""
        is_ib = self.objective.kind is ObjectiveKind.INFORMATION_BOTTLENECK
        return self.objective.gamma if self.kind is ModelKind.GENERATIVE and is_ib else None

    @property
    def classifies(self) -> bool:
        """False for γ = 0, whose classes mean nothing: it never sees a label."""
        return self.gamma != 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One data set of a study with the configuration that all its models share.

    Attributes:
        name: Short name, such as ``mnist``.
        source: A packaged data set, or the folder below ``--data``.
        words: What the images are, in words.
        config: Architecture, preprocessing, optimizer, schedule, augmentation, split.
        resnet_width: Channels of the ResNet's first stage (also VIB's encoder), so that it costs
            about as much as the invertible network.
        full_epochs: Epochs of the recipe that this one shortens; None: nothing is shortened.
        train_images: Draw so many of the training images; None: all.
        test_images: Draw so many of the test images, where the data has its own; None: all.
        ood: Names of out-of-distribution sets, see `training.study.images`.
        columns: Which of them stands in which published column: (RGB, drawings, noise, ImageNet).
        ood_images: Images per set.
    """

    name: str
    source: str
    words: str
    config: FitConfig
    resnet_width: int
    full_epochs: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    ood: tuple[str, ...]
    columns: tuple[str | None, str | None, str | None, str | None]
    ood_images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A list of runs.

    Attributes:
        name: What the command takes.
        summary: What it compares, on what, in what time.
        entries: Models.
        blocks: Data sets; every model is trained on each.
        seeds: Seeds unless ``--seeds`` names others.
        floor_draws: Label draws behind the floor of the calibration error.
    """

    name: str
    summary: str
    entries: tuple[Entry, ...]
    blocks: tuple[Block, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    floor_draws: int = 200

    def entry(self, name: str) -> Entry:
        """The model of a name."""
        return next(entry for entry in self.entries if entry.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One model on one data set with one seed.

    Attributes:
        block: The data set.
        entry: The model.
        seed: Of the split, the initial weights, the order and the variations of images.
        floor_draws: As in `Study`.
    """

    block: Block
    entry: Entry
    seed: int
    floor_draws: int

    @property
    def path(self) -> str:
        """Its folder below ``runs/``."""
        return f"{self.block.name}/{self.entry.name}/seed-{self.seed}"

    @property
    def config(self) -> FitConfig:
        """The whole configuration; the split moves with the seed, so that an interval over seeds
        covers the choice of images, not the start alone."""
        config, entry = self.block.config, self.entry
        mixture = config.mixture
        if entry.sphere:
            mixture = replace(mixture, means="sphere")
        return replace(
            config,
            objective=replace(entry.objective, label_smoothing=config.objective.label_smoothing),
            mixture=mixture,
            split=replace(config.split, seed=self.seed),
            seed=self.seed,
        )

    @property
    def digest(self) -> str:
        """sha256 (hex) of all that its result depends on."""
        block = self.block
        facts = [
            MEASUREMENT,
            digest(self.config),
            self.entry.kind.value,
            self.entry.peak_rate,
            block.resnet_width,
            [block.source, block.train_images, block.test_images],
            [block.ood, block.ood_images, self.floor_draws],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def runs_of(
    study: Study, *, seeds: Sequence[int] | None = None, only: Sequence[str] = ()
) -> tuple[Run, ...]:
    """Every run, all models of one seed before the next seed: a study cut short has whole tables.

    Args:
        study: The study.
        seeds: Instead of the study's own.
        only: Names of models or data sets, such as ``gamma-1`` or ``mnist``; empty: all.

    Raises:
        ConfigError: A name is unknown, or a seed is not usable.
    """
    chosen = study.seeds if seeds is None else tuple(seeds)
    if not chosen or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise ConfigError(
            f"seeds are {list(chosen)}; expected different whole numbers of at least 0, such as "
            "0,1,2"
        )
    models, data = ([part.name for part in parts] for parts in (study.entries, study.blocks))
    for name in only:
        if name not in (*models, *data):
            raise ConfigError(
                f"--only is {name!r}; study {study.name} has the models {', '.join(models)} and "
                f"the data sets {', '.join(data)}"
            )
    wanted_models = [name for name in models if name in only] or models
    wanted_data = [name for name in data if name in only] or data
    return tuple(
        Run(block=block, entry=entry, seed=seed, floor_draws=study.floor_draws)
        for seed in chosen
        for block in study.blocks
        if block.name in wanted_data
        for entry in study.entries
        if entry.name in wanted_models
    )


def labels_in_order(runs: Sequence[Run]) -> Iterator[tuple[Block, Entry]]:
    """The rows of the tables: every (data set, model) once, in the study's order."""
    seen = set()
    for run in runs:
        key = (run.block.name, run.entry.name)
        if key not in seen:
            seen.add(key)
            yield run.block, run.entry
