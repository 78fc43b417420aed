"""What a training run is: one frozen value, complete enough to repeat the run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pydantic

from ibinn.errors import ConfigError
from ibinn.flow.architectures import ArchitectureConfig, SmallConfig
from ibinn.flow.architectures import from_dict as architecture_from_dict
from ibinn.flow.architectures import to_dict as architecture_to_dict
from ibinn.flow.recomputation import MEMORY, Memory
from ibinn.images import PreprocessingConfig
from ibinn.latent import MixtureConfig
from training.augment import AugmentConfig
from training.splits import SplitConfig


class ObjectiveKind(StrEnum):
    """What is minimised."""

    INFORMATION_BOTTLENECK = "ib"
    CLASS_NLL = "class_nll"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveConfig:
    """The loss.

    Attributes:
        kind: IB loss or class-conditional likelihood.
        gamma: γ in [0, ∞], for the IB loss.
        label_smoothing: α of the targets.
    """

    kind: ObjectiveKind = ObjectiveKind.INFORMATION_BOTTLENECK
    gamma: float = 1.0
    label_smoothing: float = 0.05

    def __post_init__(self) -> None:
        if not self.gamma >= 0.0 or not 0.0 <= self.label_smoothing < 1.0:
            raise ConfigError(
                f"objective: gamma is {self.gamma} and label_smoothing {self.label_smoothing}; "
                "expected numbers in [0, inf] and [0, 1)"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How parameters move.

    Attributes:
        name: ``muon`` (timm: orthogonalised momentum for convolutions, AdamW for the rest),
            ``adamw`` or ``sgd``.
        learning_rate: Largest learning rate.
        weight_decay: On convolution and linear weights.
        momentum: For ``sgd`` and ``muon``.
        mean_rate: Factor on the learning rate of the mixture's means.
        other_rate: Factor on the learning rate of what ``muon`` leaves to AdamW.
        gradient_clip: Largest gradient norm; larger ones are scaled down.
    """

    name: Literal["muon", "adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    mean_rate: float = 1.0
    other_rate: float = 1.0
    gradient_clip: float = 8.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ConfigError(f"optimizer.{name} is {value}; expected a number above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate moves.

    Attributes:
        name: ``one_cycle`` (linear warm-up, cosine to zero), ``cosine`` (one_cycle without
            warm-up) or ``step``.
        warmup: Share of all steps with a rising rate, for ``one_cycle``.
        milestones: Shares of all steps after which the rate is divided by ten, for ``step``
            (the restarts of the published ImageNet training).
        cycles: Times that the schedule is gone through, each in as many steps (warm restarts);
            shares are then of a cycle's steps.
        cycle_factor: Factor on the learning rate from each cycle to the next.
        first_steps: Number of steps at the start whose loss is multiplied by `first_factor`:
            an untrained flow's first gradients are far larger than all later ones.
        first_factor: That factor (0.05 for 10 steps in the published ImageNet training).
    """

    name: Literal["one_cycle", "cosine", "step"] = "one_cycle"
    warmup: float = 0.2
    milestones: tuple[float, ...] = (1 / 3, 5 / 9, 7 / 9)
    cycles: int = 1
    cycle_factor: float = 1.0
    first_steps: int = 0
    first_factor: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup < 1.0:
            raise ConfigError(f"schedule.warmup is {self.warmup}; expected a number in [0, 1)")
        if self.cycles < 1 or not 0.0 < self.cycle_factor <= 1.0:
            raise ConfigError(
                f"schedule: cycles is {self.cycles} and cycle_factor {self.cycle_factor}; expected "
                "at least 1 and a number in (0, 1]"
            )
        if self.first_steps < 0 or not 0.0 < self.first_factor <= 1.0:
            raise ConfigError(
                f"schedule: first_steps is {self.first_steps} and first_factor "
                f"{self.first_factor}; expected at least 0 and a number in (0, 1]"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """A training run.

    Attributes:
        recipe: Name of the recipe that it started from.
        architecture: The invertible network.
        mixture: The latent mixture.
        preprocessing: The one preprocessing of training and serving.
        objective: The loss.
        optimizer: How parameters move.
        schedule: How the learning rate moves.
        augment: Random changes of training images.
        split: Roles of the images.
        epochs: Passes over the training images.
        max_steps: Most optimizer steps; a run that reaches them ends as after its last epoch,
            with the schedule fitted to them. None: `epochs` decides.
        batch_size: Images per optimizer step, over all processes and micro-batches.
        accumulate: Micro-batches that the images of a step are taken in, one after the other;
            batch norm sees one micro-batch at a time.
        ema_decay: Decay of the moving average of the weights that the bundle gets; 0: none.
        reestimate_images: Training images over which batch-norm statistics are re-estimated
            at the end.
        batch_norm: Whose images batch norm's statistics are of while several processes train:
            ``synchronised`` (of all processes: the same losses on any number of them) or
            ``local`` (each process its own: less communication).
        memory: What the backward pass finds: ``store`` (all activations), ``checkpoint`` (the
            input of each block, whose activations are computed again) or ``invert`` (the output
            of each stage, from which inputs are computed through the inverse). Only ``store`` is
            compiled.
        bf16_subnetworks: Whether subnetworks compute in bfloat16 while training; all flow
            arithmetic stays in float32.
        compile: Whether the step is compiled (needs a C++ compiler on CPU).
        workers: Processes that prepare batches.
        checkpoint_every_s: Seconds between checkpoints, which come with the next point of the
            curves (also one at every epoch's end).
        checkpoint_every_steps: Steps between checkpoints, wherever between two points of the
            curves they fall; None: by time alone.
        seed: Of everything random.
        alpha: Significance of the verdict, put in the bundle.
        conformal_coverage: Target coverage of the conformal sets, put in the bundle.
        intended_use: For the manifest.
        training_data: Description and terms of the data, for the manifest.
    """

    recipe: str
    architecture: ArchitectureConfig = field(default_factory=SmallConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    preprocessing: PreprocessingConfig
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    epochs: int = 10
    max_steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    ema_decay: float = 0.998
    reestimate_images: int = 10_000
    batch_norm: Literal["synchronised", "local"] = "synchronised"
    memory: Memory = "store"
    bf16_subnetworks: bool = False
    compile: bool = False
    workers: int = 1
    checkpoint_every_s: float = 120.0
    checkpoint_every_steps: int | None = None
    seed: int = 0
    alpha: float = 0.01
    conformal_coverage: float = 0.95
    intended_use: str = "Not stated."
    training_data: str = "Not stated."

    def __post_init__(self) -> None:
        if self.architecture.side != self.preprocessing.side:
            raise ConfigError(
                f"architecture.side is {self.architecture.side} px and preprocessing.side "
                f"{self.preprocessing.side} px; they must be equal; set both"
            )
        if self.epochs < 1 or self.batch_size < 2:
            raise ConfigError(
                f"epochs is {self.epochs} and batch_size {self.batch_size}; expected at least "
                "1 and 2"
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ConfigError(
                f"accumulate is {self.accumulate} and batch_size {self.batch_size}; expected at "
                "least 1 micro-batch, all of the same size; batch_size must be a multiple of it"
            )
        for name in ("max_steps", "checkpoint_every_steps"):
            steps = getattr(self, name)
            if steps is not None and steps < 1:
                raise ConfigError(f"{name} is {steps}; expected at least 1, or null")
        for name, allowed in (("batch_norm", ("synchronised", "local")), ("memory", MEMORY)):
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(allowed)}"
                )
        if self.memory == "invert" and self.bf16_subnetworks:
            raise ConfigError(
                "memory is invert and bf16_subnetworks true: through bfloat16 an inverse misses "
                "its input by up to 2 %; expected one of them; set memory=checkpoint or "
                "bf16_subnetworks=false"
            )
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError(f"ema_decay is {self.ema_decay}; expected a number in [0, 1)")
        for name in ("alpha", "conformal_coverage"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise ConfigError(f"{name} is {value}; expected a number in (0, 1)")


def to_dict(config: FitConfig) -> dict[str, Any]:
    """The config as plain data."""
    values = dataclasses.asdict(config)
    values["architecture"] = architecture_to_dict(config.architecture)
    values["preprocessing"] = config.preprocessing.to_dict()
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def from_dict(values: dict[str, Any]) -> FitConfig:
    """The config that `to_dict` wrote.

    Raises:
        ConfigError: A key is unknown or a value is not valid; the message names it.
    """
    values = dict(values)
    architecture = architecture_from_dict(values.pop("architecture"))
    _validated(type(architecture), dataclasses.asdict(architecture), "architecture")
    preprocessing = PreprocessingConfig.from_dict(values.pop("preprocessing"))
    parts: dict[str, Any] = {}
    sections = {
        "mixture": MixtureConfig,
        "objective": ObjectiveConfig,
        "optimizer": OptimizerConfig,
        "schedule": ScheduleConfig,
        "augment": AugmentConfig,
        "split": SplitConfig,
    }
    for key, kind in sections.items():
        if key in values:
            parts[key] = _validated(kind, values.pop(key), key)
    known = {f.name for f in dataclasses.fields(FitConfig)}
    _check_known(values, known, "")
    scalars = {f.name: f.type for f in dataclasses.fields(FitConfig) if f.name in values}
    for key in scalars:
        values[key] = _validated(_SCALARS[key], values[key], key)
    return FitConfig(architecture=architecture, preprocessing=preprocessing, **parts, **values)


_SCALARS: dict[str, Any] = {
    "recipe": str,
    "epochs": int,
    "max_steps": int | None,
    "batch_size": int,
    "accumulate": int,
    "ema_decay": float,
    "reestimate_images": int,
    "batch_norm": str,
    "memory": str,
    "bf16_subnetworks": bool,
    "compile": bool,
    "workers": int,
    "checkpoint_every_s": float,
    "checkpoint_every_steps": int | None,
    "seed": int,
    "alpha": float,
    "conformal_coverage": float,
    "intended_use": str,
    "training_data": str,
}


def override(config: FitConfig, assignments: Sequence[str]) -> FitConfig:
    """The config with ``key=value`` assignments applied, such as ``optimizer.name=sgd``.

    Values are read as JSON where they parse as such, as text otherwise.

    Raises:
        ConfigError: An assignment has no ``=``, names an unknown key, or its value is not valid.
    """
    values = to_dict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {assignment!r}: expected key=value, such as epochs=20")
        *path, last = key.split(".")
        section = values
        for name in path:
            inner = section.get(name)
            if not isinstance(inner, dict):
                raise ConfigError(_unknown_key(key, section))
            section = inner
        if last not in section:
            raise ConfigError(_unknown_key(key, section))
        try:
            section[last] = json.loads(text)
        except json.JSONDecodeError:
            section[last] = text
    return from_dict(values)


def digest(config: FitConfig) -> str:
    """sha256 (hex) of what determines the trained weights."""
    values = to_dict(config)
    for key in (
        "workers",
        "checkpoint_every_s",
        "checkpoint_every_steps",
        "memory",
        "alpha",
        "conformal_coverage",
        "compile",
        "intended_use",
        "training_data",
        "reestimate_images",
    ):
        del values[key]
    # Came later: runs that were started without them keep their digests.
    later: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        (values["mixture"], {"means": MixtureConfig().means}),
        (
            values["schedule"],
            {"first_steps": 0, "first_factor": 1.0, "cycles": 1, "cycle_factor": 1.0},
        ),
        (values, {"max_steps": None, "accumulate": 1, "batch_norm": "synchronised"}),
    )
    for section, defaults in later:
        for key, default in defaults.items():
            if section[key] == default:
                del section[key]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _unknown_key(key: str, section: dict[str, Any]) -> str:
    return (
        f"--set: unknown key {key!r}; there are: {', '.join(sorted(section))}; "
        "see `ibinn-train recipes --show NAME`"
    )


def _check_known(values: dict[str, Any], known: set[str], prefix: str) -> None:
    if unknown := sorted(set(values) - known):
        raise ConfigError(
            f"unknown key {prefix + unknown[0]!r}; there are: {', '.join(sorted(known))}; "
            "remove or rename it"
        )


def _validated(kind: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        _check_known(value, {f.name for f in dataclasses.fields(kind)}, f"{key}.")
    try:
        return pydantic.TypeAdapter(kind).validate_python(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join([key, *(str(part) for part in first["loc"])])
        raise ConfigError(f"{where} is {first['input']!r}: {first['msg']}") from error
