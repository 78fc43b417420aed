"""Laws of the watch: an alarm suspends the guarantee everywhere, until a person ends it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ibinn.errors import NotPossibleError, RecordsUnavailableError
from ibinn.records import EntryKind
from ibinn.types import Guarantee
from service.drift import DriftWatch
from service.drift.guarantees import Guarantees
from service.monitoring import Monitor, model_label
from service.records.ledger import Ledger
from tests.service.drift.calibrated import Calibrated, answers, make_watch, until
from tests.service.stub import StubClassifier

SHIFTED = 2.0
HELD = (Guarantee.HELD, "")


@contextlib.asynccontextmanager
async def watching(model, **options) -> AsyncIterator[DriftWatch]:
    """A started watch of a model."""
    watch = make_watch(**options)
    await watch.start()
    try:
        watch.serves(model.served if isinstance(model, Calibrated) else model)
        yield watch
    finally:
        await watch.stop()


def hear(watch: DriftWatch, served, heard) -> None:
    for answer in heard:
        watch.observe(b"", served, answer)


def seen(watch: DriftWatch) -> int:
    """Images that the first detector has seen."""
    return watch.state().detectors[0].count if watch.state().detectors else 0


def suspended(watch: DriftWatch, served) -> bool:
    return watch.guarantee(served)[0] is Guarantee.SUSPENDED


@pytest.fixture
def ledger(tmp_path: Path):
    opened = Ledger.open(f"sqlite:///{tmp_path / 'records.db'}", timeout_s=5.0)
    yield opened
    opened.close()


class Away:
    """A ledger that can be away."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.away = False

    def __getattr__(self, name: str):
        if self.away:

            def fail(*_args, **_more):
                raise RecordsUnavailableError("the records cannot be reached")

            return fail
        return getattr(self.ledger, name)


async def test_images_like_the_calibration_images_raise_no_alarm():
    served = Calibrated().served
    async with watching(served) as watch:
        hear(watch, served, answers(served.classifier, 2000))
        await until(lambda: seen(watch) == 2000)
        assert watch.guarantee(served) == HELD
        assert watch.state().guarantee is Guarantee.HELD
        assert not any(detector.alarmed for detector in watch.state().detectors)


async def test_shifted_images_suspend_the_guarantee_and_are_told_with_what_to_do(caplog):
    served, monitor = Calibrated().served, Monitor()
    label = model_label(served.info.versions)
    async with watching(served, monitor=monitor) as watch:
        with caplog.at_level(logging.WARNING):
            hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
            await until(lambda: suspended(watch, served))
        reason = watch.guarantee(served)[1]
        assert "detector p_values" in reason
        assert "evidence e^" in reason
        assert watch.state().reason == reason
        (logged,) = [r.getMessage() for r in caplog.records if "p_values" in r.getMessage()]
        assert logged.startswith("drift alarm: ")
        assert "ibinn admin acknowledge" in logged

        def read(name: str, **labels: str) -> float | None:
            return monitor.registry.get_sample_value(name, {"model": label, **labels})

        assert read("ibinn_drift_alarms_total", detector="p_values") == 1
        assert read("ibinn_guarantee_suspended") == 1
        evidence = read("ibinn_drift_log_evidence", detector="p_values")
        threshold = read("ibinn_drift_log_threshold", detector="p_values")
        assert evidence > threshold > 0


async def test_every_answer_of_a_batch_is_seen_once_and_in_order():
    served = Calibrated().served
    async with watching(served) as watch:
        for start in range(5):
            hear(watch, served, answers(served.classifier, 30, seed=start))
            await until(lambda expected=30 * (start + 1): seen(watch) == expected)


async def test_of_images_that_belong_together_the_detectors_see_the_first():
    served = Calibrated().served
    async with watching(served) as watch:
        hear(watch, served, answers(served.classifier, 50, shift=5.0, group_id="one scene"))
        hear(watch, served, answers(served.classifier, 20))
        await until(lambda: seen(watch) == 21)
        assert watch.guarantee(served) == HELD


async def test_answers_of_other_models_are_not_looked_at():
    served, other = Calibrated().served, Calibrated(calibration="c" * 64).served
    async with watching(served) as watch:
        hear(watch, other, answers(other.classifier, 200, shift=SHIFTED))
        hear(watch, served, answers(served.classifier, 10))
        await until(lambda: seen(watch) == 10)
        assert watch.guarantee(other) == (None, "")


