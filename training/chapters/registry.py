"""The chapters of a trust report, in the order in which a reader meets them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from types import ModuleType
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from ibinn.errors import ConfigError
from training.chapters.base import Material, NotMeasured
from training.svg import svg

TITLES = {
    "headline": "What goes wrong among accepted images",
    "combination": "Why these views are combined",
    "uncertainty": "Prediction sets, crops and entropy",
    "groups": "The worst groups",
    "group_test": "Judging many images together",
    "policy": "A policy",
    "corruptions": "Common corruptions",
    "attacks": "Attacks",
    "membership": "Training images against others",
    "explanations": "Where images and classes lie",
    "faithfulness": "What the heatmaps are worth",
}
"""Every chapter by name; the title stands where a chapter could not be measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """A chapter that was measured, or why it was not.

    Attributes:
        name: As in `TITLES`.
        result: The chapter's own dataclass, or `NotMeasured`.
    """

    name: str
    result: Any


def chosen(names: str) -> tuple[str, ...]:
    """Chapter names from ``all``, ``none`` or a list with commas.

    Raises:
        ConfigError: There is no such chapter.

    >>> chosen("none"), chosen("policy,headline")
    ((), ('headline', 'policy'))
    """
    if names == "all":
        return tuple(TITLES)
    wanted = [] if names == "none" else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in TITLES:
            raise ConfigError(
                f"chapter is {name!r}; there are: {', '.join(TITLES)}; or give all or none"
            )
    return tuple(name for name in TITLES if name in wanted)


def measure(names: Sequence[str], material: Material) -> tuple[Chapter, ...]:
    """Measure chapters, one after the other."""
    return tuple(Chapter(name=name, result=_module(name).measure(material)) for name in names)


def fragment(chapter: Chapter, environment: Environment) -> Markup:
    """A chapter as HTML with its figures inside."""
    if isinstance(chapter.result, NotMeasured):
        return Markup("<h2>{}</h2>\n<p>Not measured: {}</p>\n").format(
            TITLES[chapter.name], chapter.result.reason
        )
    module = _module(chapter.name)
    drawn = module.figures(chapter.result)
    # matplotlib made these elements; everything else is escaped.
    inline = {
        name: Markup(svg(figure, name=f"{chapter.name}-{name}")) for name, figure in drawn.items()
    }
    text = resources.files("training.chapters").joinpath(f"{chapter.name}.html.j2")
    template = environment.from_string(text.read_text("utf-8"))
    return Markup(template.render(c=chapter.result, figures=inline))


def headline(chapters: Sequence[Chapter]) -> dict[str, float]:
    """Figures for the manifest, in the grammar of `ibinn.model_report`."""
    figures: dict[str, float] = {}
    for chapter in chapters:
        found = getattr(_module(chapter.name), "headline", None)
        if found is not None and not isinstance(chapter.result, NotMeasured):
            figures |= found(chapter.result)
    return figures


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"training.chapters.{name}")
