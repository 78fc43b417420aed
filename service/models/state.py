"""What operators told the server, as a value and as JSON.

All workers of a server share it (`service.models.store`), and it outlives a restart.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from ibinn.errors import ConfigError
from service.models.candidates import Judged, from_values, to_values
from service.models.mode import NORMAL, ModeState
from service.models.served import Served

FORMAT_VERSION = 1

_CANDIDATES = 20
_JUDGED = 1000
"""How many are remembered; the oldest are forgotten first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model that passed its checks.

    Attributes:
        bundle: Name in the models folder; empty for the bundle of the settings.
        fingerprint: Of the bundle's content, see `service.models.folder`; empty like `bundle`.
        weights: Digest of its weights.
        calibration: Digest of its calibration.
    """

    bundle: str
    fingerprint: str
    weights: str
    calibration: str

    @classmethod
    def of(cls, served: Served) -> Self:
        """The entry of a loaded model."""
        return cls(
            bundle=served.bundle if served.fingerprint else "",
            fingerprint=served.fingerprint,
            weights=served.info.versions.weights,
            calibration=served.info.versions.calibration,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What operators told.

    Attributes:
        generation: Counts the changes of models and mode.
        default: None: the bundle of the settings, and nothing was told yet.
        previous: What a rollback returns to.
        shadow: What answers silently.
        shadow_share: Share of the calls that it answers.
        pinned: What answers calls that name it.
        mode: What is done with every answer.
        candidates: The last ones, newest first.
        judged: Fingerprints of bundles that were candidates or were passed over; the watch leaves
            them alone. The newest last.
    """

    generation: int = 0
    default: Entry | None = None
    previous: Entry | None = None
    shadow: Entry | None = None
    shadow_share: float = 0.0
    pinned: tuple[Entry, ...] = ()
    mode: ModeState = NORMAL
    candidates: tuple[Judged, ...] = ()
    judged: tuple[str, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """Every model that is to be loaded, once, the default one first."""
        placed = (self.default, self.previous, self.shadow, *self.pinned)
        return tuple(dict.fromkeys(entry for entry in placed if entry is not None))

    def with_candidate(self, judged: Judged) -> State:
        """The state after a candidate was checked."""
        kept = (judged, *self.candidates)[:_CANDIDATES]
        return dataclasses.replace(self, candidates=kept).with_judged(judged.fingerprint)

    def with_judged(self, *fingerprints: str) -> State:
        """The state in which the watch leaves these alone."""
        others = (known for known in self.judged if known not in fingerprints)
        return dataclasses.replace(self, judged=(*others, *fingerprints)[-_JUDGED:])

    def follows(self, before: State) -> State:
        """This state with the number that it has after `before`.

        The number counts what all workers must agree on; what became of candidates is not of it.
        """
        same = dataclasses.replace(
            self, generation=before.generation, candidates=before.candidates, judged=before.judged
        )
        step = 0 if same == before else 1
        return dataclasses.replace(self, generation=before.generation + step)


def to_json(state: State) -> str:
    """The text of a state file."""
    values = dataclasses.asdict(dataclasses.replace(state, candidates=()))
    values["candidates"] = [to_values(judged) for judged in state.candidates]
    return json.dumps({"format_version": FORMAT_VERSION, **values}, indent=1) + "\n"


def from_json(text: str) -> State:
    """What `to_json` wrote.

    Raises:
        ConfigError: Not such a text, or one of another format version.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        version = values.pop("format_version")
        if version != FORMAT_VERSION:
            raise ConfigError(f"its format version is {version!r}, expected {FORMAT_VERSION}")
        return State(
            generation=int(values.pop("generation")),
            default=_entry(values.pop("default")),
            previous=_entry(values.pop("previous")),
            shadow=_entry(values.pop("shadow")),
            shadow_share=float(values.pop("shadow_share")),
            pinned=tuple(Entry(**entry) for entry in values.pop("pinned")),
            mode=ModeState(**values.pop("mode")),
            candidates=tuple(from_values(found) for found in values.pop("candidates")),
            judged=tuple(values.pop("judged")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"it is damaged ({type(error).__name__}: {error})") from error


def _entry(values: dict[str, str] | None) -> Entry | None:
    return None if values is None else Entry(**values)
