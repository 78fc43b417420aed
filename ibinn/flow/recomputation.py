"""What the backward pass of a flow finds: stored activations, or ones that are computed again.

A subnetwork's activations take many times the memory of the D numbers that flow past it. Two ways
to keep less of them:

- ``checkpoint`` keeps the input of each block (a coupling and what follows it) and computes the
  block's activations again from it, exactly as they were;
- ``invert`` keeps the output of each stage and computes the inputs of its layers through their
  inverses, which are as exact as float32 lets them be: `RoundTrip` tells how exact that was.

Both run every subnetwork forward twice a step. Batch norm sees the same batch again, and its
running statistics count it once; dropout drops the same again.

Shapes: B batch, C channels, H and W sides, D = C*H*W dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint

from ibinn.flow.base import FlowLayer, Sequential
from ibinn.flow.coupling import AffineCoupling, DoubleCoupling, scale_and_shift
from ibinn.flow.downsampling import DownsamplingCoupling

Memory = Literal["store", "checkpoint", "invert"]
"""What is kept for the backward pass."""

MEMORY: tuple[Memory, ...] = get_args(Memory)

_COUPLINGS = (AffineCoupling, DoubleCoupling, DownsamplingCoupling)


class RoundTrip:
    """How well the inverse gave back what went in, over the backward passes since `reset`."""

    def __init__(self) -> None:
        self._errors: list[Tensor] = []

    def add(self, found: Tensor, expected: Tensor) -> None:
        """Compare what the inverse gave with the input that it should have given."""
        difference = (found - expected).square().mean().sqrt()
        self._errors.append(difference / expected.square().mean().sqrt())

    def reset(self) -> None:
        """Forget what was seen."""
        self._errors.clear()

    @property
    def error(self) -> float:
        """Largest root mean square error of a stage's input over its root mean square; infinite
        where the inverse gave no numbers."""
        if not self._errors:
            return 0.0
        worst = float(torch.stack(self._errors).nan_to_num(torch.inf, posinf=torch.inf).amax())
        return worst


def transform(
    network: Sequential, x: Tensor, *, memory: Memory, round_trip: RoundTrip | None = None
) -> tuple[Tensor, Tensor]:
    """``network(x)``, with that much kept for the backward pass.

    Args:
        network: Stages of layers.
        x: (B, C, H, W).
        memory: What is kept.
        round_trip: Is told of the error of each stage's inverse, for ``invert``.

    Returns:
        As `FlowLayer.forward`: y and log|det ∂y/∂x| (B,).
    """
    if memory == "store" or not torch.is_grad_enabled():
        y, log_det = network(x)
        return y, log_det
    log_det = x.new_zeros(x.shape[0])
    for stage in network.layers:
        layers = _layers_of(stage)
        if memory == "checkpoint":
            for block in _blocks(layers):
                x, part = _checkpointed(block, x)
                log_det = log_det + part
        else:
            x, part = _inverted(layers, x, round_trip)
            log_det = log_det + part
    return x, log_det


def subnetworks(network: nn.Module) -> list[nn.Module]:
    """The subnetworks of all couplings, where the time goes."""
    found: list[nn.Module] = []
    for layer in network.modules():
        if isinstance(layer, AffineCoupling):
            found.append(layer.subnetwork)
        elif isinstance(layer, DoubleCoupling):
            found += [layer.first, layer.second]
        elif isinstance(layer, DownsamplingCoupling):
            found += [layer.strided, layer.plain]
    return found


def _layers_of(stage: nn.Module) -> list[FlowLayer]:
    layers = stage.layers if isinstance(stage, Sequential) else [stage]
    return [cast(FlowLayer, layer) for layer in layers]


def _blocks(layers: Sequence[FlowLayer]) -> Iterator[list[FlowLayer]]:
    """Each coupling with the cheap layers after it; cheap ones before the first go with it."""
    block: list[FlowLayer] = []
    for layer in layers:
        if isinstance(layer, _COUPLINGS) and any(isinstance(one, _COUPLINGS) for one in block):
            yield block
            block = []
        block.append(layer)
    yield block


def _through(layers: Sequence[FlowLayer], x: Tensor) -> tuple[Tensor, Tensor]:
    log_det = x.new_zeros(x.shape[0])
    for layer in layers:
        x, part = layer(x)
        log_det = log_det + part
    return x, log_det


@contextmanager
def uncounted(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Batch norm sees a batch for the second time: its running statistics have had it."""
    norms = [
        (norm, norm.momentum, norm.num_batches_tracked)
        for layer in layers
        for norm in layer.modules()
        if isinstance(norm, _BatchNorm) and norm.training
    ]
    for norm, _, _ in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, batches in norms:
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _draws(module: nn.Module) -> bool:
    """Whether the module draws random numbers."""
    return any(isinstance(m, _DropoutNd) and m.training and m.p > 0 for m in module.modules())


