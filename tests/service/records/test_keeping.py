"""Which images are kept."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest

from ibinn.records import ImageKept
from ibinn.types import Action, Decision, Prediction, Verdict
from service.records.keeping import Keeping, is_drawn
from service.settings import Settings
from tests.service.records import made

PLAIN = made.prediction(1)
FLAGGED = dataclasses.replace(PLAIN, verdict=Verdict.UNKNOWN)


def decided(action: Action) -> Prediction:
    decision = Decision(action=action, class_name=None, rule="risk", reason="", expected_cost=None)
    return dataclasses.replace(PLAIN, decision=decision)


def keeping(policy: str, share: float = 1.0) -> Keeping:
    return Keeping(policy=policy, share=share)


@pytest.mark.parametrize(
    ("policy", "plain", "flagged"),
    [
        ("none", None, None),
        ("sampled", ImageKept.SAMPLED, ImageKept.SAMPLED),
        ("flagged", None, ImageKept.FLAGGED),
        ("flagged_and_sampled", ImageKept.SAMPLED, ImageKept.FLAGGED),
        ("all", ImageKept.ALL, ImageKept.ALL),
    ],
)
def test_a_policy_keeps_what_its_name_says(
    policy: str, plain: ImageKept | None, flagged: ImageKept | None
) -> None:
    assert keeping(policy).wanted(PLAIN) is plain
    assert keeping(policy).wanted(FLAGGED) is flagged


@pytest.mark.parametrize("verdict", set(Verdict) - {Verdict.NOT_FLAGGED})
def test_every_verdict_but_not_flagged_is_flagged(verdict: Verdict) -> None:
    found = dataclasses.replace(PLAIN, verdict=verdict)
    assert keeping("flagged").wanted(found) is ImageKept.FLAGGED


@pytest.mark.parametrize(
    ("action", "kept"),
    [
        (Action.ACCEPT, None),
        (Action.DEFER, ImageKept.FLAGGED),
        (Action.REJECT_INPUT, ImageKept.FLAGGED),
    ],
)
def test_every_decision_but_accept_is_flagged(action: Action, kept: ImageKept | None) -> None:
    assert keeping("flagged").wanted(decided(action)) is kept


@pytest.mark.parametrize("policy", ["sampled", "flagged", "flagged_and_sampled", "all"])
def test_an_image_without_bytes_is_never_kept(policy: str) -> None:
    pixels = dataclasses.replace(FLAGGED, input=dataclasses.replace(FLAGGED.input, sha256_bytes=""))
    assert keeping(policy).wanted(pixels) is None


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_the_share_that_is_drawn_is_the_share_asked_for(share: float) -> None:
    count = 20_000
    drawn = sum(is_drawn(hashlib.sha256(str(n).encode()).hexdigest(), share) for n in range(count))
    error = (share * (1 - share) / count) ** 0.5
    assert abs(drawn / count - share) < 4 * error


def test_the_draw_can_be_recomputed_from_the_hash_alone() -> None:
    sha256 = PLAIN.input.sha256_bytes
    drawn = hashlib.sha256(b"ibinn kept\n" + sha256.encode()).digest()
    u = int.from_bytes(drawn[:8], "big") / 2**64
    assert not is_drawn(sha256, u * 0.999)
    assert is_drawn(sha256, min(1.0, u * 1.001))


def test_a_larger_share_draws_all_that_a_smaller_one_did() -> None:
    hashes = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(500)]
    small = {sha256 for sha256 in hashes if is_drawn(sha256, 0.1)}
    assert small < {sha256 for sha256 in hashes if is_drawn(sha256, 0.2)}
    assert all(is_drawn(sha256, 1.0) for sha256 in hashes)


def test_it_is_as_the_settings_say() -> None:
    found = Keeping.of(Settings(keep_images="sampled", keep_share=0.25))
    assert found == keeping("sampled", 0.25)
    assert found.keeps_any
    assert not Keeping.of(Settings()).keeps_any
