"""Everything that is wrong is found before the start, without torch, and all at once."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ibinn import manifest
from service import checks
from service.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def settings(**changes: Any) -> Settings:
    return Settings(**{"port": 0, "metrics_port": 0, **changes})


def problems(**changes: Any) -> list[str]:
    return checks.problems(settings(**changes))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(manifest.embedded_path(), tmp_path / "bundle")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_defaults_have_no_problem() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bundle": "none"}, "no model bundle at none"),
        ({"alpha": 1e-6}, "calibration images"),
        ({"policy": "none.json"}, "policy none.json cannot be read"),
        ({"models": "none"}, "models folder none"),
        ({"acceptance": "none"}, "acceptance folder none"),
        ({"host": "0.0.0.0"}, "plaintext"),
        ({"tls_key": "key.pem"}, "tls_certificate"),
        ({"tokens": "none.toml"}, "none.toml"),
        ({"require_signature": True}, "trusted_keys"),
        ({"traces": "nowhere"}, "traces"),
        ({"port": 50051, "metrics_port": 50051}, "both 50051"),
        ({"state_dir": "/dev/null/state"}, "state folder /dev/null/state"),
        ({"records": "mysql://x"}, "records is"),
        ({"audit": "required"}, "audit is 'required'"),
        ({"keep_images": "all"}, "keep_images is 'all'"),
        ({"sentinels": "/no/such/folder"}, "sentinels folder /no/such/folder"),
        ({"receipt_key": "/no/such/key"}, "/no/such/key"),
        ({"host": "192.0.2.1", "insecure": True}, "cannot listen on 192.0.2.1"),
    ],
)
def test_each_wrong_setting_is_told(changes: dict[str, Any], words: str) -> None:
    found = problems(**changes)
    assert any(words in problem for problem in found), found


def test_wrong_settings_are_told_together(taken: int) -> None:
    found = problems(bundle="none", alpha=0.1, policy="none.json", models="none", port=taken)
    for words in (
        "no model bundle",
        "got alpha",
        "policy none.json cannot",
        "models folder",
        "address is in use",
    ):
        assert sum(words in problem for problem in found) == 1, found


def test_port_in_use_is_named_for_each_endpoint(taken: int) -> None:
    assert "--port" in problems(port=taken)[0]
    assert "--metrics-port" in problems(metrics_port=taken)[0]
    assert problems(metrics_port=taken, metrics=False) == []


def test_changed_file_of_the_bundle_is_named(bundle: Path) -> None:
    assert problems(bundle=bundle) == []
    weights = bundle / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (problem,) = problems(bundle=bundle)
    assert "weights.safetensors" in problem


def test_acceptance_class_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    (tmp_path / "zeppelin").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "zeppelin" / "1.png")
    (problem,) = problems(acceptance=tmp_path)
    assert "'zeppelin'" in problem


def test_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"format_version": 999}))
    (problem,) = problems(state_dir=tmp_path)
    assert "state.json" in problem
    assert "999" in problem


def test_unusual_settings_are_warned_of() -> None:
    found = checks.warnings(settings(workers=200, device="cuda", models="somewhere", caller_rate=5))
    assert sum("caller_rate" in warning for warning in found) == 1
    assert sum("cores" in warning for warning in found) == 1
    assert sum("accelerator" in warning for warning in found) == 1
    assert sum("--acceptance" in warning for warning in found) == 1
    assert checks.warnings(settings()) == []


def test_checks_do_without_torch() -> None:
    code = (
        "import sys; from service import checks; from service.settings import Settings; "
        "found = checks.problems(Settings(port=0, metrics_port=0)); "
        "sys.exit(found or ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
