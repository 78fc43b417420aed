"""The commands `ibinn-serve records`: export, check, sweep and upgrade what a server keeps.

Exit codes: 0 well, 1 something wrong was found, 2 it could not be done.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ibinn import chain
from ibinn.errors import ConfigError
from ibinn.feedback_export import Filters
from ibinn.terminal import reported_errors
from service import settings as settings_module
from service.records import auditing, checks, database
from service.records import export as exporting
from service.records.images import ImageStore
from service.records.ledger import Ledger
from service.records.schema import REVISIONS
from service.settings import Settings

app = typer.Typer(
    help="Export, check, sweep and upgrade the records of a server, straight on their database.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

WRONG = 1
"""Exit code where something wrong was found."""

_MODEL = re.compile(r"[0-9a-f]{12}-[0-9a-f]{0,12}")
_DAY_S = 86400.0

Records = Annotated[
    str | None,
    typer.Option("--records", help="Database (sqlite:///FILE or postgresql+psycopg://...); none: "
                 "records.db in the state folder. Or IBINN_RECORDS.", metavar="URL",
                 show_default=False),
]  # fmt: skip
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="The server's state folder. Or IBINN_STATE_DIR.",
                 metavar="DIR", show_default=False),
]  # fmt: skip
Images = Annotated[
    str | None,
    typer.Option("--images", help="Where kept images lie, a folder or an fsspec URL; none: in the "
                 "state folder. Or IBINN_IMAGES.", metavar="PLACE", show_default=False),
]  # fmt: skip
Config = Annotated[
    Path | None,
    typer.Option("--config", help="The server's TOML file with settings. Or IBINN_CONFIG.",
                 metavar="FILE", show_default=False),
]  # fmt: skip


@app.command()
def export(
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the export; made, or empty.", metavar="DIR",
                     show_default=False),
    ],
    records: Records = None,
    state_dir: StateDir = None,
    images: Images = None,
    config: Config = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only answers received from then on: 2027-01-31 (midnight UTC) or "
                     "2027-01-31T12:00:00+01:00.", metavar="TIME", show_default=False),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Only answers received before then.", metavar="TIME",
                     show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Only answers of a model: the first 12 digits of the digests of its "
                     "weights and its calibration with a hyphen between, as in the metrics.",
                     metavar="MODEL", show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Write all answers that something was said about, with their kept images, for `ibinn-train
    retrain`.

    Ends with 1 where a kept image was damaged: it is named and left out.
    """
    with reported_errors():
        filters = Filters(
            since=None if since is None else _moment(since, "--since"),
            until=None if until is None else _moment(until, "--until"),
            model="" if model is None else _model(model),
        )
        settings = _settings(records=records, state_dir=state_dir, images=images, config=config)
        with _ledger(settings) as ledger:
            made = exporting.export(ledger, ImageStore.open(settings), out, filters=filters)
    info = made.info
    typer.echo(
        f"exported {info.count} answers with feedback and {made.images} images to {out}; the "
        f"ledger ended at {info.sequence}:{info.hash}"
    )
    if made.conflicts:
        typer.echo(f"sources disagree about {made.conflicts} of the answers: no truth holds there")
    for sentence in made.damaged:
        typer.echo(f"left out: {sentence}", err=True)
    if made.damaged:
        raise typer.Exit(WRONG)


