"""What trust costs: everything behind an answer, as a share of the network's forward pass.

    python -m tests.benchmarks.bench_trust --out trust-benchmarks.json

In one run on the CPU, forward pass and scoring alternate; each pair gives a ratio, and the median
over the pairs is what counts, since it cancels how busy the machine is. The forward pass is the
network alone; energies of its feature maps, which a statistic needs, are gathered on the way and
count as scoring. The budgets are 10 % for these, evidence, statistics, combination, p-values, sets
and verdict, and 5 % more for a heatmap.
Answer objects are shown apart, with the scores that they are built of.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ibinn import bundle
from ibinn.classifier import Evidence, gather_evidence
from ibinn.flow.base import Observed
from ibinn.trusted import TrustedClassifier

SCORING_BUDGET = 0.10
HEATMAP_BUDGET = 0.05
BATCHES = (1, 32)
PAIRS = 40
WARM_UP = 5
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""``cpu`` counts the work of all threads, which other programs on the machine disturb less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One step beside the forward pass.

    Attributes:
        step: What was timed.
        batch: Images per call.
        forward_ms: Median time of the network alone.
        step_ms: Median time of the step.
        share: Median over the pairs of step / forward.
        low: Smallest share of the middle half of the pairs.
        high: Largest share of it.
        budget: Largest share accepted, or None where none is set.
    """

    step: str
    batch: int
    forward_ms: float
    step_ms: float
    share: float
    low: float
    high: float
    budget: float | None

    @property
    def within(self) -> bool:
        """Whether the budget is kept."""
        return self.budget is None or self.share <= self.budget


def measure(
    classifier: TrustedClassifier, batch: int, *, pairs: int = PAIRS, clock: str = "wall"
) -> list[Cost]:
    """Time every step against the forward pass, alternating.

    Args:
        classifier: A calibrated model whose network ends in DCT pooling.
        batch: Images per call.
        pairs: How many times forward pass and steps alternate.
        clock: Of `CLOCKS`.
    """
    rng = np.random.default_rng(0)
    side = classifier.preprocessing.config.side
    pixels = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    prepared = [classifier.prepare(image) for image in pixels]
    finished = np.stack([image.pixels for image in prepared])
    x = classifier.preprocessing.to_tensor(torch.from_numpy(finished))
    sizes = torch.tensor([float(image.encoded_bytes) for image in prepared])
    subspaces = classifier.model.mixture.subspaces()

    @torch.inference_mode()
    def forward() -> None:
        classifier.network(x)

    @torch.no_grad()
    def observe() -> Observed:
        return classifier.network.observe(x)

    observed = observe()

    @torch.no_grad()
    def gather() -> Evidence:
        return gather_evidence(
            observed,
            subspaces=subspaces,
            preprocessing_log_det=classifier.preprocessing.log_det,
            encoded_bytes=sizes,
        )

    evidence = gather()
    steps: dict[str, Callable[[], object]] = {
        "forward": forward,
        "observe": observe,
        "score": lambda: classifier._score(gather()),
        "heatmap": lambda: classifier._heatmaps(evidence),
        "answers": lambda: classifier._predictions(evidence, prepared),
    }
    rounds = [
        {name: _seconds(step, CLOCKS[clock]) for name, step in steps.items()}
        for _ in range(WARM_UP + pairs)
    ][WARM_UP:]
    forwards = [times["forward"] for times in rounds]

    def cost(step: str, taken: list[float], budget: float | None) -> Cost:
        return _cost(step, batch, list(zip(forwards, taken, strict=True)), budget)

    energies = [times["observe"] - times["forward"] for times in rounds]
    scores = [times["score"] for times in rounds]
    return [
        cost("energies", energies, None),
        cost("evidence to verdict", scores, None),
        cost("both: scoring", [a + b for a, b in zip(energies, scores, strict=True)],
             SCORING_BUDGET),
        cost("heatmap", [times["heatmap"] for times in rounds], HEATMAP_BUDGET),
        cost("scores and answers", [times["answers"] for times in rounds], None),
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run and write; returns 1 where a budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("trust-benchmarks.json"))
    parser.add_argument("--bundle", type=Path, default=bundle.embedded_path())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    classifier = bundle.load(options.bundle)
    costs = [
        cost
        for batch in BATCHES
        for cost in measure(classifier, batch, pairs=options.pairs, clock=options.clock)
    ]
    report = {
        "bundle": classifier.info.name,
        "threads": options.threads,
        "pairs": options.pairs,
        "clock": options.clock,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "load_average": os.getloadavg()[0],
        "torch": torch.__version__,
        "costs": [asdict(cost) | {"within": cost.within} for cost in costs],
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"{'step':20}{'batch':>6}{'forward ms':>12}{'step ms':>9}{'share':>8}  middle half")
    for cost in costs:
        told = "" if cost.budget is None else f"  budget {cost.budget:.0%}"
        print(
            f"{cost.step:20}{cost.batch:>6}{cost.forward_ms:>12.2f}{cost.step_ms:>9.2f}"
            f"{cost.share:>8.1%}  {cost.low:.1%} to {cost.high:.1%}{told}"
            f"{'' if cost.within else '  EXCEEDED'}"
        )
    return 0 if all(cost.within for cost in costs) else 1


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start


def _cost(step: str, batch: int, times: list[tuple[float, float]], budget: float | None) -> Cost:
    shares = [taken / forward for forward, taken in times]
    low, _, high = statistics.quantiles(shares, n=4)
    return Cost(
        step=step,
        batch=batch,
        forward_ms=1e3 * statistics.median(forward for forward, _ in times),
        step_ms=1e3 * statistics.median(taken for _, taken in times),
        share=statistics.median(shares),
        low=low,
        high=high,
        budget=budget,
    )


if __name__ == "__main__":
    sys.exit(main())
