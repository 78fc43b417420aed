"""`ibinn-serve token` makes entries that a server takes, and shows a token once."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.access import grants
from service.access.cli import app
from service.access.grants import token_digest
from service.call import Role

TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date()


def run(*arguments: str, file: Path | None = None) -> Result:
    more = () if file is None else ("--file", str(file))
    return CliRunner().invoke(app, [*arguments, *more], env={"IBINN_TOKENS": ""})


def make(file: Path, name: str, *more: str) -> str:
    """A new token with the role classify."""
    result = run("new", "--name", name, "--role", "classify", *more, file=file)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def test_a_new_token_is_printed_and_its_hash_alone_is_kept(file: Path) -> None:
    token = make(file, "a", "--role", "explain", "--rate", "2.5", "--burst", "7",
                 "--expires", str(TOMORROW))  # fmt: skip
    ((digest, grant),) = grants.read(file).tokens
    assert digest == token_digest(token)
    assert token not in file.read_text()
    assert grant.roles == {Role.CLASSIFY, Role.EXPLAIN}
    assert (grant.rate, grant.burst) == (2.5, 7)
    assert grant.expires is not None
    assert grant.expires.date() == TOMORROW


def test_a_new_file_is_for_its_owner_and_an_old_one_keeps_its_mode(file: Path) -> None:
    make(file, "a")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    make(file, "b")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_else_stands_in_the_file_stays(file: Path) -> None:
    make(file, "a")
    file.write_text(f"# those of hall 3\n{file.read_text()}\n# the end, without a newline")
    before = file.read_text()
    make(file, "b")
    assert file.read_text().startswith(before)
    assert run("remove", "b", file=file).exit_code == 0
    assert file.read_text().startswith('# those of hall 3\n[[token]]\nname = "a"')
    assert "# the end" in file.read_text()


def test_a_link_to_the_file_stays_a_link(file: Path) -> None:
    make(file, "a")
    link = file.with_name("link.toml")
    link.symlink_to(file)
    make(link, "b")
    assert link.is_symlink()
    assert len(grants.read(file).tokens) == 2


def test_without_a_file_the_entry_is_printed_apart_from_the_token() -> None:
    result = run("new", "--name", "a", "--role", "admin", "--role", "admin")
    assert result.exit_code == 0
    ((digest, grant),) = grants.parse(result.stdout, where="the output").tokens
    token = result.stderr.split()[-1]
    assert digest == token_digest(token)
    assert grant.roles == {Role.ADMIN}
    assert token not in result.stdout


def test_a_certificate_gets_an_entry_and_no_token(file: Path) -> None:
    result = run("new", "--name", "press", "--role", "audit", "--certificate", "press.test",
                 file=file)  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout == ""
    assert grants.read(file).certificates["press.test"].name == "press"


def test_entries_are_listed_without_tokens_or_hashes(file: Path) -> None:
    token = make(file, "line-3", "--rate", "inf")
    run("new", "--name", "press", "--role", "audit", "--certificate", "press.test", file=file)
    result = run("list", file=file)
    assert result.exit_code == 0
    for part in ("line-3", "classify", "no rate limit", "press", "certificate press.test", "audit"):
        assert part in result.stdout
    assert token not in result.stdout
    assert token_digest(token).hex() not in result.stdout


def test_an_expired_entry_is_listed_as_such(file: Path) -> None:
    make(file, "a", "--expires", str(TOMORROW))
    file.write_text(file.read_text().replace(str(TOMORROW), "2020-01-01"))
    assert "EXPIRED" in run("list", file=file).stdout


def test_entries_of_either_kind_are_removed_one_by_one(file: Path) -> None:
    for name in ("a", "b"):
        make(file, name)
        run("new", "--name", f"{name}-c", "--role", "audit", "--certificate", name, file=file)
    for name, left in (("a", 3), ("b-c", 2), ("b", 1), ("a-c", 0)):
        assert run("remove", name, file=file).exit_code == 0
        known = grants.read(file)
        assert len(known.tokens) + len(known.certificates) == left
    assert run("list", file=file).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--name", "a b", "--role", "admin"), "the new entry is not valid: .*name is missing or"),
        (("--name", "a", "--role", "admin", "--rate", "0"), "rate is not a number above 0"),
        (("--name", "a", "--role", "admin", "--burst", "0"), "burst is not a whole number"),
        (("--name", "a", "--role", "admin", "--expires", "soon"), "--expires is 'soon', expected"),
        (("--name", "a", "--role", "admin", "--expires", "2020-01-01"), "has passed"),
        (("--name", "a", "--role", "admin", "--expires", "2090-01-01T00:00"), "without a zone"),
        (("--name", "a", "--role", "admin", "--certificate", " "), "subject is missing or empty"),
        (("--name", "a", "--role", "root"), "Invalid value"),
        (("--name", "a"), "Missing option"),
    ],
)
def test_what_is_not_valid_is_refused_and_leaves_no_file(
    file: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = run("new", *arguments, file=file)
    assert result.exit_code == 2
    assert all(part in result.stderr for part in message.split(".*"))
    assert result.stdout == ""
    assert not file.exists()


def test_a_name_that_is_taken_is_refused_and_the_file_unchanged(file: Path) -> None:
    make(file, "a")
    before = file.read_text()
    result = run("new", "--name", "a", "--role", "admin", file=file)
    assert result.exit_code == 2
    assert "the name 'a' is taken" in result.stderr
    assert result.stdout == ""
    assert file.read_text() == before


def test_a_file_that_is_not_valid_is_not_touched(file: Path) -> None:
    file.write_text("[[token]]\n")
    for arguments in (("new", "--name", "a", "--role", "admin"), ("list",), ("remove", "a")):
        result = run(*arguments, file=file)
        assert result.exit_code == 2
        assert "token number 1" in result.stderr
    assert file.read_text() == "[[token]]\n"


def test_what_is_not_there_is_told(file: Path) -> None:
    assert "cannot be read" in run("list", file=file).stderr
    make(file, "a")
    result = run("remove", "b", file=file)
    assert result.exit_code == 2
    assert "has no entry 'b'; it has a" in result.stderr
    missing = file.parent / "missing" / "tokens.toml"
    result = run("new", "--name", "a", "--role", "admin", file=missing)
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_the_file_may_be_named_by_the_servers_variable(file: Path) -> None:
    environment = {"IBINN_TOKENS": str(file)}
    result = CliRunner().invoke(app, ["new", "--name", "a", "--role", "audit"], env=environment)
    assert result.exit_code == 0
    assert len(grants.read(file).tokens) == 1
