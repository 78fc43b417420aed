"""What a user wants of a policy: the costs file, TOML, or JSON of the same entries.

    # Costs in one unit of your choice; all three are needed.
    error = 1.0             # acting on a wrong class
    defer = 0.2             # asking a person
    reject = 0.05           # asking for another picture
    unknown = 1.0           # acting on an image of no class; default: as `error`
    alpha = 0.02            # significance of the combined test; default: the bundle's

    [confusions.cat]        # where the truth is cat,
    dog = 0.1               # acting on dog costs 0.1 instead of `error`

    [priors]                # class shares where it is used; default: as in calibration
    cat = 0.4
    dog = 0.6

    [class_alpha]           # class-wise significances; default: none
    cat = 0.05

K classes.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibinn.errors import ConfigError
from ibinn.policy.values import Costs

_NEEDED = ("error", "defer", "reject")
_NUMBERS = (*_NEEDED, "unknown", "alpha")
_TABLES = ("confusions", "priors", "class_alpha")
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is wanted of a policy.

    Attributes:
        costs: What actions cost.
        alpha: Significance of the combined test, or None: the bundle's.
        priors: Class shares of the deployment (K), or None.
        class_alphas: Significance per class, None where a class has none; empty where none has.
    """

    costs: Costs
    alpha: float | None = None
    priors: tuple[float, ...] | None = None
    class_alphas: tuple[float | None, ...] = ()


def read(path: Path, classes: Sequence[str]) -> Terms:
    """Read a costs file.

    Args:
        path: The file, JSON if its name ends in ``.json``; this module's docstring has an example.
        classes: Class names of the model, in index order.

    Raises:
        ConfigError: Not readable, an unknown class or entry, or a value out of range; the message
            names it.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"costs file {path} is larger than {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"costs file {path} cannot be read ({error}); `ibinn policy fit --help` shows one"
        ) from error
    try:
        return parse_json(text, classes) if path.suffix == ".json" else parse(text, classes)
    except ConfigError as error:
        raise ConfigError(f"costs file {path}: {error}") from error


def parse(text: str, classes: Sequence[str]) -> Terms:
    """The terms in the text of a costs file; see `read`.

    >>> terms = parse("error = 1\\ndefer = 0.2\\nreject = 0.1\\n[confusions.a]\\nb = 3", "ab")
    >>> terms.costs.act
    ((0.0, 3.0), (1.0, 0.0))
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"not readable as TOML ({error})") from error
    return _terms(values, classes)


def parse_json(text: str, classes: Sequence[str]) -> Terms:
    """The terms in the text of a costs file in JSON; see `read`."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not readable as JSON ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"holds a {type(values).__name__}; expected an object of entries")
    return _terms(values, classes)


def _terms(values: Mapping[str, Any], classes: Sequence[str]) -> Terms:
    known = (*_NUMBERS, *_TABLES)
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"entry {unknown[0]!r} is unknown; expected: {', '.join(known)}")
    if missing := [name for name in _NEEDED if name not in values]:
        raise ConfigError(f"entry {missing[0]!r} is missing; expected: {', '.join(_NEEDED)}")
    wrong = _cost(values["error"], "error")
    act = [[wrong if i != j else 0.0 for j in range(len(classes))] for i in range(len(classes))]
    for truth, row in _table(values, "confusions", classes).items():
        if not isinstance(row, dict):
            raise ConfigError(f"confusions.{truth} is {row!r}; expected classes with their costs")
        for acted, cost in row.items():
            where = f"confusions.{truth}.{acted}"
            act[classes.index(truth)][_index(acted, classes, where)] = _cost(cost, where)
    shares = _table(values, "priors", classes)
    if shares and (missing := [name for name in classes if name not in shares]):
        raise ConfigError(f"priors lack {missing[0]!r}; expected a share of every class, 0 allowed")
    found = {name: _share(share, f"priors.{name}") for name, share in shares.items()}
    alphas = _table(values, "class_alpha", classes)
    return Terms(
        costs=Costs(
            act=tuple(tuple(row) for row in act),
            defer=_cost(values["defer"], "defer"),
            reject=_cost(values["reject"], "reject"),
            unknown=_cost(values.get("unknown", wrong), "unknown"),
        ),
        alpha=_significance(values["alpha"], "alpha") if "alpha" in values else None,
        priors=_normalised([found[name] for name in classes]) if found else None,
        class_alphas=tuple(
            _significance(alphas[name], f"class_alpha.{name}") if name in alphas else None
            for name in classes
        )
        if alphas
        else (),
    )


def _table(values: Mapping[str, Any], name: str, classes: Sequence[str]) -> dict[str, Any]:
    table = values.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name} is {table!r}; expected a table [{name}] of classes")
    for entry in table:
        _index(entry, classes, f"{name}.{entry}")
    return table


def _index(name: str, classes: Sequence[str], where: str) -> int:
    if name not in classes:
        raise ConfigError(f"{where}: the model has no class {name!r}; it has {', '.join(classes)}")
    return list(classes).index(name)


def _number(value: object, where: str, expected: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        raise ConfigError(f"{where} is too large; expected {expected}") from None
    raise ConfigError(f"{where} is {value!r}; expected {expected}")


def _cost(value: object, where: str) -> float:
    cost = _number(value, where, "a cost of 0 or more")
    if cost < 0:
        raise ConfigError(f"{where} is {cost:g}; expected a cost of 0 or more")
    return cost


def _share(value: object, where: str) -> float:
    share = _number(value, where, "a share from 0 to 1")
    if not 0 <= share <= 1:
        raise ConfigError(f"{where} is {share:g}; expected a share from 0 to 1")
    return share


def _significance(value: object, where: str) -> float:
    alpha = _number(value, where, "a significance between 0 and 1")
    if not 0 < alpha < 1:
        raise ConfigError(f"{where} is {alpha:g}; expected a significance between 0 and 1")
    return alpha


def _normalised(shares: Sequence[float]) -> tuple[float, ...]:
    total = math.fsum(shares)
    if abs(total - 1) > 1e-3:
        raise ConfigError(f"priors add up to {total:g}; expected 1")
    return tuple(share / total for share in shares)
