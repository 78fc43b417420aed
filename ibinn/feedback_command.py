"""The command `ibinn feedback`: tells a server what was true of images that it answered.

Importing this module imports no generated protobuf code.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ibinn import feedback_file
from ibinn.classify_command import INTERRUPTED
from ibinn.errors import ConfigError, InvalidImageError, NotFoundError, RemoteError
from ibinn.json_lines import json_line
from ibinn.records import (
    Acknowledgement,
    Feedback,
    FeedbackOutcome,
    Provenance,
    Reaction,
    Selection,
)
from ibinn.server_options import ServerOptions, with_server
from ibinn.terminal import console, interruptible, reported_errors

if TYPE_CHECKING:
    from ibinn.client import Client

OUTCOMES = {
    FeedbackOutcome.FIRST: "the first statement about this answer",
    FeedbackOutcome.REPEATED: "known already, nothing was changed",
    FeedbackOutcome.CONFIRMED: "another source had said the same",
    FeedbackOutcome.CORRECTED: "takes the place of what the source said before",
    FeedbackOutcome.CONFLICTING: "another source says otherwise; both stand",
}


@with_server
def feedback(
    record: Annotated[
        str | None,
        typer.Argument(metavar="RECORD", help="Record id of the answer.", show_default=False),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Argument(metavar="TRUTH", help="Name of a class (also of one that the model does not "
                       "know), out-of-scope or unreadable.", show_default=False),
    ] = None,
    *,
    asked: ServerOptions,
    file: Annotated[
        Path | None,
        typer.Option("--from", help="Many statements: a .csv with a header or .jsonl, with columns "
                     f"{', '.join(feedback_file.COLUMNS)}; the options stand in for what a line "
                     "does not say.", metavar="FILE", show_default=False),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Who says so: a person, device or process.", metavar="NAME",
                          show_default=False),
    ] = "",
    saw_answer: Annotated[
        bool | None,
        typer.Option("--saw-answer/--not-saw-answer", help="Whether the person had seen the "
                     "answer.", show_default=False),
    ] = None,
    reaction: Annotated[
        Reaction | None,
        typer.Option(help="What the person had done with the answer.", show_default=False),
    ] = None,
    selection: Annotated[
        Selection | None,
        typer.Option(help="Why the image was selected for labelling.", show_default=False),
    ] = None,
    probability: Annotated[
        float | None,
        typer.Option(help="Chance with which the image was to be selected.", metavar="P",
                     min=1e-6, max=1.0, show_default=False),
    ] = None,
    receipt: Annotated[
        str, typer.Option(help="Receipt of the answer; needed where its record was lost.",
                          metavar="RECEIPT", show_default=False),
    ] = "",
    labelled_time: Annotated[
        str, typer.Option(help="When the truth was found: ISO 8601 with its zone.", metavar="TIME",
                          show_default=False),
    ] = "",
    comment: Annotated[
        str, typer.Option(help="Free text.", metavar="TEXT", show_default=False)
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per statement.")
    ] = False,
) -> None:  # fmt: skip
    """Tell a server what is TRUE of the image that it answered as RECORD, or of many (--from).

    A statement is durable when the command says so. The same again changes nothing: a file that was
    interrupted is simply sent again.
    """
    with reported_errors():
        provenance = Provenance(
            source=source,
            saw_answer=saw_answer,
            reaction=reaction,
            selection=selection,
            sampling_probability=probability,
        )
        if file is not None:
            if record is not None or receipt or labelled_time or comment:
                raise ConfigError(
                    "got --from and a statement (RECORD, TRUTH, --receipt, --labelled-time or "
                    "--comment); the file holds these, leave them out"
                )
            failed = _send_file(asked, file, provenance, as_json=as_json)
        elif record is None or truth is None:
            raise ConfigError("give RECORD and TRUTH, or many of them in a file: --from FILE")
        elif not source:
            raise ConfigError("--source is missing; say who found the truth: --source NAME")
        else:
            failed = 0
            with asked.client() as client:
                done = client.submit_feedback(
                    record,
                    truth,
                    provenance=provenance,
                    receipt=receipt,
                    labelled_time=feedback_file.time_of(labelled_time) if labelled_time else None,
                    comment=comment,
                )
            _show(record, done, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _show(record: str, done: Acknowledgement, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json_line(done, record_id=record))
        return
    lost = "" if done.record_known else "; the answer's record was lost, its receipt was accepted"
    console().print(
        f"{record}: kept as statement {done.revision}: {OUTCOMES[done.outcome]}{lost}",
        markup=False,
    )


def _send_file(asked: ServerOptions, file: Path, default: Provenance, *, as_json: bool) -> int:
    """Sends the statements of a file; the number of those that the server refused."""
    from ibinn.client import truth_of

    found = feedback_file.read(file, default=default, truth_of=truth_of)
    outcomes: Counter[FeedbackOutcome] = Counter()
    failed = sent = 0
    on_error = Console(stderr=True)
    with (
        interruptible(),
        asked.client() as client,
        Progress(
            TextColumn("sending"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=on_error,
            transient=True,
            disable=len(found.lines) < 2 or not on_error.is_terminal,
        ) as progress,
    ):
        task = progress.add_task("", total=len(found.lines))
        try:
            for line in found.lines:
                try:
                    done = _submit(client, line.statement)
                except (NotFoundError, InvalidImageError) as error:  # of this statement alone
                    failed += 1
                    typer.echo(f"ibinn: {file}, line {line.number}: {error}", err=True)
                else:
                    outcomes[done.outcome] += 1
                    if as_json:
                        _show(line.statement.record_id, done, as_json=True)
                sent += 1
                progress.update(task, advance=1)
        except (KeyboardInterrupt, RemoteError) as error:
            typer.echo(
                f"ibinn: stopped after {sent} of {len(found.lines)} statements, which are kept; "
                "to go on, give the same command again",
                err=True,
            )
            if isinstance(error, KeyboardInterrupt):
                raise typer.Exit(INTERRUPTED) from error
            raise
    if not as_json:
        parts = [f"{outcomes[each]} {each.value}" for each in FeedbackOutcome if outcomes[each]]
        parts += [f"{failed} refused"] * bool(failed)
        parts += [f"{found.unlabelled} lines without a truth passed over"] * bool(found.unlabelled)
        console().print(
            f"{file}: {len(found.lines)} statements: {', '.join(parts) or 'none'}", markup=False
        )
    return failed


def _submit(client: Client, statement: Feedback) -> Acknowledgement:
    return client.submit_feedback(
        statement.record_id,
        statement.truth,
        provenance=statement.provenance,
        receipt=statement.receipt,
        feedback_id=statement.feedback_id,
        labelled_time=statement.labelled_time,
        comment=statement.comment,
    )
