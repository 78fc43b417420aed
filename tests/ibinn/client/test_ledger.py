"""The bookkeeping of a stream, without a server: every image gets one result, memory is bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibinn import errors
from ibinn.client import Retry
from ibinn.client.ledger import MESSAGE_BYTES, Ledger
from ibinn.client.retries import Budget
from ibinn.types import Prediction
from ibinn.v1 import classification_service_pb2 as service
from tests.ibinn.client.fake import Code, Fail, answer_to, of, refusal_of

FULL = Fail(Code.RESOURCE_EXHAUSTED, retry_after_s=0.5)
LOST = errors.UnavailableError("gone", code="UNAVAILABLE")


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ledger(clock: Time | None = None, *, retry: Retry | None = None, **changes: Any) -> Ledger:
    retry = retry or Retry(budget=1000.0)
    defaults: dict[str, Any] = {
        "window": 8,
        "per_message": 1,
        "in_order": True,
        "longest_wait_s": None,
    }
    return Ledger(
        **{**defaults, **changes},
        retry=retry,
        budget=Budget(retry),
        clock=clock or Time(),
        draw=lambda low, high: high,
    )


def request(index: int, *, size: int = 1) -> service.ClassifyRequest:
    return service.ClassifyRequest(image=bytes(size), request_id=f"r{index}")


def sent(found: Ledger, *, incomplete: bool = True) -> list[list[str]]:
    """The names of the images of each message that is to be sent."""
    return [
        [entry.request_id for entry in message.requests]
        for message in found.outgoing(incomplete=incomplete)
    ]


def answer(found: Ledger, *names: str) -> None:
    found.answered(of(*(answer_to(service.ClassifyRequest(request_id=name)) for name in names)))


def refuse(found: Ledger, name: str, fail: Fail = FULL) -> None:
    found.answered(of(refusal_of(service.ClassifyRequest(request_id=name), fail)))


def taken(found: Ledger) -> list[int]:
    indices = []
    while (answered := found.take()) is not None:
        indices.append(answered.index)
    return indices


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_image_gets_exactly_one_result_whatever_happens(data: st.DataObject) -> None:
    total = data.draw(st.integers(0, 30), label="images")
    window = data.draw(st.integers(1, 10), label="window")
    in_order = data.draw(st.booleans(), label="in order")
    clock = Time()
    found = ledger(
        clock,
        window=window,
        per_message=data.draw(st.integers(1, 5), label="per message"),
        in_order=in_order,
        retry=Retry(attempts=3, budget=10_000.0),
    )
    under_way: list[str] = []
    results: list[int] = []
    added = 0
    for _ in range(2000):
        results += taken(found)
        if len(results) == total:
            break
        if added < total and found.has_room:
            if data.draw(st.integers(0, 9)) == 0:
                found.add_failure(errors.ImageError("unreadable"))
            else:
                found.add(request(added))
            added += 1
        assert added - len(results) <= window
        under_way += [name for names in sent(found) for name in names]
        assert found.under_way == len(under_way) == len(set(under_way))
        if under_way:
            what = data.draw(st.sampled_from(["answer", "answer", "answer", "refuse", "break"]))
            if what == "break" and data.draw(st.integers(0, 3)) == 0:
                found.broken(LOST)
                under_way.clear()
                answered_at_least_once(found, under_way, clock)
            elif what != "break":
                name = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                (answer if what == "answer" else refuse)(found, name)
        clock.now += found.pause_s
    assert sorted(results) == list(range(total))
    assert not in_order or results == sorted(results)
    assert found.is_settled


def answered_at_least_once(found: Ledger, under_way: list[str], clock: Time) -> None:
    """Progress between two breaks, so that the stream may be opened again."""
    clock.now += found.pause_s
    under_way += [name for names in sent(found) for name in names]
    answer(found, under_way.pop(0))


def test_messages_hold_so_many_images_unless_nothing_more_is_at_hand() -> None:
    found = ledger(per_message=3)
    for index in range(5):
        found.add(request(index))
    assert sent(found, incomplete=False) == [["r0", "r1", "r2"]]
    assert sent(found, incomplete=False) == []
    assert sent(found) == [["r3", "r4"]]


def test_images_share_a_message_only_up_to_a_size() -> None:
    found = ledger(per_message=8)
    for index, size in enumerate((MESSAGE_BYTES // 2, MESSAGE_BYTES // 2, 1, 3 * MESSAGE_BYTES, 1)):
        found.add(request(index, size=size))
    assert sent(found) == [["r0", "r1"], ["r2"], ["r3"], ["r4"]]


def test_results_in_order_wait_for_their_turn_and_others_do_not() -> None:
    for in_order, expected in ((True, [[], [0, 1]]), (False, [[1], [0]])):
        found = ledger(in_order=in_order)
        for index in range(2):
            found.add(request(index))
        sent(found)
        answer(found, "r1")
        first = taken(found)
        answer(found, "r0")
        assert [first, taken(found)] == expected


def test_a_refused_image_is_sent_again_when_the_server_said_and_nothing_before() -> None:
    clock = Time()
    found = ledger(clock, retry=Retry(base_s=0.25, budget=100.0))
    for index in range(2):
        found.add(request(index))
    sent(found)
    refuse(found, "r0")
    found.add(request(2))
    assert (found.pause_s, sent(found)) == (0.75, [])
    clock.now += 0.75
    assert sent(found) == [["r0"], ["r2"]]


def test_refusals_halve_what_is_under_way_once_a_round_and_answers_let_it_grow() -> None:
    clock = Time()
    found = ledger(clock)
    for index in range(8):
        found.add(request(index))
    assert len(sent(found)) == 8
    for index in range(8):
        refuse(found, f"r{index}")
    clock.now += found.pause_s
    assert sent(found) == [["r0"], ["r1"], ["r2"], ["r3"]]
    refuse(found, "r0")
    clock.now += found.pause_s
    answer(found, "r1", "r2", "r3")  # 2 → 2.25 → 2.47 → 2.67
    assert sent(found) == [["r0"], ["r4"]]
    answer(found, "r0", "r4")  # → 2.86 → 3.04
    assert sent(found) == [["r5"], ["r6"], ["r7"]]


def test_images_are_sent_again_as_long_as_any_is_answered() -> None:
    clock = Time()
    found = ledger(clock, retry=Retry(attempts=2, budget=0.0))
    for index in range(8):
        found.add(request(index))
    for index in range(8):
        names = [name for names in sent(found) for name in names]
        assert names[0] == f"r{index}"
        for name in names[1:]:
            refuse(found, name)
        answer(found, names[0])
        clock.now += found.pause_s
    assert taken(found) == list(range(8))
    assert found.is_settled


def test_rounds_without_any_answer_end_as_refusals() -> None:
    clock = Time()
    found = ledger(clock, retry=Retry(attempts=2))
    for index in range(4):
        found.add(request(index))
    assert len(sent(found)) == 4
    for index in range(4):
        refuse(found, f"r{index}")
    assert found.take() is None
    clock.now += found.pause_s
    assert sent(found) == [["r0"], ["r1"], ["r2"], ["r3"]]  # 4 of a window of 8
    refuse(found, "r0")
    answered = found.take()
    assert answered is not None
    assert isinstance(answered.result, errors.OverloadedError)
    assert answered.result.request_id == "r0"
    answer(found, "r1")
    refuse(found, "r2")
    clock.now += found.pause_s
    assert sent(found) == [["r2"]]


def test_an_image_that_the_server_sends_away_for_too_long_has_its_refusal_as_result() -> None:
    found = ledger(longest_wait_s=10.0)
    for index in range(2):
        found.add(request(index))
    sent(found)
    refuse(found, "r1", Fail(Code.RESOURCE_EXHAUSTED, retry_after_s=11.0))
    answer(found, "r0")
    assert taken(found) == [0, 1]


def test_after_a_break_only_the_unanswered_images_are_sent_again() -> None:
    clock = Time()
    found = ledger(clock)
    for index in range(3):
        found.add(request(index))
    sent(found)
    answer(found, "r1")
    found.broken(LOST)
    clock.now += found.pause_s
    assert sent(found) == [["r0"], ["r2"]]


def test_breaks_without_an_answer_in_between_end_the_stream() -> None:
    clock = Time()
    found = ledger(clock, retry=Retry(attempts=3, budget=100.0))
    found.add(request(0))
    for _ in range(2):
        sent(found)
        found.broken(LOST)
        clock.now += found.pause_s
    sent(found)
    with pytest.raises(errors.UnavailableError):
        found.broken(LOST)


def test_a_break_that_another_try_cannot_mend_is_raised_at_once() -> None:
    found = ledger()
    found.add(request(0))
    sent(found)
    with pytest.raises(errors.NotAuthenticatedError):
        found.broken(errors.NotAuthenticatedError("who?", code="UNAUTHENTICATED"))


def test_of_messages_too_large_for_grpc_the_largest_image_alone_pays() -> None:
    refused = errors.InvalidImageError("too large", code="RESOURCE_EXHAUSTED")
    found = ledger(per_message=3)
    for index, size in enumerate((10, 500, 20)):
        found.add(request(index, size=size))
    assert sent(found) == [["r0", "r1", "r2"]]
    found.broken(refused)
    assert sent(found) == [["r0"], ["r1"], ["r2"]]  # each alone may be small enough
    found.broken(refused)
    assert sent(found) == [["r0"], ["r2"]]
    answer(found, "r0", "r2")
    results = [found.take() for _ in range(3)]
    kinds = [type(answered.result) for answered in results if answered is not None]
    assert kinds == [Prediction, errors.InvalidImageError, Prediction]


def test_an_answer_to_nothing_asked_is_an_error_and_an_empty_one_is_the_images() -> None:
    found = ledger()
    found.add(request(0))
    sent(found)
    found.answered(of(service.ClassifyResult(request_id="r0")))
    answered = found.take()
    assert answered is not None
    assert isinstance(answered.result, errors.InternalServerError)
    with pytest.raises(errors.InternalServerError, match="'r0' that was not made"):
        answer(found, "r0")


@pytest.mark.parametrize("changes", [{"window": 0}, {"per_message": 0}, {"per_message": 65}])
def test_a_window_that_holds_nothing_is_a_config_error(changes: dict[str, int]) -> None:
    with pytest.raises(errors.ConfigError, match=next(iter(changes))):
        ledger(**changes)
