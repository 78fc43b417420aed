"""The commands `ibinn audit`: why an answer was given, and whether the record of it still stands.

Exit codes: 0 nothing is wrong; 1 a discrepancy was found: a broken chain, or an answer that is not
the one on record; 2 the usage, a file or the connection is wrong.

Importing this module imports neither torch nor generated protobuf code.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ibinn.audit_file import entry_line
from ibinn.audit_replay import Replay, Replayer
from ibinn.audit_source import open_ledger
from ibinn.chain import Point, Verified, own_hash
from ibinn.errors import ConfigError, DataError, LedgerError
from ibinn.json_lines import json_line
from ibinn.records import (
    AnswerEntry,
    Entry,
    EntryKind,
    ErasureEntry,
    FeedbackEntry,
    GuaranteeEntry,
    ImageState,
    Record,
)
from ibinn.rendering import (
    content_line,
    entries_table,
    printable,
    record_block,
    replay_block,
    verified_block,
)
from ibinn.server_options import ServerOptions, with_server
from ibinn.terminal import console, reported_errors

app = typer.Typer(
    help="Reconstruct decisions of a server, and check that its records stand as they were made.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_asking = functools.partial(with_server, without=frozenset({"model"}))

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
RecordId = Annotated[
    str, typer.Argument(metavar="ID", help="Record id of the answer.", show_default=False)
]
Ledger = Annotated[
    Path | None,
    typer.Option("--file", help="Read the ledger from a file of `ibinn audit export` instead of a "
                 "server.", metavar="FILE", show_default=False),
]  # fmt: skip
Anchors = Annotated[
    list[str] | None,
    typer.Option("--anchor", help="A head that was noted down before; the ledger must still hold "
                 "it. May be given more than once.", metavar="NUMBER:HASH", show_default=False),
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An answer on record, as JSON shows it; see `ibinn.records.Record`."""

    sequence: int
    time: datetime
    hash: str
    previous_hash: str
    intact: bool
    answer: AnswerEntry
    feedback: tuple[FeedbackEntry, ...]
    image_state: ImageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An entry of the ledger, as JSON shows it; see `ibinn.records.Entry`."""

    sequence: int
    kind: EntryKind
    record_id: str
    time: datetime
    hash: str
    content: AnswerEntry | FeedbackEntry | ErasureEntry | GuaranteeEntry | None
    error: str


@app.command()
@_asking
def show(record_id: RecordId, *, asked: ServerOptions, as_json: AsJson = False) -> None:
    """Show why an answer was given, by what, how well calibrated then, and what was said later."""
    with reported_errors():
        with asked.client() as client:
            record = client.get_record(record_id)
        intact = _is_intact(record.entry)
        if as_json:
            typer.echo(json_line(_shown(record, intact=intact)))
        else:
            console().print(record_block(record, intact=intact))
    if not intact:
        raise typer.Exit(1)


@app.command("list")
@_asking
def list_entries(
    *,
    asked: ServerOptions,
    last: Annotated[int, typer.Option(help="How many of the newest.", metavar="N", min=1)] = 20,
    kind: Annotated[
        list[EntryKind] | None,
        typer.Option(help="Only entries of this kind; may be given more than once.",
                     show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List the newest entries of the ledger: answers, truths, erasures, the guarantee."""
    with reported_errors():
        with asked.client() as client:
            entries: Iterable[Entry]
            if kind:
                # Which numbers those of a kind have is not known before.
                entries = deque(client.entries(kinds=kind, page_size=5000), maxlen=last)
            else:
                head = client.list_entries(page_size=1).head_sequence
                entries = list(client.entries(after=max(0, head - last)))[-last:]
        if as_json:
            for entry in entries:
                typer.echo(json_line(_listed(entry)))
        else:
            console().print(entries_table([(entry, _line(entry)) for entry in entries]))


@app.command("verify")
@_asking
def verify_ledger(
    *, asked: ServerOptions, file: Ledger = None, anchor: Anchors = None, as_json: AsJson = False
) -> None:
    """Walk along the whole ledger: is an entry missing, changed, added or moved?"""
    with reported_errors():
        anchors = [Point.parse(text) for text in anchor or ()]
        name = str(file) if file is not None else f"ledger of {asked.server}"
        with open_ledger(asked, file) as ledger:
            found = ledger.verified(anchors)
        if as_json:
            typer.echo(_verified_line(found))
        else:
            console().print(verified_block(found, name=name))
    if not found.intact:
        raise typer.Exit(1)


