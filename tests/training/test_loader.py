from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibinn.errors import ConfigError, DataError
from ibinn.images import JpegStep, Preprocessing, PreprocessingConfig
from tests.training.image_folders import write_folder
from training import jpeg, loader
from training.augment import AugmentConfig, augment, cut, draw_box, vary
from training.data import open_data
from training.image_set import ImageSet
from training.loader import Batch, TrainLoader, eval_batches

PLAIN = PreprocessingConfig(side=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
WITH_JPEG = PreprocessingConfig(
    side=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), jpeg=JpegStep()
)
VARY = AugmentConfig(crop_padding=1, flip=True, color_jitter=0.1)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return open_data("digits").train.subset(range(100))


def make(
    images: ImageSet,
    *,
    config: PreprocessingConfig = WITH_JPEG,
    vary: AugmentConfig = VARY,
    batch_size: int = 16,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> TrainLoader:
    return TrainLoader(
        images,
        Preprocessing(config),
        vary,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        rank=rank,
        world_size=world_size,
    )


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.ids == other.ids


def test_batches_have_the_promised_shapes_and_drop_the_rest(images: ImageSet) -> None:
    batches = list(make(images).epoch(0))
    assert len(batches) == make(images).steps_per_epoch == 6
    assert batches[0].images.shape == (16, 8, 8, 3)
    assert batches[0].images.dtype == torch.uint8
    assert batches[0].labels.dtype == torch.int64
    seen = [key for batch in batches for key in batch.ids]
    assert len(set(seen)) == 96
    label_of = {item.id: item.label for item in images.items}
    assert [label_of[key] for key in batches[2].ids] == batches[2].labels.tolist()


def test_the_batches_do_not_depend_on_the_number_of_workers(images: ImageSet) -> None:
    alone, helped = make(images), make(images, workers=2)
    for epoch in (0, 1):
        assert_same(list(alone.epoch(epoch)), list(helped.epoch(epoch)))


def test_an_epoch_resumes_at_any_step_with_the_same_batches(images: ImageSet) -> None:
    whole = list(make(images).epoch(3))
    assert_same(whole[4:], list(make(images).epoch(3, start_step=4)))
    assert list(make(images).epoch(3, start_step=6)) == []


def test_an_abandoned_epoch_does_not_leak_into_the_next(images: ImageSet) -> None:
    train = make(images, batch_size=4, workers=1)
    next(iter(train.epoch(0)))
    assert_same(list(train.epoch(1)), list(make(images, batch_size=4).epoch(1)))


def test_epochs_and_seeds_differ_in_order_and_variation(images: ImageSet) -> None:
    first, second = (next(make(images).epoch(epoch)) for epoch in (0, 1))
    other = next(make(images, seed=1).epoch(0))
    assert first.ids != second.ids != other.ids
    everything = make(images, batch_size=100)
    once, again = next(everything.epoch(0)), next(everything.epoch(1))
    place = {key: row for row, key in enumerate(again.ids)}
    rows = [place[key] for key in once.ids]
    assert not torch.equal(once.images, again.images[rows])


def test_processes_get_disjoint_parts_that_make_up_every_step(images: ImageSet) -> None:
    whole = make(images, batch_size=24)
    parts = [make(images, batch_size=8, rank=rank, world_size=3) for rank in range(3)]
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    for step, *shares in zip(whole.epoch(0), *(part.epoch(0) for part in parts), strict=True):
        joined = [key for share in shares for key in share.ids]
        assert tuple(joined) == step.ids
        assert len(set(joined)) == 24
        assert torch.equal(torch.cat([share.images for share in shares]), step.images)


def test_the_jpeg_step_comes_after_the_augmentation(images: ImageSet) -> None:
    train = make(images)
    preprocessing = Preprocessing(WITH_JPEG)
    batch = next(train.epoch(2))
    for row, index in enumerate(train.order(2)[0]):
        rng = np.random.default_rng([0, 2, int(index)])
        varied = augment(preprocessing.fit_size(images.load(index)), VARY, rng)
        assert (batch.images[row].numpy() == preprocessing.finish(varied)).all()


def test_without_augmentation_training_and_evaluation_see_the_same_pixels(
    images: ImageSet,
) -> None:
    batch = next(make(images, vary=AugmentConfig(), batch_size=100).epoch(0))
    evaluated = next(eval_batches(images, Preprocessing(WITH_JPEG), 100))
    place = {key: row for row, key in enumerate(evaluated.ids)}
    rows = [place[key] for key in batch.ids]
    assert torch.equal(batch.images, evaluated.images[rows])


def test_the_quick_jpeg_step_gives_the_very_pixels_of_the_preprocessing(
    rng: np.random.Generator,
) -> None:
    preprocessing = Preprocessing(WITH_JPEG)
    noise = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    finish = jpeg.finisher(preprocessing, noise[:10])
    for pixels in noise:
        assert (finish(pixels) == preprocessing.finish(pixels)).all()


def test_a_jpeg_codec_that_differs_is_not_used(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    preprocessing = Preprocessing(WITH_JPEG)
    noise = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    monkeypatch.setattr(jpeg, "decode_jpeg", lambda _: torch.zeros(3, 8, 8, dtype=torch.uint8))
    assert jpeg.finisher(preprocessing, noise) == preprocessing.finish


def test_evaluation_keeps_the_order_and_ends_with_a_short_batch(images: ImageSet) -> None:
    batches = list(eval_batches(images, Preprocessing(PLAIN), 32))
    assert [len(batch.ids) for batch in batches] == [32, 32, 32, 4]
    assert [key for batch in batches for key in batch.ids] == [item.id for item in images.items]
    assert torch.cat([batch.labels for batch in batches]).tolist() == images.labels.tolist()
    assert (batches[3].images[3].numpy() == images.load(99)).all()


def test_images_too_many_to_keep_are_resized_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = open_data(str(write_folder(tmp_path, {"a": 5, "b": 5}))).train
    kept = list(make(train, batch_size=4).epoch(0))
    monkeypatch.setattr(loader, "CACHE_BYTES", 100)
    assert_same(list(make(train, batch_size=4).epoch(0)), kept)


def photographs(folder: Path) -> ImageSet:
    """JPEG files of different sizes."""
    rng = np.random.default_rng(0)
    for number in range(12):
        size = (90 + 20 * number, 200 - 10 * number)
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = folder / "ab"[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return open_data(str(folder)).train


CROPS = AugmentConfig(random_resized_crop_min=0.08, flip=True)


def test_crops_are_cut_from_the_original_and_not_from_its_square(tmp_path: Path) -> None:
    train = photographs(tmp_path)
    batch = next(make(train, config=PLAIN, vary=CROPS, batch_size=12).epoch(0))
    order = make(train, config=PLAIN, vary=CROPS, batch_size=12).order(0)[0]
    for row, index in enumerate(order.tolist()):
        rng = np.random.default_rng([0, 0, index])
        height, width = train.load(index).shape[:2]
        box = draw_box((height, width), 0.08, rng)
        whole = cut(train.load(index), box, 8, size=(height, width))
        expected = vary(whole, CROPS, rng).astype(int)
        # Large cuts are decoded at a fraction of their size.
        assert np.abs(batch.images[row].numpy() - expected).mean() < 2


def test_crops_of_photographs_do_not_depend_on_workers_and_resume_at_any_step(
    tmp_path: Path,
) -> None:
    train = photographs(tmp_path)
    one, two = (
        make(train, config=PLAIN, vary=CROPS, batch_size=4, workers=workers) for workers in (0, 2)
    )
    whole = list(one.epoch(1))
    assert_same(whole, list(two.epoch(1)))
    assert_same(whole[1:], list(two.epoch(1, start_step=1)))


def test_the_time_that_a_consumer_waits_is_counted(images: ImageSet) -> None:
    train = make(images)
    assert train.waited_s == 0.0
    list(train.epoch(0))
    spent = train.waited_s
    assert spent > 0.0
    train.waited_s = 0.0
    next(iter(train.epoch(1)))
    assert 0.0 < train.waited_s < spent


def test_all_images_are_prepared_in_order_for_evaluation(tmp_path: Path) -> None:
    train = photographs(tmp_path)
    preprocessing = Preprocessing(WITH_JPEG)
    batches = list(eval_batches(train, preprocessing, 5))
    assert [len(batch.labels) for batch in batches] == [5, 5, 2]
    images = np.concatenate([batch.images.numpy() for batch in batches])
    for index in range(12):
        expected = preprocessing.finish(preprocessing.fit_size(train.load(index)))
        assert (images[index] == expected).all()
    (tmp_path / "a" / "00.jpg").unlink()
    with pytest.raises(DataError, match=r"00\.jpg was readable"):
        list(eval_batches(train, preprocessing, 5))


def test_fewer_images_than_one_step_are_refused(images: ImageSet) -> None:
    with pytest.raises(ConfigError, match=r"one step takes 128 images.*there are 100"):
        make(images, batch_size=64, world_size=2)
    with pytest.raises(ConfigError, match="rank 2, world_size 2"):
        make(images, rank=2, world_size=2)
