"""Traffic through the client: images at a steady rate, and the truth about some of them later."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ibinn.client import Client
from ibinn.errors import IbinnError
from ibinn.loop.digits import MISSING, Picture
from ibinn.loop.scenario import KNOWN, Scenario
from ibinn.records import Provenance, Selection
from ibinn.types import Guarantee, Prediction, Verdict

_WINDOW = 32
_LABELLERS = 8
_PER_MESSAGE = 1
"""One image a message: they come one after the other, and none waits for the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One image that was sent, with what was answered.

    Attributes:
        at_s: Seconds since the loop began.
        phase: Name of the phase.
        image: Its name.
        truth: What it shows.
        noisy: Whether noise was added.
        record_id: The answer's name.
        answer: Most probable class.
        confidence: Its probability.
        verdict: What the tests said.
        p_value: Of the combined test.
        held: Whether the answer said that the guarantee holds; None: nothing.
        weights: Digest of the model's weights.
        labelled: Whether its truth was told.
    """

    at_s: float
    phase: str
    image: str
    truth: str
    noisy: bool
    record_id: str
    answer: str
    confidence: float
    verdict: Verdict
    p_value: float | None
    held: bool | None
    weights: str
    labelled: bool

    @property
    def right(self) -> bool:
        """Whether the most probable class is the truth."""
        return self.answer == self.truth


class Labeller:
    """Tells truths from a few threads, as people and machines would; late, and by turns.

    Args:
        client: Of the server; its caller may give feedback.
        scenario: Who labels how late.
    """

    def __init__(self, client: Client, scenario: Scenario) -> None:
        self._client = client
        self._scenario = scenario
        self._rng = np.random.default_rng([scenario.seed, 1])
        self._late: deque[tuple[Prediction, str, Provenance]] = deque()
        self._due: queue.Queue[tuple[Prediction, str, Provenance, datetime] | None] = queue.Queue()
        self._failures: list[IbinnError] = []
        self._threads = [
            threading.Thread(target=self._work, name=f"loop-label-{n}", daemon=True)
            for n in range(_LABELLERS)
        ]
        for thread in self._threads:
            thread.start()
        self.told = 0

    def consider(self, answer: Prediction, image: Picture, *, with_stranger: bool) -> bool:
        """Whether this answer will be labelled; the label of an earlier one becomes due."""
        suspended = answer.guarantee is Guarantee.SUSPENDED
        share = 1.0 if suspended else self._scenario.labelled_share
        chosen = bool(self._rng.random() < share)
        if chosen:
            self._late.append((answer, *self._statement(image, share, with_stranger=with_stranger)))
        if len(self._late) > self._scenario.label_delay * share:
            self._tell(self._late.popleft())
        return chosen

    def all_told(self) -> int:
        """Tells what is late, and waits until every label is acknowledged; how many there were.

        Raises:
            IbinnError: One was not taken.
        """
        while self._late:
            self._tell(self._late.popleft())
        self._due.join()
        if self._failures:
            raise self._failures[0]
        return self.told

    def close(self) -> None:
        """Ends the threads."""
        for _ in self._threads:
            self._due.put(None)
        for thread in self._threads:
            thread.join()

    def _statement(
        self, image: Picture, share: float, *, with_stranger: bool
    ) -> tuple[str, Provenance]:
        selection = Selection.ALL if share == 1.0 else Selection.RANDOM
        if with_stranger and self._rng.random() < self._scenario.stranger_share:
            wrong = [name for name in (*KNOWN, MISSING) if name != image.truth]
            return str(self._rng.choice(wrong)), Provenance(
                source=self._scenario.stranger, selection=Selection.OTHER
            )
        source = str(self._rng.choice(self._scenario.sources))
        return image.truth, Provenance(
            source=source, selection=selection, sampling_probability=share
        )

    def _tell(self, statement: tuple[Prediction, str, Provenance]) -> None:
        self.told += 1
        self._due.put((*statement, datetime.now(UTC)))

    def _work(self) -> None:
        while (due := self._due.get()) is not None:
            answer, truth, provenance, labelled_time = due
            try:
                self._client.submit_feedback(
                    answer, truth, provenance=provenance, labelled_time=labelled_time
                )
            except IbinnError as error:
                self._failures.append(error)
            finally:
                self._due.task_done()
        self._due.task_done()


def send(
    client: Client, pictures: Sequence[Picture], *, rate: float
) -> Iterator[tuple[Picture, Prediction]]:
    """Send images at a steady rate; every image with its answer, in order.

    Args:
        client: Of the server.
        pictures: What to send.
        rate: Images per second; more slowly where the server is slower.

    Raises:
        IbinnError: An image got no answer.
    """
    answers = client.classify_many(_paced(pictures, rate), window=_WINDOW, per_message=_PER_MESSAGE)
    for image, answer in zip(pictures, answers, strict=True):
        if isinstance(answer, Exception):
            raise answer
        yield image, answer


def seen(image: Picture, answer: Prediction, *, at_s: float, phase: str, labelled: bool) -> Seen:
    """What is kept of an image and its answer."""
    assert answer.receipt is not None
    return Seen(
        at_s=at_s,
        phase=phase,
        image=image.name,
        truth=image.truth,
        noisy=image.noisy,
        record_id=answer.receipt.record_id,
        answer=answer.top.name,
        confidence=answer.top.probability,
        verdict=answer.verdict,
        p_value=None if answer.combined is None else answer.combined.p_value,
        held=None if answer.guarantee is None else answer.guarantee is Guarantee.HELD,
        weights=answer.versions.weights,
        labelled=labelled,
    )


def _paced(pictures: Iterable[Picture], rate: float) -> Iterator[bytes]:
    began = time.monotonic()
    for position, image in enumerate(pictures):
        time.sleep(max(0.0, began + position / rate - time.monotonic()))
        yield image.data
