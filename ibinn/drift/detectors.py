"""Sequential tests for drift: alarms that are rarely false however long the traffic is stationary.

Three questions are asked of the images one after the other:

- ``p_values``: has the score that the verdict ranks changed, in either direction or in spread?
- ``covered_confidence``: has the confidence of accepted answers changed?
- ``prior``: has the share of the classes changed, as the model names them?

Each is a conformal test martingale: the image is ranked among the calibration images and all
images before it (`ibinn.drift.ranks`), and a capital bets on the rank (`ibinn.drift.betting`).

**Promised.** If the images that are observed and the images of calibration part B are
exchangeable, the chance that *any* of the three *ever* alarms, in a stream without end, is at most
`false_alarm_rate`. Each has a third of it (Bonferroni) and alarms when its capital reaches
3/`false_alarm_rate` (Ville). That the calibration set is finite is in the promise. The promise is
on average over calibration sets, as for the p-values themselves: given an unlucky calibration set
the chance is larger. It is for one process and one start: w processes, or w starts after
acknowledged alarms, have at most w times the chance.

**Not promised.** That a drift is found. What leaves score, confidence and named classes
distributed as before is not seen: a change of the *labels* alone (concept drift) never is, because
no label is looked at. A slow drift is partly learned as normal. Images of one scene are not
exchangeable with independent ones: tell them apart by group (`ibinn.drift.groups`). An alarm says
that something changed, not that answers are worse.

Shapes: N images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ibinn.drift.betting import Capital
from ibinn.drift.observation import BoolArray, FloatArray, Observation, Observations
from ibinn.drift.ranks import OnlineRanks
from ibinn.drift.reference import DriftReference
from ibinn.errors import ConfigError, DataError

P_VALUES: Final = "p_values"
COVERED_CONFIDENCE: Final = "covered_confidence"
PRIOR: Final = "prior"

_FORMAT: Final = "ibinn.drift.detector/1"
_SMALLEST: Final = 1e-16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What a detector looks at.

    Attributes:
        value: The number of one image that is ranked, or None where it is not asked.
        values: The same of many, (N,).
        asked: Which of them are asked, (N,).
        beta_bets: Whether numbers have an order that means something.
    """

    value: Callable[[Observation], float | None]
    values: Callable[[Observations], FloatArray]
    asked: Callable[[Observations], BoolArray]
    beta_bets: bool


def _log_odds(observation: Observation) -> float | None:
    """log(c/(1 - c)): half precision tells 0.999 from 0.9999 this way."""
    if not observation.accepted or not math.isfinite(observation.score):
        return None
    c = observation.confidence
    return math.log(max(c, _SMALLEST)) - math.log(max(1.0 - c, _SMALLEST))


def _log_odds_of(observations: Observations) -> FloatArray:
    c = observations.confidence
    odds: FloatArray = np.log(np.maximum(c, _SMALLEST)) - np.log(np.maximum(1.0 - c, _SMALLEST))
    return odds


def _finite(observations: Observations) -> BoolArray:
    return np.isfinite(observations.score)


_QUESTIONS: Final[Mapping[str, _Question]] = MappingProxyType(
    {
        P_VALUES: _Question(
            value=lambda o: o.score if math.isfinite(o.score) else None,
            values=lambda o: o.score,
            asked=_finite,
            beta_bets=True,
        ),
        COVERED_CONFIDENCE: _Question(
            value=_log_odds,
            values=_log_odds_of,
            asked=lambda o: o.accepted & _finite(o),
            beta_bets=True,
        ),
        PRIOR: _Question(
            value=lambda o: float(o.class_index) if math.isfinite(o.score) else None,
            values=lambda o: o.class_index.astype(np.float64),
            asked=_finite,
            beta_bets=False,
        ),
    }
)

NAMES: Final = tuple(_QUESTIONS)


