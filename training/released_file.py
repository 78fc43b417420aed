"""Reading a released checkpoint without running anything that it says.

A file of `torch.save` is a pickle with its tensors, and a pickle can name any function. Here it is
read by torch's weights-only unpickler, which builds tensors and plain values alone; everything
else is refused by its name before anything is built.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibinn.errors import CheckpointError

MAX_BYTES = 8 * 2**30
"""Largest file that is read; a released one has about 0.6 GB, or twice that with its optimizer."""

MEANS = ("mu", "mu_t", "mu_m")
"""Entries of the file besides the network: the means of the latent mixture."""

_SCRATCH = "tmp_var_"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_AGAIN = "get the file again, and compare its size and checksum"


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint: the network's by their keys, and `MEANS`.

    Scratch tensors (``tmp_var_*``) and the optimizer's state are left out. Tensors of a zip file
    are mapped, not read: pages come from the disk when they are copied.

    Raises:
        CheckpointError: No such file, damaged, of another kind, or with a class in it that is
            neither a tensor nor a plain value. Nothing of the file has been executed.
    """
    size = _checked_size(path)
    with path.open("rb") as file:
        start = file.read(4)
    if start == _ZIP:
        _check_archive(path, size)
    elif not start.startswith(_PICKLE):
        raise CheckpointError(
            f"{path} is not a file of torch.save (it starts with {start!r}); expected a released "
            "checkpoint such as beta_8.avg.pt"
        )
    content = _unpickled(path, mapped=start == _ZIP)
    return _tensors_of(content, path, size)


def _checked_size(path: Path) -> int:
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise CheckpointError(
            f"{path} {problem}; expected a released checkpoint such as beta_8.avg.pt"
        )
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty; {_AGAIN}")
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{path} has {size:,} bytes; the limit is {MAX_BYTES:,}; a released checkpoint has "
            "about 600,000,000"
        )
    return size


def _check_archive(path: Path, size: int) -> None:
    """Refuse what is truncated, changed, or would grow when it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
            if packed or sum(entry.file_size for entry in entries) > size:
                raise CheckpointError(
                    f"{path}: its entries are compressed or overlap ({(packed or ['all'])[0]}); "
                    "torch.save stores them as they are; save the checkpoint again with torch"
                )
            if broken := archive.testzip():  # torch writes these checksums and does not read them
                raise CheckpointError(
                    f"{path}: entry {broken} does not have the checksum that the file states; "
                    f"it is damaged, {_AGAIN}"
                )
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path} is truncated or damaged ({error}); {_AGAIN}") from error
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # the parser meets arbitrary bytes
        raise _damaged(path, error) from error
    if foreign:
        raise _foreign(path, ", ".join(sorted(foreign)))


def _unpickled(path: Path, *, mapped: bool) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # storages of old torch versions are named as such
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mapped or None)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        raise (_foreign(path, named[1]) if named else _damaged(path, error)) from error
    except Exception as error:  # the unpickler meets arbitrary bytes
        raise _damaged(path, error) from error


def _foreign(path: Path, names: str) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {names}, which is neither a tensor nor a plain value; a checkpoint needs no "
        "such thing, and reading it could run any code; nothing of it was run; get the file from "
        "its authors"
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(f"{path} is truncated or damaged ({said}); {_AGAIN}")


def _tensors_of(content: object, path: Path, size: int) -> dict[str, Tensor]:
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}; expected a dict with inn, mu, mu_t and mu_m"
        )
    wanted = {"inn", *MEANS}
    if missing := [name for name in ("inn", *MEANS) if name not in content]:
        raise CheckpointError(
            f"{path}: entry {missing[0]!r} is missing; found {_listing(content)}; expected "
            "inn, mu, mu_t and mu_m of the ImageNet networks"
        )
    if extra := [name for name in content if name not in wanted | {"opt"}]:
        raise CheckpointError(
            f"{path}: entry {extra[0]!r} is not known; expected inn, mu, mu_t, mu_m and opt; "
            "it is a checkpoint of another kind"
        )
    network = content["inn"]
    if not isinstance(network, Mapping) or not all(isinstance(key, str) for key in network):
        raise CheckpointError(
            f"{path}: entry 'inn' is a {type(network).__name__}; expected tensors by name"
        )
    named: dict[str, Any] = {k: v for k, v in network.items() if not k.startswith(_SCRATCH)}
    named |= {name: content[name] for name in MEANS}
    found = {name: _plain(value, name, path) for name, value in named.items()}
    # Two tensors may share one storage (a matrix and its transpose); more is a way to inflate.
    if sum(tensor.nbytes for tensor in found.values()) > 2 * size:
        raise CheckpointError(
            f"{path}: its tensors are larger than the file; it was not made by saving a network"
        )
    return found


def _plain(value: object, name: str, path: Path) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        kind = value.layout if isinstance(value, Tensor) else type(value).__name__
        raise CheckpointError(f"{path}: {name!r} is a {kind}; expected a dense tensor")
    if value.device.type != "cpu" or value.nbytes > value.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {tuple(value.shape)} has no values of its own; "
            "expected one value in the file per entry"
        )
    return value.detach()


def _listing(content: Mapping[Any, object]) -> str:
    return ", ".join(repr(key) for key in list(content)[:8]) or "nothing"
