"""The weights of a bundle's model: stored small, and loaded without a second copy of them.

In the file, convolution and linear weights of subnetworks are float16 where that loses nothing;
everything else is as the model has it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ibinn import tensor_file
from ibinn.classifier import GenerativeClassifier
from ibinn.errors import BundleError, BundleFormatError, IbinnError
from ibinn.flow.architectures import from_dict as architecture_from_dict
from ibinn.images import PreprocessingConfig
from ibinn.latent import GaussianMixture, MixtureConfig
from ibinn.manifest import FILE, Manifest
from ibinn.paged import ALIGNMENT, PagedMemory
from ibinn.unfilled import Unfilled

WEIGHTS = "weights.safetensors"

_NOT_STORED = "num_batches_tracked"


def write(model: GenerativeClassifier, folder: Path) -> None:
    """Write the weights file of a model on any device."""
    stored = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().cpu().contiguous()
        if _NOT_STORED in name:
            continue
        small = value.dim() >= 1 and _in_subnetwork(model, name)
        stored[name] = value.half() if small and torch.equal(value.half().float(), value) else value
    tensor_file.write(stored, folder / WEIGHTS)


def load(found: Manifest, folder: Path, content: bytearray | None) -> GenerativeClassifier:
    """The model of a bundle, in evaluation mode, its tensors views into the file's bytes.

    Args:
        found: The bundle's manifest.
        folder: The bundle's folder; names files in errors.
        content: Bytes of the weights file, checked; None if the manifest does not list it.

    Raises:
        BundleFormatError: The weights are not listed, not whole, not finite, or not those of the
            architecture.
    """
    if content is None:
        raise BundleFormatError(
            f"{folder / FILE}: {WEIGHTS} is not among its files ({', '.join(found.files)}"
            "); without its sha256 it is not loaded; export the bundle again"
        )
    try:
        with Unfilled():
            network = architecture_from_dict(found.architecture).build()
            mixture = GaussianMixture(
                len(found.classes), network.dims, MixtureConfig(**found.mixture)
            )
            model = GenerativeClassifier(network, mixture)
        PreprocessingConfig.from_dict(found.preprocessing)
        state = _loaded_state(model, content)
        missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    except (IbinnError, TypeError, OSError, RuntimeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleFormatError(
            f"{folder}: the model cannot be built ({error}); the bundle does not fit this "
            "version of ibinn, export it again"
        ) from error
    missing = [name for name in missing if _NOT_STORED not in name]
    if missing or unexpected:
        raise BundleFormatError(
            f"{folder / WEIGHTS}: "
            + (
                f"tensor {missing[0]!r} is missing"
                if missing
                else f"tensor {unexpected[0]!r} belongs to no layer"
            )
            + "; expected exactly the tensors of the architecture; export the bundle again"
        )
    if broken := [name for name, value in state.items() if not _is_finite(value)]:
        raise BundleFormatError(
            f"{folder / WEIGHTS}: tensor {broken[0]!r} holds values that are not finite; a model "
            "with them assesses nothing; train it again from a checkpoint before they came"
        )
    return model.eval().requires_grad_(requires_grad=False)


def move_to(memory: PagedMemory, model: nn.Module) -> None:
    """Let the tensors of a model on the processor lie in paged memory, not in a file's bytes."""
    for parameter in model.parameters():
        parameter.data = torch.from_numpy(memory.store(parameter.detach().numpy()))
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            # A new tensor: with other data a view would go on holding what it was a view into.
            setattr(module, name, torch.from_numpy(memory.store(buffer.numpy())))


def size_of(model: nn.Module) -> int:
    """Bytes that `move_to` needs."""
    return sum(
        -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        for tensor in (*model.parameters(), *model.buffers())
    )


@torch.no_grad()
def use_channels_last(model: nn.Module) -> None:
    """Lay the weights of convolutions out with channels last, which is faster, in place.

    Those of 1x1 convolutions lie in memory that way already: they are not copied, as
    ``model.to(memory_format=...)`` would.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight
            if weight.shape[2:] == (1, 1):
                width = weight.shape[1]
                weight.data = weight.contiguous().as_strided(
                    weight.shape, (width, 1, width, width), weight.storage_offset()
                )
            else:
                weight.data = weight.contiguous(memory_format=torch.channels_last)


def _loaded_state(model: GenerativeClassifier, content: bytearray) -> dict[str, Tensor]:
    """Stored tensors in the types that the model has them in.

    Tensors of a file that fits are views into its bytes. Where some must be widened, all are
    copied, so that the bytes can go.
    """
    expected = {name: value.dtype for name, value in model.state_dict().items()}
    stored = tensor_file.views(content)
    fits = all(value.dtype is expected.get(name) for name, value in stored.items())
    return {
        name: value if fits else value.to(expected.get(name, value.dtype), copy=True)
        for name, value in stored.items()
    }


def _is_finite(value: Tensor) -> bool:
    if not value.is_floating_point():
        return True
    # One pass and no copy; a sum that overflows is looked at again.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _in_subnetwork(model: GenerativeClassifier, name: str) -> bool:
    module = model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, nn.Conv2d | nn.Linear)
