"""The command `ibinn`, with a stub in place of the classifier and of the client."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from ibinn import __version__, cli, sources
from ibinn.client import Retry
from ibinn.errors import (
    BundleNotFoundError,
    ImageDecodeError,
    ImageError,
    InvalidImageError,
    OverloadedError,
    PolicyFormatError,
    RemoteError,
    UnavailableError,
    UnknownClassError,
)
from ibinn.json_lines import json_line
from ibinn.rendering import (
    VERDICT_STYLES,
    bar,
    model_block,
    prediction_block,
    predictions_table,
    printable,
)
from ibinn.samples import noise
from ibinn.types import (
    Action,
    ConformalSet,
    Decision,
    Explanation,
    Heatmap,
    ModelInfo,
    Prediction,
    Receipt,
    ServerTiming,
    SetMethod,
    Verdict,
)
from tests.ibinn.answers import CLASSES, make_info, make_prediction
from tests.service.stub import POLICY, REPORT


class StubClassifier:
    """Answers from the first byte of a file: U unknown, A ambiguous, B broken."""

    def __init__(self) -> None:
        self.verdicts = {b"U": Verdict.UNKNOWN, b"A": Verdict.AMBIGUOUS}
        self.info = make_info()
        self.batches: list[int] = []

    def prepare(self, image: Path) -> bytes:
        first = image.read_bytes()[:1]
        if first == b"B":
            raise ImageDecodeError("12 bytes are not an image, expected JPEG or PNG")
        return first

    def assess(self, prepared: Sequence[bytes]) -> list[Prediction]:
        self.batches.append(len(prepared))
        return [
            make_prediction(verdict=self.verdicts.get(first, Verdict.NOT_FLAGGED))
            for first in prepared
        ]

    def explain(self, image: Path, classes: Sequence[str] | None = None) -> Explanation:
        prediction = self.assess([self.prepare(image)])[0]
        names = CLASSES[:3] if classes is None else tuple(classes)
        unknown = sorted(set(names) - set(CLASSES))
        if unknown:
            raise UnknownClassError(f"class {unknown[0]!r} is unknown, expected one of {CLASSES}")
        values = np.full((4, 4), -0.03)
        return Explanation(
            prediction=prediction,
            heatmaps=tuple(
                Heatmap(
                    class_name=name, values=values, log_posterior=-0.48, completeness_error=1e-7
                )
                for name in names
            ),
            image=np.zeros((32, 32, 3), dtype=np.uint8),
        )


class DecidingStub(StubClassifier):
    """`StubClassifier` under a policy: accepts what is not flagged."""

    def assess(self, prepared: Sequence[bytes]) -> list[Prediction]:
        return [
            dataclasses.replace(answer, decision=decision_for(answer))
            for answer in super().assess(prepared)
        ]


def decision_for(answer: Prediction) -> Decision:
    accepted = answer.verdict is Verdict.NOT_FLAGGED
    return Decision(
        action=Action.ACCEPT if accepted else Action.DEFER,
        class_name="dog" if accepted else None,
        rule="accepted" if accepted else "unknown",
        reason="Acting on dog is cheap." if accepted else "A person decides.",
        expected_cost=0.125,
    )


class StubClient:
    """`StubClassifier` behind the client's methods; the address decides what goes wrong."""

    def __init__(self, target: str, **options: Any) -> None:
        self.target = target

    def __enter__(self) -> StubClient:
        if self.target == "nowhere:1":
            raise UnavailableError("no server answers at nowhere:1", code="UNAVAILABLE")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def classify(self, image: Path) -> Prediction:
        try:
            first = image.read_bytes()[:1]
        except FileNotFoundError as error:
            raise ImageError(f"cannot read image {image}") from error
        if first == b"B":
            raise InvalidImageError("not an image", code="INVALID_ARGUMENT")
        if first == b"O":
            raise OverloadedError("the queue is full", code="RESOURCE_EXHAUSTED")
        if first == b"U" and self.target == "dies:1":
            raise UnavailableError("the server is draining", code="UNAVAILABLE")
        return make_prediction()

    def classify_many(
        self, images: Sequence[Path]
    ) -> Iterator[Prediction | RemoteError | ImageError]:
        for image in images:
            try:
                yield self.classify(image)
            except UnavailableError:
                raise  # of the connection, not of an image
            except (RemoteError, ImageError) as error:
                yield error

    def explain(self, image: Path, **options: Any) -> Explanation:
        return StubClassifier().explain(image, list(CLASSES) if options["contrast"] else None)

    def model(self) -> ModelInfo:
        return make_info()


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> StubClassifier:
    stub = StubClassifier()

    def load(path: Path | None, alpha: float | None) -> StubClassifier:
        if path is not None:
            raise BundleNotFoundError(f"there is no bundle at {path}")
        return stub

    def load_under_policy(path: Path | None, policy: Path) -> DecidingStub:
        if policy.suffix != ".json":
            raise PolicyFormatError(f"policy {policy} cannot be read")
        return DecidingStub()

    monkeypatch.setattr(sources, "load_classifier", load)
    monkeypatch.setattr(sources, "load_under_policy", load_under_policy)
    return stub


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, "ibinn.client", SimpleNamespace(Client=StubClient, Retry=Retry)
    )  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("good.jpg", "Unknown.png", "Ambiguous.png", "Broken.jpg", "Overload.jpg"):
        (tmp_path / name).write_text(name)
    return tmp_path


