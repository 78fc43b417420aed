"""`ibinn classify` of folders into tables, and the options of a server; stubs in both places."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ibinn import cli, sources
from ibinn.client import ClientTls, Retry
from ibinn.errors import ConfigError, ImageDecodeError, UnavailableError
from ibinn.server_options import ServerOptions
from ibinn.tables import Format, Outcome, Row, read_table
from ibinn.types import ModelInfo, Prediction
from tests.ibinn.answers import make_info, make_prediction

FORMATS = pytest.mark.parametrize("form", Format)


class StubClassifier:
    """Refuses files that begin with B; is interrupted when it comes to one that begins with X."""

    def __init__(self) -> None:
        self.info = make_info()
        self.seen: list[str] = []
        self.interrupted = False

    def prepare(self, image: Path) -> Path:
        first = image.read_bytes()[:1]
        if first == b"B":
            raise ImageDecodeError("not an image")
        if first == b"X" and not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt
        return image

    def assess(self, prepared: Sequence[Path]) -> list[Prediction]:
        self.seen += [path.name for path in prepared]
        return [make_prediction() for _ in prepared]


class StubClient:
    """Notes how it was made; loses its connection at the file that ends in `lost`."""

    made: list[tuple[str, dict[str, Any]]]

    def __init__(self, target: str, **options: Any) -> None:
        self.made.append((target, options))

    def __enter__(self) -> StubClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def model(self) -> ModelInfo:
        return make_info()

    def classify(self, image: Path) -> Prediction:
        return make_prediction()

    def classify_many(self, images: Sequence[Path]) -> Iterator[Prediction | Exception]:
        for image in images:
            if image.read_bytes() == b"lost":
                raise UnavailableError("no answer from host:1", code="UNAVAILABLE")
            yield ImageDecodeError("unreadable") if image.name == "B.png" else make_prediction()


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> StubClassifier:
    stub = StubClassifier()
    monkeypatch.setattr(sources, "load_classifier", lambda path, alpha: stub)
    monkeypatch.setattr(sources, "_BATCH", 2)
    return stub


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """How each client was made."""
    StubClient.made = []
    module = SimpleNamespace(Client=StubClient, ClientTls=ClientTls, Retry=Retry)
    monkeypatch.setitem(sys.modules, "ibinn.client", module)  # type: ignore[arg-type]
    return StubClient.made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images in two folders, and a file that is none."""
    for name in ("images/a.png", "images/B.png", "images/below/c.jpg", "images/below/d.jpg",
                 "images/e.png", "images/notes.txt"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    return tmp_path


def ibinn(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def rows(out: Path) -> dict[str, Row]:
    return {Path(row.file).name: row for row in read_table(out, Format.of(out))}


@FORMATS
@pytest.mark.parametrize("server", [(), ("--server", "host:1")])
def test_a_folder_becomes_a_table_with_a_row_for_every_image(
    form: Format,
    server: tuple[str, ...],
    folder: Path,
    classifier: StubClassifier,
    made: list[Any],
) -> None:
    out = folder / f"results{form}"
    result = ibinn("classify", folder / "images", "--out", out, *server)
    assert result.exit_code == 1, result.output  # one image failed
    assert "5 images: 4 NOT FLAGGED, 1 failed" in result.stdout
    found = rows(out)
    assert list(found) == ["B.png", "a.png", "e.png", "c.jpg", "d.jpg"]
    assert found["B.png"].status is Outcome.FAILED
    assert found["B.png"].error in ("not an image", "unreadable")
    assert (found["a.png"].class_name, found["a.png"].probability) == ("cat", 0.62)
    assert not list(folder.glob("*.part*"))


@FORMATS
def test_an_interruption_keeps_what_was_answered_and_resume_does_the_rest(
    form: Format, folder: Path, classifier: StubClassifier
) -> None:
    (folder / "images" / "below" / "d.jpg").write_text("X")
    out = folder / f"results{form}"
    stopped = ibinn("classify", folder / "images", "--out", out)
    assert stopped.exit_code == 130
    assert f"they are kept in {out}.part" in stopped.stderr
    assert "--resume" in stopped.stderr
    assert not out.exists()
    again = ibinn("classify", folder / "images", "--out", out)
    assert (again.exit_code, "--resume" in again.stderr) == (2, True)
    before = len(classifier.seen)
    resumed = ibinn("classify", folder / "images", "--out", out, "--resume")
    assert resumed.exit_code == 1  # B.png fails again
    assert "kept from before" in resumed.stdout
    assert set(rows(out)) == {"B.png", "a.png", "e.png", "c.jpg", "d.jpg"}
    assert classifier.seen[before:] == ["d.jpg"]


def test_a_lost_connection_keeps_what_was_answered(folder: Path, made: list[Any]) -> None:
    (folder / "images" / "e.png").write_text("lost")
    out = folder / "results.jsonl"
    result = ibinn("classify", folder / "images", "--out", out, "--server", "host:1")
    assert result.exit_code == 2
    assert "no answer from host:1" in result.stderr
    assert "stopped after 2 of 5 images" in result.stderr
    assert len(list(read_table(folder / "results.jsonl.part", Format.JSON_LINES))) == 2


def test_answers_of_another_model_are_asked_again(folder: Path, classifier: StubClassifier) -> None:
    out = folder / "results.csv"
    (folder / "images" / "B.png").unlink()
    assert ibinn("classify", folder / "images", "--out", out).exit_code == 0
    again = ibinn("classify", folder / "images", "--out", out, "--resume")
    assert (again.exit_code, len(classifier.seen)) == (0, 4)
    assert "4 kept from before" in again.stdout
    lines = out.read_text().replace(classifier.info.versions.weights, "0" * 64)
    out.write_text(lines)
    ibinn("classify", folder / "images", "--out", out, "--resume")
    assert len(classifier.seen) == 8
    assert len(rows(out)) == 4


def test_without_a_table_a_folder_is_shown(folder: Path, classifier: StubClassifier) -> None:
    (folder / "images" / "B.png").unlink()
    result = ibinn("classify", folder / "images")
    assert result.exit_code == 0
    assert "4 images: 4 NOT FLAGGED" in result.stdout
    lines = ibinn("classify", folder / "images", "--json").stdout.splitlines()
    assert [Path(json.loads(line)["image"]).name for line in lines] == [
        "a.png",
        "e.png",
        "c.jpg",
        "d.jpg",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "r.txt"), "names no format"),
        (("--out", "none/r.csv"), "cannot write"),
        (("--resume",), "--resume without --out"),
        (("--out", "r.csv", "--json"), "got --out and --json"),
        (("--model", "abcdef12"), "--model without --server"),
        (("--tls-ca", "ca.pem"), "--tls-ca without --server"),
        (("--timeout", "3"), "--timeout without --server"),
        (("--server", "host:1", "--token-file", "none.txt"), "cannot read the token file"),
        (("--server", "host:1", "--tls-cert", "none.pem"), "cannot read none.pem"),
    ],
)
def test_wrong_usage_gives_code_2_and_says_so(
    options: tuple[str, ...],
    message: str,
    folder: Path,
    classifier: StubClassifier,
    made: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    result = ibinn("classify", "images", *options)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_every_option_of_a_server_reaches_its_client(
    folder: Path, made: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ca", "cert", "key"):
        (folder / name).write_text(name)
    (folder / "token").write_text("from-file\n")
    monkeypatch.setenv("IBINN_TOKEN", "from-environment")
    image = folder / "images" / "a.png"
    assert ibinn("classify", image, "--server", "host:1").exit_code == 0
    options = ("--tls-ca", "ca", "--tls-cert", "cert", "--tls-key", "key", "--tls-server-name", "n",
               "--token-file", "token", "--model", "abcdef12", "--timeout", "2.5",
               "--allow-plaintext-token")  # fmt: skip
    monkeypatch.chdir(folder)
    for command in ("classify", image), ("model",):
        assert ibinn(*command, "--server", "host:2", *options).exit_code == 0
    (_, first), (target, second), third = made
    assert (first["token"], first["tls"], first["model"]) == ("from-environment", None, "")
    assert "timeout_s" not in first
    assert third == (target, second)
    tls = second["tls"]
    assert (target, second["token"]) == ("host:2", "from-file")
    assert (tls.root_certificates, tls.certificate, tls.key) == (b"ca", b"cert", b"key")
    assert (tls.server_name, second["model"], second["timeout_s"]) == ("n", "abcdef12", 2.5)
    assert second["allow_plaintext_token"] is True


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(ConfigError, match="is empty"):
        ServerOptions(server="a:1", token_file=tmp_path / "token").client()
