"""What a candidate must show: margins, bars and the level of the bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ibinn.errors import ConfigError
from training.promotion.paired import LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By how much a candidate may be worse; fractions, not percent.

    Attributes:
        accuracy: Of the share of right answers.
        calibration: Of the top-label ECE.
        false_positives: Of the share of in-scope images that are flagged.
        misses: Of the share of each out-of-distribution set that is not flagged.
        recall: Of each class's share of right answers.
        new_class_recall: Least share of a new class's images that are answered rightly and not
            flagged, in place of a comparison.
        level: Of the one-sided bounds; 0.05 for 95 %.
    """

    accuracy: float = 0.01
    calibration: float = 0.02
    false_positives: float = 0.01
    misses: float = 0.03
    recall: float = 0.05
    new_class_recall: float = 0.8
    level: float = LEVEL

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not isinstance(value, int | float) or not 0.0 < value < 1.0:
                raise ConfigError(
                    f"{entry.name} is {value!r}; expected a fraction in (0, 1), such as "
                    f"{entry.default}"
                )
        if not 0.002 <= self.level <= LEVEL:
            raise ConfigError(
                f"level is {self.level:g}; expected 0.002 … {LEVEL:g}: no bound is weaker than 95 %"
            )