class Detector:
    """One sequential test; `detectors` makes all of them.

    Not thread-safe: observe from one thread.

    Args:
        name: One of `NAMES`.
        reference: Calibration images.
        false_alarm_rate: Of this detector alone, in (0, 1).
        rng: Breaks ties between ranks.
    """

    def __init__(
        self,
        name: str,
        reference: DriftReference,
        *,
        false_alarm_rate: float,
        rng: np.random.Generator,
    ) -> None:
        self.name = name
        self.log_threshold = -math.log(_checked_rate(false_alarm_rate))
        self._question = _question(name)
        seen = reference.observed
        self._ranks = OnlineRanks(
            self._question.values(seen)[self._question.asked(seen)], rng
        )  # fmt: skip
        self._capital = Capital(beta_bets=self._question.beta_bets)
        self._reference = reference.digest()

    @property
    def count(self) -> int:
        """Images that it was asked about since it began."""
        return self._capital.count

    @property
    def log_evidence(self) -> float:
        """log M_t, the logarithm of its capital now; it falls again where nothing changed."""
        return self._capital.log_value

    @property
    def alarmed(self) -> bool:
        """Whether the capital ever reached the threshold; stays true."""
        return self._capital.highest >= self.log_threshold

    def observe(self, observation: Observation) -> None:
        """One more image."""
        value = self._question.value(observation)
        if value is not None:
            self._capital.observe(self._ranks.observe(value))

    def observe_many(self, observations: Observations) -> FloatArray:
        """What `observe` makes of one image after the other, faster.

        Returns:
            `log_evidence` after each image, (N,).
        """
        asked = self._question.asked(observations)
        before = self.log_evidence
        u = self._ranks.observe_many(self._question.values(observations)[asked])
        path = np.concatenate(([before], self._capital.observe_many(u)))
        found: FloatArray = path[np.cumsum(asked)]
        return found

    def to_state(self) -> bytes:
        """All that is needed to go on as if there had been no interruption; no pickle."""
        about = {
            "format": _FORMAT,
            "name": self.name,
            "reference": self._reference,
            "generator": self._ranks.rng.bit_generator.state,
        }
        arrays: dict[str, Any] = {**self._ranks.to_arrays(), **self._capital.to_arrays()}
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
        buffer = BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_state(
        cls, state: bytes, *, reference: DriftReference, false_alarm_rate: float
    ) -> Detector:
        """Go on where `to_state` was called.

        Args:
            state: From `to_state`.
            reference: The calibration images that it was started with.
            false_alarm_rate: Of this detector alone; a state made under another rate is held
                against this one, the evidence is the same.

        Raises:
            DataError: Damaged, of another version, or of another calibration; begin anew.
        """
        about, arrays = _read(state)
        if about.get("reference") != reference.digest():
            raise DataError(
                "the detector's state is of another calibration than this bundle's; begin anew"
            )
        generator = np.random.PCG64()
        try:
            generator.state = about["generator"]
            rng = np.random.Generator(generator)
            detector = cls(
                str(about["name"]), reference, false_alarm_rate=false_alarm_rate, rng=rng
            )
            detector._ranks = OnlineRanks.from_arrays(
                np.asarray(arrays["cells"], dtype=np.int64),
                np.asarray(arrays["counts"], dtype=np.int64),
                rng,
            )
            detector._capital.restore(arrays)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"the detector's state is damaged ({error!r}); begin anew") from error
        return detector


def detectors(
    reference: DriftReference, *, false_alarm_rate: float, seed: int
) -> tuple[Detector, ...]:
    """All detectors, in the order of `NAMES`.

    Args:
        reference: Calibration images.
        false_alarm_rate: Chance that any of them ever alarms while nothing changes, in (0, 1);
            each has an equal part of it, see `rate_of_each`.
        seed: Breaks ties between ranks; workers of one server should have different ones.

    Raises:
        ConfigError: The rate is not in (0, 1).
    """
    rate = rate_of_each(false_alarm_rate)
    sources = np.random.SeedSequence(seed).spawn(len(NAMES))
    return tuple(
        Detector(
            name,
            reference,
            false_alarm_rate=rate,
            rng=np.random.Generator(np.random.PCG64(source)),
        )
        for name, source in zip(NAMES, sources, strict=True)
    )


def rate_of_each(false_alarm_rate: float) -> float:
    """The false-alarm rate of one detector, so that all together keep theirs (Bonferroni).

    >>> round(rate_of_each(0.03), 3)
    0.01
    """
    return _checked_rate(false_alarm_rate) / len(NAMES)


def _checked_rate(rate: float) -> float:
    if not 0.0 < rate < 1.0:
        raise ConfigError(
            f"the false-alarm rate is {rate:g}; expected a number in (0, 1), such as 0.05"
        )
    return rate


def _question(name: str) -> _Question:
    if name not in _QUESTIONS:
        raise ConfigError(f"detector is {name!r}; expected one of {', '.join(NAMES)}")
    return _QUESTIONS[name]


def _read(state: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]]]:
    try:
        with np.load(BytesIO(state), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays.pop("about").tobytes())
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise DataError(
            f"{len(state)} bytes are not a readable detector's state ({error}); begin anew"
        ) from error
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        raise DataError(f"the detector's state is not of format {_FORMAT!r}; begin anew")
    return about, arrays
