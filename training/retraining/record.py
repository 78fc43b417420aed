"""What a retraining was made of, as plain data, and the options that decide it.

``retraining.json`` lies in the run's folder and in the bundle, whose manifest holds its sha256, so
that whoever has the bundle can tell what feedback went into it and by which rules.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ibinn.errors import DataError
from ibinn.feedback_export import ExportInfo
from ibinn.manifest import Manifest
from training.config import FitConfig, to_dict
from training.image_set import ImageSet
from training.retraining.composition import Composition, Rules
from training.splits import Role

FILE = "retraining.json"
PAGE = "retraining.html"
FORMAT_VERSION = 1


class Mode(StrEnum):
    """Where the weights start."""

    FINE_TUNE = "fine-tune"
    """From the base's, with a lower learning rate and few epochs."""
    SCRATCH = "scratch"
    """Anew, by the recipe that the first model was trained by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a retraining starts from.

    Attributes:
        mode: Where the weights start.
        manifest: Of the base bundle.
        recipe: Configuration of the first model that was trained from scratch.
        data: Where the base's data is.
        export: What the feedback is an export of.
        export_digest: sha256 (hex) of its lines.
        unused: Trusted patterns that no source of the export matches.
    """

    mode: Mode
    manifest: Manifest
    recipe: FitConfig
    data: str
    export: ExportInfo
    export_digest: str
    unused: tuple[str, ...] = ()


def record_of(
    composition: Composition,
    rules: Rules,
    origin: Origin,
    config: FitConfig,
    *,
    taxonomy: str,
    excluded: Mapping[str, ImageSet],
    time: datetime,
) -> dict[str, Any]:
    """The record of a retraining, as plain data.

    Args:
        composition: What it is made of.
        rules: What decided that.
        origin: What it starts from.
        config: Of the training run.
        taxonomy: Version of the class list of the new bundle.
        excluded: Sets whose images must not be trained on.
        time: When it was composed.
    """
    base = origin.manifest
    new = Counter(
        (role.value, entry.class_name)
        for role, entry in zip(composition.roles, composition.labelled, strict=True)
    )
    return {
        "format_version": FORMAT_VERSION,
        "created_time": time.isoformat(),
        "mode": origin.mode.value,
        "base": {
            "name": base.name,
            "weights": base.weights_digest,
            "calibration": base.calibration_digest,
            "taxonomy": base.taxonomy_version,
            "classes": list(base.classes),
            "split_sha256": dict(base.training.split_sha256),
            "data": origin.data,
        },
        "export": {
            "created_time": origin.export.created_time.isoformat(),
            "software": origin.export.software,
            "ledger": {"sequence": origin.export.sequence, "hash": origin.export.hash},
            "count": origin.export.count,
            "sha256": origin.export_digest,
        },
        "rules": {
            **rules_values(rules),
            "excluded": {name: len(images) for name, images in excluded.items()},
            "trusted_patterns_without_source": list(origin.unused),
        },
        "taxonomy": {
            "version": taxonomy,
            "classes": list(composition.classes),
            "added": dict(composition.added),
            "waiting": dict(composition.waiting),
        },
        "steps": [asdict(step) for step in composition.steps],
        "sources": [
            {
                **asdict(report),
                "standing": report.standing.value,
                "used": sum(e.source == report.name for e in composition.labelled),
                "over_share": composition.over_share.get(report.name, 0),
            }
            for report in composition.sources
        ],
        "disputed": [asdict(entry) for entry in composition.disputed],
        "apart": [{"kind": kind, "record_id": record_id} for kind, record_id in composition.apart],
        "held_out_overlaps": [asdict(entry) for entry in composition.overlaps],
        "replay": {"share": rules.replay, "left_out": composition.not_replayed},
        "roles": {
            role.value: {
                "images": len(composition.split.roles[role]),
                "new": sum(count for (name, _), count in new.items() if name == role.value),
                "new_by_class": {
                    label: new[role.value, label]
                    for label in composition.classes
                    if new[role.value, label]
                },
                "sha256": composition.split.sha256[role],
            }
            for role in Role
        },
        "selection_bias": asdict(composition.bias),
        "warnings": warnings_of(composition, origin.unused),
        "seed": rules.seed,
        "recipe": to_dict(origin.recipe),
        "config": to_dict(config),
    }


def rules_values(rules: Rules) -> dict[str, Any]:
    """The rules as plain data."""
    return {**asdict(rules), "trusted": sorted(rules.trusted)}


def warnings_of(composition: Composition, unused: tuple[str, ...] = ()) -> list[str]:
    """What a person should know before using the new bundle."""
    found = []
    new = Counter(composition.roles)
    if composition.labelled and not new[Role.CALIBRATION_B]:
        found.append(
            "No feedback image is calibrated on, so p-values and confidences are those for images "
            "like the old ones: state selection and sampling_probability with the feedback, or "
            "use --calibrate-on all if the labelled images are a plain sample."
        )
    elif composition.bias.known < composition.bias.images:
        found.append(
            f"Of {composition.bias.images} feedback images {composition.bias.known} have a known "
            "chance of being selected for labelling; others say less about the traffic."
        )
    if composition.disputed:
        found.append(
            f"{len(composition.disputed)} images have labels that contradict each other; they are "
            "not used. Look at them."
        )
    if composition.waiting:
        names = ", ".join(f"{name} ({count})" for name, count in composition.waiting.items())
        found.append(f"Classes that are not added yet: {names}.")
    if unused:
        found.append(f"Trusted, but not in the export: {', '.join(unused)}.")
    return found


def write_record(record: Mapping[str, Any], folder: Path) -> None:
    """Write ``retraining.json`` and the page beside it."""
    (folder / FILE).write_text(text_of(record), encoding="utf-8")
    (folder / PAGE).write_text(page_of(record), encoding="utf-8")


def text_of(record: Mapping[str, Any]) -> str:
    """The record as JSON text."""
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a run's folder or a bundle; None where there is none.

    Raises:
        DataError: It is malformed, or of another format version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = record["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is malformed ({type(error).__name__}: {error}); retrain in a new folder"
        ) from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version is {version!r}, expected {FORMAT_VERSION}; retrain in a new "
            "folder with this version"
        )
    return record


def page_of(record: Mapping[str, Any]) -> str:
    """The record as a page that loads nothing."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("training.retraining").joinpath("retraining.html.j2")
    return environment.from_string(template.read_text("utf-8")).render(r=record)
