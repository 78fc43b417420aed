"""The models in memory, and which of them answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ibinn.errors import NotServingError, UnknownModelError
from ibinn.serving import ModelRole, ServedModel
from service.models import mode
from service.models.served import Served

_SHOWN = 12
"""Digits of a digest that a message shows."""


class Models:
    """The loaded models of one process; used from the event loop alone.

    A model that is arranged away stays usable for whoever holds it, and its memory is free once
    nobody does.

    Attributes:
        mode: What is done with every answer.
        listeners: Called with a model that becomes the default, before it answers.
    """

    def __init__(self) -> None:
        self.mode = mode.NORMAL
        self.listeners: list[Callable[[Served], None]] = []
        self._default: Served | None = None
        self._previous: Served | None = None
        self._shadow: Served | None = None
        self._pinned: list[Served] = []
        """The least recently asked one first."""

    @property
    def default(self) -> Served:
        """The model that answers calls that name none.

        Raises:
            NotServingError: None is loaded yet.
        """
        if self._default is None:
            raise NotServingError("the server is still loading its model; try again")
        return self._default

    @property
    def previous(self) -> Served | None:
        """The default model before this one."""
        return self._previous

    @property
    def shadow(self) -> Served | None:
        """The model that answers silently."""
        return self._shadow

    @property
    def pinned(self) -> tuple[Served, ...]:
        """The models that only calls that name them ask, the least recently asked one first."""
        return tuple(self._pinned)

    def resolve(self, selector: str) -> Served:
        """The model that a call names by the first digits of its weights digest; "": the default.

        Of models with the same weights and different calibrations the default one is meant, then
        the others in the order of `ModelRole`.

        Raises:
            NotServingError: None is loaded yet.
            UnknownModelError: No loaded model begins so, or models of different weights do.
        """
        default = self.default
        if not selector or default.digest == selector:
            return default
        found = [served for served, _ in self.served() if served.digest.startswith(selector)]
        if len({served.digest for served in found}) != 1:
            what = "more than one model" if found else "no model"
            raise UnknownModelError(
                f"{what} that begins with {selector!r} is loaded; loaded are {self._in_words()}; "
                "leave model empty, or name one of these by more digits"
            )
        chosen = found[0]
        if chosen in self._pinned:
            self._pinned.remove(chosen)
            self._pinned.append(chosen)
        return chosen

    def served(self) -> tuple[tuple[Served, ModelRole], ...]:
        """Every loaded model once, with the first of its roles; the default one first."""
        placed = [
            (self._default, ModelRole.DEFAULT),
            (self._previous, ModelRole.PREVIOUS),
            (self._shadow, ModelRole.SHADOW),
            *((served, ModelRole.PINNED) for served in self._pinned),
        ]
        roles: dict[Served, ModelRole] = {}
        for served, role in placed:
            if served is not None:
                roles.setdefault(served, role)
        return tuple(roles.items())

    def listed(self) -> tuple[ServedModel, ...]:
        """What `served` returns, as it is told."""
        return tuple(described(served, role) for served, role in self.served())

    def arrange(
        self,
        *,
        default: Served,
        previous: Served | None = None,
        shadow: Served | None = None,
        pinned: Sequence[Served] = (),
    ) -> None:
        """Holds these models and no others, in one step.

        A pinned model that was pinned before keeps its place in the order of asking; a new one is
        the most recently asked.
        """
        if default is not self._default:
            for tell in self.listeners:
                tell(default)
        before = {served: place for place, served in enumerate(self._pinned)}
        self._default, self._previous, self._shadow = default, previous, shadow
        self._pinned = sorted(
            (served for served in pinned if served not in (default, previous, shadow)),
            key=lambda served: before.get(served, len(before)),
        )

    def set_default(self, served: Served) -> None:
        """Makes a model the one that answers; the one before it becomes the previous one."""
        before = self._default if self._default is not served else self._previous
        self.arrange(
            default=served, previous=before, shadow=self._shadow, pinned=tuple(self._pinned)
        )

    def _in_words(self) -> str:
        return ", ".join(
            f"{served.digest[:_SHOWN]} ({role.value}"
            + (f", bundle {served.bundle})" if served.bundle else ")")
            for served, role in self.served()
        )


def described(served: Served, role: ModelRole) -> ServedModel:
    """A loaded model and what it is there for, as it is told."""
    return ServedModel(
        name=served.info.name, versions=served.info.versions, role=role, bundle=served.bundle
    )
