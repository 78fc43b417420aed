"""An export as retraining reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ibinn.errors import ConfigError, DataError
from tests.training.feedback import Exporter, Said
from tests.training.retraining.said import candidate, say
from training.image_set import image_id
from training.retraining.intake import read_trusted, source_name, take_in, trusted_sources

PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def test_a_line_becomes_a_candidate(tmp_path: Path) -> None:
    export = Exporter()
    export.add(
        PIXELS,
        Said(truth="nut", sampling_probability=0.5),
        answer="bolt",
        confidence=0.75,
        group="lot1",
    )
    intake = take_in(export.write(tmp_path / "export"))
    (found,) = intake.candidates
    assert (found.id, found.group, found.answer) == (image_id(PIXELS), "lot1", "bolt")
    assert found.path is not None
    assert found.path.is_file()
    assert found.statements[0].source == "inspection/anna"
    assert found.statements[0].weight == 2.0
    assert len(intake.digest) == 64


def test_a_changed_image_is_refused(tmp_path: Path) -> None:
    export = Exporter()
    export.add(PIXELS, Said(truth="nut"))
    folder = export.write(tmp_path / "export")
    (image,) = (folder / "images").rglob("*/*")
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(DataError, match="changed or damaged"):
        take_in(folder)


def test_an_empty_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no feedback"):
        take_in(Exporter().write(tmp_path / "export"))


def test_a_source_is_named_with_the_caller_who_was_let_in() -> None:
    assert source_name("inspection", "anna") == "inspection/anna"
    assert source_name("", "anna") == "anna"


def test_patterns_name_sources_and_those_that_name_none_are_said() -> None:
    export = [
        candidate(0, say("inspection/anna", "nut"), say("rogue/anna", "nut")),
        candidate(1, say("inspection/ben", "nut"), say("carl", "nut")),
    ]
    found, unused = trusted_sources(["inspection/*", "nobody"], export)
    assert found == {"inspection/anna", "inspection/ben"}
    assert unused == ("nobody",)
    assert trusted_sources(["inspection/anna"], export)[0] == {"inspection/anna"}
    # A bare name trusts whoever uses it.
    assert trusted_sources(["anna"], export)[0] == {"inspection/anna", "rogue/anna"}
    assert trusted_sources(["carl"], export)[0] == {"carl"}


def test_a_file_of_trusted_sources_has_comments(tmp_path: Path) -> None:
    path = tmp_path / "trusted.txt"
    path.write_text("# people\ninspection/anna  # shift 1\n\ninspection/ben\n")
    assert read_trusted(path) == ("inspection/anna", "inspection/ben")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_trusted(tmp_path / "none")
