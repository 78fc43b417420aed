"""Figures, tables and statistics of `make bench`, on made-up timings."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
from rich.console import Console

from tests.benchmarks import bench
from tests.benchmarks.imagenet.blocks import Spread, alternate, lower_rank
from tests.benchmarks.imagenet.figures import BARS, Figure, Figures

MADE_UP = (
    Figure(name="machine.cpu", value="a processor", how="as the kernel names it"),
    Figure(name="cpu.b1.ratio_to_resnet50", value=1.84, low=1.8, high=1.9, how="10 rounds | best"),
    Figure(name="cpu.b8.ratio_to_resnet50", value=2.5, low=2.4, high=2.6, how="10 rounds"),
    Figure(name="served.ib_inn_50.images_per_s", value=12.3456, unit="images/s", how="20 s"),
)


@pytest.fixture
def figures() -> Figures:
    found = Figures()
    found.add(*MADE_UP)
    return found


class Clock:
    """Stands still until something takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: Callable[[], float]) -> Callable[[], None]:
        def step() -> None:
            self.now += seconds()

        return step


def test_json_is_flat_names_with_value_unit_interval_and_how(figures: Figures) -> None:
    content = json.loads(figures.to_json())
    assert list(content) == [figure.name for figure in MADE_UP]
    assert all(set(entry) == {"value", "unit", "low", "high", "how"} for entry in content.values())
    assert content["cpu.b1.ratio_to_resnet50"]["low"] == 1.8
    assert list(Figures.from_json(figures.to_json())) == list(MADE_UP)


def test_a_figure_outside_of_its_bar_is_told_by_name(figures: Figures) -> None:
    assert figures.missed() == ["cpu.b8.ratio_to_resnet50 is 2.50, accepted is ≤ 2"]


def test_the_table_shows_every_figure_with_its_interval_and_bar(figures: Figures) -> None:
    shown = io.StringIO()
    Console(width=200, file=shown).print(figures.table(how=True))
    lines = shown.getvalue().splitlines()
    (line,) = (line for line in lines if line.startswith("cpu.b8.ratio"))
    assert line.split()[:5] == ["cpu.b8.ratio_to_resnet50", "2.50", "2.40", "to", "2.60"]
    assert "MISSED" in line
    assert any("12.3" in line and "images/s" in line for line in lines)


def test_markdown_has_one_row_per_chosen_figure_and_no_stray_bars(figures: Figures) -> None:
    rows = figures.markdown(chosen=lambda figure: figure.name.startswith("cpu.")).splitlines()
    assert len(rows) == 2 + 2
    assert rows[2].startswith("| `cpu.b1.ratio_to_resnet50` | 1.84 | 1.80 to 1.90 | ≤ 2 |")
    assert rows[2].replace("\\|", "").count("|") == rows[0].count("|")


def test_a_name_is_measured_once(figures: Figures) -> None:
    with pytest.raises(ValueError, match="measured twice"):
        figures.add(MADE_UP[0])


def test_a_figure_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Figure(name="cpu.b1.ratio_to_resnet50", value=float("nan"), how="a fault")


def test_bars_have_exactly_one_end() -> None:
    assert all((bar.most is None) is not (bar.least is None) for bar in BARS.values())


@pytest.mark.parametrize(
    ("count", "rank"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (20, 5), (3000, 1445)]
)
def test_the_interval_of_a_median_has_the_ranks_of_the_binomial_law(count: int, rank: int) -> None:
    assert lower_rank(count) == rank
    values = [float(value) for value in range(count)]
    assert Spread.of(values[::-1]) == Spread(
        median=(count - 1) / 2, low=values[rank], high=values[-1 - rank], count=count
    )


def test_alternating_steps_share_their_rounds_so_that_a_busy_machine_cancels() -> None:
    clock = Clock()
    busy = 1.0

    def slow() -> float:
        nonlocal busy
        busy *= 1.1
        return 0.2 * busy

    steps = {"slow": clock.taking(slow), "quick": clock.taking(lambda: 0.1 * busy)}
    blocks = alternate(steps, seconds=10.0, block_s=0.25, clock=clock)
    assert blocks.rounds >= 3
    assert blocks.fastest(list(steps)) == "quick"
    spread, ratio = blocks.spread("slow"), blocks.ratio("slow", to="quick")
    assert spread.high / spread.low > 1.5
    assert ratio.median == pytest.approx(2.0, rel=0.15)
    assert all(count >= blocks.rounds for count in blocks.calls.values())


def test_alternating_ends_with_its_time_but_makes_three_rounds() -> None:
    clock = Clock()
    steps = {"one": clock.taking(lambda: 1.0)}
    assert alternate(steps, seconds=0.0, clock=clock).rounds == 3
    assert alternate(steps, seconds=20.0, clock=clock).rounds == 10
    assert alternate(steps, seconds=1e6, rounds=12, clock=clock).rounds == 12


def test_a_section_that_fails_leaves_the_others_and_late_ones_do_not_begin(tmp_path) -> None:
    def good(work: bench.Work) -> list[Figure]:
        work.told("at work")
        return list(MADE_UP)

    def bad(work: bench.Work) -> list[Figure]:
        raise RuntimeError("no such thing")

    found = Figures()
    shown = io.StringIO()
    console = Console(width=200, file=shown)
    work = bench.Work(seconds=1.0, quick=True, compiled="none", folder=tmp_path)
    assert bench._run((bad, good), work, found, console, limit_s=60.0) == (["bad"], [])
    assert list(found) == list(MADE_UP)
    assert "no such thing" in shown.getvalue()
    assert bench._run((good,), work, found, console, limit_s=-1.0) == ([], ["good"])


def test_an_earlier_run_is_shown_as_markdown(
    tmp_path, capsys: pytest.CaptureFixture[str], figures: Figures
) -> None:
    file = tmp_path / "benchmarks.json"
    file.write_text(figures.to_json(), encoding="utf-8")
    assert bench.main(["--show", str(file), "--markdown"]) == 0
    shown = capsys.readouterr().out
    assert "| `served.ib_inn_50.images_per_s` | 12.3 images/s |" in shown
    assert "MISSED  cpu.b8.ratio_to_resnet50" in shown
