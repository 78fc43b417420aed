"""From an image to an answer: the one path of every call, whatever protocol it came by.

One thread of its own runs the networks, so that no two forward passes compete for the device;
decoders work meanwhile, in processes of their own as a rule. The event loop only waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ibinn.errors import NotServingError
from ibinn.explain import options as choices
from ibinn.types import ExplainOptions, Explanation, Prediction, Receipt, ServerTiming
from service.call import Call
from service.issuing import Issuer
from service.models.registry import Models
from service.models.served import Classifier, Served
from service.monitoring import Monitor
from service.scheduling.admission import Limits
from service.scheduling.job import Job, Lane, Outcome, Task
from service.scheduling.scheduler import Answer, Done, Scheduler
from service.scheduling.worker import Worker
from service.settings import Settings

if TYPE_CHECKING:
    from ibinn.images import PreparedImage
    from service.decoding.decoders import Decoders

_log = logging.getLogger(__name__)

Observer = Callable[[bytes, Served, Prediction], None]
"""Hears of every answer to Classify: the image, the model that answered, the answer."""


class Predictor:
    """Answers for images, with the models there are.

    Args:
        settings: Limits and sizes.
        models: Which models there are.
        decoders: Decode images.
        issuer: Makes of what a model computed the answer that leaves.
        monitor: Counts what happens.

    Attributes:
        models: As given.
        observers: Called after each answer to Classify; they return at once and do not raise.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        models: Models,
        decoders: Decoders,
        issuer: Issuer,
        monitor: Monitor,
    ) -> None:
        self.models = models
        self._issuer = issuer
        self.observers: list[Observer] = []
        self._settings = settings
        self._monitor = monitor
        self._draining = asyncio.Event()
        self._inference = Worker("ibinn-inference")
        self._scheduler = Scheduler(
            decoders,
            self._compute,
            limits=Limits(
                max_batch_size=settings.max_batch_size,
                max_batch_wait_s=settings.max_batch_wait_s,
                max_pending=settings.max_pending,
                max_explain_pending=settings.max_explain_pending,
            ),
            monitor=monitor,
        )
        monitor.watch(
            pending=lambda: self._scheduler.pending, waiting=lambda: self._scheduler.waiting
        )

    @property
    def waiting(self) -> int:
        """Number of images that wait for their batch."""
        return self._scheduler.waiting

    @property
    def draining(self) -> asyncio.Event:
        """Set once the server stops: no new requests are taken on."""
        return self._draining

    async def load(self, load: Callable[[], Classifier], *, bundle: str = "") -> Served:
        """Runs `load` in the inference thread; what it returns becomes the default model.

        Raises:
            IbinnError: What `load` raises.
        """
        classifier = await self._inference.run(load)
        served = Served.of(classifier, bundle=bundle)
        self.models.set_default(served)
        self._monitor.model(served.info)
        return served

    def model(self, selector: str = "") -> Served:
        """The model that a call names, or the default one.

        Raises:
            NotServingError: None is loaded yet, or the server is stopping.
            UnknownModelError: No such model is loaded.
        """
        if self._draining.is_set():
            raise NotServingError("the server is stopping; ask another one or try again")
        return self.models.resolve(selector)

    async def classify(
        self,
        image: bytes,
        call: Call,
        *,
        model: str = "",
        timeout_s: float | None = None,
        group_id: str = "",
    ) -> Prediction:
        """The answer for one image, with a receipt.

        Args:
            image: Encoded bytes.
            call: Whose, by when.
            model: First digits of a weights digest; "": the default model.
            timeout_s: Seconds from now after which the image is not worth computing; None: the
                call's deadline and the server's limit alone.
            group_id: Names what images belong together; empty: this one belongs to no other.

        Raises:
            ImageError: The image cannot be classified.
            UnknownModelError: No such model is loaded.
            TurnedAwayError: The server is full, not serving, the time ran out, or the record that
                must be durable first could not be made so.
        """
        task = Task(served=self.model(model))
        prediction = await self._predict(task, image, None, call, timeout_s, group_id)
        for observe in self.observers:
            observe(image, task.served, prediction)
        return prediction

    async def classify_pixels(
        self, pixels: npt.NDArray[np.uint8], call: Call, *, model: str = ""
    ) -> Prediction:
        """The answer for an image that is decoded already; else as `classify`.

        Args:
            pixels: uint8 (H, W, 3).
            call: Whose, by when.
            model: As for `classify`.
        """
        task = Task(served=self.model(model))
        prepared = await asyncio.to_thread(task.served.preparer.from_pixels, pixels)
        return await self._predict(task, None, prepared, call, None, "")

    async def explain(
        self,
        image: bytes,
        call: Call,
        *,
        options: ExplainOptions,
        model: str = "",
        group_id: str = "",
    ) -> Explanation:
        """Heatmaps for one image, with its answer.

        Args:
            image: Encoded bytes.
            call: Whose, by when.
            options: What to explain, and how finely.
            model: As for `classify`.
            group_id: As for `classify`.

        Raises:
            NotExplainableError: The model has no heatmaps.
            UnknownClassError: The model does not know a class.
            UnknownModelError: No such model is loaded.
            RequestError: The options exclude each other or ask for too much.
            ImageError: The image cannot be classified.
            TurnedAwayError: The server is full, not serving, or the time ran out.
        """
        served = self.model(model)
        choices.check(options, served.info)
        wanted = choices.classes_to_compute(options, served.info.classes)
        classes = None if wanted is None else tuple(wanted)
        task = Task(served=served, explain=True, classes=classes)
        explanation, receipt = await self._answer(
            Lane.EXPLAIN, task, image, None, call, None, group_id
        )
        assert isinstance(explanation, Explanation)
        prediction = await self._issuer.issue(
            explanation.prediction, receipt, served=served, image=image, call=call
        )
        return choices.arranged(dataclasses.replace(explanation, prediction=prediction), options)

    async def in_background(self, served: Served, image: bytes, *, patience_s: float) -> Prediction:
        """An answer for the server's own purposes, in the lane of least precedence.

        It is not counted as an answer, and the stop button does not touch it.

        Args:
            served: By which model, loaded in whatever role.
            image: Encoded bytes.
            patience_s: Seconds after which it is not worth computing.

        Raises:
            ImageError: The image cannot be classified.
            TurnedAwayError: There is no room for it now, or the time ran out.
        """
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        outcome = await self._scheduler.submit(
            Job(
                lane=Lane.BACKGROUND,
                caller="",
                task=Task(served=served),
                image=image,
                deadline=now + patience_s,
                arrived=now,
                future=loop.create_future(),
            )
        )
        assert isinstance(outcome.value, Prediction)
        return outcome.value

    def drain(self) -> None:
        """Takes on no more requests; those taken on are finished."""
        self._draining.set()

    def close(self) -> None:
        """Lets the inference thread end."""
        self._inference.close()

    async def _predict(
        self,
        task: Task,
        image: bytes | None,
        prepared: PreparedImage | None,
        call: Call,
        timeout_s: float | None,
        group_id: str,
    ) -> Prediction:
        prediction, receipt = await self._answer(
            Lane.CLASSIFY, task, image, prepared, call, timeout_s, group_id
        )
        assert isinstance(prediction, Prediction)
        return await self._issuer.issue(
            prediction, receipt, served=task.served, image=image, call=call
        )

    async def _answer(
        self,
        lane: Lane,
        task: Task,
        image: bytes | None,
        prepared: PreparedImage | None,
        call: Call,
        timeout_s: float | None,
        group_id: str,
    ) -> tuple[Answer, Receipt]:
        received_time, start = datetime.now(UTC), time.monotonic()
        allowed_s = self._settings.request_timeout_s
        if timeout_s is not None:
            allowed_s = min(allowed_s, timeout_s)
        outcome: Outcome = await self._scheduler.submit(
            Job(
                lane=lane,
                caller=call.caller.name,
                task=task,
                image=image,
                prepared=prepared,
                deadline=min(call.deadline, start + allowed_s),
                arrived=start,
                future=asyncio.get_running_loop().create_future(),
            )
        )
        self._monitor.queue_wait(outcome.queue_s, lane.value)
        timing = ServerTiming(
            prepare_s=outcome.prepare_s,
            queue_s=outcome.queue_s,
            compute_s=outcome.compute_s,
            total_s=time.monotonic() - start,
            batch_size=outcome.batch_size,
        )
        receipt = Receipt(
            record_id=uuid.uuid4().hex,
            received_time=received_time,
            timing=timing,
            request_id=call.request_id,
            group_id=group_id,
        )
        return outcome.value, receipt

    def _compute(self, task: Task, prepared: Sequence[PreparedImage], done: Done) -> None:
        self._inference.begin(done, _run_network, task, prepared)


def _run_network(task: Task, prepared: Sequence[PreparedImage]) -> Sequence[Answer]:
    classifier = task.served.classifier
    if task.explain:
        return classifier.explain_prepared(prepared, task.classes)
    return classifier.assess(prepared)
