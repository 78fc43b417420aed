"""Small bundles whose manifest is real and whose "weights" say how a stub answers.

An image of these tests is one colour: red is the class it is of, green its number. A scripted
model is wrong about the first `wrong` numbers and flags the first `flagged` ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibinn import manifest
from ibinn.manifest import Manifest, Training
from ibinn.types import ClassScore, Prediction, Verdict
from service.models.manager import ModelManager
from service.models.registry import Models
from service.models.served import Served
from service.monitoring import Monitor
from service.settings import Settings
from tests.service.running import settings
from tests.service.stub import CLASSES, INFO, StubClassifier, make_test, png

IMAGES_PER_CLASS = 20
_FILES = ("weights.safetensors", "reference.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How a model answers.

    Attributes:
        name: Tells weights apart.
        calibration: Tells calibrations apart.
        wrong: Numbers below it get the next class.
        flagged: Numbers below it are called unknown.
        confidence: Probability of the top class.
        fault: `load` or `assess` raises; `silent`: too few answers; `nan`: not finite.
    """

    name: str = "first"
    calibration: str = "one"
    wrong: int = 0
    flagged: int = 0
    confidence: float = 0.9
    fault: str = ""


class ScriptedClassifier(StubClassifier):
    """Answers as its script says."""

    def __init__(self, script: Script, found: Manifest) -> None:
        versions = dataclasses.replace(
            INFO.versions, weights=found.weights_digest, calibration=found.calibration_digest
        )
        super().__init__(info=dataclasses.replace(INFO, name=found.name, versions=versions))
        self.script = script

    def assess(self, prepared: Sequence[Any]) -> list[Prediction]:
        if self.script.fault == "assess":
            raise RuntimeError("shapes do not match")
        return super().assess(prepared)[1 if self.script.fault == "silent" else 0 :]

    def _answer(self, image: Any) -> Prediction:
        red, green, _ = (int(value) for value in image.decoded.pixels[0, 0])
        script, truth = self.script, red % len(CLASSES)
        top = (truth + 1) % len(CLASSES) if green < script.wrong else truth
        p = float("nan") if script.fault == "nan" else script.confidence
        shares = {index: p if index == top else (1 - p) / 2 for index in range(len(CLASSES))}
        order = sorted(shares, key=lambda index: index != top)
        unknown = green < script.flagged
        return dataclasses.replace(
            super()._answer(image),
            classes=tuple(
                ClassScore(
                    index=index,
                    name=CLASSES[index],
                    probability=shares[index],
                    raw_probability=shares[index],
                    log_likelihood=-99.0,
                )
                for index in order
            ),
            verdict=Verdict.UNKNOWN if unknown else Verdict.NOT_FLAGGED,
            combined=make_test("combined", flagged=unknown),
            versions=self.info.versions,
            decision=None,
        )


def write(models: Path, bundle: str, script: Script | None = None, **entries: Any) -> Path:
    """A bundle in the models folder, manifest last."""
    script = Script(name=bundle) if script is None else script
    folder = models / bundle
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.FILE).unlink(missing_ok=True)
    told = dataclasses.asdict(script)
    calibration = told.pop("calibration")
    (folder / _FILES[0]).write_text(json.dumps(told))
    (folder / _FILES[1]).write_text(calibration)
    found = Manifest(
        name=bundle,
        architecture={"name": "scripted"},
        mixture={},
        preprocessing={},
        classes=CLASSES,
        taxonomy_version="animals-1",
        alpha=0.01,
        conformal_coverage=0.95,
        intended_use="tests",
        training_data="none",
        training=Training(
            command="none", seconds=0.0, machine="any", config={}, split_sha256={}, libraries={}
        ),
        files={name: manifest.file_sha256(folder / name) for name in _FILES},
    )
    manifest.write(dataclasses.replace(found, **entries), folder)
    return folder


def flip_a_byte(path: Path, position: int = 3) -> None:
    """Changes one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


def load(bundle: Path) -> ScriptedClassifier:
    """What `service.models.loading.load` is for real bundles."""
    found = manifest.verify(bundle)
    script = Script(
        **json.loads((bundle / _FILES[0]).read_text()),
        calibration=(bundle / _FILES[1]).read_text(),
    )
    if script.fault == "load":
        raise RuntimeError("tensors do not fit")
    return ScriptedClassifier(script, found)


def initial(models: Path, script: Script | None = None) -> Served:
    """A model that is not of the models folder."""
    folder = write(models.parent / "elsewhere", "initial", script)
    return Served.of(load(folder), bundle="initial")


def acceptance_set(folder: Path) -> Path:
    """The images of which a script says how many are wrong: 20 of each class."""
    for index, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(IMAGES_PER_CLASS):
            (folder / name / f"{number:02}.png").write_bytes(image(index, number))
    return folder


def image(index: int = 0, number: int = 255) -> bytes:
    """An image of a class."""
    return png(index + 256 * number)


async def in_background(served: Served, data: bytes, *, patience_s: float) -> Prediction:
    """What `service.predictor.Predictor.in_background` is for servers."""
    return served.classifier.assess([served.preparer(data)])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    manager: ModelManager
    models: Models
    monitor: Monitor
    settings: Settings

    def candidates(self, outcome: str, reason: str) -> float:
        """How many candidates were counted so."""
        labels = {"outcome": outcome, "reason": reason}
        return self.monitor.registry.get_sample_value("ibinn_candidates_total", labels) or 0.0

    @property
    def default(self) -> str:
        """The bundle that answers."""
        return self.models.default.bundle


@contextlib.asynccontextmanager
async def managed(
    folder: Path, *, served: Served | None = None, background: Any = in_background, **changes: Any
) -> AsyncIterator[Managed]:
    """A manager at work, with the models folder ``folder/models``."""
    (folder / "models").mkdir(exist_ok=True)
    chosen = settings(**{"models": folder / "models", "watch_interval_s": 3600.0, **changes})
    models, monitor = Models(), Monitor()
    manager = ModelManager(
        chosen,
        models=models,
        load=load,
        verify=manifest.verify,
        background=background,
        monitor=monitor,
        generator=random.Random(0),
    )
    try:
        await manager.start(initial(folder / "models") if served is None else served)
        yield Managed(manager=manager, models=models, monitor=monitor, settings=chosen)
    finally:
        await manager.stop()
