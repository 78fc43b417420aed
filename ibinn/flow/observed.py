"""Which feature maps of a network are observed for the statistics of their energies."""

from __future__ import annotations

from collections.abc import Sequence

OBSERVED_CHANNELS = 512
"""Feature maps are observed from the first on until this number of channels is reached."""


def observed_ends(blocks: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Ends of blocks (stage, layer, channels) whose feature maps are observed.

    The last stage is left out where there are others: its energies are those of the latent code,
    which has statistics of its own.
    """
    last = max(stage for stage, _, _ in blocks)
    chosen, total = [], 0
    for stage, layer, channels in blocks:
        total += channels
        if total > OBSERVED_CHANNELS or (stage == last and last > 0):
            break
        chosen.append((stage, layer, channels))
    return chosen
