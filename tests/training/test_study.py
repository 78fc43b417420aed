"""A study skips what is finished, goes on where it was killed, and tells what failed."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning.fabric import Fabric
from typer.testing import CliRunner

from ibinn.errors import ConfigError
from tests.training.tiny_runs import tiny_config
from training.cli import app
from training.config import ObjectiveConfig, OptimizerConfig
from training.discriminative import CHECKPOINT as SOFTMAX_CHECKPOINT
from training.loop import CHECKPOINT
from training.splits import SplitConfig
from training.study import recipes
from training.study.conduct import Conducted, conduct
from training.study.page import write_study
from training.study.plan import Block, Entry, ModelKind, Run, Study, runs_of
from training.study.recipes import ENTRIES, STUDIES
from training.study.record import FILE, RunRecord, State
from training.study.summary import NOT_COMPARABLE

SETS = ("rotation", "drawings", "noise-0.015", "other-digits")


def block(**changes: Any) -> Block:
    values: dict[str, Any] = {
        "name": "digits",
        "source": "digits",
        "words": "tiny digits",
        "config": tiny_config(
            epochs=2,
            batch_size=16,
            split=SplitConfig(validation=0.02, calibration_a=0.2, calibration_b=0.2, test=0.2),
        ),
        "resnet_width": 4,
        "train_images": 600,
        "ood": SETS,
        "columns": ("rotation", "drawings", "noise-0.015", None),
        "ood_images": 40,
    }
    return Block(**(values | changes))


def named(*names: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in ENTRIES if entry.name in names)


def micro(*entries: Entry, seeds: tuple[int, ...] = (0,), **changes: Any) -> Study:
    return Study(
        name="micro",
        summary="seconds",
        entries=entries or named("gamma-1", "class-nll-fixed", "vib"),
        blocks=(block(**changes),),
        seeds=seeds,
        floor_draws=20,
    )


class Watcher:
    """Keeps what a study reports, and can kill it."""

    def __init__(self, *, kill_after_epochs: float | None = None, of: str = "") -> None:
        self.begun: list[str] = []
        self.first: dict[str, float] = {}
        self.records: list[RunRecord] = []
        self.finished_before = 0
        self._kill, self._of = kill_after_epochs, of

    def begin(self, runs: Sequence[Run], finished: int) -> None:
        self.finished_before = finished

    def opening(self, block: Block) -> None:
        pass

    def run(self, run: Run, number: int) -> None:
        self.begun.append(run.entry.name)

    def epochs(self, run: Run, epochs: float) -> None:
        self.first.setdefault(run.entry.name, epochs)
        if self._kill is not None and run.entry.name == self._of and epochs >= self._kill:
            raise Killed

    def done(self, run: Run, record: RunRecord) -> None:
        self.records.append(record)


class Killed(BaseException):
    """Nothing of ours catches it, as nothing catches SIGKILL: only what is on disk stays."""


def go(study: Study, out: Path, watcher: Watcher | None = None, **options: Any) -> Conducted:
    return conduct(
        study,
        options.pop("data", out / "nowhere"),
        out,
        fabric=Fabric(accelerator="cpu", devices=1),
        reporter=watcher or Watcher(),
        **options,
    )


def without_times(conducted: Conducted) -> list[RunRecord]:
    return [
        dataclasses.replace(record, train_seconds=0.0, measure_seconds=0.0)
        for record in conducted.records
        if record is not None
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Conducted, Path]:
    out = tmp_path_factory.mktemp("study")
    return go(micro(), out), out


def test_every_model_is_measured_by_what_it_has(whole: tuple[Conducted, Path]) -> None:
    conducted, _ = whole
    assert conducted.complete
    ib, class_nll, vib = (r.figures for r in conducted.records if r is not None)
    assert ib is not None
    assert class_nll is not None
    assert vib is not None
    for figures in (ib, class_nll, vib):
        assert figures.test_count == 120
        assert 0.0 <= figures.error < 1.0
        # Without the folder of MNIST its digits are left out.
        assert [s.name for s in figures.sets] == ["rotation", "drawings", "noise-0.015"]
        assert all(math.isfinite(s.entropy_increase_nats) for s in figures.sets)
    assert ib.bits_per_dim is not None
    assert all(s.typicality_auroc is not None for s in (*ib.sets, *class_nll.sets))
    assert all(s.combined_auroc is not None for s in ib.sets)
    assert vib.bits_per_dim is None
    assert all(s.typicality_auroc is None and s.combined_auroc is None for s in vib.sets)


def test_a_finished_run_leaves_its_result_alone_and_is_skipped(
    whole: tuple[Conducted, Path],
) -> None:
    conducted, out = whole
    for run in conducted.runs:
        assert [path.name for path in (out / "runs" / run.path).iterdir()] == [FILE]
    watcher = Watcher()
    again = go(micro(), out, watcher)
    assert watcher.begun == []
    assert watcher.finished_before == 3
    assert again.records == conducted.records


@pytest.mark.parametrize(("victim", "left"), [("gamma-1", CHECKPOINT), ("vib", SOFTMAX_CHECKPOINT)])
def test_a_killed_study_goes_on_where_it_was_and_ends_the_same(
    whole: tuple[Conducted, Path], tmp_path: Path, victim: str, left: str
) -> None:
    with pytest.raises(Killed):
        go(micro(), tmp_path, Watcher(kill_after_epochs=1.2 if victim != "vib" else 2, of=victim))
    folder = next((tmp_path / "runs" / "digits" / victim).iterdir())
    assert (folder / left).exists()
    assert not (folder / FILE).exists()
    watcher = Watcher()
    conducted = go(micro(), tmp_path, watcher)
    assert watcher.begun[0] == victim
    if victim == "gamma-1":
        assert watcher.first[victim] > 1.0
    else:
        assert victim not in watcher.first  # both epochs were done
    assert without_times(conducted) == without_times(whole[0])


def test_a_study_out_of_time_says_how_far_each_run_got(tmp_path: Path) -> None:
    watcher = Watcher()
    conducted = go(micro(), tmp_path, watcher, stop_after_s=0.0)
    assert watcher.begun == ["gamma-1"]
    first = conducted.records[0]
    assert first is not None
    assert first.state is State.UNFINISHED
    assert 0.0 < first.epochs < 2.0
    assert conducted.records[1:] == (None, None)
    assert not conducted.complete
    write_study(conducted, tmp_path)
    page = (tmp_path / "study.html").read_text()
    assert "This study is not complete" in page
    assert f"stopped after {first.epochs:.2g} of 2 epochs" in page


def test_a_run_that_fails_is_told_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    diverging = Entry(name="wild", label="wild", objective=ObjectiveConfig(gamma=1.0))
    study = micro(
        diverging,
        *named("vib"),
        config=dataclasses.replace(
            block().config,
            optimizer=OptimizerConfig(name="sgd", learning_rate=1e30, gradient_clip=1e30),
        ),
    )
    conducted = go(study, tmp_path)
    wild, vib = conducted.records
    assert wild is not None
    assert vib is not None
    assert wild.state is State.FAILED
    assert "expected finite" in wild.reason
    assert vib.state is State.FINISHED
    assert conducted.complete
    assert (tmp_path / "runs/digits/wild/seed-0/failure.txt").read_text().startswith("Traceback")
    write_study(conducted, tmp_path)
    assert "seed 0 failed: step " in (tmp_path / "study.html").read_text()
    watcher = Watcher()
    go(study, tmp_path, watcher)
    assert watcher.begun == ["wild"], "a failed run is tried again, a finished one is not"


def test_data_that_is_not_there_fails_its_runs_alone(tmp_path: Path) -> None:
    study = dataclasses.replace(
        micro(*named("vib")),
        blocks=(block(), block(name="mnist", source="mnist")),
    )
    conducted = go(study, tmp_path)
    states = [record.state for record in conducted.records if record is not None]
    assert states == [State.FINISHED, State.FAILED]
    last = conducted.records[1]
    assert last is not None
    assert "make data" in last.reason


def test_a_run_of_other_settings_is_not_taken_up(whole: tuple[Conducted, Path]) -> None:
    conducted, _ = whole
    run = conducted.runs[0]
    others = (
        dataclasses.replace(run, seed=1),
        dataclasses.replace(run, floor_draws=21),
        dataclasses.replace(run, block=block(ood_images=41)),
        dataclasses.replace(run, entry=dataclasses.replace(run.entry, kind=ModelKind.VIB)),
    )
    assert len({run.digest, *(other.digest for other in others)}) == 5


def test_the_page_stands_alone_and_the_tables_name_what_cannot_be_compared(
    whole: tuple[Conducted, Path], tmp_path: Path
) -> None:
    conducted, _ = whole
    summary = write_study(conducted, tmp_path, facts=(("command", "<script>"),))
    page = (tmp_path / "study.html").read_text()
    assert "default-src 'none'" in page
    assert "<script>" not in page
    for foreign in ('http-equiv="refresh"', 'src="http', 'href="http'):
        assert foreign not in page
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["complete"] is True
    assert len(content["records"]) == 3
    for table in summary.tables:
        with (tmp_path / f"{table.name}.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(table.rows)
        for line in lines:
            if line["source"] == "published":
                assert NOT_COMPARABLE in line["note"]
    main = next(table for table in summary.tables if table.name == "digits-table-5.1")
    assert [row.label for row in main.rows if not row.published] == [
        "γ = 1",
        "class-NLL, means fixed",
        "VIB",
    ]
    published = next(row for row in main.rows if row.label == "VIB" and row.published)
    assert [cell.mean for cell in published.cells[:1] if cell is not None] == [6.83]


def test_all_models_of_a_seed_come_before_the_next_seed() -> None:
    runs = runs_of(STUDIES["small"])
    assert len(runs) == 10 * 2 * 3
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert len({run.digest for run in runs}) == len(runs)
    chosen = runs_of(STUDIES["small"], seeds=(4,), only=("gamma-1", "vib", "mnist"))
    assert [run.path for run in chosen] == ["mnist/gamma-1/seed-4", "mnist/vib/seed-4"]


def test_unknown_names_and_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are: small, cifar10, cifar10-two-cores"):
        recipes.study("large")
    with pytest.raises(ConfigError, match="--only is 'gamma-2'; study small has the models"):
        runs_of(STUDIES["small"], only=("gamma-2",))
    with pytest.raises(ConfigError, match="expected different whole numbers"):
        runs_of(STUDIES["small"], seeds=(1, 1))
    result = CliRunner().invoke(
        app, ["study", "small", "--data=nowhere", "--out=nowhere", "--seeds=a"]
    )
    assert result.exit_code == 2
    assert "--seeds is 'a'" in result.stderr


def test_every_entry_of_a_study_stands_beside_a_published_row_that_exists() -> None:
    from training import published

    known = {row.model for row in published.CIFAR10}
    used = {entry.published for entry in ENTRIES if entry.published}
    assert used == known


@pytest.mark.slow
def test_a_study_survives_sigkill(tmp_path: Path) -> None:
    out = tmp_path / "study"
    command = [
        sys.executable, "-c", "from training.cli import main; main()", "study", "small",
        "--data", str(tmp_path), "--out", str(out), "--seeds", "0", "--accelerator", "cpu",
        *("--only=digits", "--only=gamma-1", "--only=class-nll", "--only=resnet"),
    ]  # fmt: skip
    checkpoint = out / "runs/digits/class-nll/seed-0" / CHECKPOINT
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not checkpoint.exists() and process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "study.html").exists()
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "3 runs, 1 finished before" in ended.stderr
    assert "Collapse: class-NLL errs far more" in ended.stdout
    assert "not decidable" in ended.stdout
    content = json.loads((out / "study.json").read_text())
    assert [record["state"] for record in content["records"]] == ["finished"] * 3
