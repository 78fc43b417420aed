"""From an answer to an action: ACCEPT, DEFER or REJECT_INPUT.

The first rule that applies decides. Let p̃ be the calibrated posterior under the policy's class
shares, C its costs and j* the class of least expected cost:

    p̃_y ∝ q_T(y|x) · p'(y) / p(y),   j* = argmin_j Σ_i p̃_i C[i, j],   e* = Σ_i p̃_i C[i, j*]

where q_T is the posterior at the calibrated temperature, p the class shares of the model's
mixture and p' those of the deployment (Bayes, Eq. 5.7; Saerens et al. 2002): the likelihoods
stay, so nothing is retrained.

| rule              | applies where                                               | action        |
|-------------------|-------------------------------------------------------------|---------------|
| `not_assessed`    | the verdict is NOT_ASSESSED, or p̃ is not finite             | DEFER         |
| `unknown_picture` | unknown, the pixels stand out most, reject costs <= defer's | REJECT_INPUT  |
| `unknown`         | the verdict is UNKNOWN, or the combined test's p <= α       | DEFER         |
| `class_unusual`   | p-value of the image as one of class j* <= α of that class  | DEFER         |
| `ambiguous`       | the set holds several classes, and were the truth one of    | DEFER         |
|                   | them, acting on j* could cost more than deferring           |               |
| `cost`            | e* is more than deferring costs                             | DEFER         |
| `risk`            | p̃_j* is below the certified threshold                       | DEFER         |
| `accepted`        | none of these                                               | ACCEPT j*     |

So a policy never accepts what the model calls UNKNOWN or does not assess, whatever its costs and
significance, and its α can only add to what is called unknown.

Shapes: n answers, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ibinn.errors import PolicyMismatchError
from ibinn.held_out import GROUPS, HeldOutScores
from ibinn.policy.values import Policy
from ibinn.types import Action, Decision, Group, Prediction, Verdict

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_ROUNDING = 1e-12
"""Relative difference up to which two costs count as equal."""


class Rule(StrEnum):
    """The rules in order of precedence, as in the table above."""

    NOT_ASSESSED = "not_assessed"
    UNKNOWN_PICTURE = "unknown_picture"
    UNKNOWN = "unknown"
    CLASS_UNUSUAL = "class_unusual"
    AMBIGUOUS = "ambiguous"
    COST = "cost"
    RISK = "risk"
    ACCEPTED = "accepted"


RULES = tuple(Rule)
"""What an entry of `Decisions.rules` is a position in."""

_ACCEPTED = RULES.index(Rule.ACCEPTED)
_REJECTED = RULES.index(Rule.UNKNOWN_PICTURE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a policy looks at, of many answers.

    Attributes:
        probabilities: Calibrated posterior q_T (n, K).
        assessed: False where the verdict is NOT_ASSESSED (n,).
        unknown: Where the model's own verdict is UNKNOWN (n,).
        combined_p: p-value of the combined test (n,), NaN where there is none.
        picture: Where the pixels stand out most among the groups of statistics (n,).
        members: Membership in the conformal set (n, K).
        class_p: Class-conditional p-values (n, K), NaN where there is none; or None.
    """

    probabilities: FloatArray
    assessed: BoolArray
    unknown: BoolArray
    combined_p: FloatArray
    picture: BoolArray
    members: BoolArray
    class_p: FloatArray | None

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decisions:
    """What a policy makes of many answers.

    Attributes:
        rules: Position in `RULES` of the rule that fired (n,).
        classes: j* (n,).
        probabilities: p̃ of j* (n,), NaN where not assessed.
        expected_costs: e* (n,), NaN where not assessed.
    """

    rules: npt.NDArray[np.int8]
    classes: npt.NDArray[np.int64]
    probabilities: FloatArray
    expected_costs: FloatArray

    @property
    def accepted(self) -> BoolArray:
        """Where the action is ACCEPT (n,)."""
        return np.asarray(self.rules == _ACCEPTED)

    @property
    def rejected(self) -> BoolArray:
        """Where the action is REJECT_INPUT (n,)."""
        return np.asarray(self.rules == _REJECTED)

    @property
    def deferred(self) -> BoolArray:
        """Where the action is DEFER (n,)."""
        return ~(self.accepted | self.rejected)

    @property
    def flagged(self) -> BoolArray:
        """Where the image itself was the reason, by the combined or a class-wise test (n,)."""
        rules = (Rule.UNKNOWN_PICTURE, Rule.UNKNOWN, Rule.CLASS_UNUSUAL)
        return np.isin(self.rules, [RULES.index(rule) for rule in rules])