def ibinn(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def colours(renderable: Any, **environment: str) -> str:
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=100,
        _environ={"TERM": "xterm", **environment},
    )
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("verdict", Verdict)
def test_an_answer_shows_class_verdict_reason_and_figures(verdict: Verdict) -> None:
    prediction = make_prediction(verdict=verdict)
    shown = colours(prediction_block("cat.png", prediction), NO_COLOR="1")
    assert verdict.value.replace("_", " ") in shown
    assert prediction.reason in shown
    assert "62.0 %" in shown
    assert "4.11 bits/dim" in shown
    assert "{cat" in shown
    if prediction.combined is None:
        assert "not tested" in shown
    else:
        assert f"p = {prediction.combined.p_value:.4f}" in shown


def test_exit_code_is_0_whatever_the_verdict(classifier: StubClassifier, folder: Path) -> None:
    for name in ("good.jpg", "Unknown.png", "Ambiguous.png"):
        assert ibinn("classify", folder / name).exit_code == 0


def test_several_images_come_as_one_table_from_one_batch(
    classifier: StubClassifier, folder: Path
) -> None:
    result = ibinn("classify", folder / "good.jpg", folder / "Unknown.png")
    assert result.exit_code == 0
    assert classifier.batches == [2]
    assert "good.jpg" in result.stdout
    assert "Unknown.png" in result.stdout
    assert "2 images: 1 UNKNOWN, 1 NOT FLAGGED; model a1b2c3d4e5f6" in result.stdout


def test_a_failed_image_gives_code_1_and_the_others_are_answered(
    classifier: StubClassifier, folder: Path
) -> None:
    result = ibinn("classify", folder / "Broken.jpg", folder / "good.jpg", "--json")
    assert result.exit_code == 1
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [
        str(folder / "good.jpg")
    ]
    assert result.stderr.count("\n") == 1
    assert "Broken.jpg: 12 bytes are not an image" in result.stderr


def test_a_wrong_bundle_gives_code_2_without_a_traceback(
    classifier: StubClassifier, folder: Path
) -> None:
    for command in (("classify", folder / "good.jpg"), ("model",)):
        result = ibinn(*command, "--bundle", folder / "none")
        assert result.exit_code == 2
        assert result.stderr.startswith("ibinn: there is no bundle at")
        assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "options",
    [
        ("--server", "host:1", "--bundle", "x"),
        ("--server", "host:1", "--alpha", "0.05"),
        ("--server", "host:1", "--policy", "policy.json"),
        ("--alpha", "0.05", "--policy", "policy.json"),
        ("--policy", "policy.txt"),
        ("--alpha", "much"),
        ("--no-such-option",),
    ],
)
def test_wrong_usage_gives_code_2(
    classifier: StubClassifier, client: None, folder: Path, options: tuple[str, ...]
) -> None:
    assert ibinn("classify", folder / "good.jpg", *options).exit_code == 2


def test_json_lines_hold_every_field_in_order(classifier: StubClassifier, folder: Path) -> None:
    result = ibinn("classify", folder / "good.jpg", folder / "Unknown.png", "--json")
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    fields = [field.name for field in dataclasses.fields(Prediction)]
    assert [list(answer) for answer in answers] == [["image", *fields]] * 2
    assert answers[1]["verdict"] == "UNKNOWN"
    assert answers[1]["combined"]["p_value"] == 0.0004
    assert answers[0]["classes"][0]["name"] == "cat"


