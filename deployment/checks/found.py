"""What a check found wrong, and what it cannot look at."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployment"


class ToolMissingError(Exception):
    """A program that the check runs is not installed; the message says what to install."""


def program(name: str, *, package: str) -> str:
    """The path of a program: beside this Python (a wheel brought it), else on PATH.

    Raises:
        ToolMissingError: It is in neither.
    """
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.is_file() else shutil.which(name)
    if path is None:
        raise ToolMissingError(f"{name} is not installed; `make` installs it with {package}")
    return path


def loaded_all(text: str) -> Iterator[Any]:
    """The documents of a YAML text, by libyaml where PyYAML has it: ten times as fast."""
    yield from yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def loaded(text: str) -> Any:
    """The only document of a YAML text."""
    (document,) = loaded_all(text)
    return document