def decide(policy: Policy, prediction: Prediction) -> Decision:
    """What the policy makes of one answer; the table is in this module's docstring.

    Raises:
        PolicyMismatchError: The policy was made for another model than the answer's.
    """
    check(
        policy,
        classes=[score.name for score in sorted(prediction.classes, key=lambda s: s.index)],
        weights=prediction.versions.weights,
        calibration=prediction.versions.calibration,
    )
    made = decide_many(policy, _answers([prediction], policy))
    rule, chosen = RULES[int(made.rules[0])], int(made.classes[0])
    cost = float(made.expected_costs[0])
    return Decision(
        action=action_of(rule),
        class_name=policy.classes[chosen] if rule is Rule.ACCEPTED else None,
        rule=rule.value,
        reason=_words(rule, policy, prediction, chosen, float(made.probabilities[0]), cost),
        expected_cost=cost if np.isfinite(cost) else None,
    )


def decide_many(policy: Policy, answers: Answers) -> Decisions:
    """What the policy makes of many answers; a pure function of its arguments."""
    costs = policy.costs
    act = np.array(costs.act)
    p = reweighted(policy, answers.probabilities)
    finite = np.asarray(np.isfinite(p).all(axis=1))
    p = np.where(finite[:, None], p, 0.0)
    expected = p @ act
    # Of classes that cost the same the most probable, however the sums were rounded.
    cheapest = expected <= expected.min(axis=1, keepdims=True) * (1 + _ROUNDING)
    chosen = np.where(cheapest, p, -1.0).argmax(axis=1)
    rows = np.arange(len(p))
    probability, cost = p[rows, chosen], expected[rows, chosen]
    worst = np.where(answers.members, act[:, chosen].T, 0.0).max(axis=1)
    ambiguous = answers.members.sum(axis=1) >= 2
    limit = costs.defer * (1 + _ROUNDING)
    unknown = answers.unknown | (answers.combined_p <= policy.alpha)
    threshold = policy.certificate.threshold if policy.certificate else 0.0
    reject = costs.reject <= limit
    applies: list[tuple[Rule, BoolArray]] = [
        (Rule.NOT_ASSESSED, ~(answers.assessed & finite)),
        (Rule.UNKNOWN_PICTURE, unknown & answers.picture & reject),
        (Rule.UNKNOWN, unknown),
        (Rule.CLASS_UNUSUAL, _class_unusual(policy, answers.class_p, chosen)),
        (Rule.AMBIGUOUS, ambiguous & (worst > limit)),
        (Rule.COST, cost > limit),
        (Rule.RISK, probability < threshold),
    ]
    return Decisions(
        rules=np.select(
            [mask for _, mask in applies],
            [np.int8(RULES.index(rule)) for rule, _ in applies],
            default=np.int8(_ACCEPTED),
        ).astype(np.int8),
        classes=chosen.astype(np.int64),
        probabilities=np.where(finite, probability, np.nan),
        expected_costs=np.where(finite, cost, np.nan),
    )


def reweighted(policy: Policy, probabilities: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """p̃_y ∝ q_T(y|x) · p'(y) / p(y), (n, K); q_T itself where the policy has no priors."""
    p = np.asarray(probabilities, dtype=np.float64)
    if policy.priors is None or policy.priors.deployment == policy.priors.model:
        return p
    ratio = np.array(policy.priors.deployment) / np.array(policy.priors.model)
    weighted = p * ratio
    total = weighted.sum(axis=1, keepdims=True)
    # All of q_T on a class that never comes: nothing is left to say.
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, weighted / total, np.nan)


def check(policy: Policy, *, classes: Sequence[str], weights: str, calibration: str) -> None:
    """Refuse a policy that was made for another model.

    Args:
        policy: The policy.
        classes: Class names of the model, in index order.
        weights: Digest of its weights.
        calibration: Digest of its calibration.

    Raises:
        PolicyMismatchError: The classes differ, or the digests that it was fitted for.
    """
    if tuple(classes) != policy.classes:
        raise PolicyMismatchError(
            f"policy {policy.name!r} is for the classes {', '.join(policy.classes)}; the model "
            f"has {', '.join(classes)}; fit a policy for this model"
        )
    if policy.origin is None:
        return
    for what, stated, found in (
        ("weights", policy.origin.weights, weights),
        ("calibration", policy.origin.calibration, calibration),
    ):
        if stated != found:
            raise PolicyMismatchError(
                f"policy {policy.name!r} was fitted for {what} {stated[:16] or '(none)'}, the "
                f"model has {found[:16] or '(none)'}; what it certifies does not hold here: fit "
                "it again with `ibinn policy fit`"
            )


