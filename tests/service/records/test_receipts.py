"""Receipts: what was signed reads, and nothing else does."""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from base64 import urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn.errors import ConfigError, RequestError
from ibinn.records import AnswerDigest
from ibinn.types import Action, Verdict, Versions
from service.converters import records as bodies
from service.records import receipts
from service.records.receipts import Receipts
from service.settings import Settings
from tests.service.records import made

KEY = b"k" * 32
DIGEST = AnswerDigest.of(made.prediction(1, group_id="patient 7"))
RECORD_ID = DIGEST.record_id
TOKEN = Receipts([KEY]).sign(DIGEST)

texts = st.text(max_size=50)
times = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)
)
chances = st.floats(0, 1)
digests = st.builds(
    AnswerDigest,
    record_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    received_time=times,
    versions=st.builds(
        Versions, weights=texts, calibration=texts, policy=texts, taxonomy=texts, software=texts
    ),
    class_name=texts,
    confidence=chances,
    verdict=st.sampled_from(Verdict),
    action=st.none() | st.sampled_from(Action),
    sha256_bytes=st.just("") | st.just("ab" * 32),
    sha256_pixels=st.just("cd" * 32),
    p_value=st.none() | chances,
    group_id=texts,
)


def refused(token: str, *, by: Receipts | None = None, record_id: str = RECORD_ID) -> str:
    with pytest.raises(RequestError) as caught:
        (by or Receipts([KEY])).read(token, record_id=record_id)
    assert caught.value.field == "receipt"
    return str(caught.value)


@given(digests)
def test_a_receipt_reads_as_the_answer_that_was_signed(digest: AnswerDigest) -> None:
    signing = Receipts([KEY])
    token = signing.sign(digest)
    assert token.isascii()
    assert len(token) <= receipts.LONGEST_TOKEN_BYTES
    assert signing.read(token, record_id=digest.record_id) == digest


@given(st.text(max_size=300))
def test_no_text_is_taken_for_a_receipt(text: str) -> None:
    refused(text)


@given(st.binary(max_size=80), st.binary(max_size=40))
def test_no_payload_without_the_key_is_taken(payload: bytes, tag: bytes) -> None:
    name = receipts.key_name(KEY)
    parts = [urlsafe_b64encode(part).decode().rstrip("=") for part in (payload, tag)]
    refused(f"ib1.{name}:{parts[0]}.{parts[1]}")


@given(st.integers(0, len(TOKEN) - 1), st.characters(max_codepoint=0x2FF))
def test_a_receipt_with_any_character_changed_is_refused(place: int, other: str) -> None:
    changed = TOKEN[:place] + other + TOKEN[place + 1 :]
    if changed != TOKEN:
        refused(changed)


@given(st.integers(0, len(TOKEN) - 1))
def test_a_receipt_that_was_cut_off_is_refused(length: int) -> None:
    refused(TOKEN[:length])


@pytest.mark.parametrize("extra", ["\n", " ", "=", "A", "\x00", ".", "é"])
def test_a_receipt_with_something_behind_it_is_refused(extra: str) -> None:
    refused(TOKEN + extra)
    refused(extra + TOKEN)


def test_a_tag_has_one_text_only() -> None:
    # The last character of 43 carries two bits that decode to nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(TOKEN[-1])
    for bits in range(1, 4):
        refused(TOKEN[:-1] + alphabet[last ^ bits])


def test_a_receipt_of_another_answer_is_refused_and_both_are_named() -> None:
    other = made.record_id(2)
    said = refused(TOKEN, record_id=other)
    assert RECORD_ID in said
    assert other in said


def test_a_receipt_of_another_deployment_names_the_keys() -> None:
    said = refused(TOKEN, by=Receipts([b"o" * 32]))
    assert receipts.key_name(KEY) in said
    assert receipts.key_name(b"o" * 32) in said


def test_a_receipt_that_is_too_long_is_refused_before_it_is_looked_at() -> None:
    assert "4096" in refused("ib1." + "A" * 5000)


