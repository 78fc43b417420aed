from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ibinn.errors import LedgerError
from ibinn.records import EntryKind, GuaranteeEntry, ImageKept
from ibinn.types import Guarantee
from service.records import database, migrations, rows, upgrading
from service.records.ledger import Ledger
from service.records.schema import REVISIONS, VERSION_TABLE, metadata
from tests.service.records.made import new_answer, prediction, record_id, statement

TIMEOUT_S = 20.0
_NEW = {
    "answers": ("image_state",),
    "feedback": ("model", "bin", "correct"),
}


def engine(url: str) -> sa.Engine:
    return database.engine(database.checked_url(url), timeout_s=TIMEOUT_S)


def of_the_previous_schema(url: str) -> None:
    """Fills a database of revision 0001 with what a server of that version would have written.

    A ledger is filled as it is now; then every row is copied but for the columns that came later.
    """
    full = Ledger.open(url, timeout_s=TIMEOUT_S)
    full.append_answers([new_answer(n, kept=ImageKept.ALL if n % 2 else None) for n in range(40)])
    for number in range(20):
        truth = "cat" if number % 3 else "dog"
        full.append_feedback(statement(number, truth), caller="x", digest=None)
    full.append_feedback(statement(1, "dog", source="bob"), caller="x", digest=None)
    full.append_erasure(record_id(3), reason="asked to", caller="x", found=True)
    for guarantee in Guarantee:
        full.append_guarantee(
            GuaranteeEntry(
                calibration="b" * 64,
                guarantee=guarantee,
                reason="said so",
                detector="",
                caller="ann",
            )
        )
    full.close()
    made = engine(url)
    with made.begin() as connection:
        connection.execute(sa.text("DROP TABLE guarantees"))
        connection.execute(sa.text("DROP TABLE detector_states"))
        connection.execute(sa.text("DROP INDEX feedback_model_outcome"))
        for table, columns in _NEW.items():
            for column in columns:
                connection.execute(sa.text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    made.dispose()


def contents(url: str) -> dict[str, list[tuple[object, ...]]]:
    made = engine(url)
    found = {}
    with made.connect() as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        for name in ("ledger", "ledger_head", "answers", "feedback"):
            table = tables.tables[name]
            old = [c for c in table.columns if c.name not in _NEW.get(name, ())]
            query = sa.select(*old).order_by(old[0])
            found[name] = [tuple(row) for row in connection.execute(query)]
    made.dispose()
    return found


def test_an_upgrade_keeps_every_row_and_fills_what_is_new(records_url: str) -> None:
    of_the_previous_schema(records_url)
    before = contents(records_url)
    assert {name: len(found) for name, found in before.items()} == {
        "ledger": 64,
        "ledger_head": 1,
        "answers": 40,
        "feedback": 21,
    }

    ledger = Ledger.open(records_url, timeout_s=TIMEOUT_S)

    assert contents(records_url) == before
    states = [ledger.record(record_id(n)).image_state.value for n in range(5)]
    assert states == ["not_kept", "kept", "not_kept", "erased", "not_kept"]
    table = ledger.calibration_table(rows.model_name(prediction(0).versions))
    assert (table.count, sum(b.correct for b in table.bins)) == (20, 13)
    guarantee = ledger.guarantee("b" * 64)
    assert guarantee is not None
    assert guarantee[0].guarantee is Guarantee.SUSPENDED
    # It goes on where it was.
    ledger.append_answers([new_answer(99)])
    ledger.save_state("server", "b" * 64, b"state")
    entries = list(ledger.all_entries())
    assert len(entries) == 65
    assert entries[-1].previous_hash == entries[-2].hash
    ledger.close()


def test_the_first_schema_can_be_made_and_upgraded(records_url: str) -> None:
    made = engine(records_url)
    upgrading.upgrade(made, timeout_s=TIMEOUT_S, revision="0001")
    with made.connect() as connection:
        names = set(sa.inspect(connection).get_table_names())
    assert names == {"ledger", "ledger_head", "answers", "feedback", VERSION_TABLE}

    upgrading.upgrade(made, timeout_s=TIMEOUT_S)

    with made.connect() as connection:
        assert set(sa.inspect(connection).get_table_names()) == {*metadata.tables, VERSION_TABLE}
    made.dispose()


def test_the_revisions_make_the_tables_that_the_code_uses(records_url: str) -> None:
    made = engine(records_url)
    upgrading.upgrade(made, timeout_s=TIMEOUT_S)

    with made.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
    made.dispose()


def test_every_revision_is_known_by_name() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))

    assert tuple(s.revision for s in reversed(list(scripts.walk_revisions()))) == REVISIONS


def test_a_schema_of_a_newer_version_is_refused_and_left_alone(records_url: str) -> None:
    ledger = Ledger.open(records_url, timeout_s=TIMEOUT_S)
    ledger.append_answers([new_answer(1)])
    ledger.close()
    made = engine(records_url)
    with made.begin() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0099'"))
    before = contents(records_url)

    with pytest.raises(LedgerError, match=r"revision 0099, this version knows up to 0002.*newer"):
        Ledger.open(records_url, timeout_s=TIMEOUT_S)

    assert contents(records_url) == before
    made.dispose()


def test_an_upgrade_that_fails_leaves_everything_as_it_was(
    records_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_the_previous_schema(records_url)
    before = contents(records_url)

    def fails(body: bytes) -> None:
        raise LedgerError("the body does not read")

    with monkeypatch.context() as patched:
        patched.setattr("service.converters.records.read_guarantee", fails)
        with pytest.raises(LedgerError, match="does not read"):
            Ledger.open(records_url, timeout_s=TIMEOUT_S)

    made = engine(records_url)
    with made.connect() as connection:
        assert not sa.inspect(connection).has_table("guarantees")
        assert "model" not in {c["name"] for c in sa.inspect(connection).get_columns("feedback")}
    made.dispose()
    assert contents(records_url) == before
    Ledger.open(records_url, timeout_s=TIMEOUT_S).close()
    assert contents(records_url) == before


def test_many_that_open_an_empty_database_at_once_agree(records_url: str) -> None:
    begin = threading.Barrier(6)
    failures: list[Exception] = []

    def open_one(number: int) -> None:
        try:
            begin.wait()
            ledger = Ledger.open(records_url, timeout_s=TIMEOUT_S)
            ledger.append_answers([new_answer(number)])
            ledger.close()
        except Exception as error:  # noqa: BLE001 - it is told below
            failures.append(error)

    threads = [threading.Thread(target=open_one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    ledger = Ledger.open(records_url, timeout_s=TIMEOUT_S)
    kinds = [entry.kind for entry in ledger.all_entries()]
    assert kinds == [EntryKind.ANSWER] * 6
    ledger.close()
