"""What may stand beside a request and its tensors.

A parameter that the server does not know is refused: a caller that sets one expects something of
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ibinn.errors import RequestError
from service.oip.text import shown
from service.oip.v2 import open_inference_grpc_pb2 as oip

_HARMLESS = frozenset({"priority"})
"""Set by common clients; the server deals turns out by caller, not by what callers claim."""
_HARMLESS_PREFIX = "binary_data"
"""How tensors travel in the protocol's HTTP form; over gRPC the messages say it themselves."""
_REASONS = {
    "sequence_id": "models here keep no state between requests",
    "sequence_start": "models here keep no state between requests",
    "sequence_end": "models here keep no state between requests",
    "classification": "ask for the outputs `class` and `posterior` instead",
    "shared_memory_region": "the server reads no shared memory; send the data in the request",
    "shared_memory_byte_size": "the server reads no shared memory; send the data in the request",
    "shared_memory_offset": "the server reads no shared memory; send the data in the request",
}
_MOST = 16
_LONGEST_NAME = 64
_TIMEOUT = "timeout"


def timeout_s(request: oip.ModelInferRequest) -> float | None:
    """Seconds that the request gives its answer; None if it does not say.

    Raises:
        RequestError: A parameter, of the request or of a tensor, that the server does not take.
    """
    for path, parameters in _all(request):
        if len(parameters) > _MOST:
            raise RequestError(
                f"{path} has {len(parameters)} entries; the limit is {_MOST}", field=path
            )
        for name in parameters:
            if name in _HARMLESS or name.startswith(_HARMLESS_PREFIX):
                continue
            if name == _TIMEOUT and path == "parameters":
                continue
            reason = _REASONS.get(name, "the server knows no such parameter; leave it out")
            raise RequestError(
                f"{path} has {shown(name)}; {reason}", field=f"{path}[{name[:_LONGEST_NAME]}]"
            )
    return _timeout_s(request)


def _all(request: oip.ModelInferRequest) -> Iterator[tuple[str, Mapping[str, oip.InferParameter]]]:
    yield "parameters", request.parameters
    for index, tensor in enumerate(request.inputs):
        yield f"inputs[{index}].parameters", tensor.parameters
    for index, output in enumerate(request.outputs):
        yield f"outputs[{index}].parameters", output.parameters


def _timeout_s(request: oip.ModelInferRequest) -> float | None:
    if _TIMEOUT not in request.parameters:
        return None
    value = request.parameters[_TIMEOUT]
    kind = value.WhichOneof("parameter_choice")
    if kind not in ("int64_param", "uint64_param"):
        raise RequestError(
            f"parameters[timeout] is a {kind}; expected int64_param, microseconds",
            field="parameters[timeout]",
        )
    microseconds = int(getattr(value, kind))
    if microseconds < 0:
        raise RequestError(
            f"parameters[timeout] is {microseconds}; expected 0 (none) or more, microseconds",
            field="parameters[timeout]",
        )
    return microseconds / 1e6 if microseconds else None
