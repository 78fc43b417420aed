"""From answers to tensors.

N answers, K classes in index order, T tests in the order of the model's information. What an
answer does not have is NaN, or empty.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ibinn.errors import RequestError
from ibinn.types import ModelInfo, Prediction
from service.models.served import Served
from service.oip.text import shown
from service.oip.v2 import open_inference_grpc_pb2 as oip

Row = Sequence[float] | float | str
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output tensor.

    Attributes:
        name: On the wire.
        datatype: FP64 or BYTES.
        width: Second dimension for a model; None: the tensor has one.
        row: What it says of one answer.
    """

    name: str
    datatype: str
    width: Callable[[ModelInfo], int] | None
    row: Callable[[Prediction, ModelInfo], Row]

    def shape(self, count: int, info: ModelInfo) -> tuple[int, ...]:
        """Its dimensions for so many answers."""
        return (count,) if self.width is None else (count, self.width(info))


def _posterior(prediction: Prediction, info: ModelInfo) -> list[float]:
    return _by_index(((c.index, c.probability) for c in prediction.classes), len(info.classes))


def _log_likelihood(prediction: Prediction, info: ModelInfo) -> list[float]:
    return _by_index(((c.index, c.log_likelihood) for c in prediction.classes), len(info.classes))


def _p_values(prediction: Prediction, info: ModelInfo) -> list[float]:
    results = (*prediction.tests, *filter(None, (prediction.combined,)))
    found = {result.name: result.p_value for result in results}
    return [_number(found.get(test.name)) for test in info.tests]


def _decision(prediction: Prediction, info: ModelInfo) -> str:
    return "" if prediction.decision is None else prediction.decision.action.value


def _record_id(prediction: Prediction, info: ModelInfo) -> str:
    return "" if prediction.receipt is None else prediction.receipt.record_id


OUTPUTS: dict[str, Output] = {
    output.name: output
    for output in (
        Output(
            name="posterior",
            datatype="FP64",
            width=lambda info: len(info.classes),
            row=_posterior,
        ),
        Output(
            name="log_likelihood",
            datatype="FP64",
            width=lambda info: len(info.classes),
            row=_log_likelihood,
        ),
        Output(name="p_values", datatype="FP64", width=lambda info: len(info.tests), row=_p_values),
        Output(
            name="bits_per_dim",
            datatype="FP64",
            width=None,
            row=lambda prediction, _: _number(prediction.bits_per_dim),
        ),
        Output(
            name="class",
            datatype="BYTES",
            width=None,
            row=lambda prediction, _: prediction.top.name,
        ),
        Output(
            name="verdict",
            datatype="BYTES",
            width=None,
            row=lambda prediction, _: prediction.verdict.value,
        ),
        Output(name="decision", datatype="BYTES", width=None, row=_decision),
        Output(name="record_id", datatype="BYTES", width=None, row=_record_id),
    )
}


def wanted(request: oip.ModelInferRequest) -> tuple[Output, ...]:
    """The outputs that a request asks for; all if it names none.

    Raises:
        RequestError: One that there is not, or one named twice.
    """
    found: dict[str, Output] = {}
    for index, output in enumerate(request.outputs):
        path = f"outputs[{index}].name"
        if output.name not in OUTPUTS:
            raise RequestError(
                f"{path} is {shown(output.name)}; expected one of {', '.join(OUTPUTS)}", field=path
            )
        if output.name in found:
            raise RequestError(
                f"{path} is {shown(output.name)} a second time; name each once", field=path
            )
        found[output.name] = OUTPUTS[output.name]
    return tuple(found.values()) or tuple(OUTPUTS.values())


def response(
    request: oip.ModelInferRequest,
    served: Served,
    predictions: Sequence[Prediction],
    outputs: Sequence[Output],
    *,
    raw: bool,
) -> oip.ModelInferResponse:
    """The message with these answers.

    Args:
        request: What was asked.
        served: The model that answered.
        predictions: Its answers, in order.
        outputs: The tensors to send.
        raw: Whether their contents go raw; typed otherwise.
    """
    info = served.info
    message = oip.ModelInferResponse(
        model_name=info.name, model_version=served.digest, id=request.id
    )
    for name, value in _told(info).items():
        message.parameters[name].string_param = value
    for output in outputs:
        rows = [output.row(prediction, info) for prediction in predictions]
        tensor = message.outputs.add(
            name=output.name,
            datatype=output.datatype,
            shape=output.shape(len(predictions), info),
        )
        if output.datatype == "BYTES":
            elements = [str(row).encode() for row in rows]
            if raw:
                message.raw_output_contents.append(_joined(elements))
            else:
                tensor.contents.bytes_contents.extend(elements)
        else:
            values: npt.NDArray[np.float64] = np.asarray(rows, dtype="<f8").ravel()
            if raw:
                message.raw_output_contents.append(values.tobytes())
            else:
                tensor.contents.fp64_contents.extend(values.tolist())
    return message


def _told(info: ModelInfo) -> dict[str, str]:
    """What the columns stand for, and where the answer comes from."""
    return {
        "classes": json.dumps(info.classes, ensure_ascii=False),
        "tests": json.dumps([test.name for test in info.tests]),
        "calibration": info.versions.calibration,
        "policy": info.versions.policy or "",
    }


def _by_index(values: Iterable[tuple[int, float]], count: int) -> list[float]:
    row = [math.nan] * count
    for index, value in values:
        row[index] = _number(value)
    return row


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _joined(elements: Sequence[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)
