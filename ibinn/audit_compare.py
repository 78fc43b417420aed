"""Whether an answer that was computed again is the one on record, figure by figure.

What must agree exactly: verdict, decision, sets, flags, the image's pixels and region. Figures may
differ by what the order of floating-point sums can do, no more:

    log-likelihoods, nats       |a - b| <= 1e-3 + 2e-6 |a|
    statistics                  |a - b| <= 1e-3 + 2e-6 |a|
    log-probabilities, nats     |ln a - ln b| <= 1e-3
    bits per dimension          |a - b| <= 1e-5
    p-values                    |a - b| <= 2 / (n + 1), n calibration images; adjusted over m tests
                                m times that

These are what an optimised form of a network is held to. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ibinn.types import Prediction, TestResult

LIKELIHOOD_NATS = 1e-3
RELATIVE = 2e-6
LOG_PROBABILITY_NATS = 1e-3
BITS_PER_DIM = 1e-5
TINY = 1e-300
"""Probabilities below this count as 0."""
_ROUNDED = 1 + 1e-9
"""p-values move in whole steps: one of just the tolerance must not fail for its last digit."""
STOPPED = "abstain_all"
"""Rule of a decision that the operator's stop button made; no policy has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not as it is on record.

    Attributes:
        what: Its name.
        recorded: What the record says.
        replayed: What came out now.
        tolerance: How far they may be apart; None where they must agree.
    """

    what: str
    recorded: str
    replayed: str
    tolerance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """How far figures of one kind are apart at most.

    Attributes:
        figures: Which ones.
        count: How many were compared.
        largest: Largest difference.
        tolerance: What it may be, where it is largest in proportion.
    """

    figures: str
    count: int
    largest: float
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What comparing an answer with the one on record says.

    Attributes:
        differences: What is not as it is on record; none: the answer is the same.
        deviations: How far the figures are apart, by kind.
    """

    differences: tuple[Difference, ...]
    deviations: tuple[Deviation, ...]


@dataclass(frozen=True, slots=True)
class _Pair:
    figures: str
    what: str
    recorded: float | None
    replayed: float | None
    tolerance: float
    logarithmic: bool = False

    @property
    def apart(self) -> float:
        """How far the two are apart; infinite where only one is there or finite."""
        a, b = self.recorded, self.replayed
        if a is None or b is None:
            return 0.0 if a is b else math.inf
        if self.logarithmic:
            a, b = math.log(max(a, TINY)), math.log(max(b, TINY))
        if not (math.isfinite(a) and math.isfinite(b)):
            return 0.0 if a == b or (math.isnan(a) and math.isnan(b)) else math.inf
        return abs(a - b)


def compare(recorded: Prediction, replayed: Prediction) -> Comparison:
    """Holds an answer against the one on record.

    Of the decision nothing is compared where the stop button made it: that was a person's.
    """
    pairs = list(_figures(recorded, replayed))
    differences = [
        Difference(what=what, recorded=_text(a), replayed=_text(b))
        for what, a, b in _exact(recorded, replayed)
        if a != b
    ]
    differences += [
        Difference(
            what=pair.what,
            recorded=_text(pair.recorded),
            replayed=_text(pair.replayed),
            tolerance=pair.tolerance,
        )
        for pair in pairs
        if pair.apart > pair.tolerance * _ROUNDED
    ]
    return Comparison(differences=tuple(differences), deviations=tuple(_deviations(pairs)))


