"""The demo's own judgement and its handling of the server's process, without a model."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ibinn import demo
from ibinn.errors import UnavailableError
from ibinn.samples import Sample, SampleKind, noise
from ibinn.types import Explanation, Heatmap, Verdict
from tests.ibinn.answers import make_prediction

ServerScript = Callable[[str], None]


def make_answer(kind: SampleKind, verdict: Verdict, *, error: float = 1e-6) -> demo.Answer:
    prediction = make_prediction(verdict=verdict)
    heatmap = Heatmap(
        class_name="cat", values=np.zeros((4, 4)), log_posterior=0.0, completeness_error=error
    )
    return demo.Answer(
        sample=Sample(name=f"{kind}.png", kind=kind, shows="something", data=b""),
        prediction=prediction,
        explanation=Explanation(
            prediction=prediction, heatmaps=(heatmap,), image=np.zeros((32, 32, 3), np.uint8)
        ),
    )


GOOD = [
    make_answer(SampleKind.THUMBNAIL, Verdict.NOT_FLAGGED),
    make_answer(SampleKind.THUMBNAIL, Verdict.AMBIGUOUS),
    make_answer(SampleKind.PHOTOGRAPH, Verdict.NOT_FLAGGED),
    make_answer(SampleKind.DIGIT, Verdict.UNKNOWN),
    make_answer(SampleKind.NOISE, Verdict.UNKNOWN),
]


@pytest.fixture
def server_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerScript:
    """Takes Python code to run in place of the server."""

    def use(code: str) -> None:
        script = tmp_path / "ibinn-serve"
        script.write_text(f"#!{sys.executable}\n{code}\n")
        script.chmod(0o755)
        monkeypatch.setattr(demo, "_server_command", lambda: str(script))

    return use


def test_a_good_run_is_summed_up_in_its_last_line() -> None:
    assert demo.shortcomings(GOOD) == []
    assert demo.last_line(GOOD) == "demo: ok, 5 images, 2 unknown, model a1b2c3d4e5f6"


@pytest.mark.parametrize("position", [3, 4])
def test_a_digit_or_noise_that_is_not_unknown_fails_the_demo(position: int) -> None:
    kind = GOOD[position].sample.kind
    answers = [*GOOD[:position], make_answer(kind, Verdict.AMBIGUOUS), *GOOD[position + 1 :]]
    assert demo.shortcomings(answers) == [
        f"{kind}.png (something) came out AMBIGUOUS, expected UNKNOWN"
    ]


def test_a_demo_without_an_ambiguous_thumbnail_fails() -> None:
    photograph = make_answer(SampleKind.PHOTOGRAPH, Verdict.AMBIGUOUS)
    answers = [GOOD[0], photograph, *GOOD[3:]]
    assert demo.shortcomings(answers) == ["no thumbnail came out AMBIGUOUS, expected at least one"]


@pytest.mark.parametrize("error", [2e-3, float("nan")])
def test_a_heatmap_that_does_not_add_up_fails_the_demo(error: float) -> None:
    answers = [make_answer(SampleKind.THUMBNAIL, Verdict.AMBIGUOUS, error=error), *GOOD]
    assert "misses its log-posterior" in demo.shortcomings(answers)[0]


def test_the_servers_address_is_read_from_its_ready_line(server_script: ServerScript) -> None:
    server_script(
        "import signal\n"
        "print('loading', flush=True)\n"
        "print('ready grpc=127.0.0.1:40123 metrics=127.0.0.1:9 model=small', flush=True)\n"
        "signal.pause()"
    )
    with demo.running_server(ready_within_s=30.0) as target:
        assert target == "127.0.0.1:40123"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "print('no bundle there'); raise SystemExit(2)",
            "ended before it was ready; .* no bundle",
        ),
        ("import signal; signal.pause()", "was not ready within 0.5 s; it said: nothing"),
    ],
)
def test_a_server_that_does_not_get_ready_is_reported_with_its_words(
    server_script: ServerScript, code: str, message: str
) -> None:
    server_script(code)
    with (
        pytest.raises(UnavailableError, match=message),
        demo.running_server(ready_within_s=0.5 if "pause" in code else 30.0),
    ):
        pytest.fail("there is no server")


def test_importing_the_demo_imports_no_torch() -> None:
    code = "import sys, ibinn.demo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_sheet_is_written_as_a_png(tmp_path: Path) -> None:
    answer = GOOD[0]
    sample = dataclasses.replace(answer.sample, data=noise().data)
    path = tmp_path / "out" / "demo.png"
    demo.write_sheet([dataclasses.replace(answer, sample=sample)], path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_failing_demo_says_so_in_its_last_line_and_code(
    server_script: ServerScript, capsys: pytest.CaptureFixture[str]
) -> None:
    server_script("raise SystemExit('no model here')")
    assert demo.main() == 1
    assert capsys.readouterr().out.splitlines()[-1] == (
        "demo: failed: ibinn-serve ended before it was ready; it said: no model here"
    )
