"""What a run left, served again: the database and the server, for whoever wants to look."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ibinn.errors import DataError
from ibinn.loop.operating import Operator
from ibinn.loop.processes import Server, running_database, running_server
from ibinn.loop.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A server over the records of an earlier run.

    Attributes:
        server: The server.
        token: File with the auditor's token.
        bundles: Folder of the bundles that answered.
    """

    server: Server
    token: Path
    bundles: Path


@contextmanager
def audited(out: Path, timeline: Timeline) -> Iterator[Audited]:
    """The database and a server over the records that a run left.

    Raises:
        DataError: The folder is not that of a finished run.
    """
    try:
        kind = json.loads((out / "database.json").read_text("utf-8"))["kind"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{out} holds no run of the loop that ended; run it first: make loop"
        ) from error
    operator = Operator(out, timeline)
    with (
        running_database(out / "database", kind=kind) as database,
        running_server(*operator.server_flags(database.url), log=operator.server_log) as server,
    ):
        yield Audited(server=server, token=operator.token_file("auditor"), bundles=operator.models)


def serve_again(out: Path, timeline: Timeline) -> None:
    """`audited`, with the commands to look, until Ctrl-C."""
    with audited(out, timeline) as found:
        asked = f"--server {found.server.target} --token-file {found.token}"
        timeline.tell("good", f"the records of {out} are served; Ctrl-C ends it")
        for command in (
            f"ibinn audit list {asked}",
            f"ibinn audit show ID {asked}",
            f"ibinn audit verify {asked}",
            f"ibinn audit replay ID [ID ...] {asked} --bundles {found.bundles}",
        ):
            timeline.tell("fact", command)
        threading.Event().wait()
