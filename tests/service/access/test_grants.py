"""A file of tokens means what it says, or is refused with the entry's name."""

from __future__ import annotations

import hmac
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ibinn.errors import ConfigError
from service.access import grants
from service.access.grants import Grant, Grants, new_token, token_digest
from service.call import Role

TOKEN = "ibinn_a-token-for-tests-that-is-used-nowhere-else-0123"
SHA256 = token_digest(TOKEN).hex()


def parse(text: str) -> Grants:
    return grants.parse(text, where="the file of tokens t.toml")


def entry(**changes: str | None) -> str:
    """A token's entry; values are TOML, None leaves one out."""
    values = {"name": '"a"', "sha256": f'"{SHA256}"', "roles": '["classify"]', **changes}
    lines = (f"{key} = {value}" for key, value in values.items() if value is not None)
    return "\n".join(("[[token]]", *lines, ""))


def test_an_entry_reads_back_in_full() -> None:
    found = parse(
        entry(
            roles='["classify", "admin"]',
            rate="2.5",
            burst="7",
            expires="2027-01-31T12:00:00+02:00",
        )
        + '[[certificate]]\nname = "b"\nsubject = "press.example.org"\nroles = ["audit"]\n'
    )
    ((digest, grant),) = found.tokens
    assert digest == token_digest(TOKEN)
    assert grant == Grant(
        name="a",
        roles=frozenset({Role.CLASSIFY, Role.ADMIN}),
        rate=2.5,
        burst=7,
        expires=datetime(2027, 1, 31, 10, tzinfo=UTC),
    )
    assert found.certificates == {
        "press.example.org": Grant(name="b", roles=frozenset({Role.AUDIT}))
    }


def test_a_date_expires_at_its_first_midnight_utc() -> None:
    ((_, grant),) = parse(entry(expires="2027-01-31")).tokens
    assert grant.expires == datetime(2027, 1, 31, tzinfo=UTC)


def test_an_infinite_rate_is_a_rate() -> None:
    ((_, grant),) = parse(entry(rate="inf")).tokens
    assert grant.rate == math.inf


def test_an_empty_file_grants_nothing() -> None:
    assert parse("") == Grants(tokens=(), certificates={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "token number 1: name is missing"),
        ({"name": '"two words"'}, "token number 1: name is missing or not"),
        ({"name": '"line\\nbreak"'}, "token number 1: name is missing or not"),
        ({"name": "3"}, "token number 1: name is missing or not"),
        ({"sha256": None}, r"token 'a' \(number 1\): sha256 is missing"),
        ({"sha256": '"abc"'}, r"token 'a' \(number 1\): sha256 is missing or not 64"),
        ({"roles": None}, "roles are missing or not a list of classify, explain, feedback"),
        ({"roles": "[]"}, "roles are missing"),
        ({"roles": '"admin"'}, "roles are missing or not a list"),
        ({"roles": '["root"]'}, "roles are missing or not a list"),
        ({"roles": '[["admin"]]'}, "roles are missing or not a list"),
        ({"rate": "0"}, "rate is not a number above 0"),
        ({"rate": "nan"}, "rate is not a number above 0"),
        ({"rate": "true"}, "rate is not a number above 0"),
        ({"rate": '"3"'}, "rate is not a number above 0"),
        ({"burst": "0"}, "burst is not a whole number"),
        ({"burst": "1.5"}, "burst is not a whole number"),
        ({"burst": "true"}, "burst is not a whole number"),
        ({"expires": '"2027-01-31"'}, "expires is not a date.*without quotes"),
        ({"expires": "2027-01-31T12:00:00"}, "expires has a time without a zone"),
        ({"role": '["admin"]'}, "unknown key 'role'; expected burst, expires, name"),
    ],
)
def test_a_malformed_entry_is_refused_by_name(changes: dict[str, str | None], message: str) -> None:
    with pytest.raises(ConfigError, match=f"t.toml is not valid: .*{message}"):
        parse(entry(**changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[tokens]]", "unknown table 'tokens'"),
        ('token = "x"', r"'token' is not a list of tables; write \[\[token\]\]"),
        ("[token]", "'token' is not a list of tables"),
        ("token = [3]", "'token' is not a list of tables"),
        ('[[certificate]]\nname = "a"\nroles = ["audit"]', "certificate 'a'.*subject is missing"),
        (
            f'[[certificate]]\nname = "a"\nroles = ["audit"]\nsha256 = "{SHA256}"',
            "unknown key 'sha256'",
        ),
        (entry() + entry(name='"b"'), r"token 'b' \(number 2\): the same sha256 as 'a'"),
        (entry() + entry(sha256=f'"{"0" * 64}"'), "the name 'a' is taken"),
        (
            entry() + '[[certificate]]\nname = "a"\nsubject = "a"\nroles = ["audit"]',
            "the name 'a' is taken",
        ),
        ("[[token]]\n3 =", "is not TOML: .*document"),
    ],
)
def test_a_malformed_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text)


def test_all_entries_at_fault_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(entry(name='"first"', burst="0") + entry(name='"second"', rate="-1"))
    assert "token 'first' (number 1)" in str(caught.value)
    assert "token 'second' (number 2)" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        entry(sha256=f'"{TOKEN}"'),
        f"[[token]]\nsha256 = {TOKEN}",
        f'sha256 = "{TOKEN}',
        f'[[token]]\n{TOKEN} = ["admin"]',
        f'{TOKEN} = ["admin"]',
    ],
)
def test_a_token_put_where_its_hash_belongs_is_never_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None or TOKEN not in str(caught.value.__cause__)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read.*ibinn-serve token new --file"):
        grants.read(tmp_path / "missing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        grants.read(tmp_path / "bytes.toml")


def test_a_file_that_everyone_can_write_is_refused_and_one_to_read_is_not(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(entry(), encoding="utf-8")
    path.chmod(0o644)
    assert len(grants.read(path).tokens) == 1
    path.chmod(0o666)
    with pytest.raises(ConfigError, match=r"can be written by everyone.*mode 666.*chmod o-w"):
        grants.read(path)


def test_tokens_are_32_random_bytes_that_a_header_can_carry() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert token.startswith("ibinn_")
        assert len(token) == len("ibinn_") + 43
        assert token.isascii()
        assert token.isprintable()
        assert " " not in token


def test_a_token_is_compared_with_every_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    compare = hmac.compare_digest

    def counted(a: bytes, b: bytes) -> bool:
        compared.append(a)
        return compare(a, b)

    monkeypatch.setattr(grants.hmac, "compare_digest", counted)
    digests = [token_digest(name) for name in "abcde"]
    known = Grants(
        tokens=tuple((d, Grant(name=f"n{i}", roles=frozenset())) for i, d in enumerate(digests)),
        certificates={},
    )
    for digest in (*digests, token_digest("unknown")):
        compared.clear()
        known.of_token(digest)
        assert compared == digests


def test_the_first_name_of_a_certificate_that_is_known_counts() -> None:
    one, two = (Grant(name=name, roles=frozenset()) for name in ("one", "two"))
    known = Grants(tokens=(), certificates={"x": one, "y": two})
    assert known.of_certificate(("z", "y", "x")) is two
    assert known.of_certificate(("z",)) is None
    assert known.of_certificate(()) is None
