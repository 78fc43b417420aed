"""A worker with the stub in place of a model; run as a module in place of `service.worker`.

Every answer's reason is the worker's process id. Files in the folder that STUB_FOLDER names steer
the workers: an image of level `HELD` is answered once there is `open`, and leaves `holding-PID`
when its computing begins; a worker cannot load its model while there is `broken`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ibinn.errors import BundleFormatError
from ibinn.types import Prediction
from service.settings import Settings
from service.worker import main
from tests.service.stub import StubClassifier, make_prediction

HELD = 99
FOLDER = Path(os.environ.get("STUB_FOLDER", "."))


class HoldingClassifier(StubClassifier):
    def assess(self, prepared: Sequence[Any]) -> list[Prediction]:
        if any(image.decoded.pixels.flat[0] == HELD for image in prepared):
            (FOLDER / f"holding-{os.getpid()}").touch()
            while not (FOLDER / "open").exists():
                time.sleep(0.005)
        return super().assess(prepared)


def load(settings: Settings, bundle: Path) -> HoldingClassifier:
    if (FOLDER / "broken").exists():
        raise BundleFormatError("the stub is broken; mend it")
    return HoldingClassifier(make_prediction(reason=str(os.getpid())))


if __name__ == "__main__":
    main(load)
