"""What a reference policy does: shares of each action, errors it lets through, and its costs.

The policy is fitted on calibration part B and counted on test images and on every unknown set:
0-1 costs, deferring 0.5, another picture 0.1, risk 2 %, δ = 5 %, the bundle's α and sets.

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ibinn.assessment import COMBINED
from ibinn.errors import NotCertifiableError
from ibinn.held_out import HeldOutScores, drivers_of
from ibinn.policy import RULES, Answers, Costs, Policy, decide_many
from ibinn.policy.fitting import ModelFacts, facts_of, fit, model_answers, unfitted
from ibinn.policy.forecast import forecast
from ibinn.policy.terms import Terms
from training.chapters.base import Material, NotMeasured
from training.evaluation import Rate
from training.ood_sets import OodSet, Pixels
from training.plots import COLOURS, FAINT, INK, WIDTH_IN, style
from training.policy_redraws import Pool, redraws
from training.scoring import Scored, fitted

MAX_RISK = 0.02
DELTA = 0.05
DEFER, REJECT = 0.5, 0.1
DRAWS = 200
CURVE_COSTS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SetActions:
    """What the policy does with one set of images.

    Attributes:
        name: ``test`` or the name of the unknown set.
        count: Number of images looked at.
        accepted: ACCEPT; of an unknown set every one of these is an error.
        deferred: DEFER.
        rejected: REJECT_INPUT.
        rules: (rule, share of the images on which it fired), in order of precedence.
    """

    name: str
    count: int
    accepted: Rate
    deferred: Rate
    rejected: Rate
    rules: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """The certificate of the reference policy, as in `ibinn.policy.Certificate`."""

    threshold: float
    images: int
    accepted: int
    errors: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Redraws:
    """How often the certified risk held on test images dealt out again.

    Attributes:
        draws: Number of draws.
        calibration_count: Test images that played calibration in each.
        held_out_count: Those that were counted on.
        kept: Draws whose realised risk is at most R.
        refused: Draws that certified nothing; they accept nothing and count as kept.
        exceeded: Share of draws whose realised risk is above R, with its interval as if draws
            were independent.
        mean_coverage: Mean share of held-out images accepted.
        coverage: Per draw.
        risk: Per draw, 0 where nothing is accepted.
    """

    draws: int
    calibration_count: int
    held_out_count: int
    kept: int
    refused: int
    exceeded: Rate
    mean_coverage: float
    coverage: tuple[float, ...]
    risk: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostCurve:
    """Mean cost of a test image against the cost of deferring, an error costing 1.

    Attributes:
        defer: Costs of deferring.
        policy: With costs and verdicts alone.
        certified: With the certified risk as well; None where nothing could be certified.
        accept_all: Acting on the most probable class always.
    """

    defer: tuple[float, ...]
    policy: tuple[float, ...]
    certified: tuple[float | None, ...]
    accept_all: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChapter:
    """The chapter's figures.

    Attributes:
        max_risk: R.
        delta: δ.
        alpha: Significance of the verdict.
        coverage: Of the conformal sets.
        defer: Cost of deferring.
        reject: Cost of another picture.
        certified: The certificate, or None where the risk could not be certified.
        refusal: Why not; empty where it could.
        risk: Errors among accepted test images.
        errors: Test images accepted with a wrong class, among all.
        false_alarms: Test images called unknown, among all.
        mean_cost: Mean cost of a test image.
        test: Actions on the test images.
        sets: Actions on each unknown set.
        redraws: Whether the promise holds, or None where there are too few test images.
        curve: Costs.
    """

    max_risk: float
    delta: float
    alpha: float
    coverage: float
    defer: float
    reject: float
    certified: Certified | None
    refusal: str
    risk: Rate
    errors: Rate
    false_alarms: Rate
    mean_cost: float
    test: SetActions
    sets: tuple[SetActions, ...]
    redraws: Redraws | None
    curve: CostCurve


def measure(material: Material) -> PolicyChapter | NotMeasured:
    """Fit the reference policy on part B, and count what it does."""
    classifier = material.classifier
    facts = facts_of(classifier)
    part_b = _part_b(material)
    if part_b is None:
        return NotMeasured(
            reason="The calibration images (part B) are not here and the bundle keeps no scores "
            "of them, so no policy can be fitted."
        )
    terms = _terms(len(facts.classes), DEFER)
    certified: Certified | None = None
    refusal = ""
    policy = unfitted(terms, facts, name="reference")
    try:
        policy = _fit(terms, part_b, facts)
        certified = _certified(policy)
    except NotCertifiableError as error:
        refusal = str(error)
    labels = material.test.labels
    test = _test_scores(material, labels)
    answers = model_answers(test, facts)
    found = forecast(policy, answers, labels)
    made = decide_many(policy, answers)
    wrong = int((made.accepted & (made.classes != labels)).sum())
    return PolicyChapter(
        max_risk=MAX_RISK,
        delta=DELTA,
        alpha=facts.alpha,
        coverage=facts.coverage,
        defer=DEFER,
        reject=REJECT,
        certified=certified,
        refusal=refusal,
        risk=Rate.of(wrong, int(made.accepted.sum())),
        errors=Rate.of(wrong, len(labels)),
        false_alarms=Rate.of(int(made.flagged.sum()), len(labels)),
        mean_cost=found.mean_cost,
        test=_actions("test", policy, answers),
        sets=tuple(
            _actions(s.name, policy, model_answers(_set_scores(material, s), facts))
            for s in material.sets.sets
        ),
        redraws=_redraws(material, facts, terms),
        curve=_curve(test, part_b, facts),
    )


def figures(result: PolicyChapter) -> dict[str, Figure]:
    """``redraws`` and ``costs``."""
    drawn = {"costs": _cost_figure(result)}
    if result.redraws is not None:
        drawn["redraws"] = _redraw_figure(result.redraws, result.max_risk)
    return drawn


def _terms(classes: int, defer: float) -> Terms:
    return Terms(costs=Costs.zero_one(classes, defer=defer, reject=REJECT))


def _fit(terms: Terms, scores: HeldOutScores, facts: ModelFacts) -> Policy:
    return fit(terms, scores, facts, max_risk=MAX_RISK, delta=DELTA, name="reference")


def _certified(policy: Policy) -> Certified | None:
    found = policy.certificate
    if found is None:
        return None
    return Certified(
        threshold=found.threshold,
        images=found.images,
        accepted=found.accepted,
        errors=found.errors,
        digest=policy.digest,
    )


def _part_b(material: Material) -> HeldOutScores | None:
    """The bundle's own scores of part B, or those of its images, or None."""
    kept: HeldOutScores | None = getattr(material.classifier.reference, "held_out", None)
    if kept is not None or material.calibration_b is None:
        return kept
    images = fitted(material.calibration_b, material.classifier.preprocessing)
    scored = material.scorer.images(images, "calibration part B", finish=True)
    n = len(scored)
    # Ranked among themselves they were counted with themselves: (p (n + 1) - 1) / n takes it out.
    p = np.maximum((scored.p[COMBINED] * (n + 1) - 1) / n, 1 / n)
    return _held_out(scored, p, material.calibration_b.labels, np.zeros(n, dtype=np.int8))


