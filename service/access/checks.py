"""Everything that is wrong or worth a warning about access, before the server starts."""

from __future__ import annotations

from ibinn.errors import ConfigError
from service.access import exposure, grants, signatures, tls
from service.settings import Settings


def problems(settings: Settings) -> list[str]:
    """Every reason for which access cannot be served as the settings say, a sentence each."""
    found = [*exposure.problems(settings), *tls.problems(settings)]
    if settings.tokens is not None:
        try:
            grants.read(settings.tokens)
        except ConfigError as error:
            found.append(str(error))
    try:
        signatures.trusted_keys_of(settings)
    except ConfigError as error:
        found.append(str(error))
    return found


def warnings(settings: Settings) -> list[str]:
    """What is allowed and still worth a word to the operator."""
    found = [
        *exposure.warnings(settings),
        *tls.warnings(settings),
        *signatures.warnings(settings),
    ]
    if settings.tokens is not None:
        try:
            known = grants.read(settings.tokens)
        except ConfigError:
            return found  # It is among the problems.
        if not known.tokens and not known.certificates:
            found.append(
                f"the file of tokens {settings.tokens} has no entry: nobody can call; add one "
                "with `ibinn-serve token new`"
            )
    return found
