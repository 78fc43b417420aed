"""What a model is, and what it was measured to be worth."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ibinn.model_report import other_figures
from ibinn.rendering.words import facts, percent, printable
from ibinn.types import (
    Comparison,
    Group,
    Measured,
    ModelInfo,
    ModelReport,
    PolicyInfo,
    TestInfo,
)


def model_block(info: ModelInfo) -> RenderableType:
    """What a model is, what it accepts, and what it was measured to be worth."""
    versions = info.versions
    side = info.input_side
    accepts = (
        f"{', '.join(info.formats)}; at most {info.max_bytes / 2**20:.3g} MiB, "
        f"{info.max_pixels / 1e6:g} megapixels, {info.max_side:,} pixels per side"
    )
    rows = [
        ("classes", f"{len(info.classes)}: {', '.join(info.classes)}"),
        (
            "network",
            f"{info.architecture}, {info.parameters:,} parameters, input {side}×{side} pixels",
        ),
        ("accepts", accepts),
        ("calibration", _calibration_line(info)),
        ("tests", _tests_line(info.tests)),
        ("heatmaps", "yes" if info.explainable else "not with this network"),
        ("weights", versions.weights),
        ("calibrated", versions.calibration or "–"),
        ("policy", versions.policy or "–"),
        ("software", f"ibinn {versions.software}, class list {versions.taxonomy}"),
        ("intended use", info.intended_use),
        ("trained on", info.training_data),
        *(
            ("" if position else "undetectable", sentence)
            for position, sentence in enumerate(info.erased)
        ),
    ]
    parts: list[RenderableType] = [
        Text(printable(info.name), style="bold"),
        Padding(facts(rows), (0, 0, 1, 2), expand=False),
    ]
    if info.policy is not None:
        parts += _section(f"policy {info.policy.name}", facts(_policy_rows(info.policy)))
    measured = [] if info.report is None else _report_rows(info.report)
    others = other_figures(dict(info.metrics))
    measured += [(name, f"{value:.4g}") for name, value in others.items()]
    if measured:
        parts += _section("measured on the test images", facts(measured))
    if any(test.auroc or test.miss_rates for test in info.tests):
        parts += _section("combined test on kinds of unknown images", _worth(info.tests))
    return Lines(*parts)


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return [
        Text(printable(title), style="bold"),
        Padding(body, (0, 0, 1, 2), expand=False),
    ]


def _policy_rows(policy: PolicyInfo) -> list[tuple[str, str]]:
    rows = [("digest", policy.digest), ("significance", f"α = {policy.alpha:g}")]
    if policy.max_risk is not None and policy.delta is not None:
        rows.append(
            (
                "risk",
                f"at most {percent(policy.max_risk)} of accepted answers wrong, with confidence "
                f"{100 * (1 - policy.delta):g} %, unknown images apart",
            )
        )
    else:
        rows.append(("risk", "not certified: the policy was not fitted"))
    if policy.threshold is not None:
        rows.append(("threshold", f"probability ≥ {policy.threshold:.4f}"))
    rows += [("" if i else "costs", sentence) for i, sentence in enumerate(policy.costs)]
    if policy.priors:
        shares = ", ".join(f"{name} {share:.3g}" for name, share in policy.priors)
        rows.append(("class shares", shares))
    return rows


def _report_rows(report: ModelReport) -> list[tuple[str, str]]:
    rows = []
    if report.accuracy is not None:
        rows.append(("accuracy", _share(report.accuracy)))
    if report.top_label_ece is not None:
        before = report.raw_top_label_ece
        rows.append(
            (
                "top-label ECE",
                _number(report.top_label_ece)
                + (f"; {_number(before)} before the temperature" if before else ""),
            )
        )
    if report.geometric_mean is not None:
        rows.append(("GM of ECE, MCE, ICE", _number(report.geometric_mean)))
    if report.overconfidence is not None:
        rows.append(("overconfidence", f"{_number(report.overconfidence)}; 1 is right"))
    for sets in report.coverages:
        words = f"held the truth {_share(sets.coverage)}"
        if sets.not_flagged is not None:
            words += f"; {percent(sets.not_flagged.value)} where nothing was flagged"
        if sets.mean_size is not None:
            words += f"; {sets.mean_size:.2f} classes on average"
        rows.append((f"{sets.method.value} sets for {100 * sets.target:g} %", words))
    rows += [
        (f"risk at {100 * risk.coverage:g} % accepted", _share(risk.risk))
        for risk in report.selective_risks
    ]
    if report.augrc is not None:
        rows.append(("AUGRC", _number(report.augrc)))
    rows += [(f"against {found.comparator}", _comparison(found)) for found in report.comparisons]
    rows += [
        (f"worst {found.figure}", f"{found.group}: {_share(found.value)}")
        for found in report.worst_groups
    ]
    return rows


def _comparison(found: Comparison) -> str:
    difference = found.difference
    words = f"{found.figure}: theirs {found.theirs:.4g}, ours minus theirs {difference.value:+.4g}"
    if difference.low is None or difference.high is None:
        return words
    if difference.high < 0:
        said = "lower, which is better"
    elif difference.low > 0:
        said = "higher, which is worse"
    else:
        said = "no difference shown"
    return f"{words} ({difference.low:+.4g} to {difference.high:+.4g}): {said}"


def _share(measured: Measured) -> str:
    extra = []
    if measured.low is not None and measured.high is not None:
        extra.append(f"{100 * measured.low:.1f}–{percent(measured.high)}")
    return _with(percent(measured.value), extra, measured)


def _number(measured: Measured) -> str:
    extra = []
    if measured.low is not None and measured.high is not None:
        extra.append(f"{measured.low:.3g}–{measured.high:.3g}")
    return _with(f"{measured.value:.3g}", extra, measured)


def _with(value: str, extra: list[str], measured: Measured) -> str:
    """A value with what is known of its precision, in brackets."""
    if measured.floor is not None:
        extra.append(f"floor {measured.floor:.3g}")
    if measured.count is not None:
        extra.append(f"{measured.count:,} images")
    return f"{value} ({'; '.join(extra)})" if extra else value


def _calibration_line(info: ModelInfo) -> str:
    if not info.calibrated:
        return "none: every verdict is NOT ASSESSED"
    return (
        f"{info.calibration_count:,} images, α = {info.alpha:g}, T = {info.temperature:.3f}, "
        f"class sets for {percent(info.conformal_coverage)}"
    )


def _tests_line(tests: Sequence[TestInfo]) -> str:
    single = [test for test in tests if test.group is not Group.COMBINED]
    groups = dict.fromkeys(test.group for test in single)
    counts = (f"{sum(test.group is group for test in single)} {group.value}" for group in groups)
    return f"{len(single)} single ({', '.join(counts)}) and the combined one, which decides"


def _worth(tests: Sequence[TestInfo]) -> Table:
    """What the combined test is worth: a row per kind of image, AUROC and miss rate per α."""
    combined = [test for test in tests if test.group is Group.COMBINED]
    auroc = {name: value for test in combined for name, value in test.auroc}
    missed = {(name, alpha): rate for test in combined for name, alpha, rate in test.miss_rates}
    alphas = list(dict.fromkeys(alpha for _, alpha in missed))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("images")
    for title in ("AUROC", *(f"missed at α = {alpha:g}" for alpha in alphas)):
        table.add_column(title, justify="right", no_wrap=True)
    for name in dict.fromkeys([*auroc, *(name for name, _ in missed)]):
        rates = (missed.get((name, alpha)) for alpha in alphas)
        table.add_row(
            Text(printable(name)),
            *("–" if rate is None else percent(rate) for rate in (auroc.get(name), *rates)),
        )
    return table
