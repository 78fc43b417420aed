"""The recording rules: which figures are made of which counters, over which windows.

Every figure is made of sums over all servers (and, per model, over bins), never of other figures'
means. The label ``window`` tells over how long; ``all`` means raw counters: since the present
servers started, exact as long as none of them was started again.

Names: ``LEVEL:NAME`` with the labels that are left as LEVEL, ``ibinn:`` where none is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WINDOWS = ("5m", "1h", "6h", "1d", "7d")
"""Of `increase`; long ones are computed less often (`_INTERVALS`)."""
ALL = "all"
"""The window of raw counters."""

_INTERVALS = {"6h": "1m", "1d": "1m", "7d": "2m"}
# z of a two-sided 95 % interval, and what Wilson's formula makes of it.
_Z, _Z2, _HALF_Z2, _QUARTER_Z2 = "1.959964", "3.841459", "1.920729", "0.960365"
# |Z| of a standard normal Z: the square of its mean, and its variance.
_MEAN_SQUARED, _VARIANCE = "0.636620", "0.363380"
_Z_999 = "3.090232"
_KS_999 = "1.949"
_OVERCONFIDENT = "0.003"

_HEADER = """\
# Made by `python -m deployment.monitoring.generate`; change recording.py beside it, not this file.
#
# increase() is an estimate: it stretches what it saw between the first and the last sample of a
# window to the window's edges, each server's counters by a factor in [1, 1 + e], where
# e = 2.2 x scrape interval / time between those samples. Shares of sums of one server are not
# touched by a factor that is common to them; README.md (section "Stated error") has the bounds.
# window="all" holds raw sums, without that error.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A recorded series.

    Attributes:
        record: Its name.
        expr: How it is made; lines of PromQL.
    """

    record: str
    expr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """Sums over one window.

    Attributes:
        window: One of `WINDOWS`, or `ALL`.
    """

    window: str

    def total(self, metric: str, by: str = "") -> str:
        """Sum over all servers of what a counter counted."""
        counted = metric if self.window == ALL else f"increase({metric}[{self.window}])"
        return f"sum by ({by}) ({counted})" if by else f"sum({counted})"

    def of(self, record: str) -> str:
        """A series that is recorded for this window."""
        return f'{record}{{window="{self.window}"}}'

    def rules(self) -> Iterator[Rule]:
        """Every rule of the window, each after those that it uses."""
        yield from self._labels()
        yield from self._weighted_labels()
        yield from self._flags()
        yield from self._without_labels()
        yield from self._shares()
        yield from self._service()

    def _labels(self) -> Iterator[Rule]:
        for name in ("labelled", "correct", "confidence_sum"):
            yield Rule(
                record=f"model_bin:ibinn_{name}",
                expr=self.total(f"ibinn_{name}_total", "model, bin"),
            )
        count, correct, confidence = map(
            self.of, ("model_bin:ibinn_labelled", "model_bin:ibinn_correct",
                      "model_bin:ibinn_confidence_sum"),
        )  # fmt: skip
        yield Rule(record="model:ibinn_labels", expr=f"sum by (model) ({count})")
        yield Rule(record="model:ibinn_right", expr=f"sum by (model) ({correct})")
        labels = self.of("model:ibinn_labels")
        yield from self._calibration(
            "top_label_ece",
            correct=correct,
            confidence=confidence,
            variance=f"{confidence} * (1 - {confidence} / ({count} > 0))",
            labels=labels,
        )
        yield from self._share("model:ibinn_accuracy", self.of("model:ibinn_right"), labels)
        for name in ("labelled", "wrong"):
            yield Rule(
                record=f"model:ibinn_overconfident_{name}",
                expr=self.total(f"ibinn_overconfident_{name}_total", "model"),
            )
        yield from self._share(
            "model:ibinn_overconfidence",
            self.of("model:ibinn_overconfident_wrong"),
            self.of("model:ibinn_overconfident_labelled"),
            unit=_OVERCONFIDENT,
        )

    def _weighted_labels(self) -> Iterator[Rule]:
        names = ("labelled_weight", "correct_weight", "confidence_weight")
        for name in (*names, "labelled_weight_squared"):
            yield Rule(
                record=f"model_bin:ibinn_{name}",
                expr=self.total(f"ibinn_{name}_total", "model, bin"),
            )
        weight, correct, confidence = (self.of(f"model_bin:ibinn_{name}") for name in names)
        squared = self.of("model_bin:ibinn_labelled_weight_squared")
        yield Rule(record="model:ibinn_label_weight", expr=f"sum by (model) ({weight})")
        total = self.of("model:ibinn_label_weight")
        yield Rule(
            record="model:ibinn_effective_labels",
            expr=f"{total} ^ 2\n/ (sum by (model, window) ({squared}) > 0)",
        )
        share = f"({confidence} / ({weight} > 0))"
        yield from self._calibration(
            "weighted_top_label_ece",
            correct=correct,
            confidence=confidence,
            variance=f"{squared} * {share} * (1 - {share})",
            labels=total,
        )
        effective = self.of("model:ibinn_effective_labels")
        yield Rule(
            record="model:ibinn_effective_right",
            expr=f"{effective} * sum by (model, window) ({correct}) / ({total} > 0)",
        )
        yield from self._share(
            "model:ibinn_weighted_accuracy", self.of("model:ibinn_effective_right"), effective
        )

    def _flags(self) -> Iterator[Rule]:
        yield Rule(
            record="test:ibinn_flag_rate",
            expr=f"{self.total('ibinn_test_flags_total', 'test')}\n"
            f"/ ({self.total('ibinn_tests_total', 'test')} > 0)",
        )
        yield Rule(
            record="class:ibinn_flag_rate",
            expr=f"{self.total('ibinn_class_flags_total', 'class')}\n"
            f"/ ({self.total('ibinn_class_answers_total', 'class')} > 0)",
        )
        yield Rule(
            record="model:ibinn_assessed", expr=self.total("ibinn_combined_p_value_count", "model")
        )
        assessed = self.of("model:ibinn_assessed")
        yield Rule(
            record="model:ibinn_flagged",
            expr=f"clamp_min(\n  {assessed}\n"
            f"  - on (model) group_left () {self.total('ibinn_accepted_total', 'model')},\n  0\n)",
        )
        yield from self._share("model:ibinn_flag_rate", self.of("model:ibinn_flagged"), assessed)
        for name, metric in (
            ("sentinels", "ibinn_sentinels_total"),
            ("sentinel_flags", "ibinn_sentinel_flags_total"),
            ("sentinel_wrong", "ibinn_sentinel_wrong_total"),
        ):
            yield Rule(record=f"model:ibinn_{name}", expr=self.total(metric, "model"))
        sentinels = self.of("model:ibinn_sentinels")
        for name in ("sentinel_flag", "sentinel_error"):
            count = "sentinel_flags" if name == "sentinel_flag" else "sentinel_wrong"
            yield from self._share(
                f"model:ibinn_{name}_rate", self.of(f"model:ibinn_{count}"), sentinels
            )

    def _without_labels(self) -> Iterator[Rule]:
        counted = self.total("ibinn_expected_accepted_total", "model")
        yield Rule(record="model:ibinn_expected_images", expr=counted)
        over = f"/ on (model) group_left () ({self.of('model:ibinn_expected_images')} > 0)"
        for name, metric in (
            (
                "expected_accuracy_assuming_covariate_shift",
                "ibinn_expected_correct_assuming_covariate_shift_total",
            ),
            ("accepted_confidence", "ibinn_accepted_confidence_sum_total"),
        ):
            yield Rule(record=f"model:ibinn_{name}", expr=f"{self.total(metric, 'model')}\n{over}")
        accepted = self.total("ibinn_accepted_total", "model")
        answered = self.total("ibinn_answered_total", "model")
        yield Rule(record="model:ibinn_coverage", expr=f"{accepted}\n/ ({answered} > 0)")
        yield Rule(
            record="model_le:ibinn_p_value_share",
            expr=f"{self.total('ibinn_combined_p_value_bucket', 'model, le')}\n"
            "/ on (model) group_left ()\n"
            f"({self.total('ibinn_combined_p_value_count', 'model')} > 0)",
        )
        gaps = "\n  or ".join(
            f'abs(model_le:ibinn_p_value_share{{window="{self.window}", le="{step / 20}"}}'
            f" - {step / 20})"
            for step in range(1, 20)
        )
        yield Rule(record="model:ibinn_p_value_distance", expr=f"max by (model) (\n  {gaps}\n)")
        yield Rule(
            record="model:ibinn_p_value_distance_limit",
            expr=f"{_KS_999} * sqrt(\n"
            f"  1 / ({self.of('model:ibinn_assessed')} > 0)\n"
            "  + on (model) group_left () 1 / max by (model) (ibinn_calibration_images > 0)\n)",
        )

    def _shares(self) -> Iterator[Rule]:
        for level, metric, name in (
            ("verdict", "ibinn_verdicts_total", "verdict_share"),
            ("action_rule", "ibinn_decisions_total", "decision_share"),
            ("class", "ibinn_class_answers_total", "class_share"),
        ):
            by = level.replace("_", ", ")
            yield Rule(
                record=f"{level}:ibinn_{name}",
                expr=f"{self.total(metric, by)}\n/ on () group_left () ({self.total(metric)} > 0)",
            )
        yield Rule(
            record="outcome:ibinn_feedback", expr=self.total("ibinn_feedback_total", "outcome")
        )
        conflicting = self.total('ibinn_feedback_total{outcome="conflicting"}')
        told = self.total('ibinn_feedback_total{outcome!="repeated"}')
        yield Rule(record="ibinn:feedback_conflict_ratio", expr=f"{conflicting}\n/ ({told} > 0)")

    def _service(self) -> Iterator[Rule]:
        yield Rule(
            record="method:ibinn_requests", expr=self.total("ibinn_requests_total", "method")
        )
        requests = f"({self.total('ibinn_requests_total')} > 0)"
        for name, codes in (
            ("error_ratio", "INTERNAL|UNKNOWN|DATA_LOSS|UNIMPLEMENTED"),
            ("turned_away_ratio", "RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED"),
        ):
            failed = self.total(f'ibinn_requests_total{{code=~"{codes}"}}')
            yield Rule(
                record=f"ibinn:{name}",
                expr=f"({failed} or vector(0))\n/ {requests}",
            )
        yield Rule(
            record="reason:ibinn_rejections", expr=self.total("ibinn_rejections_total", "reason")
        )
        for level, metric, name in (
            ("method", "ibinn_request_duration_seconds", "request_duration_seconds"),
            ("lane", "ibinn_queue_wait_seconds", "queue_wait_seconds"),
        ):
            buckets = self.total(f"{metric}_bucket", f"{level}, le")
            for percent in (50, 95, 99):
                yield Rule(
                    record=f"{level}:ibinn_{name}_p{percent}",
                    expr=f"histogram_quantile(\n  {percent / 100},\n  {buckets}\n) >= 0",
                )

    def _calibration(
        self, name: str, *, correct: str, confidence: str, variance: str, labels: str
    ) -> Iterator[Rule]:
        """ECE, and what it is by chance where confidences are right.

        Of a bin with variance v the gap |correct - confidence| has then about the mean
        sqrt(2 v / π) and the variance (1 - 2 / π) v, so the ECE of a calibrated model is not 0:
        it has the mean `..._by_chance`, and is above `..._limit` once in a thousand.
        """
        record = f"model:ibinn_{name}"
        yield Rule(
            record=record,
            expr=f"sum by (model, window) (\n  abs({correct} - {confidence})\n)\n/ ({labels} > 0)",
        )
        bounded = f"clamp_min({variance}, 0)"
        yield Rule(
            record=f"{record}_by_chance",
            expr=f"sum by (model, window) (\n  sqrt({_MEAN_SQUARED} * {bounded})\n)"
            f"\n/ ({labels} > 0)",
        )
        yield Rule(
            record=f"{record}_limit",
            expr=f"{self.of(record + '_by_chance')}\n+ {_Z_999} * sqrt(\n"
            f"  {_VARIANCE} * sum by (model, window) ({bounded})\n)\n/ ({labels} > 0)",
        )

    def _share(self, record: str, part: str, whole: str, *, unit: str = "") -> Iterator[Rule]:
        """A share with its 95 % interval (Wilson), divided by a unit; nothing where there is none.

        With k of n: (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²).
        """
        per = f" / {unit}" if unit else ""
        root = (
            f"{_Z} * sqrt({part} * clamp_min({whole} - {part}, 0) / ({whole} > 0) + {_QUARTER_Z2})"
        )
        yield Rule(record=record, expr=f"{part}\n/ ({whole} > 0){per}")
        for name, sign in (("lower", "-"), ("upper", "+")):
            yield Rule(
                record=f"{record}_{name}",
                expr=f"clamp(\n  (\n    {part} + {_HALF_Z2}\n    {sign} {root}\n  )"
                f"\n  / ({whole} + {_Z2}),\n  0, 1\n){per}",
            )


def text() -> str:
    """The file of the recording rules."""
    return _HEADER + "groups:\n" + "".join(_group(Over(window=w)) for w in (ALL, *WINDOWS))


def records() -> frozenset[str]:
    """Names of the recorded series."""
    return frozenset(rule.record for rule in Over(window=ALL).rules())


def _group(over: Over) -> str:
    every = _INTERVALS.get(over.window)
    interval = f"    interval: {every}\n" if every else ""
    rules = "".join(_written(rule, over.window) for rule in over.rules())
    return f"  - name: ibinn_{over.window}\n{interval}    rules:\n{rules}"


def _written(rule: Rule, window: str) -> str:
    lines = "".join(f"          {line}\n" for line in rule.expr.splitlines())
    return (
        f"      - record: {rule.record}\n        expr: |-\n{lines}"
        f'        labels: {{window: "{window}"}}\n'
    )
