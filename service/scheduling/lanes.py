"""The jobs that wait: to be decoded and to be computed, by lane, in fair order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from service.scheduling.fair_queue import FairQueue
from service.scheduling.job import Job, Lane

UP_TO: dict[Lane, tuple[Lane, ...]] = {
    lane: tuple(Lane)[: position + 1] for position, lane in enumerate(Lane)
}
"""A lane and those that go before it."""


class Lanes:
    """Two fair queues for each lane.

    Attributes:
        encoded: Jobs whose image is not decoded.
        ready: Jobs that wait for their batch.
        undecoded: Number of the former.
        decoded: Number of the latter.
    """

    def __init__(self) -> None:
        self.encoded = {lane: FairQueue[Job](_caller_of) for lane in Lane}
        self.ready = {lane: FairQueue[Job](_caller_of) for lane in Lane}
        self.undecoded = 0
        self.decoded = 0

    def push_encoded(self, job: Job) -> None:
        """A job waits for a decoder."""
        self.encoded[job.lane].push(job)
        self.undecoded += 1

    def push_ready(self, job: Job) -> None:
        """A job waits for its batch."""
        self.ready[job.lane].push(job)
        self.decoded += 1

    def take_encoded(self, lane: Lane, limit: int) -> list[Job]:
        """The next jobs of a lane for one decoder; all for the same model."""
        jobs = self.encoded[lane].take(limit, _preparer_of)
        self.undecoded -= len(jobs)
        return jobs

    def take_ready(self, lane: Lane, limit: int) -> list[Job]:
        """The next jobs of a lane for one batch."""
        jobs = self.ready[lane].take(limit, _task_of)
        self.decoded -= len(jobs)
        return jobs

    def withdraw(self, job: Job) -> bool:
        """Takes a job out of its queue; False if it waits in none."""
        if self.encoded[job.lane].remove(job):
            self.undecoded -= 1
            return True
        if self.ready[job.lane].remove(job):
            self.decoded -= 1
            return True
        return False

    def waiting_of(self, lane: Lane, caller: str) -> int:
        """Number of a caller's jobs that wait in a lane."""
        return self.encoded[lane].count(caller) + self.ready[lane].count(caller)

    def ready_up_to(self, lane: Lane) -> int:
        """Number of decoded jobs that wait in a lane and those before it."""
        return sum(len(self.ready[before]) for before in UP_TO[lane]) if self.decoded else 0

    def encoded_up_to(self, lane: Lane) -> int:
        """Number of encoded jobs that wait in a lane and those before it."""
        return sum(len(self.encoded[before]) for before in UP_TO[lane]) if self.undecoded else 0

    def newest_of_heaviest(self, lane: Lane) -> Job | None:
        """The last job of the caller that has most in a lane: what to give up first."""
        queues = self.encoded[lane], self.ready[lane]
        counts = Counter(job.caller for queue in queues for job in queue)
        if not counts:
            return None
        caller = counts.most_common(1)[0][0]
        return _newest([job for queue in queues for job in queue if job.caller == caller])


def _newest(jobs: Sequence[Job]) -> Job:
    return max(jobs, key=lambda job: job.arrived)


def _caller_of(job: Job) -> str:
    return job.caller


def _task_of(job: Job) -> object:
    return job.task


def _preparer_of(job: Job) -> object:
    return job.task.served.preparer
