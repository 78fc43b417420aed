"""Activations that are computed again give the gradients of stored ones, for less memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from ibinn.flow.architectures import CifarConfig, SmallConfig
from ibinn.flow.recomputation import Memory, RoundTrip, transform
from ibinn.flow.subnetworks import use_low_precision
from tests.ibinn.networks import CONFIGS, SMALL, randomise

RECOMPUTED: tuple[Memory, ...] = ("checkpoint", "invert")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What a forward and a backward pass leave."""

    z: Tensor
    log_det: Tensor
    grad_x: Tensor
    gradient: Tensor
    buffers: Tensor
    kept_bytes: int
    round_trip: float


def one_pass(network: nn.Module, x: Tensor, memory: Memory) -> Pass:
    """Forward and backward through a copy of a network in training mode."""
    network = copy.deepcopy(network).train()
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x = x.clone().requires_grad_()
    round_trip = RoundTrip()
    torch.manual_seed(3)  # of dropout
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        z, log_det = transform(network, x, memory=memory, round_trip=round_trip)
    (0.5 * z.square().sum(1) - log_det).mean().backward()
    assert x.grad is not None
    return Pass(
        z=z.detach(),
        log_det=log_det.detach(),
        grad_x=x.grad,
        gradient=torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]),
        buffers=torch.cat([b.double().flatten() for b in network.buffers()]),
        kept_bytes=sum(kept.values()),
        round_trip=round_trip.error,
    )


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("memory", RECOMPUTED)
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_stored_activations(name: str, memory: Memory) -> None:
    network = randomise(CONFIGS[name].build())
    x = torch.randn(6, *network.input_shape, generator=torch.Generator().manual_seed(0))
    stored, found = one_pass(network, x, "store"), one_pass(network, x, memory)
    assert torch.equal(found.z, stored.z)
    torch.testing.assert_close(found.log_det, stored.log_det)
    limit = 0.0 if memory == "checkpoint" else 2e-5
    assert relative(found.gradient, stored.gradient) <= limit
    assert relative(found.grad_x, stored.grad_x) <= limit
    # Batch norm has counted the batch once.
    assert torch.equal(found.buffers, stored.buffers)
    assert (found.round_trip > 0.0) == (memory == "invert")
    assert found.round_trip < 2e-5


def test_less_is_kept() -> None:
    network = randomise(SmallConfig().build())
    x = torch.randn(4, 3, 32, 32)
    kept = {memory: one_pass(network, x, memory).kept_bytes for memory in ("store", *RECOMPUTED)}
    assert kept["checkpoint"] < kept["store"] / 4
    assert kept["invert"] < kept["checkpoint"] / 2


def test_the_round_trip_tells_of_a_network_that_contracts() -> None:
    wide, narrow = (
        randomise_nothing(SmallConfig(side=8, widths=(6,), blocks=(24,), initial_scale=scale))
        for scale in (1.0, 0.5)
    )
    x = torch.randn(4, 3, 8, 8)
    assert one_pass(wide, x, "invert").round_trip < 1e-5
    assert one_pass(narrow, x, "invert").round_trip > 1e-3


def randomise_nothing(config: SmallConfig) -> nn.Module:
    """The network as it starts, but with couplings that do something."""
    torch.manual_seed(0)
    network = config.build()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() == 4 and not parameter.any():
                parameter.normal_(0.0, 0.1)
    return network


def test_an_inverse_that_gives_no_numbers_is_infinitely_wrong() -> None:
    round_trip = RoundTrip()
    assert round_trip.error == 0.0
    round_trip.add(torch.tensor([torch.nan]), torch.ones(1))
    assert round_trip.error == float("inf")
    round_trip.reset()
    assert round_trip.error == 0.0


@pytest.mark.parametrize("name", CONFIGS)
def test_checkpointing_repeats_low_precision_exactly(name: str) -> None:
    network = randomise(CONFIGS[name].build())
    use_low_precision(network, torch.bfloat16)
    x = torch.randn(6, *network.input_shape)
    stored, found = one_pass(network, x, "store"), one_pass(network, x, "checkpoint")
    assert stored.z.dtype == stored.log_det.dtype == torch.float32
    assert torch.equal(found.gradient, stored.gradient)


def test_nothing_is_recomputed_where_no_gradient_is_wanted() -> None:
    network = randomise(SMALL.build())
    x = torch.randn(2, *network.input_shape)
    with torch.no_grad():
        for memory in RECOMPUTED:
            z, log_det = transform(network, x, memory=memory)
            torch.testing.assert_close((z, log_det), network(x), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("memory", RECOMPUTED)
def test_dropout_drops_the_same_again(memory: Memory) -> None:
    config = CifarConfig(side=8, blocks=(1, 1, 3), widths=(4, 5, 6), hidden=16)
    network = randomise(config.build())
    x = torch.randn(6, 3, 8, 8)
    before = torch.get_rng_state()
    found = one_pass(network, x, memory)
    torch.set_rng_state(before)
    assert relative(found.gradient, one_pass(network, x, "store").gradient) < 2e-5
