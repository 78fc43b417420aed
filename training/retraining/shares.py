"""How much of a class one source may give.

Of a class's training images, old and new together, a source that is not trusted gives at most the
share c: with T images of old data and trusted sources, and n_s of source s, each keeps
min(n_s, L) where L is the largest whole number with L <= c (T + Σ_s min(n_s, L)). A single source
that is not trusted can therefore not bring a new class: of that class there is nothing else.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from training.retraining.labels import Labelled


def limit(offered: Sequence[int], *, others: int, share: float) -> int:
    """L: how many images of a class each source may give.

    Args:
        offered: n_s of each source.
        others: T.
        share: c in (0, 1].

    >>> limit([1_000], others=80, share=0.2)
    20
    >>> limit([10, 10, 10, 10, 10], others=0, share=0.2)
    10
    >>> limit([10], others=0, share=0.2)
    0
    """
    fits = 0
    low, high = 0, max(offered, default=0)
    # c Σ min(n_s, L) - L is concave in L, and at L = 0 the condition holds: it holds up to a point.
    while low <= high:
        middle = (low + high) // 2
        total = others + sum(min(count, middle) for count in offered)
        if middle <= share * total + 1e-9:
            fits, low = middle, middle + 1
        else:
            high = middle - 1
    return fits


def capped(
    images: Sequence[Labelled], *, old: Mapping[str, int], share: float, seed: int
) -> frozenset[str]:
    """Ids of the images within each source's share.

    Which ones a source keeps is drawn by sha256(seed, image), not by the source's order.

    Args:
        images: Settled ones.
        old: Training images of each class in the old data.
        share: c in (0, 1].
        seed: Of the draw.
    """
    offered: dict[str, Counter[str]] = {}
    trusted: Counter[str] = Counter()
    for image in images:
        if image.trusted:
            trusted[image.class_name] += 1
        else:
            offered.setdefault(image.class_name, Counter())[image.source] += 1
    limits = {
        name: limit(list(counts.values()), others=old.get(name, 0) + trusted[name], share=share)
        for name, counts in offered.items()
    }
    taken: Counter[tuple[str, str]] = Counter()
    kept: set[str] = set()
    for image in sorted(images, key=lambda i: drawn(seed, i.candidate.id)):
        key = (image.class_name, image.source)
        if image.trusted or taken[key] < limits[image.class_name]:
            taken[key] += 1
            kept.add(image.candidate.id)
    return frozenset(kept)


def drawn(seed: int, key: str) -> str:
    """A draw that depends on the seed and the image alone."""
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()