def _held_out(
    scored: Scored,
    p: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    drivers: npt.NDArray[np.int8],
) -> HeldOutScores:
    return HeldOutScores(
        logits=scored.logits.astype(np.float32), labels=labels, combined_p=p, drivers=drivers
    )


def _test_scores(material: Material, labels: npt.NDArray[np.int64]) -> HeldOutScores:
    """Test images; which group stands out is looked at where an image is flagged."""
    scored = material.test_scores
    p = scored.p[COMBINED]
    flagged = np.flatnonzero(p <= material.classifier.info.alpha)
    steps = material.classifier.preprocessing
    images = fitted(material.test, steps)
    drivers = np.zeros(len(p), dtype=np.int8)
    drivers[flagged] = _drivers(material, [steps.finish(images[int(i)]) for i in flagged])
    return _held_out(scored, p, labels, drivers)


def _set_scores(material: Material, ood: OodSet) -> HeldOutScores:
    """Up to `material.limit` images of an unknown set, evenly spaced; their labels mean nothing."""
    scored = material.set_scores[ood.name]
    chosen = np.linspace(0, len(scored) - 1, min(material.limit, len(scored))).round().astype(int)
    p = scored.p[COMBINED][chosen]
    steps = material.classifier.preprocessing

    def prepared(index: int) -> Pixels:
        pixels = np.asarray(ood.images[index], dtype=np.uint8)
        return pixels if ood.finished else steps.finish(steps.fit_size(pixels))

    flagged = np.flatnonzero(p <= material.classifier.info.alpha)
    drivers = np.zeros(len(p), dtype=np.int8)
    drivers[flagged] = _drivers(material, [prepared(int(chosen[i])) for i in flagged], ood.name)
    return HeldOutScores(
        logits=scored.logits[chosen].astype(np.float32),
        labels=np.zeros(len(p), dtype=np.int64),
        combined_p=p,
        drivers=drivers,
    )


def _drivers(
    material: Material, pixels: Sequence[Pixels], name: str = "test"
) -> npt.NDArray[np.int8]:
    found = [np.zeros(0, dtype=np.int8)]
    for start in range(0, len(pixels), _BATCH):
        scores = material.classifier.score(np.stack(pixels[start : start + _BATCH]))
        found.append(drivers_of(scores.group_p, scores.group_excess))
        if material.progress is not None:
            done = min(start + _BATCH, len(pixels))
            material.progress(f"what stands out in flagged images: {name}", done, len(pixels))
    return np.concatenate(found)


