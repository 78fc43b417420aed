"""What is done with every answer on its way out, whatever call it was for.

The stop button, whether the guarantee holds, the receipt, the record, the counters: in this order,
so that what is kept is what was sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from ibinn.records import AnswerDigest
from ibinn.types import Guarantee, Prediction, Receipt
from service import traces
from service.call import Call
from service.models import mode
from service.models.registry import Models
from service.models.served import Served
from service.monitoring import Monitor
from service.records.contents import Answered

if TYPE_CHECKING:
    from service.records.receipts import Receipts
    from service.records.recorder import Recorder

GuaranteeOf = Callable[[Served], tuple[Guarantee | None, str]]
"""Whether what a model's tests promise holds, and why not."""


def unwatched(served: Served) -> tuple[Guarantee | None, str]:
    """Where nothing watches for drift."""
    return None, ""


class Issuer:
    """Makes of what a model computed the answer that leaves.

    Args:
        models: Hold the stop button.
        monitor: Counts.
        receipts: Sign; None: answers carry no receipt.
        recorder: Keeps; None: nothing is kept.

    Attributes:
        guarantee: Asked for every answer; returns at once.
    """

    def __init__(
        self,
        *,
        models: Models,
        monitor: Monitor,
        receipts: Receipts | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.guarantee: GuaranteeOf = unwatched
        self._models = models
        self._monitor = monitor
        self._receipts = receipts
        self._recorder = recorder

    async def issue(
        self,
        prediction: Prediction,
        receipt: Receipt,
        *,
        served: Served,
        image: bytes | None,
        call: Call,
    ) -> Prediction:
        """The answer as it leaves.

        Args:
            prediction: What the model computed.
            receipt: What the server adds.
            served: The model.
            image: Encoded bytes; None where pixels came.
            call: Whose.

        Raises:
            RecordsUnavailableError: The record must be durable first, and could not be made so.
        """
        guarantee, reason = self.guarantee(served)
        given = dataclasses.replace(
            mode.apply(self._models.mode, prediction),
            receipt=receipt,
            guarantee=guarantee,
            guarantee_reason=reason,
        )
        if self._receipts is not None:
            token = self._receipts.sign(AnswerDigest.of(given))
            given = dataclasses.replace(given, receipt=dataclasses.replace(receipt, token=token))
        if self._recorder is not None:
            await self._recorder.answered(
                Answered(
                    image=image,
                    bundle=served.bundle,
                    prediction=given,
                    caller=call.caller.name,
                    method=call.method,
                )
            )
        self._monitor.prediction(given)
        traces.answered(given)
        return given
