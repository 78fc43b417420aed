"""The headline figure of trust: what goes wrong among the images that are accepted.

Selective risk at two coverages and AUGRC on the fixed mix of `training.mix`, of our trust score,
of our posterior alone and of a softmax ResNet of equal training cost, with paired differences.

Shapes: N images of the mix, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from scipy.special import softmax

from ibinn.assessment import COMBINED
from ibinn.calibration import fit_temperature
from ibinn.errors import ConfigError
from ibinn.images import Preprocessing
from ibinn.selective import Estimate, acceptance, risk_coverage, trust_score
from ibinn.selective_bootstrap import Figures, Ranking, bootstrap, part_weights
from training import plots
from training.chapters.base import Material, NotMeasured
from training.discriminative import SoftmaxClassifier, softmax_logits
from training.mix import NO_LABEL, Component, Mix, MixConfig, Part, make_mix
from training.ood_sets import Images
from training.scoring import Progress, Scored, fitted

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COVERAGES = (0.95, 0.8)
OOD_SHARES = (0.1, 0.25, 0.5)
"""Shares of unknown images for which the figures are given beside the fixed mix's own."""

TRUST, POSTERIOR, TEST = "trust", "posterior", "test"
RESNET, RESNET_T = "resnet", "resnet-temperature"
TITLES = {
    TRUST: "trust score",
    POSTERIOR: "our posterior alone",
    TEST: "our combined test alone",
    RESNET: "ResNet of equal cost, maximum softmax",
    RESNET_T: "the same ResNet, softmax with temperature",
}
BARRED = (POSTERIOR, RESNET)
"""What the trust score is held against; the other rankings are there to learn from."""

