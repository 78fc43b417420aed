"""Which loaded model a name and a version mean."""

from __future__ import annotations

import re

from ibinn.errors import UnknownModelError
from service.models.registry import Models
from service.models.served import Served
from service.oip.text import shown

ALIAS = "ibinn"
"""Means the default model, or with a version any loaded one, whatever its bundle is called."""

_VERSION = re.compile(r"[0-9a-f]{8,64}")
_SHOWN = 12


def find(models: Models, name: str, version: str) -> Served:
    """The model that a request names.

    Args:
        models: The loaded ones.
        name: A bundle's name, or `ALIAS`.
        version: First digits of a weights digest; "": the default model if it has the name, else
            the only one that has.

    Raises:
        NotServingError: None is loaded yet.
        UnknownModelError: There is no such model, or several.
    """
    default = models.default
    if not version and name in (ALIAS, default.info.name):
        return default
    if version and _VERSION.fullmatch(version) is None:
        raise UnknownModelError(
            f"no version {shown(version)}; a version is the first 8 to 64 digits of a weights "
            "digest, and an empty one the default model"
        )
    found = [served for served in named(models, name) if served.digest.startswith(version)]
    if len({served.digest for served in found}) != 1:
        loaded = ", ".join(
            f"{served.info.name} {served.digest[:_SHOWN]}" for served, _ in models.served()
        )
        what = "more than one model" if found else "no model"
        raise UnknownModelError(
            f"{what} named {shown(name)} with version {shown(version)} is loaded; loaded are "
            f"{loaded}; {ALIAS!r} means the default one"
        )
    return found[0]


def named(models: Models, name: str) -> list[Served]:
    """The loaded models that have a name, the default one first."""
    return [served for served, _ in models.served() if name in (ALIAS, served.info.name)]
