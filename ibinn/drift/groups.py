"""Images that belong together count once: the first image of each group is observed.

Ten pictures of one scene, lot or patient are not ten independent draws; a detector that takes them
for that alarms at a burst. A caller that knows which images belong together gives them a group id.

**Rule.** Of each group the first image is observed, and later ones are not; an image without a
group is a group of its own. This keeps the detectors' promise if the *first images* of the groups
are exchangeable with the calibration images, as where groups are drawn independently of each other
and an image's place in its group says nothing of how it looks. It needs no waiting for a group's
end, and large groups weigh no more than small ones. It does not help where calibration images
themselves came in groups: then n of them tell less than n, and p-values err more than they say.

**Memory.** The last 16,384 groups are remembered, by a 64-bit hash (two groups share one with a
chance below 1e-11). A group that comes back after so many others counts as new.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import numpy as np

from ibinn.drift.observation import BoolArray
from ibinn.errors import ConfigError, DataError

MEMORY: Final = 16_384

_FORMAT: Final = b"ibinn.drift.groups/1\n"
_HASH_BYTES: Final = 8


class Blocker:
    """Remembers which groups have been observed.

    Args:
        memory: How many groups are remembered.

    Raises:
        ConfigError: `memory` is below 1.

    >>> blocker = Blocker()
    >>> [blocker.counts(group) for group in ("lot 1", "lot 1", "", "", "lot 2")]
    [True, False, True, True, True]
    """

    def __init__(self, *, memory: int = MEMORY) -> None:
        if memory < 1:
            raise ConfigError(f"memory is {memory} groups; expected at least 1, such as {MEMORY}")
        self._memory = memory
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def counts(self, group_id: str) -> bool:
        """Whether the next image, of this group, is to be observed; empty: of no group."""
        if not group_id:
            return True
        key = hashlib.blake2b(group_id.encode(), digest_size=_HASH_BYTES).digest()
        new = key not in self._seen
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > self._memory:
            self._seen.popitem(last=False)
        return new

    def counts_many(self, group_ids: Sequence[str]) -> BoolArray:
        """The same of one image after the other, (N,)."""
        return np.array([self.counts(group_id) for group_id in group_ids], dtype=np.bool_)

    def to_state(self) -> bytes:
        """The groups that are remembered, the longest unseen first."""
        return _FORMAT + b"".join(self._seen)

    @classmethod
    def from_state(cls, state: bytes, *, memory: int = MEMORY) -> Blocker:
        """What `to_state` wrote.

        Raises:
            DataError: Damaged, or of another version; begin anew.
        """
        body = state[len(_FORMAT) :]
        if not state.startswith(_FORMAT) or len(body) % _HASH_BYTES:
            raise DataError(
                f"{len(state)} bytes are not a state of remembered groups "
                f"({_FORMAT.decode().strip()}); begin anew"
            )
        blocker = cls(memory=memory)
        keys = [body[start : start + _HASH_BYTES] for start in range(0, len(body), _HASH_BYTES)]
        blocker._seen.update(dict.fromkeys(keys[-memory:]))
        return blocker
