"""A model's report read from flat figures: nothing is lost, nothing is made up."""

from __future__ import annotations

from ibinn.model_report import model_report, other_figures
from ibinn.types import Measured, SetMethod

FIGURES = {
    "accuracy": 0.81,
    "accuracy_low": 0.8,
    "accuracy_high": 0.82,
    "accuracy_count": 10_000.0,
    "top_label_ece": 0.014,
    "top_label_ece_floor": 0.012,
    "oce": 0.0,
    "oce_count": 784.0,
    "plain_coverage@0.95": 0.95,
    "plain_coverage_not_flagged@0.95": 0.949,
    "plain_set_size@0.95": 1.85,
    "raps_coverage@0.9": 0.9,
    "selective_risk@0.8": 0.05,
    "selective_risk@0.8_low": 0.04,
    "selective_risk@0.8_high": 0.06,
    "augrc": 0.07,
    "augrc/resnet": 0.09,
    "augrc-resnet": -0.02,
    "augrc-resnet_low": -0.03,
    "augrc-resnet_high": -0.01,
    "selective_risk@0.8/posterior": 0.06,
    "selective_risk@0.8-posterior": -0.01,
    "accuracy:cat": 0.6,
    "accuracy:cat_count": 1000.0,
    "false_flag_rate@0.01:ship": 0.03,
}


def test_every_kind_of_figure_is_read() -> None:
    report = model_report(FIGURES)
    assert report is not None
    assert report.accuracy == Measured(value=0.81, low=0.8, high=0.82, count=10_000)
    assert report.top_label_ece == Measured(value=0.014, floor=0.012)
    assert report.raw_top_label_ece is None
    assert report.overconfidence == Measured(value=0.0, count=784)
    plain, raps = report.coverages
    assert (plain.method, plain.target, plain.mean_size) == (SetMethod.PLAIN, 0.95, 1.85)
    assert plain.not_flagged == Measured(value=0.949)
    assert (raps.method, raps.target, raps.not_flagged) == (SetMethod.RAPS, 0.9, None)
    (risk,) = report.selective_risks
    assert (risk.coverage, risk.risk) == (0.8, Measured(value=0.05, low=0.04, high=0.06))
    assert report.augrc == Measured(value=0.07)
    resnet, posterior = report.comparisons
    assert (resnet.comparator, resnet.figure, resnet.theirs) == ("resnet", "augrc", 0.09)
    assert resnet.difference == Measured(value=-0.02, low=-0.03, high=-0.01)
    assert (posterior.figure, posterior.comparator) == ("selective_risk@0.8", "posterior")
    cat, ship = report.worst_groups
    assert (cat.figure, cat.group, cat.value.count) == ("accuracy", "cat", 1000)
    assert (ship.figure, ship.group) == ("false_flag_rate@0.01", "ship")


def test_every_figure_is_either_typed_or_told_as_it_is() -> None:
    strange = {"bits_per_dim": 3.8, "false_flag_rate@0.01": 0.015, "augrc/alone": 0.1, "x_low": 1.0}
    assert other_figures({**FIGURES, **strange}) == strange
    assert other_figures(FIGURES) == {}


def test_figures_outside_of_the_grammar_make_no_report() -> None:
    assert model_report({}) is None
    assert model_report({"bits_per_dim": 3.8}) is None


def test_a_comparator_without_a_difference_is_not_compared() -> None:
    assert model_report({"augrc/resnet": 0.09}) is None


def test_top1_stands_for_accuracy_unless_that_is_given() -> None:
    for figures, value in (({"top1": 0.8}, 0.8), ({"top1": 0.8, "accuracy": 0.81}, 0.81)):
        report = model_report(figures)
        assert report is not None
        assert report.accuracy == Measured(value=value)