CURVE_POINTS = 201
CHUNK = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingFigures:
    """One ranking on one mix.

    Attributes:
        name: Short name.
        title: In words.
        error_rate: Of accepting every image, unknown ones included.
        selective_risk: At each coverage of `Headline.coverages`.
        augrc: Area under the generalised risk-coverage curve.
        best_augrc: e²/2, what a perfect confidence would reach with this classifier.
        failure_auroc: P(an image whose acceptance is right is ranked above one whose is not);
            tells the ranking from the classifier's accuracy. None where all or none fail.
    """

    name: str
    title: str
    error_rate: float
    selective_risk: tuple[Estimate, ...]
    augrc: Estimate
    best_augrc: float
    failure_auroc: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The trust score minus another ranking, paired over the same images; negative is better.

    Attributes:
        other: Short name of the other ranking.
        title: In words.
        barred: Whether the trust score is held against it.
        selective_risk: At each coverage of `Headline.coverages`.
        augrc: Of the area.
    """

    other: str
    title: str
    barred: bool
    selective_risk: tuple[Estimate, ...]
    augrc: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class MixFigures:
    """All rankings on one mix.

    Attributes:
        name: What is in it.
        ood_share: Share of unknown images.
        rankings: In a fixed order, the trust score first.
        comparisons: The trust score against each other ranking.
    """

    name: str
    ood_share: float
    rankings: tuple[RankingFigures, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFigures:
    """One component of the mix, and what becomes of it at the lower coverage.

    Attributes:
        name: Name of the set.
        part: Kind of image.
        share: Of the mix.
        count: Number of images.
        description: How they were made.
        accepted: (short name of a ranking, share of the component that is accepted).
        errors: (short name of a ranking, errors from this component per accepted image); they add
            up to the selective risk.
    """

    name: str
    part: str
    share: float
    count: int
    description: str
    accepted: tuple[tuple[str, float], ...]
    errors: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Generalised risk at evenly spaced coverages from 0 to 1."""

    name: str
    title: str
    generalised_risk: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Selective risk on the fixed mix.

    Attributes:
        config: What is in the mix.
        coverages: Where the selective risk is taken.
        draws: Bootstrap draws behind every interval.
        mix: On the whole mix.
        parts: On parts of it, to see where a difference comes from.
        sensitivity: With other shares of unknown images.
        components: What the mix is made of.
        curves: For the figure.
        resnet_temperature: T of the ResNet, fitted on calibration part A; None if not fitted.
        notes: What is missing.
    """

    config: MixConfig
    coverages: tuple[float, ...]
    draws: int
    mix: MixFigures
    parts: tuple[MixFigures, ...]
    sensitivity: tuple[MixFigures, ...]
    components: tuple[ComponentFigures, ...]
    curves: tuple[Curve, ...]
    resnet_temperature: float | None
    notes: tuple[str, ...]


def measure(material: Material) -> Headline | NotMeasured:
    """Score the mix, rank it in every way, and compare."""
    config = MixConfig(seed=material.seed)
    preprocessing = material.classifier.preprocessing
    try:
        mix = make_mix(
            fitted(material.test, preprocessing),
            material.test.labels,
            material.sets.sets,
            config,
            corrupted_count=material.limit * len(config.conditions),
        )
    except ConfigError as error:
        return NotMeasured(reason=str(error))
    rankings = own_rankings(mix, _own_scores(mix, material))
    notes = list(mix.notes)
    temperature = None
    if material.comparator is None:
        notes.append(
            "There is no ResNet of equal training cost for this model, so the trust score is held "
            "against our posterior alone."
        )
    else:
        logits = np.concatenate(
            [
                _comparator_logits(
                    material.comparator, c.images, preprocessing,
                    finished=c.finished, what=c.name, progress=material.progress,
                )
                for c in mix.components
            ]
        )  # fmt: skip
        if material.calibration_a is not None:
            part_a = _comparator_logits(
                material.comparator, fitted(material.calibration_a, preprocessing), preprocessing,
                finished=False, what="calibration part A", progress=material.progress,
            )  # fmt: skip
            temperature = fit_temperature(part_a, material.calibration_a.labels)
        rankings += resnet_rankings(mix, logits, temperature)
    return compare(
        mix, rankings, draws=material.draws, seed=material.seed, temperature=temperature,
        notes=notes, progress=material.progress,
    )  # fmt: skip


def own_rankings(mix: Mix, scores: Sequence[Scored]) -> list[Ranking]:
    """The trust score, the posterior alone and the combined test alone.

    Args:
        mix: N images.
        scores: Of each component, in order.
    """
    probabilities = np.concatenate([s.probabilities for s in scores])
    p = np.concatenate([s.p[COMBINED] for s in scores])
    unusual = np.concatenate([s.unusual[COMBINED] for s in scores])
    posterior = probabilities.max(axis=1)
    failures = failed(mix, probabilities)
    return [
        Ranking(name=TRUST, confidence=trust_score(posterior, p), failures=failures),
        Ranking(name=POSTERIOR, confidence=_last_if_nan(posterior), failures=failures),
        Ranking(name=TEST, confidence=_last_if_nan(-unusual), failures=failures),
    ]


def resnet_rankings(mix: Mix, logits: FloatArray, temperature: float | None) -> list[Ranking]:
    """Maximum softmax of the ResNet's logits (N, K), and with temperature where there is one."""
    failures = failed(mix, logits)
    found = [Ranking(name=RESNET, confidence=_max_softmax(logits), failures=failures)]
    if temperature is not None:
        scaled = _max_softmax(logits / temperature)
        found.append(Ranking(name=RESNET_T, confidence=scaled, failures=failures))
    return found


def failed(mix: Mix, scores: FloatArray) -> npt.NDArray[np.bool_]:
    """Where accepting the class of the largest score (N, K) is an error."""
    labels = mix.labels
    wrong: npt.NDArray[np.bool_] = (labels == NO_LABEL) | (scores.argmax(axis=1) != labels)
    return wrong


