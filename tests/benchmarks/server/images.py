"""The images that benchmarks send."""

from __future__ import annotations

from ibinn import samples


def encoded_images() -> list[bytes]:
    """Thumbnails as the embedded model knows them, PNG of about 2.5 KB."""
    return [found.data for found in samples.thumbnails()]
