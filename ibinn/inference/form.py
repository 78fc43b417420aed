"""One call makes a form of a trained network for inference: `make`.

Shapes: B batch, D dimensions, S stages, E observed channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from ibinn.errors import ConfigError
from ibinn.flow.base import InvertibleNetwork, Observed

Engine = Literal["auto", "plain", "folded", "compile", "onnxruntime", "openvino"]

ENGINES: tuple[Engine, ...] = get_args(Engine)
"""Every engine by name; ``auto`` chooses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceForm:
    """A network's map from images to what one pass shows of them, in the form of one engine.

    Attributes:
        engine: The engine that computes it; never ``auto``.
        seconds: What making the form took.
        observe: (B, C, H, W) in float32 to `Observed`, as `InvertibleNetwork.observe`, for any B
            from 1 on. One caller at a time.
    """

    engine: str
    seconds: float
    observe: Callable[[Tensor], Observed]


def make(network: InvertibleNetwork, engine: Engine = "auto") -> InferenceForm:
    """A form of `network`, which it takes as it is now and leaves as it is.

    Raises:
        ConfigError: There is no such engine, it is not installed, or it cannot take the network.
    """
    if engine not in ENGINES:
        raise ConfigError(
            f"inference engine is {engine!r}; expected one of {', '.join(ENGINES)}; choose one"
        )
    start = time.perf_counter()
    return InferenceForm(
        engine="plain", seconds=time.perf_counter() - start, observe=network.observe
    )
