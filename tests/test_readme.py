"""What README.md, service/README.md and proto/README.md say is so: examples run, names exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from PIL import Image
from prometheus_client import CollectorRegistry

import ibinn.cli
import ibinn.console.cli
import service.cli
import training.cli
from ibinn.demo import running_server
from service import status
from service.monitoring.series import Series
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / "service" / name for name in ("README.md", "RECORDS.md", "DRIFT.md")),
    ROOT / "training" / "RETRAINING.md",
    *(ROOT / "deployment" / name for name in ("README.md", "SCALING.md", "kubernetes/README.md")),
    ROOT / "proto" / "README.md",
]
SERVER = "localhost:50051"
COMMANDS = {
    "ibinn": ibinn.cli,
    "ibinn-console": ibinn.console.cli,
    "ibinn-serve": service.cli,
    "ibinn-train": training.cli,
}


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def examples(page: Path = PAGES[0]) -> list[str]:
    return blocks(page, "python")


def command_lines() -> Iterator[list[str]]:
    """The words of each command of ours that a page shows."""
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in COMMANDS:
                    yield words


def settings_rows() -> list[str]:
    """The rows for the server's settings."""
    rows = []
    for name, field in Settings.model_fields.items():
        flag, default = name.replace("_", "-"), field.default
        if isinstance(default, bool):
            flag, default = f"[no-]{flag}", "yes" if default else "no"
        shown = "–" if default is None else f"`{default}`"
        rows.append(f"| `--{flag}` | `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return rows


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the examples name."""
    (tmp_path / "ibinn").symlink_to(ROOT / "ibinn")
    source = next((ROOT / "ibinn" / "samples" / "thumbnails").glob("*.jpg"))
    for name in ("photo.jpg", "a.jpg", "b.png"):
        Image.open(source).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("photos")
def test_library_example_runs_as_printed() -> None:
    (example,) = (code for code in examples() if "bundle.load" in code)
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_client_example_runs_as_printed() -> None:
    (example,) = (code for code in examples() if SERVER in code)
    with running_server() as target:
        exec(compile(example.replace(SERVER, target), "README.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.usefixtures("photos")
def test_open_inference_example_runs_as_printed() -> None:
    (example,) = examples(ROOT / "proto" / "README.md")
    with running_server() as target:
        # In a process of its own: that client and our server define the same messages.
        code = example.replace(SERVER, target)
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_command_and_option_that_the_pages_show_exists() -> None:
    lines = list(command_lines())
    assert len(lines) > 30
    for words in lines:
        command = typer.main.get_command(COMMANDS[words[0]].app)
        rest = words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        known = {flag for found in command.params for flag in (*found.opts, *found.secondary_opts)}
        named = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert named <= known | {"--help"}, " ".join(words)


def test_every_file_and_heading_that_a_page_links_to_exists() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            if link.startswith("https://"):
                continue
            path, _, heading = link.partition("#")
            target = page if not path else (page.parent / path).resolve()
            assert target.exists(), link
            if target.is_dir():
                continue
            titles = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
            assert not heading or heading in anchors, link


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"make ([a-z][a-z-]+)", (ROOT / "README.md").read_text("utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert named <= targets


def test_settings_tables_hold_every_setting_with_its_default() -> None:
    lines = (ROOT / "service" / "README.md").read_text("utf-8").splitlines()
    found = [line for line in lines if f"| `{PREFIX}" in line]
    assert sorted(found) == sorted(settings_rows())


def test_operators_find_every_metric_and_callers_every_reason() -> None:
    metrics = CollectorRegistry()
    Series(metrics)
    told = PAGES[1].read_text("utf-8")
    for family in metrics.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in told, name
    reasons = PAGES[-1].read_text("utf-8")
    for _, code, reason in status._CODES:
        assert f"`{reason}`" in reasons, reason
        assert code.name in reasons, code
