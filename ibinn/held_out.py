"""Scores of labelled images that served no training: what a policy is fitted to.

A file of them is a safetensors file (no pickle) with the arrays of `to_arrays` and the digests of
the model that scored them, so that scores of another model are never taken for this one's.

Shapes: n images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized

from ibinn.errors import DataError, PolicyMismatchError
from ibinn.types import Group

FloatArray = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[np.generic]]

GROUPS = (Group.PIXEL, Group.STYLE, Group.SEMANTIC)
"""What an entry of `HeldOutScores.drivers` is a position in."""

_REQUIRED = ("logits", "labels", "combined_p", "drivers")
_FORMAT = "ibinn.held_out/1"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOutScores:
    """What a model says of labelled images that it was not trained on.

    Attributes:
        logits: w_y + z·μ_y - ½‖μ_y‖² (n, K) float32, at T = 1.
        labels: Class indices (n,) int64.
        combined_p: p-value of the combined test (n,) in (0, 1], NaN where not assessed. For images
            of calibration part B themselves, that among the others: see `leave_one_out`.
        drivers: Position in `GROUPS` of the group that stands out most (n,) int8.
        class_p: Class-conditional p-values (n, K), NaN where a class has none, or None if they
            were not kept; a policy with class-wise significances needs them.

    Raises:
        DataError: Shapes or values that do not fit.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    combined_p: FloatArray
    drivers: npt.NDArray[np.int8]
    class_p: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.logits.shape[0] == 0 or self.logits.shape[1] < 2:
            raise DataError(
                f"held-out logits have shape {self.logits.shape}; expected (n, K), n >= 1, K >= 2"
            )
        n, classes = self.logits.shape
        for name, array, shape in (
            ("labels", self.labels, (n,)),
            ("combined_p", self.combined_p, (n,)),
            ("drivers", self.drivers, (n,)),
            ("class_p", self.class_p, (n, classes)),
        ):
            if array is not None and array.shape != shape:
                raise DataError(f"held-out {name} have shape {array.shape}; expected {shape}")
        for name, integers, upper in (
            ("labels", self.labels, classes),
            ("drivers", self.drivers, len(GROUPS)),
        ):
            if not np.issubdtype(integers.dtype, np.integer):
                raise DataError(f"held-out {name} have type {integers.dtype}; expected integers")
            if integers.min() < 0 or integers.max() >= upper:
                raise DataError(
                    f"held-out {name} run from {integers.min()} to {integers.max()}; expected "
                    f"0 to {upper - 1}"
                )
        for name, p in (("combined_p", self.combined_p), ("class_p", self.class_p)):
            if p is not None and not ((p > 0) & (p <= 1) | np.isnan(p)).all():
                raise DataError(f"held-out {name} hold values outside (0, 1]; expected p-values")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: npt.NDArray[Any]) -> HeldOutScores:
        """The images at these positions, or where this mask is true."""
        return HeldOutScores(
            logits=self.logits[index],
            labels=self.labels[index],
            combined_p=self.combined_p[index],
            drivers=self.drivers[index],
            class_p=None if self.class_p is None else self.class_p[index],
        )


def drivers_of(
    group_p: Mapping[str, FloatArray], group_excess: Mapping[str, FloatArray]
) -> npt.NDArray[np.int8]:
    """Position in `GROUPS` of the group with the smallest p-value; of equals the farthest out.

    Args:
        group_p: p-value of each group's marginal density of states, (n,) by the group's name.
        group_excess: How far each lies beyond its reference's median, (n,) likewise.
    """
    p = np.stack([group_p[group.value] for group in GROUPS])
    excess = np.stack([group_excess[group.value] for group in GROUPS])
    tied = p <= np.nanmin(np.where(np.isnan(p), 2.0, p), axis=0)
    drivers: npt.NDArray[np.int8] = np.where(tied, excess, -np.inf).argmax(axis=0).astype(np.int8)
    return drivers


