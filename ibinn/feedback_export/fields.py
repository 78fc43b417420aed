"""Values out of JSON that somebody else wrote, each of the kind that is expected or an error that
says where."""

from __future__ import annotations

import json
import math
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from ibinn.errors import DataError

_E = TypeVar("_E", bound=StrEnum)


class Fields:
    """An object of JSON.

    Args:
        values: As `json` read it.
        where: File, line and keys that lead to it, for errors.

    Raises:
        DataError: It is not an object; every method raises it for a key that is missing or a value
            of another kind.
    """

    __slots__ = ("_values", "where")

    def __init__(self, values: object, *, where: str) -> None:
        if not isinstance(values, dict):
            raise DataError(f"{where} is {_shown(values)}; expected an object {{…}}")
        self._values: dict[str, Any] = values
        self.where = where

    @classmethod
    def parse(cls, text: str, *, where: str) -> Fields:
        """The object written in a text."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where} is not JSON ({error}); it was cut off or changed: export anew"
            ) from error
        return cls(values, where=where)

    def is_null(self, key: str) -> bool:
        """Whether nothing is said."""
        return self._value(key) is None

    def text(self, key: str) -> str:
        """A text."""
        value = self._value(key)
        if isinstance(value, str):
            return value
        raise self._wrong(key, value, "a text")

    def text_or_none(self, key: str) -> str | None:
        """A text or null."""
        return None if self.is_null(key) else self.text(key)

    def whole(self, key: str) -> int:
        """A whole number from 0."""
        value = self._value(key)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise self._wrong(key, value, "a whole number from 0")

    def chance(self, key: str) -> float:
        """A chance: a number from 0 to 1."""
        value = self._value(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and math.isfinite(value) and 0 <= value <= 1:
            return float(value)
        raise self._wrong(key, value, "a number from 0 to 1")

    def chance_or_none(self, key: str) -> float | None:
        """A chance or null."""
        return None if self.is_null(key) else self.chance(key)

    def yes_or_no(self, key: str) -> bool:
        """True or false."""
        value = self._value(key)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, value, "true or false")

    def yes_or_no_or_none(self, key: str) -> bool | None:
        """True, false or null."""
        return None if self.is_null(key) else self.yes_or_no(key)

    def time(self, key: str) -> datetime:
        """A time with its offset."""
        value = self._value(key)
        try:
            found = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            found = None
        if found is None or found.tzinfo is None:
            raise self._wrong(key, value, "a time such as 2027-01-31T12:00:00+00:00")
        return found

    def time_or_none(self, key: str) -> datetime | None:
        """A time or null."""
        return None if self.is_null(key) else self.time(key)

    def one_of(self, key: str, names: type[_E]) -> _E:
        """A value of an enumeration."""
        value = self._value(key)
        try:
            return names(value)
        except ValueError:
            raise self._wrong(key, value, " or ".join(repr(name.value) for name in names)) from None

    def one_of_or_none(self, key: str, names: type[_E]) -> _E | None:
        """A value of an enumeration, or null."""
        return None if self.is_null(key) else self.one_of(key, names)

    def inner(self, key: str) -> Fields:
        """An object in this one."""
        return Fields(self._value(key), where=f"{self.where}: {key}")

    def several(self, key: str) -> list[Fields]:
        """A list of objects."""
        value = self._value(key)
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        return [
            Fields(item, where=f"{self.where}: {key}[{place}]") for place, item in enumerate(value)
        ]

    def _value(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise DataError(f"{self.where}: {key} is missing; export anew") from None

    def _wrong(self, key: str, value: object, expected: str) -> DataError:
        return DataError(f"{self.where}: {key} is {_shown(value)}; expected {expected}")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
