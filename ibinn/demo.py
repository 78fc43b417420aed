"""The service doing its main job: ``python -m ibinn.demo`` (also ``make demo``).

Starts ``ibinn-serve`` with the embedded bundle on a free port, sends the sample images over
gRPC, prints the answers, draws heatmaps into ``out/demo.png`` and stops the server. The last
line is ``demo: ok, N images, M unknown, model DIGEST``; otherwise the exit code is 1 and the
last line says what did not come out as it must.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ibinn.client import Client
from ibinn.decoding import Limits, open_image
from ibinn.errors import IbinnError, UnavailableError
from ibinn.explain.drawing import SheetRow, explanation_sheet
from ibinn.rendering import predictions_table
from ibinn.samples import Sample, SampleKind, all_samples
from ibinn.types import Explanation, Prediction, Verdict

OUT = Path("out/demo.png")
READY_WITHIN_S = 180.0
STOPPED_WITHIN_S = 15.0
CALL_WITHIN_S = 60.0
LARGEST_COMPLETENESS_ERROR = 1e-3
"""Nats by which a heatmap's sum may miss the log-posterior that it explains."""
_REQUESTS_AT_A_TIME = 8
_WIDTH_IN_A_PIPE = 120
_READY = re.compile(r"ready grpc=(?P<target>\S+)")
_SERVER_OPTIONS = ("--host=127.0.0.1", "--port=0", "--metrics-port=0", "--log-level=warning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A sample with what the service said about it."""

    sample: Sample
    prediction: Prediction
    explanation: Explanation


def main() -> int:
    """Run the demo; the exit code."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_IN_A_PIPE)
    try:
        answers = run(console)
        write_sheet(answers, OUT)
    except IbinnError as error:
        print(f"demo: failed: {error}")
        return 1
    console.print(f"picture: {OUT}", markup=False)
    missing = shortcomings(answers)
    if missing:
        print(f"demo: failed: {'; '.join(missing)}")
        return 1
    print(last_line(answers))
    return 0


def run(console: Console) -> list[Answer]:
    """Start a server, ask it about every sample, print its answers, stop it.

    Raises:
        IbinnError: The server does not start, or an answer is not a result.
    """
    samples = all_samples()
    console.print("starting ibinn-serve with the embedded model …")
    started = time.monotonic()
    with running_server() as target, Client(target, timeout_s=CALL_WITHIN_S) as client:
        info = client.model()
        console.print(
            f"ready at {target} after {time.monotonic() - started:.1f} s: {info.name}, "
            f"{len(info.classes)} classes, {info.calibration_count:,} calibration images, "
            f"α = {info.alpha:g}\n",
            markup=False,
        )
        started = time.monotonic()
        with ThreadPoolExecutor(_REQUESTS_AT_A_TIME) as pool:
            data = [sample.data for sample in samples]
            predictions = list(pool.map(client.classify, data))
            classified_s = time.monotonic() - started
            explanations = list(pool.map(client.explain, data))
    answers = [
        Answer(sample=sample, prediction=prediction, explanation=explanation)
        for sample, prediction, explanation in zip(samples, predictions, explanations, strict=True)
    ]
    console.print(
        predictions_table([(_title(answer.sample), answer.prediction) for answer in answers])
    )
    console.print(
        Text(
            f"{len(answers)} Classify calls in {classified_s:.2f} s; "
            f"{sum(len(answer.explanation.heatmaps) for answer in answers)} heatmaps, each adds up "
            f"to log q(class|image) within {largest_completeness_error(answers):.1e} nats",
            style="dim",
        )
    )
    return answers


@contextmanager
def running_server(
    *, ready_within_s: float = READY_WITHIN_S, options: Sequence[str] = ()
) -> Iterator[str]:
    """A server in a process of its own; yields its address, and stops it afterwards.

    Args:
        ready_within_s: Time for it to say that it is ready.
        options: More options of its command.

    Raises:
        UnavailableError: It is not installed, ended, or did not get ready in time.
    """
    # Without the settings of the environment: the demo shows the embedded model.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("IBINN_")}
    lines: queue.Queue[str | None] = queue.Queue()
    with subprocess.Popen(
        [_server_command(), *_SERVER_OPTIONS, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        # Reads on to the end, so that a server that logs much is never held up by a full pipe.
        reader = threading.Thread(target=_forward_lines, args=(process, lines), daemon=True)
        reader.start()
        try:
            yield _wait_until_ready(lines, ready_within_s)
        finally:
            process.terminate()
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
            reader.join()


def write_sheet(answers: Sequence[Answer], path: Path) -> None:
    """Write a PNG with each image, its classes, verdict with reason, and heatmap."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        SheetRow(
            title=_title(answer.sample),
            explanation=answer.explanation,
            original=open_image(answer.sample.data, Limits()).pixels,
        )
        for answer in answers
    ]
    explanation_sheet(rows).save(path, format="PNG")


