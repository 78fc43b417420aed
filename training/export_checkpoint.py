"""A bundle written back as a checkpoint in the released layout.

Of an imported bundle the tensors are those of the file it came from, bit by bit; only scratch
tensors and the optimizer's state are not there, which no reader needs.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from ibinn import bundle, manifest
from ibinn.errors import ConfigError
from ibinn.flow.architectures import from_dict as architecture_from_dict
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.latent import MixtureConfig
from ibinn.manifest import Manifest
from training.import_checkpoint import REMAINDER
from training.released_file import MEANS
from training.released_model import CLAMP, Remainder, tensors_of


def export_checkpoint(folder: Path, out: Path) -> int:
    """Write a bundle's network and means in the released layout.

    Args:
        folder: The bundle.
        out: The file; one that exists is not overwritten.

    Returns:
        Number of tensors written.

    Raises:
        ConfigError: The layout has no place for this model, or `out` exists or cannot be written.
        BundleError: The bundle cannot be used.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; choose another file with --out, or remove it")
    found = manifest.read(folder)
    _check_fits(found)
    content = manifest.read_files(found, folder, (REMAINDER,)).get(REMAINDER)
    remainder = None if content is None else Remainder.from_json(bytes(content))
    model, _ = bundle.load_model(folder)
    if bool((model.mixture.phi != model.mixture.phi[0]).any()):
        raise ConfigError(
            f"{folder} has classes of different weight; the released layout has no place for "
            "weights of classes; only models with equal ones can be exported"
        )
    tensors = tensors_of(model, remainder)
    written: dict[str, object] = {
        "inn": OrderedDict((key, value) for key, value in tensors.items() if key not in MEANS)
    }
    written |= {name: nn.Parameter(tensors[name]) for name in MEANS}
    temporary = out.with_name(f".{out.name}.partial")
    try:
        with temporary.open("wb") as file:
            torch.save(written, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{out} cannot be written: {error}; choose another --out") from error
    return len(tensors)


def _check_fits(found: Manifest) -> None:
    architecture = architecture_from_dict(found.architecture)
    mixture = MixtureConfig(**found.mixture)
    if not isinstance(architecture, IbInn50Config):
        problem = f"architecture is {found.architecture.get('name')}; expected ib-inn-50"
    elif architecture.pooling != "published":
        problem = f"pooling is {architecture.pooling}; expected published"
    elif architecture.clamp != CLAMP:
        problem = f"clamp is {architecture.clamp:g}; expected {CLAMP:g}, which is not in the file"
    elif mixture.rank is None:
        problem = "means are full; expected low-rank ones (mixture.rank)"
    else:
        return
    raise ConfigError(
        f"{found.name}: the released layout has no place for it: {problem}; only a model of those "
        "settings can be exported"
    )
