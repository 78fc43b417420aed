"""What a restart finds again of the detectors of one calibration: JSON, no pickle."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from ibinn.errors import DataError

_FORMAT = "ibinn.drift.watching/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """Detectors as they were.

    Attributes:
        acknowledged: Which acknowledgement they began after (`Standing.acknowledged`).
        detectors: State of each by its name (`ibinn.drift.Detector.to_state`).
        told: Names of those whose alarm was raised.
        groups: Which groups were seen (`ibinn.drift.Blocker.to_state`).
    """

    acknowledged: str
    detectors: Mapping[str, bytes]
    told: frozenset[str]
    groups: bytes

    def to_bytes(self) -> bytes:
        """For `of_bytes`."""
        return json.dumps(
            {
                "format": _FORMAT,
                "acknowledged": self.acknowledged,
                "detectors": {name: _text(body) for name, body in self.detectors.items()},
                "told": sorted(self.told),
                "groups": _text(self.groups),
            }
        ).encode()

    @classmethod
    def of_bytes(cls, body: bytes) -> Saved:
        """What `to_bytes` wrote.

        Raises:
            DataError: Damaged, or of another version.
        """
        try:
            found = json.loads(body)
            if found["format"] != _FORMAT:
                raise DataError(
                    f"the saved state of the detectors has format {found['format']!r}, expected "
                    f"{_FORMAT!r}; they begin anew"
                )
            return cls(
                acknowledged=str(found["acknowledged"]),
                detectors={
                    str(name): base64.b64decode(text, validate=True)
                    for name, text in found["detectors"].items()
                },
                told=frozenset(map(str, found["told"])),
                groups=base64.b64decode(found["groups"], validate=True),
            )
        except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
            raise DataError(
                f"the saved state of the detectors is damaged ({error!r}); they begin anew"
            ) from error


def _text(body: bytes) -> str:
    return base64.b64encode(body).decode("ascii")
