"""From image bytes to an answer, off the event loop and within limits.

One thread of its own runs the network, so that no two forward passes compete for the device;
a few others decode images meanwhile. The event loop only waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from ibinn.errors import ExpiredError, NotServingError, QueueFullError
from ibinn.explain import options as choices
from ibinn.types import (
    ExplainOptions,
    Explanation,
    ModelInfo,
    Prediction,
    Receipt,
    ServerTiming,
)
from service.batcher import Batcher, Outcome
from service.monitoring import Monitor

if TYPE_CHECKING:
    from ibinn.images import PreparedImage  # imports torch, which only the classifier needs

_RETRY_AFTER_S = (0.1, 30.0)
"""Bounds of the advice when to try again."""


class Classifier(Protocol):
    """What the service needs of a model; `ibinn.trusted.TrustedClassifier` has it."""

    @property
    def info(self) -> ModelInfo:
        """What the model is."""

    def prepare(self, image: bytes) -> PreparedImage:
        """Decodes and preprocesses; called from several threads; raises ImageError."""

    def assess(self, prepared: Sequence[PreparedImage]) -> list[Prediction]:
        """One answer for each image, from one forward pass."""

    def explain_prepared(
        self, prepared: Sequence[PreparedImage], classes: Sequence[str] | None = None
    ) -> list[Explanation]:
        """One explanation of the same classes for each image, from one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Model:
    """One loaded classifier; equal only to itself, so that no batch mixes two models."""

    classifier: Classifier
    info: ModelInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class _Classify:
    model: _Model


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explain:
    model: _Model
    classes: tuple[str, ...] | None


