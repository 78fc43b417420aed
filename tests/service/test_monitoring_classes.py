"""Counters by class, and what the verdicts of the default model rest on."""

from __future__ import annotations

import dataclasses

from prometheus_client import CollectorRegistry

from service.monitoring import Monitor, model_label
from tests.service.stub import INFO, UNKNOWN, make_prediction


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_answers_and_flags_are_counted_by_the_top_class() -> None:
    monitor = Monitor()
    known, unknown = make_prediction(), UNKNOWN
    monitor.prediction(known)
    monitor.prediction(unknown)
    monitor.prediction(unknown)
    top = {known.classes[0].name, unknown.classes[0].name}
    answers = [value(monitor.registry, "ibinn_class_answers_total", **{"class": t}) for t in top]
    flags = [value(monitor.registry, "ibinn_class_flags_total", **{"class": t}) for t in top]
    assert (sum(filter(None, answers)), sum(filter(None, flags))) == (3, 2)


def test_an_answer_without_a_p_value_is_counted_for_no_class() -> None:
    monitor = Monitor()
    answer = make_prediction(tests=(), combined=None)
    monitor.prediction(answer)
    found = value(
        monitor.registry, "ibinn_class_answers_total", **{"class": answer.classes[0].name}
    )
    assert found is None


def test_every_class_of_a_calibrated_model_has_a_rate_from_the_start() -> None:
    monitor = Monitor()
    monitor.model(dataclasses.replace(INFO, calibrated=True))
    for name in INFO.classes:
        assert value(monitor.registry, "ibinn_class_answers_total", **{"class": name}) == 0
        assert value(monitor.registry, "ibinn_class_flags_total", **{"class": name}) == 0


def test_significance_and_calibration_images_are_the_default_models() -> None:
    monitor = Monitor()
    first = dataclasses.replace(INFO, calibrated=True, alpha=0.02, calibration_count=700)
    monitor.model(first)
    before = {"model": model_label(first.versions)}
    assert value(monitor.registry, "ibinn_significance", **before) == 0.02
    assert value(monitor.registry, "ibinn_calibration_images", **before) == 700

    second = dataclasses.replace(
        first, versions=dataclasses.replace(first.versions, calibration="9" * 64), alpha=0.05
    )
    monitor.model(second)
    assert value(monitor.registry, "ibinn_significance", **before) is None
    now = {"model": model_label(second.versions)}
    assert value(monitor.registry, "ibinn_significance", **now) == 0.05

    monitor.model(dataclasses.replace(second, calibrated=False))
    assert value(monitor.registry, "ibinn_significance", **now) is None
