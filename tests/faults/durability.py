"""kill -9 of the server, of its workers and of its database while truths are being told.

Whatever was acknowledged must be on record afterwards, once; with ``audit = required`` so must
every answer that a caller received; and the chain must be whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibinn.records import EntryKind, FeedbackEntry
from service.converters import records as bodies
from service.records import auditing, database
from service.records.ledger import Ledger
from tests.faults.calls import ANSWERED, BY_TRANSPORT
from tests.faults.deaths import all_serve
from tests.faults.laws import broken
from tests.faults.resources import children
from tests.faults.server import ROOT, ServerProcess, stub_server
from tests.faults.telling import Callers, Heard, repeated_at_once
from tests.service.records.databases import PostgreSQL

SERVER, WORKER, DATABASE = "server", "worker", "database"

_EXPECTED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "UNKNOWN"}
"""By which the transport tells of a server that died."""
_PATIENCE_S = 60.0
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DurabilityResult:
    """What was acknowledged or answered, and what is on record after the kills.

    Attributes:
        database: ``sqlite`` or ``postgresql``.
        audit: The server's setting; likewise `workers`.
        seed: Of what is said and when who is killed.
        seconds: From the first call to the last.
        kills: How many of whom.
        acknowledged: Statements.
        resent: Those among them that took more than one call.
        lost: Those among them that are not on record as they were said.
        twice: Statements on record more than once, by their name or by record and source.
        miscalled: Statements that were called a repetition though they had been sent once.
        answers: Answers that callers received.
        unrecorded: Those among them without a record.
        answered_twice: Answers with more than one record.
        entries: On record.
        wrong: What the database's check finds wrong with the chain and the tables made of it.
        agrees: Whether ``ibinn-serve records verify`` and ``ibinn audit verify`` say the same.
        feedback_ended: How the calls of SubmitFeedback ended; likewise Classify's.
        slowest_s: Longest acknowledged call of SubmitFeedback.
        faults: Faults in the servers' logs.
    """

    database: str
    audit: str
    workers: int
    seed: int
    seconds: float
    kills: dict[str, int]
    acknowledged: int
    resent: int
    lost: int
    twice: int
    miscalled: int
    answers: int
    unrecorded: int
    answered_twice: int
    entries: int
    wrong: tuple[str, ...]
    agrees: bool
    feedback_ended: dict[str, int]
    classify_ended: dict[str, int]
    slowest_s: float
    faults: tuple[str, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        own = {
            name
            for name in (*self.feedback_ended, *self.classify_ended)
            if not name.endswith(BY_TRANSPORT)
        }
        by_transport = {
            name.removesuffix(BY_TRANSPORT)
            for name in (*self.feedback_ended, *self.classify_ended)
            if name.endswith(BY_TRANSPORT)
        }
        return broken(
            (not self.lost, f"{self.lost} acknowledged statements are not on record"),
            (not self.twice, f"{self.twice} statements are on record twice"),
            (not self.miscalled, f"{self.miscalled} were called repetitions at the first try"),
            (
                self.audit != "required" or not self.unrecorded,
                f"{self.unrecorded} received answers have no record",
            ),
            (not self.answered_twice, f"{self.answered_twice} answers have several records"),
            (not self.wrong, f"the records are not whole: {self.wrong[:3]}"),
            (self.agrees, "the commands that verify say otherwise"),
            (own <= {ANSWERED, "UNAVAILABLE"}, f"calls ended with {own}"),
            (by_transport <= _EXPECTED, f"the transport ended calls with {by_transport}"),
            (self.resent > 0 or not self.kills, "no kill hit a statement on its way"),
            (not self.faults, f"log: {self.faults[:3]}"),
        )


def on_sqlite(
    *, count: int = 10_000, kills: int = 6, seed: int = 1, audit: str = "required", workers: int = 1
) -> DurabilityResult:
    """The server is killed, or with several workers one of them, on a file of SQLite.

    Args:
        count: Statements to be acknowledged.
        kills: How often.
        seed: Of what is said, and of when.
        audit: The server's setting; likewise `workers`.
    """
    with tempfile.TemporaryDirectory(prefix="ibinn-durability-") as folder:
        url = f"sqlite:///{folder}/records.db"
        victims = [SERVER if workers == 1 else WORKER] * kills
        return _Trial(url, Path(folder), None, victims, audit=audit, workers=workers).run(
            count, seed
        )


def on_postgresql(
    *,
    count: int = 10_000,
    server_kills: int = 4,
    database_kills: int = 4,
    seed: int = 2,
    audit: str = "required",
    fsync: str = "on",
) -> DurabilityResult:
    """The server and the database's processes are killed in any order.

    Args:
        count: Statements to be acknowledged.
        server_kills: How often the server.
        database_kills: How often the database.
        seed: Of what is said, and of who is killed when.
        audit: The server's setting.
        fsync: The database's; off does not matter to a process that is killed.
    """
    victims = [SERVER] * server_kills + [DATABASE] * database_kills
    with running_postgresql(fsync=fsync) as server, tempfile.TemporaryDirectory() as folder:
        url = server.new_database()
        return _Trial(url, Path(folder), server, victims, audit=audit, workers=1).run(count, seed)


def wrong(url: str) -> tuple[str, ...]:
    """What the database's own check finds."""
    return _audit(url)[1]


