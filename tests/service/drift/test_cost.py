"""What watching costs the answers; ratios of figures from one run, best of several rounds."""

from __future__ import annotations

import asyncio
import time

from service.drift import DriftWatch
from service.monitoring import Monitor
from tests.service.drift.calibrated import Calibrated, answers, make_watch, until

ROUNDS = 7
COUNT = 2000


def best(work) -> float:
    """Seconds of the fastest of some rounds, per answer."""

    def once() -> float:
        start = time.perf_counter()
        work()
        return (time.perf_counter() - start) / COUNT

    return min(once() for _ in range(ROUNDS))


async def test_hearing_of_an_answer_and_asking_for_the_guarantee_cost_less_than_counting_it():
    served, monitor = Calibrated().served, Monitor()
    heard = answers(served.classifier, COUNT)
    watch: DriftWatch = make_watch(monitor=monitor)  # not started: what is heard gathers
    watch.serves(served)
    monitor.model(served.info)

    def count() -> None:
        for answer in heard:
            monitor.prediction(answer)

    def hear() -> None:
        for answer in heard:
            watch.guarantee(served)
            watch.observe(b"", served, answer)

    try:
        counting, hearing = best(count), best(hear)
        assert hearing < counting
        assert hearing < 20e-6
    finally:
        await watch.stop()


async def test_the_event_loop_goes_on_while_the_detectors_are_at_work():
    served = Calibrated().served
    watch = make_watch()
    await watch.start()
    watch.serves(served)
    try:
        await until(lambda: bool(watch.state().detectors))
        longest, stop = 0.0, asyncio.Event()

        async def pulse() -> None:
            nonlocal longest
            while not stop.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - before)

        pulsing = asyncio.create_task(pulse())
        for answer in answers(served.classifier, 5000):
            watch.observe(b"", served, answer)
        await until(lambda: watch.state().detectors[0].count == 5000)
        stop.set()
        await pulsing
        assert longest < 1.0
    finally:
        await watch.stop()
