"""What detectors and estimates do on the stored scores: the figures of `service/DRIFT.md`.

python -m tests.ibinn.drift.measured

prints all of them, in under a minute; the same numbers every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ibinn.drift import NAMES, DriftReference, Observations, accuracy, detectors
from ibinn.drift.accuracy import Estimator, Method, fit
from ibinn.drift.shift import covariate_shift, prior_shift
from tests.ibinn.drift import replays
from tests.ibinn.drift.replays import Scored

RATE = 0.05
STREAM = 20_000
WINDOW = 500
LEAST_ACCEPTED = 25
CHANGES = (
    "gaussian_noise-3",
    "gaussian_noise-2",
    "defocus_blur-4",
    "contrast-2",
    "jpeg_compression-3",
    "brightness-3",
    "brightness-2",
    "defocus_blur-1",
)
CATS = 3


def stationary_alarms(seeds: Iterable[int]) -> NDArray[np.bool_]:
    """Streams in which each detector alarmed, one row per stream.

    Calibration images and stream are drawn from one pool with replacement: they are independent
    of each other with one law, so exchangeable, at any length. Images drawn again are ties.
    """
    pool = replays.pool()
    rows = []
    for seed in seeds:
        rng = np.random.default_rng([2026, seed])
        held = pool.subset(rng.integers(len(pool), size=2_500)).as_reference()
        stream = pool.subset(rng.integers(len(pool), size=STREAM)).against(held)
        found = detectors(held, false_alarm_rate=RATE, seed=seed)
        for detector in found:
            detector.observe_many(stream)
        rows.append([detector.alarmed for detector in found])
    return np.array(rows)


def own_images_alarms(seeds: Iterable[int]) -> NDArray[np.bool_]:
    """The same for the model's own calibration images, then the test images in some order."""
    held = replays.calibration()
    clean = replays.scored("clean").against(held)
    rows = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(clean))
        found = detectors(held, false_alarm_rate=RATE, seed=seed)
        for detector in found:
            detector.observe_many(clean.subset(order))
        rows.append([detector.alarmed for detector in found])
    return np.array(rows)


def delays(cell: str, *, before: int, seeds: Iterable[int] = range(20)) -> NDArray[np.float64]:
    """Images from the change to each detector's alarm, infinite without one, by seed.

    A seed that raised a false alarm before the change is left out.
    """
    held = replays.calibration()
    clean, changed = (replays.scored(name).against(held) for name in ("clean", cell))
    found = []
    for seed in seeds:
        rng = np.random.default_rng([7, seed])
        first = clean.subset(rng.permutation(len(clean))[:before])
        then = changed.subset(rng.permutation(len(changed)))
        hits = []
        made = detectors(held, false_alarm_rate=RATE, seed=seed)
        for detector in made:
            detector.observe_many(first)
        if any(detector.alarmed for detector in made):
            continue
        for detector in made:
            path = detector.observe_many(then)
            reached = np.flatnonzero(path >= detector.log_threshold)
            hits.append(reached[0] + 1 if len(reached) else np.inf)
        found.append(hits)
    return np.array(found, dtype=float)


def windows(name: str, held: DriftReference) -> Iterator[tuple[Observations, float]]:
    """Observations and truth of the windows of a stored cell with enough accepted images."""
    cell = replays.scored(name)
    seen = cell.against(held)
    for part in np.split(np.arange(len(cell)), len(cell) // WINDOW):
        window = seen.subset(part)
        if window.accepted.sum() >= LEAST_ACCEPTED:
            yield window, float(cell.correct[part][window.accepted].mean())


def estimate_errors() -> dict[Method, NDArray[np.float64]]:
    """Absolute errors of every method over the windows of five corruptions at five severities."""
    held = replays.calibration()
    fitted = {method: fit(held, method=method) for method in Method}
    found: dict[Method, list[float]] = {method: [] for method in Method}
    for name in replays.CELLS:
        for window, truth in windows(name, held):
            for method, estimator in fitted.items():
                found[method].append(abs(_accuracy(estimator, window) - truth))
    return {method: np.array(values) for method, values in found.items()}


def errors_when_weighted(
    estimators: Sequence[Estimator], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean signed error of each over ten windows of clean images, drawn with these weights."""
    held, clean = replays.calibration(), replays.scored("clean")
    rng = np.random.default_rng(0)
    off = []
    for _ in range(10):
        window = clean.subset(rng.choice(len(clean), WINDOW, p=weights / weights.sum()))
        seen = window.against(held)
        truth = window.correct[seen.accepted].mean()
        off.append([_accuracy(estimator, seen) - truth for estimator in estimators])
    mean: NDArray[np.float64] = np.mean(off, axis=0)
    return mean


def drawn(cell: Scored, weights: NDArray[np.float64] | None = None, seed: int = 0) -> Observations:
    """A window of a stored cell, in which classes weigh as told."""
    rng = np.random.default_rng(seed)
    p = None if weights is None else weights[cell.labels] / weights[cell.labels].sum()
    return cell.subset(rng.choice(len(cell), WINDOW, p=p)).against(replays.calibration())


def _accuracy(estimator: Estimator, seen: Observations) -> float:
    found = estimator.estimate(seen).accuracy
    assert found is not None
    return found


def _detectors() -> None:
    for title, alarms in (
        ("200 stationary streams", stationary_alarms(range(200))),
        ("60 orders of the own images", own_images_alarms(range(60))),
    ):
        by_name = dict(zip(NAMES, alarms.sum(axis=0).tolist(), strict=True))
        print(f"{title}: {int(alarms.any(axis=1).sum())} with any alarm, {by_name}", flush=True)
    for cell in CHANGES:
        for before in (0, 5_000):
            found = delays(cell, before=before)
            first = np.median(found.min(axis=1))
            print(f"{cell} after {before}: median {first:g} of {len(found)} seeds", flush=True)


def _estimates() -> None:
    errors = estimate_errors()
    plain = errors[Method.PLAIN].mean()
    for method, values in errors.items():
        mean = values.mean()
        print(f"{method}: {mean:.2%} over {len(values)} windows, {mean / plain:.2f} of plain")
    clean, held = replays.scored("clean"), replays.calibration()
    both = [fit(held, method=method) for method in (accuracy.SHIPPED, Method.COTT)]
    index = np.arange(clean.probabilities.shape[1])
    for title, weights in (
        ("harder images", np.exp(-4 * clean.probabilities.max(axis=1))),
        ("a class gone", np.where(index == CATS, 0.0, 1.0)[clean.labels]),
        ("half of the classes halved", np.where(index < len(index) // 2, 0.5, 1.0)[clean.labels]),
    ):
        shipped, other = errors_when_weighted(both, weights)
        print(f"{title}: {accuracy.SHIPPED} {shipped:+.2%}, {Method.COTT} {other:+.2%}")


def _shifts() -> None:
    clean, held = replays.scored("clean"), replays.calibration()
    tripled = np.where(np.arange(clean.probabilities.shape[1]) == CATS, 3.0, 1.0)
    for title, seen in (
        ("clean", drawn(clean)),
        ("cats tripled", drawn(clean, tripled)),
        ("brightness 3", drawn(replays.scored("brightness-3"))),
    ):
        prior = prior_shift(seen, held)
        rest = covariate_shift(seen, held, priors=prior.priors)
        print(
            f"{title}: prior {prior.total_variation:.3f} (by chance {prior.by_chance:.3f}), "
            f"score {rest.score:.3f} (by chance {rest.by_chance:.3f})"
        )


if __name__ == "__main__":
    _shifts()
    _estimates()
    _detectors()