def compare(
    mix: Mix,
    rankings: Sequence[Ranking],
    *,
    draws: int,
    seed: int,
    temperature: float | None,
    notes: Sequence[str],
    progress: Progress | None = None,
) -> Headline:
    """Every figure of the chapter from the rankings of a mix.

    Args:
        mix: N images.
        rankings: The trust score first.
        draws: Bootstrap draws.
        seed: Of the draws.
        temperature: For the record.
        notes: What is missing.
        progress: Called after every mix.
    """
    shares = mix.shares
    plans: list[tuple[str, FloatArray]] = [("the fixed mix", shares)]
    plans += _parts(mix)
    plans += [
        (f"{share:.0%} unknown images", mix.shares_of(mix.config.with_ood_share(share)))
        for share in OOD_SHARES
    ]
    main = [r for r in rankings if r.name in (TRUST, *BARRED)]
    found = []
    for number, (name, plan) in enumerate(plans):
        chosen = list(rankings) if number == 0 else main
        found.append(_mix_figures(mix, chosen, name, plan, draws=draws, seed=seed))
        if progress is not None:
            progress("mixes of images", number + 1, len(plans))
    weights = part_weights(mix.component, shares)
    at = np.linspace(0.0, 1.0, CURVE_POINTS)
    curves = [risk_coverage(r.confidence, r.failures, weights=weights) for r in rankings]
    sensitivity = len(plans) - len(OOD_SHARES)
    return Headline(
        config=mix.config,
        coverages=COVERAGES,
        draws=draws,
        mix=found[0],
        parts=tuple(found[1:sensitivity]),
        sensitivity=tuple(found[sensitivity:]),
        components=_components(mix, main, weights),
        curves=tuple(
            Curve(
                name=r.name,
                title=TITLES[r.name],
                generalised_risk=tuple(
                    np.interp(at, curve.coverage, curve.generalised_risk).tolist()
                ),
            )
            for r, curve in zip(rankings, curves, strict=True)
        ),
        resnet_temperature=temperature,
        notes=tuple(notes),
    )


def headline(result: Headline) -> dict[str, float]:
    """The figures of the trust score and of what it is held against, for the manifest."""
    others = {r.name: _named(r, result.coverages) for r in result.mix.rankings}
    less = {c.other: _named(c, result.coverages) for c in result.mix.comparisons if c.barred}
    found: dict[str, float] = {}
    for name, own in others[TRUST].items():
        found |= {name: own.value, f"{name}_low": own.low, f"{name}_high": own.high}
        for other, differences in less.items():
            found |= {
                f"{name}/{other}": others[other][name].value,
                f"{name}-{other}": differences[name].value,
                f"{name}-{other}_low": differences[name].low,
                f"{name}-{other}_high": differences[name].high,
            }
    return found


