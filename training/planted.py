"""Images whose decision is known to come from one place: a planted patch.

An image of class A gets the picture of another class B, reduced to half its side, in one
quadrant. Only images are kept that the model calls A without the patch and B with it: there the
patch decided, and a map for B should point at it. Shapes: M images, S side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.faithfulness import BLUR, BoolArray, FloatArray, IntArray

Pixels = npt.NDArray[np.uint8]
LogProbabilities = Callable[[Pixels], FloatArray]
"""Finished pixels (M, S, S, 3) -> calibrated log q(y|x) (M, K)."""

CONFIDENT = 0.95
"""An image is planted only if the model gives its class at least this probability."""

AREA = 0.25
"""Share of the image that a patch covers: what pointing at random hits."""

BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planted:
    """Images with patches that decided.

    Attributes:
        pixels: uint8 (M, S, S, 3), finished.
        patches: Where each patch lies (M, S, S).
        classes: B, the decision with the patch (M,).
        hosts: A, the decision without it (M,).
        tried: Images that were made to find these.
    """

    pixels: Pixels
    patches: BoolArray
    classes: IntArray
    hosts: IntArray
    tried: int


def plant(
    hosts: Pixels,
    guests: Pixels,
    guest_classes: IntArray,
    *,
    log_probabilities: LogProbabilities,
    finish: Callable[[Pixels], Pixels],
    count: int,
    trials: int,
    seed: int = 0,
) -> Planted:
    """Plant guests into hosts until the patch has decided `count` times, or after `trials`.

    Without guests nothing is found.

    Args:
        hosts: uint8 (n, S, S, 3), S even, finished.
        guests: uint8 (m, S, S, 3), confidently classified.
        guest_classes: What the model takes each guest for.
        log_probabilities: The model.
        finish: The last step of the preprocessing, which the finished image takes again.
        count: Images wanted.
        trials: Most images made.
        seed: Of the choice of guests.
    """
    rng = np.random.default_rng(seed)
    found: list[tuple[Pixels, BoolArray, int, int]] = []
    tried = 0
    trials = trials if len(guests) else 0
    host_classes = _decisions(hosts, log_probabilities)
    while len(found) < count and tried < trials:
        batch = []
        for number in range(tried, min(tried + BATCH, trials)):
            host, guest = number % len(hosts), int(rng.integers(len(guests)))
            pixels, patch = composite(hosts[host], guests[guest], quadrant=number % 4)
            batch.append((finish(pixels), patch, int(guest_classes[guest]), host_classes[host]))
        tried += len(batch)
        decisions = _decisions(np.stack([pixels for pixels, *_ in batch]), log_probabilities)
        found += [
            (pixels, patch, guest, int(host))
            for (pixels, patch, guest, host), decision in zip(batch, decisions, strict=True)
            if decision == guest != host
        ]
    found = found[:count]
    side = hosts.shape[1]
    return Planted(
        pixels=np.array([f[0] for f in found], np.uint8).reshape(-1, side, side, 3),
        patches=np.array([f[1] for f in found], np.bool_).reshape(-1, side, side),
        classes=np.array([f[2] for f in found], np.int64),
        hosts=np.array([f[3] for f in found], np.int64),
        tried=tried,
    )


def composite(host: Pixels, guest: Pixels, *, quadrant: int) -> tuple[Pixels, BoolArray]:
    """The guest at half its side in a quadrant of the host, and where it lies.

    Args:
        host: uint8 (S, S, 3), S even.
        guest: The same shape.
        quadrant: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
    """
    half = host.shape[0] // 2
    top, left = half * (quadrant // 2), half * (quadrant % 2)
    patch = np.zeros(host.shape[:2], dtype=np.bool_)
    patch[top : top + half, left : left + half] = True
    pixels = host.copy()
    small = Image.fromarray(guest).resize((half, half), Image.Resampling.BOX)
    pixels[top : top + half, left : left + half] = np.asarray(small)
    return pixels, patch


def bland(pixels: Pixels) -> Pixels:
    """A host with little to say: the image under the blur of `training.faithfulness`."""
    sigma = BLUR * pixels.shape[0]
    smooth = gaussian_filter(pixels.astype(np.float32), sigma=(sigma, sigma, 0), mode="reflect")
    result: Pixels = np.rint(smooth).astype(np.uint8)
    return result


def _decisions(pixels: Pixels, log_probabilities: LogProbabilities) -> IntArray:
    parts = [
        log_probabilities(pixels[start : start + BATCH]).argmax(axis=1)
        for start in range(0, len(pixels), BATCH)
    ]
    return np.concatenate(parts)
