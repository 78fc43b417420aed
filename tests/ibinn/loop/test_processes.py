"""What the loop starts, and how it says what went wrong."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ibinn import __version__
from ibinn.errors import ConfigError, DataError, UnavailableError
from ibinn.loop.cli import app
from ibinn.loop.processes import (
    run_command,
    running_database,
    running_prometheus,
    running_server,
)

ROOT = Path(__file__).resolve().parents[3]


def test_what_a_command_says_is_kept_with_how_it_was_called(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "commands.log"
    said = run_command("ibinn", "--version", log=log)
    assert __version__ in said
    assert log.read_text().startswith("$ ibinn --version\n")
    assert log.read_text().endswith("[exit 0]\n\n")


def test_a_failed_command_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`ibinn no-such-word` ended with 2: .*No such command"):
        run_command("ibinn", "no-such-word", log=tmp_path / "log")


def test_secrets_stay_out_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert __version__ in run_command("ibinn", "--version", log=log, secret=True)
    assert __version__ not in log.read_text()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    flags = (f"--bundle={tmp_path / 'none'}", "--port=0", "--metrics-port=0")
    with (
        pytest.raises(UnavailableError, match="ended before it was ready"),
        running_server(*flags, log=tmp_path / "log"),
    ):
        pass


def test_sqlite_needs_nothing_running(tmp_path: Path) -> None:
    with running_database(tmp_path / "database", kind="sqlite") as database:
        assert database.kind == "SQLite"
        assert database.url == f"sqlite:///{tmp_path}/database/records.db"


def test_without_prometheus_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with running_prometheus(
        tmp_path, target="http://127.0.0.1:1/metrics", rules=tmp_path
    ) as prometheus:
        assert prometheus is None


def test_an_unknown_database_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--database", "mysql", "--out", str(tmp_path / "loop")])
    assert done.exit_code == 1
    assert "--database is 'mysql'; expected auto, postgresql or sqlite" in done.output


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    done = CliRunner().invoke(app, ["--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds files, and not those of an earlier run" in done.output
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_without_mnist_it_says_what_to_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "loop"), "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "make data" in done.output


def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("ibinn.loop.")]:
        if name not in ("ibinn.loop.cli", "ibinn.loop.timeline", "ibinn.loop.scenario"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "loop")])
    assert done.exit_code == 1
    assert "the package matplotlib is not installed" in done.output
    assert not (tmp_path / "loop").exists()


def test_nothing_is_served_of_a_run_that_did_not_end(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--serve", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds no run of the loop that ended" in done.output


def test_a_command_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-command is neither"):
        run_command("no-such-command", log=tmp_path / "log")