def _exact(a: Prediction, b: Prediction) -> Iterator[tuple[str, object, object]]:
    yield "pixels of the image (sha256)", a.input.sha256_pixels, b.input.sha256_pixels
    yield "region of the image", a.input.region, b.input.region
    yield "verdict", a.verdict.value, b.verdict.value
    yield "most probable class", a.top.name, b.top.name
    yield "classes", _names(a), _names(b)
    yield "tests", _tests(a), _tests(b)
    if a.decision is None or a.decision.rule != STOPPED:
        yield "decision", _decided(a), _decided(b)
    for kind in sorted(
        {(s.method, s.target_coverage) for s in (*a.conformal_sets, *b.conformal_sets)}
    ):
        yield f"{kind[0].value} set for {kind[1]:g}", _set(a, kind), _set(b, kind)
    others = _by_name(b)
    for name, test in _by_name(a).items():
        if name in others:
            yield f"flag of test {name}", test.flagged, others[name].flagged


def _figures(a: Prediction, b: Prediction) -> Iterator[_Pair]:
    p_step = 2 / (a.calibration_count + 1)
    scores = {score.name: score for score in b.classes}
    for one in a.classes:
        other = scores.get(one.name)
        if other is None:
            continue  # told of as a difference of the classes
        name = one.name
        yield _Pair("log-likelihoods (nats)", f"log-likelihood of {name}", one.log_likelihood,
                    other.log_likelihood, _of(one.log_likelihood))  # fmt: skip
        for label, first, second in (
            ("probability", one.probability, other.probability),
            ("uncalibrated probability", one.raw_probability, other.raw_probability),
        ):
            yield _Pair("probabilities (nats apart)", f"{label} of {name}", first, second,
                        LOG_PROBABILITY_NATS, logarithmic=True)  # fmt: skip
        yield _Pair("p-values", f"p-value of {name}", one.p_value, other.p_value, p_step)
    yield _Pair("bits per dimension", "bits per dimension", a.bits_per_dim, b.bits_per_dim,
                BITS_PER_DIM)  # fmt: skip
    yield _Pair("entropy (nats)", "entropy", a.entropy, b.entropy, 2 * LOG_PROBABILITY_NATS)
    yield _Pair("temperature", "temperature", a.temperature, b.temperature, 1e-12)
    tests = _by_name(b)
    for name, one_test in _by_name(a).items():
        again = tests.get(name)
        if again is None:
            continue
        alone = one_test is a.combined
        yield _Pair("statistics", f"statistic of {name}", one_test.statistic, again.statistic,
                    _of(one_test.statistic))  # fmt: skip
        yield _Pair("p-values", f"p-value of {name}", one_test.p_value, again.p_value, p_step)
        yield _Pair("p-values", f"adjusted p-value of {name}", one_test.p_adjusted,
                    again.p_adjusted, p_step * (1 if alone else len(a.tests)))  # fmt: skip


def _deviations(pairs: Iterable[_Pair]) -> Iterator[Deviation]:
    kinds: dict[str, list[_Pair]] = {}
    for pair in pairs:
        kinds.setdefault(pair.figures, []).append(pair)
    for figures, found in kinds.items():
        worst = max(found, key=lambda pair: pair.apart / pair.tolerance)
        yield Deviation(
            figures=figures, count=len(found), largest=worst.apart, tolerance=worst.tolerance
        )


def _of(value: float) -> float:
    return LIKELIHOOD_NATS + (RELATIVE * abs(value) if math.isfinite(value) else 0.0)


def _by_name(answer: Prediction) -> dict[str, TestResult]:
    found = {test.name: test for test in answer.tests}
    if answer.combined is not None:
        found["combined"] = answer.combined
    return found


def _names(answer: Prediction) -> list[str]:
    return sorted(score.name for score in answer.classes)


def _tests(answer: Prediction) -> list[str]:
    return sorted(_by_name(answer))


def _set(answer: Prediction, kind: tuple[object, float]) -> list[str] | None:
    for found in answer.conformal_sets:
        if (found.method, found.target_coverage) == kind:
            return sorted(found.classes)
    return None


def _decided(answer: Prediction) -> str:
    found = answer.decision
    if found is None:
        return "none"
    return " ".join(filter(None, (found.action.value, found.class_name, f"by rule {found.rule}")))


def _text(value: object) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)
