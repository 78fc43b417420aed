"""`ibinn-serve records`: exports, checks, sweeps and upgrades, with words and exit codes."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ibinn import feedback_export
from ibinn.records import ImageKept, ImageState
from service.records import database, upgrading
from service.records.cli import app
from service.records.images import ImageStore
from service.records.ledger import Ledger
from tests.service.records import made

DAY_S = 86_400.0
NO_SETTINGS = dict.fromkeys(
    ("IBINN_RECORDS", "IBINN_STATE_DIR", "IBINN_IMAGES", "IBINN_CONFIG"), None
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=NO_SETTINGS)


def well(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def failed(*arguments: object, code: int = 2) -> str:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def sha256(number: int) -> str:
    return hashlib.sha256(made.image(number)).hexdigest()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with three answers, images of two of them, and three statements."""
    folder = tmp_path_factory.mktemp("filled")
    ledger = Ledger.open(f"sqlite:///{folder / 'records.db'}", timeout_s=10)
    ledger.append_answers(
        [made.new_answer(n, kept=ImageKept.FLAGGED if n < 2 else None) for n in range(3)]
    )
    images = ImageStore(folder / "images", quota_bytes=10**6, ttl_s=DAY_S)
    for number in range(2):
        images.put(sha256(number), made.image(number))
    for number, truth, source in ((0, "cat", "ann"), (1, "dog", "ann"), (1, "cat", "bob")):
        statement = made.statement(number, truth, source=source)
        ledger.append_feedback(statement, caller="app", digest=None)
    ledger.close()
    return folder


