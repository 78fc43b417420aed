"""What the policy makes of answers."""

from __future__ import annotations

from deployment.monitoring.panels import OF_WINDOW, Dashboard, Panel, Query, Row, recorded

DECISIONS = Dashboard(
    name="decisions",
    title="ibinn: decisions",
    description="What the policy makes of answers, and by which rule.",
    rows=(
        Row(
            title="Shares",
            panels=(
                Panel(
                    title="Actions",
                    description="Shares of all decisions. REJECT_INPUT asks for another picture, "
                    "DEFER leaves it to a person.",
                    unit="percentunit",
                    most=1,
                    queries=(
                        Query(
                            expr=f"sum by (action) (action_rule:ibinn_decision_share{OF_WINDOW})",
                            legend="{{action}}",
                        ),
                    ),
                ),
                Panel(
                    title="Rules",
                    description="Shares of all decisions by the rule that fired.",
                    unit="percentunit",
                    queries=(
                        recorded(
                            "action_rule:ibinn_decision_share", "{{action}}: {{rule}}", of=OF_WINDOW
                        ),
                    ),
                ),
                Panel(
                    title="Decisions per second",
                    description="Over 5 minutes.",
                    unit="cps",
                    queries=(
                        Query(
                            expr="sum by (action) (rate(ibinn_decisions_total[5m]))",
                            legend="{{action}}",
                        ),
                    ),
                ),
                Panel(
                    title="Answers by class",
                    description="Shares of assessed answers by their top class: compare with the "
                    "class priors of the policy.",
                    unit="percentunit",
                    queries=(recorded("class:ibinn_class_share", "{{class}}", of=OF_WINDOW),),
                ),
            ),
        ),
        Row(
            title="Stop button",
            panels=(
                Panel(
                    title="Servers that leave everything to people",
                    description="Number of servers in mode ABSTAIN_ALL: all their decisions are "
                    "DEFER.",
                    unit="short",
                    queries=(Query(expr="sum(ibinn_abstaining)", legend="servers"),),
                ),
                Panel(
                    title="Kept images by reason",
                    description="Per second, over 5 minutes; images that were kept for review.",
                    unit="cps",
                    queries=(
                        Query(
                            expr="sum by (reason) (rate(ibinn_images_kept_total[5m]))",
                            legend="{{reason}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
