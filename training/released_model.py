"""A model from the tensors of a released checkpoint, and its tensors back.

All sizes come from the tensors. Every tensor is looked at: none may be missing, too much, of
another shape or type, or hold a value that is not finite.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from ibinn.classifier import GenerativeClassifier
from ibinn.errors import BundleFormatError, CheckpointError, ConfigError
from ibinn.flow.ib_inn_50 import IbInn50Config
from ibinn.latent import GaussianMixture, MixtureConfig
from training.released_layout import Slot, slots

CLAMP = 0.7
"""Largest |log-scale| of the released networks; it is not in the file."""

BATCHES = ".num_batches_tracked"

_LAYER = re.compile(r"module_list\.([1-9]\d{0,3})\.(\S+)")
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedSizes:
    """What a checkpoint's tensors say about its network.

    Attributes:
        architecture: The network.
        mixture: Shape of the means.
        classes: K.
        pooling_number: Number of the pooling layer in the keys.
    """

    architecture: IbInn50Config
    mixture: MixtureConfig
    classes: int
    pooling_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remainder:
    """What a checkpoint holds and a bundle's weights do not, so that an export is equal bit by bit.

    Attributes:
        pooling_number: Number of the pooling layer in the keys.
        batches: Training batches that each batch norm has seen, by key.
        cosines: The pooling's matrices as the file had them: float32 trigonometry differs in the
            last bit from library to library.
    """

    pooling_number: int
    batches: Mapping[str, int] = field(default_factory=dict)
    cosines: Mapping[str, list[list[float]]] = field(default_factory=dict)

    def to_json(self) -> str:
        """For a file beside the weights."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Remainder:
        """What `to_json` wrote.

        Raises:
            BundleFormatError: It is not.
        """
        try:
            found = cls(**json.loads(text))
            if not all(isinstance(count, int) for count in found.batches.values()):
                raise ValueError("batches are not whole numbers")
            for rows in found.cosines.values():
                torch.tensor(rows, dtype=torch.float32)
        except (ValueError, TypeError, AttributeError) as error:
            raise BundleFormatError(
                f"the remainder of the imported checkpoint is not readable ({error}); import the "
                "checkpoint again"
            ) from error
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedModel:
    """What a checkpoint holds.

    Attributes:
        model: The classifier, in evaluation mode.
        sizes: What the tensors say about it.
        remainder: What the model has no place for.
    """

    model: GenerativeClassifier
    sizes: ReleasedSizes
    remainder: Remainder


