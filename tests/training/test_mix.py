from __future__ import annotations

import numpy as np
import pytest

from ibinn.errors import ConfigError
from ibinn.selective_bootstrap import part_weights
from training.mix import NO_LABEL, Mix, MixConfig, Part, make_mix
from training.ood_sets import OodSet

COUNT = 40


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (COUNT, 16, 16, 3), dtype=np.uint8)


def ood_set(name: str, count: int = 6) -> OodSet:
    return OodSet(name=name, description=f"{name}.", images=np.zeros((count, 16, 16, 3), np.uint8))


def made(images: np.ndarray, *names: str, **settings: object) -> Mix:
    labels = np.arange(len(images)) % 3
    return make_mix(images, labels, [ood_set(name) for name in names], MixConfig(), **settings)


ALL = ("rotation", "noise-0.1", "noise-0.015", "digits", "tiny-imagenet")


def test_the_shares_are_those_that_are_stated(images):
    mix = made(images, *ALL)
    weights = part_weights(mix.component, mix.shares)
    of_part: dict[Part, float] = {}
    for number, component in enumerate(mix.components):
        own = float(weights[mix.component == number].sum())
        assert own == pytest.approx(component.share)
        of_part[component.part] = of_part.get(component.part, 0.0) + own
    assert of_part == pytest.approx(
        {Part.CLEAN: 0.5, Part.CORRUPTED: 0.25, Part.NEAR: 0.125, Part.FAR: 0.125}
    )


def test_only_the_named_sets_are_in_the_mix(images):
    names = [c.name for c in made(images, *ALL).components]
    assert names == [
        "test images",
        "mildly corrupted",
        "tiny-imagenet",
        "rotation",
        "noise-0.1",
        "digits",
    ]


def test_unknown_images_have_no_label_and_corrupted_ones_keep_theirs(images):
    mix = made(images, *ALL)
    labels = np.arange(COUNT) % 3
    for component in mix.components:
        if component.part in (Part.NEAR, Part.FAR):
            assert (component.labels == NO_LABEL).all()
        else:
            np.testing.assert_array_equal(component.labels, labels[component.sources])


def test_a_corrupted_image_has_the_source_of_the_image_it_was_made_of(images):
    mix = made(images, *ALL, corrupted_count=10)
    corrupted = mix.components[1]
    assert len(corrupted) == 10
    for index in range(10):
        original = images[corrupted.sources[index]].astype(int)
        damage = np.abs(corrupted.images[index].astype(int) - original).mean()
        others = [np.abs(corrupted.images[index] - other.astype(int)).mean() for other in images]
        assert damage == min(others)
    assert len(np.unique(mix.sources)) == COUNT + 4 * 6


def test_every_condition_takes_part_equally(images):
    mix = made(images, "digits")
    assert len(mix.config.conditions) == 8
    # 40 images, 8 conditions: each takes five, in random order.
    turn = np.random.default_rng(0).permutation(COUNT) % 8
    assert np.bincount(turn).tolist() == [5] * 8


def test_a_corrupted_image_is_the_same_each_time(images):
    corrupted = made(images, "digits").components[1]
    again = made(images, "digits").components[1]
    np.testing.assert_array_equal(corrupted.images[7], again.images[7])
    np.testing.assert_array_equal(corrupted.images[7], corrupted.images[7])


def test_a_missing_part_leaves_its_share_to_the_other_one_and_is_noted(images):
    mix = made(images, "rotation", "digits")
    assert mix.shares.tolist() == pytest.approx([0.5, 0.25, 0.125, 0.125])
    assert mix.notes == (
        "There is no near-OoD set, so its share went to the other unknown images.",
    )


def test_a_mix_without_unknown_images_is_refused(images):
    with pytest.raises(ConfigError, match="expected at least one: a mix without unknown images"):
        made(images, "noise-0.015")


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_another_share_of_unknown_images_keeps_all_other_proportions(images, share):
    config = MixConfig().with_ood_share(share)
    assert config.ood_share == pytest.approx(share)
    assert config.clean / config.corrupted == pytest.approx(2.0)
    assert config.near == pytest.approx(config.far)
    mix = made(images, *ALL)
    assert mix.shares_of(config).sum() == pytest.approx(1.0)
    assert mix.shares_of(config)[2:].sum() == pytest.approx(share)


def test_shares_that_do_not_add_up_are_refused():
    with pytest.raises(ConfigError, match="expected numbers of 0 or more that add up to 1"):
        MixConfig(clean=0.6)


def test_a_corruption_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"corruptions \['rain'\] do not exist"):
        MixConfig(corruptions=("rain",))
