"""Where an audit reads the ledger: from a server, or from a file that was exported.

Importing this module imports no generated protobuf code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ibinn.audit_file import entries_of
from ibinn.chain import START, Break, Fault, Point, Verified, verify
from ibinn.errors import ConfigError, DataError, LedgerError
from ibinn.records import AnswerEntry, Entry, EntryKind
from ibinn.server_options import ServerOptions

if TYPE_CHECKING:
    from ibinn.client import Client

Through = Callable[[Iterable[Entry]], Iterable[Entry]]
"""What sees every entry on its way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRecord:
    """An answer as the ledger has it.

    Attributes:
        entry: As it is kept.
        answer: Its body, read.
        image: The encoded image, where it was asked for and is kept.
    """

    entry: Entry
    answer: AnswerEntry
    image: bytes | None


class Ledger(Protocol):
    """A ledger that can be walked along, and its answers."""

    def verified(self, anchors: Sequence[Point], *, through: Through = iter) -> Verified:
        """Walks along all of it; see `ibinn.chain.verify`."""

    def answers(self, record_ids: Sequence[str], *, images: bool) -> Iterator[OnRecord]:
        """Answers by their record ids.

        Raises:
            DataError, RemoteError: There is none with that id.
        """


@contextmanager
def open_ledger(asked: ServerOptions, file: Path | None) -> Iterator[Ledger]:
    """The ledger that the options ask for.

    Raises:
        ConfigError: Both a server and a file are given, or neither.
    """
    if file is None:
        with asked.client() as client:
            yield _Server(client=client)
        return
    if asked.server is not None:
        raise ConfigError("got --file and --server; read the ledger from one of them")
    asked.refuse("a file needs no server, leave it out")
    yield _File(path=file)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    client: Client

    def verified(self, anchors: Sequence[Point], *, through: Through = iter) -> Verified:
        from ibinn.client import record_id_in

        head = self._head()
        entries = _followed(self.client.entries(), total=head.sequence)
        found = verify(through(entries), anchors=[head, *anchors], about=record_id_in)
        # Asked again, for entries may have come meanwhile: the head never lies behind them.
        now = self.client.list_entries(after=found.end.sequence, page_size=1).head_sequence
        if now >= found.end.sequence:
            return found
        behind = Break(
            sequence=now,
            fault=Fault.ORDER,
            words=f"the ledger says that its head is entry {now}, but it holds entries up to "
            f"{found.end.sequence} at least.",
        )
        return dataclasses.replace(found, broken=found.broken + 1, breaks=(*found.breaks, behind))

    def answers(self, record_ids: Sequence[str], *, images: bool) -> Iterator[OnRecord]:
        for record_id in record_ids:
            found = self.client.get_record(record_id, include_image=images)
            yield OnRecord(entry=found.entry, answer=found.answer, image=found.image)

    def _head(self) -> Point:
        stated = self.client.list_entries(page_size=1)
        if not stated.head_sequence:
            return START
        try:
            return Point(sequence=stated.head_sequence, hash=stated.head_hash)
        except ConfigError as error:
            raise LedgerError(f"the server states a head that is none: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path

    def verified(self, anchors: Sequence[Point], *, through: Through = iter) -> Verified:
        from ibinn.client import record_id_in

        return verify(through(entries_of(self.path)), anchors=anchors, about=record_id_in)

    def answers(self, record_ids: Sequence[str], *, images: bool) -> Iterator[OnRecord]:
        from ibinn.client import content

        wanted = set(record_ids)
        for entry in entries_of(self.path):
            if entry.kind is EntryKind.ANSWER and entry.record_id in wanted:
                answer = content(entry)
                assert isinstance(answer, AnswerEntry)
                wanted.discard(entry.record_id)
                yield OnRecord(entry=entry, answer=answer, image=None)
        if wanted:
            raise DataError(
                f"{self.path} holds no answer {', '.join(sorted(wanted))}; look with a newer "
                "export, or ask the server"
            )


def _followed(entries: Iterable[Entry], *, total: int) -> Iterator[Entry]:
    """Entries, while a bar on the terminal shows how far they are."""
    on_error = Console(stderr=True)
    with Progress(
        TextColumn("checking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=on_error,
        transient=True,
        disable=not on_error.is_terminal,
    ) as progress:
        task = progress.add_task("", total=total)
        for entry in entries:
            yield entry
            progress.update(task, advance=1)
