"""Calibration of a trained model: parameters from part A, ranks from part B.

Shapes: n images of part A or B, K classes, T statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ibinn.assessment import compute_statistics, excess, group_columns
from ibinn.calibration import ConfidenceBins, fit_temperature
from ibinn.classifier import Evidence, GenerativeClassifier, images_at_once
from ibinn.conformal import fit_quantile
from ibinn.errors import DataError
from ibinn.held_out import HeldOutScores, drivers_of, leave_one_out
from ibinn.images import Preprocessing, png_size
from ibinn.latent import Subspaces
from ibinn.ood import p_values
from ibinn.ood.activation import out_of_fold_distances
from ibinn.ood.combination import DensityOfStates
from ibinn.ood.combined import CombinedTest
from ibinn.ood.registry import Statistic, statistics_of, test_name
from ibinn.ood.statistics import StatisticContext, class_coordinates, fit_statistics
from ibinn.raps import RapsFit, choose_raps, fit_raps, u_of
from ibinn.reference import Reference
from ibinn.types import TestKind
from training.image_set import ImageSet
from training.loader import eval_batches

FloatArray = npt.NDArray[np.float64]

BATCH = 100
"""Images per forward pass, at most."""

COVERAGES = (0.9, 0.95)
"""Target coverages of the conformal sets that are fitted."""


def calibrate(
    model: GenerativeClassifier,
    preprocessing: Preprocessing,
    part_a: ImageSet,
    part_b: ImageSet,
    *,
    coverages: Sequence[float] = COVERAGES,
    seed: int = 0,
) -> Reference:
    """Fit everything on part A, rank on part B (section 5 of the method).

    Args:
        model: Trained, in evaluation mode, on its device.
        preprocessing: That of the model.
        part_a: Temperature, centres, statistic parameters, density of states.
        part_b: Reference ranks, conformal quantiles, reliability.
        coverages: Target coverages of the conformal sets.
        seed: Of the density of states' start.

    Raises:
        DataError: A part is empty, or a statistic is not finite on it.
    """
    for name, images in (("A", part_a), ("B", part_b)):
        if len(images) == 0:
            raise DataError(f"calibration part {name} has no images; raise its share of the split")
    network = model.network
    statistics = statistics_of(network)
    subspaces = model.mixture.subspaces()
    context = StatisticContext.of(model.mixture, subspaces, network.heatmap_shape)

    part = _gather(model, preprocessing, subspaces, part_a, statistics, context)
    activations = torch.cat([e.activations.cpu() for e in part.evidence])
    fitted = fit_statistics(
        torch.cat([class_coordinates(e, context).cpu() for e in part.evidence]),
        activations,
        torch.from_numpy(part_a.labels),
        model.mixture.classes,
    )
    context = StatisticContext.of(model.mixture, subspaces, network.heatmap_shape, fitted)
    values_a = part.values | _fitted_values(part.evidence, statistics, context)
    if "activation_energy" in values_a:
        distances_a = out_of_fold_distances(activations.double().numpy(), seed=seed)
        values_a["activation_energy"] = np.log(np.maximum(distances_a, 1e-300))
    matrix_a = _matrix(values_a, statistics, part="A")
    combined_test = CombinedTest.fit(
        DensityOfStates.fit(matrix_a, seed=seed),
        matrix_a,
        alone={s.name: i for i, s in enumerate(statistics) if s.alone},
        groups=group_columns(statistics),
    )
    centres = {s.name: float(values_a[s.name].mean()) for s in statistics}
    temperature = fit_temperature(_logits(part.evidence), part_a.labels)
    probabilities_a = _probabilities(part.evidence, temperature)

    part = _gather(model, preprocessing, subspaces, part_b, statistics, context)
    values_b = part.values | _fitted_values(part.evidence, statistics, context)
    matrix_b = _matrix(values_b, statistics, part="B")
    labels = part_b.labels
    surprises = combined_test.surprises(matrix_b)
    groups = {group: np.sort(found) for group, found in surprises.groups.items()}
    probabilities = _probabilities(part.evidence, temperature)
    distances = torch.cat([e.subspaces.class_distances.cpu() for e in part.evidence]).numpy()
    class_distances = tuple(
        np.sort(distances[labels == k, k]) for k in range(model.mixture.classes)
    )
    return Reference(
        count_a=len(part_a),
        count_b=len(part_b),
        temperature=temperature,
        fitted=fitted,
        centres=centres,
        combined_test=combined_test,
        ranks={
            test_name(s.name, kind): p_values.reference(
                values_b[s.name],
                kind,
                centre=centres[s.name] if kind is TestKind.TYPICALITY else None,
            )
            for s in statistics
            for kind in s.kinds
        },
        combined=np.sort(surprises.fisher),
        groups=groups,
        class_distances=class_distances,
        conformal=tuple((c, fit_quantile(probabilities, labels, c)) for c in coverages),
        confidence=ConfidenceBins.fit(probabilities, labels),
        held_out=HeldOutScores(
            logits=_logits(part.evidence).astype(np.float32),
            labels=labels.astype(np.int64),
            combined_p=leave_one_out(surprises.fisher),
            drivers=drivers_of(
                {group: leave_one_out(found) for group, found in surprises.groups.items()},
                {group: excess(found, groups[group]) for group, found in surprises.groups.items()},
            ),
            class_p=_class_p(distances, labels, class_distances),
        ),
        raps=tuple(
            fit_adaptive_sets(probabilities_a, part_a, probabilities, part_b, coverage=c, seed=seed)
            for c in coverages
        ),
    )


def fit_adaptive_sets(
    probabilities_a: FloatArray,
    part_a: ImageSet,
    probabilities_b: FloatArray,
    part_b: ImageSet,
    *,
    coverage: float,
    seed: int = 0,
) -> RapsFit:
    """RAPS for one coverage: λ and k_reg chosen on part A, τ fitted on part B.

    Args:
        probabilities_a: Calibrated posteriors of part A, shape (N, K).
        part_a: Its images.
        probabilities_b: Calibrated posteriors of part B, shape (n, K).
        part_b: Its images.
        coverage: Target in (0, 1).
        seed: Of the halvings of part A.
    """
    config = choose_raps(
        probabilities_a, part_a.labels, draws_of(part_a), coverage=coverage, seed=seed
    )
    quantile = fit_raps(
        probabilities_b, part_b.labels, draws_of(part_b), coverage=coverage, config=config
    )
    return RapsFit(coverage=coverage, quantile=quantile, config=config)


def draws_of(images: ImageSet) -> FloatArray:
    """The u in [0, 1) of each image, from the hash of its decoded pixels, shape (N,)."""
    return np.array([u_of(item.id) for item in images.items])


def _class_p(
    distances: FloatArray, labels: npt.NDArray[np.int64], references: Sequence[FloatArray]
) -> FloatArray:
    """Class-conditional p-values of part B's own images (n, K), each among the others."""
    found = np.full(distances.shape, np.nan)
    for k, ranks in enumerate(references):
        if not len(ranks):
            continue
        found[:, k] = p_values.p_values(distances[:, k], ranks, TestKind.HIGH_IS_UNUSUAL)
        own = labels == k
        found[own, k] = leave_one_out(distances[own, k])
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """What calibration keeps of a part's images.

    Attributes:
        evidence: By batch, without latent codes and class likelihoods.
        values: Every statistic that needs no fit, (n,) each.
    """

    evidence: Sequence[Evidence]
    values: dict[str, FloatArray]


