"""One law for every chapter of a trust report: it measures, draws, renders, and is plain data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from importlib import import_module, resources

import numpy as np
import pytest
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from ibinn.errors import ConfigError
from tests.training.tiny_material import material
from training.chapters.base import NotMeasured
from training.chapters.combination import measure as compare
from training.chapters.registry import TITLES, Chapter, chosen, fragment, headline
from training.evaluation import _plain
from training.report import filters


def environment() -> Environment:
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(filters())
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", TITLES)
def test_a_chapter_keeps_the_contract(name: str) -> None:
    module = import_module(f"training.chapters.{name}")
    result = module.measure(material())
    if not isinstance(result, NotMeasured):
        assert dataclasses.is_dataclass(result)
        assert all(isinstance(figure, Figure) for figure in module.figures(result).values())
    chapter = Chapter(name=name, result=result)
    html = fragment(chapter, environment())
    assert html.lstrip().startswith("<h2")
    assert "<script" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
    plain = json.loads(json.dumps(_plain(result), allow_nan=False))
    assert plain
    assert all(isinstance(value, float | int) for value in headline([chapter]).values())


@pytest.mark.parametrize("name", TITLES)
def test_a_chapter_has_its_template(name: str) -> None:
    folder = resources.files("training.chapters")
    assert folder.joinpath(f"{name}.html.j2").read_text("utf-8").lstrip().startswith(("<h2", "{"))


def test_a_chapter_without_its_ingredients_says_so_on_the_page() -> None:
    bare = replace(material(), validation=None)
    result = compare(bare)
    assert isinstance(result, NotMeasured)
    html = fragment(Chapter(name="combination", result=result), environment())
    assert result.reason in html
    assert TITLES["combination"] in html


def test_combinations_are_compared_on_the_sets_that_chose_and_on_the_reported() -> None:
    result = compare(material())
    assert not isinstance(result, NotMeasured)
    shipped = result.alternatives[0]
    assert shipped.name == result.shipped
    assert {name for name, _ in shipped.reported} == set(material().set_scores)
    assert shipped.development_mean == pytest.approx(np.mean([a for _, a in shipped.development]))
    assert not {name for name, _ in shipped.development} & {
        s.name for s in material().sets.sets if s.barred and not s.name.startswith("dev-")
    }
    expected = next(d for d in result.alternatives if d.name == "min-p")
    assert expected.development != shipped.development


def test_chapters_are_chosen_by_name_in_the_order_of_the_report() -> None:
    assert chosen("all") == tuple(TITLES)
    assert chosen("policy, headline") == ("headline", "policy")
    with pytest.raises(ConfigError, match="'weather'; there are: headline"):
        chosen("weather")
