from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from ibinn.errors import ConfigError, DataError
from tests.training.image_folders import random_set, source_of, write_folder
from training.data import open_data
from training.dealing import deal, keep_together, quotas
from training.image_set import ImageSet
from training.splits import Role, SplitConfig, SplitManifest, make_splits, role_set

SHARES = [0.0, 0.05, 0.05, 0.05, 0.0]


def test_fifty_thousand_labels_split_exactly_and_stratified() -> None:
    labels = np.arange(50_000) % 10
    ids = [f"id{index}" for index in range(50_000)]
    roles = deal(ids, labels, np.arange(50_000), SHARES, seed=0)
    assert np.bincount(roles).tolist() == [42_500, 2_500, 2_500, 2_500]
    for role, each in enumerate((4_250, 250, 250, 250)):
        assert np.bincount(labels[roles == role]).tolist() == [each] * 10


def test_pairs_kept_together_do_not_change_the_counts() -> None:
    labels = np.arange(50_000) % 10
    clusters = np.arange(50_000)
    clusters[10:4_000:20] = clusters[0:3_990:20]  # 200 pairs of one class
    clusters[5:4_000:20] = clusters[1:3_996:20]  # 200 pairs over two classes
    ids = [f"id{index}" for index in range(50_000)]
    roles = deal(ids, labels, clusters, SHARES, seed=0)
    assert np.bincount(roles).tolist() == [42_500, 2_500, 2_500, 2_500]
    _, first = np.unique(clusters, return_index=True)
    role_of_cluster = dict(zip(clusters[first], roles[first], strict=True))
    assert all(role_of_cluster[c] == r for c, r in zip(clusters, roles, strict=True))
    assert len(np.unique(roles[0:3_990:20])) > 1  # pairs are not all put into training


def test_uneven_classes_get_their_shares_rounded_and_exact_totals() -> None:
    labels = np.repeat([0, 1, 2, 3], [1_000, 333, 47, 3])
    table = quotas(labels, SHARES, class_count=4)
    assert table[1:4].sum(axis=1).tolist() == [69, 69, 69]  # round(0.05 * 1383)
    assert (np.abs(table[1:4] - 0.05 * np.bincount(labels)) < 1).all()
    assert (table[0] >= 1).all()


def test_every_class_keeps_a_training_image() -> None:
    table = quotas(np.array([0, 0, 1]), [0.0, 0.3, 0.3, 0.3, 0.0], class_count=2)
    assert table[0].tolist() == [1, 1]
    assert (table >= 0).all()


def test_groups_stay_together() -> None:
    groups = [f"lot{index % 40}" for index in range(2_000)]
    source = source_of(random_set(np.arange(2_000) % 3, class_count=3, groups=groups))
    manifest = make_splits(source, SplitConfig())
    for role in Role:
        part = role_set(source, manifest, role)
        others = {
            item.group for item in source.train.items if manifest.role_of(item.id) is not role
        }
        assert len(part) > 0
        assert not others & {item.group for item in part.items}


def test_a_few_large_groups_give_every_role_one() -> None:
    groups = [f"device{index % 8}" for index in range(800)]
    source = source_of(random_set(np.arange(800) % 2, class_count=2, groups=groups))
    counts = {r: len(ids) for r, ids in make_splits(source, SplitConfig()).roles.items()}
    assert min(counts.values()) >= 100
    assert counts[Role.TRAIN] >= 300


def test_groups_and_near_duplicates_join_into_one_cluster() -> None:
    clusters = np.array([0, 1, 1, 2, 3])
    joined = keep_together(["a", "a", "", "", "b"], clusters)
    assert joined[0] == joined[1] == joined[2]
    assert len(np.unique(joined)) == 3


def test_no_image_serves_two_roles_on_real_digits() -> None:
    source = open_data("digits")
    manifest = make_splits(source, SplitConfig())
    parts = [set(ids) for ids in manifest.roles.values()]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert sum(map(len, manifest.roles.values())) == len(source.train)
    assert len(manifest.roles[Role.TEST]) == round(0.15 * 1797)


def test_copies_get_one_role_and_are_all_in_it(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 30, "b": 30})
    for number in range(20):
        original = tmp_path / "a" / f"{number:03d}.png"
        (tmp_path / "a" / f"copy{number}.png").write_bytes(original.read_bytes())
    source = open_data(str(tmp_path))
    manifest = make_splits(source, SplitConfig())
    parts = [role_set(source, manifest, role) for role in Role]
    assert sum(map(len, parts)) == 80
    assert [len(part) for part in parts] == [len(ids) for ids in manifest.roles.values()]
    seen = [{item.id for item in part.items} for part in parts]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 60


