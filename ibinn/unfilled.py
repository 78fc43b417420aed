"""Building a module whose weights will be loaded: without memory for them, and without draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = frozenset({torch.empty, torch.randn})


class Unfilled(TorchFunctionMode):
    """Within it, what `torch.empty` and `torch.randn` give has a shape and no content.

    Weights of layers and initial means are made by these; initialising tensors without content
    does nothing. What is drawn from a generator of its own, such as fixed permutations, and what
    is computed, such as cosine transforms, is made as ever: not all of that is stored. Fill the
    module with ``load_state_dict(..., assign=True)``.

    >>> with Unfilled():
    ...     layer = torch.nn.Linear(3, 2)
    >>> layer.weight.is_meta
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _FACTORIES and given.get("generator") is None and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)