@app.command()
@_asking
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    *,
    asked: ServerOptions,
    anchor: Anchors = None,
    as_json: AsJson = False,
) -> None:
    """Write the whole ledger to FILE as JSON lines, to be checked offline; checks it on the way."""
    with reported_errors():
        anchors = [Point.parse(text) for text in anchor or ()]
        part = file.with_name(f"{file.name}.part")
        with open_ledger(asked, None) as ledger, _opened(part) as out:

            def written(entries: Iterable[Entry]) -> Iterator[Entry]:
                for entry in entries:
                    out.write(entry_line(entry) + "\n")
                    yield entry

            found = ledger.verified(anchors, through=written)
        part.replace(file)
        if as_json:
            typer.echo(_verified_line(found))
        else:
            console().print(verified_block(found, name=str(file)))
    if not found.intact:
        raise typer.Exit(1)


@app.command()
@_asking
def replay(
    record_ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Record ids of answers.", show_default=False),
    ],
    *,
    asked: ServerOptions,
    bundle: Annotated[
        Path | None,
        typer.Option(help="The bundle that answered; without it the embedded one.", metavar="DIR",
                     show_default=False),
    ] = None,
    bundles: Annotated[
        Path | None,
        typer.Option(help="A folder of bundles, in which the one of the record's digests is "
                     "looked for.", metavar="DIR", show_default=False),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="The policy that the answer was made under; without it a *.policy.json "
                     "beside the bundle.", metavar="FILE", show_default=False),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="The file that was sent, where the server did not keep it.",
                     metavar="FILE", show_default=False),
    ] = None,
    file: Ledger = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Compute answers again on this machine: the same verdict, likelihoods and p-values?"""
    differ = False
    with reported_errors():
        if image is not None and len(record_ids) > 1:
            raise ConfigError("got --image and several records; give them one by one")
        if file is not None and image is None:
            raise ConfigError("got --file, which holds no images; give the one sent with --image")
        replayer = Replayer(bundle=bundle, bundles=bundles, policy=policy)
        with open_ledger(asked, file) as ledger:
            for found in ledger.answers(record_ids, images=image is None):
                entry = found.entry
                if not _is_intact(entry):
                    raise LedgerError(
                        f"entry {entry.sequence} of record {entry.record_id} has not the hash of "
                        "its contents: it was altered; verify the ledger"
                    )
                sent = found.image if image is None else _read(image)
                if sent is None:
                    raise DataError(
                        f"the image of record {entry.record_id} is not kept; give the file that "
                        "was sent: --image FILE"
                    )
                with Console(stderr=True).status("computing it again …"):
                    made = replayer.replay(entry.record_id, found.answer.prediction, sent)
                differ |= not made.same
                _show_replay(made, as_json=as_json)
    if differ:
        raise typer.Exit(1)


def _show_replay(made: Replay, *, as_json: bool) -> None:
    if as_json:
        first: dict[str, Any] = {
            "record_id": made.record_id,
            "same": made.same,
            "bundle": made.bundle,
            "policy": made.policy,
            "engine": made.engine,
        }
        typer.echo(json_line(made.comparison, **first))
    else:
        console().print(
            replay_block(
                made.record_id,
                made.comparison,
                bundle=made.bundle,
                policy=made.policy,
                engine=made.engine,
            )
        )


def _is_intact(entry: Entry) -> bool:
    return own_hash(entry) == entry.hash


def _shown(record: Record, *, intact: bool) -> Shown:
    entry = record.entry
    return Shown(
        sequence=entry.sequence,
        time=entry.time,
        hash=entry.hash,
        previous_hash=entry.previous_hash,
        intact=intact,
        answer=record.answer,
        feedback=record.feedback,
        image_state=record.image_state,
    )


def _listed(entry: Entry) -> Listed:
    from ibinn.client import content

    found, wrong = None, ""
    try:
        found = content(entry)
    except LedgerError as error:
        wrong = str(error)
    return Listed(
        sequence=entry.sequence,
        kind=entry.kind,
        record_id=entry.record_id,
        time=entry.time,
        hash=entry.hash,
        content=found,
        error=wrong,
    )


def _line(entry: Entry) -> Any:
    listed = _listed(entry)
    return printable(listed.error) if listed.content is None else content_line(listed.content)


def _verified_line(found: Verified) -> str:
    return json_line(found, intact=found.intact, head=str(found.end))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with path.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; give another FILE") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {path}: {error.strerror}; give another file") from error
