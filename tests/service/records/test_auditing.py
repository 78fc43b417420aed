"""What was changed in the database behind the server's back is found."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ibinn import chain
from ibinn.errors import ConfigError, LedgerError
from ibinn.records import GuaranteeEntry, ImageKept
from ibinn.types import Guarantee
from service.records import auditing, database
from service.records.ledger import Ledger
from tests.service.records import made

ANSWERS = 8


def fill(url: str) -> None:
    """8 answers, 3 statements, a change of the guarantee and an erasure."""
    ledger = Ledger.open(url, timeout_s=10)
    kept = [ImageKept.ALL if number % 2 else None for number in range(ANSWERS)]
    ledger.append_answers([made.new_answer(n, kept=why) for n, why in enumerate(kept)])
    for number, truth in ((0, "cat"), (1, "dog"), (1, "frog")):
        ledger.append_feedback(made.statement(number, truth), caller="app", digest=None)
    ledger.append_guarantee(
        GuaranteeEntry(
            calibration="c" * 64,
            guarantee=Guarantee.SUSPENDED,
            reason="drift",
            detector="p_values",
            caller="",
        )
    )
    ledger.append_erasure(made.record_id(3), reason="asked", caller="ann", found=True)
    ledger.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "records.db"
    fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def engine(filled: Path, tmp_path: Path) -> Iterator[Engine]:
    """Of a database that may be changed."""
    shutil.copy(filled, tmp_path / "records.db")
    with opened(f"sqlite:///{tmp_path / 'records.db'}") as found:
        yield found


@contextlib.contextmanager
def opened(url: str) -> Iterator[Engine]:
    found = database.engine(database.checked_url(url), timeout_s=10)
    try:
        yield found
    finally:
        found.dispose()


CHANGES = [
    ("DELETE FROM ledger WHERE sequence = 4", "entry 4 missing"),
    ("DELETE FROM ledger WHERE sequence = 1", "entry 1 missing"),
    ("DELETE FROM ledger WHERE sequence = 13", "entry 13 with the hash"),
    ("DELETE FROM ledger", "entry 13 with the hash"),
    ("UPDATE ledger SET kind = 'feedback' WHERE sequence = 2", "entry 2"),
    ("UPDATE ledger SET kind = 'rumour' WHERE sequence = 2", "kind 'rumour'"),
    ("UPDATE ledger SET hash = previous_hash WHERE sequence = 5", "entry 5"),
    ("UPDATE ledger SET record_id = 'other' WHERE sequence = 5", "filed under"),
    ("UPDATE ledger SET sequence = 99 WHERE sequence = 13", "beyond the head"),
    ("UPDATE ledger SET sequence = 0 WHERE sequence = 1", "entry 0"),
    ("UPDATE ledger_head SET sequence = 12", "entry 12 has the hash"),
    ("UPDATE answers SET class_name = 'dog' WHERE sequence = 3", "class_name is 'dog'"),
    ("UPDATE answers SET confidence = 0.25 WHERE sequence = 3", "confidence is 0.25"),
    ("UPDATE answers SET caller = 'eve' WHERE sequence = 3", "caller is 'eve'"),
    ("UPDATE answers SET image_state = 'lost' WHERE sequence = 3", "image_state is 'lost'"),
    ("UPDATE answers SET image_state = 'kept' WHERE sequence = 1", "image_state is 'kept'"),
    ("UPDATE answers SET image_kept = NULL WHERE sequence = 2", "image_kept is None"),
    ("DELETE FROM answers WHERE sequence = 3", "entry 3: the row is missing"),
    ("UPDATE answers SET sequence = 50 WHERE sequence = 3", "entry 50, beyond the head"),
    ("UPDATE answers SET sequence = 9 WHERE sequence = 3", "row of entry 9, which has none"),
    ("UPDATE feedback SET truth_class = 'dog' WHERE sequence = 9", "truth_class is 'dog'"),
    ("UPDATE feedback SET outcome = 'first' WHERE sequence = 11", "outcome is 'first'"),
    ("UPDATE feedback SET correct = NOT correct WHERE sequence = 9", "correct is"),
    ("DELETE FROM feedback WHERE sequence = 10", "entry 10: the row is missing"),
    ("UPDATE guarantees SET guarantee = 'held'", "guarantee is 'held'"),
    ("DELETE FROM guarantees", "entry 12: the row is missing"),
]


def change(engine: Engine, statement: str) -> None:
    with database.transaction(database.writing(engine)) as connection:
        assert connection.execute(sa.text(statement)).rowcount


def told(engine: Engine, *anchors: str) -> str:
    found = auditing.audit(engine, anchors=[chain.Point.parse(text) for text in anchors])
    assert not found.intact
    return "\n".join([*(broken.words for broken in found.chain.breaks), *found.findings])


def test_untouched_records_are_intact(engine: Engine) -> None:
    found = auditing.audit(engine)
    assert found.intact, found
    assert found.chain.count == ANSWERS + 5
    assert found.rows == ANSWERS + 4
    assert auditing.audit(engine, anchors=[found.chain.end]).intact


def test_more_than_a_page_is_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in (1, 4, 13, 14):
        monkeypatch.setattr(auditing, "_PAGE", page)
        found = auditing.audit(engine)
        assert found.intact
        assert (found.chain.count, found.rows) == (ANSWERS + 5, ANSWERS + 4)


def test_an_empty_ledger_is_intact(sqlite_url: str) -> None:
    Ledger.open(sqlite_url, timeout_s=10).close()
    engine = database.engine(database.checked_url(sqlite_url), timeout_s=10)
    assert auditing.audit(engine).intact
    engine.dispose()


@pytest.mark.parametrize(("statement", "said"), CHANGES)
def test_whatever_is_changed_is_found(
    engine: Engine, statement: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(engine, statement)
    for page in (1, 3, 1000):
        monkeypatch.setattr(auditing, "_PAGE", page)
        assert said in told(engine)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE ledger SET body = body || x'00' WHERE sequence = 2", "its hash is"),
        ("UPDATE ledger SET time = 'noon' WHERE sequence = 2", "entry 2 does not read"),
        ("UPDATE ledger SET record_id = x'ff' WHERE sequence = 2", "filed under"),
        ("UPDATE ledger SET record_id = CAST(x'ff' AS TEXT) WHERE sequence = 2", "entry 2 does"),
        ("UPDATE answers SET received_time = 7 WHERE sequence = 2", "entry 2 does not read"),
        ("UPDATE feedback SET confidence = 'high' WHERE sequence = 9", "confidence is 'high'"),
    ],
)
def test_values_that_are_not_of_their_kind_are_findings(
    engine: Engine, statement: str, said: str
) -> None:
    change(engine, statement)
    assert said in told(engine)


@pytest.mark.slow
def test_whatever_is_changed_is_found_in_postgresql(postgresql_url: str) -> None:
    fill(postgresql_url)
    with opened(postgresql_url) as engine:
        assert auditing.audit(engine).intact
        for statement, said in CHANGES:
            with contextlib.suppress(_Undone), database.transaction(engine) as connection:
                connection.execute(sa.text(statement))
                with pytest.MonkeyPatch.context() as patched:
                    # The check sees what is not committed, and it is taken back afterwards.
                    patched.setattr(database, "transaction", _same(connection))
                    assert said in told(engine)
                raise _Undone
        assert auditing.audit(engine).intact


class _Undone(Exception):  # noqa: N818
    pass


def _same(connection: Connection) -> Any:
    return lambda _: contextlib.nullcontext(connection)


def test_an_altered_body_is_found(engine: Engine) -> None:
    with database.transaction(database.writing(engine)) as connection:
        connection.execute(sa.text("UPDATE ledger SET body = :body WHERE sequence = 2"),
                           {"body": b"\xff\xff"})  # fmt: skip
    said = told(engine)
    assert "entry 2 says that its hash is" in said
    assert "do not read" in said


def test_a_ledger_that_was_rewritten_to_the_end_shows_against_an_anchor(engine: Engine) -> None:
    before = auditing.audit(engine).chain.end
    with database.transaction(database.writing(engine)) as connection:
        connection.execute(sa.text("DELETE FROM ledger WHERE sequence = 13"))
        last = connection.execute(sa.text("SELECT * FROM ledger WHERE sequence = 12")).one()
        connection.execute(
            sa.text("UPDATE ledger_head SET sequence = 12, hash = :hash"), {"hash": last.hash}
        )
    assert auditing.audit(engine).intact
    assert "entry 13 with the hash" in told(engine, str(before))


def test_columns_that_the_server_before_left_empty_are_no_finding(engine: Engine) -> None:
    change(engine, "UPDATE feedback SET model = NULL, bin = NULL, correct = NULL")
    assert auditing.audit(engine).intact


def test_many_findings_are_counted_and_the_first_are_told(engine: Engine) -> None:
    ledger = Ledger.open(engine.url.render_as_string(hide_password=False), timeout_s=10)
    ledger.append_answers([made.new_answer(number) for number in range(100, 300)])
    ledger.close()
    change(engine, "UPDATE answers SET caller = 'eve' WHERE sequence > 13")
    found = auditing.audit(engine)
    assert found.wrong == 200
    assert len(found.findings) == auditing.MOST_FINDINGS


def test_records_without_a_head_are_a_clear_error(engine: Engine) -> None:
    change(engine, "DELETE FROM ledger_head")
    with pytest.raises(LedgerError, match="backup"):
        auditing.audit(engine)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    engine = database.engine(
        database.checked_url(f"sqlite:///{tmp_path / 'other.db'}"), timeout_s=10
    )
    with pytest.raises(ConfigError, match="there are no records"):
        auditing.audit(engine)
    engine.dispose()


def test_another_revision_of_the_schema_is_refused(engine: Engine) -> None:
    change(engine, "UPDATE ibinn_schema SET version_num = '0001'")
    with pytest.raises(ConfigError, match="records upgrade"):
        auditing.audit(engine)
