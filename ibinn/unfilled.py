"""Building a module whose weights will be loaded: without memory for them, and without draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_INITIALISERS = torch.nn.init.__name__


class Unfilled(TorchFunctionMode):
    """Within it, what `torch.empty` gives has a shape and no content.

    Weights of layers and initial means are made by it; initialising them with `torch.nn.init`
    does nothing. What is drawn or computed, such as fixed permutations and cosine transforms, is
    made as ever: not all of that is stored. Fill the module with
    ``load_state_dict(..., assign=True)``.

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
        if func is torch.empty and given.get("device") is None:
            given["device"] = "meta"
        # torch.nn.init passes its arguments on by name.
        tensor = given.get("tensor", args[0] if args else None)
        if (
            getattr(func, "__module__", None) == _INITIALISERS
            and isinstance(tensor, Tensor)
            and tensor.is_meta
        ):
            return tensor
        return func(*args, **given)