def test_a_signed_payload_that_does_not_read_is_an_error_of_the_receipt() -> None:
    signed = f"ib1.{receipts.key_name(KEY)}:{urlsafe_b64encode(b'no message').decode().rstrip('=')}"
    tag = receipts._tag(KEY, signed.encode()).decode()
    assert "another version" in refused(f"{signed}.{tag}")


def test_a_new_key_signs_and_the_old_one_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# of 2027\n" + "n" * 32 + "\n\n# of 2026\n" + KEY.decode() + "\n")
    path.chmod(0o600)
    both = Receipts.open(Settings(receipt_key=path))
    assert both.key_names == (receipts.key_name(b"n" * 32), receipts.key_name(KEY))
    assert both.read(TOKEN, record_id=RECORD_ID) == DIGEST
    assert receipts.key_name(b"n" * 32) in both.sign(DIGEST)
    refused(both.sign(DIGEST))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no key"),
        (b"# only a comment\n", "holds no key"),
        (b"short\n", "line 1"),
        (KEY + b"\n" + b"x" * 31, "line 2"),
        (b"two words " * 5, "line 1"),
        (b"\xff" * 40, "is not text"),
        (b"a\x07" * 20, "line 1"),
    ],
)
def test_a_file_without_usable_keys_is_refused_and_no_key_is_shown(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        Receipts.open(Settings(receipt_key=path))
    assert str(path) in str(caught.value)
    assert KEY.decode() not in str(caught.value)


def test_a_file_of_keys_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="openssl rand -hex 32"):
        Receipts.open(Settings(receipt_key=tmp_path / "none"))


def test_a_file_of_keys_that_others_may_write_is_refused_and_may_read_is_warned_of(
    tmp_path: Path,
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(KEY)
    path.chmod(0o644)
    assert "chmod 600" in receipts.warnings(Settings(receipt_key=path))[0]
    path.chmod(0o600)
    assert receipts.warnings(Settings(receipt_key=path)) == []
    assert receipts.warnings(Settings()) == []
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="can be written by everyone"):
        Receipts.open(Settings(receipt_key=path))


def test_without_a_key_one_is_made_in_the_state_folder_and_kept(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    token = Receipts.open(settings).sign(DIGEST)
    assert Receipts.open(settings).read(token, record_id=RECORD_ID) == DIGEST
    (path,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text().strip()) == 64


def test_without_a_state_folder_the_key_is_of_this_run() -> None:
    token = Receipts.open(Settings()).sign(DIGEST)
    refused(token, by=Receipts.open(Settings()))


def test_many_that_start_at_once_have_one_key(tmp_path: Path) -> None:
    folder, count = tmp_path / "state", 16
    barrier = threading.Barrier(count)

    def start() -> tuple[str, ...]:
        barrier.wait(30)
        return Receipts.open(Settings(state_dir=folder)).key_names

    with ThreadPoolExecutor(count) as threads:
        found = [threads.submit(start) for _ in range(count)]
        assert len({each.result(30) for each in found}) == 1
    assert [path.name for path in folder.iterdir()] == [receipts.KEY_FILE]


def test_a_state_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--receipt-key"):
        Receipts.open(Settings(state_dir=tmp_path / "file" / "state"))


def test_a_damaged_key_in_the_state_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / receipts.KEY_FILE).write_text("cut")
    with pytest.raises(ConfigError, match="is no key"):
        Receipts.open(Settings(state_dir=tmp_path))
    assert os.listdir(tmp_path) == [receipts.KEY_FILE]


@pytest.mark.parametrize("keys", [[], [b"short"]])
def test_keys_are_checked(keys: list[bytes]) -> None:
    with pytest.raises(ConfigError):
        Receipts(keys)


def test_the_longest_answer_still_fits_into_a_request() -> None:
    long = dataclasses.replace(DIGEST, class_name="x" * 1000, group_id="g" * 128)
    assert len(Receipts([KEY]).sign(long)) <= receipts.LONGEST_TOKEN_BYTES
    assert bodies.read_digest(bodies.digest_bytes(long)) == long
