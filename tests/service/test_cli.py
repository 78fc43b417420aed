"""The command `ibinn-serve`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import ibinn
from ibinn.errors import BundleNotFoundError
from service import cli
from service.settings import PREFIX, Settings
from tests.service.stub import StubClassifier

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "120"})


def test_every_setting_is_an_option_in_one_panel() -> None:
    assert sorted(name for names in cli.PANELS.values() for name in names) == sorted(
        Settings.model_fields
    )
    text = invoke("--help").output
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    assert "IBINN_PORT=8080" in text


def test_version_is_printed() -> None:
    assert invoke("--version").output == f"ibinn-serve {ibinn.__version__}\n"


def test_wrong_setting_is_one_line_and_exit_code_2() -> None:
    result = invoke("--port", "70000")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: setting port: ")
    assert result.stderr.count("\n") == 1


def test_bundle_that_cannot_be_loaded_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_bundle(settings: Settings, path: Path) -> StubClassifier:
        raise BundleNotFoundError(f"no bundle at {settings.bundle}")

    monkeypatch.setattr(cli, "load_bundle", load_bundle)
    monkeypatch.setattr(cli.checks, "problems", lambda settings: [])
    result = invoke("--bundle", "nowhere", "--port", "0", "--metrics-port", "0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: no bundle at nowhere\n"


def test_start_tells_everything_that_is_wrong_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cli, "run", lambda settings: pytest.fail("it started"))
    result = invoke(
        *("--bundle", str(tmp_path / "none"), "--models", str(tmp_path / "folder")),
        *("--host", "0.0.0.0", "--port", "0", "--metrics-port", "0", "--tls-key", "key.pem"),
    )
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for word in ("no model bundle", "models folder", "plaintext", "tls_key"):
        assert sum(word in line for line in lines) == 1, (word, lines)


def test_check_says_what_would_be_served_and_does_not_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "run", lambda settings: pytest.fail("it started"))
    monkeypatch.setattr(cli, "load_bundle", lambda settings, path=None: StubClassifier())
    result = invoke("--check", "--port", "0", "--no-metrics", "--workers", "2")
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first == "ok"
    assert lines[0].startswith("model: stub, weights aaaaaaaaaaaa, α 0.01")
    assert lines[1].startswith("answer to a grey image: NOT_FLAGGED after ")
    assert lines[2] == "grpc: 127.0.0.1:0, plaintext, every caller"
    assert lines[3:5] == ["metrics: off", "workers: 2 on cpu"]


def test_check_tells_a_model_that_cannot_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load_bundle", lambda settings, path=None: StubClassifier())
    monkeypatch.setattr(cli.checks, "problems", lambda settings: [])
    monkeypatch.setattr("service.trial._SIDE_PX", 5000)
    result = invoke("--check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "5000" in result.stderr


def test_tokens_are_a_command_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "run", lambda settings: pytest.fail("it started"))
    result = invoke("token", "--help")
    assert result.exit_code == 0
    assert "list" in result.output


def test_flags_reach_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(cli, "run", seen.append)
    monkeypatch.setattr(cli.checks, "problems", lambda settings: [])
    monkeypatch.setenv("IBINN_MAX_SIDE_PX", "99")
    result = invoke(
        *("--bundle", "b", "--alpha", "0.05", "--port", "0", "--log-level", "error"),
        *("--insecure", "--no-reflection", "--log-format", "json"),
    )
    assert result.exit_code == 0, result.output
    assert (seen[0].insecure, seen[0].reflection, seen[0].metrics) == (True, False, True)
    assert seen[0].log_format == "json"
    assert (seen[0].bundle, seen[0].alpha, seen[0].port) == (Path("b"), 0.05, 0)
    assert (seen[0].max_side_px, seen[0].host) == (99, "127.0.0.1")


def test_ready_line_states_the_real_ports_and_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    echo = typer.echo

    def echo_and_stop(text: str) -> None:
        echo(text)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cli, "load_bundle", lambda settings, path=None: StubClassifier())
    monkeypatch.setattr(cli.typer, "echo", echo_and_stop)
    result = invoke("--port", "0", "--metrics-port", "0")
    assert result.exit_code == 0, result.output
    match = re.fullmatch(
        r"ready grpc=127\.0\.0\.1:(\d+) metrics=http://127\.0\.0\.1:(\d+)/metrics "
        r"model=stub weights=aaaaaaaaaaaa alpha=0\.01 policy=ffffffffffff\n",
        result.stdout,
    )
    assert match is not None, result.stdout
    assert "0" not in match.groups()


def test_wrong_bundle_path_is_one_clear_line_from_the_real_command(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "service"),
            *("--bundle", str(tmp_path / "none"), "--port", "0", "--metrics-port", "0"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert "none" in result.stderr
    assert result.stderr.count("\n") == 1
