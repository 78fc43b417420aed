"""A training run from data to bundle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch.distributed import is_torchelastic_launched

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import ConfigError, DataError
from ibinn.latent import GaussianMixture
from ibinn.manifest import Manifest
from ibinn.ood.p_values import check_alpha
from ibinn.types import TestKind
from training.config import FitConfig, from_dict, to_dict
from training.data import DataSource, ImageSet, open_data
from training.loop import CHECKPOINT, Progress, Trained, TrainingData, train
from training.retraining.composed import recorded_split
from training.scan import Progress as ReadProgress
from training.splits import Role, SplitManifest, make_splits, role_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Where a run computes.

    Attributes:
        accelerator: Fabric's name: ``auto``, ``cpu``, ``cuda``.
        devices: Number of processes on this machine. Under torchrun its settings decide, on
            several machines too.
    """

    accelerator: str = "auto"
    devices: int = 1

    def fabric(self) -> Fabric:
        """A launched Fabric; under torchrun it joins the processes that are there.

        Raises:
            ConfigError: There is no such accelerator, or not as many devices, or torchrun was
                started so that processes that it starts again would not find each other.
        """
        devices, nodes = self.devices, 1
        if is_torchelastic_launched():
            _check_restarts()
            devices = int(os.environ["LOCAL_WORLD_SIZE"])
            nodes = int(os.environ["WORLD_SIZE"]) // devices
            if self.devices not in (1, devices):
                raise ConfigError(
                    f"--devices is {self.devices} and torchrun has started {devices} processes on "
                    "this machine; leave --devices out"
                )
        try:
            fabric = Fabric(accelerator=self.accelerator, devices=devices, num_nodes=nodes)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ConfigError(
                f"accelerator is {self.accelerator!r} with {devices} devices: {error} "
                "expected auto, cpu or cuda and as many devices as there are; change --accelerator "
                "or --devices"
            ) from error
        fabric.launch()
        return fabric


def _check_restarts() -> None:
    """Refuses a torchrun whose restarts would now and then fail.

    Raises:
        ConfigError: It may start processes again and keeps one store for all attempts: there they
            would find the addresses of processes that are gone.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ConfigError(
            f"torchrun may start processes again (--max-restarts={restarts}) and shares one store "
            "between all attempts, in which new processes find the addresses of dead ones; set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run's data with its roles settled.

    Attributes:
        source: The data.
        manifest: Which image serves which purpose.
    """

    source: DataSource
    manifest: SplitManifest

    @property
    def split_digest(self) -> str:
        """sha256 (hex) over the roles' digests."""
        text = json.dumps({role.value: value for role, value in self.manifest.sha256.items()})
        return hashlib.sha256(text.encode()).hexdigest()


def prepare(
    config: FitConfig,
    data: str,
    out: Path,
    *,
    skip_unreadable: bool = False,
    group_by: str | None = None,
    write: bool = True,
    progress: ReadProgress | None = None,
) -> Prepared:
    """Open the data and split it; a new run's folder gets the split and the configuration.

    Args:
        config: The run.
        data: As `open_data` takes it.
        out: Folder of the run.
        skip_unreadable: Go on without unreadable files.
        group_by: What images are kept together.
        write: Whether the folder is written to: of many processes, only by the first.
        progress: Told how many images have been read.

    Raises:
        DataError: The data cannot be used as it is.
        ConfigError: The run's folder cannot be made.
        AlphaTooSmallError: The calibration images are too few for the verdict's α.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"out is {out}, which cannot be made ({error.strerror}); give a folder"
        ) from error
    source = open_data(data, skip_unreadable=skip_unreadable, group_by=group_by, progress=progress)
    path = out / "split.json"
    resumed = (out / CHECKPOINT).exists()  # a run keeps what it was started with
    manifest = SplitManifest.load(path) if resumed else make_splits(source, config.split)
    # Before the training, not after it.
    check_alpha(config.alpha, len(manifest.roles[Role.CALIBRATION_B]), TestKind.HIGH_IS_UNUSUAL)
    if write and not resumed:
        manifest.save(path)
        (out / "config.json").write_text(json.dumps(to_dict(config), indent=2) + "\n")
    return Prepared(source=source, manifest=manifest)


def held_out_images(
    manifest: Manifest, data: str, *, skip_unreadable: bool = False, group_by: str | None = None
) -> ImageSet:
    """The test images that a bundle may be judged on.

    The data's own test set, or else the test part of the split that the bundle was trained
    with, made again and checked against the digest in the manifest.

    Raises:
        DataError: The data has no test set and is not what the bundle was trained on.
    """
    source = open_data(data, skip_unreadable=skip_unreadable, group_by=group_by)
    if source.test is not None:
        return source.test
    config = from_dict(dict(manifest.training.config))
    split = recorded_split(data) or make_splits(source, config.split)
    expected = manifest.training.split_sha256.get(Role.TEST.value)
    if split.sha256[Role.TEST] != expected:
        raise DataError(
            f"{data} has no test images of its own, and its split (test sha256 "
            f"{split.sha256[Role.TEST][:12]}) is not that of the bundle's training "
            f"({(expected or 'none')[:12]}): its images may have been trained on; give the "
            "data of the training run, or a folder with train/ and test/"
        )
    return role_set(source, split, Role.TEST)


def build_model(config: FitConfig, classes: int) -> GenerativeClassifier:
    """The untrained classifier of a run, the same for the same seed."""
    torch.manual_seed(config.seed)
    network = config.architecture.build()
    generator = torch.Generator().manual_seed(config.seed)
    mixture = GaussianMixture(classes, network.dims, config.mixture, generator=generator)
    return GenerativeClassifier(network, mixture)


def train_model(
    config: FitConfig,
    prepared: Prepared,
    out: Path,
    *,
    fabric: Fabric,
    progress: Progress,
    stop_after_s: float | None = None,
) -> Trained | None:
    """Train, going on from the folder's checkpoint if there is one; see `training.loop.train`."""
    source, manifest = prepared.source, prepared.manifest
    data = TrainingData(
        train=role_set(source, manifest, Role.TRAIN),
        validation=role_set(source, manifest, Role.VALIDATION),
        split_digest=prepared.split_digest,
    )
    return train(
        build_model(config, len(source.train.class_names)),
        data,
        compiling(config, fabric.device),
        fabric=fabric,
        out=out,
        progress=progress,
        stop_after_s=stop_after_s,
    )


def compiling(config: FitConfig, device: torch.device) -> FitConfig:
    """The configuration without compilation where there is no compiler for the device."""
    return replace(config, compile=config.compile and (device.type != "cpu" or _has_compiler()))


def _has_compiler() -> bool:
    """Whether torch can compile for the CPU: a C++ compiler and Python's headers are there."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.is_file() and any(shutil.which(name) for name in ("g++", "clang++", "c++"))