def sizes_of(tensors: Mapping[str, Tensor]) -> ReleasedSizes:
    """Sizes of the network that a checkpoint's tensors are of.

    Raises:
        CheckpointError: A tensor that says a size is missing or misshapen, or the layers are not
            those of an ImageNet IB-INN.
    """
    layers = _kinds(tensors)
    *flow, pooling = sorted(layers)
    if flow != list(range(1, len(flow) + 1)):
        gap = next(n for n in range(1, len(flow) + 2) if n not in flow)
        raise CheckpointError(
            f"tensors 'module_list.{gap}.*' are missing, a later layer has its own; expected the "
            "entry, Haar and couplings numbered without a gap; the file is incomplete"
        )
    kinds = [layers[number] for number in flow]
    haar = "haar" in kinds
    start = ["down", "haar", "coupling"] if haar else ["down", "coupling"]
    if layers[pooling] != "pooling" or kinds[: len(start)] != start or "haar" in kinds[2:]:
        raise CheckpointError(
            f"layers are {', '.join([*kinds[:4], '…', layers[pooling]])}; expected a down-sampling "
            "coupling, Haar, couplings, and the pooling last"
        )
    width = _size(tensors, "module_list.1.s_hi.0.weight", 0, dims=4)
    first = _size(tensors, "module_list.1.s_hi.0.weight", 1, dims=4)
    second = _size(tensors, "module_list.1.s_lo.0.weight", 1, dims=4) // 4
    blocks, strides = _stages(tensors, flow[len(start) :], kinds[len(start) :], width)
    class_dims = _size(tensors, "mu", 2, dims=3)
    dims = class_dims + _size(tensors, "mu_m", 1, dims=2)
    channels = first + second
    side = math.isqrt(dims // channels)
    if channels * side**2 != dims:
        raise CheckpointError(
            f"'mu' and 'mu_m' have {class_dims} + {dims - class_dims} dimensions; expected "
            f"{channels}·side² for a square image of {channels} channels"
        )
    try:
        return ReleasedSizes(
            architecture=IbInn50Config(
                side=side,
                channels=channels,
                width=width,
                blocks=blocks,
                strides=strides,
                haar=haar,
                clamp=CLAMP,
                pooling="published",
            ),
            mixture=MixtureConfig(rank=_size(tensors, "mu_t", 1, dims=2), class_dims=class_dims),
            classes=_size(tensors, "mu", 1, dims=3),
            pooling_number=pooling,
        )
    except ConfigError as error:
        raise CheckpointError(f"the tensors' sizes make no network: {error}") from error


def model_of(tensors: Mapping[str, Tensor]) -> ReleasedModel:
    """The classifier that a checkpoint holds.

    Args:
        tensors: From `training.released_file.read_tensors`.

    Raises:
        CheckpointError: A tensor is missing, extra, misshapen, of another type, not finite, or
            not the fixed one it must be; it is named.
    """
    sizes = sizes_of(tensors)
    network = sizes.architecture.build()
    mixture = GaussianMixture(sizes.classes, network.dims, sizes.mixture)
    model = GenerativeClassifier(network, mixture).eval().requires_grad_(requires_grad=False)
    try:
        expected = slots(model, pooling_number=sizes.pooling_number)
    except ConfigError as error:
        raise CheckpointError(f"tensor 'mu': {error}") from error
    _check_names(tensors, expected)
    cosines: dict[str, list[list[float]]] = {}
    for slot in expected:
        value = tensors[slot.key]
        _check_value(slot, value)
        if slot.write is not None:
            slot.write(value)
        else:
            difference = float((slot.read() - value).abs().max())
            if difference > slot.tolerance:
                raise CheckpointError(
                    f"tensor {slot.key!r} is fixed, and differs by up to {difference:.3g} from "
                    "what this network computes with; the checkpoint is of another network"
                )
            if slot.tolerance:
                cosines[slot.key] = value.tolist()
    batches = {s.key: int(tensors[s.key]) for s in expected if s.key.endswith(BATCHES)}
    remainder = Remainder(pooling_number=sizes.pooling_number, batches=batches, cosines=cosines)
    return ReleasedModel(model=model, sizes=sizes, remainder=remainder)


def tensors_of(
    model: GenerativeClassifier, remainder: Remainder | None = None
) -> dict[str, Tensor]:
    """A model's tensors as the released layout has them, in its order.

    Args:
        model: Of architecture ib-inn-50 with published pooling and low-rank means.
        remainder: What the checkpoint had besides, where the model was imported; None: batch
            norms have seen no batch.

    Raises:
        ConfigError: The class dimensions are not those of the layout.
    """
    found = {}
    number = remainder.pooling_number if remainder else None
    for slot in slots(model, pooling_number=number):
        value = slot.read()
        if remainder is not None and slot.key in remainder.batches:
            value = torch.tensor(remainder.batches[slot.key], dtype=slot.dtype)
        elif remainder is not None and slot.key in remainder.cosines:
            value = torch.tensor(remainder.cosines[slot.key], dtype=slot.dtype)
        found[slot.key] = value
    return found


def _kinds(tensors: Mapping[str, Tensor]) -> dict[int, str]:
    """What each numbered layer is, by the tensors that it has."""
    members: dict[int, set[str]] = {}
    for key in tensors:
        if match := _LAYER.fullmatch(key):
            members.setdefault(int(match[1]), set()).add(match[2])
    if len(members) < 2:
        raise CheckpointError(
            f"'inn' has {len(members)} layers named module_list.N; expected those of an ImageNet "
            "IB-INN"
        )
    return {number: _kind(number, names) for number, names in members.items()}


def _kind(number: int, names: set[str]) -> str:
    if "haar_weights" in names:
        return "haar"
    if any(name.startswith(("s_hi.", "s_lo.")) for name in names):
        return "down"
    if any(name.startswith("s.") for name in names):
        return "coupling"
    if names & {"weight", "inv_weight"}:
        return "pooling"
    raise CheckpointError(
        f"layer module_list.{number} has {_list(sorted(names))} and no subnetwork; its tensors "
        f"'module_list.{number}.s.*' are missing or its own are extra"
    )


def _stages(
    tensors: Mapping[str, Tensor], numbers: list[int], kinds: list[str], width: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks and stride per stage; a stage begins where the width doubles or the side halves."""
    blocks: list[int] = []
    strides: list[int] = []
    last = 0
    for number, kind in zip(numbers, kinds, strict=True):
        key = f"module_list.{number}.{'s_hi' if kind == 'down' else 's'}.2.weight"
        found = _size(tensors, key, 0, dims=4)
        if kind == "down" or found != last:
            blocks.append(0)
            strides.append(2 if kind == "down" else 1)
        if found != (wanted := width * 2 ** (len(blocks) - 1)):
            raise CheckpointError(
                f"tensor {key!r} has shape {tuple(tensors[key].shape)}; stage {len(blocks)} of "
                f"base width {width} has {wanted} output channels there"
            )
        blocks[-1] += 1
        last = found
    return tuple(blocks), tuple(strides)


def _size(tensors: Mapping[str, Tensor], key: str, dim: int, *, dims: int) -> int:
    if key not in tensors:
        raise CheckpointError(f"tensor {key!r} is missing; the file is incomplete")
    shape = tuple(tensors[key].shape)
    if len(shape) != dims or 0 in shape:
        raise CheckpointError(
            f"tensor {key!r} has shape {shape}; expected {dims} dimensions, none of them empty"
        )
    return shape[dim]


def _check_names(tensors: Mapping[str, Tensor], expected: list[Slot]) -> None:
    known = {slot.key for slot in expected}
    problems = []
    if missing := [slot.key for slot in expected if slot.key not in tensors]:
        problems.append(f"missing: {_list(missing)}")
    if extra := [key for key in tensors if key not in known]:
        problems.append(f"not known: {_list(extra)}")
    if problems:
        raise CheckpointError(
            f"tensors {'; '.join(problems)}; expected the {len(expected)} of an ImageNet IB-INN of "
            "these sizes; the file is incomplete or of another network"
        )


def _check_value(slot: Slot, value: Tensor) -> None:
    if tuple(value.shape) != slot.shape:
        raise CheckpointError(
            f"tensor {slot.key!r} has shape {tuple(value.shape)}; expected {slot.shape}"
        )
    if value.dtype != slot.dtype:
        raise CheckpointError(f"tensor {slot.key!r} is of {value.dtype}; expected {slot.dtype}")
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise CheckpointError(
            f"tensor {slot.key!r} holds values that are not finite; such a model assesses nothing"
        )
    if slot.key.endswith(".running_var") and bool((value < 0).any()):
        raise CheckpointError(f"tensor {slot.key!r} is a variance and has values below 0")


def _list(keys: Iterable[str]) -> str:
    named = list(keys)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return ", ".join(repr(key) for key in named[:_NAMED]) + more
