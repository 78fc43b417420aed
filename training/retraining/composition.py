"""From feedback to a training set: the steps in their order, each counted.

Every step leaves images out and says how many; what is left at the end gets a role.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ibinn.errors import ConfigError
from training.folders import ImageFile, scan_files
from training.image_set import THUMBNAIL_SIDE, ArrayStore, DataSource, ImageSet
from training.retraining.assigning import HELD_OUT, assign
from training.retraining.bias import SelectionBias, selection_bias
from training.retraining.candidates import Candidate
from training.retraining.labels import Disputed, Labelled, settle
from training.retraining.overlap import among, matches
from training.retraining.shares import capped, drawn
from training.retraining.sources import Probation, SourceReport, Standing, judge
from training.splits import Role, SplitManifest, role_set


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What decides which feedback is used.

    Attributes:
        trusted: Sources that the operator vouches for.
        probation: What other sources have to show.
        share: Most of a class's training images that one source that is not trusted gives.
        min_new_class: Images that a class the base does not know needs.
        replay: Share of the old training images that is trained on again.
        calibrate_on_all: Calibrate and test also on images whose chance of being selected for
            labelling is not known.
        seed: Of every draw.

    Raises:
        ConfigError: A value out of range.
    """

    trusted: frozenset[str] = frozenset()
    probation: Probation = field(default_factory=Probation)
    share: float = 0.2
    min_new_class: int = 50
    replay: float = 1.0
    calibrate_on_all: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("share", self.share), ("replay", self.replay)):
            if not 0.0 < value <= 1.0:
                raise ConfigError(f"--{name} is {value}; expected a number in (0, 1]")
        if self.min_new_class < 2:
            raise ConfigError(
                f"--min-new-class is {self.min_new_class}; expected at least 2, and for figures "
                "that mean something about the class 50 or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What is retrained.

    Attributes:
        classes: Of the base model, in its order.
        weights: Digest of its weights.
        source: Its data.
        split: Roles of its data.
    """

    classes: tuple[str, ...]
    weights: str
    source: DataSource
    split: SplitManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the composition.

    Attributes:
        name: What it is about.
        left_out: Images (or answers, before they are joined by content) that it left out.
        left: How many are left.
        words: The rule, or what was done.
    """

    name: str
    left_out: int
    left: int
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A feedback image that was left out because a held-out image is like it.

    Attributes:
        record_id: Its answer.
        where: The set that the other is in.
        distance: Of their thumbnails; 0 for an exact copy.
    """

    record_id: str
    where: str
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What came of it.

    Attributes:
        classes: The base's in their order, then new ones by name.
        images: Feedback images that are used; their class names are `classes`.
        labelled: What is known of each of them, in the same order.
        roles: The role of each.
        split: Roles of old and new images together.
        steps: What was done.
        sources: Every source's standing.
        over_share: Images of each source beyond its share.
        disputed: Images that a person should look at.
        apart: (kind, record id) of images out of scope or unreadable.
        overlaps: Images left out because a held-out image is like them.
        added: Images of each class that is new.
        waiting: Images of each class that has too few.
        not_replayed: Old training images that are not trained on again.
        bias: How the images were selected.
    """

    classes: tuple[str, ...]
    images: ImageSet
    labelled: tuple[Labelled, ...]
    roles: tuple[Role, ...]
    split: SplitManifest
    steps: tuple[Step, ...]
    sources: tuple[SourceReport, ...]
    over_share: Mapping[str, int]
    disputed: tuple[Disputed, ...]
    apart: tuple[tuple[str, str], ...]
    overlaps: tuple[Overlap, ...]
    added: Mapping[str, int]
    waiting: Mapping[str, int]
    not_replayed: int
    bias: SelectionBias


class _Funnel:
    """What is left of the feedback as one step after the other takes its share.

    Attributes:
        labelled: What is left, in the order of time.
        images: Their pixels, in the same order.
        steps: What was done.
        disputed: What a person should look at.
    """

    def __init__(self) -> None:
        self.labelled: list[Labelled] = []
        self.images = ImageSet(
            class_names=(),
            items=(),
            store=ArrayStore(np.empty((0, 1, 1, 3), np.uint8)),
            thumbnails=np.empty((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3), np.uint8),
            sizes=np.empty((0, 2), np.int32),
        )
        self.steps: list[Step] = []
        self.disputed: list[Disputed] = []

    @property
    def class_names(self) -> list[str]:
        return [entry.class_name for entry in self.labelled]

    def counted(self, name: str, left_out: int, left: int, words: str) -> None:
        self.steps.append(Step(name=name, left_out=left_out, left=left, words=words))

    def keep(self, mask: Sequence[bool], name: str, words: str) -> None:
        """Leave out the images where the mask is false, as a step."""
        before = len(self.labelled)
        self.labelled = [entry for entry, kept in zip(self.labelled, mask, strict=True) if kept]
        self.images = self.images.subset(np.flatnonzero(np.asarray(mask, bool)))
        self.counted(name, before - len(self.labelled), len(self.labelled), words)


def compose(
    candidates: Sequence[Candidate],
    base: Base,
    rules: Rules,
    *,
    excluded: Mapping[str, ImageSet],
) -> Composition:
    """Choose the images of an export that a model is retrained with.

    Args:
        candidates: The export.
        base: The model's classes and data.
        rules: What decides.
        excluded: Further sets by name whose images must not be trained on, such as the operator's
            acceptance set.
    """
    funnel = _Funnel()
    reports = judge(
        candidates, trusted=rules.trusted, base_weights=base.weights, probation=rules.probation
    )
    apart = _settle(funnel, candidates, reports, rules)
    overlaps = _without_held_out(funnel, base, excluded)
    _without_known(funnel, base)
    _without_repeated(funnel)
    replayed, not_replayed = _replayed(base, rules)
    over = _within_shares(funnel, base, rules, replayed)
    added, waiting = _taxonomy(funnel, base, rules, over)

    classes = (*base.classes, *sorted(added))
    images = _relabelled(funnel, classes)
    roles = assign(
        images,
        config=base.split.config,
        known_chance=[rules.calibrate_on_all or e.weight is not None for e in funnel.labelled],
        new_classes=frozenset(added),
        old_groups=_old_groups(base),
    )
    return Composition(
        classes=classes,
        images=images,
        labelled=tuple(funnel.labelled),
        roles=tuple(roles),
        split=_joined(base, replayed, images, roles),
        steps=tuple(funnel.steps),
        sources=reports,
        over_share=Counter(entry.source for entry in over),
        disputed=tuple(funnel.disputed),
        apart=apart,
        overlaps=overlaps,
        added=added,
        waiting=waiting,
        not_replayed=not_replayed,
        bias=selection_bias(funnel.labelled, candidates),
    )


def _settle(
    funnel: _Funnel,
    candidates: Sequence[Candidate],
    reports: Sequence[SourceReport],
    rules: Rules,
) -> tuple[tuple[str, str], ...]:
    """Images with a settled class into the funnel; those of no class are given back."""
    funnel.counted("export", 0, len(candidates), "Answers with at least one statement about them.")
    kept = [candidate for candidate in candidates if candidate.path is not None]
    funnel.counted(
        "image", len(candidates) - len(kept), len(kept), "The image was not kept, or is gone."
    )
    released = {report.name for report in reports if report.standing is Standing.RELEASED}
    settled = settle(kept, trusted=rules.trusted, released=released)
    funnel.disputed += settled.disputed
    left = len(kept)
    for name, left_out, words in (
        (
            "quarantine",
            settled.unheard,
            "Only sources that are not trusted and have not shown that they agree speak of it.",
        ),
        ("same content", settled.repeated, "Another answer about the same pixels."),
        ("conflict", len(settled.disputed), "Sources disagree; listed for a person."),
        ("no class", len(settled.apart), "Out of scope or unreadable; used for nothing."),
    ):
        left -= left_out
        funnel.counted(name, left_out, left, words)
    _read(funnel, settled.labelled)
    return settled.apart


def _read(funnel: _Funnel, labelled: Sequence[Labelled]) -> None:
    """Decode the images; their classes are settled only later, so all have label 0 here."""
    files = [
        ImageFile(
            path=entry.candidate.path,
            name=entry.candidate.record_id,
            label=0,
            group=entry.candidate.group,
        )
        for entry in labelled
        if entry.candidate.path is not None
    ]
    images, _ = scan_files(files, ("",), progress=None)
    # An export of a server that decodes differently can hold one image under two ids.
    first: dict[str, int] = {}
    for index, item in enumerate(images.items):
        first.setdefault(item.id, index)
    positions = {images.items[index].name: index for index in first.values()}
    readable = [entry for entry in labelled if entry.candidate.record_id in positions]
    funnel.labelled = readable
    funnel.images = images.subset([positions[e.candidate.record_id] for e in readable])
    funnel.counted(
        "file",
        len(labelled) - len(readable),
        len(readable),
        "The file cannot be decoded, or holds the pixels of another.",
    )


def _without_held_out(
    funnel: _Funnel, base: Base, excluded: Mapping[str, ImageSet]
) -> tuple[Overlap, ...]:
    sets = {role.value: role_set(base.source, base.split, role) for role in HELD_OUT}
    found = matches(funnel.images, sets | dict(excluded))
    overlaps = tuple(
        Overlap(record_id=entry.candidate.record_id, where=match.where, distance=match.distance)
        for entry, match in zip(funnel.labelled, found, strict=True)
        if match is not None
    )
    funnel.keep(
        [match is None for match in found],
        "held out",
        "A calibration, test or acceptance image is the same or nearly so.",
    )
    return overlaps


def _without_known(funnel: _Funnel, base: Base) -> None:
    # Also those without a role now: an earlier model may have been trained on them.
    old = base.source.train
    seen = [i for i, item in enumerate(old.items) if base.split.role_of(item.id) not in HELD_OUT]
    found = matches(funnel.images, {"training": old.subset(seen)})
    against = []
    for entry, match in zip(funnel.labelled, found, strict=True):
        contradicted = match is not None and match.label != entry.class_name
        against.append(contradicted)
        if match is not None and contradicted:
            funnel.disputed.append(_disputed(entry, f"old {match.where} data", match.label))
    repeated = [match is not None for match, out in zip(found, against, strict=True) if not out]
    funnel.keep(
        [not out for out in against],
        "contradicts old data",
        "The same or nearly the same training image has another class; listed for a person.",
    )
    funnel.keep(
        [not known for known in repeated],
        "old data",
        "The same or nearly the same image is among the old training images.",
    )


def _without_repeated(funnel: _Funnel) -> None:
    inner = among(funnel.images, funnel.class_names)
    opposed = {index for pair in inner.disputed for index in pair}
    for first, second in inner.disputed:
        other = funnel.labelled[second]
        funnel.disputed.append(
            _disputed(
                funnel.labelled[first],
                f"{other.source} of {other.candidate.record_id}",
                other.class_name,
            )
        )
    repeated = [
        index in inner.repeated for index in range(len(funnel.labelled)) if index not in opposed
    ]
    funnel.keep(
        [index not in opposed for index in range(len(funnel.labelled))],
        "near-duplicates that differ",
        "Nearly the same image has another class; listed for a person.",
    )
    funnel.keep(
        [not out for out in repeated], "near-duplicates", "Nearly the same image came before."
    )


def _disputed(entry: Labelled, other: str, label: str) -> Disputed:
    return Disputed(
        id=entry.candidate.id,
        record_ids=(entry.candidate.record_id,),
        said=((entry.source, entry.class_name), (other, label)),
        why="nearly the same image, another class",
    )


def _replayed(base: Base, rules: Rules) -> tuple[frozenset[str], int]:
    """Ids of the old training images that are trained on again, and how many are not."""
    by_class: dict[int, list[str]] = {}
    for item in base.source.train.items:
        if base.split.role_of(item.id) is Role.TRAIN:
            by_class.setdefault(item.label, []).append(item.id)
    chosen: set[str] = set()
    for ids in by_class.values():
        order = sorted(set(ids), key=lambda key: drawn(rules.seed, key))
        chosen.update(order[: max(1, round(rules.replay * len(order)))])
    total = sum(map(len, by_class.values()))
    kept = sum(key in chosen for ids in by_class.values() for key in ids)
    return frozenset(chosen), total - kept


def _within_shares(
    funnel: _Funnel, base: Base, rules: Rules, replayed: frozenset[str]
) -> tuple[Labelled, ...]:
    """Cut what single sources give; what is cut is given back."""
    old = Counter(
        base.classes[item.label] for item in base.source.train.items if item.id in replayed
    )
    within = capped(funnel.labelled, old=old, share=rules.share, seed=rules.seed)
    over = tuple(e for e in funnel.labelled if e.candidate.id not in within)
    funnel.keep(
        [entry.candidate.id in within for entry in funnel.labelled],
        "share of a source",
        f"A source that is not trusted gives at most {rules.share:.0%} of a class.",
    )
    return over


def _taxonomy(
    funnel: _Funnel, base: Base, rules: Rules, over: Sequence[Labelled]
) -> tuple[dict[str, int], dict[str, int]]:
    """Images of each class that is added, and of each that has to wait for more."""
    left = Counter(name for name in funnel.class_names if name not in base.classes)
    cut = Counter(entry.class_name for entry in over if entry.class_name not in base.classes)
    added = {name: count for name, count in left.items() if count >= rules.min_new_class}
    funnel.keep(
        [name in base.classes or name in added for name in funnel.class_names],
        "new class too small",
        f"A class that the base does not know needs {rules.min_new_class} images.",
    )
    waiting = {name: left[name] + cut[name] for name in sorted({*left, *cut}) if name not in added}
    return added, waiting


def _relabelled(funnel: _Funnel, classes: Sequence[str]) -> ImageSet:
    """The images that are left, with their labels."""
    images = funnel.images
    position = {name: label for label, name in enumerate(classes)}
    items = [
        replace(item, label=position[entry.class_name])
        for item, entry in zip(images.items, funnel.labelled, strict=True)
    ]
    return images.with_items(items, class_names=classes)


def _old_groups(base: Base) -> dict[str, Role]:
    groups: dict[str, Role] = {}
    for images in (base.source.train, base.source.test):
        for item in images.items if images is not None else ():
            if item.group:
                # Without a role now, it may have been trained on by an earlier model.
                groups[item.group] = base.split.role_of(item.id) or Role.TRAIN
    return groups


def _joined(
    base: Base, replayed: frozenset[str], images: ImageSet, roles: Sequence[Role]
) -> SplitManifest:
    """Roles of old images, less those not trained on again, and of the new ones."""
    ids: dict[Role, list[str]] = {role: list(base.split.roles[role]) for role in Role}
    ids[Role.TRAIN] = [key for key in ids[Role.TRAIN] if key in replayed]
    for item, role in zip(images.items, roles, strict=True):
        ids[role].append(item.id)
    return SplitManifest(
        source=base.split.source,
        config=base.split.config,
        roles={role: tuple(found) for role, found in ids.items()},
        excluded=base.split.excluded,
    )
