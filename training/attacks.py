"""Attacks on the posterior and on the combined test, within a small change of every pixel.

Projected gradient descent in the L∞ ball of a few grey levels, with the step halved where it
stops helping (as in APGD, Croce & Hein 2020). Every step is judged as a request would be: rounded
to 8 bits, through the JPEG step, at the centre of its cells. The gradient passes rounding
unchanged and the JPEG step as `training.jpeg_gradient` says (BPDA, Athalye et al. 2018).

What these attacks do not find, another may: they bound robustness from above, never from below.

Shapes: B images, S side; pixels are uint8 (B, S, S, 3), K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ibinn.classifier import Evidence
from ibinn.errors import ConfigError
from ibinn.images import Preprocessing
from training.attack_score import OpenBook
from training.jpeg_gradient import through_jpeg
from training.ood_sets import Pixels

Gradient = npt.NDArray[np.float32]

Objective = Callable[[OpenBook, Evidence, Tensor], Tensor]
"""(model, evidence, labels (B,)) -> loss (B,), at least 0, and 0 where the attacker is content."""

CONTENT_NATS = 1.0
"""A wrong class that leads by this much survives a little change."""

CONFIDENT_NATS = 5.0
"""A wrong class that leads by this much is likely to be alone in its conformal set."""

SLACK_NATS = 0.3
"""The adaptive attack aims this far below the threshold of the verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What happens to an image before the network sees it, and how a gradient passes it.

    Attributes:
        apply: One 8-bit image (S, S, 3) to another.
        backward: Gradient (B, S, S, 3) with respect to the result -> with respect to the image.
    """

    apply: Callable[[Pixels], Pixels]
    backward: Callable[[Gradient], Gradient]


def bare() -> Serving:
    """Nothing happens: the network sees the 8-bit image."""
    return Serving(apply=lambda image: image, backward=lambda gradient: gradient)


def as_served(preprocessing: Preprocessing, *, coarsest: float) -> Serving:
    """The JPEG step of the preprocessing, or nothing where there is none.

    Args:
        preprocessing: Of the model.
        coarsest: Largest table entry that the gradient passes, in grey levels.
    """
    step = preprocessing.config.jpeg
    if step is None:
        return bare()
    return Serving(
        apply=preprocessing.finish,
        backward=lambda gradient: through_jpeg(gradient, step, coarsest=coarsest),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How long a search takes.

    Attributes:
        steps: Gradient steps.
        patience: Steps without progress after which the step is halved.
        batch_size: Images per pass.

    Raises:
        ConfigError: A value below 1.
    """

    steps: int = 20
    patience: int = 4
    batch_size: int = 100

    def __post_init__(self) -> None:
        for name in ("steps", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"attack: {name} is {getattr(self, name)}; expected at least 1")


def misclassify(book: OpenBook, evidence: Evidence, labels: Tensor) -> Tensor:
    """How far the true class is from trailing another by `CONTENT_NATS`, in nats."""
    return (margin(evidence.logits, labels) + CONTENT_NATS).clamp_min(0.0)


def evade(weight: float) -> Objective:
    """The adaptive objective: a confident wrong answer whose combined score is not flagged.

    How far the true class is from trailing by `CONFIDENT_NATS`, plus λ times how far the score
    is above the verdict's threshold. Confidence is what keeps a verdict from AMBIGUOUS.

    Args:
        weight: λ.
    """

    def objective(book: OpenBook, evidence: Evidence, labels: Tensor) -> Tensor:
        above = (book.score(evidence) - book.threshold + SLACK_NATS).clamp_min(0.0)
        behind = (margin(evidence.logits, labels) + CONFIDENT_NATS).clamp_min(0.0)
        return behind + weight * above

    return objective


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the largest other one (B,), nats; negative where misclassified."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(1)