def test_decisions_of_a_policy_are_shown_in_every_form(
    classifier: StubClassifier, folder: Path
) -> None:
    good, unknown, policy = folder / "good.jpg", folder / "Unknown.png", "--policy=policy.json"
    block = ibinn("classify", good, policy).stdout
    for words in ("ACCEPT dog", "Acting on dog is cheap.", "rule accepted", "0.125"):
        assert words in block
    table = ibinn("classify", good, unknown, policy).stdout
    for words in ("decision", "ACCEPT dog", "DEFER", "A person decides.", "1 ACCEPT, 1 DEFER"):
        assert words in table
    lines = ibinn("classify", good, unknown, policy, "--json").stdout.splitlines()
    assert [json.loads(line)["decision"]["action"] for line in lines] == ["ACCEPT", "DEFER"]
    assert "DEFER" not in ibinn("classify", good, unknown).stdout


def test_every_prediction_set_is_shown() -> None:
    answer = make_prediction()
    raps = ConformalSet(
        classes=("cat", "dog"), target_coverage=0.9, measured_coverage=0.91, method=SetMethod.RAPS
    )
    assert answer.conformal is not None
    answer = dataclasses.replace(answer, conformal_sets=(answer.conformal, raps))
    shown = colours(prediction_block("cat.png", answer), NO_COLOR="1")
    assert shown.count("class set") == 1
    assert "raps set" in shown
    assert "{cat, dog}" in shown
    assert json.loads(json_line(answer))["conformal_sets"][1]["method"] == "raps"


def test_model_is_shown_with_its_report_policy_and_what_it_cannot_see() -> None:
    info = dataclasses.replace(make_info(), report=REPORT, policy=POLICY, erased=("Faint noise.",))
    console = Console(file=io.StringIO(), width=200)
    console.print(model_block(info))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for words in (
        "undetectable",
        "Faint noise.",
        "policy strict",
        "at most 2.0 % of accepted answers wrong, with confidence 95 %",
        "78.0–80.0 %",
        "floor 0.012",
        "raps sets for 90 %",
        "risk at 80 % accepted",
        "against resnet",
        "lower, which is better",
        "worst accuracy",
    ):
        assert words in shown, words


def test_json_writes_numbers_that_are_not_finite_as_null() -> None:
    line = json_line(make_prediction(statistic=float("nan")))
    assert json.loads(line)["combined"]["statistic"] is None


def test_json_holds_the_receipt_of_a_server() -> None:
    receipt = Receipt(
        record_id="ab" * 16,
        received_time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        timing=ServerTiming(
            prepare_s=0.001, queue_s=0.002, compute_s=0.003, total_s=0.006, batch_size=4
        ),
    )
    line = json_line(dataclasses.replace(make_prediction(), receipt=receipt))
    assert json.loads(line)["receipt"]["received_time"] == "2026-01-02T03:04:05+00:00"


