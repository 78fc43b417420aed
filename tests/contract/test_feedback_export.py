"""What the service exports is what training reads: one format, held against its description."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

from ibinn import feedback_export
from ibinn.feedback_export import Filters
from ibinn.records import ImageKept, Provenance, Reaction, Selection
from service.records import export as exporting
from service.records.images import ImageStore
from service.records.ledger import Ledger
from tests.service.records import made

# Keys of format version 1. What readers depend on is never taken away within a version.
INFO = {"format_version", "created_time", "software", "ledger", "count", "filters"}
LINE = {
    *("record_id", "received_time", "sha256_bytes", "sha256_pixels", "group_id", "caller"),
    *("image", "answer", "statements", "truth", "conflict"),
}
ANSWER = {"class_name", "confidence", "verdict", "action", "p_value", "versions"}
STATEMENT = {
    *("feedback_id", "time", "source", "caller", "truth", "saw_answer", "reaction", "selection"),
    *("sampling_probability", "labelled_time", "outcome", "comment"),
}


def exported(folder: Path) -> feedback_export.Export:
    """An export of the service's, read as training reads it."""
    images = ImageStore(folder / "kept", quota_bytes=10**6, ttl_s=1000)
    ledger = Ledger.open(f"sqlite:///{folder / 'records.db'}", timeout_s=10)
    new = made.new_answer(1, kept=ImageKept.ALL, group_id="patient 7")
    ledger.append_answers([new, made.new_answer(2)])
    images.put(new.digest.sha256_bytes, made.image(1))
    provenance = Provenance(
        source="ann",
        saw_answer=True,
        reaction=Reaction.FOLLOWED,
        selection=Selection.RANDOM,
        sampling_probability=0.5,
    )
    labelled_time = made.SOME_TIME + timedelta(hours=1)
    for statement in (
        made.statement(1, "cat", provenance=provenance, labelled_time=labelled_time, comment="!"),
        made.statement(2, "dog"),
        made.statement(2, "cat", source="bob"),
    ):
        ledger.append_feedback(statement, caller="app", digest=None)
    exporting.export(ledger, images, folder / "export", filters=Filters())
    ledger.close()
    return feedback_export.read(folder / "export")


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "export" / "feedback.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_training_reads_what_the_service_exports(tmp_path: Path) -> None:
    first, second = exported(tmp_path).images
    assert first.truth is not None
    assert first.truth.class_name == "cat"
    assert not first.conflict
    assert (second.truth, second.conflict) == (None, True)
    path = tmp_path / "export" / str(first.image)
    assert path.read_bytes() == made.image(1)
    assert second.image is None
    assert first.answer.group_id == "patient 7"


def test_the_keys_are_those_of_the_version(tmp_path: Path) -> None:
    exported(tmp_path)
    info = json.loads((tmp_path / "export" / "export.json").read_text(encoding="utf-8"))
    assert feedback_export.FORMAT_VERSION == info["format_version"] == 1
    assert set(info) == INFO
    assert set(info["ledger"]) == {"sequence", "hash"}
    assert set(info["filters"]) == {"since", "until", "model"}
    for line in lines(tmp_path):
        assert set(line) == LINE
        assert set(line["answer"]) == ANSWER
        assert set(line["answer"]["versions"]) == {
            *("weights", "calibration", "policy", "taxonomy", "software"),
        }
        for statement in line["statements"]:
            assert set(statement) == STATEMENT
            assert set(statement["truth"]) == {"kind", "class_name"}


def test_every_key_is_described(tmp_path: Path) -> None:
    exported(tmp_path)
    described = set(re.findall(r"\w+", feedback_export.__doc__ or ""))
    assert described >= INFO | LINE | ANSWER | STATEMENT