async def test_a_model_without_calibration_has_no_guarantee():
    from service.models.served import Served

    served = Served.of(StubClassifier())
    async with watching(served) as watch:
        assert watch.guarantee(served) == (None, "")
        assert watch.state().guarantee is None
        with pytest.raises(NotPossibleError, match="nothing to acknowledge"):
            await watch.acknowledge(reason="none", caller="ann")


async def test_a_bundle_that_kept_too_little_is_said_to_be_unwatched(caplog):
    model = Calibrated()
    model.reference.held_out = None
    served = model.served
    async with watching(served) as watch:
        await until(lambda: watch.guarantee(served) == (None, ""))
        assert "calibrate it again" in caplog.text


async def test_watching_can_be_switched_off():
    served = Calibrated().served
    async with watching(served, drift=False) as watch:
        hear(watch, served, answers(served.classifier, 10))
        assert watch.guarantee(served) == (None, "")


async def test_an_acknowledgement_ends_the_suspension_and_the_detectors_begin_anew(ledger):
    served, monitor = Calibrated().served, Monitor()
    async with watching(served, ledger=ledger, monitor=monitor) as watch:
        with pytest.raises(NotPossibleError, match="no drift alarm"):
            await watch.acknowledge(reason="none", caller="ann")
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))
        await watch.acknowledge(reason="new camera", caller="ann")
        assert watch.guarantee(served) == HELD
        assert seen(watch) == 0
        hear(watch, served, answers(served.classifier, 100))
        await until(lambda: seen(watch) == 100)
        assert watch.guarantee(served) == HELD
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))

    entries = [entry for entry in all_guarantees(ledger) if entry.guarantee is Guarantee.HELD]
    assert [(entry.reason, entry.caller) for entry in entries] == [("new camera", "ann")]
    written = {"kind": EntryKind.GUARANTEE.value}
    assert monitor.registry.get_sample_value("ibinn_records_written_total", written) == 3


async def test_without_a_ledger_an_acknowledgement_works_as_well():
    served = Calibrated().served
    async with watching(served) as watch:
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))
        await watch.acknowledge(reason="new camera", caller="ann")
        assert watch.guarantee(served) == HELD
        assert seen(watch) == 0


async def test_a_suspended_guarantee_is_so_from_the_first_answer_after_a_restart(ledger):
    served = Calibrated().served
    async with watching(served, ledger=ledger) as watch:
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))
        reason = watch.guarantee(served)[1]
    again = Calibrated().served
    async with watching(again, ledger=ledger) as watch:
        assert watch.guarantee(again) == (Guarantee.SUSPENDED, reason)
        await until(lambda: seen(watch) == 200)
        assert watch.state().detectors[0].alarmed
        hear(watch, again, answers(again.classifier, 10, shift=SHIFTED))
        await until(lambda: seen(watch) == 210)
    assert len(all_guarantees(ledger)) == 1


async def test_evidence_survives_a_restart(ledger):
    served = Calibrated().served
    async with watching(served, ledger=ledger) as watch:
        hear(watch, served, answers(served.classifier, 150))
    async with watching(served, ledger=ledger) as watch:
        await until(lambda: seen(watch) == 150)
    async with watching(served, ledger=ledger, server="another") as watch:
        await until(lambda: bool(watch.state().detectors))
        assert seen(watch) == 0


async def test_what_was_acknowledged_elsewhere_while_this_one_was_away_is_forgotten(ledger):
    served = Calibrated().served
    async with watching(served, ledger=ledger) as watch:
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))
    async with watching(served, ledger=ledger, server="another") as watch:
        await watch.acknowledge(reason="new camera", caller="ann")
    async with watching(served, ledger=ledger) as watch:
        assert watch.guarantee(served) == HELD
        await until(lambda: bool(watch.state().detectors))
        assert seen(watch) == 0


async def test_watches_of_one_ledger_agree_within_a_moment(ledger):
    served, twin = Calibrated().served, Calibrated().served
    async with (
        watching(served, ledger=ledger) as one,
        watching(twin, ledger=ledger, server="two") as two,
    ):
        hear(two, twin, answers(twin.classifier, 100, seed=7))
        await until(lambda: seen(two) == 100)
        hear(one, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(one, served))
        start = time.monotonic()
        await until(lambda: suspended(two, twin))
        assert two.guarantee(twin) == one.guarantee(served)
        await two.acknowledge(reason="new camera", caller="ann")
        await until(lambda: one.guarantee(served) == HELD)
        assert time.monotonic() - start < 10.0
        await until(lambda: seen(one) == 0 and seen(two) == 0)


