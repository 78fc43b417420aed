"""What calibration leaves in a bundle: everything that turns evidence into p-values and sets.

Shapes: n images of calibration part B, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from ibinn import held_out
from ibinn.calibration import ConfidenceBins
from ibinn.errors import BundleFormatError, ConfigError, DataError
from ibinn.held_out import HeldOutScores
from ibinn.ood.combination import DensityOfStates
from ibinn.ood.combined import CombinedTest, Tail
from ibinn.ood.statistics import FittedStatistics
from ibinn.raps import RapsConfig, RapsFit

FloatArray = npt.NDArray[np.float64]
Arrays = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """Calibration of a model; part A gives its parameters, part B its ranks.

    Attributes:
        count_a: Images of part A.
        count_b: Images n of part B.
        temperature: T, fitted on A.
        fitted: Statistic parameters, fitted on A.
        centres: Mean on A per statistic.
        combined_test: Density of states and views, fitted on A.
        ranks: Per test the sorted reference of part B (n,).
        combined: Sorted scores of the combined test on B (n,).
        groups: Per group of statistics the sorted scores of its own combination on B (n,).
        class_distances: Per class the sorted ‖z_c - μ_y‖² of its images of part B.
        conformal: (target coverage, quantile) pairs, fitted on B.
        confidence: Accuracy by confidence on B.
        held_out: Scores and labels of part B's images, for policies; None in older bundles.
        raps: Adaptive sets per target coverage, λ and k_reg from A, τ from B; empty in older
            bundles.
    """

    count_a: int
    count_b: int
    temperature: float
    fitted: FittedStatistics
    centres: Mapping[str, float]
    combined_test: CombinedTest
    ranks: Mapping[str, FloatArray]
    combined: FloatArray
    groups: Mapping[str, FloatArray]
    class_distances: tuple[FloatArray, ...]
    conformal: tuple[tuple[float, float], ...]
    confidence: ConfidenceBins
    held_out: HeldOutScores | None = None
    raps: tuple[RapsFit, ...] = ()

    def quantile(self, coverage: float) -> float | None:
        """The conformal quantile of a target coverage, or None where it was not fitted."""
        return next((q for target, q in self.conformal if abs(target - coverage) < 1e-9), None)

    def raps_fit(self, coverage: float) -> RapsFit | None:
        """The adaptive sets of a target coverage, or None where they were not fitted."""
        return next((fit for fit in self.raps if abs(fit.coverage - coverage) < 1e-9), None)


def to_arrays(reference: Reference) -> Arrays:
    """Flat named arrays, for a safetensors file."""
    arrays: Arrays = {
        "counts": np.array([reference.count_a, reference.count_b], dtype=np.int64),
        "temperature": np.array([reference.temperature]),
        "combined": reference.combined,
        "conformal": np.array(reference.conformal, dtype=np.float64).reshape(-1, 2),
        "confidence": np.array(
            [reference.confidence.counts, reference.confidence.correct], dtype=np.int64
        ),
        "class_distances/lengths": np.array(
            [len(values) for values in reference.class_distances], dtype=np.int64
        ),
        "class_distances/values": np.concatenate((*reference.class_distances, np.empty(0))),
    }
    for field in fields(FittedStatistics):
        values = getattr(reference.fitted, field.name).numpy()
        # Rounded to float32 when they were fitted.
        small = field.name.startswith("activation_")
        arrays[f"fitted/{field.name}"] = values.astype(np.float32) if small else values
    test = reference.combined_test
    for field in fields(DensityOfStates):
        arrays[f"states/{field.name}"] = getattr(test.states, field.name)
    for name, tail in test.tails.items():
        arrays[f"tail/{name}"] = tail.values
    for name, column in test.alone.items():
        arrays[f"alone/{name}"] = np.array([column], dtype=np.int64)
    for name, columns in test.groups.items():
        arrays[f"columns/{name}"] = np.array(columns, dtype=np.int64)
    if reference.raps:
        arrays["raps"] = np.array(
            [
                (fit.coverage, fit.quantile, fit.config.k_reg, fit.config.penalty)
                for fit in reference.raps
            ]
        )
    if reference.held_out is not None:
        arrays |= {
            f"held_out/{name}": values
            for name, values in held_out.to_arrays(reference.held_out).items()
        }
    for name, centre in reference.centres.items():
        arrays[f"centre/{name}"] = np.array([centre])
    for name, values in reference.ranks.items():
        arrays[f"rank/{name}"] = values
    for name, values in reference.groups.items():
        arrays[f"group/{name}"] = values
    return {name: np.ascontiguousarray(values) for name, values in arrays.items()}


def from_arrays(arrays: Arrays) -> Reference:
    """What `to_arrays` wrote.

    Raises:
        BundleFormatError: An entry is missing or malformed.
    """
    try:
        lengths = arrays["class_distances/lengths"].tolist()
        distances = np.split(_floats(arrays["class_distances/values"]), np.cumsum(lengths)[:-1])
        counts, correct = arrays["confidence"].tolist()
        return Reference(
            count_a=int(arrays["counts"][0]),
            count_b=int(arrays["counts"][1]),
            temperature=float(_floats(arrays["temperature"])[0]),
            fitted=FittedStatistics(
                **{
                    field.name: torch.from_numpy(_floats(arrays[f"fitted/{field.name}"]))
                    for field in fields(FittedStatistics)
                }
            ),
            centres={name: float(values[0]) for name, values in _under(arrays, "centre/").items()},
            combined_test=CombinedTest(
                states=DensityOfStates(
                    **{
                        field.name: _floats(arrays[f"states/{field.name}"])
                        for field in fields(DensityOfStates)
                    }
                ),
                alone={name: int(v[0]) for name, v in _integers(arrays, "alone/").items()},
                groups={
                    name: tuple(v.tolist()) for name, v in _integers(arrays, "columns/").items()
                },
                tails={name: Tail.fit(values) for name, values in _under(arrays, "tail/").items()},
            ),
            ranks=_under(arrays, "rank/"),
            combined=_floats(arrays["combined"]),
            groups=_under(arrays, "group/"),
            class_distances=tuple(distances),
            conformal=tuple((float(a), float(q)) for a, q in _floats(arrays["conformal"])),
            confidence=ConfidenceBins(counts=tuple(counts), correct=tuple(correct)),
            held_out=_held_out(arrays),
            raps=_raps(arrays),
        )
    except KeyError as error:
        raise BundleFormatError(
            f"reference.safetensors: entry {error.args[0]!r} is missing; the calibration is "
            "incomplete; calibrate again"
        ) from error
    except (ValueError, IndexError, TypeError, DataError, ConfigError) as error:
        raise BundleFormatError(
            f"reference.safetensors: malformed entry ({error}); calibrate again"
        ) from error


def _under(arrays: Arrays, prefix: str) -> dict[str, FloatArray]:
    return {
        name.removeprefix(prefix): _floats(values)
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _integers(arrays: Arrays, prefix: str) -> dict[str, npt.NDArray[np.int64]]:
    return {
        name.removeprefix(prefix): np.asarray(values, dtype=np.int64)
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def _held_out(arrays: Arrays) -> HeldOutScores | None:
    own = {
        name.removeprefix("held_out/"): values
        for name, values in arrays.items()
        if name.startswith("held_out/")
    }
    return held_out.from_arrays(own) if own else None


def _raps(arrays: Arrays) -> tuple[RapsFit, ...]:
    return tuple(
        RapsFit(
            coverage=float(coverage),
            quantile=float(quantile),
            config=RapsConfig(k_reg=int(k_reg), penalty=float(penalty)),
        )
        for coverage, quantile, k_reg, penalty in _floats(arrays.get("raps", np.empty((0, 4))))
    )


def _floats(values: npt.NDArray[np.generic]) -> FloatArray:
    return np.asarray(values, dtype=np.float64)
