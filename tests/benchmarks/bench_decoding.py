"""What decoding in processes costs beside decoding in threads of the server.

    python -m tests.benchmarks.bench_decoding --out out/decoding-benchmarks.json

Both are asked in turn for the same images, 1 and 16 at a time; medians of the time per image.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ibinn.images import ImagePreparer, JpegStep, Limits, PreprocessingConfig
from service.decoding.decoders import Decoders
from service.decoding.pool import ProcessDecoders
from service.decoding.threads import ThreadDecoders

BUDGET_US = {1: 200.0, 16: 60.0}
"""Allowed above threads for each image, by the number of images in a call."""

PREPARER = ImagePreparer(
    config=PreprocessingConfig(
        side=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), jpeg=JpegStep()
    ),
    limits=Limits(),
)


class _NoFaults:
    """Fails where a decoder does."""

    def decoder_fault(self, kind: str) -> None:
        raise RuntimeError(f"a decoder failed: {kind}")


def images() -> dict[str, bytes]:
    """A PNG of 32×32 pixels, and a photograph's worth of JPEG in about 15 KB."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:320, 0:320]
    smooth = np.stack([127 + 100 * np.sin(x / 20) * np.cos(y / 13), x * 0.8, y * 0.8], axis=-1)
    noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
    small = rng.integers(0, 256, (32, 32, 3), np.uint8)
    return {"png 32×32": _encoded(small, "PNG"), "jpeg 15 KB": _encoded(noisy, "JPEG")}


def _encoded(pixels: np.ndarray[Any, Any], format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format)
    return buffer.getvalue()


async def _seconds(decoders: Decoders, batch: list[bytes]) -> float:
    start = time.perf_counter()
    await decoders.prepare(PREPARER, batch)
    return (time.perf_counter() - start) / len(batch)


async def measure(rounds: int) -> list[dict[str, Any]]:
    """One entry for each image and number of images in a call."""
    faults = _NoFaults()
    threads = ThreadDecoders(1, monitor=faults)
    processes = ProcessDecoders(
        1, timeout_s=30.0, max_pixels=10**6, max_bytes=2**20, monitor=faults
    )
    found = []
    await threads.start()
    await processes.start()
    try:
        for name, image in images().items():
            for count, budget_us in BUDGET_US.items():
                batch = [image] * count
                pairs = [
                    (await _seconds(threads, batch), await _seconds(processes, batch))
                    for _ in range(rounds)
                ]
                in_thread, in_process = (
                    statistics.median(seconds) * 1e6 for seconds in zip(*pairs, strict=True)
                )
                added = statistics.median(there - here for here, there in pairs) * 1e6
                found.append(
                    {
                        "image": name,
                        "bytes": len(image),
                        "images_per_call": count,
                        "thread_us": round(in_thread, 1),
                        "process_us": round(in_process, 1),
                        "ratio": round(in_process / in_thread, 3),
                        "added_us": round(added, 1),
                        "budget_us": budget_us,
                    }
                )
    finally:
        await processes.stop()
        await threads.stop()
    return found


def main() -> None:
    """Measures and tells; exit status 1 where a budget is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = asyncio.run(measure(options.rounds))
    text = json.dumps(found, indent=2, ensure_ascii=False)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", "utf-8")
    sys.exit(any(entry["added_us"] > entry["budget_us"] for entry in found))


if __name__ == "__main__":
    main()