def test_a_server_is_asked_instead_of_a_bundle(client: None, folder: Path) -> None:
    result = ibinn("classify", folder / "good.jpg", "--server", "host:1", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["verdict"] == "NOT_FLAGGED"
    assert "cifar10-small" in ibinn("model", "--server", "host:1").stdout


def test_images_that_a_server_refuses_give_code_1(client: None, folder: Path) -> None:
    names = ("Broken.jpg", "Overload.jpg", "missing.jpg", "good.jpg")
    result = ibinn("classify", *(folder / name for name in names), "--server", "host:1", "--json")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    for name in names[:3]:
        assert name in result.stderr


def test_a_server_that_is_not_there_gives_code_2(client: None, folder: Path) -> None:
    result = ibinn("classify", folder / "good.jpg", "--server", "nowhere:1")
    assert (result.exit_code, result.stderr) == (2, "ibinn: no server answers at nowhere:1\n")


def test_answers_given_before_the_connection_broke_are_shown(client: None, folder: Path) -> None:
    result = ibinn("classify", folder / "good.jpg", folder / "Unknown.png", "--server", "dies:1")
    assert result.exit_code == 2
    assert "good.jpg" in result.stdout
    assert "draining" in result.stderr


def test_model_is_described_as_text_and_as_json(classifier: StubClassifier) -> None:
    shown = ibinn("model").stdout
    for words in ("2,500 images, α = 0.01", "digits", "99.6 %", "α = 0.05", "12.5 %"):
        assert words in shown
    assert json.loads(ibinn("model", "--json").stdout)["classes"] == list(CLASSES)


def test_explain_writes_a_png(classifier: StubClassifier, folder: Path) -> None:
    out = folder / "heatmaps.png"
    image = folder / "picture.png"
    image.write_bytes(noise(side=48).data)
    result = ibinn("explain", image, "--out", out, "--class", "dog")
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "of dog: adds up to log q = -0.4800 nats" in result.stdout
    assert "of cat: adds up" not in result.stdout


@pytest.mark.parametrize("server", [(), ("--server", "host:1")])
def test_explanation_comes_as_json_with_a_contrast(
    classifier: StubClassifier, client: None, folder: Path, server: tuple[str, ...]
) -> None:
    options = ("--json", "--contrast", "ship", "--size", "grid", *server)
    result = ibinn("explain", folder / "good.jpg", *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["file"] == str(folder / "good.jpg")
    assert len(found["heatmaps"][0]["values"]) == 4
    if not server:  # a real server makes the contrast; the stub of the client does not
        contrast = found["contrast"]
        assert (contrast["class_name"], contrast["versus"]) == ("ship", "cat")
        assert contrast["log_odds"] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("image", "out", "options", "code", "message"),
    [
        ("good.jpg", "heatmaps.jpg", (), 2, "ends in .png"),
        ("good.jpg", "none/heatmaps.png", (), 2, "does not exist"),
        ("good.jpg", "heatmaps.png", ("--class", "cow"), 2, "does not know class 'cow'"),
        ("good.jpg", "heatmaps.png", ("--versus", "cow"), 2, "does not know class 'cow'"),
        ("good.jpg", "heatmaps.png", ("--size", "huge"), 2, "huge"),
        ("Broken.jpg", "heatmaps.png", (), 1, "not an image"),
    ],
)
def test_explain_says_what_is_wrong(
    classifier: StubClassifier,
    folder: Path,
    image: str,
    out: str,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    result = ibinn("explain", folder / image, "--out", folder / out, *options)
    assert result.exit_code == code
    assert message in result.stderr
    assert not (folder / out).exists()


def test_verify_names_what_is_wrong_with_a_bundle(folder: Path) -> None:
    result = ibinn("verify", folder / "none")
    assert result.exit_code == 2
    assert result.stderr.startswith("ibinn: ")
    assert "none" in result.stderr
    (folder / "manifest.json").write_text("{")
    assert ibinn("verify", folder).exit_code == 2


def test_version_is_printed() -> None:
    assert ibinn("--version").stdout == f"ibinn {__version__}\n"


def test_verdicts_are_coloured_on_a_terminal_only_and_not_with_no_color() -> None:
    block = prediction_block("cat.png", make_prediction(verdict=Verdict.UNKNOWN))
    assert "\x1b[1;31mUNKNOWN" in colours(block)
    assert "31m" not in colours(block, NO_COLOR="1")
    assert set(VERDICT_STYLES) == set(Verdict)


def test_output_into_a_pipe_holds_no_escape_sequences(
    classifier: StubClassifier, folder: Path
) -> None:
    assert "\x1b" not in ibinn("classify", folder / "good.jpg").output


def test_answers_cannot_steer_the_terminal_or_its_markup() -> None:
    hostile = make_prediction(verdict=Verdict.UNKNOWN, reason="\x1b[2J[red]gone[/red] :cat:")
    for block in (
        prediction_block("[bold]x.png", hostile),
        predictions_table([("[bold]x.png", hostile)] * 2),
    ):
        shown = colours(block, NO_COLOR="1")
        assert "\x1b[2J" not in shown
        assert "[red]gone[/red] :cat:" in shown
        assert "[bold]x.png" in shown
    assert printable("a\nb") == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("share", "cells"), [(0.0, ""), (1.0, "████"), (0.5, "██"), (0.03125, "▏"), (7.0, "████")]
)
def test_bar_is_exact_to_an_eighth_of_a_cell(share: float, cells: str) -> None:
    assert bar(share, 4).plain == cells.ljust(4)


def test_help_and_server_mode_import_no_torch() -> None:
    code = """if True:
        import sys
        from ibinn import cli
        import ibinn.client

        for arguments in (["--help"], ["--version"], ["classify", "--help"]):
            sys.argv = ["ibinn", *arguments]
            try:
                cli.main()
            except SystemExit as end:
                assert end.code == 0
        assert not {"torch", "pyarrow"} & set(sys.modules)
    """
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "BUNDLE" in result.stdout
    assert "IMAGE..." in result.stdout
