"""Container files, and what of the project goes into the images."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deployment.checks import containers

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployment" / "containers"

# What belongs to training, to notebooks or to the page, by the names of distributions.
NOT_FOR_SERVING = {
    "captum",
    "gradio",
    "ibinn-train",
    "ipykernel",
    "ipython",
    "jupyter-client",
    "jupyter-core",
    "lightning",
    "lightning-utilities",
    "matplotlib",
    "nbclient",
    "nbformat",
    "notebook",
    "pandas",
    "pytest",
    "pytorch-lightning",
    "tensorboard",
    "timm",
    "torchmetrics",
    "torchvision",
}

GOOD = """\
FROM docker.io/library/python:3.11-slim AS build
RUN uv pip install --constraint constraints.txt --requirements pyproject.toml
FROM docker.io/library/python:3.11-slim
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["ibinn-serve"]
"""


def closure(requirement: str) -> set[str]:
    """The distributions that a requirement brings, by what is installed; an absent one has no
    requirements of its own here."""
    packaging = pytest.importorskip("packaging.requirements")
    names = pytest.importorskip("packaging.utils")
    seen: set[tuple[str, str]] = set()
    waiting = [packaging.Requirement(requirement)]
    while waiting:
        one = waiting.pop()
        name = names.canonicalize_name(one.name)
        for extra in ("", *one.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                required = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            found = [packaging.Requirement(text) for text in required]
            waiting += [
                needed
                for needed in found
                if needed.marker is None or needed.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen}


def test_serving_group_holds_no_training_or_notebook_package() -> None:
    extras = containers.extras(FOLDER / "serve.Containerfile")
    assert {"serve", "postgresql", "s3"} <= set(extras)
    brought = closure(f"ibinn[{','.join(extras)}]")
    assert {"torch", "grpcio", "sqlalchemy", "psycopg", "s3fs"} <= brought
    assert brought & NOT_FOR_SERVING == set()


def test_closure_sees_what_training_brings() -> None:
    assert {"lightning", "timm", "captum", "tensorboard"} <= closure("ibinn[train]")


def test_server_that_checks_itself_imports_no_training_or_notebook_package(
    tmp_path: Path,
) -> None:
    program = (
        "import json, runpy, sys\n"
        "sys.argv = ['ibinn-serve', '--check', '--port', '0', '--metrics-port', '0',"
        f" '--records', 'none', '--state-dir', {str(tmp_path)!r}]\n"
        "try:\n"
        "    runpy.run_module('service', run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code, ended.code\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"service", "ibinn", "torch"} <= imported
    modules = {name.replace("-", "_") for name in NOT_FOR_SERVING} | {"IPython", "training"}
    assert imported & modules == set()


@pytest.mark.parametrize("path", containers.FILES, ids=lambda path: path.name)
def test_copied_paths_exist_and_are_let_through(path: Path) -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".containerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    for one in containers.instructions(path.read_text("utf-8")):
        if one.word != "COPY" or "--from" in one.value:
            continue
        sources = [word for word in one.value.split() if not word.startswith("--")][:-1]
        for source in sources:
            assert (ROOT / source).exists()
            assert source in allowed


@pytest.mark.parametrize("path", containers.FILES, ids=lambda path: path.name)
def test_extras_and_commands_are_those_of_the_project(path: Path) -> None:
    text = path.read_text("utf-8")
    metadata = importlib.metadata.metadata("ibinn")
    assert set(containers.extras(path)) <= set(metadata.get_all("Provides-Extra"))
    (entry,) = re.findall(r'^ENTRYPOINT \["(.+)"\]', text, flags=re.MULTILINE)
    scripts = {one.name for one in importlib.metadata.entry_points(group="console_scripts")}
    assert entry in scripts
    removed = set(re.findall(r"/opt/ibinn/bin/(ibinn-[a-z]+)", text)) - {"ibinn-health"}
    assert removed <= scripts
    assert entry not in removed


def test_uv_is_the_one_of_the_makefile() -> None:
    (expected,) = re.findall(r"^UV_VERSION := (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    for path in containers.FILES:
        assert f"ARG UV_VERSION={expected}" in path.read_text("utf-8")


def test_good_file_has_nothing_to_mend() -> None:
    assert list(containers.wrong(GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("USER 10001:10001\n", "", "USER is None"),
        ("USER 10001:10001", "USER root", "USER is 'root'"),
        ("STOPSIGNAL SIGTERM\n", "", "STOPSIGNAL"),
        ('ENTRYPOINT ["ibinn-serve"]', "ENTRYPOINT ibinn-serve", "ENTRYPOINT must be a list"),
        ("--constraint constraints.txt ", "", "without --constraint"),
        ("STOPSIGNAL", "ENV DB_PASSWORD=x\nSTOPSIGNAL", "no secret"),
        ("RUN", "ADD https://example.org/x /x\nRUN", "use COPY"),
    ],
)
def test_what_breaks_a_rule_is_named(old: str, new: str, message: str) -> None:
    found = list(containers.wrong(GOOD.replace(old, new)))
    assert len(found) == 1
    assert message in found[0]


def test_one_stage_is_refused() -> None:
    assert any("one stage" in text for text in containers.wrong(GOOD.split("\n", 2)[2]))


def test_health_command_says_what_is_wrong_where_nobody_answers() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "health.py", "--address", "127.0.0.1:1", "--timeout", "0.5"],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "IBINN_TLS_CERTIFICATE"},
    )
    assert done.returncode == 1
    assert "127.0.0.1:1 does not answer" in done.stderr
