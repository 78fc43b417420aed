"""The most extreme test images by every statistic, for a person to look at (figures 5.17-5.19).

The page shows images of a data set, which may seldom be passed on: it is for the eyes of whoever
has the data, and is not written where a repository would pick it up.

Shapes: N images, S side in pixels.
"""

from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from PIL import Image

from ibinn.assessment import COMBINED
from ibinn.errors import ConfigError
from ibinn.images import Pixels
from ibinn.manifest import Manifest
from ibinn.ood.registry import test_name
from ibinn.trusted import TrustedClassifier
from training.image_set import ImageSet
from training.scoring import Progress, Scored, Scorer, fitted

FILE = "extremes.html"
DEFAULT_FOLDER = Path("runs/extremes")

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extreme:
    """One image at an end of a statistic.

    Attributes:
        index: Position in the image set.
        name: Its name there.
        truth: Its class.
        answer: The most probable class.
        probability: Of that class, calibrated.
        value: Of the statistic.
        p_value: Of the statistic's usual test.
        png: What the network saw, base64.
    """

    index: int
    name: str
    truth: str
    answer: str
    probability: float
    value: float
    p_value: float
    png: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of a statistic.

    Attributes:
        statistic: Its name.
        group: What kind of unusualness it responds to.
        meaning: What an unusual value means, completing "the image has ...".
        low: Images with the lowest values, the lowest first.
        high: Images with the highest values, the highest first.
        wrong_low: Share of wrong answers among the lowest 1 % of images.
        wrong_high: Share of wrong answers among the highest 1 %.
    """

    statistic: str
    group: str
    meaning: str
    low: tuple[Extreme, ...]
    high: tuple[Extreme, ...]
    wrong_low: float
    wrong_high: float


def extremes(
    classifier: TrustedClassifier, images: ImageSet, scored: Scored, *, count: int = 10
) -> tuple[Ends, ...]:
    """The images at both ends of the combined test and of every statistic.

    Args:
        classifier: Calibrated.
        images: N test images.
        scored: Their scores, in the same order.
        count: Images per end.
    """
    wrong = scored.probabilities.argmax(axis=1) != images.labels
    usual = {s.name: test_name(s.name, s.kinds[0]) for s in classifier.statistics}
    rows = [
        (COMBINED, "combined", "statistics that seldom occur together", scored.unusual[COMBINED])
    ]
    rows += [
        (s.name, s.group.value, s.phrase, scored.statistics[s.name]) for s in classifier.statistics
    ]
    found = []
    for name, group, meaning, values in rows:
        order = np.argsort(values, kind="stable")
        order = order[np.isfinite(values[order])]
        tail = max(1, len(order) // 100)
        p = scored.p[usual.get(name, COMBINED)]
        found.append(
            Ends(
                statistic=name,
                group=group,
                meaning=meaning,
                low=_shown(classifier, images, scored, order[:count], values, p),
                high=_shown(classifier, images, scored, order[::-1][:count], values, p),
                wrong_low=float(wrong[order[:tail]].mean()),
                wrong_high=float(wrong[order[::-1][:tail]].mean()),
            )
        )
    return tuple(found)


def write_page(
    classifier: TrustedClassifier,
    manifest: Manifest,
    images: ImageSet,
    out: Path,
    *,
    count: int = 10,
    progress: Progress | None = None,
) -> Path:
    """Score test images and write the page into a folder, which is made if need be.

    Args:
        classifier: Calibrated.
        manifest: Of its bundle.
        images: Test images.
        out: Folder outside of what a repository tracks.
        count: Images per end of a statistic.
        progress: Called after every batch.

    Raises:
        ConfigError: The folder would be picked up by a repository, or the model is not calibrated.
    """
    check_private(out)
    reference = classifier.reference
    if reference is None:
        raise ConfigError(
            f"model {manifest.name!r} is not calibrated, so no image is more unusual than another; "
            "calibrate it first"
        )
    scorer = Scorer(model=classifier, reference=reference, batch_size=100, progress=progress)
    scored = scorer.images(fitted(images, classifier.preprocessing), "test images", finish=True)
    page = render(extremes(classifier, images, scored, count=count), manifest.name, len(images))
    out.mkdir(parents=True, exist_ok=True)
    path = out / FILE
    path.write_text(page, encoding="utf-8")
    return path


def render(ends: Sequence[Ends], model: str, images: int) -> str:
    """The page as text; it loads nothing."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("training").joinpath("extremes.html.j2").read_text("utf-8")
    return environment.from_string(template).render(ends=ends, model=model, images=images)


def check_private(out: Path) -> None:
    """Refuse a folder whose files a git repository would track.

    Raises:
        ConfigError: `out` lies inside a repository that does not ignore it.
    """
    folder = out.resolve()
    root = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
    if root is None:
        return
    try:
        ignored = subprocess.run(
            ["git", "-C", str(root), "check-ignore", "-q", str(folder / FILE)],
            check=False,
            capture_output=True,
        )
    except OSError:
        ignored = None
    if ignored is None or ignored.returncode != 0:
        raise ConfigError(
            f"--out is {str(out)!r}, which the repository {str(root)!r} does not ignore; the page "
            "shows images of a data set, which may not be passed on; give a folder outside of it "
            "or an ignored one, such as runs/extremes"
        )


def _shown(
    classifier: TrustedClassifier,
    images: ImageSet,
    scored: Scored,
    indices: IntArray,
    values: npt.NDArray[np.float64],
    p: npt.NDArray[np.float64],
) -> tuple[Extreme, ...]:
    steps, names = classifier.preprocessing, classifier.info.classes
    labels: Mapping[int, int] = {int(i): int(images.items[int(i)].label) for i in indices}
    return tuple(
        Extreme(
            index=int(i),
            name=images.items[int(i)].name,
            truth=names[labels[int(i)]],
            answer=names[int(scored.probabilities[i].argmax())],
            probability=float(scored.probabilities[i].max()),
            value=float(values[i]),
            p_value=float(p[i]),
            png=_png(steps.finish(steps.fit_size(images.load(int(i))))),
        )
        for i in indices
    )


def _png(pixels: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
