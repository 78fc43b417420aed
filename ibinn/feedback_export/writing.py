"""Writes an export of feedback, an answer at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from ibinn.errors import DataError
from ibinn.feedback_export.contents import (
    INFO_FILE,
    LINES_FILE,
    ExportInfo,
    LabelledImage,
    Statement,
    image_path,
)
from ibinn.records import Truth


def write(
    folder: Path,
    images: Iterable[LabelledImage],
    *,
    stored: Callable[[str], bytes | None],
    info: Callable[[int], ExportInfo],
) -> ExportInfo:
    """Writes an export, an answer at a time.

    Args:
        folder: Is made; one that is there already must be empty.
        images: What to write; an `image` is asked for in `stored`, and None where that has none.
        stored: Gives the encoded bytes for a sha256, or None where they are not kept.
        info: Makes what stands in export.json from the number of answers.

    Raises:
        DataError: The folder is not empty or cannot be written, or a name comes twice.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; give a folder that is, or a new one")
        count = _write_lines(folder, images, stored)
        made = info(count)
        part = folder / f".{INFO_FILE}"
        part.write_text(json.dumps(_info_values(made), indent=1) + "\n", encoding="utf-8")
        part.replace(folder / INFO_FILE)
    except OSError as error:
        raise DataError(
            f"the export cannot be written to {folder} ({error.strerror or error}); give a folder "
            "that can be, with room for the images, and start anew with an empty one"
        ) from error
    return made


def _write_lines(
    folder: Path, images: Iterable[LabelledImage], stored: Callable[[str], bytes | None]
) -> int:
    seen: set[str] = set()
    with open(folder / LINES_FILE, "w", encoding="utf-8") as file:
        for image in images:
            if image.record_id in seen:
                raise DataError(f"the answer {image.record_id} comes twice; expected each once")
            seen.add(image.record_id)
            is_kept = image.image is not None and _write_image(
                folder, image.answer.sha256_bytes, stored
            )
            values = _line_values(image, image.image if is_kept else None)
            file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return len(seen)


def _write_image(folder: Path, sha256: str, stored: Callable[[str], bytes | None]) -> bool:
    """Whether the image is in the export now."""
    path = folder / image_path(sha256)
    if path.exists():
        return True
    image = stored(sha256)
    if image is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image)
    return True


def _info_values(info: ExportInfo) -> dict[str, Any]:
    return {
        "format_version": info.format_version,
        "created_time": info.created_time.isoformat(),
        "software": info.software,
        "ledger": {"sequence": info.sequence, "hash": info.hash},
        "count": info.count,
        "filters": {
            "since": _time(info.filters.since),
            "until": _time(info.filters.until),
            "model": info.filters.model,
        },
    }


def _line_values(image: LabelledImage, path: str | None) -> dict[str, Any]:
    answer, truth = image.answer, image.truth
    versions = answer.versions
    return {
        "record_id": answer.record_id,
        "received_time": answer.received_time.isoformat(),
        "sha256_bytes": answer.sha256_bytes,
        "sha256_pixels": answer.sha256_pixels,
        "group_id": answer.group_id,
        "caller": image.caller,
        "image": path,
        "answer": {
            "class_name": answer.class_name,
            "confidence": answer.confidence,
            "verdict": answer.verdict.value,
            "action": answer.action,
            "p_value": answer.p_value,
            "versions": {
                "weights": versions.weights,
                "calibration": versions.calibration,
                "policy": versions.policy,
                "taxonomy": versions.taxonomy,
                "software": versions.software,
            },
        },
        "statements": [_statement_values(statement) for statement in image.statements],
        "truth": None if truth is None else _truth_values(truth),
        "conflict": truth is None,
    }


def _statement_values(statement: Statement) -> dict[str, Any]:
    return {
        "feedback_id": statement.feedback_id,
        "time": statement.time.isoformat(),
        "source": statement.source,
        "caller": statement.caller,
        "truth": _truth_values(statement.truth),
        "saw_answer": statement.saw_answer,
        "reaction": statement.reaction,
        "selection": statement.selection,
        "sampling_probability": statement.sampling_probability,
        "labelled_time": _time(statement.labelled_time),
        "outcome": statement.outcome,
        "comment": statement.comment,
    }


def _truth_values(truth: Truth) -> dict[str, str]:
    return {"kind": truth.kind.value, "class_name": truth.class_name}


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
