from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ibinn.console import cli


def test_the_options_of_a_server_are_those_of_every_command() -> None:
    result = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for option in ("--server", "--tls-ca", "--token-file", "--host", "--port"):
        assert option in result.stdout
    assert "--share" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--server", "no port"], "no port"),
        (["--token-file", "/does/not/exist"], "cannot read the token file"),
        (["--tls-cert", "/does/not/exist"], "/does/not/exist"),
    ],
)
def test_bad_options_end_with_a_message_and_code_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_without_gradio_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "ibinn.console.page", raising=False)
    result = CliRunner().invoke(cli.app, ["--port", "0"])
    assert result.exit_code == 2
    assert "pip install 'ibinn[console]'" in result.stderr


def test_importing_the_command_and_what_the_page_says_loads_neither_gradio_nor_torch() -> None:
    code = (
        "import sys, ibinn.console.cli, ibinn.console.asking, ibinn.console.answering, "
        "ibinn.console.alarms, ibinn.console.damage\n"
        "print([name for name in ('gradio', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_only_addresses_of_this_machine_go_without_a_warning() -> None:
    assert cli._only_here("127.0.0.1")
    assert cli._only_here("::1")
    assert cli._only_here("localhost")
    assert not cli._only_here("0.0.0.0")
    assert not cli._only_here("example.org")