def attack(
    book: OpenBook,
    images: Pixels,
    labels: npt.NDArray[np.int64],
    *,
    eps_levels: int,
    objective: Objective,
    serving: Serving,
    start: Pixels | None = None,
    search: Search | None = None,
) -> Pixels:
    """The worst images found in the L∞ ball around each image.

    Args:
        book: The model under attack.
        images: uint8 (B, S, S, 3) at the model's input size, before the JPEG step.
        labels: True classes (B,).
        eps_levels: Radius in grey levels of 255.
        objective: What is minimised.
        serving: Through what every candidate goes before it is judged.
        start: Where to start from, inside of the ball; the images themselves if None.
        search: How long.

    Returns:
        uint8 (B, S, S, 3), before `serving`; never farther than `eps_levels` from `images`.

    Raises:
        ConfigError: A radius below 1 grey level.
    """
    if eps_levels < 1:
        raise ConfigError(f"attack: radius is {eps_levels} grey levels; expected at least 1")
    search = search or Search()
    size = search.batch_size
    start = images if start is None else start
    parts = [
        _descend(
            book, images[at : at + size], labels[at : at + size], start[at : at + size],
            eps_levels, objective, serving, search,
        )
        for at in range(0, len(images), size)
    ]  # fmt: skip
    return np.concatenate(parts) if parts else images.copy()


def random_start(images: Pixels, eps_levels: int, *, seed: int) -> Pixels:
    """Images moved by a uniform number of levels up to `eps_levels` per value, clipped."""
    moves = np.random.default_rng(seed).integers(-eps_levels, eps_levels + 1, size=images.shape)
    return np.clip(images.astype(np.int64) + moves, 0, 255).astype(np.uint8)


def _descend(
    book: OpenBook,
    images: Pixels,
    labels: npt.NDArray[np.int64],
    start: Pixels,
    eps_levels: int,
    objective: Objective,
    serving: Serving,
    search: Search,
) -> Pixels:
    origin = images.astype(np.float32)
    low, high = np.maximum(origin - eps_levels, 0.0), np.minimum(origin + eps_levels, 255.0)
    current = np.clip(start.astype(np.float32), low, high)
    best = np.rint(current).astype(np.uint8)
    best_loss = np.full(len(images), np.inf)
    step = np.full(len(images), float(eps_levels))
    stalled = np.zeros(len(images), dtype=int)
    for number in range(search.steps + 1):
        active = np.flatnonzero(best_loss > 0)
        if not len(active):
            break
        rounded = np.rint(current[active]).astype(np.uint8)
        served = np.stack([serving.apply(image) for image in rounded])
        loss, gradient = _loss_and_gradient(book, served, labels[active], objective)
        better = loss < best_loss[active]
        best[active[better]], best_loss[active[better]] = rounded[better], loss[better]
        stalled[active] = np.where(better, 0, stalled[active] + 1)
        if number == search.steps:
            break
        tired = active[stalled[active] >= search.patience]
        step[tired] /= 2
        stalled[tired] = 0
        gradient = serving.backward(gradient)
        moved = current[active] - step[active, None, None, None] * np.sign(gradient)
        current[active] = np.clip(moved, low[active], high[active])
        # A halved step starts again from the best place, as in APGD.
        current[tired] = best[tired]
    return best


def _loss_and_gradient(
    book: OpenBook, served: Pixels, labels: npt.NDArray[np.int64], objective: Objective
) -> tuple[npt.NDArray[np.float64], Gradient]:
    """Loss (B,) and its gradient (B, S, S, 3) up to a positive factor per channel.

    What is not finite counts as no progress.
    """
    x = book.tensor(served).requires_grad_()
    loss = objective(book, book.evidence(x, served), torch.from_numpy(labels).to(x.device))
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    values = loss.detach().double().cpu().numpy()
    directions = torch.nan_to_num(gradient).permute(0, 2, 3, 1).cpu().numpy()
    return np.where(np.isfinite(values), values, np.inf), directions