def _audit(url: str) -> tuple[int, tuple[str, ...]]:
    """How many entries there are, and what is wrong with them and the tables made of them."""
    engine = database.engine(database.checked_url(url), timeout_s=_PATIENCE_S)
    try:
        found = auditing.audit(engine)
    finally:
        engine.dispose()
    breaks = (each.words for each in found.chain.breaks)
    return found.chain.count, (*breaks, *found.findings)


@contextlib.contextmanager
def running_postgresql(**options: str) -> Iterator[PostgreSQL]:
    """A PostgreSQL server of its own; everything is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ibinn-pg-"))
    server: PostgreSQL | None = None
    try:
        server = PostgreSQL(folder, **options)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class _Trial:
    """A server that is killed and started again.

    Args:
        url: Of the records.
        state: The server's folder, which keeps its key for receipts.
        postgresql: The database's server, if it is one.
        victims: Who is to be killed, in no order.
        audit: The server's setting; likewise `workers`.
    """

    def __init__(
        self,
        url: str,
        state: Path,
        postgresql: PostgreSQL | None,
        victims: Sequence[str],
        *,
        audit: str,
        workers: int,
    ) -> None:
        self._url = url
        self._postgresql = postgresql
        self._victims = list(victims)
        self._audit = audit
        self._workers = workers
        self._settings: dict[str, Any] = {
            "records": url,
            "audit": audit,
            "state_dir": str(state / "state"),
            "decode_in": "thread",
            "workers": workers,
            "records_timeout_s": _TIMEOUT_S,
        }
        self._server: ServerProcess
        self._life = contextlib.ExitStack()
        self._faults: list[str] = []
        self._killed: Counter[str] = Counter()

    def run(self, count: int, seed: int) -> DurabilityResult:
        """Kills while callers call, then looks at what is there."""
        chance = random.Random(seed)
        chance.shuffle(self._victims)
        self._start()
        try:
            begun = time.monotonic()
            heard = asyncio.run(self._called(count, seed, chance))
            seconds = time.monotonic() - begun
            agrees = self._client_verifies()
            self._server.signal(signal.SIGTERM)
            self._server.ended(timeout_s=_PATIENCE_S)
        finally:
            self._end()
        return self._result(heard, seed=seed, seconds=seconds, agrees=agrees)

    async def _called(self, count: int, seed: int, chance: random.Random) -> Heard:
        callers = Callers(count=count, seed=seed)
        await callers.connect(self._server.target)
        calling = asyncio.create_task(callers.call())
        killing = asyncio.create_task(self._killings(callers, count, chance))
        await asyncio.wait((calling, killing), return_when=asyncio.FIRST_EXCEPTION)
        if killing.done():
            killing.result()
        await calling
        await killing
        return callers.heard

    async def _killings(self, callers: Callers, count: int, chance: random.Random) -> None:
        """Each after a random number of acknowledged statements and a random moment."""
        moments = sorted(chance.uniform(0.03, 0.97) for _ in self._victims)
        for victim, moment in zip(self._victims, moments, strict=True):
            await callers.until(round(moment * count))
            if victim == WORKER:
                # Without another that serves, there is nobody to be answered by.
                await self._all_serve()
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            self._killed[victim] += 1
            if victim == SERVER:
                self._server.signal(signal.SIGKILL)
                await asyncio.to_thread(self._server.ended, timeout_s=_PATIENCE_S)
                await asyncio.to_thread(self._end)
                await asyncio.to_thread(self._start)
                await callers.connect(self._server.target)
            elif victim == WORKER:
                os.kill(chance.choice(children(self._server.pid)), signal.SIGKILL)
            else:
                assert self._postgresql is not None
                self._postgresql.kill()
                await asyncio.sleep(chance.uniform(0.0, 1.0))
                await asyncio.to_thread(self._postgresql.start)

    async def _all_serve(self) -> None:
        async with asyncio.timeout(2 * _PATIENCE_S):
            while not await all_serve(self._server):
                await asyncio.sleep(0.05)

    def _start(self) -> None:
        self._server = self._life.enter_context(stub_server(**self._settings))

    def _end(self) -> None:
        self._faults += self._server.faults()
        self._life.close()

    def _client_verifies(self) -> bool:
        ibinn = str(Path(sys.executable).with_name("ibinn"))
        done = _command(ibinn, "audit", "verify", "--server", self._server.target)
        return done.returncode == 0

    def _result(self, heard: Heard, *, seed: int, seconds: float, agrees: bool) -> DurabilityResult:
        entries, found = _audit(self._url)
        words = (sys.executable, "-m", "service", "records", "verify", "--records", self._url)
        done = _command(*words)
        told = re.search(r"entries: (\d+)", done.stdout)
        agrees &= done.returncode == 0 and told is not None and int(told[1]) == entries
        answers, said = self._kept()
        by_source = Counter((entry.record_id, entry.provenance.source) for entry in said)
        by_id = {entry.feedback_id: entry for entry in said}
        received = Counter(heard.answers)
        return DurabilityResult(
            database=self._url.partition(":")[0].partition("+")[0],
            audit=self._audit,
            workers=self._workers,
            seed=seed,
            seconds=seconds,
            kills=dict(self._killed),
            acknowledged=len(heard.acknowledged),
            resent=sum(one.tries > 1 for one in heard.acknowledged),
            lost=sum(not _is_kept(by_id.get(one.feedback_id), one) for one in heard.acknowledged),
            twice=sum(n - 1 for n in by_source.values()) + len(said) - len(by_id),
            miscalled=repeated_at_once(heard),
            answers=received.total(),
            unrecorded=sum(record_id not in answers for record_id in received),
            answered_twice=answers.total() - len(answers) + received.total() - len(received),
            entries=entries,
            wrong=found,
            agrees=agrees,
            feedback_ended=dict(heard.feedback),
            classify_ended=dict(heard.classify),
            slowest_s=heard.slowest_s,
            faults=tuple(self._faults),
        )

    def _kept(self) -> tuple[Counter[str], list[FeedbackEntry]]:
        """How many records each answer has, and all statements."""
        answers: Counter[str] = Counter()
        said = []
        ledger = Ledger.open(self._url, timeout_s=_PATIENCE_S)
        try:
            for entry in ledger.all_entries():
                if entry.kind is EntryKind.ANSWER:
                    answers[entry.record_id] += 1
                elif entry.kind is EntryKind.FEEDBACK:
                    said.append(bodies.read_feedback(entry.body))
        finally:
            ledger.close()
        return answers, said


def _is_kept(entry: FeedbackEntry | None, told: Any) -> bool:
    """Whether what is on record by a statement's name is what was said."""
    said = told.statement
    return entry is not None and (
        entry.record_id,
        entry.provenance.source,
        entry.truth.class_name,
        said.feedback_id or entry.feedback_id,
    ) == (said.record_id, said.source, said.truth, entry.feedback_id)


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
