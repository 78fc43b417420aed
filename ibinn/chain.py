"""The hash chain of the ledger: how an entry's hash is made, and what breaks the chain.

    hash_n = sha256(n "\\n" hash_{n-1} "\\n" kind "\\n" body)

n in decimal digits, hashes in hexadecimal digits, hash_0 = 64 zeros (``proto/ibinn/v1/record.proto``).
"""

from __future__ import annotations

import hashlib

from ibinn.records import EntryKind

GENESIS = "0" * 64
"""What stands before the first entry."""


def entry_hash(sequence: int, previous_hash: str, kind: EntryKind, body: bytes) -> str:
    """The hash of an entry (64 hexadecimal digits).

    >>> entry_hash(1, GENESIS, EntryKind.ANSWER, b"")[:12]
    '071e676bbc45'
    """
    digest = hashlib.sha256(f"{sequence}\n{previous_hash}\n{kind.value}\n".encode())
    digest.update(body)
    return digest.hexdigest()
