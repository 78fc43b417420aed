"""Laws of the shadow: it sees a share, is compared, and can do no harm."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import pytest

from ibinn.errors import QueueFullError
from ibinn.types import Verdict
from service.models.served import Served
from service.models.shadow import Shadow
from service.monitoring import Monitor
from tests.service.stub import StubClassifier, make_prediction

ANSWER = make_prediction()


def make_shadow(answer=ANSWER, *, share=1.0, error=None, gate=None) -> tuple[Shadow, Monitor]:
    async def background(served, image, *, patience_s):
        if gate is not None:
            await gate.wait()
        if error is not None:
            raise error
        return answer

    monitor = Monitor()
    shadow = Shadow(
        Served.of(StubClassifier(answer), bundle="new"),
        share=share,
        background=background,
        monitor=monitor,
        generator=random.Random(0),
    )
    return shadow, monitor


async def compared(shadow, answer=ANSWER, times=1):
    for _ in range(times):
        shadow.observe(b"image", answer)
        await shadow.until_idle()
    return shadow.figures


async def test_the_same_answer_does_not_differ():
    shadow, _ = make_shadow()
    figures = await compared(shadow)
    assert (figures.compared, figures.class_differs, figures.verdict_differs) == (1, 0, 0)
    assert figures.mean_confidence_difference == 0.0


async def test_class_verdict_and_the_probability_of_the_live_top_class_are_compared():
    dog, cat = ANSWER.classes
    other = dataclasses.replace(
        ANSWER,
        classes=(
            dataclasses.replace(cat, probability=0.9),
            dataclasses.replace(dog, probability=0.1),
        ),
        verdict=Verdict.UNKNOWN,
    )
    shadow, monitor = make_shadow(other)
    figures = await compared(shadow, times=2)
    assert (figures.compared, figures.class_differs, figures.verdict_differs) == (2, 2, 2)
    assert figures.mean_confidence_difference == pytest.approx(0.6)
    value = monitor.registry.get_sample_value
    assert value("ibinn_shadow_comparisons_total") == 2
    assert value("ibinn_shadow_differences_total", {"kind": "class"}) == 2


async def test_a_class_that_the_shadow_does_not_know_has_no_probability_there():
    cat = ANSWER.classes[1]
    shadow, _ = make_shadow(dataclasses.replace(ANSWER, classes=(cat,)))
    figures = await compared(shadow)
    assert figures.mean_confidence_difference == pytest.approx(ANSWER.top.probability)


async def test_the_share_is_drawn_from_the_generator():
    shadow, _ = make_shadow(share=0.25)
    generator = random.Random(0)
    expected = sum(generator.random() < 0.25 for _ in range(1000))
    assert (await compared(shadow, times=1000)).compared == expected
    assert 200 < expected < 300


@pytest.mark.parametrize("error", [QueueFullError("full", retry_after_s=1.0), ZeroDivisionError()])
async def test_whatever_goes_wrong_is_a_comparison_skipped(error):
    shadow, monitor = make_shadow(error=error)
    figures = await compared(shadow, times=3)
    assert (figures.compared, figures.skipped) == (0, 3)
    assert monitor.registry.get_sample_value("ibinn_shadow_skipped_total") == 3


async def test_a_slow_shadow_holds_few_images_and_skips_the_others():
    gate = asyncio.Event()
    shadow, _ = make_shadow(gate=gate)
    for _ in range(100):
        shadow.observe(b"image", ANSWER)
    assert shadow.figures.skipped == 84
    gate.set()
    await shadow.until_idle()
    assert shadow.figures.compared == 16


async def test_a_shadow_that_ends_leaves_nothing_running():
    shadow, _ = make_shadow(gate=asyncio.Event())
    shadow.observe(b"image", ANSWER)
    shadow.end()
    await shadow.until_idle()
    assert shadow.figures.compared == 0