def test_the_split_does_not_depend_on_names_or_order() -> None:
    images = random_set(np.arange(500) % 5, class_count=5)
    shuffled = images.subset(np.random.default_rng(1).permutation(500))
    first = make_splits(source_of(images), SplitConfig())
    assert make_splits(source_of(shuffled), SplitConfig()).roles == first.roles
    assert make_splits(source_of(images), SplitConfig(seed=1)).roles != first.roles


def test_the_datas_own_test_set_is_the_test_role_and_nothing_else_is() -> None:
    train = random_set(np.arange(200) % 2, class_count=2)
    test = random_set(np.arange(50) % 2, class_count=2, seed=1)
    manifest = make_splits(source_of(train, test), SplitConfig())
    assert sorted(manifest.roles[Role.TEST]) == sorted(item.id for item in test.items)
    assert len(manifest.roles[Role.TRAIN]) == 170


def with_group(images: ImageSet, indices: list[int], group: str) -> ImageSet:
    items = list(images.items)
    for index in indices:
        items[index] = dataclasses.replace(items[index], group=group)
    return ImageSet(
        class_names=images.class_names,
        items=items,
        store=images._store,
        thumbnails=images.thumbnails,
        sizes=images.sizes,
    )


def test_training_images_that_the_test_set_holds_get_no_role() -> None:
    everything = random_set(np.arange(200) % 2, class_count=2)
    train, test = everything.subset(range(150)), everything.subset(range(140, 200))
    manifest = make_splits(source_of(train, test), SplitConfig())
    assert len(manifest.excluded) == 10
    assert len(role_set(source_of(train, test), manifest, Role.TEST)) == 60
    assert sum(len(manifest.roles[role]) for role in Role if role is not Role.TEST) == 140


def test_training_images_of_a_group_in_the_test_set_get_no_role() -> None:
    train = with_group(random_set(np.arange(200) % 2, class_count=2), [3, 4, 5], "patient1")
    test = with_group(random_set(np.arange(50) % 2, class_count=2, seed=1), [0], "patient1")
    manifest = make_splits(source_of(train, test), SplitConfig())
    assert set(manifest.excluded) == {train.items[index].id for index in (3, 4, 5)}


def test_too_few_images_for_a_role_are_refused_with_what_to_do() -> None:
    source = source_of(random_set([0, 0, 1, 1], class_count=2))
    with pytest.raises(DataError, match=r"leave none for validation.*add images"):
        make_splits(source, SplitConfig())


def test_a_manifest_survives_saving(tmp_path: Path) -> None:
    source = source_of(random_set(np.arange(200) % 2, class_count=2))
    manifest = make_splits(source, SplitConfig(seed=3))
    manifest.save(tmp_path / "splits.json")
    assert SplitManifest.load(tmp_path / "splits.json") == manifest


def test_a_changed_manifest_file_is_refused() -> None:
    source = source_of(random_set(np.arange(200) % 2, class_count=2))
    values = json.loads(make_splits(source, SplitConfig()).to_json())
    values["roles"]["train"].pop()
    with pytest.raises(DataError, match="ids of role train have sha256"):
        SplitManifest.from_json(json.dumps(values))
    with pytest.raises(DataError, match="malformed"):
        SplitManifest.from_json("{}")
    with pytest.raises(DataError, match="format version 99"):
        SplitManifest.from_json(json.dumps(values | {"format_version": 99}))


def test_a_manifest_with_an_image_in_two_roles_is_refused() -> None:
    with pytest.raises(DataError, match="two roles"):
        SplitManifest(
            source="x",
            config=SplitConfig(),
            roles={Role.TRAIN: ("a", "b"), Role.TEST: ("b",)},
        )


def test_data_that_lost_images_is_refused() -> None:
    images = random_set(np.arange(200) % 2, class_count=2)
    manifest = make_splits(source_of(images), SplitConfig())
    with pytest.raises(DataError, match="are not in the data any more"):
        role_set(source_of(images.subset(range(100))), manifest, Role.TRAIN)


@pytest.mark.parametrize("values", [{"validation": -0.1}, {"test": 1.0}, {"calibration_a": 0.9}])
def test_impossible_shares_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="split shares"):
        SplitConfig(**values)  # type: ignore[arg-type]
