"""Short forms of `make fuzz`, and laws of what it is made of."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from ibinn.errors import ImageError
from ibinn.v1 import classification_service_pb2 as service
from tests.fuzz import calls, campaign, image_mutations, message_mutations, seeds, targets

FEW = 4000
MEDIUM = 20_000


# --------------------------------------------------------------------------- in this process


@pytest.fixture(autouse=True)
def _damaged_images_may_warn() -> None:
    warnings.simplefilter("ignore")


def test_mutated_images_are_prepared_or_refused() -> None:
    images = seeds.images()
    for number in range(FEW):
        rng = random.Random(f"short-{number}")
        targets.decode_one(image_mutations.mutated(rng.choice(images), rng, images))


def test_mutated_messages_are_converted_or_refused() -> None:
    messages = list(targets.message_seeds(random.Random(1)))
    for number in range(FEW):
        rng = random.Random(f"short-{number}")
        kind, *_ = message = rng.choice(messages)
        changed = message_mutations.mutated(message[1:], rng, [m[1:] for m in messages[:50]])
        targets.check_one(bytes([kind]) + changed)


@pytest.mark.parametrize("image", seeds.images(), ids=range(len(seeds.images())))
def test_every_seed_is_prepared_or_refused(image: bytes) -> None:
    targets.decode_one(image)


def test_seeds_hold_every_format_sound_and_broken() -> None:
    formats, refused = set(), 0
    for image in seeds.images():
        try:
            formats.add(targets.PREPARER(image).input.format)
        except ImageError:
            refused += 1
    assert formats == {"JPEG", "PNG", "WEBP", "BMP", "GIF"}
    assert refused > 20


# ------------------------------------------------------------------------- what it is made of


def test_the_same_seed_makes_the_same_calls() -> None:
    images = seeds.images()
    messages = list(targets.message_seeds(random.Random(1)))
    first, second = (
        [
            *calls.image_calls(3, 200, images),
            *calls.message_calls(3, 200, messages, images),
        ]
        for _ in range(2)
    )
    assert first == second
    assert sum(call.inputs for call in first) == 400


def test_a_message_is_joined_from_the_fields_that_it_was_split_into() -> None:
    rng = random.Random(1)
    for _ in range(200):
        message = message_mutations.random_message(
            service.ExplainRequest, rng, seeds.images()[:5]
        ).SerializeToString()
        fields = message_mutations.split(message)
        assert fields is not None
        assert message_mutations.joined(fields) == message


def test_mutations_of_messages_reach_the_code_behind_the_parser() -> None:
    """Were nearly all refused by the parser, little else would be tested."""
    messages = list(targets.message_seeds(random.Random(1)))
    parsed = 0
    for number in range(500):
        rng = random.Random(f"parsed-{number}")
        kind, *_ = message = rng.choice(messages)
        try:
            targets.REQUESTS[kind].FromString(
                message_mutations.mutated(message[1:], rng, [m[1:] for m in messages[:50]])
            )
        except DecodeError:
            continue
        parsed += 1
    assert parsed > 150


def test_checksums_are_made_right() -> None:
    good = seeds.good()
    damaged = good.replace(good[29:33], b"\0\0\0\0", 1)
    assert damaged != good
    assert image_mutations.with_checksums(damaged) == good


# ------------------------------------------------------------------------ against a server


def held(report: campaign.Report, inputs: int) -> None:
    assert report.findings == []
    assert report.inputs >= inputs
    assert report.memory_mb["growth"] < 50


def test_a_server_stands_a_short_campaign(tmp_path: Path) -> None:
    held(campaign.run(inputs=1500, seed=7, out=tmp_path), 1500)
    assert (tmp_path / "fuzz-report.json").is_file()


@pytest.mark.slow
def test_a_server_stands_a_medium_campaign(tmp_path: Path) -> None:
    held(campaign.run(inputs=MEDIUM, seed=8, out=tmp_path), MEDIUM)
