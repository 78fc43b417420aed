"""The interface definition is the protocol's: a public client's has every field of ours, equal."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from service.oip.v2 import open_inference_grpc_pb2 as oip

# Both define the same names, which cannot be in one process. The same lines run in each.
DUMP = """
def dump(file):
    found = {}

    def message(kind):
        for field in kind.fields:
            of = field.message_type or field.enum_type
            oneof = field.containing_oneof
            found[f"{kind.full_name}.{field.name}"] = [
                field.number, field.type, field.is_repeated, of and of.full_name,
                oneof and oneof.name,
            ]
        for nested in kind.nested_types:
            message(nested)

    for kind in file.message_types_by_name.values():
        message(kind)
    for service in file.services_by_name.values():
        for method in service.methods:
            found[method.full_name] = [
                method.input_type.full_name, method.output_type.full_name,
                method.client_streaming, method.server_streaming,
            ]
    return found
"""


def ours() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(DUMP, names)
    found: dict[str, Any] = json.loads(json.dumps(names["dump"](oip.DESCRIPTOR)))
    return found


def test_every_method_and_field_is_the_protocols() -> None:
    pytest.importorskip("rapidjson")  # comes with tritonclient, which is not imported here
    code = (
        f"{DUMP}\nimport json\nfrom tritonclient.grpc import service_pb2\n"
        "print(json.dumps(dump(service_pb2.DESCRIPTOR)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    theirs = json.loads(done.stdout)
    mine = ours()
    assert len(mine) > 50
    assert {name: theirs.get(name) for name in mine} == mine


def test_the_definition_is_complete_for_inference() -> None:
    methods = {name for name in ours() if name.startswith("inference.GRPCInferenceService.")}
    assert {name.rpartition(".")[2] for name in methods} == {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
    }
