"""Which images are kept.

An image is drawn from the hash of its bytes alone,

    u = first 8 bytes of sha256("ibinn kept\\n" sha256_bytes) as a big-endian integer / 2^64
    kept where u < share

so that an auditor can recompute from the records which images had to be kept, one image is either
always or never drawn, and a larger share draws all that a smaller one did. Who sends images can
work it out as well: the draw is fair for those who did not search for an image, no more.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ibinn.records import ImageKept
from ibinn.types import Action, Prediction, Verdict
from service.settings import Settings

_NONE = "none"
_ALL = "all"
_FLAGGED = ("flagged", "flagged_and_sampled")
_SAMPLED = ("sampled", "flagged_and_sampled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The policy of an operator.

    Attributes:
        policy: none, sampled, flagged, flagged_and_sampled or all.
        share: Share in (0, 1] of the images that are drawn where the policy samples.
    """

    policy: str
    share: float

    @classmethod
    def of(cls, settings: Settings) -> Keeping:
        """That of the settings."""
        return cls(policy=settings.keep_images, share=settings.keep_share)

    @property
    def keeps_any(self) -> bool:
        """Whether any image is kept at all."""
        return self.policy != _NONE

    def wanted(self, prediction: Prediction) -> ImageKept | None:
        """Why the image of an answer is kept; None: it is not.

        An image that came as pixels, without encoded bytes, is never kept. One that is both flagged
        and drawn counts as flagged.
        """
        sha256 = prediction.input.sha256_bytes
        if not sha256 or self.policy == _NONE:
            return None
        if self.policy == _ALL:
            return ImageKept.ALL
        if self.policy in _FLAGGED and _is_flagged(prediction):
            return ImageKept.FLAGGED
        if self.policy in _SAMPLED and is_drawn(sha256, self.share):
            return ImageKept.SAMPLED
        return None


def is_drawn(sha256_bytes: str, share: float) -> bool:
    """Whether an image with this hash is in a sample of this share.

    >>> sum(is_drawn(f"{n:064x}", 0.1) for n in range(1000))
    103
    """
    drawn = hashlib.sha256(b"ibinn kept\n" + sha256_bytes.encode()).digest()[:8]
    return int.from_bytes(drawn, "big") < share * 2**64


def _is_flagged(prediction: Prediction) -> bool:
    if prediction.verdict is not Verdict.NOT_FLAGGED:
        return True
    return prediction.decision is not None and prediction.decision.action is not Action.ACCEPT
