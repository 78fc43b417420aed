"""A calibrated stub, and answers that are like its calibration images, or not."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from ibinn.held_out import HeldOutScores, leave_one_out
from ibinn.types import ClassScore, Prediction, Receipt, ServerTiming, Verdict
from service.drift import DriftWatch
from service.models.registry import Models
from service.models.served import Served
from service.monitoring import Monitor
from tests.service.running import PATIENCE_S, settings
from tests.service.stub import CLASSES, INFO, StubClassifier, make_prediction, make_test

IMAGES = 400
TIMING = ServerTiming(prepare_s=0, queue_s=0, compute_s=0, total_s=0, batch_size=1)


class Calibrated(StubClassifier):
    """A stub with the scores of calibration images."""

    def __init__(self, *, calibration: str = "b" * 64, alpha: float = 0.01, seed: int = 0) -> None:
        versions = dataclasses.replace(INFO.versions, calibration=calibration)
        super().__init__(info=dataclasses.replace(INFO, versions=versions, alpha=alpha))
        rng = np.random.default_rng(seed)
        scores = rng.standard_normal(IMAGES)
        logits = 2 * rng.standard_normal((IMAGES, len(CLASSES)))
        self.reference = SimpleNamespace(
            held_out=HeldOutScores(
                logits=logits.astype(np.float32),
                labels=logits.argmax(axis=1),
                combined_p=leave_one_out(scores),
                drivers=np.zeros(IMAGES, dtype=np.int8),
            ),
            temperature=1.0,
            combined=np.sort(scores),
        )

    @property
    def served(self) -> Served:
        return Served.of(self)


def answers(
    model: Calibrated, count: int, *, shift: float = 0.0, seed: int = 1, group_id: str = ""
) -> list[Prediction]:
    """Answers of a model to images whose scores lie that far from the calibration images'."""
    rng = np.random.default_rng(seed)
    scores = shift + rng.standard_normal(count)
    logits = 2 * rng.standard_normal((count, len(CLASSES)))
    return [
        answer(model, float(score), row, group_id=group_id)
        for score, row in zip(scores, logits, strict=True)
    ]


def answer(model: Calibrated, score: float, logits, *, group_id: str = "") -> Prediction:
    reference = model.reference.combined
    p = (1 + int((reference >= score).sum())) / (len(reference) + 1)
    flagged = p <= model.info.alpha
    probabilities = np.exp(logits - np.logaddexp.reduce(logits))
    combined = dataclasses.replace(
        make_test("combined", p=p, flagged=flagged), statistic=score, alpha=model.info.alpha
    )
    made = make_prediction()
    return dataclasses.replace(
        made,
        classes=tuple(
            ClassScore(
                index=int(index),
                name=CLASSES[index],
                probability=float(probabilities[index]),
                raw_probability=float(probabilities[index]),
                log_likelihood=-1.0,
            )
            for index in np.argsort(-probabilities)
        ),
        combined=combined,
        verdict=Verdict.UNKNOWN if flagged else Verdict.NOT_FLAGGED,
        versions=model.info.versions,
        receipt=Receipt(record_id="0" * 32, received_time=None, timing=TIMING, group_id=group_id),
    )


async def nobody(served, image, *, patience_s):
    raise AssertionError("no sentinel was to be sent")


def make_watch(
    *,
    ledger=None,
    monitor: Monitor | None = None,
    server: str = "one",
    background=nobody,
    **changes,
) -> DriftWatch:
    return DriftWatch(
        settings(**changes),
        server=server,
        monitor=Monitor() if monitor is None else monitor,
        models=Models(),
        recorder=None if ledger is None else SimpleNamespace(ledger=ledger),
        background=background,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
