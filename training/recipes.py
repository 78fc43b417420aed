"""Named starting points for training runs; `ibinn-train fit --set` changes single values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ibinn.errors import ConfigError
from ibinn.flow.architectures import CifarConfig, SmallConfig
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.images import JpegStep, PreprocessingConfig
from ibinn.latent import MixtureConfig
from training.augment import AugmentConfig
from training.config import (
    FitConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)
from training.splits import SplitConfig

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

GAMMA = 2.0
"""γ of the ImageNet recipes. Of the published series (table 5.5) it has the smallest maximal
calibration error (3.13 %) and 71.7 % of 76.3 % attainable top-1 at 6.1 bits/dim."""

_CIFAR_DATA = (
    "CIFAR-10 (JPEG): the images of Krizhevsky 2009, recompressed once as JPEG (quality 75, "
    "4:2:0). A research data set without a licence of its own; cite the source."
)
_CIFAR_USE = (
    "Demonstration of trustworthy classification of small photographs of ten kinds of animals "
    "and vehicles. Not for decisions about people, safety or health."
)
_IMAGENET_TERMS = "ImageNet's images are for non-commercial research and education only."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named configuration.

    Attributes:
        name: What `--recipe` takes.
        summary: What it trains, on what, in what time.
        make: Gives the configuration.
        classes: Classes of the data that the configuration's texts speak of, or how many.
    """

    name: str
    summary: str
    make: Callable[[], FitConfig]
    classes: frozenset[str] | int


_CIFAR_CLASSES = frozenset(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
)
_DIGIT_CLASSES = frozenset("0123456789")
_ELPV_CLASSES = frozenset(("functional", "defective"))


def _cifar_preprocessing() -> PreprocessingConfig:
    return PreprocessingConfig(side=32, mean=CIFAR_MEAN, std=CIFAR_STD, jpeg=JpegStep())


def _digits() -> FitConfig:
    return FitConfig(
        recipe="digits",
        architecture=SmallConfig(side=16, widths=(24, 32), blocks=(2, 3), initial_scale=0.95),
        preprocessing=PreprocessingConfig(
            side=16, mean=(0.3, 0.3, 0.3), std=(0.4, 0.4, 0.4), interpolation="bilinear"
        ),
        optimizer=OptimizerConfig(name="muon", learning_rate=6e-3, momentum=0.9),
        augment=AugmentConfig(crop_padding=1),
        split=SplitConfig(validation=0.06, calibration_a=0.15, calibration_b=0.15, test=0.2),
        epochs=12,
        batch_size=32,
        ema_decay=0.95,
        workers=0,
        alpha=0.05,
        training_data="scikit-learn's digits: 1,797 images of 8x8 (UCI ML hand-written digits).",
        intended_use="Tests and tutorials.",
    )


def _cifar10_small() -> FitConfig:
    return FitConfig(
        recipe="cifar10-small",
        architecture=SmallConfig(),
        preprocessing=_cifar_preprocessing(),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=5e-3,
            weight_decay=0.02,
            momentum=0.95,
            other_rate=0.6,
        ),
        schedule=ScheduleConfig(warmup=0.15, cycles=2, cycle_factor=0.5),
        augment=AugmentConfig(crop_padding=3, flip=True),
        epochs=52,
        batch_size=128,
        ema_decay=0.998,
        compile=True,
        training_data=_CIFAR_DATA,
        intended_use=_CIFAR_USE,
    )


def _cifar10_small_accelerator() -> FitConfig:
    return FitConfig(
        recipe="cifar10-small-accelerator",
        architecture=SmallConfig(widths=(96, 192, 256), blocks=(6, 10, 5)),
        preprocessing=_cifar_preprocessing(),
        optimizer=OptimizerConfig(
            name="muon",
            learning_rate=1e-2,
            weight_decay=0.02,
            momentum=0.95,
            other_rate=0.4,
        ),
        schedule=ScheduleConfig(warmup=0.1),
        augment=AugmentConfig(crop_padding=4, flip=True, color_jitter=0.1, rotation_degrees=8.0),
        epochs=120,
        batch_size=512,
        ema_decay=0.999,
        bf16_subnetworks=True,
        compile=True,
        workers=14,
        training_data=_CIFAR_DATA,
        intended_use=_CIFAR_USE,
    )


