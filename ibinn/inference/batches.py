"""Which batch sizes an engine of fixed sizes is made for."""

from __future__ import annotations

from ibinn.flow.base import InvertibleNetwork

SMALL_BYTES = 32 << 20
"""Weights of networks for which batches have a graph of their own."""

BATCH = 8
"""Its images; a larger network's convolutions are as fast for one image."""


def batch_sizes(network: InvertibleNetwork) -> tuple[int, ...]:
    """The sizes, largest first; the last is 1."""
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    return (BATCH, 1) if weights <= SMALL_BYTES else (1,)


def in_batches(count: int, sizes: tuple[int, ...]) -> list[int]:
    """Batches of the given sizes, largest first, that make up a number of images."""
    chosen: list[int] = []
    for size in sizes:
        chosen += [size] * (count // size)
        count %= size
    return chosen