def _actions(name: str, policy: Policy, answers: Answers) -> SetActions:
    made = decide_many(policy, answers)
    n = len(answers)
    return SetActions(
        name=name,
        count=n,
        accepted=Rate.of(int(made.accepted.sum()), n),
        deferred=Rate.of(int(made.deferred.sum()), n),
        rejected=Rate.of(int(made.rejected.sum()), n),
        rules=tuple(
            (rule.value, float(np.mean(made.rules == position)))
            for position, rule in enumerate(RULES)
        ),
    )


def _redraws(material: Material, facts: ModelFacts, terms: Terms) -> Redraws | None:
    scored = material.test_scores
    combined = scored.unusual[COMBINED]
    usable = np.flatnonzero(np.isfinite(combined) & np.isfinite(scored.logits).all(axis=1))
    count = min(facts.calibration_count, len(usable) // 2)
    if count < 1:
        return None
    pool = Pool(
        logits=scored.logits[usable].astype(np.float32),
        labels=material.test.labels[usable],
        combined=combined[usable],
    )
    # The bundle's α may be more than this many images can test.
    alpha = max(facts.alpha, 1 / (count + 1))
    found = []
    for draw in redraws(
        pool,
        replace(facts, alpha=alpha),
        terms,
        max_risk=MAX_RISK,
        delta=DELTA,
        calibration_count=count,
        draws=DRAWS,
        seed=material.seed,
    ):
        found.append(draw)
        if material.progress is not None:
            material.progress("policies fitted again", len(found), DRAWS)
    exceeded = sum(draw.risk > MAX_RISK for draw in found)
    return Redraws(
        draws=len(found),
        calibration_count=count,
        held_out_count=found[0].count,
        kept=len(found) - exceeded,
        refused=sum(draw.threshold is None for draw in found),
        exceeded=Rate.of(exceeded, len(found)),
        mean_coverage=float(np.mean([draw.coverage for draw in found])),
        coverage=tuple(draw.coverage for draw in found),
        risk=tuple(draw.risk for draw in found),
    )


def _curve(test: HeldOutScores, part_b: HeldOutScores, facts: ModelFacts) -> CostCurve:
    answers = model_answers(test, facts)
    plain: list[float] = []
    certified: list[float | None] = []
    for defer in CURVE_COSTS:
        terms = _terms(len(facts.classes), defer)
        policy = unfitted(terms, facts, name="costs")
        plain.append(forecast(policy, answers, test.labels).mean_cost)
        try:
            fitted_policy = _fit(terms, part_b, facts)
        except NotCertifiableError:
            certified.append(None)
            continue
        certified.append(forecast(fitted_policy, answers, test.labels).mean_cost)
    return CostCurve(
        defer=CURVE_COSTS,
        policy=tuple(plain),
        certified=tuple(certified),
        accept_all=float(np.mean(answers.probabilities.argmax(axis=1) != test.labels)),
    )


def _redraw_figure(found: Redraws, max_risk: float) -> Figure:
    figure = Figure(figsize=(WIDTH_IN, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * max_risk, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.text(
        1.0, 100 * max_risk, "risk asked for ", color=INK, fontsize=8.5, ha="right", va="bottom",
        transform=axes.get_yaxis_transform(),
    )  # fmt: skip
    coverage, risk = 100 * np.array(found.coverage), 100 * np.array(found.risk)
    kept = risk <= 100 * max_risk
    axes.scatter(coverage[kept], risk[kept], s=13, color=COLOURS[0], alpha=0.6, linewidths=0)
    axes.scatter(coverage[~kept], risk[~kept], s=22, color=COLOURS[1], marker="D", linewidths=0)
    axes.set(
        xlabel="held-out images accepted, %",
        ylabel="wrong among them, %",
        xlim=(-1, max(5.0, 1.1 * float(coverage.max()))),
        ylim=(-0.05, max(1.35 * 100 * max_risk, 1.1 * float(risk.max()))),
    )
    style(axes)
    return figure


def _cost_figure(result: PolicyChapter) -> Figure:
    curve = result.curve
    figure = Figure(figsize=(WIDTH_IN, 3.1), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        curve.defer, curve.policy, color=COLOURS[0], linewidth=1.6, label="costs and verdicts"
    )
    known = [(d, c) for d, c in zip(curve.defer, curve.certified, strict=True) if c is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=COLOURS[1], linewidth=1.6, marker="o",
                  markersize=3, label="and the certified risk")  # fmt: skip
    axes.plot(curve.defer, curve.defer, color=FAINT, linewidth=1, linestyle=(0, (4, 3)),
              label="defer everything")  # fmt: skip
    axes.axhline(
        curve.accept_all, color=FAINT, linewidth=1, linestyle=":", label="accept everything"
    )
    axes.set(
        xlabel="cost of deferring, an error costing 1",
        ylabel="mean cost of a test image",
        xscale="log",
        ylim=(0, 1.6 * curve.accept_all if curve.accept_all else 1),
    )
    style(axes)
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    return figure
