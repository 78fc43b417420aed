"""A caller gets its rate and its burst, exactly, and is told when to come again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn.errors import RateLimitedError
from service.access import shares
from service.access.shares import Shares


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(found: Shares, images: int = 1, *, rate: float, burst: int) -> float | None:
    """Seconds to wait, or None if the images were let in."""
    try:
        found.take("a", images, rate=rate, burst=burst)
    except RateLimitedError as error:
        return error.retry_after_s
    return None


def test_a_burst_is_let_in_at_once_and_then_the_rate_applies() -> None:
    clock = Clock()
    found = Shares(clock=clock)
    assert [refused(found, rate=2.0, burst=3) for _ in range(3)] == [None] * 3
    assert refused(found, rate=2.0, burst=3) == pytest.approx(0.5)
    clock.now += 0.5
    assert refused(found, rate=2.0, burst=3) is None
    assert refused(found, rate=2.0, burst=3) == pytest.approx(0.5)


def test_the_message_names_caller_limit_and_time() -> None:
    found = Shares(clock=Clock())
    found.take("line-3", 2, rate=4.0, burst=2)
    with pytest.raises(
        RateLimitedError, match=r"'line-3' may send 4 images per second and 2 at once.*0\.25 s"
    ):
        found.take("line-3", 1, rate=4.0, burst=2)


def test_callers_do_not_take_from_each_other() -> None:
    found = Shares(clock=Clock())
    found.take("a", 3, rate=1.0, burst=3)
    found.take("b", 3, rate=1.0, burst=3)


def test_no_images_cost_nothing() -> None:
    found = Shares(clock=Clock())
    found.take("a", 3, rate=1.0, burst=3)
    found.take("a", 0, rate=1.0, burst=3)


def test_a_call_larger_than_the_burst_is_let_in_when_full_and_leaves_a_debt() -> None:
    clock = Clock()
    found = Shares(clock=clock)
    assert refused(found, 10, rate=2.0, burst=4) is None
    assert refused(found, rate=2.0, burst=4) == pytest.approx(3.5)
    clock.now += 3.5
    assert refused(found, rate=2.0, burst=4) is None
    assert refused(found, 10, rate=2.0, burst=4) == pytest.approx(2.0)


calls = st.lists(
    st.tuples(st.floats(0, 5, allow_nan=False), st.integers(1, 6)), min_size=1, max_size=40
)


@given(calls=calls, rate=st.floats(0.1, 50), burst=st.integers(6, 20))
def test_no_window_lets_in_more_than_burst_and_rate(
    calls: list[tuple[float, int]], rate: float, burst: int
) -> None:
    clock = Clock()
    found = Shares(clock=clock)
    let_in: list[tuple[float, int]] = []
    for pause, images in calls:
        clock.now += pause
        if refused(found, images, rate=rate, burst=burst) is None:
            let_in.append((clock.now, images))
    for first, (begin, _) in enumerate(let_in):
        total = 0
        for moment, images in let_in[first:]:
            total += images
            assert total <= burst + rate * (moment - begin) + 1e-6


@given(calls=calls, rate=st.floats(0.1, 50), burst=st.integers(1, 20))
def test_who_waits_as_long_as_told_is_let_in_and_not_much_sooner(
    calls: list[tuple[float, int]], rate: float, burst: int
) -> None:
    clock = Clock()
    found = Shares(clock=clock)
    for pause, images in calls:
        clock.now += pause
        wait_s = refused(found, images, rate=rate, burst=burst)
        if wait_s is not None:
            now = clock.now
            clock.now = now + 0.99 * wait_s
            if wait_s * rate > 1e-6:
                assert refused(found, images, rate=rate, burst=burst) is not None
            clock.now = now + wait_s
            assert refused(found, images, rate=rate, burst=burst) is None


def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    found = Shares(clock=clock)
    for number in range(100):
        found.take(f"caller-{number}", 1, rate=1.0, burst=5)
        clock.now += 0.1
    assert len(found) <= 11
    clock.now += 10
    found.take("last", 1, rate=1.0, burst=5)
    assert len(found) == 1


def test_callers_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MOST_CALLERS", 50)
    found = Shares(clock=Clock())
    for number in range(500):
        found.take(f"caller-{number}", 1, rate=1.0, burst=1)
    assert len(found) == 50
    with pytest.raises(RateLimitedError):
        found.take("caller-499", 1, rate=1.0, burst=1)
