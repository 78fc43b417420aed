from __future__ import annotations

import itertools
import statistics

import pytest

from ibinn.client.wire import stream_results
from ibinn.errors import ConfigError
from ibinn.load_test import (
    Arrivals,
    Concurrency,
    Plan,
    Rate,
    UnaryWork,
    classify_work,
    explain_work,
    stream_work,
)
from ibinn.load_test.plan import intended_times
from ibinn.v1 import classification_service_pb2 as service

WORK = UnaryWork(path="/tests.Echo/Echo", requests=(b"x",))


def test_uniform_arrivals_lie_at_equal_distances() -> None:
    times = list(intended_times(Rate(4), images_per_call=1, until_s=1.0))
    assert times == [0, 0.25, 0.5, 0.75]


def test_a_message_of_several_images_counts_for_all_of_them() -> None:
    times = list(intended_times(Rate(4), images_per_call=2, until_s=1.0))
    assert times == [0, 0.5]


def test_poisson_arrivals_are_reproducible_and_exponential() -> None:
    rate = Rate(100, Arrivals.POISSON, seed=3)
    times = list(intended_times(rate, images_per_call=1, until_s=100))
    assert times == list(intended_times(rate, images_per_call=1, until_s=100))
    other = Rate(100, Arrivals.POISSON, seed=4)
    assert times != list(intended_times(other, images_per_call=1, until_s=100))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # 10,000 gaps: mean and standard deviation of an exponential law are equal, here 10 ms.
    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"duration_s": 0}, "duration is 0"),
        ({"deadline_s": -1}, "deadline is -1"),
        ({"connections": 0}, "connections is 0"),
        ({"warm_up_s": -0.5}, r"warm-up is -0\.5 s"),
    ],
)
def test_an_impossible_plan_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan(target="localhost:1", work=WORK, load=Rate(1), **change)  # type: ignore[arg-type]


def test_impossible_loads_and_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="rate is 0"):
        Rate(0)
    with pytest.raises(ConfigError, match="rate is nan"):
        Rate(float("nan"))
    with pytest.raises(ConfigError, match="concurrency is 0"):
        Concurrency(0)
    with pytest.raises(ConfigError, match="no image"):
        classify_work([])
    with pytest.raises(ConfigError, match="no image"):
        stream_work([], images_per_message=2, timeout_s=1)
    with pytest.raises(ConfigError, match="images per message is 65, expected 1 to 64"):
        stream_work([b"x"], images_per_message=65, timeout_s=1)


def test_requests_are_those_of_the_service() -> None:
    classify = classify_work([b"one", b"two"], model="a" * 8)
    assert classify.path == "/ibinn.v1.ClassificationService/Classify"
    assert [
        (request.image, request.model)
        for request in map(service.ClassifyRequest.FromString, classify.requests)
    ] == [(b"one", "a" * 8), (b"two", "a" * 8)]
    explain = explain_work([b"one"])
    assert explain.path == "/ibinn.v1.ClassificationService/Explain"
    assert service.ExplainRequest.FromString(explain.requests[0]).image == b"one"


def test_messages_of_a_stream_go_round_over_the_images() -> None:
    work = stream_work([b"one", b"two", b"three"], images_per_message=2, timeout_s=1.5)
    messages = [service.ClassifyStreamRequest.FromString(message) for message in work.messages]
    assert [[request.image for request in message.requests] for message in messages] == [
        [b"one", b"two"],
        [b"two", b"three"],
        [b"three", b"one"],
    ]
    timeout = messages[0].requests[0].timeout
    assert (timeout.seconds, timeout.nanos) == (1, 500_000_000)


def test_results_of_a_stream_are_read_with_their_status() -> None:
    message = service.ClassifyStreamResponse()
    message.results.add(index=7).classification.SetInParent()
    message.results.add(index=3).error.code = 8
    message.results.add(index=4).error.code = 99
    expected = [(7, "OK"), (3, "RESOURCE_EXHAUSTED"), (4, "UNKNOWN")]
    assert stream_results(message.SerializeToString()) == expected
