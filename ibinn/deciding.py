"""A classifier under a policy: the same answers, each with what to do with it.

The policy stands above the classifier. It is given once, by whoever runs the classifier; who asks
cannot change it. So it holds for Python, the command line and the service alike.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, overload

import numpy as np

from ibinn import bundle, suitability
from ibinn.errors import PolicyMismatchError
from ibinn.images import ImageLike, ImagePreparer, Limits, PreparedImage
from ibinn.policy import Policy, decide
from ibinn.signing import PublicKey, read_manifest
from ibinn.trusted import TrustedClassifier
from ibinn.types import Explanation, ModelInfo, PolicyInfo, Prediction, Versions

if TYPE_CHECKING:
    import torch

    from ibinn.inference import Engine


def load(
    path: str | os.PathLike[str],
    policy: Policy,
    *,
    device: str | torch.device = "cpu",
    limits: Limits | None = None,
    keys: Sequence[PublicKey] | None = None,
    engine: Engine = "plain",
) -> DecidingClassifier:
    """Load a bundle to answer under a policy, at the stricter α of the two.

    Args:
        path: The bundle's folder.
        policy: From `ibinn.policy.file.read`.
        device: Where to compute.
        limits: Largest images accepted; None: the defaults.
        keys: Of which one must have signed the bundle; None: it needs no signature.
        engine: As in `ibinn.bundle.load`.

    Raises:
        BundleError, AlphaTooSmallError, ConfigError: As in `ibinn.bundle.load`.
        PolicyMismatchError: The policy is for another model or calibration; everything that is
            wrong is listed.
    """
    alpha = max(read_manifest(Path(path), keys).alpha, policy.alpha)
    classifier = bundle.load(
        path, alpha=alpha, device=device, limits=limits, keys=keys, engine=engine
    )
    return DecidingClassifier(classifier, policy)


class DecidingClassifier:
    """A classifier whose every answer carries a policy's decision.

    Thread-safe, as the classifier is: nothing changes after construction.

    Args:
        classifier: Gives the answers.
        policy: Decides what to do with them.

    Raises:
        PolicyMismatchError: The policy is for another model or calibration.
    """

    def __init__(self, classifier: TrustedClassifier, policy: Policy) -> None:
        if wrong := mismatches(policy, classifier.info):
            raise PolicyMismatchError(suitability.no_fit(policy, classifier.info.name, wrong))
        self.classifier = classifier
        self.policy = policy
        info = classifier.info
        self.info: ModelInfo = dataclasses.replace(
            info, versions=_versions(info.versions, policy), policy=policy_info(policy)
        )

    @property
    def preparer(self) -> ImagePreparer:
        """See `TrustedClassifier.preparer`."""
        return self.classifier.preparer

    @property
    def computed_by(self) -> str:
        """See `TrustedClassifier.computed_by`."""
        return self.classifier.computed_by

    def prepare(self, image: ImageLike) -> PreparedImage:
        """See `TrustedClassifier.prepare`."""
        return self.classifier.prepare(image)

    def assess(self, prepared: Sequence[PreparedImage]) -> list[Prediction]:
        """Answers with decisions for prepared images."""
        return [self._decided(answer) for answer in self.classifier.assess(prepared)]

    def explain_prepared(
        self, prepared: Sequence[PreparedImage], classes: Sequence[str] | None = None
    ) -> list[Explanation]:
        """Explanations whose answers carry decisions; see `TrustedClassifier.explain_prepared`."""
        return [
            dataclasses.replace(found, prediction=self._decided(found.prediction))
            for found in self.classifier.explain_prepared(prepared, classes)
        ]

    @overload
    def classify(self, images: Sequence[ImageLike]) -> list[Prediction]: ...
    @overload
    def classify(self, images: ImageLike) -> Prediction | list[Prediction]: ...
    def classify(self, images: ImageLike | Sequence[ImageLike]) -> Prediction | list[Prediction]:
        """Classify one image or many; see `TrustedClassifier.classify`."""
        answers = self.classifier.classify(cast(ImageLike, images))
        if isinstance(answers, Prediction):
            return self._decided(answers)
        return [self._decided(answer) for answer in answers]

    def explain(self, image: ImageLike, classes: Sequence[str] | None = None) -> Explanation:
        """Answer, decision and heatmaps for one image."""
        return self.explain_prepared([self.prepare(image)], classes)[0]

    def _decided(self, answer: Prediction) -> Prediction:
        return with_decision(self.policy, answer)


def with_decision(policy: Policy, prediction: Prediction) -> Prediction:
    """The answer with what the policy makes of it, and with the policy's digest.

    Raises:
        PolicyMismatchError: The policy was made for another model than the answer's.
    """
    return dataclasses.replace(
        prediction,
        decision=decide(policy, prediction),
        versions=_versions(prediction.versions, policy),
    )


def mismatches(policy: Policy, info: ModelInfo) -> list[str]:
    """In what a policy does not fit a model, a clause each; empty if it fits."""
    return suitability.mismatches(
        policy,
        classes=info.classes,
        weights=info.versions.weights,
        calibration=info.versions.calibration,
        coverage=info.conformal_coverage,
    )


def policy_info(policy: Policy) -> PolicyInfo:
    """The policy in short, for people and callers."""
    certificate, priors = policy.certificate, policy.priors
    return PolicyInfo(
        name=policy.name,
        digest=policy.digest,
        alpha=policy.alpha,
        max_risk=certificate.max_risk if certificate else None,
        delta=certificate.delta if certificate else None,
        threshold=certificate.threshold if certificate else None,
        costs=_costs_in_words(policy),
        priors=() if priors is None else tuple(zip(policy.classes, priors.deployment, strict=True)),
    )


def _costs_in_words(policy: Policy) -> tuple[str, ...]:
    costs, names = policy.costs, policy.classes
    act = np.array(costs.act)
    errors = act[~np.eye(len(act), dtype=np.bool_)]
    usual = float(np.median(errors))
    i, j = np.unravel_index(int(np.argmax(act)), act.shape)
    words = [f"acting on a wrong class: {usual:g}"]
    if errors.min() < errors.max():
        words[0] += f" as a rule, {errors.min():g} to {errors.max():g}"
        words.append(f"the dearest mistake: {names[j]} where it is {names[i]}, {act[i, j]:g}")
    if (right := act.diagonal()).any():
        words.append(f"acting on the right class: {right.min():g} to {right.max():g}")
    return (
        *words,
        f"asking a person: {costs.defer:g}",
        f"asking for another picture: {costs.reject:g}",
    )


def _versions(versions: Versions, policy: Policy) -> Versions:
    return dataclasses.replace(versions, policy=policy.digest)