def _cifar10() -> FitConfig:
    return FitConfig(
        recipe="cifar10",
        architecture=CifarConfig(),
        preprocessing=_cifar_preprocessing(),
        optimizer=OptimizerConfig(
            name="sgd", learning_rate=0.14, momentum=0.9, weight_decay=1e-4, mean_rate=3.0
        ),
        schedule=ScheduleConfig(name="one_cycle", warmup=0.1),
        augment=AugmentConfig(crop_padding=4, flip=True, color_jitter=0.1, rotation_degrees=12.0),
        epochs=60,
        batch_size=512,
        ema_decay=0.998,
        bf16_subnetworks=True,
        compile=True,
        workers=14,
        training_data=_CIFAR_DATA,
        intended_use=_CIFAR_USE,
    )


def _mnist_loop() -> FitConfig:
    return FitConfig(
        recipe="mnist-loop",
        architecture=SmallConfig(side=28, widths=(16, 32), blocks=(2, 3), initial_scale=0.95),
        preprocessing=PreprocessingConfig(
            side=28, mean=(0.13, 0.13, 0.13), std=(0.3, 0.3, 0.3), interpolation="box"
        ),
        objective=ObjectiveConfig(gamma=4.0),
        optimizer=OptimizerConfig(name="muon", learning_rate=6e-3, momentum=0.9),
        augment=AugmentConfig(crop_padding=1),
        split=SplitConfig(validation=0.02, calibration_a=0.1, calibration_b=0.15, test=0.03),
        epochs=6,
        batch_size=64,
        ema_decay=0.99,
        workers=0,
        training_data=(
            "MNIST: digits of the training set without 9 (LeCun et al. 1998). A research data set "
            "without a licence of its own; cite the source."
        ),
        intended_use="The base model of `make loop`; tests and tutorials.",
    )


def _elpv() -> FitConfig:
    return FitConfig(
        recipe="elpv",
        architecture=SmallConfig(side=128, widths=(24, 48, 64, 64), blocks=(2, 3, 4, 3)),
        preprocessing=PreprocessingConfig(
            side=128, mean=(0.45, 0.45, 0.45), std=(0.25, 0.25, 0.25), interpolation="box"
        ),
        optimizer=OptimizerConfig(name="muon", learning_rate=4e-3, momentum=0.95),
        augment=AugmentConfig(crop_padding=4, flip=True),
        split=SplitConfig(validation=0.05, calibration_a=0.15, calibration_b=0.15, test=0.15),
        epochs=20,
        batch_size=16,
        ema_decay=0.99,
        alpha=0.05,
        training_data=(
            "ELPV: 2,624 electroluminescence photographs of solar cells (Buerhop-Lutz et al. "
            "2018; Deitsch et al. 2019), CC BY-NC-SA 4.0: non-commercial use only."
        ),
        intended_use="Demonstration of inspection of solar cells: functional or defective.",
    )


def _tiny_imagenet() -> FitConfig:
    side = 64
    architecture = IbInn50Config(side=side, haar=False)
    return FitConfig(
        recipe="tiny-imagenet",
        architecture=architecture,
        mixture=_low_rank(architecture, rank=64),
        # Its files are JPEG of quality 75, 4:2:0 at 64x64: see "The JPEG step" of CIFAR-10.
        preprocessing=PreprocessingConfig(
            side=side, mean=IMAGENET_MEAN, std=IMAGENET_STD, jpeg=JpegStep()
        ),
        objective=ObjectiveConfig(gamma=GAMMA),
        optimizer=OptimizerConfig(
            name="muon", learning_rate=1e-2, weight_decay=0.02, momentum=0.95, other_rate=0.4
        ),
        schedule=ScheduleConfig(warmup=0.1),
        augment=AugmentConfig(crop_padding=8, flip=True, color_jitter=0.1),
        # Part B gets 25 images of each class, enough for class-wise tests at 0.05.
        split=SplitConfig(validation=0.02, calibration_a=0.04, calibration_b=0.05),
        epochs=80,
        batch_size=512,
        ema_decay=0.999,
        bf16_subnetworks=True,
        compile=True,
        workers=14,
        training_data=(
            "Tiny ImageNet: 100,000 images of 64x64 in 200 classes of ImageNet (Le and Yang 2015; "
            f"Russakovsky et al. 2015). {_IMAGENET_TERMS}"
        ),
        intended_use=(
            "Demonstration of trustworthy classification of small photographs into 200 kinds of "
            "animals and things. Not for decisions about people, safety or health."
        ),
    )