def answers_of(
    scores: HeldOutScores, *, temperature: float, alpha: float, quantile: float | None
) -> Answers:
    """What a model answers for held-out images.

    Args:
        scores: The images' scores.
        temperature: T of the calibration.
        alpha: Significance of the model's verdict.
        quantile: Of the conformal sets; None: the model has none, so nothing is ambiguous.
    """
    scaled = scores.logits.astype(np.float64) / temperature
    with np.errstate(invalid="ignore"):
        p = np.exp(scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True))
    finite = np.isfinite(p).all(axis=1) & np.isfinite(scores.combined_p)
    members = np.asarray((1.0 - p) <= (-1.0 if quantile is None else quantile))
    np.put_along_axis(members, np.nan_to_num(p).argmax(axis=1)[:, None], True, axis=1)
    return Answers(
        probabilities=p,
        assessed=finite,
        unknown=scores.combined_p <= alpha,
        combined_p=scores.combined_p,
        picture=scores.drivers == GROUPS.index(Group.PIXEL),
        members=members,
        class_p=scores.class_p,
    )


def _answers(predictions: Sequence[Prediction], policy: Policy) -> Answers:
    shape = (len(predictions), len(policy.classes))
    probabilities, class_p = np.full(shape, np.nan), np.full(shape, np.nan)
    members = np.zeros(shape, dtype=np.bool_)
    for row, prediction in enumerate(predictions):
        for score in prediction.classes:
            probabilities[row, score.index] = score.probability
            if score.p_value is not None:
                class_p[row, score.index] = score.p_value
        named = prediction.conformal.classes if prediction.conformal else ()
        for name in named or (prediction.top.name,):
            members[row, policy.classes.index(name)] = True
    verdicts = [prediction.verdict for prediction in predictions]
    found = [prediction.combined for prediction in predictions]
    return Answers(
        probabilities=probabilities,
        assessed=np.array([verdict is not Verdict.NOT_ASSESSED for verdict in verdicts]),
        unknown=np.array([verdict is Verdict.UNKNOWN for verdict in verdicts]),
        combined_p=np.array(
            [np.nan if test is None or test.p_value is None else test.p_value for test in found]
        ),
        picture=np.array([prediction.driver is Group.PIXEL for prediction in predictions]),
        members=members,
        class_p=class_p,
    )


def _class_unusual(
    policy: Policy, class_p: FloatArray | None, chosen: npt.NDArray[np.int64]
) -> BoolArray:
    if not policy.class_alphas or class_p is None:
        return np.zeros(len(chosen), dtype=np.bool_)
    alphas = np.array([0.0 if a is None else a for a in policy.class_alphas])
    unusual: BoolArray = class_p[np.arange(len(chosen)), chosen] <= alphas[chosen]
    return unusual


def action_of(rule: Rule) -> Action:
    """What is done where a rule fires."""
    if rule is Rule.ACCEPTED:
        return Action.ACCEPT
    return Action.REJECT_INPUT if rule is Rule.UNKNOWN_PICTURE else Action.DEFER


def _words(
    rule: Rule,
    policy: Policy,
    prediction: Prediction,
    chosen: int,
    probability: float,
    cost: float,
) -> str:
    name, defer = policy.classes[chosen], policy.costs.defer
    certificate = policy.certificate
    match rule:
        case Rule.NOT_ASSESSED:
            return f"The image could not be assessed, so a person decides. {prediction.reason}"
        case Rule.UNKNOWN_PICTURE:
            return (
                "The picture itself is unlike the calibration images, above all in its pixels; "
                "take another one."
            )
        case Rule.UNKNOWN:
            p = prediction.combined.p_value if prediction.combined else None
            number = "" if p is None else f" (p = {p:.2g})"
            return f"The image is unlike the calibration images{number}, so a person decides."
        case Rule.CLASS_UNUSUAL:
            alpha = policy.class_alphas[chosen]
            found = next(score.p_value for score in prediction.classes if score.index == chosen)
            return (
                f"The image would be an unusual {name} (p = {found:.2g} ≤ α = {alpha:g} of that "
                "class), so a person decides."
            )
        case Rule.AMBIGUOUS:
            names = prediction.conformal.classes if prediction.conformal else ()
            return (
                f"It could be any of {', '.join(names)}, and acting on {name} could cost more "
                f"than deferring ({defer:g})."
            )
        case Rule.COST:
            return (
                f"Acting on {name} is expected to cost {cost:.3g}, deferring costs {defer:g}, so a "
                "person decides."
            )
        case Rule.RISK:
            assert certificate is not None
            return (
                f"{name} has probability {probability:.4f}, below the {certificate.threshold:.4f} "
                f"that keeps errors among accepted answers at or below {certificate.max_risk:.3g} "
                f"(confidence {1 - certificate.delta:g})."
            )
        case Rule.ACCEPTED:
            return (
                f"Acting on {name} is expected to cost {cost:.3g}, deferring costs {defer:g}; "
                "nothing unusual was found."
            )
