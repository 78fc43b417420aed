"""The recorder on real databases, held up by real locks, pauses and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ibinn.errors import (
    ConfigError,
    LedgerError,
    RecordsUnavailableError,
    RequestError,
    UnknownRecordError,
)
from ibinn.records import AnswerDigest, EntryKind, FeedbackEntry, FeedbackOutcome, ImageState
from service.converters import records as bodies
from service.monitoring import Monitor
from service.records import writer
from service.records.contents import Answered
from service.records.images import ImageStore
from service.records.ledger import Ledger
from service.records.receipts import Receipts
from service.records.recorder import Recorder
from tests.service.records.databases import PostgreSQL
from tests.service.records.made import answered, image, prediction, record_id, statement
from tests.service.records.test_ledger import whole
from tests.service.running import settings, until

RECEIPTS = Receipts([b"k" * 32])


@contextlib.asynccontextmanager
async def recording(
    url: str, *, images: ImageStore | None = None, monitor: Monitor | None = None, **changes: Any
) -> AsyncIterator[Recorder]:
    """A started recorder, stopped at the end."""
    recorder = Recorder.open(
        settings(records=url, **{"records_timeout_s": 20.0, **changes}),
        server="server-1",
        receipts=RECEIPTS,
        images=images,
        monitor=Monitor() if monitor is None else monitor,
    )
    assert recorder is not None
    await recorder.start()
    try:
        yield recorder
    finally:
        await recorder.stop()


@contextlib.contextmanager
def locked(url: str) -> Iterator[Callable[[], None]]:
    """Holds the write lock of a SQLite file; gives what lets go of it."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection.close
    finally:
        connection.close()


def metric(monitor: Monitor, name: str, **labels: str) -> float:
    value = monitor.registry.get_sample_value(name, labels)
    assert value is not None, name
    return value


def receipt_of(number: int) -> str:
    return RECEIPTS.sign(AnswerDigest.of(prediction(number)))


async def drained(recorder: Recorder) -> None:
    await until(lambda: recorder.state().waiting == 0)


# ----------------------------------------------------------------------------------------- answers


async def test_an_answer_is_on_record_as_it_left(records_url: str) -> None:
    monitor = Monitor()
    async with recording(records_url, monitor=monitor) as recorder:
        sent = answered(1, group_id="lot-7")
        await recorder.answered(sent)
        found = await recorder.record(record_id(1), include_image=True)

        message = bodies.read_answer(found.entry.body)
        assert (message.caller, message.method, message.group_id) == ("ann", "Classify", "lot-7")
        assert (message.bundle, message.server) == ("animals", "server-1")
        assert bodies.read_answer_digest(found.entry.body) == AnswerDigest.of(sent.prediction)
        assert (found.image_state, found.image) == (ImageState.NOT_KEPT, None)
        assert metric(monitor, "ibinn_records_written_total", kind="answer") == 1
        assert metric(monitor, "ibinn_records_reachable") == 1
        state = recorder.state()
    assert (state.audit, state.reachable, state.waiting, state.dropped) == (
        *("best_effort", True, 0, 0),
    )
    assert state.database == recorder.ledger.name


async def test_many_answers_make_one_chain_and_few_transactions(records_url: str) -> None:
    monitor = Monitor()
    async with recording(records_url, monitor=monitor) as recorder:
        for number in range(500):
            await recorder.answered(answered(number))
        await drained(recorder)

        entries = list(recorder.ledger.all_entries())
        assert whole(entries)
        assert [entry.record_id for entry in entries] == [record_id(n) for n in range(500)]
        assert metric(monitor, "ibinn_record_write_seconds_count") <= 50


async def test_what_waits_is_written_before_the_end(sqlite_url: str) -> None:
    async with recording(sqlite_url) as recorder:
        for number in range(300):
            await recorder.answered(answered(number))

    ledger = Ledger.open(sqlite_url, timeout_s=20)
    assert ledger.entries(0, 1).head_sequence == 300
    ledger.close()


async def test_a_required_answer_is_durable_when_it_leaves(records_url: str) -> None:
    async with recording(records_url, audit="required") as recorder:
        other = Ledger.open(records_url, timeout_s=20)
        for number in range(3):
            await recorder.answered(answered(number))
            assert other.record(record_id(number)).entry.sequence == number + 1
        await asyncio.gather(*(recorder.answered(answered(n)) for n in range(10, 110)))
        assert other.entries(0, 1).head_sequence == 103
        other.close()