def _gather(
    model: GenerativeClassifier,
    preprocessing: Preprocessing,
    subspaces: Subspaces,
    images: ImageSet,
    statistics: Sequence[Statistic],
    context: StatisticContext,
) -> _Part:
    """One pass over a part.

    The latent codes of 10,000 images of 224x224 take 6 GB: what needs them is computed batch by
    batch.
    """
    device = model.mixture.means.device
    unfitted = [s for s in statistics if not s.fitted]
    kept: list[Evidence] = []
    values: list[dict[str, FloatArray]] = []
    size = images_at_once(model.network.dims, most=BATCH)
    for batch in eval_batches(images, preprocessing, batch_size=size):
        sizes = [png_size(pixels) for pixels in batch.images.numpy()]
        evidence = model.evidence(
            preprocessing.to_tensor(batch.images.to(device)),
            subspaces=subspaces,
            preprocessing_log_det=preprocessing.log_det,
            encoded_bytes=torch.tensor(sizes, dtype=torch.float64, device=device),
        )
        values.append(compute_statistics(evidence, unfitted, context))
        none = evidence.logits.new_empty(len(evidence), 0)
        kept.append(replace(evidence, z=none, class_log_likelihoods=none))
    return _Part(
        evidence=kept,
        values={s.name: np.concatenate([v[s.name] for v in values]) for s in unfitted},
    )


def _fitted_values(
    evidence: Sequence[Evidence], statistics: Sequence[Statistic], context: StatisticContext
) -> dict[str, FloatArray]:
    """Every statistic with fitted parameters, (n,) each."""
    return {
        s.name: torch.cat([s.compute(e, context).cpu() for e in evidence]).numpy()
        for s in statistics
        if s.fitted
    }


def _logits(evidence: Sequence[Evidence]) -> FloatArray:
    return torch.cat([e.logits.cpu() for e in evidence]).numpy()


def _probabilities(evidence: Sequence[Evidence], temperature: float) -> FloatArray:
    logits = torch.from_numpy(_logits(evidence)) / temperature
    return np.exp(torch.log_softmax(logits, dim=1).numpy())


def _matrix(
    values: dict[str, FloatArray], statistics: Sequence[Statistic], *, part: str
) -> FloatArray:
    for name, column in values.items():
        if bad := int((~np.isfinite(column)).sum()):
            raise DataError(
                f"statistic {name} is not finite on {bad} of {len(column)} images of calibration "
                f"part {part}; the model cannot be calibrated; train it longer or look for "
                "constant images"
            )
    return np.stack([values[s.name] for s in statistics], axis=1)
