"""Passes computed by torch over the folded network.

Shapes: B batch, C channels, H and W sides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ibinn.flow.base import ACTIVATION_FLOOR, InvertibleNetwork, Observed
from ibinn.inference.convolution import PackedConvolution, PublicConvolution
from ibinn.inference.folded import FoldedNetwork
from ibinn.inference.plan import Convolution, Stage
from ibinn.inference.planning import stages_of
from ibinn.paged import PagedMemory

PART_BYTES = 8 << 20
"""Largest map of a part of a batch: about what stays in a processor's last cache."""

_log = logging.getLogger("ibinn.inference")


def make_folded(
    network: InvertibleNetwork, memory: PagedMemory | None = None
) -> Callable[[Tensor], Observed]:
    """Operation by operation; on the processor with weights laid out once.

    Args:
        network: The network.
        memory: Where its weights lie; every stage's pages leave the memory after it is folded.

    Raises:
        ConfigError: A layer is of a kind that the folded forms do not know.
    """
    device = _device(network)
    if device.type != "cpu":
        return _observe(_folded(network, _public, None, memory), device)
    try:
        folded = _folded(network, PackedConvolution, PART_BYTES, memory)
        with torch.no_grad():
            folded(torch.zeros(1, *network.input_shape))
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        _log.warning("inference: weights cannot be laid out for this processor: %s", error)
        folded = _folded(network, _public, PART_BYTES, memory)
    return _observe(folded, device)


def _observe(
    folded: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], device: torch.device
) -> Callable[[Tensor], Observed]:
    def observe(x: Tensor) -> Observed:
        # Not TF32: what the tests of trust compare has more than its 10 bits of mantissa.
        with (
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
            torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled, benchmark=False, allow_tf32=False
            ),
        ):
            z, log_dets, energies = folded(x)
            return Observed(
                z=z,
                stage_log_dets=log_dets,
                activations=(energies.sqrt() + ACTIVATION_FLOOR).log(),
            )

    return observe


def _folded(
    network: InvertibleNetwork,
    convolution: Callable[[Convolution, int], torch.nn.Module],
    part_bytes: int | None,
    memory: PagedMemory | None,
) -> FoldedNetwork:
    return FoldedNetwork(
        _stages(network, memory),
        side=network.input_shape[1],
        convolution=convolution,
        part_bytes=part_bytes,
    ).eval()


def _stages(network: InvertibleNetwork, memory: PagedMemory | None) -> Iterator[Stage]:
    for stage in stages_of(network):
        yield stage
        if memory is not None:
            memory.give_back()


def _public(layer: Convolution, side: int) -> torch.nn.Module:
    return PublicConvolution(layer)


def _device(network: InvertibleNetwork) -> torch.device:
    return next(network.parameters()).device
