"""What of an export is trained on, and what is not, rule by rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ibinn.errors import ConfigError
from ibinn.records import OUT_OF_SCOPE, Selection
from tests.training.feedback import Exporter, Said
from tests.training.image_folders import source_of
from training.image_set import ImageSet, Pixels
from training.retraining.composition import Base, Composition, Rules, compose
from training.retraining.intake import take_in, trusted_sources
from training.splits import Role, SplitConfig, make_splits, role_set

BASE = "w" * 64
SPLIT = SplitConfig(validation=0.1, calibration_a=0.15, calibration_b=0.15, test=0.2)
ANNA = frozenset({"inspection/anna"})


def picture(seed: int) -> Pixels:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((16, 16), Image.Resampling.BICUBIC))


def pictures(count: int, *, first: int) -> Pixels:
    return np.stack([picture(first + index) for index in range(count)])


@pytest.fixture(scope="module")
def base() -> Base:
    """Sixty old images of two classes."""
    images = ImageSet.from_array(
        pictures(60, first=0), class_names=("bolt", "nut"), labels=[0, 1] * 30, name="old"
    )
    source = source_of(images)
    return Base(
        classes=("bolt", "nut"), weights=BASE, source=source, split=make_splits(source, SPLIT)
    )


@pytest.fixture
def composed(base: Base, tmp_path: Path) -> Callable[..., Composition]:
    def run(
        exporter: Exporter, *, excluded: dict[str, ImageSet] | None = None, **rules: Any
    ) -> Composition:
        intake = take_in(exporter.write(tmp_path / "export"))
        trusted, _ = trusted_sources(rules.pop("trusted", ["anna"]), intake.candidates)
        chosen = Rules(trusted=trusted, **({"min_new_class": 5} | rules))
        return compose(intake.candidates, base, chosen, excluded=excluded or {})

    return run


def left_out(found: Composition) -> dict[str, int]:
    return {step.name: step.left_out for step in found.steps if step.left_out}


def image_of(base: Base, role: Role, index: int = 0) -> tuple[Pixels, str]:
    images = role_set(base.source, base.split, role)
    return images.load(index), images.class_names[images.items[index].label]


def relit(pixels: Pixels) -> Pixels:
    return (pixels * 0.8).astype(np.uint8)


def test_new_images_are_used_with_their_labels(composed: Callable[..., Composition]) -> None:
    export = Exporter()
    for seed in range(20):
        export.add(picture(1_000 + seed), Said(truth="bolt" if seed % 2 else "nut"))
    found = composed(export)
    assert left_out(found) == {}
    assert found.classes == ("bolt", "nut")
    assert [found.classes[item.label] for item in found.images.items] == [
        entry.class_name for entry in found.labelled
    ]
    assert found.steps[-1].left == 20


def test_each_reason_to_leave_an_image_out_is_counted(
    composed: Callable[..., Composition], base: Base
) -> None:
    export = Exporter()
    export.add(picture(1_000), Said(truth="bolt"))
    export.add(picture(1_001), Said(truth="bolt"), kept=False)
    export.add(picture(1_002), Said(truth=OUT_OF_SCOPE))
    export.add(picture(1_003), Said(truth="bolt", source="eve"))
    export.add(picture(1_000), Said(truth="bolt"))
    export.add(relit(picture(1_000)), Said(truth="bolt"))
    export.add(picture(1_004), Said(truth="nut"), Said(truth="bolt", source="anna", caller="other"))
    export.add(picture(1_005), Said(truth="washer"))
    export.add(image_of(base, Role.TRAIN)[0], Said(truth=image_of(base, Role.TRAIN)[1]))
    found = composed(export)
    assert left_out(found) == {
        "image": 1,
        "quarantine": 1,
        "same content": 1,
        "conflict": 1,
        "no class": 1,
        "old data": 1,
        "near-duplicates": 1,
        "new class too small": 1,
    }
    assert [entry.candidate.record_id for entry in found.labelled] == ["r00000"]
    assert found.apart == (("out_of_scope", "r00002"),)
    assert found.waiting == {"washer": 1}
    assert found.steps[0].left - sum(left_out(found).values()) == 1


@pytest.mark.parametrize("role", [Role.CALIBRATION_A, Role.CALIBRATION_B, Role.TEST])
@pytest.mark.parametrize("change", [lambda pixels: pixels, relit], ids=["copy", "relit"])
def test_a_held_out_image_of_the_base_is_never_trained_on(
    composed: Callable[..., Composition],
    base: Base,
    role: Role,
    change: Callable[[Pixels], Pixels],
) -> None:
    export = Exporter()
    for index in range(len(base.split.roles[role])):
        pixels, name = image_of(base, role, index)
        export.add(change(pixels), Said(truth=name))
    export.add(picture(1_000), Said(truth="bolt"))
    found = composed(export)
    assert left_out(found) == {"held out": len(base.split.roles[role])}
    assert {overlap.where for overlap in found.overlaps} == {role.value}
    held_out = {key for r in (role, Role.TEST) for key in base.split.roles[r]}
    assert not held_out & set(found.split.roles[Role.TRAIN])


def test_an_acceptance_set_is_never_trained_on(composed: Callable[..., Composition]) -> None:
    accepted = ImageSet.from_array(
        pictures(3, first=2_000), class_names=("bolt", "nut"), labels=[0, 1, 0], name="acceptance"
    )
    export = Exporter()
    export.add(picture(2_000), Said(truth="bolt"))
    export.add(relit(picture(2_001)), Said(truth="nut"))
    export.add(picture(1_000), Said(truth="nut"))
    found = composed(export, excluded={"acceptance": accepted})
    assert left_out(found) == {"held out": 2}
    assert [overlap.where for overlap in found.overlaps] == ["acceptance", "acceptance"]


def test_a_held_out_image_is_found_behind_a_flood_of_its_copies(
    composed: Callable[..., Composition], base: Base
) -> None:
    rng = np.random.default_rng(0)
    pixels, name = image_of(base, Role.TEST)
    export = Exporter()
    for _ in range(40):
        noise = rng.integers(-2, 3, pixels.shape)
        export.add(np.clip(pixels + noise, 0, 255).astype(np.uint8), Said(truth=name))
    export.add(picture(1_000), Said(truth="bolt"))
    assert left_out(composed(export)) == {"held out": 40}


def test_a_label_against_the_old_data_is_listed_for_a_person(
    composed: Callable[..., Composition], base: Base
) -> None:
    pixels, name = image_of(base, Role.TRAIN)
    export = Exporter()
    export.add(relit(pixels), Said(truth="nut" if name == "bolt" else "bolt"))
    export.add(picture(1_000), Said(truth="bolt"))
    found = composed(export)
    assert left_out(found) == {"contradicts old data": 1}
    assert found.disputed[0].said[1] == ("old training data", name)


def test_near_duplicates_with_different_classes_are_left_out_and_listed(
    composed: Callable[..., Composition],
) -> None:
    export = Exporter()
    export.add(picture(1_000), Said(truth="bolt"))
    export.add(relit(picture(1_000)), Said(truth="nut"))
    export.add(picture(1_001), Said(truth="nut"))
    found = composed(export)
    assert left_out(found) == {"near-duplicates that differ": 2}
    assert len(found.disputed) == 1


def test_a_new_class_comes_after_the_old_ones(composed: Callable[..., Composition]) -> None:
    export = Exporter()
    for seed in range(20):
        export.add(picture(1_000 + seed), Said(truth="anchor"))
    export.add(picture(1_100), Said(truth="bolt"))
    found = composed(export, min_new_class=20)
    assert found.classes == ("bolt", "nut", "anchor")
    assert found.added == {"anchor": 20}
    assert composed_roles(found, "anchor") >= {Role.TRAIN, Role.CALIBRATION_B, Role.TEST}


def composed_roles(found: Composition, name: str) -> set[Role]:
    return {
        role
        for role, entry in zip(found.roles, found.labelled, strict=True)
        if entry.class_name == name
    }


def test_a_flood_of_one_released_source_is_cut_to_its_share(
    composed: Callable[..., Composition],
) -> None:
    export = Exporter()
    for seed in range(60):
        sure: dict[str, Any] = {"answer": "bolt", "confidence": 0.999}
        export.add(picture(1_000 + seed), Said(truth="bolt", source="eve"), **sure)
    found = composed(export)
    (eve,) = [report for report in found.sources if report.name == "inspection/eve"]
    assert eve.standing.value == "released"
    replayed = found.split.roles[Role.TRAIN]
    assert 0 < len(found.labelled) <= 0.25 * len(replayed)
    assert found.over_share == {"inspection/eve": 60 - len(found.labelled)}


def test_a_label_flipping_source_changes_nothing(composed: Callable[..., Composition]) -> None:
    export = Exporter()
    for seed in range(60):
        sure: dict[str, Any] = {"answer": "bolt", "confidence": 0.999}
        export.add(picture(1_000 + seed), Said(truth="nut", source="eve"), **sure)
    export.add(picture(2_000), Said(truth="nut"))
    found = composed(export)
    assert left_out(found) == {"quarantine": 60}
    assert [entry.source for entry in found.labelled] == ["inspection/anna"]


def test_old_images_keep_their_roles(composed: Callable[..., Composition], base: Base) -> None:
    export = Exporter()
    for seed in range(40):
        export.add(picture(1_000 + seed), Said(truth="bolt"))
    found = composed(export)
    for role in Role:
        assert set(base.split.roles[role]) <= set(found.split.roles[role])
    new = {item.id: role for item, role in zip(found.images.items, found.roles, strict=True)}
    assert {found.split.role_of(key) for key in new} >= set(Role)
    assert all(found.split.role_of(key) is role for key, role in new.items())


def test_part_of_the_old_training_images_is_replayed(
    composed: Callable[..., Composition], base: Base
) -> None:
    export = Exporter()
    export.add(picture(1_000), Said(truth="bolt"))
    found = composed(export, replay=0.5)
    old = set(base.split.roles[Role.TRAIN])
    kept = old & set(found.split.roles[Role.TRAIN])
    assert abs(len(kept) - len(old) / 2) <= 1
    assert found.not_replayed == len(old) - len(kept)
    for role in (Role.VALIDATION, Role.CALIBRATION_A, Role.CALIBRATION_B, Role.TEST):
        assert set(base.split.roles[role]) <= set(found.split.roles[role])


def test_an_image_that_is_not_replayed_stays_known(
    composed: Callable[..., Composition], base: Base, tmp_path: Path
) -> None:
    export = Exporter()
    export.add(picture(1_000), Said(truth="bolt"))
    first = composed(export, replay=0.5)
    dropped = next(
        index
        for index, item in enumerate(base.source.train.items)
        if base.split.role_of(item.id) is Role.TRAIN and first.split.role_of(item.id) is None
    )
    again = Exporter()
    again.add(base.source.train.load(dropped), Said(truth=base.classes[dropped % 2]))
    intake = take_in(again.write(tmp_path / "again"))
    later = replace(base, split=first.split)
    found = compose(intake.candidates, later, Rules(trusted=ANNA), excluded={})
    assert left_out(found) == {"old data": 1}


def test_images_of_unknown_chance_are_trained_on_alone(
    composed: Callable[..., Composition],
) -> None:
    export = Exporter()
    for seed in range(40):
        export.add(picture(1_000 + seed), Said(truth="bolt", selection=Selection.FLAGGED))
    assert set(composed(export).roles) == {Role.TRAIN}


def test_images_of_unknown_chance_are_calibrated_on_when_that_is_asked_for(
    composed: Callable[..., Composition],
) -> None:
    export = Exporter()
    for seed in range(40):
        export.add(picture(1_000 + seed), Said(truth="bolt", selection=Selection.FLAGGED))
    assert Role.CALIBRATION_B in composed(export, calibrate_on_all=True).roles


def test_images_of_a_group_have_one_role(composed: Callable[..., Composition]) -> None:
    export = Exporter()
    for seed in range(40):
        export.add(picture(1_000 + seed), Said(truth="bolt"), group=f"lot{seed // 5}")
    found = composed(export)
    roles: dict[str, set[Role]] = {}
    for item, role in zip(found.images.items, found.roles, strict=True):
        roles.setdefault(item.group, set()).add(role)
    assert all(len(seen) == 1 for seen in roles.values())


def test_an_image_of_an_old_group_goes_where_the_group_is(base: Base, tmp_path: Path) -> None:
    items = [
        replace(item, group=f"lot{index // 6}")
        for index, item in enumerate(base.source.train.items)
    ]
    images = base.source.train.with_items(items, class_names=base.classes)
    source = source_of(images)
    grouped = replace(base, source=source, split=make_splits(source, SPLIT))
    held_out = role_set(source, grouped.split, Role.CALIBRATION_A).items[0].group
    export = Exporter()
    export.add(picture(1_000), Said(truth="bolt"), group=held_out)
    intake = take_in(export.write(tmp_path / "export"))
    found = compose(intake.candidates, grouped, Rules(trusted=ANNA), excluded={})
    assert found.roles == (Role.CALIBRATION_A,)


def test_the_same_feedback_composes_the_same(
    base: Base, composed: Callable[..., Composition], tmp_path: Path
) -> None:
    export = Exporter()
    for seed in range(40):
        export.add(picture(1_000 + seed), Said(truth="bolt"))
    first = composed(export)
    intake = take_in(export.write(tmp_path / "second"))
    again = compose(intake.candidates[::-1], base, Rules(trusted=ANNA), excluded={})
    assert again.split.sha256 == first.split.sha256


@pytest.mark.parametrize("values", [{"share": 0.0}, {"replay": 1.5}, {"min_new_class": 1}])
def test_rules_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Rules(**values)
