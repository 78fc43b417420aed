"""Entries of the ledger as a file of JSON lines, for whoever checks them without a server.

A line is an object with the fields of `ibinn.records.Entry`; ``body`` is in base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from ibinn.errors import DataError
from ibinn.records import Entry, EntryKind


def entry_line(entry: Entry) -> str:
    """An entry as a line, without its end."""
    return json.dumps(
        {
            "sequence": entry.sequence,
            "kind": entry.kind.value,
            "record_id": entry.record_id,
            "time": entry.time.isoformat(),
            "body": base64.b64encode(entry.body).decode(),
            "previous_hash": entry.previous_hash,
            "hash": entry.hash,
        }
    )


def entries_of(path: Path) -> Iterator[Entry]:
    """The entries of a file, one by one, as they stand.

    Raises:
        DataError: The file cannot be read, or a line is no entry; the message says which one.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _entry(path, number, line)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {error}; give a file of `ibinn audit export`"
        ) from error


def _entry(path: Path, number: int, line: str) -> Entry:
    try:
        found = json.loads(line)
        texts = {name: found[name] for name in ("record_id", "previous_hash", "hash")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("a hash or the record id is not a text")
        if type(found["sequence"]) is not int:
            raise TypeError("sequence is not a whole number")
        return Entry(
            sequence=found["sequence"],
            kind=EntryKind(found["kind"]),
            time=datetime.fromisoformat(found["time"]),
            body=base64.b64decode(found["body"], validate=True),
            **texts,
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DataError(
            f"{path}, line {number} is no entry of the ledger ({error}); expected a line of "
            "`ibinn audit export`"
        ) from error
