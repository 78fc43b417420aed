"""The models in memory, and which of them answers."""

from __future__ import annotations

from ibinn.errors import NotServingError, UnknownModelError
from service.models.served import Served


class Models:
    """The loaded models of one process."""

    def __init__(self) -> None:
        self._default: Served | None = None

    @property
    def default(self) -> Served:
        """The model that answers calls that name none.

        Raises:
            NotServingError: None is loaded yet.
        """
        if self._default is None:
            raise NotServingError("the server is still loading its model; try again")
        return self._default

    def resolve(self, selector: str) -> Served:
        """The model that a call names by the first digits of its weights digest; "": the default.

        Raises:
            NotServingError: None is loaded yet.
            UnknownModelError: No loaded model, or more than one, begins so.
        """
        default = self.default
        if not selector or default.digest.startswith(selector):
            return default
        raise UnknownModelError(
            f"no model {selector!r} is loaded; loaded is {default.digest[:12]} (default); "
            "leave model empty, or name a loaded one"
        )

    def set_default(self, served: Served) -> None:
        """Makes a model the one that answers."""
        self._default = served
