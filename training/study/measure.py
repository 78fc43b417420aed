"""The figures of one trained model: accuracy, density, calibration, out-of-distribution AUROC.

The same posterior figures for every model; densities and tests only where there is one.

Shapes: N images, K classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax

from ibinn import bundle, metrics
from ibinn.assessment import COMBINED, Significance
from ibinn.calibration import calibration_report
from ibinn.classifier import GenerativeClassifier
from ibinn.errors import DataError
from ibinn.flow.architectures import to_dict as architecture_to_dict
from ibinn.images import Preprocessing
from ibinn.manifest import Manifest, Training
from training import config as configs
from training.calibrate import calibrate
from training.config import FitConfig
from training.discriminative import SoftmaxClassifier, softmax_logits
from training.fit import Prepared
from training.image_set import ImageSet
from training.ood_sets import Images, OodSet
from training.report_figures import TYPICALITY
from training.scoring import Scored, Scorer, fitted
from training.splits import Role, role_set
from training.study.record import RunFigures, SetFigures

FloatArray = npt.NDArray[np.float64]

_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answers:
    """What a model says of N images; bits/dim and tests are None where it has no density."""

    logits: FloatArray
    bits_per_dim: FloatArray | None = None
    unusual: dict[str, FloatArray] = dataclasses.field(default_factory=dict)


def measure_generative(
    model: GenerativeClassifier,
    config: FitConfig,
    images: Prepared,
    sets: Sequence[OodSet],
    *,
    floor_draws: int,
    device: torch.device,
) -> RunFigures:
    """Calibrate on parts A and B, then measure on the test images and the sets.

    A model whose statistics are not finite cannot be calibrated: its posterior and bits/dim are
    measured all the same, its tests are left out and a note says why.
    """
    preprocessing = Preprocessing(config.preprocessing)
    roles = {role: role_set(images.source, images.manifest, role) for role in Role}
    notes: list[str] = []
    try:
        reference = calibrate(
            model,
            preprocessing,
            roles[Role.CALIBRATION_A],
            roles[Role.CALIBRATION_B],
            seed=config.seed,
        )
    except (DataError, np.linalg.LinAlgError, ValueError) as error:
        reference = None
        notes.append(f"no tests: {error}")
    test = roles[Role.TEST]
    shown = fitted(test, preprocessing)
    if reference is None:
        answers = _bare(model, preprocessing, shown, device=device)
        set_answers = [_bare(model, preprocessing, s.images, device=device) for s in sets]
    else:
        classifier = bundle.assemble(
            _manifest(config, images),
            model,
            reference,
            settings=Significance(alpha=config.alpha, coverage=config.conformal_coverage),
            device=device,
        )
        scorer = Scorer(model=classifier, reference=reference, batch_size=_BATCH)
        answers = _answers(scorer.images(shown, "test images", finish=True))
        set_answers = [_answers(scorer.ood(s, finish=True)) for s in sets]
    return _figures(
        answers, list(zip(sets, set_answers, strict=True)), test, notes, floor_draws=floor_draws
    )


def measure_softmax(
    model: SoftmaxClassifier,
    config: FitConfig,
    images: Prepared,
    sets: Sequence[OodSet],
    *,
    floor_draws: int,
) -> RunFigures:
    """Measure a classifier without a density on the test images and the sets."""
    preprocessing = Preprocessing(config.preprocessing)
    test = role_set(images.source, images.manifest, Role.TEST)

    def answers(shown: Images) -> _Answers:
        parts = [
            softmax_logits(model, _finished(shown, start, preprocessing), preprocessing)
            for start in range(0, len(shown), _BATCH)
        ]
        return _Answers(logits=np.concatenate(parts))

    return _figures(
        answers(fitted(test, preprocessing)),
        [(s, answers(s.images)) for s in sets],
        test,
        [],
        floor_draws=floor_draws,
    )


def _figures(
    inside: _Answers,
    outside: Sequence[tuple[OodSet, _Answers]],
    test: ImageSet,
    notes: list[str],
    *,
    floor_draws: int,
) -> RunFigures:
    if not np.isfinite(inside.logits).all():
        bad = int((~np.isfinite(inside.logits)).any(axis=1).sum())
        raise DataError(
            f"the posterior is not finite on {bad} of {len(test)} test images; the training "
            "diverged; lower the learning rate"
        )
    log_posterior = np.asarray(log_softmax(inside.logits, axis=1))
    posterior = np.exp(log_posterior)
    labels = test.labels
    report = calibration_report(posterior, labels, draws=floor_draws)
    own_entropy = _entropy(inside.logits)
    bits = None if inside.bits_per_dim is None else float(inside.bits_per_dim.mean())
    return RunFigures(
        test_count=len(test),
        wrong=int((posterior.argmax(axis=1) != labels).sum()),
        bits_per_dim=bits if bits is not None and math.isfinite(bits) else None,
        with_centres=report.thesis.with_centres,
        with_mean_confidence=report.thesis.with_mean_confidence,
        top_label_ece=report.top_label_ece,
        top_label_ece_floor=report.top_label_ece_floor,
        overconfidence=report.overconfidence.value,
        overconfidence_count=report.overconfidence.count,
        # Of log-probabilities, so that a posterior rounded to zero is not infinite.
        nll_nats=float(-log_posterior[np.arange(len(labels)), labels].mean()),
        sets=tuple(
            SetFigures(
                name=ood.name,
                count=len(found.logits),
                typicality_auroc=_auroc(inside, found, TYPICALITY),
                combined_auroc=_auroc(inside, found, COMBINED),
                entropy_increase_nats=_increase(found.logits, over=own_entropy),
            )
            for ood, found in outside
        ),
        notes=tuple(notes),
    )


def _auroc(inside: _Answers, outside: _Answers, test: str) -> float | None:
    if test not in inside.unusual:
        return None
    one, two = inside.unusual[test], outside.unusual[test]
    # Not assessed is never passed as usual: it counts as the most unusual there is.
    return metrics.auroc(*(np.where(np.isnan(s), np.inf, s) for s in (one, two)))


def _answers(scored: Scored) -> _Answers:
    return _Answers(logits=scored.logits, bits_per_dim=scored.bits_per_dim, unusual=scored.unusual)


@torch.no_grad()
def _bare(
    model: GenerativeClassifier,
    preprocessing: Preprocessing,
    shown: Images,
    *,
    device: torch.device,
) -> _Answers:
    """Posterior and bits/dim without a calibration."""
    subspaces = model.mixture.subspaces()
    found = []
    for start in range(0, len(shown), _BATCH):
        pixels = torch.from_numpy(_finished(shown, start, preprocessing)).to(device)
        found.append(
            model.evidence(
                preprocessing.to_tensor(pixels),
                subspaces=subspaces,
                preprocessing_log_det=preprocessing.log_det,
                encoded_bytes=torch.zeros(len(pixels), device=device),
            )
        )
    return _Answers(
        logits=torch.cat([e.logits for e in found]).cpu().numpy(),
        bits_per_dim=torch.cat([e.bits_per_dim for e in found]).cpu().numpy(),
    )


def _finished(shown: Images, start: int, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    stop = min(start + _BATCH, len(shown))
    return np.stack(
        [
            preprocessing.finish(preprocessing.fit_size(np.asarray(shown[index], np.uint8)))
            for index in range(start, stop)
        ]
    )


def _entropy(logits: FloatArray) -> float:
    """Mean H(y|x) in nats."""
    log_p = np.asarray(log_softmax(logits, axis=1))
    return float(-(np.exp(log_p) * log_p).sum(axis=1).mean())


def _increase(logits: FloatArray, *, over: float) -> float | None:
    """Mean H(y|x) over the images whose logits are finite, minus `over`."""
    finite = logits[np.isfinite(logits).all(axis=1)]
    return _entropy(finite) - over if len(finite) else None


def _manifest(config: FitConfig, images: Prepared) -> Manifest:
    return Manifest(
        name=config.recipe,
        architecture=architecture_to_dict(config.architecture),
        mixture=dataclasses.asdict(config.mixture),
        preprocessing=config.preprocessing.to_dict(),
        classes=images.source.train.class_names,
        taxonomy_version="1",
        alpha=config.alpha,
        conformal_coverage=config.conformal_coverage,
        intended_use="A run of a study; never served.",
        training_data=images.source.name,
        training=Training(
            command="ibinn-train study",
            seconds=0.0,
            machine="",
            config=configs.to_dict(config),
            split_sha256={},
            libraries={},
        ),
    )
