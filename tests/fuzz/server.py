"""The server that is fuzzed, a process of its own: everything real but the network's figures.

    python -m tests.fuzz.server FOLDER

Prints its address and serves until SIGTERM. The folder gets what it needs: a file of tokens, with
one that allows everything, a folder of models, without any, and a database of records.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ibinn.images import ImagePreparer, PreparedImage
from ibinn.types import Explanation, ModelInfo, Prediction
from service.access.grants import token_digest
from service.call import Role
from service.server import Addresses, serve
from service.settings import Settings
from tests.fuzz.calls import TOKEN
from tests.fuzz.targets import LIMITS, PREPARER
from tests.service.stub import CLASSES, INFO, make_heatmap, make_prediction

_PREDICTION = make_prediction()
_SEEN = np.zeros((8, 8, 3), np.uint8)


class FuzzedClassifier:
    """Prepares in earnest and answers the same to every image."""

    @property
    def info(self) -> ModelInfo:
        """A made-up model's, with the limits in force."""
        return dataclasses.replace(
            INFO,
            max_bytes=LIMITS.max_bytes,
            max_pixels=LIMITS.max_pixels,
            max_side=LIMITS.max_side,
        )

    @property
    def preparer(self) -> ImagePreparer:
        """That of the real classifier."""
        return PREPARER

    def assess(self, prepared: Sequence[PreparedImage]) -> list[Prediction]:
        """One answer for each image."""
        return [dataclasses.replace(_PREDICTION, input=image.input) for image in prepared]

    def explain_prepared(
        self, prepared: Sequence[PreparedImage], classes: Sequence[str] | None = None
    ) -> list[Explanation]:
        """One explanation for each image."""
        heatmaps = tuple(make_heatmap(name) for name in classes or CLASSES)
        return [
            Explanation(prediction=prediction, heatmaps=heatmaps, image=_SEEN)
            for prediction in self.assess(prepared)
        ]


def main() -> None:
    """Serves on a free port of this machine."""
    logging.basicConfig(level=logging.WARNING)
    folder = Path(sys.argv[1])
    models, tokens = folder / "models", folder / "tokens.toml"
    models.mkdir(parents=True, exist_ok=True)
    roles = ", ".join(f'"{role}"' for role in Role)
    digest = token_digest(TOKEN).hex()
    tokens.write_text(f'[[token]]\nname = "fuzz"\nsha256 = "{digest}"\nroles = [{roles}]\n')
    settings = Settings(
        models=models,
        tokens=tokens,
        port=0,
        metrics_port=0,
        max_image_bytes=LIMITS.max_bytes,
        max_image_px=LIMITS.max_pixels,
        max_side_px=LIMITS.max_side,
        decode_in="process",
        records=f"sqlite:///{folder.absolute() / 'records.db'}",
    )

    def load(bundle: Path) -> FuzzedClassifier:
        return FuzzedClassifier()

    def announce(addresses: Addresses, info: ModelInfo) -> None:
        print(addresses.grpc, flush=True)

    asyncio.run(serve(settings, load, on_ready=announce))


if __name__ == "__main__":
    main()
