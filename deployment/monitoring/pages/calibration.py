"""Calibration drift with labels and without."""

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

_NO_LABELS = (
    "No label is used. Assumes that images changed and the meaning of an image did not (covariate "
    "shift): classes that are named differently than before do not move it."
)


CALIBRATION = Dashboard(
    name="calibration",
    title="ibinn: calibration drift",
    description="Whether confidence still means what it says, with labels and without.",
    by_model=True,
    rows=(
        Row(
            title="Guarantee",
            panels=(
                Panel(
                    title="Guarantee suspended",
                    description="1 while every answer of the model says SUSPENDED.",
                    unit="short",
                    kind="stat",
                    width=6,
                    queries=(
                        Query(
                            expr=f"max by (model) (ibinn_guarantee_suspended{MODEL})",
                            legend="{{model}}",
                        ),
                    ),
                ),
                Panel(
                    title="Labels",
                    description="First labels that name a class; and as many equally weighted ones "
                    "as the weighted ones are worth, (sum of weights)² / sum of squares.",
                    unit="short",
                    kind="stat",
                    width=6,
                    queries=(
                        recorded("model:ibinn_labels", "{{model}}"),
                        recorded("model:ibinn_effective_labels", "{{model}} effective"),
                    ),
                ),
                Panel(
                    title="Evidence against no drift, of what raises the alarm",
                    description="Of each detector, the highest of all processes. At 1 the alarm is "
                    "raised; the chance that any ever gets there without drift is the set false-"
                    "alarm rate.",
                    unit="percentunit",
                    queries=(
                        Query(
                            expr=f"max by (model, detector) (\n"
                            f"  ibinn_drift_log_evidence{MODEL} / ibinn_drift_log_threshold\n)",
                            legend="{{model}} {{detector}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            title="With labels",
            panels=(
                Panel(
                    title="Calibration error (top-label ECE)",
                    description="15 bins, of all labelled images. A calibrated model's is not 0: "
                    "`by chance` is its mean with as many labels, and above `limit` it is once in "
                    "a thousand windows.",
                    unit="percentunit",
                    queries=(
                        recorded("model:ibinn_top_label_ece", "{{model}}"),
                        recorded("model:ibinn_top_label_ece_by_chance", "{{model}} by chance"),
                        recorded("model:ibinn_top_label_ece_limit", "{{model}} limit"),
                    ),
                ),
                Panel(
                    title="Calibration error, weighted",
                    description="Each label weighted by 1 / the chance with which its image was "
                    "selected, where that is known: speaks of all images, if the chances are true.",
                    unit="percentunit",
                    queries=(
                        recorded("model:ibinn_weighted_top_label_ece", "{{model}}"),
                        recorded(
                            "model:ibinn_weighted_top_label_ece_by_chance", "{{model}} by chance"
                        ),
                        recorded("model:ibinn_weighted_top_label_ece_limit", "{{model}} limit"),
                    ),
                ),
                Panel(
                    title="Accuracy",
                    description="Of labelled images; 95 % intervals (Wilson) hold for labels "
                    "independent of each other.",
                    unit="percentunit",
                    queries=interval("model:ibinn_accuracy", "{{model}}"),
                ),
                Panel(
                    title="Accuracy, weighted",
                    description="The same with each label weighted by 1 / the chance with which "
                    "its image was selected; intervals by the effective number of labels.",
                    unit="percentunit",
                    queries=interval("model:ibinn_weighted_accuracy", "{{model}}"),
                ),
                Panel(
                    title="Overconfidence (OCE)",
                    description="Share of wrong answers among those with a confidence of 0.997 or "
                    "more, divided by 0.003; 1 is right. Nothing where there is no such answer.",
                    unit="short",
                    queries=interval("model:ibinn_overconfidence", "{{model}}"),
                ),
                Panel(
                    title="Reliability",
                    description="Of each bin of confidence (0 to 14, each 1/15 wide), the share "
                    "that is right less the mean confidence: below 0 is overconfident.",
                    unit="percentunit",
                    kind="bargauge",
                    queries=(
                        Query(
                            expr=f"(model_bin:ibinn_correct{OF_MODEL} "
                            f"- model_bin:ibinn_confidence_sum{OF_MODEL})\n"
                            f"/ (model_bin:ibinn_labelled{OF_MODEL} > 0)",
                            legend="{{model}} bin {{bin}}",
                        ),
                    ),
                ),
                Panel(
                    title="Statements",
                    description="Of feedback, by what they were beside those before them. Only "
                    "`first` is in the figures above.",
                    unit="short",
                    queries=(recorded("outcome:ibinn_feedback", "{{outcome}}", of=OF_WINDOW),),
                ),
                Panel(
                    title="Statements that contradict another source",
                    description="Share of those that were not repeated.",
                    unit="percentunit",
                    queries=(
                        recorded("ibinn:feedback_conflict_ratio", "conflicting", of=OF_WINDOW),
                    ),
                ),
            ),
        ),
        Row(
            title="Without labels",
            panels=(
                Panel(
                    title="Expected accuracy of accepted images, and their confidence",
                    description=f"{_NO_LABELS} Where the two part, confidence does not mean what "
                    "it says.",
                    unit="percentunit",
                    queries=(
                        recorded(
                            "model:ibinn_expected_accuracy_assuming_covariate_shift",
                            "{{model}} expected accuracy",
                        ),
                        recorded("model:ibinn_accepted_confidence", "{{model}} mean confidence"),
                    ),
                ),
                Panel(
                    title="Coverage",
                    description="Share of answers that the combined test accepts: what the figure "
                    "beside it speaks of.",
                    unit="percentunit",
                    most=1,
                    queries=(recorded("model:ibinn_coverage", "{{model}}"),),
                ),
                Panel(
                    title="Shift of the last images",
                    description="Class shares (prior shift) apart from how images of a class look "
                    "(covariate shift), each in [0, 1]; the worst process. Neither is 0 by chance.",
                    unit="percentunit",
                    queries=(
                        Query(
                            expr=f"max by (model) (ibinn_recent_prior_shift{MODEL})",
                            legend="{{model}} prior",
                        ),
                        Query(
                            expr=f"max by (model) (ibinn_recent_covariate_shift{MODEL})",
                            legend="{{model}} covariate",
                        ),
                    ),
                ),
                Panel(
                    title="p-values of the last images together",
                    description="Of uniformity and of typicality as a group; the smallest of the "
                    "processes. Looked at again and again: small ones come by chance too. Alarm on "
                    "the guarantee, not on these.",
                    unit="short",
                    most=1,
                    queries=(
                        Query(
                            expr=f"min by (model) (ibinn_recent_uniformity_p_value{MODEL})",
                            legend="{{model}} uniformity",
                        ),
                        Query(
                            expr=f"min by (model) (ibinn_recent_typicality_p_value{MODEL})",
                            legend="{{model}} typicality",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
