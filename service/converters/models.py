"""From a model's description to messages."""

from __future__ import annotations

from ibinn import types
from ibinn.v1 import classification_service_pb2 as service
from ibinn.v1 import model_pb2 as model
from service.converters.names import GROUPS, KINDS, SET_METHODS, versions


def get_model_response(info: types.ModelInfo) -> service.GetModelResponse:
    """The answer to GetModel."""
    return service.GetModelResponse(model=_model(info))


def _model(info: types.ModelInfo) -> model.Model:
    return model.Model(
        name=info.name,
        classes=info.classes,
        versions=versions(info.versions),
        architecture=info.architecture,
        parameters=info.parameters,
        input_limits=model.InputLimits(
            max_bytes=info.max_bytes,
            max_pixels=info.max_pixels,
            max_side=info.max_side,
            formats=info.formats,
        ),
        input_side=info.input_side,
        calibrated=info.calibrated,
        calibration_count=info.calibration_count,
        temperature=info.temperature,
        alpha=info.alpha,
        conformal_coverage=info.conformal_coverage,
        tests=[_test_info(test) for test in info.tests],
        metrics=[model.Metric(name=name, value=value) for name, value in info.metrics],
        intended_use=info.intended_use,
        training_data=info.training_data,
        explainable=info.explainable,
        report=None if info.report is None else _report(info.report),
        erased=info.erased,
        policy=None if info.policy is None else _policy(info.policy),
    )


def _report(report: types.ModelReport) -> model.ModelReport:
    return model.ModelReport(
        accuracy=_optional_measured(report.accuracy),
        top_label_ece=_optional_measured(report.top_label_ece),
        raw_top_label_ece=_optional_measured(report.raw_top_label_ece),
        geometric_mean=_optional_measured(report.geometric_mean),
        overconfidence=_optional_measured(report.overconfidence),
        coverages=[
            model.MeasuredCoverage(
                method=SET_METHODS[found.method],
                target=found.target,
                coverage=_measured(found.coverage),
                not_flagged=_optional_measured(found.not_flagged),
                mean_size=found.mean_size,
            )
            for found in report.coverages
        ],
        selective_risks=[
            model.SelectiveRisk(coverage=found.coverage, risk=_measured(found.risk))
            for found in report.selective_risks
        ],
        augrc=_optional_measured(report.augrc),
        comparisons=[
            model.Comparison(
                comparator=found.comparator,
                figure=found.figure,
                theirs=found.theirs,
                difference=_measured(found.difference),
            )
            for found in report.comparisons
        ],
        worst_groups=[
            model.WorstGroup(figure=found.figure, group=found.group, value=_measured(found.value))
            for found in report.worst_groups
        ],
    )


def _optional_measured(measured: types.Measured | None) -> model.Measured | None:
    return None if measured is None else _measured(measured)


def _measured(measured: types.Measured) -> model.Measured:
    return model.Measured(
        value=measured.value,
        low=measured.low,
        high=measured.high,
        count=measured.count,
        floor=measured.floor,
    )


def _policy(policy: types.PolicyInfo) -> model.PolicyInfo:
    return model.PolicyInfo(
        name=policy.name,
        digest=policy.digest,
        alpha=policy.alpha,
        max_risk=policy.max_risk,
        delta=policy.delta,
        threshold=policy.threshold,
        costs=policy.costs,
        priors=[model.ClassPrior(class_name=name, prior=prior) for name, prior in policy.priors],
    )


def _test_info(test: types.TestInfo) -> model.TestInfo:
    return model.TestInfo(
        name=test.name,
        group=GROUPS[test.group],
        kind=KINDS[test.kind],
        alpha=test.alpha,
        smallest_p=test.smallest_p,
        miss_rates=[
            model.MissRate(set_name=name, alpha=alpha, miss_rate=rate)
            for name, alpha, rate in test.miss_rates
        ],
        auroc=[model.Auroc(set_name=name, auroc=auroc) for name, auroc in test.auroc],
    )