async def test_an_alarm_holds_at_once_where_the_ledger_is_away_and_is_written_later(ledger):
    served, away = Calibrated().served, Away(ledger)
    async with watching(served, ledger=away) as watch:
        await until(lambda: bool(watch.state().detectors))
        away.away = True
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))
        with pytest.raises(RecordsUnavailableError):
            await watch.acknowledge(reason="new camera", caller="ann")
        assert suspended(watch, served)
        assert all_guarantees(ledger) == []
        away.away = False
        await until(lambda: len(all_guarantees(ledger)) == 1)
        assert suspended(watch, served)


async def test_where_the_ledger_is_away_at_the_start_the_guarantee_is_not_taken_for_held(ledger):
    served, away = Calibrated().served, Away(ledger)
    away.away = True
    async with watching(served, ledger=away) as watch:
        guarantee, reason = watch.guarantee(served)
        assert guarantee is Guarantee.SUSPENDED
        assert "cannot be reached" in reason
        away.away = False
        await until(lambda: watch.guarantee(served) == HELD)


def test_a_suspension_that_is_not_written_down_yet_outlives_a_change_of_models(ledger):
    guarantees = Guarantees(ledger, monitor=Monitor(enabled=False))
    try:
        assert not guarantees.begin("b" * 64, patience_s=60.0).suspended
        guarantees.suspend("b" * 64, reason="noise", detector="p_values")
        assert not guarantees.begin("c" * 64, patience_s=60.0).suspended
        assert guarantees.begin("b" * 64, patience_s=60.0).reason == "noise"
    finally:
        guarantees.close()


async def test_another_calibration_begins_with_a_guarantee_that_holds(ledger):
    served, other = Calibrated().served, Calibrated(calibration="c" * 64, seed=3).served
    async with watching(served, ledger=ledger) as watch:
        hear(watch, served, answers(served.classifier, 200, shift=SHIFTED))
        await until(lambda: suspended(watch, served))
        watch.serves(other)
        assert watch.guarantee(other) == HELD
        await until(lambda: bool(watch.state().detectors))
        assert [detector.count for detector in watch.state().detectors] == [0, 0, 0]
        hear(watch, other, answers(other.classifier, 60))
        await until(lambda: seen(watch) == 60)
        assert watch.guarantee(other) == HELD
        watch.serves(served)
        assert suspended(watch, served)
        await until(lambda: seen(watch) == 200)


async def test_gauges_of_a_model_that_is_no_longer_watched_disappear():
    served, other, monitor = (
        Calibrated().served,
        Calibrated(calibration="c" * 64).served,
        Monitor(),
    )
    async with watching(served, monitor=monitor) as watch:
        hear(watch, served, answers(served.classifier, 600))
        label = {"model": model_label(served.info.versions)}
        await until(
            lambda: (
                monitor.registry.get_sample_value("ibinn_recent_uniformity_p_value", label)
                is not None
            )
        )
        watch.serves(other)
        await until(lambda: bool(watch.state().detectors))
        gauges = {
            family.name
            for family in monitor.registry.collect()
            for sample in family.samples
            if family.type == "gauge" and sample.labels.get("model") == label["model"]
        }
        assert gauges == set()


async def test_full_windows_are_estimated_without_labels():
    served, monitor = Calibrated(alpha=0.1).served, Monitor()
    label = {"model": model_label(served.info.versions)}
    heard = answers(served.classifier, 250)
    async with watching(served, monitor=monitor, drift_window=100) as watch:
        hear(watch, served, heard)
        await until(lambda: seen(watch) == 250)

    def read(name: str) -> float:
        return monitor.registry.get_sample_value(name, label)

    accepted = [one for one in heard[:200] if not one.combined.flagged]
    assert read("ibinn_expected_accepted_total") == len(accepted)
    assert read("ibinn_accepted_confidence_sum_total") == pytest.approx(
        sum(one.top.probability for one in accepted)
    )
    expected = read("ibinn_expected_correct_assuming_covariate_shift_total")
    assert 0.5 * len(accepted) < expected <= len(accepted)


async def test_of_very_many_answers_some_windows_are_left_out():
    served, monitor = Calibrated(alpha=0.1).served, Monitor()
    label = {"model": model_label(served.info.versions)}
    async with watching(served, monitor=monitor, drift_window=50) as watch:
        hear(watch, served, answers(served.classifier, 2000))
        await until(lambda: seen(watch) == 2000)
    counted = monitor.registry.get_sample_value("ibinn_expected_accepted_total", label)
    assert 100 < counted < 1500


def all_guarantees(ledger: Ledger):
    from service.converters.records import read_guarantee

    page = ledger.entries(0, 1000, frozenset({EntryKind.GUARANTEE}))
    return [read_guarantee(entry.body) for entry in page.entries]
