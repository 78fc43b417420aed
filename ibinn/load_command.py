"""The command `ibinn load-test`.

Importing this module imports no gRPC: the generator is loaded when the command runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.status import Status

from ibinn.errors import ConfigError, DataError
from ibinn.folder import images_in
from ibinn.json_lines import json_line
from ibinn.server_options import ServerOptions, with_server
from ibinn.terminal import console, reported_errors

if TYPE_CHECKING:
    from ibinn.load_test import Concurrency, Plan, Progress, Rate, Work

MOST_IMAGES = 256
DEFAULT_RATE = 100.0


Poisson = Annotated[
    bool,
    typer.Option("--poisson", help="Send at random times, as from many callers, instead of at "
                 "equal distances."),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


class Method(enum.StrEnum):
    """What is called."""

    CLASSIFY = "classify"
    EXPLAIN = "explain"
    STREAM = "stream"


def _load_test(
    target: Annotated[str, typer.Argument(metavar="HOST:PORT", show_default=False)],
    asked: ServerOptions,
    *,
    rate: Annotated[
        float | None,
        typer.Option(help="Images per second, sent on schedule whether or not answers come. "
                     f"Without --rate and --concurrency: {DEFAULT_RATE:g}.", show_default=False),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(help="Instead of a rate: keep this many calls unanswered, to find the "
                     "highest throughput.", show_default=False),
    ] = None,
    poisson: Poisson = False,
    seed: Annotated[int, typer.Option(help="Of random arrivals.")] = 0,
    duration_s: Annotated[
        float, typer.Option("--duration", help="Seconds to measure.", metavar="SECONDS")
    ] = 10.0,
    warm_up_s: Annotated[
        float,
        typer.Option("--warm-up", help="Seconds of the same load before.", metavar="SECONDS"),
    ] = 1.0,
    deadline_s: Annotated[
        float, typer.Option("--deadline", help="Time for each call.", metavar="SECONDS")
    ] = 5.0,
    connections: Annotated[int, typer.Option(help="TCP connections, used in turn.")] = 1,
    method: Annotated[Method, typer.Option(help="What to call.")] = Method.CLASSIFY,
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", help="Image or folder of images to send in turn; may be given "
                     "more than once. Without it: small sample images.", metavar="PATH",
                     show_default=False),
    ] = None,
    images_per_message: Annotated[
        int, typer.Option(help="Images in one message of a stream, up to 64.")
    ] = 8,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Send load to the server at HOST:PORT, and tell how it answered.

    Latency counts from when a call should have been sent, so that no stall is hidden.
    The exit code is 1 if no image was answered.
    """
    with reported_errors():
        from ibinn.load_test import Plan, run
        from ibinn.load_test.rendering import report_block

        plan = Plan(
            target=dataclasses.replace(asked, server=target).connection(),
            work=_work(
                method,
                _images(images or ()),
                images_per_message=images_per_message,
                deadline_s=deadline_s,
                model=asked.model or "",
            ),
            load=_load(rate, concurrency, poisson=poisson, seed=seed),
            duration_s=duration_s,
            warm_up_s=warm_up_s,
            deadline_s=deadline_s,
            connections=connections,
        )
        with _shown(plan) as progress:
            report = run(plan, progress=progress)
        if as_json:
            typer.echo(json_line(report))
        else:
            console().print(report_block(report))
        if report.answered == 0:
            raise typer.Exit(1)


# The server is the command's argument, and the time for a call its --deadline.
load_test = with_server(_load_test, without=frozenset({"server", "timeout"}))


def _load(
    rate: float | None, concurrency: int | None, *, poisson: bool, seed: int
) -> Rate | Concurrency:
    from ibinn.load_test import Arrivals, Concurrency, Rate

    if concurrency is None:
        arrivals = Arrivals.POISSON if poisson else Arrivals.UNIFORM
        return Rate(DEFAULT_RATE if rate is None else rate, arrivals, seed)
    if rate is not None or poisson:
        raise ConfigError("got --concurrency with --rate or --poisson; leave one of them out")
    return Concurrency(concurrency)


def _work(
    method: Method,
    images: Sequence[bytes],
    *,
    images_per_message: int,
    deadline_s: float,
    model: str,
) -> Work:
    from ibinn.load_test import classify_work, explain_work, stream_work

    match method:
        case Method.CLASSIFY:
            return classify_work(images, model=model)
        case Method.EXPLAIN:
            return explain_work(images, model=model)
        case Method.STREAM:
            return stream_work(
                images, images_per_message=images_per_message, timeout_s=deadline_s, model=model
            )


def _images(paths: Sequence[Path]) -> list[bytes]:
    if not paths:
        from ibinn.samples import thumbnails

        return [sample.data for sample in thumbnails()]
    try:
        return [file.read_bytes() for file in images_in(paths)[:MOST_IMAGES]]
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename}: {error.strerror}; give --images the path of an image "
            "or of a folder of images"
        ) from error


@contextlib.contextmanager
def _shown(plan: Plan) -> Iterator[Callable[[Progress], None] | None]:
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    with Status("connecting …", console=screen) as status:
        yield lambda progress: status.update(_line(progress, plan))


def _line(progress: Progress, plan: Plan) -> str:
    if progress.elapsed_s < 0:
        return f"warming up, {-progress.elapsed_s:.0f} s left"
    return (
        f"{min(progress.elapsed_s, plan.duration_s):.0f} of {plan.duration_s:g} s: "
        f"{progress.sent:,} images sent, {progress.good:,} answered in time, "
        f"{progress.settled - progress.good:,} not, {progress.sent - progress.settled:,} under way"
    )
