"""What is wrong with access is known before the server starts, all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ibinn.errors import ConfigError
from ibinn.signing import generate_keypair, trusted_keys
from service.access import exposure, problems, trusted_keys_of, warnings
from service.settings import Settings
from tests.service.certificates import Certificates, certificates


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST", "unix:/run/x"]
)
def test_this_machine_alone_may_be_served_in_plaintext(host: str) -> None:
    assert problems(Settings(host=host)) == []
    assert warnings(Settings(host=host)) == []


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "[::]", "10.0.0.3", "example.org", "localhost.example.org", "", "127.0.0.1x"],
)
def test_other_machines_are_not_served_in_plaintext_unless_asked(host: str) -> None:
    (problem,) = problems(Settings(host=host))
    assert repr(host) in problem
    assert "--insecure" in problem
    assert exposure.problems(Settings(host=host, insecure=True)) == []
    assert "in plaintext" in warnings(Settings(host=host, insecure=True))[0]


def test_the_defaults_are_safe() -> None:
    assert exposure.is_local(Settings().host)
    assert not Settings().insecure
    assert problems(Settings()) == []


def test_tls_may_be_served_to_all_with_a_word_if_callers_are_not_asked_who_they_are(
    made: Certificates, tmp_path: Path
) -> None:
    tls: dict[str, Any] = {
        "host": "0.0.0.0",
        "tls_certificate": made.server.certificate,
        "tls_key": made.server.key,
    }
    assert problems(Settings(**tls)) == []
    (warning,) = warnings(Settings(**tls))
    assert "everyone who reaches 0.0.0.0" in warning
    assert warnings(Settings(**tls, tls_client_ca=made.ca)) == []
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[certificate]]\nname = "a"\nsubject = "a"\nroles = ["audit"]\n')
    assert warnings(Settings(**tls, tokens=tokens)) == []


def test_a_file_of_tokens_without_an_entry_is_warned_of(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("")
    assert problems(Settings(tokens=tokens)) == []
    (warning,) = warnings(Settings(tokens=tokens))
    assert "nobody can call" in warning


def test_every_part_tells_its_problems(made: Certificates, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("[[token]]")
    found = problems(
        Settings(
            host="0.0.0.0",
            tls_client_ca=made.ca,
            tokens=tokens,
            require_signature=True,
        )
    )
    assert len(found) == 4
    for part, problem in zip(
        ("other machines", "tls_certificate", "token number 1", "trusted_keys"), found, strict=True
    ):
        assert part in problem
    assert warnings(Settings(tokens=tokens)) == []


def test_signatures_are_asked_for_with_keys_alone(tmp_path: Path) -> None:
    path = tmp_path / "key.pub.pem"
    path.write_bytes(generate_keypair().public_pem)
    assert trusted_keys_of(Settings()) is None
    keys = trusted_keys_of(Settings(require_signature=True, trusted_keys=path))
    assert keys == trusted_keys(path)
    with pytest.raises(ConfigError, match="trusted_keys is not"):
        trusted_keys_of(Settings(require_signature=True))
    with pytest.raises(ConfigError, match="cannot be read"):
        trusted_keys_of(Settings(require_signature=True, trusted_keys=tmp_path / "missing.pem"))


def test_keys_without_the_demand_for_signatures_are_warned_of(tmp_path: Path) -> None:
    assert trusted_keys_of(Settings(trusted_keys=tmp_path)) is None
    (warning,) = warnings(Settings(trusted_keys=tmp_path))
    assert "--require-signature" in warning
