"""Changes to a file of tokens that leave its other lines, comments included, as they are."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

import tomlkit
from tomlkit.items import AoT, Table

from ibinn.errors import ConfigError
from service.access import grants
from service.access.grants import Grants
from service.call import Role

_MODE = 0o600


def new_entry(
    *,
    kind: str,
    name: str,
    key: str,
    roles: Sequence[Role],
    rate: float | None,
    burst: int | None,
    expires: date | datetime | None,
) -> str:
    """The text of an entry.

    Args:
        kind: ``token`` or ``certificate``.
        name: Of the holder.
        key: sha256 (hex) of the token, or the certificate's subject.
        roles: What the holder may do.
        rate: Images per second; None: the server's default.
        burst: Images at once; None: the server's default.
        expires: From when on it is refused; None: never.

    Raises:
        ConfigError: A value is not valid.
    """
    table = tomlkit.table()
    table.add("name", name)
    table.add("sha256" if kind == "token" else "subject", key)
    table.add("roles", [role.value for role in roles])
    for option, value in (("rate", rate), ("burst", burst), ("expires", expires)):
        if value is not None:
            table.add(option, value)
    text = _with_table(tomlkit.document(), kind, table)
    grants.parse(text, where="the new entry")
    return text


def added(text: str, entry: str, *, path: Path) -> str:
    """The text of a file of tokens with one more entry at its end.

    Raises:
        ConfigError: The result would not be valid: the name is taken, or the file is not valid.
    """
    grants.parse(text, where=f"the file of tokens {path}")
    apart = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
    result = f"{text}{apart}{entry}"
    grants.parse(result, where=f"the file of tokens {path} with the new entry")
    return result


def removed(text: str, name: str, *, path: Path) -> str:
    """The text of a file of tokens without the entry of a name.

    Raises:
        ConfigError: There is no such entry, or the file is not valid.
    """
    known = grants.parse(text, where=f"the file of tokens {path}")
    if name not in (names := names_of(known)):
        raise ConfigError(
            f"the file of tokens {path} has no entry {name!r}; it has {', '.join(names) or 'none'}"
        )
    document = tomlkit.parse(text)
    for kind in ("token", "certificate"):
        tables = document.get(kind)
        if not isinstance(tables, AoT):
            continue
        for index, table in enumerate(tables):
            if table["name"] == name:
                del tables[index]
                break
        if not tables:
            del document[kind]
    result = tomlkit.dumps(document)
    grants.parse(result, where=f"the file of tokens {path} without {name!r}")
    return result


def names_of(known: Grants) -> list[str]:
    """The names of all entries, in order."""
    return [
        *(grant.name for _, grant in known.tokens),
        *(grant.name for grant in known.certificates.values()),
    ]


def write(text: str, path: Path) -> None:
    """Write a file of tokens in one step, so that a server never reads half of it.

    A new file is for its owner alone; one that is there keeps its mode. A link is followed.

    Raises:
        ConfigError: It cannot be written.
    """
    target = path.resolve()
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else _MODE
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise ConfigError(
            f"the file of tokens {path} cannot be written ({error.strerror}); name a file in a "
            "folder that is there and yours"
        ) from error


def _with_table(document: tomlkit.TOMLDocument, kind: str, table: Table) -> str:
    tables = tomlkit.aot()
    tables.append(table)
    document.append(kind, tables)
    return tomlkit.dumps(document)