async def test_a_required_answer_without_a_durable_record_does_not_leave(sqlite_url: str) -> None:
    async with recording(sqlite_url, audit="required", records_timeout_s=0.3) as recorder:
        await recorder.answered(answered(0))
        with locked(sqlite_url) as let_go:
            begun = time.monotonic()
            with pytest.raises(RecordsUnavailableError, match="no answer leaves without"):
                await recorder.answered(answered(1))
            assert time.monotonic() - begun < 5
            let_go()
            await until(lambda: recorder.state().reachable)
        await recorder.answered(answered(2))

        assert recorder.state().dropped == 0
        kept = [entry.record_id for entry in recorder.ledger.all_entries()]
        # Whether the first try had come through is open; it is not tried again.
        assert kept in ([record_id(0), record_id(2)], [record_id(n) for n in range(3)])


async def test_required_answers_fail_at_once_when_the_database_has_long_been_away(
    sqlite_url: str,
) -> None:
    async with recording(sqlite_url, audit="required", records_timeout_s=0.2) as recorder:
        with locked(sqlite_url):
            with pytest.raises(RecordsUnavailableError):
                await recorder.answered(answered(1))
            await until(lambda: recorder._writer.is_down)
            begun = time.monotonic()
            with pytest.raises(RecordsUnavailableError, match="away for some time"):
                await recorder.answered(answered(2))
            assert time.monotonic() - begun < 0.15
        await until(lambda: recorder.state().reachable)
        await recorder.answered(answered(3))


