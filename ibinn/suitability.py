"""What can be said, without loading it, of whether a bundle suits what an operator wants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ibinn.errors import BundleFormatError, ConfigError
from ibinn.manifest import Manifest
from ibinn.ood import p_values
from ibinn.policy import Policy
from ibinn.types import TestKind

_REFERENCE = "reference.safetensors"


def unsuitable(
    found: Manifest, folder: Path, *, alpha: float | None, policy: Policy | None
) -> list[str]:
    """Everything for which a bundle cannot be used so, a sentence each; empty if it can.

    Args:
        found: The bundle's manifest.
        folder: The bundle.
        alpha: Significance of the verdict; None: the bundle's, or the policy's if it is stricter.
        policy: What is to decide on the answers; None: nothing.
    """
    wrong = []
    if policy is not None:
        clauses = mismatches(
            policy,
            classes=found.classes,
            weights=found.weights_digest,
            calibration=found.calibration_digest,
            coverage=found.conformal_coverage,
        )
        if clauses:
            wrong.append(no_fit(policy, found.name, clauses))
        alpha = max(found.alpha, policy.alpha)
    if _REFERENCE in found.files:
        try:
            count = calibration_count(folder)
            significance = found.alpha if alpha is None else alpha
            p_values.check_alpha(significance, count, TestKind.HIGH_IS_UNUSUAL)
        except (BundleFormatError, ConfigError) as error:
            wrong.append(str(error))
    return wrong


def calibration_count(folder: Path) -> int:
    """Number of calibration images that a bundle's p-values rank against.

    Raises:
        BundleFormatError: The file of reference scores cannot be read.
    """
    path = folder / _REFERENCE
    try:
        with safe_open(path, framework="numpy") as file:
            return int(file.get_tensor("counts")[1])
    except (OSError, SafetensorError, IndexError) as error:
        raise BundleFormatError(
            f"{path} cannot be read ({error}); copy the bundle again"
        ) from error


def mismatches(
    policy: Policy, *, classes: Sequence[str], weights: str, calibration: str, coverage: float
) -> list[str]:
    """In what a policy does not fit a model, a clause each; empty if it fits.

    Args:
        policy: The policy.
        classes: The model's, in its order.
        weights: Digest of its weights.
        calibration: Digest of its calibration; empty if it has none.
        coverage: Of its prediction sets.
    """
    wrong = []
    if missing := [name for name in classes if name not in policy.classes]:
        wrong.append(f"it does not know {', '.join(missing)}")
    if surplus := [name for name in policy.classes if name not in classes]:
        wrong.append(f"it is for {', '.join(surplus)}, which the model does not know")
    if not wrong and tuple(policy.classes) != tuple(classes):
        wrong.append("its classes are in another order")
    if policy.origin is not None:
        for what, stated, found in (
            ("weights", policy.origin.weights, weights),
            ("calibration", policy.origin.calibration, calibration),
        ):
            if stated != found:
                wrong.append(
                    f"it was fitted for {what} {stated[:16] or '(none)'}, the model has "
                    f"{found[:16] or '(none)'}"
                )
    if not np.isclose(policy.coverage, coverage, rtol=0, atol=1e-9):
        wrong.append(
            f"it was fitted with prediction sets of {policy.coverage:g} coverage, the model's "
            f"have {coverage:g}"
        )
    return wrong


def no_fit(policy: Policy, model: str, clauses: Sequence[str]) -> str:
    """The sentence for a policy that does not fit a model."""
    return (
        f"policy {policy.name!r} does not fit model {model!r}: {'; '.join(clauses)}; fit it for "
        "this model with `ibinn policy fit`"
    )
