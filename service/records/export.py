"""Exports feedback for training (`ibinn.feedback_export`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import ibinn
from ibinn import feedback_export
from ibinn.errors import LedgerError
from ibinn.feedback_export import ExportInfo, Filters, LabelledImage, Statement
from ibinn.records import FeedbackEntry, ImageState
from service.records.contents import Labelled
from service.records.images import ImageStore
from service.records.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported.

    Attributes:
        info: As it stands in the export.
        images: Number of image files in it.
        conflicts: Number of answers whose sources disagree.
        damaged: What is wrong with kept images that were left out, a sentence each.
    """

    info: ExportInfo
    images: int
    conflicts: int
    damaged: tuple[str, ...]


def export(
    ledger: Ledger, images: ImageStore | None, folder: Path, *, filters: Filters
) -> Exported:
    """Writes every answer that something was said about, with its kept image.

    Statements that come in meanwhile may be in it; the ledger's end that it names is that of the
    beginning.

    Args:
        ledger: The records.
        images: Where kept images lie; None: the export has none.
        folder: Is made; one that is there already must be empty.
        filters: Which answers.

    Raises:
        DataError: The folder is not empty or cannot be written.
        LedgerError: An entry does not read.
        RecordsUnavailableError: Records or images cannot be reached.
    """
    began = datetime.now(UTC)
    head = ledger.entries(0, 0)
    run = _Run(ledger, images, filters)
    info = feedback_export.write(
        folder,
        run.labelled(),
        stored=run.stored,
        info=lambda count: ExportInfo(
            created_time=began,
            software=ibinn.__version__,
            sequence=head.head_sequence,
            hash=head.head_hash,
            count=count,
            filters=filters,
        ),
    )
    return Exported(
        info=info, images=run.found, conflicts=run.conflicts, damaged=tuple(run.damaged.values())
    )


class _Run:
    def __init__(self, ledger: Ledger, images: ImageStore | None, filters: Filters) -> None:
        self._ledger = ledger
        self._images = images
        self._filters = filters
        self.found = 0
        self.conflicts = 0
        self.damaged: dict[str, str] = {}

    def labelled(self) -> Iterator[LabelledImage]:
        filters = self._filters
        for found in self._ledger.labelled(
            since=filters.since, until=filters.until, model=filters.model or None
        ):
            image = labelled_image(found)
            self.conflicts += image.conflict
            yield image

    def stored(self, sha256: str) -> bytes | None:
        if self._images is None or sha256 in self.damaged:
            return None
        try:
            image = self._images.get(sha256)
        except LedgerError as error:
            self.damaged[sha256] = str(error)
            return None
        self.found += image is not None
        return image


def labelled_image(found: Labelled) -> LabelledImage:
    """An answer with what was said about it, as it is exported."""
    kept = found.image_state is ImageState.KEPT and found.answer.sha256_bytes
    return LabelledImage(
        answer=found.answer,
        caller=found.caller or "",
        image=feedback_export.image_path(found.answer.sha256_bytes) if kept else None,
        statements=tuple(map(_statement, found.feedback, found.times)),
    )


def _statement(entry: FeedbackEntry, time: datetime) -> Statement:
    provenance = entry.provenance
    return Statement(
        feedback_id=entry.feedback_id,
        time=time,
        source=provenance.source,
        caller=entry.caller,
        truth=entry.truth,
        saw_answer=provenance.saw_answer,
        reaction=provenance.reaction,
        selection=provenance.selection,
        sampling_probability=provenance.sampling_probability,
        labelled_time=entry.labelled_time,
        outcome=entry.outcome,
        comment=entry.comment,
    )