def _imagenet() -> FitConfig:
    architecture = IbInn50Config()
    return FitConfig(
        recipe="imagenet",
        architecture=architecture,
        mixture=_low_rank(architecture, rank=128),
        preprocessing=PreprocessingConfig(
            side=architecture.side, mean=IMAGENET_MEAN, std=IMAGENET_STD, shorter_side=256
        ),
        objective=ObjectiveConfig(gamma=GAMMA),
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.07, momentum=0.9),
        schedule=ScheduleConfig(
            name="step", milestones=(0.5, 0.75, 0.9), first_steps=10, first_factor=0.05
        ),
        augment=AugmentConfig(flip=True, random_resized_crop_min=0.08),
        split=SplitConfig(validation=0.004, calibration_a=0.01, calibration_b=0.02),
        epochs=90,
        batch_size=128,
        ema_decay=0.0,
        reestimate_images=50_000,
        bf16_subnetworks=True,
        compile=True,
        workers=14,
        training_data=(
            "ImageNet (ILSVRC 2012): 1.28 million photographs in 1,000 classes (Russakovsky et "
            f"al. 2015). {_IMAGENET_TERMS}"
        ),
        intended_use=(
            "Research on trustworthy classification of photographs into ImageNet's 1,000 classes. "
            "Not for decisions about people, safety or health."
        ),
    )


def _low_rank(architecture: IbInn50Config, *, rank: int) -> MixtureConfig:
    """Full means where the pooling puts each channel's mean, a low-rank product elsewhere."""
    channels: int = 4 ** (1 + architecture.haar + architecture.strides.count(2))
    return MixtureConfig(rank=rank, class_dims=architecture.channels * channels)


_ALL = (
    Recipe(
        name="digits",
        summary="scikit-learn's digits at 16x16; under a minute on two cores; for tests",
        make=_digits,
        classes=_DIGIT_CLASSES,
    ),
    Recipe(
        name="cifar10-small",
        summary="the embedded model: CIFAR-10, 1.63 M parameters; 1.5 to 3 h on two cores",
        make=_cifar10_small,
        classes=_CIFAR_CLASSES,
    ),
    Recipe(
        name="cifar10-small-accelerator",
        summary="a wider one of the same kind; sized for 20 minutes on one H100 (not timed yet)",
        make=_cifar10_small_accelerator,
        classes=_CIFAR_CLASSES,
    ),
    Recipe(
        name="cifar10",
        summary="the thesis's CIFAR network; sized for 20 minutes on one H100 (not timed yet)",
        make=_cifar10,
        classes=_CIFAR_CLASSES,
    ),
    Recipe(
        name="mnist-loop",
        summary="the base model of `make loop`: MNIST at 28x28 without 9; about a minute",
        make=_mnist_loop,
        classes=_DIGIT_CLASSES - {"9"},
    ),
    Recipe(
        name="elpv",
        summary="photographs of solar cells at 128x128, functional or defective; two cores",
        make=_elpv,
        classes=_ELPV_CLASSES,
    ),
    Recipe(
        name="tiny-imagenet",
        summary="IB-INN-50 at 64x64, 200 classes, 29.5 M parameters in the network; sized for one "
        "H100 (not timed yet)",
        make=_tiny_imagenet,
        classes=200,
    ),
    Recipe(
        name="imagenet",
        summary="IB-INN-50 at 224x224 as published, 77.5 M parameters; for many accelerators "
        "(not timed yet)",
        make=_imagenet,
        classes=1000,
    ),
)

RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every recipe by name."""


def described(config: FitConfig, *, data: str, class_names: Sequence[str]) -> FitConfig:
    """The configuration with texts that fit the data.

    A recipe's own words on data and use hold for the data that it was made for. On other
    classes they are replaced, unless ``--set`` gave words of the user's.
    """
    known = RECIPES.get(config.recipe)
    if known is None:
        return config
    # Names of a thousand classes differ between copies of a data set; their number does not.
    fits = len(class_names) if isinstance(known.classes, int) else frozenset(class_names)
    if known.classes == fits:
        return config
    default = known.make()
    if config.training_data == default.training_data:
        text = f"{data}: {len(class_names)} classes; terms not stated (--set training_data=...)."
        config = replace(config, training_data=text)
    if config.intended_use == default.intended_use:
        config = replace(config, intended_use="Not stated (--set intended_use=...).")
    return config


def recipe(name: str) -> FitConfig:
    """The configuration of a recipe.

    Raises:
        ConfigError: There is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(
            f"recipe is {name!r}; there are: {', '.join(RECIPES)}; see `ibinn-train recipes`"
        )
    return RECIPES[name].make()