def shortcomings(answers: Sequence[Answer]) -> list[str]:
    """What did not come out as it must; empty if all is well."""
    missing = [
        f"{_title(answer.sample)} came out {answer.prediction.verdict}, expected UNKNOWN"
        for answer in answers
        if answer.sample.kind in (SampleKind.DIGIT, SampleKind.NOISE)
        and answer.prediction.verdict is not Verdict.UNKNOWN
    ]
    if not any(
        answer.sample.kind is SampleKind.THUMBNAIL
        and answer.prediction.verdict is Verdict.AMBIGUOUS
        for answer in answers
    ):
        missing.append("no thumbnail came out AMBIGUOUS, expected at least one")
    error = largest_completeness_error(answers)
    if not error <= LARGEST_COMPLETENESS_ERROR:
        missing.append(
            f"a heatmap misses its log-posterior by {error:.1e} nats, expected at most "
            f"{LARGEST_COMPLETENESS_ERROR:g}"
        )
    return missing


def largest_completeness_error(answers: Sequence[Answer]) -> float:
    """Largest |sum of a heatmap - log-posterior| in nats over all heatmaps; 0 without any."""
    return max(
        (
            heatmap.completeness_error
            for answer in answers
            for heatmap in answer.explanation.heatmaps
        ),
        default=0.0,
    )


def last_line(answers: Sequence[Answer]) -> str:
    """``demo: ok, N images, M unknown, model DIGEST`` with the digest's first 12 digits."""
    unknown = sum(answer.prediction.verdict is Verdict.UNKNOWN for answer in answers)
    digest = answers[0].prediction.versions.weights[:12]
    return f"demo: ok, {len(answers)} images, {unknown} unknown, model {digest}"


def _title(sample: Sample) -> str:
    if sample.kind is SampleKind.THUMBNAIL:
        return sample.name
    return f"{sample.name} ({sample.shows})"


def _server_command() -> str:
    beside_python = Path(sys.executable).with_name("ibinn-serve")
    if beside_python.is_file():
        return str(beside_python)
    found = shutil.which("ibinn-serve")
    if found is None:
        raise UnavailableError(
            f"ibinn-serve is neither beside {sys.executable} nor on the PATH; install the "
            "package with its server: pip install 'ibinn[serve]'",
            code="UNAVAILABLE",
        )
    return found


def _forward_lines(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _wait_until_ready(lines: queue.Queue[str | None], within_s: float) -> str:
    deadline = time.monotonic() + within_s
    seen: deque[str] = deque(maxlen=5)
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            problem = f"was not ready within {within_s:g} s"
            break
        if line is None:
            problem = "ended before it was ready"
            break
        ready = _READY.search(line)
        if ready is not None:
            return ready["target"]
        seen.append(line)
    raise UnavailableError(
        f"ibinn-serve {problem}; it said: {' | '.join(seen) or 'nothing'}", code="UNAVAILABLE"
    )


if __name__ == "__main__":
    raise SystemExit(main())
