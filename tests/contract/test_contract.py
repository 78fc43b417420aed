"""The wire contract only grows, and the generated code is the contract's."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract.snapshot import contract, recorded

ROOT = Path(__file__).resolve().parents[2]


def load_generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generate()


def test_nothing_that_callers_depend_on_was_removed_or_changed() -> None:
    gone = [line for line in recorded() if line not in contract()]
    assert not gone, "existing clients would break; add instead, and reserve what you give up"


def test_every_addition_is_recorded() -> None:
    new = [line for line in contract() if line not in recorded()]
    assert not new, "record additions: python -m tests.contract.snapshot"


def test_every_enum_begins_with_unspecified() -> None:
    zeros = [line for line in contract() if line.startswith("value ") and line.endswith("= 0")]
    assert zeros
    assert all(line.split(" = ")[0].endswith("_UNSPECIFIED") for line in zeros)


def test_generated_code_is_current() -> None:
    try:
        generate.check_tools()
    except generate.GenerationError as error:
        pytest.skip(str(error))
    assert generate.stale_files() == []


def test_stale_missing_and_surplus_files_are_named(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    generate.generate(tmp_path)
    assert generate.stale_files(tmp_path) == []
    folder = tmp_path / "ibinn" / "v1"
    (folder / "model_pb2.py").write_text("changed")
    (folder / "answer_pb2.pyi").unlink()
    (folder / "old_pb2.py").write_text("surplus")
    (tmp_path / "service" / "oip" / "v2" / "open_inference_grpc_pb2.py").write_text("changed")
    assert generate.stale_files(tmp_path) == [
        "ibinn/v1/answer_pb2.pyi",
        "ibinn/v1/model_pb2.py",
        "ibinn/v1/old_pb2.py",
        "service/oip/v2/open_inference_grpc_pb2.py",
    ]


@pytest.mark.parametrize("module", ["ibinn", "ibinn.errors", "ibinn.types", "ibinn.client"])
def test_import_needs_neither_torch_nor_the_server(module: str) -> None:
    heavy = "{'torch', 'torchvision', 'scipy', 'sklearn', 'prometheus_client', 'pydantic'}"
    code = f"import sys, {module}; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=120)
