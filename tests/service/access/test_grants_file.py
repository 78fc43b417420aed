"""The file of tokens in force is the last valid one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ibinn.errors import ConfigError
from service.access import grants_file
from service.access.grants_file import GrantsFile


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, *names: str) -> None:
    path.write_text(
        "".join(
            f'[[certificate]]\nname = "{name}"\nsubject = "{name}"\nroles = ["audit"]\n'
            for name in names
        ),
        encoding="utf-8",
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    write(path, "one")
    return path


def names(file: GrantsFile) -> list[str]:
    return list(file.current().certificates)


def test_a_change_is_in_force_after_a_second(path: Path, clock: Clock) -> None:
    file = GrantsFile(path, clock=clock)
    write(path, "one", "two")
    clock.now += 0.9
    assert names(file) == ["one"]
    clock.now += 0.1
    assert names(file) == ["one", "two"]


def test_the_file_is_looked_at_once_a_second_and_read_when_changed(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, reads = [], []
    stamp, read = grants_file._stamp, grants_file.grants.read

    def counted_stamp(file: Path) -> grants_file.Stamp | None:
        looks.append(file)
        return stamp(file)

    def counted_read(file: Path) -> grants_file.Grants:
        reads.append(file)
        return read(file)

    monkeypatch.setattr(grants_file, "_stamp", counted_stamp)
    monkeypatch.setattr(grants_file.grants, "read", counted_read)
    file = GrantsFile(path, clock=clock)
    looks.clear()
    reads.clear()
    for _ in range(1000):
        file.current()
        clock.now += 0.01
    assert 9 <= len(looks) <= 10
    assert reads == []


def test_an_entry_that_is_removed_is_gone_even_if_it_was_the_last(path: Path, clock: Clock) -> None:
    file = GrantsFile(path, clock=clock)
    path.write_text("", encoding="utf-8")
    clock.now += 1
    assert names(file) == []


@pytest.mark.parametrize("broken", ["[[certificate", None])
def test_a_broken_version_changes_nothing_and_is_logged_once(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    file = GrantsFile(path, clock=clock)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken, encoding="utf-8")
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            clock.now += 1
            assert names(file) == ["one"]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "the tokens of before stay in force" in record.message
    write(path, "three")
    clock.now += 1
    assert names(file) == ["three"]


def test_a_file_swapped_by_a_link_is_read_again(path: Path, clock: Clock) -> None:
    link = path.with_name("link.toml")
    link.symlink_to(path)
    file = GrantsFile(link, clock=clock)
    other = path.with_name("other.toml")
    write(other, "two")
    fresh = path.with_name("fresh")
    fresh.symlink_to(other)
    fresh.replace(link)
    clock.now += 1
    assert names(file) == ["two"]


def test_a_file_that_is_broken_at_the_start_is_refused(path: Path, clock: Clock) -> None:
    path.write_text("[[certificate", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not TOML"):
        GrantsFile(path, clock=clock)