@app.command()
def verify(
    records: Records = None,
    state_dir: StateDir = None,
    config: Config = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(help="An entry as it was printed earlier; more than one may be given.",
                     metavar="NUMBER:HASH", show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Recompute the hash chain from the database, and hold its other tables against the entries.

    Prints the last entry as NUMBER:HASH. Noted down elsewhere and given as --anchor another time,
    it proves that nothing up to there was rewritten since. Ends with 1 where something is missing,
    altered or does not fit. Changes nothing.
    """
    with reported_errors():
        anchors = [chain.Point.parse(text) for text in anchor or ()]
        settings = _settings(records=records, state_dir=state_dir, config=config)
        engine = database.engine(
            database.checked_url(_url(settings)), timeout_s=settings.records_timeout_s
        )
        try:
            found = auditing.audit(engine, anchors=anchors)
        finally:
            engine.dispose()
    walked = found.chain
    typer.echo(f"entries: {walked.count}, the last one {walked.end}")
    typer.echo(f"chain: {'intact' if walked.intact else _times(walked.broken, 'break')}")
    for broken in walked.breaks:
        typer.echo(f"  {broken.fault.value}: {broken.words}")
    _tell_more(walked.broken - len(walked.breaks))
    typer.echo(
        f"tables: {_times(found.rows, 'row')} held against the entries, "
        f"{'all as they say' if not found.wrong else _times(found.wrong, 'finding')}"
    )
    for sentence in found.findings:
        typer.echo(f"  {sentence}")
    _tell_more(found.wrong - len(found.findings))
    if not found.intact:
        raise typer.Exit(WRONG)


@app.command()
def sweep(
    records: Records = None,
    state_dir: StateDir = None,
    images: Images = None,
    config: Config = None,
    quota_bytes: Annotated[
        int | None,
        typer.Option(help="Most bytes of images; none: the settings'.", min=0, metavar="N",
                     show_default=False),
    ] = None,
    ttl_days: Annotated[
        float | None,
        typer.Option(help="How long images are kept; none: the settings'.", min=0.0, metavar="N",
                     show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Take away kept images whose time is over, and the oldest where the quota is.

    A server does so by itself; this is for one that no longer runs, or to make room now. The
    records stay and say that their image expired.
    """
    with reported_errors():
        settings = _settings(records=records, state_dir=state_dir, images=images, config=config)
        store = ImageStore.open(settings)
        if store is None:
            raise ConfigError(
                "there is no place of images to sweep; give --images a folder or URL, or "
                "--state-dir a folder"
            )
        with _ledger(settings) as ledger:
            ledger.ping()
            swept = store.sweep(
                quota_bytes=quota_bytes, ttl_s=None if ttl_days is None else ttl_days * _DAY_S
            )
            told = ledger.images_gone(swept.removed)
    typer.echo(
        f"removed {_times(len(swept.expired), 'image')} whose time was over and "
        f"{len(swept.displaced)} to make room ({swept.removed_bytes} bytes); "
        f"{_times(told, 'record')} say so; kept {_times(swept.kept, 'image')} "
        f"({swept.kept_bytes} bytes)"
    )


@app.command()
def upgrade(records: Records = None, state_dir: StateDir = None, config: Config = None) -> None:
    """Bring the database to the schema of this version, or make it in a new database.

    A server does so when it starts; run this first where servers may not change the schema. Rows
    are kept. Back up the database before.
    """
    with reported_errors():
        settings = _settings(records=records, state_dir=state_dir, config=config)
        url = _url(settings, new_too=True)
        engine = database.engine(database.checked_url(url), timeout_s=settings.records_timeout_s)
        try:
            before = auditing.revision(engine)
        finally:
            engine.dispose()
        with contextlib.closing(Ledger.open(url, timeout_s=settings.records_timeout_s)) as ledger:
            name = ledger.name
    after = REVISIONS[-1]
    if before == after:
        typer.echo(f"{name} has the schema of this version already (revision {after})")
    else:
        done = "made in a new database" if before is None else f"upgraded from revision {before}"
        typer.echo(f"{name}: schema of revision {after}, {done}")


def _settings(**flags: object) -> Settings:
    return settings_module.load(flags)


def _url(settings: Settings, *, new_too: bool = False) -> str:
    """The URL of the records' database, which is not made by looking at it.

    Raises:
        ConfigError: None is named, or the file is not there.
    """
    url = checks.records_url(settings)
    if url is None:
        raise ConfigError(
            "no records are named; give --records the URL of their database, or --state-dir the "
            "server's state folder"
        )
    checked = database.checked_url(url)
    if checked.get_backend_name() == "sqlite" and not new_too:
        file = Path(checked.database or "")
        if not file.is_file():
            raise ConfigError(f"there are no records {file}; give --records or --state-dir")
    return url


@contextlib.contextmanager
def _ledger(settings: Settings) -> Iterator[Ledger]:
    with contextlib.closing(
        Ledger.open(_url(settings), timeout_s=settings.records_timeout_s)
    ) as ledger:
        yield ledger


def _moment(text: str, flag: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{flag} is {text!r}; expected a date such as 2027-01-31, or a time with its zone such "
            "as 2027-01-31T12:00:00+01:00"
        ) from error
    if moment.tzinfo is not None:
        return moment
    if "T" in text or " " in text:
        raise ConfigError(f"{flag} is {text!r}, a time without a zone; add Z or +01:00")
    return moment.replace(tzinfo=UTC)


def _model(text: str) -> str:
    if _MODEL.fullmatch(text) is None:
        raise ConfigError(
            f"--model {text!r} is no model; expected the first 12 digits of the digests of its "
            "weights and its calibration with a hyphen between, as in the metrics"
        )
    return text


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _tell_more(count: int) -> None:
    if count:
        typer.echo(f"  and {count} more")