def figures(result: Headline) -> dict[str, Figure]:
    """Generalised risk against coverage."""
    figure = Figure(figsize=(plots.WIDTH_IN, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    coverage = np.linspace(0.0, 1.0, CURVE_POINTS)
    # The grid starts at coverage 0, where there is no selective risk.
    first = int(0.1 * CURVE_POINTS)
    dashes = {TEST: (0, (4, 2)), RESNET_T: (0, (1, 1.5))}
    for curve, colour in zip(result.curves, plots.COLOURS, strict=False):
        risk = np.asarray(curve.generalised_risk)
        style = dashes.get(curve.name, "solid")
        left.plot(coverage, risk, color=colour, linewidth=1.5, linestyle=style, label=curve.title)
        right.plot(
            coverage[first:], risk[first:] / coverage[first:], color=colour, linewidth=1.5,
            linestyle=style,
        )  # fmt: skip
    for at in result.coverages:
        for axes in (left, right):
            axes.axvline(at, color=plots.INK, linewidth=0.9, linestyle=":")
    left.set(xlabel="share of images accepted", ylabel="errors per image offered", xlim=(0, 1))
    right.set(xlabel="share of images accepted", ylabel="errors per image accepted", xlim=(0, 1))
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        plots.style(axes)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8.5, frameon=False)
    return {"curves": figure}


def _named(found: RankingFigures | Comparison, coverages: Sequence[float]) -> dict[str, Estimate]:
    risks = zip(coverages, found.selective_risk, strict=True)
    return {"augrc": found.augrc, **{f"selective_risk@{at:g}": risk for at, risk in risks}}


def _own_scores(mix: Mix, material: Material) -> list[Scored]:
    known: Mapping[str, Scored] = {
        **material.set_scores,
        mix.components[0].name: material.test_scores,
    }
    return [
        known[c.name] if c.name in known else material.scorer.images(c.images, c.name, finish=True)
        for c in mix.components
    ]


def _comparator_logits(
    model: SoftmaxClassifier,
    images: Images,
    preprocessing: Preprocessing,
    *,
    finished: bool,
    what: str,
    progress: Progress | None,
) -> FloatArray:
    parts = []
    for start in range(0, len(images), CHUNK):
        stop = min(start + CHUNK, len(images))
        batch = [np.asarray(images[index], dtype=np.uint8) for index in range(start, stop)]
        if not finished:
            batch = [preprocessing.finish(preprocessing.fit_size(pixels)) for pixels in batch]
        parts.append(softmax_logits(model, np.stack(batch), preprocessing))
        if progress is not None:
            progress(f"{what}, ResNet", stop, len(images))
    return np.concatenate(parts)


def _parts(mix: Mix) -> list[tuple[str, FloatArray]]:
    """Mixes of some of the parts, in the proportions of the whole."""
    present = {c.part for c in mix.components}
    plans = []
    for name, wanted in (
        ("clean test images only", {Part.CLEAN}),
        ("mildly corrupted test images only", {Part.CORRUPTED}),
        ("clean and near-OoD", {Part.CLEAN, Part.NEAR}),
        ("clean and far-OoD", {Part.CLEAN, Part.FAR}),
    ):
        if wanted <= present:
            shares = np.array([c.share if c.part in wanted else 0.0 for c in mix.components])
            plans.append((name, shares / shares.sum()))
    return plans


def _mix_figures(
    mix: Mix,
    rankings: Sequence[Ranking],
    name: str,
    shares: FloatArray,
    *,
    draws: int,
    seed: int,
) -> MixFigures:
    used = shares[mix.component] > 0
    parts, sources = mix.component[used], mix.sources[used]
    chosen = [
        Ranking(name=r.name, confidence=r.confidence[used], failures=r.failures[used])
        for r in rankings
    ]
    drawn = bootstrap(
        chosen, parts=parts, shares=shares, sources=sources, coverages=COVERAGES, draws=draws,
        seed=seed,
    )  # fmt: skip
    weights = part_weights(parts, shares)
    ood = np.array([c.part in (Part.NEAR, Part.FAR) for c in mix.components])
    return MixFigures(
        name=name,
        ood_share=float(shares[ood].sum()),
        rankings=tuple(_ranking_figures(r, drawn, weights) for r in chosen),
        comparisons=tuple(
            Comparison(
                other=r.name,
                title=TITLES[r.name],
                barred=r.name in BARRED,
                selective_risk=tuple(drawn.risk_difference(TRUST, r.name, c) for c in COVERAGES),
                augrc=drawn.augrc_difference(TRUST, r.name),
            )
            for r in chosen
            if r.name != TRUST
        ),
    )


def _ranking_figures(ranking: Ranking, drawn: Figures, weights: FloatArray) -> RankingFigures:
    e = float(weights @ ranking.failures)
    area = drawn.augrc_of(ranking.name)
    mixed = e * (1.0 - e)
    return RankingFigures(
        name=ranking.name,
        title=TITLES[ranking.name],
        error_rate=e,
        selective_risk=tuple(drawn.risk_of(ranking.name, c) for c in COVERAGES),
        augrc=area,
        best_augrc=e**2 / 2,
        failure_auroc=1.0 - (area.value - e**2 / 2) / mixed if mixed > 0 else None,
    )


def _components(
    mix: Mix, rankings: Sequence[Ranking], weights: FloatArray
) -> tuple[ComponentFigures, ...]:
    coverage = COVERAGES[-1]
    accepted = {
        r.name: weights * acceptance(r.confidence, coverage, weights=weights) for r in rankings
    }

    def of(number: int, component: Component) -> ComponentFigures:
        own = mix.component == number
        return ComponentFigures(
            name=component.name,
            part=component.part.value,
            share=component.share,
            count=len(component),
            description=component.description,
            accepted=tuple(
                (r.name, float(accepted[r.name][own].sum()) / component.share) for r in rankings
            ),
            errors=tuple(
                (r.name, float(accepted[r.name][own] @ r.failures[own]) / coverage)
                for r in rankings
            ),
        )

    return tuple(of(number, component) for number, component in enumerate(mix.components))


def _max_softmax(logits: FloatArray) -> FloatArray:
    result: FloatArray = softmax(logits, axis=1).max(axis=1)
    return result


def _last_if_nan(confidence: FloatArray) -> FloatArray:
    """An image that was not assessed is accepted last."""
    return np.where(np.isnan(confidence), -np.inf, confidence)
