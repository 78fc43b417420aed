"""What is wrong with the settings of records, images and drift before the server starts."""

from __future__ import annotations

from collections.abc import Iterator

from ibinn.errors import ConfigError
from service.records import database, images, receipts
from service.settings import Settings

FILE = "records.db"
"""SQLite's file in the state folder, where no database is given."""

NO_RECORDS = "none"
"""The setting `records` of a server that keeps none whatever its state folder."""


def records_url(settings: Settings) -> str | None:
    """URL of the records' database; None: no records are kept."""
    if settings.records is not None:
        return None if settings.records == NO_RECORDS else settings.records
    if settings.state_dir is None:
        return None
    return f"sqlite:///{settings.state_dir.absolute() / FILE}"


def problems(settings: Settings) -> Iterator[str]:
    """Every reason for which the server cannot start, a sentence each."""
    url = records_url(settings)
    if settings.records is not None and url is not None:
        try:
            database.checked_url(url)
        except ConfigError as error:
            yield str(error)
    if settings.audit == "required" and url is None:
        yield (
            "audit is 'required', and there is no database for the records; give --records "
            "(IBINN_RECORDS) one, or --state-dir (IBINN_STATE_DIR) a folder"
        )
    if settings.keep_images != "none":
        if url is None:
            yield (
                f"keep_images is {settings.keep_images!r}, and there is no database for the "
                "records that images belong to; give --records (IBINN_RECORDS) one, or --state-dir "
                "(IBINN_STATE_DIR) a folder"
            )
        elif settings.images is None and settings.state_dir is None:
            yield (
                f"keep_images is {settings.keep_images!r}, and there is no place for images; give "
                "--images (IBINN_IMAGES) a folder or URL, or --state-dir (IBINN_STATE_DIR) a folder"
            )
    if settings.receipt_key is not None:
        try:
            receipts.read_keys(settings.receipt_key)
        except ConfigError as error:
            yield str(error)
    if settings.images is not None:
        try:
            images.ImageStore.open(settings)
        except ConfigError as error:
            yield str(error)
    if settings.sentinels is not None and not settings.sentinels.is_dir():
        yield (
            f"sentinels folder {settings.sentinels} is not there; give --sentinels "
            "(IBINN_SENTINELS) a folder of held-out images"
        )


def warnings(settings: Settings) -> Iterator[str]:
    """What is allowed and still worth a word."""
    yield from receipts.warnings(settings)
    if (settings.records or "").startswith("postgresql") and settings.receipt_key is None:
        yield (
            "records are in PostgreSQL and receipt_key is not set: replicas that share the "
            "database cannot read one another's receipts; give all the same --receipt-key"
        )
    if settings.workers > 1 and records_url(settings) is None and settings.drift:
        yield (
            f"workers is {settings.workers} and no records are kept: each worker notices drift and "
            "suspends the guarantee for itself alone; with --records or --state-dir all follow"
        )
    if settings.keep_images == "none" and settings.images is not None:
        yield "images is set, keep_images is 'none': no image is kept"