class Predictor:
    """Admits requests, decodes, batches, computes.

    Args:
        max_batch_size: Largest number of images in one forward pass.
        max_pending: Largest number of requests being decoded, waiting and being computed.
        request_timeout_s: Longest time for a request, whatever its caller allows.
        decode_threads: Number of threads that decode images.
        monitor: Counts what happens.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_pending: int,
        request_timeout_s: float,
        decode_threads: int,
        monitor: Monitor,
    ) -> None:
        self._max_pending = max_pending
        self._request_timeout_s = request_timeout_s
        self._monitor = monitor
        self._model: _Model | None = None
        self._draining = False
        self._pending = 0
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="ibinn-inference")
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="ibinn-decode")
        self._batcher: Batcher[_Classify | _Explain, PreparedImage, Prediction | Explanation] = (
            Batcher(self._compute, max_batch_size=max_batch_size, on_batch=monitor.batch)
        )
        monitor.watch(pending=lambda: self._pending, waiting=lambda: self.waiting)

    @property
    def info(self) -> ModelInfo:
        """What the loaded model is.

        Raises:
            NotServingError: There is none yet, or the server is stopping.
        """
        return self._serving().info

    @property
    def waiting(self) -> int:
        """Number of images that wait for their batch."""
        return self._batcher.waiting

    async def load(self, load: Callable[[], Classifier]) -> ModelInfo:
        """Runs `load` in the inference thread and serves what it returns.

        Raises:
            IbinnError: What `load` raises.
        """
        classifier = await asyncio.get_running_loop().run_in_executor(self._inference, load)
        self._model = _Model(classifier=classifier, info=classifier.info)
        self._monitor.model(self._model.info)
        return self._model.info

    async def classify(self, image: bytes, *, timeout_s: float | None) -> Prediction:
        """The answer for one image, with a receipt.

        Args:
            image: Encoded bytes.
            timeout_s: Seconds that the caller still waits; None: no limit of its own.

        Raises:
            ImageError: The image cannot be classified.
            TurnedAwayError: The server is full, not serving, or the time ran out.
        """
        job = _Classify(model=self._serving())
        prediction, receipt = await self._answer(job, image, timeout_s)
        assert isinstance(prediction, Prediction)
        self._monitor.prediction(prediction)
        return dataclasses.replace(prediction, receipt=receipt)

    async def explain(
        self, image: bytes, *, options: ExplainOptions, timeout_s: float | None
    ) -> Explanation:
        """Heatmaps for one image, with its answer.

        Args:
            image: Encoded bytes.
            options: What to explain, and how finely.
            timeout_s: Seconds that the caller still waits; None: no limit of its own.

        Raises:
            NotExplainableError: The model has no heatmaps.
            UnknownClassError: The model does not know a class.
            RequestError: The options exclude each other or ask for too much.
            ImageError: The image cannot be classified.
            TurnedAwayError: The server is full, not serving, or the time ran out.
        """
        model = self._serving()
        choices.check(options, model.info)
        wanted = choices.classes_to_compute(options, model.info.classes)
        job = _Explain(model=model, classes=None if wanted is None else tuple(wanted))
        explanation, receipt = await self._answer(job, image, timeout_s)
        assert isinstance(explanation, Explanation)
        self._monitor.prediction(explanation.prediction)
        prediction = dataclasses.replace(explanation.prediction, receipt=receipt)
        return choices.arranged(dataclasses.replace(explanation, prediction=prediction), options)

    def drain(self) -> None:
        """Takes on no more requests; those taken on are finished."""
        self._draining = True

    def close(self) -> None:
        """Lets the threads end."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._inference.shutdown(wait=False, cancel_futures=True)

    def _serving(self) -> _Model:
        if self._draining:
            raise NotServingError("the server is stopping; ask another one or try again")
        if self._model is None:
            raise NotServingError("the server is still loading its model; try again")
        return self._model

    async def _answer(
        self, job: _Classify | _Explain, image: bytes, timeout_s: float | None
    ) -> tuple[Prediction | Explanation, Receipt]:
        received_time, start = datetime.now(UTC), time.monotonic()
        allowed_s = self._request_timeout_s if timeout_s is None else timeout_s
        allowed_s = min(allowed_s, self._request_timeout_s)
        with self._admitted():
            outcome, prepare_s = await self._within(allowed_s, job, image)
        self._monitor.queue_wait(outcome.queue_s)
        timing = ServerTiming(
            prepare_s=prepare_s,
            queue_s=outcome.queue_s,
            compute_s=outcome.compute_s,
            total_s=time.monotonic() - start,
            batch_size=outcome.batch_size,
        )
        receipt = Receipt(record_id=uuid.uuid4().hex, received_time=received_time, timing=timing)
        return outcome.value, receipt

    async def _within(
        self, allowed_s: float, job: _Classify | _Explain, image: bytes
    ) -> tuple[Outcome[Prediction | Explanation], float]:
        start = time.monotonic()
        try:
            async with asyncio.timeout(allowed_s) as limit:
                prepared = await asyncio.get_running_loop().run_in_executor(
                    self._decoders, job.model.classifier.prepare, image
                )
                prepare_s = time.monotonic() - start
                outcome = await self._batcher.submit(job, prepared, deadline=start + allowed_s)
                return outcome, prepare_s
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ExpiredError(
                f"no answer within {allowed_s:.3g} s; allow more time (this server's limit is "
                f"{self._request_timeout_s:g} s) or try again later"
            ) from error

    @contextlib.contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._pending >= self._max_pending:
            shortest, longest = _RETRY_AFTER_S
            retry_after_s = self._batcher.seconds_for(self._pending)
            raise QueueFullError(
                f"{self._pending} requests are pending, the limit of this server "
                "(IBINN_MAX_PENDING); try again later",
                retry_after_s=min(max(retry_after_s, shortest), longest),
            )
        self._pending += 1
        try:
            yield
        finally:
            self._pending -= 1

    async def _compute(
        self, job: _Classify | _Explain, prepared: Sequence[PreparedImage]
    ) -> Sequence[Prediction | Explanation]:
        return await asyncio.get_running_loop().run_in_executor(
            self._inference, _run_network, job, prepared
        )


def _run_network(
    job: _Classify | _Explain, prepared: Sequence[PreparedImage]
) -> Sequence[Prediction | Explanation]:
    classifier = job.model.classifier
    if isinstance(job, _Explain):
        return classifier.explain_prepared(prepared, job.classes)
    return classifier.assess(prepared)
