"""The studies that there are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ibinn.errors import ConfigError
from ibinn.flow.architectures import SmallConfig
from ibinn.images import PreprocessingConfig
from training.augment import AugmentConfig
from training.config import FitConfig, ObjectiveConfig, ObjectiveKind, OptimizerConfig
from training.recipes import recipe
from training.splits import SplitConfig
from training.study.plan import Block, Entry, ModelKind, Study

GAMMAS = (0.0, 0.1, 1.0, 10.0, math.inf)

CIFAR_SETS = ("rotation", "noise-0.1", "noise-0.015", "digits", "tiny-imagenet")
SMALL_SETS = ("rotation", "drawings", "noise-0.015", "other-digits")


def _gamma(gamma: float) -> Entry:
    text = "∞" if math.isinf(gamma) else f"{gamma:g}"
    return Entry(
        name=f"gamma-{'inf' if math.isinf(gamma) else text}",
        label=f"γ = {text}",
        objective=ObjectiveConfig(gamma=gamma),
        published={0.0: "γ = 0", 1.0: "IB-INN γ = 1", math.inf: "γ → ∞"}.get(gamma, ""),
    )


_CLASS_NLL = ObjectiveConfig(kind=ObjectiveKind.CLASS_NLL)

ENTRIES = (
    *(_gamma(gamma) for gamma in GAMMAS),
    Entry(name="class-nll", label="class-NLL", objective=_CLASS_NLL, published="class-NLL"),
    Entry(
        name="class-nll-fixed",
        label="class-NLL, means fixed",
        objective=_CLASS_NLL,
        sphere=True,
        published="class-NLL, fixed means",
    ),
    Entry(
        name="irevnet",
        label="i-RevNet head",
        kind=ModelKind.LINEAR_HEAD,
        peak_rate=0.05,
        published="i-RevNet",
    ),
    Entry(name="resnet", label="ResNet", kind=ModelKind.RESNET, published="ResNet"),
    Entry(name="vib", label="VIB", kind=ModelKind.VIB, published="VIB"),
)
"""Every model of table 5.1."""


def _small() -> Study:
    architecture = SmallConfig(side=16, widths=(24, 32), blocks=(2, 3), initial_scale=0.95)
    shared = FitConfig(
        recipe="digits",
        architecture=architecture,
        preprocessing=PreprocessingConfig(
            side=16, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4), interpolation="bilinear"
        ),
        optimizer=OptimizerConfig(name="muon", learning_rate=6e-3, momentum=0.9),
        augment=AugmentConfig(crop_padding=1),
        ema_decay=0.95,
        reestimate_images=1_000,
        workers=0,
        alpha=0.05,
        checkpoint_every_s=30.0,
    )
    return Study(
        name="small",
        summary="digits and MNIST at 16x16, ten models; two cores, three seeds, under 30 minutes",
        entries=ENTRIES,
        blocks=(
            Block(
                name="digits",
                source="digits",
                words="scikit-learn's 1,797 digits of 8×8, enlarged to 16×16",
                config=replace(
                    shared,
                    split=SplitConfig(
                        validation=0.02, calibration_a=0.15, calibration_b=0.15, test=0.2
                    ),
                    epochs=8,
                    batch_size=32,
                ),
                resnet_width=8,
                ood=SMALL_SETS,
                columns=("rotation", "drawings", "noise-0.015", None),
                ood_images=300,
            ),
            Block(
                name="mnist",
                source="mnist",
                words="5,000 of MNIST's training images and 1,000 of its test images, at 16×16",
                config=replace(
                    shared,
                    preprocessing=PreprocessingConfig(
                        side=16, mean=(0.13, 0.13, 0.13), std=(0.3, 0.3, 0.3), interpolation="box"
                    ),
                    split=SplitConfig(validation=0.02, calibration_a=0.09, calibration_b=0.09),
                    epochs=4,
                    batch_size=64,
                ),
                resnet_width=8,
                train_images=5_000,
                test_images=1_000,
                ood=SMALL_SETS,
                columns=("rotation", "drawings", "noise-0.015", None),
                ood_images=300,
            ),
        ),
    )


def _cifar10() -> Study:
    return Study(
        name="cifar10",
        summary="CIFAR-10 with the thesis's network, ten models; sized for an accelerator",
        entries=ENTRIES,
        blocks=(
            Block(
                name="cifar10",
                source="cifar10",
                words="CIFAR-10 that went through JPEG (quality 75) once, all images",
                config=recipe("cifar10"),
                resnet_width=36,
                ood=CIFAR_SETS,
                columns=("rotation", "digits", "noise-0.015", "tiny-imagenet"),
                ood_images=3_000,
            ),
        ),
        floor_draws=1_000,
    )


def _cifar10_two_cores() -> Study:
    full = recipe("cifar10-small")
    return Study(
        name="cifar10-two-cores",
        summary="CIFAR-10 with the embedded model's network, 2 epochs instead of 52; two cores",
        entries=ENTRIES,
        blocks=(
            Block(
                name="cifar10",
                source="cifar10",
                words="CIFAR-10 that went through JPEG (quality 75) once; 3,000 test images",
                config=replace(
                    full,
                    epochs=2,
                    schedule=replace(full.schedule, cycles=1, cycle_factor=1.0),
                    ema_decay=0.99,
                    compile=False,
                ),
                resnet_width=24,
                full_epochs=full.epochs,
                test_images=3_000,
                ood=CIFAR_SETS,
                columns=("rotation", "digits", "noise-0.015", "tiny-imagenet"),
                ood_images=1_000,
            ),
        ),
        seeds=(0,),
    )


_ALL = (_small, _cifar10, _cifar10_two_cores)

STUDIES: Mapping[str, Study] = {made.name: made for made in (make() for make in _ALL)}
"""Every study by name."""


def study(name: str) -> Study:
    """The study of a name.

    Raises:
        ConfigError: There is no such study.
    """
    if name not in STUDIES:
        raise ConfigError(f"study is {name!r}; there are: {', '.join(STUDIES)}")
    return STUDIES[name]
