"""The README's Python examples run as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from ibinn.demo import running_server
from service.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
SERVER = "localhost:50051"


def examples() -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def settings_rows() -> list[str]:
    """The README's rows for the server's settings."""
    return [
        f"| `--{name.replace('_', '-')}` | `{PREFIX}{name.upper()}` "
        f"| {'–' if field.default is None else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]


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


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"make ([a-z][a-z-]+)", (ROOT / "README.md").read_text("utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    assert named <= targets


def test_settings_table_holds_every_setting_with_its_default() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert [line for line in lines if f"`{PREFIX}" in line and "|" in line] == settings_rows()
