"""A model's report from the flat figures of its manifest.

A manifest holds numbers by name, so that any program can read them. The names form a grammar:

    FIGURE          accuracy, top_label_ece, raw_top_label_ece, geometric_mean, oce, augrc,
                    selective_risk@SHARE, METHOD_coverage@TARGET,
                    METHOD_coverage_not_flagged@TARGET, METHOD_set_size@TARGET
    FIGURE_low, FIGURE_high, FIGURE_count, FIGURE_floor
                    interval, number of images and floor of a figure
    FIGURE/COMPARATOR
                    the comparator's figure on the same images
    FIGURE-COMPARATOR, and the same with _low, _high
                    ours minus theirs, paired
    FIGURE:GROUP, and the same with _low, _high, _count
                    the figure in the group where it is worst

METHOD is a `SetMethod`, SHARE and TARGET are numbers in (0, 1) such as 0.95; `top1` stands for
`accuracy`. Names outside of the grammar stay plain metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ibinn.types import (
    Comparison,
    Measured,
    MeasuredCoverage,
    ModelReport,
    SelectiveRisk,
    SetMethod,
    WorstGroup,
)

_FIGURES = (
    "accuracy", "top1", "top_label_ece", "raw_top_label_ece", "geometric_mean", "oce", "augrc",
)  # fmt: skip
_SUFFIXES = ("low", "high", "count", "floor")
_COVERAGE = re.compile(r"(?P<method>plain|raps)_coverage@(?P<target>0\.\d+)")
_OF_COVERAGE = re.compile(r"(plain|raps)_(coverage_not_flagged|set_size)@0\.\d+")
_RISK = re.compile(r"selective_risk@(?P<share>0\.\d+)")
_COMPARED = re.compile(r"(?P<figure>[a-z_0-9]+(?:@[0-9.]+)?)/(?P<comparator>.+)")
_WORST = re.compile(r"(?P<figure>[a-z_0-9]+(?:@[0-9.]+)?):(?P<group>.+)")


def model_report(figures: Mapping[str, float]) -> ModelReport | None:
    """The typed figures among flat ones; None where there is none.

    Args:
        figures: By name, as the grammar above says; others are left out.

    >>> report = model_report({"accuracy": 0.81, "accuracy_low": 0.8, "accuracy_high": 0.82})
    >>> report.accuracy.low
    0.8
    """
    plain = {"accuracy": figures["top1"]} if "top1" in figures else {}
    known = {**plain, **figures}
    report = ModelReport(
        accuracy=_measured(known, "accuracy"),
        top_label_ece=_measured(known, "top_label_ece"),
        raw_top_label_ece=_measured(known, "raw_top_label_ece"),
        geometric_mean=_measured(known, "geometric_mean"),
        overconfidence=_measured(known, "oce"),
        coverages=_coverages(known),
        selective_risks=tuple(
            SelectiveRisk(coverage=float(match["share"]), risk=_certain(known, name))
            for name in known
            if (match := _RISK.fullmatch(name))
        ),
        augrc=_measured(known, "augrc"),
        comparisons=tuple(
            Comparison(
                comparator=match["comparator"],
                figure=match["figure"],
                theirs=known[name],
                difference=difference,
            )
            for name in known
            if (match := _COMPARED.fullmatch(name))
            and (difference := _measured(known, name.replace("/", "-", 1)))
        ),
        worst_groups=tuple(
            WorstGroup(figure=match["figure"], group=match["group"], value=_certain(known, name))
            for name in known
            if (match := _WORST.fullmatch(name)) and not _is_part(known, name)
        ),
    )
    return None if report == ModelReport() else report


def other_figures(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures whose names are outside of the grammar, which `model_report` leaves out."""
    return {name: value for name, value in figures.items() if not _is_typed(figures, name)}


def _is_typed(figures: Mapping[str, float], name: str) -> bool:
    if _is_part(figures, name):
        return _is_typed(figures, name.rpartition("_")[0])
    if name in _FIGURES or any(
        pattern.fullmatch(name) for pattern in (_COVERAGE, _OF_COVERAGE, _RISK, _WORST)
    ):
        return True
    # Of a comparison both halves are needed: theirs and the difference.
    return bool(_COMPARED.fullmatch(name) and name.replace("/", "-", 1) in figures) or any(
        other.replace("/", "-", 1) == name and _COMPARED.fullmatch(other) for other in figures
    )


def _coverages(figures: Mapping[str, float]) -> tuple[MeasuredCoverage, ...]:
    found = []
    for name in figures:
        if match := _COVERAGE.fullmatch(name):
            method, target = match["method"], match["target"]
            found.append(
                MeasuredCoverage(
                    method=SetMethod(method),
                    target=float(target),
                    coverage=_certain(figures, name),
                    not_flagged=_measured(figures, f"{method}_coverage_not_flagged@{target}"),
                    mean_size=figures.get(f"{method}_set_size@{target}"),
                )
            )
    return tuple(found)


def _measured(figures: Mapping[str, float], name: str) -> Measured | None:
    return _certain(figures, name) if name in figures else None


def _certain(figures: Mapping[str, float], name: str) -> Measured:
    count = figures.get(f"{name}_count")
    return Measured(
        value=figures[name],
        low=figures.get(f"{name}_low"),
        high=figures.get(f"{name}_high"),
        count=None if count is None else round(count),
        floor=figures.get(f"{name}_floor"),
    )


def _is_part(figures: Mapping[str, float], name: str) -> bool:
    """Whether the name is an interval's end or a count of another figure."""
    return any(
        name.endswith(f"_{suffix}") and name.removesuffix(f"_{suffix}") in figures
        for suffix in _SUFFIXES
    )