def _checkpointed(block: Sequence[FlowLayer], x: Tensor) -> tuple[Tensor, Tensor]:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), uncounted(block)

    y, log_det = checkpoint(
        partial(_through, block),
        x,
        use_reentrant=False,
        preserve_rng_state=any(map(_draws, block)),
        context_fn=contexts,
    )
    return y, log_det


@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
def _inverted(
    layers: Sequence[FlowLayer], x: Tensor, round_trip: RoundTrip | None
) -> tuple[Tensor, Tensor]:
    parameters = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    if not parameters and not x.requires_grad:
        return _through(layers, x)
    y, log_det = _Inverted.apply(  # type: ignore[no-untyped-call]
        x, layers, parameters, round_trip, *parameters
    )
    return y, log_det


class _Inverted(torch.autograd.Function):
    """Layers of which the backward pass keeps the output alone.

    The input, which the stage before keeps as its output anyway, is what the inverse is held to.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layers: Sequence[FlowLayer],
        parameters: Sequence[nn.Parameter],
        round_trip: RoundTrip | None,
        *_: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.layers, ctx.parameters, ctx.round_trip = layers, parameters, round_trip
        with _recorded_draws(layers, x.device) as ctx.draws:
            y, log_det = _through(layers, x)
        ctx.save_for_backward(x if round_trip is not None else None, y)
        return y, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        pass_ = _Backward(grad_log_det, ctx.draws)
        with uncounted(ctx.layers):
            for layer in reversed(ctx.layers):
                y, grad_y = pass_.undo(layer, y, grad_y)
        if ctx.round_trip is not None:
            ctx.round_trip.add(y, x)
        gradients = [pass_.gradients.get(parameter) for parameter in ctx.parameters]
        return grad_y, None, None, None, *gradients


class _Backward:
    """One backward pass through layers whose outputs are at hand, from the last to the first.

    Args:
        grad_log_det: Gradient of the loss with respect to the log-determinant (B,).
        draws: Random state before each subnetwork that drew.
    """

    def __init__(self, grad_log_det: Tensor, draws: dict[nn.Module, _RandomState]) -> None:
        self.grad_log_det = grad_log_det
        self.draws = draws
        self.gradients: dict[nn.Parameter, Tensor] = {}

    def undo(self, layer: FlowLayer, y: Tensor, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        """From a layer's output and the gradient there to its input and the gradient there."""
        if isinstance(layer, AffineCoupling):
            gain = layer.shift_gain
            y1, y2 = y.split(layer.split, dim=1)
            g1, g2 = grad_y.split(layer.split, dim=1)
            x2, g2, g1 = self._half(layer.subnetwork, layer.clamp, y1, y2, g1, g2, gain)
            return torch.cat((y1, x2), dim=1), torch.cat((g1, g2), dim=1)
        if isinstance(layer, DoubleCoupling):
            y1, y2 = y.split(layer.split, dim=1)
            g1, g2 = grad_y.split(layer.split, dim=1)
            x1, g1, g2 = self._half(layer.second, layer.clamp, y2, y1, g2, g1)
            x2, g2, g1 = self._half(layer.first, layer.clamp, x1, y2, g1, g2)
            return torch.cat((x1, x2), dim=1), torch.cat((g1, g2), dim=1)
        if isinstance(layer, DownsamplingCoupling):
            split = (4 * layer.split[0], 4 * layer.split[1])
            y1, y2 = y.split(split, dim=1)
            g1, g2 = grad_y.split(split, dim=1)
            x1, g1, g2 = self._half(layer.plain, layer.clamp, y2, y1, g2, g1)
            x1, g1 = F.pixel_shuffle(x1, 2), F.pixel_shuffle(g1, 2)
            x2, g2, g1 = self._half(layer.strided, layer.clamp, x1, y2, g1, g2)
            x2, g2 = F.pixel_shuffle(x2, 2), F.pixel_shuffle(g2, 2)
            return torch.cat((x1, x2), dim=1), torch.cat((g1, g2), dim=1)
        x, _ = layer.inverse(y)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            outputs = layer(leaf)
        (grad_x,) = self._collect(layer, outputs, (grad_y, self.grad_log_det), leaf)
        return x, grad_x

    def _half(
        self,
        subnetwork: nn.Module,
        clamp: nn.Module,
        passive: Tensor,
        active: Tensor,
        grad_passive: Tensor,
        grad_active: Tensor,
        shift_gain: float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """active = input * exp(log-scale(passive)) + shift(passive), undone with one pass.

        Returns:
            The input, the gradient there, and the gradient at the passive half.
        """
        with torch.enable_grad(), _replayed(self.draws.get(subnetwork)):
            leaf = passive.detach().requires_grad_()
            log_scale, shift = scale_and_shift(subnetwork, clamp, leaf, shift_gain=shift_gain)
        scaled = active - shift.detach()
        grad_log_det = self.grad_log_det.view(-1, *(1,) * (log_scale.dim() - 1))
        (extra,) = self._collect(
            subnetwork, (log_scale, shift), (grad_active * scaled + grad_log_det, grad_active), leaf
        )
        scale = log_scale.detach()
        return scaled * (-scale).exp(), grad_active * scale.exp(), grad_passive + extra

    def _collect(
        self, module: nn.Module, outputs: Sequence[Tensor], grads: Sequence[Tensor], leaf: Tensor
    ) -> tuple[Tensor]:
        parameters = [p for p in module.parameters() if p.requires_grad]
        wanted = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad]
        found = torch.autograd.grad(
            [y for y, _ in wanted],
            [leaf, *parameters],
            [g.expand_as(y) for y, g in wanted],
            allow_unused=True,
        )
        for parameter, gradient in zip(parameters, found[1:], strict=True):
            if gradient is not None:
                before = self.gradients.get(parameter)
                self.gradients[parameter] = gradient if before is None else before + gradient
        return (found[0],)


_RandomState = tuple[Tensor, Tensor | None]
"""State of the generators of the CPU and of the device."""


@contextmanager
def _recorded_draws(
    layers: Sequence[nn.Module], device: torch.device
) -> Iterator[dict[nn.Module, _RandomState]]:
    states: dict[nn.Module, _RandomState] = {}

    def record(module: nn.Module, _: object) -> None:
        there = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        states[module] = torch.get_rng_state(), there

    drawing = [one for layer in layers for one in subnetworks(layer) if _draws(one)]
    handles = [module.register_forward_pre_hook(record) for module in drawing]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replayed(state: _RandomState | None) -> Iterator[None]:
    if state is None:
        yield
        return
    here, there = state
    set_there: Callable[[Tensor], None] = torch.cuda.set_rng_state
    with torch.random.fork_rng(enabled=True):
        torch.set_rng_state(here)
        if there is not None:
            set_there(there)
        yield