async def test_best_effort_never_waits_and_what_finds_no_room_is_counted(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = Monitor()
    async with recording(
        sqlite_url, monitor=monitor, records_queue=50, records_timeout_s=0.2
    ) as recorder:
        await recorder.answered(answered(0))
        await drained(recorder)
        with locked(sqlite_url) as let_go, caplog.at_level(logging.INFO, "service.records"):
            longest = 0.0
            for number in range(1, 1001):
                begun = time.monotonic()
                await recorder.answered(answered(number))
                longest = max(longest, time.monotonic() - begun)
            assert longest < 0.2
            assert (recorder.state().waiting, recorder.state().dropped) == (50, 950)
            await until(lambda: not recorder.state().reachable)
            assert metric(monitor, "ibinn_records_reachable") == 0
            let_go()
        await drained(recorder)

        assert metric(monitor, "ibinn_records_dropped_total") == 950
        assert recorder.ledger.entries(0, 1).head_sequence == 51
        await recorder.answered(answered(2000))
        await drained(recorder)
        assert recorder.state().reachable
    lines = [r.getMessage() for r in caplog.records if "without a record" in r.getMessage()]
    assert len(lines) <= 2, "lines about drops are not bounded"
    assert "queue is full" in lines[0]


async def test_one_answer_that_cannot_be_written_does_not_stop_the_others(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(sqlite_url) as recorder:
        bad = answered(1)
        broken = dataclasses.replace(bad.prediction.top, index=-(2**40))
        spoilt = dataclasses.replace(bad.prediction, classes=(broken,))
        await recorder.answered(answered(0))
        await recorder.answered(dataclasses.replace(bad, prediction=spoilt))
        await recorder.answered(answered(2))
        await drained(recorder)

        entries = list(recorder.ledger.all_entries())
        assert [entry.record_id for entry in entries] == [record_id(0), record_id(2)]
        assert recorder.state().dropped == 1
    assert f"answer {record_id(1)} cannot be recorded" in caplog.text


async def test_a_database_that_comes_late_is_used_once_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    url = f"sqlite:///{folder / 'records.db'}"
    recorder = Recorder.open(
        settings(records=url, records_timeout_s=0.5),
        server="server-1",
        receipts=RECEIPTS,
        images=None,
        monitor=Monitor(),
    )
    assert recorder is not None
    folder.rename(tmp_path / "away")
    await recorder.start()
    await recorder.answered(answered(1))
    with pytest.raises(RecordsUnavailableError):
        await recorder.submit(statement(1, receipt=receipt_of(1)), caller="x")
    (tmp_path / "away").rename(folder)
    await until(lambda: recorder.state().waiting == 0)

    assert (await recorder.record(record_id(1), include_image=False)).entry.sequence == 1
    await recorder.stop()


async def test_a_newer_schema_ends_the_start(sqlite_url: str) -> None:
    Ledger.open(sqlite_url, timeout_s=20).close()
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE ibinn_schema SET version_num = '0099'")
        connection.commit()

    with pytest.raises(LedgerError, match="newer version"):
        async with recording(sqlite_url):
            pass


async def test_where_records_go_follows_the_settings(tmp_path: Path) -> None:
    def opened(**changes: Any) -> Recorder | None:
        return Recorder.open(
            settings(**changes), server="s", receipts=RECEIPTS, images=None, monitor=Monitor()
        )

    assert opened() is None
    state = tmp_path / "state # 1%20"
    recorder = opened(state_dir=state)
    assert recorder is not None
    await recorder.start()
    await recorder.answered(answered(1))
    await recorder.stop()
    assert (state / "records.db").stat().st_mode & 0o077 == 0
    named = opened(state_dir=state, records=f"sqlite:///{tmp_path / 'other.db'}")
    assert named is not None
    assert named.ledger.name.endswith("other.db")
    with pytest.raises(ConfigError, match="cannot be written"):
        opened(state_dir=Path("/proc/nowhere"))


# -------------------------------------------------------------------------------------- statements


async def test_a_statement_right_after_its_answer_finds_the_record(records_url: str) -> None:
    async with recording(records_url) as recorder:
        for number in range(20):
            await recorder.answered(answered(number))
            told = await recorder.submit(statement(number), caller="x")
            assert (told.record_known, told.outcome, told.revision) == (
                *(True, FeedbackOutcome.FIRST, 1),
            )


async def test_listeners_hear_of_every_statement_once(sqlite_url: str) -> None:
    heard: list[FeedbackEntry] = []
    monitor = Monitor()
    async with recording(sqlite_url, monitor=monitor) as recorder:

        def fails(entry: FeedbackEntry) -> None:
            raise ValueError("a listener's own fault")

        recorder.listeners.extend([fails, heard.append])
        await recorder.answered(answered(1))
        first = await recorder.submit(statement(1, feedback_id="a"), caller="x")
        again = await recorder.submit(statement(1, feedback_id="a"), caller="x")
        await recorder.submit(statement(1, "dog", source="bob"), caller="x")

    assert (first.outcome, again.outcome) == (FeedbackOutcome.FIRST, FeedbackOutcome.REPEATED)
    assert [e.outcome for e in heard] == [FeedbackOutcome.FIRST, FeedbackOutcome.CONFLICTING]
    assert metric(monitor, "ibinn_feedback_total", outcome="repeated") == 1
    assert metric(monitor, "ibinn_records_written_total", kind="feedback") == 2


async def test_a_receipt_is_asked_for_only_where_the_record_is_lost(sqlite_url: str) -> None:
    async with recording(sqlite_url) as recorder:
        with pytest.raises(UnknownRecordError, match="needs the receipt"):
            await recorder.submit(statement(1), caller="x")
        with pytest.raises(RequestError) as caught:
            await recorder.submit(statement(1, receipt="nonsense"), caller="x")
        assert caught.value.field == "receipt"
        with pytest.raises(RequestError):
            await recorder.submit(statement(1, receipt=receipt_of(2)), caller="x")

        told = await recorder.submit(statement(1, receipt=receipt_of(1)), caller="x")
        assert not told.record_known

        await recorder.answered(answered(2))
        told = await recorder.submit(statement(2, receipt="of a key long gone"), caller="x")
        assert told.record_known


async def test_a_statement_whose_commit_is_unknown_is_appended_once_and_heard_once(
    records_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[FeedbackEntry] = []
    async with recording(records_url) as recorder:
        recorder.listeners.append(heard.append)
        await recorder.answered(answered(1))
        append = recorder.ledger.append_statements
        tries: list[int] = []

        def dies_after_the_commit(*args: Any, **names: Any) -> list[Any]:
            found = append(*args, **names)
            tries.append(1)
            if len(tries) == 1:
                raise RecordsUnavailableError("the connection died at COMMIT")
            return found

        monkeypatch.setattr(recorder.ledger, "append_statements", dies_after_the_commit)
        told = await recorder.submit(statement(1), caller="x")

        assert (told.outcome, told.revision) == (FeedbackOutcome.FIRST, 1)
        assert [entry.outcome for entry in heard] == [FeedbackOutcome.FIRST]
        assert len((await recorder.record(record_id(1), include_image=False)).feedback) == 1


async def test_many_statements_at_once_take_few_transactions(
    records_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(records_url) as recorder:
        for number in range(100):
            await recorder.answered(answered(number))
        await drained(recorder)
        append = recorder.ledger.append_statements
        batches: list[int] = []

        def counted(said: Any, **names: Any) -> list[Any]:
            batches.append(len(said))
            return append(said, **names)

        monkeypatch.setattr(recorder.ledger, "append_statements", counted)
        told = await asyncio.gather(
            *(recorder.submit(statement(number), caller="x") for number in range(100)),
            recorder.submit(statement(500), caller="x"),
            return_exceptions=True,
        )

        assert isinstance(told.pop(), UnknownRecordError)
        assert {one.outcome for one in told if not isinstance(one, BaseException)} == {
            FeedbackOutcome.FIRST
        }
        assert sum(batches) == 101
        assert len(batches) <= 10
        assert whole(list(recorder.ledger.all_entries()))


async def test_one_statement_that_the_database_refuses_takes_no_other_with_it(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(sqlite_url) as recorder:
        for number in range(5):
            await recorder.answered(answered(number))
        await drained(recorder)
        append = recorder.ledger.append_statements

        def refuses(said: Any, **names: Any) -> list[Any]:
            if any(one.statement.comment == "odd" for one in said):
                raise LedgerError("the records refuse an entry")
            return append(said, **names)

        monkeypatch.setattr(recorder.ledger, "append_statements", refuses)
        told = await asyncio.gather(
            *(
                recorder.submit(statement(n, comment="odd" if n == 2 else ""), caller="x")
                for n in range(5)
            ),
            return_exceptions=True,
        )

        assert [type(one) for one in told].count(LedgerError) == 1
        assert isinstance(told[2], LedgerError)
        assert recorder.ledger.entries(0, 1).head_sequence == 5 + 4


async def test_answers_whose_commit_is_unknown_are_appended_once(
    records_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(records_url) as recorder:
        append = recorder.ledger.append_answers
        tries: list[int] = []

        def dies_after_the_commit(new: Any) -> None:
            append(new)
            tries.append(1)
            if len(tries) % 2:
                raise RecordsUnavailableError("the connection died at COMMIT")

        monkeypatch.setattr(recorder.ledger, "append_answers", dies_after_the_commit)
        for number in range(300):
            await recorder.answered(answered(number))
        await drained(recorder)

        entries = list(recorder.ledger.all_entries())
        assert sorted(e.record_id for e in entries) == sorted(record_id(n) for n in range(300))
        assert whole(entries)


async def test_a_statement_fails_in_time_when_the_database_is_away(sqlite_url: str) -> None:
    async with recording(sqlite_url, records_timeout_s=0.5) as recorder:
        await recorder.answered(answered(1))
        await drained(recorder)
        with locked(sqlite_url):
            begun = time.monotonic()
            with pytest.raises(RecordsUnavailableError):
                await recorder.submit(statement(1), caller="x")
            assert time.monotonic() - begun < 3
        told = await recorder.submit(statement(1), caller="x")
        assert told.revision == 1


# ------------------------------------------------------------------------------------------ images


def store(folder: Path) -> ImageStore:
    return ImageStore(folder, quota_bytes=10**6, ttl_s=3600)


async def test_an_image_is_kept_before_its_record_and_given_back(
    sqlite_url: str, tmp_path: Path
) -> None:
    monitor = Monitor()
    async with recording(
        sqlite_url, images=store(tmp_path / "images"), monitor=monitor, keep_images="all"
    ) as recorder:
        await recorder.answered(answered(1))
        found = await recorder.record(record_id(1), include_image=True)

        assert (found.image_state, found.image) == (ImageState.KEPT, image(1))
        assert bodies.read_answer(found.entry.body).image_kept == 1
        assert (await recorder.record(record_id(1), include_image=False)).image is None
        assert metric(monitor, "ibinn_images_kept_total", reason="all") == 1


async def test_an_image_that_cannot_be_kept_is_recorded_as_not_kept(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor, images = Monitor(), store(tmp_path / "images")

    def full(sha256: str, data: bytes) -> None:
        raise RecordsUnavailableError("the disk is full")

    monkeypatch.setattr(images, "put", full)
    async with recording(sqlite_url, images=images, monitor=monitor, keep_images="all") as recorder:
        await recorder.answered(answered(1))
        found = await recorder.record(record_id(1), include_image=True)

        assert (found.image_state, found.image) == (ImageState.NOT_KEPT, None)
        assert bodies.read_answer(found.entry.body).image_kept == 0
        assert metric(monitor, "ibinn_image_failures_total") == 1


async def test_images_that_wait_are_bounded_in_bytes(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_IMAGE_BYTES", 3 * len(image(1)))
    async with recording(
        sqlite_url,
        images=store(tmp_path / "images"),
        keep_images="all",
        records_timeout_s=0.2,
    ) as recorder:
        await recorder.answered(answered(0))
        await drained(recorder)
        with locked(sqlite_url):
            for number in range(1, 7):
                await recorder.answered(answered(number))
        await drained(recorder)
        await recorder.answered(answered(7))
        await drained(recorder)

        states = [recorder.ledger.record(record_id(n)).image_state.value for n in range(8)]
        assert states == ["kept"] * 4 + ["not_kept"] * 3 + ["kept"]


async def test_an_erasure_takes_the_image_of_every_record_and_keeps_the_records(
    sqlite_url: str, tmp_path: Path
) -> None:
    images = store(tmp_path / "images")
    async with recording(sqlite_url, images=images, keep_images="all") as recorder:
        await recorder.answered(answered(1))
        same = _with_record_id(answered(1), record_id(2))
        await recorder.answered(same)
        erased = await recorder.erase(record_id(2), reason="asked to", caller="bob")
        again = await recorder.erase(record_id(1), reason="asked to", caller="bob")

        assert (erased.found, erased.records) == (True, 2)
        assert (again.found, again.records) == (False, 2)
        assert images.get(hashlib.sha256(image(1)).hexdigest()) is None
        for number in (1, 2):
            found = await recorder.record(record_id(number), include_image=True)
            assert (found.image_state, found.image) == (ImageState.ERASED, None)
        page = await recorder.entries(0, 10, frozenset({EntryKind.ERASURE}))
        assert [bodies.read_erasure(entry.body).found for entry in page.entries] == [True, False]
        with pytest.raises(UnknownRecordError):
            await recorder.erase("f" * 32, reason="", caller="")


async def test_records_say_when_a_sweep_took_their_images(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ImageStore(tmp_path / "images", quota_bytes=10**6, ttl_s=1e-3)
    async with recording(sqlite_url, images=images, keep_images="all") as recorder:
        await recorder.answered(answered(1))
        await drained(recorder)
        await asyncio.to_thread(time.sleep, 0.01)
        monkeypatch.setattr(images, "due", lambda interval_s: True)
        await asyncio.to_thread(recorder._sweep_once)

        found = await recorder.record(record_id(1), include_image=True)
        assert (found.image_state, found.image) == (ImageState.EXPIRED, None)


def _with_record_id(sent: Answered, name: str) -> Answered:
    receipt = sent.prediction.receipt
    assert receipt is not None
    changed = dataclasses.replace(receipt, record_id=name)
    return dataclasses.replace(
        sent, prediction=dataclasses.replace(sent.prediction, receipt=changed)
    )


# --------------------------------------------------------------------------- a server that fails


@pytest.mark.slow
async def test_a_postgresql_server_that_hangs_holds_up_nobody(
    postgresql: PostgreSQL, postgresql_url: str
) -> None:
    async with recording(postgresql_url, records_timeout_s=1.0, records_queue=100) as recorder:
        await recorder.answered(answered(0))
        await drained(recorder)
        postgresql.pause()
        try:
            for number in range(1, 301):
                begun = time.monotonic()
                await recorder.answered(answered(number))
                assert time.monotonic() - begun < 0.2
            begun = time.monotonic()
            outcomes = await asyncio.gather(
                *(recorder.submit(statement(0), caller="x") for _ in range(10)),
                *(recorder.entries(0, 1) for _ in range(10)),
                return_exceptions=True,
            )
            assert time.monotonic() - begun < 4
            assert {type(found) for found in outcomes} == {RecordsUnavailableError}
            await until(lambda: not recorder.state().reachable)
        finally:
            postgresql.resume()
        await drained(recorder)
        await until(lambda: recorder.state().reachable)

        told = await recorder.submit(statement(0, source="bob"), caller="x")
        assert told.record_known
        assert recorder.state().dropped == 200
        assert whole(list(recorder.ledger.all_entries()))


@pytest.mark.slow
async def test_a_postgresql_server_that_dies_is_used_again_once_it_is_back(
    postgresql: PostgreSQL, postgresql_url: str
) -> None:
    async with recording(postgresql_url, records_timeout_s=2.0) as recorder:
        for number in range(200):
            await recorder.answered(answered(number))
        postgresql.kill()
        try:
            for number in range(200, 400):
                await recorder.answered(answered(number))
            with pytest.raises(RecordsUnavailableError):
                await recorder.submit(statement(0), caller="x")
            await until(lambda: not recorder.state().reachable)
        finally:
            postgresql.start()
        await drained(recorder)

        entries = list(recorder.ledger.all_entries())
        assert sorted(e.record_id for e in entries) == sorted(record_id(n) for n in range(400))
        assert whole(entries)
        assert recorder.state().dropped == 0
        assert (await recorder.submit(statement(0), caller="x")).record_known
