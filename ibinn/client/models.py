"""From the wire to the library's types: what a model is and is worth."""

from __future__ import annotations

from ibinn import types
from ibinn.client.names import GROUPS, KINDS, SET_METHODS, known, versions
from ibinn.v1 import model_pb2 as model


def model_info(message: model.Model) -> types.ModelInfo:
    """What the server's model is."""
    limits = message.input_limits
    return types.ModelInfo(
        name=message.name,
        classes=tuple(message.classes),
        versions=versions(message.versions),
        architecture=message.architecture,
        parameters=message.parameters,
        input_side=message.input_side,
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        max_side=limits.max_side,
        formats=tuple(limits.formats),
        calibrated=message.calibrated,
        calibration_count=message.calibration_count,
        temperature=message.temperature,
        alpha=message.alpha,
        conformal_coverage=message.conformal_coverage,
        tests=tuple(_test_info(test) for test in message.tests),
        metrics=tuple((metric.name, metric.value) for metric in message.metrics),
        intended_use=message.intended_use,
        training_data=message.training_data,
        explainable=message.explainable,
        report=_report(message.report) if message.HasField("report") else None,
        erased=tuple(message.erased),
        policy=_policy(message.policy) if message.HasField("policy") else None,
    )


def _report(message: model.ModelReport) -> types.ModelReport:
    def figure(name: str) -> types.Measured | None:
        return _measured(getattr(message, name)) if message.HasField(name) else None

    return types.ModelReport(
        accuracy=figure("accuracy"),
        top_label_ece=figure("top_label_ece"),
        raw_top_label_ece=figure("raw_top_label_ece"),
        geometric_mean=figure("geometric_mean"),
        overconfidence=figure("overconfidence"),
        coverages=tuple(_measured_coverage(found) for found in message.coverages),
        selective_risks=tuple(
            types.SelectiveRisk(coverage=found.coverage, risk=_measured(found.risk))
            for found in message.selective_risks
        ),
        augrc=figure("augrc"),
        comparisons=tuple(
            types.Comparison(
                comparator=found.comparator,
                figure=found.figure,
                theirs=found.theirs,
                difference=_measured(found.difference),
            )
            for found in message.comparisons
        ),
        worst_groups=tuple(
            types.WorstGroup(figure=found.figure, group=found.group, value=_measured(found.value))
            for found in message.worst_groups
        ),
    )


def _measured_coverage(message: model.MeasuredCoverage) -> types.MeasuredCoverage:
    return types.MeasuredCoverage(
        method=known(SET_METHODS, message.method, "set method"),
        target=message.target,
        coverage=_measured(message.coverage),
        not_flagged=_measured(message.not_flagged) if message.HasField("not_flagged") else None,
        mean_size=message.mean_size if message.HasField("mean_size") else None,
    )


def _measured(message: model.Measured) -> types.Measured:
    return types.Measured(
        value=message.value,
        low=message.low if message.HasField("low") else None,
        high=message.high if message.HasField("high") else None,
        count=message.count if message.HasField("count") else None,
        floor=message.floor if message.HasField("floor") else None,
    )


def _policy(message: model.PolicyInfo) -> types.PolicyInfo:
    return types.PolicyInfo(
        name=message.name,
        digest=message.digest,
        alpha=message.alpha,
        max_risk=message.max_risk if message.HasField("max_risk") else None,
        delta=message.delta if message.HasField("delta") else None,
        threshold=message.threshold if message.HasField("threshold") else None,
        costs=tuple(message.costs),
        priors=tuple((entry.class_name, entry.prior) for entry in message.priors),
    )


def _test_info(message: model.TestInfo) -> types.TestInfo:
    return types.TestInfo(
        name=message.name,
        group=known(GROUPS, message.group, "test group"),
        kind=known(KINDS, message.kind, "test kind"),
        alpha=message.alpha,
        smallest_p=message.smallest_p,
        miss_rates=tuple(
            (rate.set_name, rate.alpha, rate.miss_rate) for rate in message.miss_rates
        ),
        auroc=tuple((item.set_name, item.auroc) for item in message.auroc),
    )
