"""Flags by test and class, false flags, p-values."""

from __future__ import annotations

from deployment.monitoring.panels import (
    MODEL,
    OF_MODEL,
    OF_WINDOW,
    Dashboard,
    Panel,
    Query,
    Row,
    interval,
    recorded,
)

OOD = Dashboard(
    name="ood",
    title="ibinn: unknown images",
    description="How often images are flagged, by test and by class, and what false flags explain.",
    by_model=True,
    rows=(
        Row(
            title="Flags",
            panels=(
                Panel(
                    title="Flag rate and false-positive rate",
                    description="A live flag rate is no false-positive rate: it mixes false flags "
                    "and finds. Sentinels are known to be in scope, so their flags are false ones. "
                    "Flags beyond their interval are images of another kind.",
                    unit="percentunit",
                    width=24,
                    queries=(
                        *interval("model:ibinn_flag_rate", "{{model}} flagged"),
                        *interval("model:ibinn_sentinel_flag_rate", "{{model}} sentinels flagged"),
                        Query(
                            expr=f"max by (model) (ibinn_significance{MODEL})",
                            legend="{{model}} significance",
                        ),
                    ),
                ),
                Panel(
                    title="Flag rate by test",
                    description="Of the answers in which the test gave a p-value. The verdict uses "
                    "`combined` alone.",
                    unit="percentunit",
                    queries=(recorded("test:ibinn_flag_rate", "{{test}}", of=OF_WINDOW),),
                ),
                Panel(
                    title="Flag rate by class",
                    description="Of the answers with this top class, flagged by the combined test. "
                    "A flagged image's class is the least unlike, not what it shows.",
                    unit="percentunit",
                    queries=(recorded("class:ibinn_flag_rate", "{{class}}", of=OF_WINDOW),),
                ),
                Panel(
                    title="Verdicts",
                    description="Shares of all answers.",
                    unit="percentunit",
                    most=1,
                    queries=(recorded("verdict:ibinn_verdict_share", "{{verdict}}", of=OF_WINDOW),),
                ),
                Panel(
                    title="What was true of images, by verdict",
                    description="First statements of feedback since the servers started; of the "
                    "labelled images, not of all. `out_of_scope` and `unknown_class` that are "
                    "NOT_FLAGGED were missed.",
                    unit="short",
                    kind="bargauge",
                    queries=(
                        Query(
                            expr=f"sum by (truth, verdict) (ibinn_truths_total{MODEL}) > 0",
                            legend="{{truth}}: {{verdict}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            title="p-values",
            panels=(
                Panel(
                    title="p-values of the combined test",
                    description="Share of p-values up to each limit. As long as images are like "
                    "the calibration images, each share is its limit.",
                    unit="percentunit",
                    kind="bargauge",
                    most=1,
                    queries=(
                        Query(
                            expr=f"sort(model_le:ibinn_p_value_share{OF_MODEL})",
                            legend="{{model}} up to {{le}}",
                        ),
                    ),
                ),
                Panel(
                    title="Distance from uniform",
                    description="Largest difference between share and limit. Above its limit once "
                    "in a thousand windows by chance; the limit allows for the number of "
                    "calibration images.",
                    unit="percentunit",
                    queries=(
                        recorded("model:ibinn_p_value_distance", "{{model}}"),
                        recorded("model:ibinn_p_value_distance_limit", "{{model}} limit"),
                    ),
                ),
                Panel(
                    title="Sentinels answered wrongly",
                    description="Held-out images answered with another class than theirs.",
                    unit="percentunit",
                    queries=(*interval("model:ibinn_sentinel_error_rate", "{{model}} wrong"),),
                ),
                Panel(
                    title="Sentinels without an answer",
                    description="In 1 hour: unreadable, no room, or no time.",
                    unit="short",
                    queries=(
                        Query(
                            expr="sum(increase(ibinn_sentinel_failures_total[1h]))",
                            legend="without an answer",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
