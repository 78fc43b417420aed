"""How a policy is fitted: a user's terms, a model, and images that it was not trained on.

Where the terms state other class shares than the held-out images have, images are left out at
random, so that those left have the stated shares: an image of class i stays with probability
(p'_i/p̂_i) / max_j (p'_j/p̂_j), p̂ the shares among the held-out images. What stays is a sample of
the deployment as far as it differs in class shares alone, and the risk is certified on it.

Shapes: n held-out images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ibinn.errors import ConfigError, DataError, NotCalibratedError
from ibinn.held_out import HeldOutScores
from ibinn.ood.p_values import check_alpha
from ibinn.policy.decision import RULES, Answers, Rule, answers_of, decide_many
from ibinn.policy.risk import certify
from ibinn.policy.terms import Terms
from ibinn.policy.values import Origin, Policy, Priors
from ibinn.types import TestKind

if TYPE_CHECKING:
    from ibinn.trusted import TrustedClassifier

_PASSED = (RULES.index(Rule.ACCEPTED), RULES.index(Rule.RISK))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What fitting needs to know of a calibrated model.

    Attributes:
        classes: Class names in index order.
        weights: Digest of the weights.
        calibration: Digest of the calibration.
        temperature: T.
        alpha: Significance of its verdict.
        coverage: Target coverage of its conformal sets.
        quantile: Their quantile, or None if there are none.
        priors: p(y) of its mixture (K).
        calibration_count: Images behind the combined test.
        class_counts: Images behind each class-conditional test (K).
    """

    classes: tuple[str, ...]
    weights: str
    calibration: str
    temperature: float
    alpha: float
    coverage: float
    quantile: float | None
    priors: tuple[float, ...]
    calibration_count: int
    class_counts: tuple[int, ...]


def facts_of(classifier: TrustedClassifier) -> ModelFacts:
    """The facts of a loaded bundle.

    Raises:
        NotCalibratedError: It has no calibration.
    """
    info, reference = classifier.info, classifier.reference
    if reference is None:
        raise NotCalibratedError(
            f"model {info.name!r} is not calibrated; a policy needs its p-values: calibrate first"
        )
    shares = np.exp(classifier.model.mixture.log_weights.double().cpu().numpy())
    return ModelFacts(
        classes=info.classes,
        weights=info.versions.weights,
        calibration=info.versions.calibration,
        temperature=reference.temperature,
        alpha=info.alpha,
        coverage=info.conformal_coverage,
        quantile=reference.quantile(info.conformal_coverage),
        priors=tuple((shares / shares.sum()).tolist()),
        calibration_count=reference.count_b,
        class_counts=tuple(len(distances) for distances in reference.class_distances),
    )


def model_answers(scores: HeldOutScores, facts: ModelFacts) -> Answers:
    """What the model answers for held-out images."""
    return answers_of(
        scores, temperature=facts.temperature, alpha=facts.alpha, quantile=facts.quantile
    )


def unfitted(terms: Terms, facts: ModelFacts, *, name: str) -> Policy:
    """A policy of costs, shares and significances alone, with no certified risk.

    Raises:
        ConfigError: α is below the model's own, which a policy cannot weaken.
        AlphaTooSmallError: Too few calibration images for α, overall or of a class.
    """
    alpha = facts.alpha if terms.alpha is None else terms.alpha
    if alpha < facts.alpha:
        raise ConfigError(
            f"alpha is {alpha:g}, below the bundle's {facts.alpha:g}; a policy can only be "
            "stricter than the model's verdict: give a larger one, or leave it out"
        )
    check_alpha(alpha, facts.calibration_count, TestKind.HIGH_IS_UNUSUAL)
    for class_alpha, count in zip(terms.class_alphas, facts.class_counts, strict=False):
        if class_alpha is not None:
            check_alpha(class_alpha, count, TestKind.HIGH_IS_UNUSUAL)
    return Policy(
        name=name,
        classes=facts.classes,
        origin=None,
        alpha=alpha,
        class_alphas=terms.class_alphas,
        coverage=facts.coverage,
        costs=terms.costs,
        priors=None
        if terms.priors is None
        else Priors(deployment=terms.priors, model=facts.priors),
        certificate=None,
    )


def fit(
    terms: Terms,
    scores: HeldOutScores,
    facts: ModelFacts,
    *,
    max_risk: float,
    delta: float,
    name: str,
    seed: int = 0,
) -> Policy:
    """A policy whose errors among accepted answers are certified; see `ibinn.policy.risk`.

    Args:
        terms: Costs, class shares and significances.
        scores: Held-out images, such as those of calibration part B.
        facts: The model.
        max_risk: R, the largest share of errors among accepted answers.
        delta: δ, the probability of a held-out set that misleads.
        name: Of the policy, for people.
        seed: Of the choice of images where class shares are stated.

    Raises:
        ConfigError: As `unfitted`; or R or δ is out of range.
        AlphaTooSmallError: As `unfitted`.
        DataError: The images do not fit the model, lack a class that is stated, or lack the
            class-wise p-values that are asked for.
        NotCertifiableError: No threshold keeps R; it says how many images are needed.
    """
    policy = unfitted(terms, facts, name=name)
    _check_scores(scores, facts, policy)
    used = in_use(scores, policy, seed=seed)
    answers = model_answers(used, facts)
    made = decide_many(policy, answers)
    certificate = certify(
        np.nan_to_num(made.probabilities, nan=-1.0),
        made.classes != used.labels,
        np.isin(made.rules, _PASSED),
        max_risk=max_risk,
        delta=delta,
    )
    origin = Origin(weights=facts.weights, calibration=facts.calibration)
    return replace(policy, origin=origin, certificate=certificate)


def in_use(scores: HeldOutScores, policy: Policy, *, seed: int) -> HeldOutScores:
    """Of the held-out images those that are a sample of where the policy is used.

    Args:
        scores: Held-out images.
        policy: Its class shares count; without any, all images are.
        seed: Of the choice.

    Raises:
        DataError: A class that is to come is not among the images.
    """
    if policy.priors is None:
        return scores
    wanted = np.array(policy.priors.deployment)
    counts = np.bincount(scores.labels, minlength=len(wanted))
    if (missing := np.flatnonzero((wanted > 0) & (counts == 0))).size:
        raise DataError(
            f"there are no held-out images of {policy.classes[missing[0]]!r}, whose stated share "
            f"is {wanted[missing[0]]:g}; add some"
        )
    ratio = np.divide(wanted, counts, out=np.zeros(len(wanted)), where=counts > 0)
    stays = (ratio / ratio.max())[scores.labels]
    return scores.subset(np.random.default_rng(seed).random(len(scores)) < stays)


def _check_scores(scores: HeldOutScores, facts: ModelFacts, policy: Policy) -> None:
    if scores.logits.shape[1] != len(facts.classes):
        raise DataError(
            f"held-out scores are of {scores.logits.shape[1]} classes; the model has "
            f"{len(facts.classes)}; score the images with this model"
        )
    if policy.class_alphas and scores.class_p is None:
        raise DataError(
            "class-wise significances need class_p among the held-out scores, which lack it; score "
            "the images again, or leave [class_alpha] out"
        )
