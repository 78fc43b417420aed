"""What answers and explanations cost beside the network's forward pass.

The embedded model is also taken apart by `tests.benchmarks.bench_trust`; here whole answers are
timed, of it and of IB-INN-50 with a thousand classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from ibinn.images import PreparedImage
from ibinn.trusted import TrustedClassifier
from tests.benchmarks import bench_trust
from tests.benchmarks.imagenet import material
from tests.benchmarks.imagenet.blocks import Blocks, Spread, Step, alternate
from tests.benchmarks.imagenet.figures import Figure

BATCHES = (1, 8)
SHARES = {"both: scoring": "scoring", "heatmap": "heatmap"}
"""Steps of `bench_trust` and the names that their figures get here."""


def prepared(classifier: TrustedClassifier, count: int) -> list[PreparedImage]:
    """Photographs in turn, ready for a classifier."""
    photographs = material.photographs()
    return [classifier.prepare(photographs[i % len(photographs)]) for i in range(count)]


def measure(
    classifier: TrustedClassifier,
    name: str,
    *,
    seconds: float,
    batches: Sequence[int] = BATCHES,
) -> list[Figure]:
    """Figures ``scoring.NAME.*`` and ``explain.NAME.*``: pass, answer and explanation alternate.

    Args:
        classifier: Calibrated; answers come from its form where it has one.
        name: Of the model in the figures.
        seconds: For each batch size.
        batches: Images per call.
    """
    figures = []
    for batch in batches:
        images = prepared(classifier, batch)
        figures += _costs(classifier, images, name, seconds)
    explained = classifier.explain_prepared(prepared(classifier, len(material.photographs())))
    errors = [heatmap.completeness_error for one in explained for heatmap in one.heatmaps]
    figures.append(
        Figure(
            name=f"explain.{name}.completeness_error",
            value=max(errors),
            unit="nats",
            how=f"largest |sum of a heatmap - log-posterior| of {len(errors)} heatmaps",
        )
    )
    return figures


def of_embedded(classifier: TrustedClassifier, *, pairs: int) -> list[Figure]:
    """Figures ``scoring.embedded.bN.share``: the costs with a budget, of the plain network.

    Args:
        classifier: The embedded model without a form.
        pairs: How often forward pass and steps alternate.
    """
    return [
        Figure(
            name=f"{'explain' if step == 'heatmap' else 'scoring'}.embedded.b{batch}.{share}_share",
            value=cost.share,
            low=cost.low,
            high=cost.high,
            how=f"time of {cost.step} over the plain forward pass, median over {pairs} pairs; "
            f"the ends are of the middle half; its budget is {cost.budget:.0%}",
        )
        for batch in bench_trust.BATCHES
        for cost in bench_trust.measure(classifier, batch, pairs=pairs)
        if cost.budget is not None
        for step, share in SHARES.items()
        if cost.step == step
    ]


def _costs(
    classifier: TrustedClassifier, images: Sequence[PreparedImage], name: str, seconds: float
) -> list[Figure]:
    x = classifier.preprocessing.to_tensor(
        torch.stack([torch.from_numpy(image.pixels) for image in images])
    )
    observe = (classifier.form or classifier.network).observe
    steps: dict[str, Step] = {
        "pass": torch.no_grad()(functools.partial(observe, x)),
        "answer": functools.partial(classifier.assess, images),
        "explanation": functools.partial(classifier.explain_prepared, images),
    }
    classifier.explain_prepared(images)  # what all explanations share is made at the first
    blocks = alternate(steps, seconds=seconds, block_s=0.2)
    engine = classifier.form.engine if classifier.form else "plain"
    of = f"batch {len(images)}, pass by {engine}, {blocks.rounds} alternating rounds"
    return [
        *_cost(blocks, "answer", "pass", f"scoring.{name}.b{len(images)}", of),
        *_cost(blocks, "explanation", "answer", f"explain.{name}.b{len(images)}", of),
    ]


def _cost(blocks: Blocks, step: str, without: str, prefix: str, of: str) -> list[Figure]:
    """What a step takes beyond another one, and that beside the forward pass."""
    times = blocks.seconds
    added = [a - b for a, b in zip(times[step], times[without], strict=True)]
    shares = [cost / forward for cost, forward in zip(added, times["pass"], strict=True)]
    how = f"{step} less {without}, {of}"
    return [
        Figure.of(f"{prefix}.cost_ms", Spread.of(added).scaled(1e3), "ms", how=how),
        Figure.of(f"{prefix}.of_pass", Spread.of(shares), how=f"{how}; over the pass"),
    ]
