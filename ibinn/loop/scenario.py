"""The story that the loop plays: which images, how many, in which order, labelled by whom.

Everything is drawn from MNIST by seed. The digits of its training part are dealt out once: to the
base model's own data, to the operator's acceptance set, and to the traffic; its test part is what
both models are judged on at the end, and serves nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from ibinn.errors import DataError
from ibinn.loop.digits import MISSING, SIDE_PX, Digits, Picture, picture, shuffled

INVERTED = "inverted"
SCRAMBLED = "scrambled"
KNOWN = tuple(str(digit) for digit in range(10) if str(digit) != MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of traffic.

    Attributes:
        name: In a word.
        title: In a line.
        images: How many are sent.
        missing: Share of them that show the missing class.
        noisy: Share of them with Gaussian noise of severity 3.
    """

    name: str
    title: str
    images: int
    missing: float
    noisy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """All numbers of the story.

    Attributes:
        seed: Of every draw.
        base_images: Digits of the base model: training, calibration and its own test.
        acceptance_images: Digits of the operator's acceptance set, half of them noisy.
        foreign_images: Digits that images which are no digits are made of, for the promotion.
        normal: Traffic as the base model knows it.
        noise: Noise on everything.
        arrival: The missing class arrives; half of the images are noisy.
        recovery_images: Images after the promotion, in the proportions of what the new model was
            calibrated on.
        rate: Images sent per second.
        labelled_share: Share of the answers that is labelled while the guarantee holds, drawn at
            random; once it is suspended, all are.
        label_delay: A label comes this many images after its answer.
        sources: Who labels, in turns.
        stranger: A source that nobody knows, and that gives wrong labels.
        stranger_share: Share of the labels that it gives, once the missing class is there.
    """

    seed: int = 0
    base_images: int = 12_000
    acceptance_images: int = 3_000
    foreign_images: int = 1_000
    normal: Phase = Phase(
        name="normal", title="normal traffic", images=3_000, missing=0.0, noisy=0.0
    )
    noise: Phase = Phase(
        name="noise",
        title="Gaussian noise of severity 3 on all traffic",
        images=4_000,
        missing=0.0,
        noisy=1.0,
    )
    arrival: Phase = Phase(
        name="arrival",
        title=f"a class arrives that the model does not know ({MISSING}); half of all is noisy",
        images=4_000,
        missing=0.4,
        noisy=0.5,
    )
    recovery_images: int = 1_500
    rate: float = 200.0
    labelled_share: float = 0.4
    label_delay: int = 200
    sources: tuple[str, ...] = ("line-1", "line-2", "laboratory")
    stranger: str = "stranger"
    stranger_share: float = 0.03

    def digest(self, recipe: Mapping[str, object]) -> str:
        """Names what the base model is made of (hex)."""
        told = {"recipe": recipe, "seed": self.seed, "images": self.base_images}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


class Deck:
    """The digits of MNIST's training part, dealt out so that none is used twice.

    Args:
        digits: All of them.
        seed: Of their order.
    """

    def __init__(self, digits: Digits, *, seed: int) -> None:
        self._digits = digits
        self._known = deque(shuffled(digits, seed=seed, classes=KNOWN))
        self._missing = deque(shuffled(digits, seed=seed, classes=(MISSING,)))

    def known(self, count: int) -> Iterator[Picture]:
        """The next digits of classes that the base model knows, as they are."""
        for _ in range(count):
            yield picture(self._digits, _next(self._known))

    def mixed(
        self, count: int, *, missing: float, noisy: float, rng: np.random.Generator
    ) -> Iterator[Picture]:
        """The next digits, with these chances of the missing class and of noise."""
        for _ in range(count):
            of_missing, add_noise = rng.random(2) < (missing, noisy)
            index = _next(self._missing if of_missing else self._known)
            yield picture(self._digits, index, add_noise=bool(add_noise))


def foreign(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Images that are no digits, made of digits by turns: inverted ones, and scrambled ones.

    Their truth is the kind: `INVERTED` (255 - x) or `SCRAMBLED` (rows and columns permuted).
    """
    order = np.random.default_rng(0).permutation(SIDE_PX)
    for position, image in enumerate(pictures):
        with Image.open(BytesIO(image.data)) as read:
            pixels = np.asarray(read)
        kind = (INVERTED, SCRAMBLED)[position % 2]
        changed = 255 - pixels if kind == INVERTED else pixels[order][:, order]
        buffer = BytesIO()
        Image.fromarray(changed).save(buffer, format="PNG")
        yield Picture(name=f"{image.name}-{kind}", truth=kind, data=buffer.getvalue(), noisy=False)


def _next(deck: deque[int]) -> int:
    if not deck:
        raise DataError(
            "MNIST's training part has no digits left for this scenario; send fewer images"
        )
    return deck.popleft()
