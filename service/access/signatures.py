"""Whose signatures bundles must bear."""

from __future__ import annotations

from ibinn import signing
from ibinn.errors import ConfigError
from ibinn.signing import PublicKey
from service.settings import Settings


def trusted_keys_of(settings: Settings) -> tuple[PublicKey, ...] | None:
    """The keys of which one must have signed every bundle; None: bundles need no signature.

    Raises:
        ConfigError: A signature is required and there is no key to check it by, or the keys
            cannot be read.
    """
    if not settings.require_signature:
        return None
    if settings.trusted_keys is None:
        raise ConfigError(
            "require_signature is set, trusted_keys is not: there is no key to check signatures "
            "by; give --trusted-keys with the public key of `ibinn keygen`"
        )
    return signing.trusted_keys(settings.trusted_keys)


def warnings(settings: Settings) -> list[str]:
    """What an operator may have meant otherwise."""
    if settings.trusted_keys is None or settings.require_signature:
        return []
    return [
        f"trusted_keys is {settings.trusted_keys}, and signatures are not checked: "
        "require_signature is not set; give --require-signature"
    ]