def leave_one_out(scores: npt.NDArray[np.floating[Any]]) -> FloatArray:
    """p-value of every calibration image among the others: p = (1 + #{others >= s}) / n.

    Ranked among all n, itself included, an image could never be as unusual as a fresh one.

    Args:
        scores: High = unusual, shape (n,), finite.

    >>> leave_one_out(np.array([3.0, 1.0, 2.0, 2.0]))
    array([0.25, 1.  , 0.75, 0.75])
    """
    ordered = np.sort(scores)
    n = len(ordered)
    # #{all >= s} counts the image itself, which is the 1 of 1 + #{others >= s}.
    return np.asarray((n - np.searchsorted(ordered, scores, side="left")) / n, dtype=np.float64)


def to_arrays(scores: HeldOutScores) -> Arrays:
    """Named arrays, for a safetensors file."""
    arrays: Arrays = {
        "logits": scores.logits.astype(np.float32),
        "labels": scores.labels.astype(np.int64),
        "combined_p": scores.combined_p.astype(np.float64),
        "drivers": scores.drivers.astype(np.int8),
    }
    if scores.class_p is not None:
        arrays["class_p"] = scores.class_p.astype(np.float64)
    return {name: np.ascontiguousarray(values) for name, values in arrays.items()}


def from_arrays(arrays: Mapping[str, npt.NDArray[np.generic]]) -> HeldOutScores:
    """What `to_arrays` made.

    Raises:
        DataError: An array is missing or does not fit the others.
    """
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise DataError(
            f"held-out scores lack {missing[0]!r}; expected {', '.join(_REQUIRED)}, and class_p "
            "where class-wise significances are wanted"
        )
    class_p = arrays.get("class_p")
    return HeldOutScores(
        logits=np.asarray(arrays["logits"], dtype=np.float32),
        labels=_integers(arrays["labels"], "labels").astype(np.int64),
        combined_p=np.asarray(arrays["combined_p"], dtype=np.float64),
        drivers=_integers(arrays["drivers"], "drivers").astype(np.int8),
        class_p=None if class_p is None else np.asarray(class_p, dtype=np.float64),
    )


def save(scores: HeldOutScores, path: Path, *, weights: str, calibration: str) -> None:
    """Write scores to a safetensors file.

    Args:
        scores: What to write.
        path: Where to.
        weights: Digest of the weights that scored the images.
        calibration: Digest of the calibration behind the p-values.
    """
    metadata = {"format": _FORMAT, "weights": weights, "calibration": calibration}
    path.write_bytes(serialized(to_arrays(scores), metadata=metadata))


def load(path: Path, *, weights: str, calibration: str) -> HeldOutScores:
    """Read what `save` wrote, if it is of this model.

    Raises:
        DataError: Not such a file, or damaged.
        PolicyMismatchError: Scored by other weights or with another calibration.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is not readable as a safetensors file of held-out scores ({error}); write one "
            "with ibinn.held_out.save"
        ) from error
    if metadata.get("format") != _FORMAT:
        raise DataError(
            f"{path} has format {metadata.get('format')!r}, expected {_FORMAT!r}; write it with "
            "ibinn.held_out.save"
        )
    for what, expected in (("weights", weights), ("calibration", calibration)):
        if (found := metadata.get(what, "")) != expected:
            raise PolicyMismatchError(
                f"{path} was scored with {what} {found[:16] or '(none)'}, the bundle has "
                f"{expected[:16] or '(none)'}; score the images again with this bundle"
            )
    return from_arrays(arrays)


def _integers(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[Any]:
    if not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"held-out {name} have type {values.dtype}; expected integers")
    # Cut before it is narrowed: 256 must not become a valid 0.
    cut: npt.NDArray[Any] = np.clip(
        values, -1, np.iinfo(np.int8).max if name == "drivers" else None
    )
    return cut