@pytest.fixture
def state(filled: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(filled, tmp_path / "state")


def spoil(state: Path, statement: str) -> None:
    connection = sqlite3.connect(state / "records.db")
    with connection:
        assert connection.execute(statement).rowcount
    connection.close()


def test_an_export_says_what_is_in_it_and_reads(state: Path, tmp_path: Path) -> None:
    said = well("export", "--state-dir", state, "--out", tmp_path / "out")
    assert "exported 2 answers with feedback and 2 images" in said
    assert "sources disagree about 1 of the answers" in said
    found = feedback_export.read(tmp_path / "out")
    assert f"{found.info.sequence}:{found.info.hash}" in said
    assert found.info.sequence == 6


def test_an_export_is_filtered(state: Path, tmp_path: Path) -> None:
    records = f"sqlite:///{state / 'records.db'}"
    well("export", "--records", records, "--out", tmp_path / "none", "--until", "2026-03-04")
    assert feedback_export.read(tmp_path / "none").images == ()
    since = "2026-03-04T05:06:08.890123Z"
    well("export", "--records", records, "--out", tmp_path / "one", "--since", since)
    (image,) = feedback_export.read(tmp_path / "one").images
    assert image.record_id == made.record_id(1)
    assert image.image is None  # neither --images nor --state-dir says where images lie


def test_a_damaged_image_is_told_with_exit_code_1(state: Path, tmp_path: Path) -> None:
    path = state / "images" / sha256(1)[:2] / sha256(1)
    path.write_bytes(b"poison")
    said = failed("export", "--state-dir", state, "--out", tmp_path / "out", code=1)
    assert "exported 2 answers with feedback and 1 images" in said
    assert str(path) in said.replace(" ", "")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--since", "yesterday"), "--since is 'yesterday'"),
        (("--until", "2026-03-04T05:06"), "without a zone"),
        (("--model", "resnet"), "--model 'resnet' is no model"),
    ],
)
def test_filters_are_checked(state: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    assert said in failed("export", "--state-dir", state, "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


def test_intact_records_are_verified_and_the_end_is_an_anchor_for_later(state: Path) -> None:
    said = well("verify", "--state-dir", state)
    assert "entries: 6, the last one 6:" in said
    assert "chain: intact" in said
    assert "6 rows held against the entries, all as they say" in said
    anchor = said.split("the last one ")[1].split()[0]
    ledger = Ledger.open(f"sqlite:///{state / 'records.db'}", timeout_s=10)
    ledger.append_answers([made.new_answer(9)])
    ledger.close()
    assert "chain: intact" in well("verify", "--state-dir", state, "--anchor", anchor)
    wrong = anchor[:-1] + ("0" if anchor[-1] != "0" else "1")
    assert "anchor: entry 6" in failed("verify", "--state-dir", state, "--anchor", wrong, code=1)


def test_a_changed_entry_is_told_with_exit_code_1(state: Path) -> None:
    spoil(state, "UPDATE ledger SET body = body || x'00' WHERE sequence = 2")
    said = failed("verify", "--state-dir", state, code=1)
    assert "altered: entry 2" in said
    assert "chain: intact" not in said


def test_a_changed_row_is_told_with_exit_code_1(state: Path) -> None:
    spoil(state, "UPDATE feedback SET truth_class = 'frog' WHERE sequence = 4")
    said = failed("verify", "--state-dir", state, code=1)
    assert "chain: intact" in said
    assert "table feedback, entry 4: truth_class is 'frog', the entry has 'cat'." in said


def test_what_is_no_anchor_is_refused(state: Path) -> None:
    assert "NUMBER:HASH" in failed("verify", "--state-dir", state, "--anchor", "six")


def test_verify_changes_nothing(state: Path) -> None:
    before = (state / "records.db").read_bytes()
    well("verify", "--state-dir", state)
    assert (state / "records.db").read_bytes() == before


def test_a_sweep_takes_old_images_away_and_their_records_say_so(state: Path) -> None:
    assert "removed 0 images" in well("sweep", "--state-dir", state)
    said = well("sweep", "--state-dir", state, "--ttl-days", "0")
    assert "removed 2 images whose time was over and 0 to make room" in said
    assert "2 records say so; kept 0 images (0 bytes)" in said
    ledger = Ledger.open(f"sqlite:///{state / 'records.db'}", timeout_s=10)
    states = [ledger.record(made.record_id(number)).image_state for number in range(3)]
    ledger.close()
    assert states == [ImageState.EXPIRED, ImageState.EXPIRED, ImageState.NOT_KEPT]
    assert "chain: intact" in well("verify", "--state-dir", state)


def test_a_sweep_makes_room_by_the_quota_given(state: Path) -> None:
    size = len(made.image(0))
    said = well("sweep", "--state-dir", state, "--quota-bytes", 2 * size - 1)
    assert "0 images whose time was over and 1 to make room" in said


def test_without_a_place_there_is_nothing_to_sweep(state: Path) -> None:
    said = failed("sweep", "--records", f"sqlite:///{state / 'records.db'}")
    assert "--images" in said


def test_a_new_database_is_made_by_upgrade_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    for command in (("verify",), ("export", "--out", tmp_path / "out")):
        assert "there are no records" in failed(*command, "--records", url)
        assert not (tmp_path / "new.db").exists()
    assert "made in a new database" in well("upgrade", "--records", url)
    assert "already" in well("upgrade", "--records", url)
    assert "entries: 0" in well("verify", "--records", url)


def test_an_older_database_is_upgraded(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = database.engine(database.checked_url(url), timeout_s=10)
    upgrading.upgrade(engine, timeout_s=10, revision="0001")
    engine.dispose()
    assert "records upgrade" in failed("verify", "--records", url)
    assert "upgraded from revision 0001" in well("upgrade", "--records", url)
    assert "chain: intact" in well("verify", "--records", url)


@pytest.mark.parametrize("command", ["verify", "sweep", "upgrade"])
def test_without_records_named_it_is_said_how_to(command: str, tmp_path: Path) -> None:
    more = ("--images", tmp_path) if command == "sweep" else ()
    assert "--records" in failed(command, *more)


def test_a_database_that_is_away_is_an_error(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:1/none"
    said = failed("verify", "--records", url)
    assert "cannot be reached" in said
    assert "secret" not in said


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "records.db").write_text("not a database, but long enough to be looked at" * 50)
    said = failed("verify", "--state-dir", tmp_path)
    assert "no database of records" in said
