"""Files of TLS that cannot be used are refused before a caller meets them, each with its reason."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from service.access.pem import Examined, TlsFiles, examine
from tests.service.certificates import DAY, Certificates, certificates


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


@pytest.fixture
def files(made: Certificates) -> TlsFiles:
    return TlsFiles(certificate=made.server.certificate, key=made.server.key, client_ca=made.ca)


def look(files: TlsFiles, *, after: timedelta = timedelta(0)) -> Examined:
    return examine(files, now=datetime.now(UTC) + after)


def test_a_good_set_is_taken_as_it_stands(files: TlsFiles) -> None:
    found = look(files)
    assert (found.problems, found.warnings) == ((), ())
    assert found.material is not None
    assert found.material.certificate == files.certificate.read_bytes()
    assert found.material.key == files.key.read_bytes()
    assert files.client_ca is not None
    assert found.material.client_ca == files.client_ca.read_bytes()


def test_a_chain_counts_by_its_first_certificate(files: TlsFiles, made: Certificates) -> None:
    files.certificate.write_bytes(files.certificate.read_bytes() + made.ca.read_bytes())
    assert look(files).problems == ()
    files.certificate.write_bytes(made.ca.read_bytes() + made.server.certificate.read_bytes())
    assert "does not belong" in look(files).problems[0]


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    missing = TlsFiles(
        certificate=tmp_path / "a.pem", key=tmp_path / "b.pem", client_ca=tmp_path / "c.pem"
    )
    found = look(missing)
    assert found.material is None
    assert len(found.problems) == 3
    for name, problem in zip(("a.pem", "b.pem", "c.pem"), found.problems, strict=True):
        assert name in problem
        assert "cannot be read (No such file or directory)" in problem


def test_what_is_not_pem_is_refused_and_not_shown(files: TlsFiles) -> None:
    for name in ("certificate", "key", "client_ca"):
        path = getattr(files, name)
        whole = path.read_bytes()
        for content in (b"", b"secret words", whole[: len(whole) // 2], whole.replace(b"M", b"%")):
            path.write_bytes(content)
            found = look(files)
            assert found.material is None
            (problem,) = found.problems
            assert str(path) in problem
            assert "PEM" in problem
            assert "secret words" not in problem
        path.write_bytes(whole)
    assert look(files).problems == ()


def test_a_key_of_another_certificate_is_refused(files: TlsFiles, made: Certificates) -> None:
    found = look(dataclasses.replace(files, key=made.client.key))
    (problem,) = found.problems
    assert "does not belong to certificate" in problem
    assert "CN=server.test" in problem


def test_an_expired_certificate_is_refused(files: TlsFiles, made: Certificates) -> None:
    expired = dataclasses.replace(files, certificate=made.expired.certificate, key=made.expired.key)
    (problem,) = look(expired).problems
    assert "CN=expired.test) expired at" in problem


def test_a_certificate_that_is_not_valid_yet_is_refused(files: TlsFiles) -> None:
    (problem,) = look(files, after=-2 * DAY).problems
    assert "is valid only from" in problem


def test_a_certificate_is_warned_of_in_its_last_14_days(files: TlsFiles) -> None:
    assert look(files, after=85 * DAY).warnings == ()
    found = look(files, after=87 * DAY)
    assert found.material is not None
    (warning,) = found.warnings
    assert "expires at" in warning


def test_client_authorities_of_which_all_expired_are_refused(files: TlsFiles) -> None:
    problems = look(files, after=2000 * DAY).problems
    assert any("every certificate in it has expired" in problem for problem in problems)


def test_a_key_that_everyone_can_read_is_warned_of(files: TlsFiles) -> None:
    files.key.chmod(0o644)
    (warning,) = look(files).warnings
    assert "can be read by everyone" in warning
    files.key.chmod(0o640)
    assert look(files).warnings == ()


def test_an_encrypted_key_is_refused_with_how_to_decrypt_it(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), password=None)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    (problem,) = look(files).problems
    assert "is encrypted with a passphrase" in problem
    assert "openssl pkey" in problem


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256K1()),
        dsa.generate_private_key(1024),
    ],
    ids=["ed25519", "secp256k1", "dsa"],
)
def test_a_key_that_callers_cannot_use_is_refused(
    files: TlsFiles, key: ed25519.Ed25519PrivateKey
) -> None:
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (problem,) = look(files).problems
    assert "neither RSA nor EC" in problem


def test_an_rsa_key_is_as_good(files: TlsFiles) -> None:
    key = rsa.generate_private_key(65537, 2048)
    files.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    (problem,) = look(files).problems
    assert "does not belong" in problem
