"""Which model answers, candidates and shadow."""

from __future__ import annotations

from deployment.monitoring.panels import MODEL, Dashboard, Panel, Query, Row, interval

MODELS = Dashboard(
    name="models",
    title="ibinn: model versions",
    description="Which model answers where, what became of candidates, what a shadow says.",
    by_model=True,
    rows=(
        Row(
            title="Served",
            panels=(
                Panel(
                    title="Models that answer",
                    description="Servers by the digests of weights, calibration and policy. More "
                    "than one line: the same image may be answered differently.",
                    unit="short",
                    kind="table",
                    width=24,
                    queries=(
                        Query(
                            expr="count by (model, weights, calibration, policy) "
                            "(ibinn_model_info == 1)",
                            legend="{{model}}",
                        ),
                    ),
                ),
                Panel(
                    title="Different models",
                    description="Number of combinations of weights, calibration and policy that "
                    "answer now; 1 is right but for the minutes of a change.",
                    unit="short",
                    kind="stat",
                    width=6,
                    queries=(
                        Query(
                            expr="count(count by (weights, calibration, policy) "
                            "(ibinn_model_info == 1))",
                            legend="models",
                        ),
                    ),
                ),
                Panel(
                    title="Calibration images",
                    description="Behind the p-values of the default model.",
                    unit="short",
                    kind="stat",
                    width=6,
                    queries=(
                        Query(
                            expr=f"max by (model) (ibinn_calibration_images{MODEL})",
                            legend="{{model}}",
                        ),
                    ),
                ),
                Panel(
                    title="Answers per second by model",
                    description="Over 5 minutes.",
                    unit="cps",
                    queries=(
                        Query(
                            expr=f"sum by (model) (rate(ibinn_answered_total{MODEL}[5m]))",
                            legend="{{model}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            title="Candidates and shadow",
            panels=(
                Panel(
                    title="Candidates",
                    description="Since the servers started: models that were to become the "
                    "default, by outcome and first reason.",
                    unit="short",
                    kind="bargauge",
                    queries=(
                        Query(
                            expr="sum by (outcome, reason) (ibinn_candidates_total)",
                            legend="{{outcome}} {{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Shadow: answers that differ",
                    description="Per second, over 5 minutes, beside those compared and those "
                    "skipped for want of room. Nothing without a shadow model.",
                    unit="cps",
                    queries=(
                        Query(
                            expr="sum by (kind) (rate(ibinn_shadow_differences_total[5m]))",
                            legend="{{kind}} differs",
                        ),
                        Query(
                            expr="sum(rate(ibinn_shadow_comparisons_total[5m]))", legend="compared"
                        ),
                        Query(expr="sum(rate(ibinn_shadow_skipped_total[5m]))", legend="skipped"),
                    ),
                ),
                Panel(
                    title="Shadow: difference in confidence",
                    description="Absolute, p50 and p99 over 1 hour; 0 where nothing was compared.",
                    unit="percentunit",
                    queries=tuple(
                        Query(
                            expr=f"(histogram_quantile({percent / 100}, sum by (le) (\n"
                            "  rate(ibinn_shadow_confidence_difference_bucket[1h])\n)) >= 0) "
                            "or vector(0)",
                            legend=f"p{percent}",
                        )
                        for percent in (50, 99)
                    ),
                ),
                Panel(
                    title="Accuracy by model",
                    description="Of labelled images, with 95 % intervals. Labels may come long "
                    "after a model has left.",
                    unit="percentunit",
                    queries=interval("model:ibinn_accuracy", "{{model}}"),
                ),
            ),
        ),
    ),
)
