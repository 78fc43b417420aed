"""One call makes a form of a trained network for inference: `make`.

Shapes: B batch, D dimensions, S stages, E observed channels.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ibinn.errors import ConfigError
from ibinn.flow.base import InvertibleNetwork, Observed
from ibinn.inference.batches import batch_sizes
from ibinn.paged import PagedMemory, trim

Engine = Literal["auto", "plain", "folded", "openvino"]

ENGINES: tuple[Engine, ...] = get_args(Engine)
"""Every engine by name; ``auto`` chooses."""

LATENT_TOLERANCE = 1e-3
"""Largest relative error (in Euclidean length) of the latent codes of a form."""

BITS_PER_DIM_TOLERANCE = 1e-4
"""Largest error of a form's log-determinants, in bits per dimension."""

_log = logging.getLogger("ibinn.inference")


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceForm:
    """A network's map from images to what one pass shows of them, in the form of one engine.

    Attributes:
        engine: The engine that computes it; never ``auto``.
        seconds: What making the form took.
        observe: (B, C, H, W) in float32 to `Observed`, as `InvertibleNetwork.observe`, for any B
            from 1 on, and from any thread.
    """

    engine: str
    seconds: float
    observe: Callable[[Tensor], Observed]


def make(
    network: InvertibleNetwork, engine: Engine = "auto", *, memory: PagedMemory | None = None
) -> InferenceForm:
    """A form of a network in evaluation mode, as the network is now.

    The form is compared with the network on noise before it is given out. It takes as many
    threads as torch has when it is made.

    Args:
        network: The network; it stays as it is.
        engine: ``auto`` takes the first of openvino (on the processor), folded and plain that is
            installed, takes the network and agrees with it, and logs what it passes over.
        memory: Where the network's weights lie, whose pages may leave the memory as soon as they
            are not needed; None: they stay.

    Raises:
        ConfigError: There is no such engine, it is not installed, it cannot take the network, or
            its numbers are not the network's.
    """
    if engine not in ENGINES:
        raise ConfigError(
            f"inference engine is {engine!r}; expected one of {', '.join(ENGINES)}; choose one"
        )
    start = time.perf_counter()
    found: Engine = engine
    observe: Callable[[Tensor], Observed] = network.observe
    if engine == "auto":
        found, observe = _first_that_works(network, memory)
    elif engine != "plain":
        observe = _made(network, engine, memory)
    return InferenceForm(engine=found, seconds=time.perf_counter() - start, observe=observe)


def _first_that_works(
    network: InvertibleNetwork, memory: PagedMemory | None
) -> tuple[Engine, Callable[[Tensor], Observed]]:
    order: tuple[Engine, ...] = ("openvino", "folded")
    if _device(network).type != "cpu":
        order = ("folded",)
    for engine in order:
        try:
            return engine, _made(network, engine, memory)
        except ConfigError as error:
            _log.warning("inference engine %s is passed over: %s", engine, error)
    return "plain", network.observe


def _made(
    network: InvertibleNetwork, engine: Engine, memory: PagedMemory | None
) -> Callable[[Tensor], Observed]:
    # The network's own pass comes before the form's weights exist: both need memory.
    images = _noise(network)
    with torch.no_grad():
        expected = network.observe(images)
    try:
        observe = _maker(engine)(network, memory)
        got = observe(images)
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"inference engine {engine} cannot be used here: {error}; choose another engine"
        ) from error
    _check(got, expected, engine)
    if memory is not None:
        memory.give_back()
        trim()
    return observe


def _maker(
    engine: Engine,
) -> Callable[[InvertibleNetwork, PagedMemory | None], Callable[[Tensor], Observed]]:
    if engine == "openvino":
        if importlib.util.find_spec("openvino") is None:
            raise ConfigError(
                "inference engine openvino is not installed; install ibinn[serve] or choose "
                "another engine"
            )
        from ibinn.inference import openvino_engine

        return openvino_engine.make_observe
    from ibinn.inference import torch_engines

    return torch_engines.make_folded


def _check(got: Observed, expected: Observed, engine: Engine) -> None:
    """Compare what a form and its network give for the same images.

    Raises:
        ConfigError: They disagree.
    """
    lengths = (got.z - expected.z).norm(dim=1) / expected.z.norm(dim=1)
    length = float(lengths.max())
    nats = float((got.stage_log_dets - expected.stage_log_dets).sum(1).abs().max())
    bits_per_dim = nats / (expected.z.shape[1] * math.log(2))
    if not (length <= LATENT_TOLERANCE and bits_per_dim <= BITS_PER_DIM_TOLERANCE):
        raise ConfigError(
            f"inference engine {engine} differs from the network by {length:.1e} of the latent "
            f"code and {bits_per_dim:.1e} bits/dim; expected at most {LATENT_TOLERANCE:.0e} and "
            f"{BITS_PER_DIM_TOLERANCE:.0e}; choose another engine"
        )


def _noise(network: InvertibleNetwork) -> Tensor:
    """Images for one batch of each size that an engine may have been made for."""
    generator = torch.Generator().manual_seed(0)
    count = sum(batch_sizes(network))
    return torch.randn(count, *network.input_shape, generator=generator).to(_device(network))


def _device(network: InvertibleNetwork) -> torch.device:
    return next(network.parameters()).device
