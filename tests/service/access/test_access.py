"""Who calls, what they may, and that no token leaves its call."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ibinn.errors import ConfigError, ForbiddenError, RateLimitedError, UnauthenticatedError
from service.access import Access
from service.access.access import host_of
from service.access.grants import new_token, token_digest
from service.call import Role
from service.settings import Settings
from tests.service.access.test_grants_file import Clock

PEER = "ipv4:10.0.0.7:50812"
USER, ADMIN, OLD = new_token(), new_token(), new_token()
EXPIRY = datetime(2027, 1, 31, tzinfo=UTC).timestamp()
FILE = f"""
[[token]]
name = "user"
sha256 = "{token_digest(USER).hex()}"
roles = ["classify"]

[[token]]
name = "operator"
sha256 = "{token_digest(ADMIN).hex().upper()}"
roles = ["admin", "audit"]
rate = 2.0
burst = 3

[[token]]
name = "old"
sha256 = "{token_digest(OLD).hex()}"
roles = ["classify"]
rate = inf
expires = 2027-01-31

[[certificate]]
name = "press"
subject = "press.example.org"
roles = ["classify", "explain"]
"""


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("user-agent", "test"), ("authorization", f"Bearer {token}"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def make(path: Path | None, *, now: float = EXPIRY - 1, **changes: Any) -> tuple[Access, Clock]:
    clock = Clock()
    settings = Settings(tokens=path, **changes)
    return Access.open(settings, clock=clock, now=lambda: now), clock


# ------------------------------------------------------------------------------- without tokens


def test_without_tokens_a_caller_is_its_host_and_may_do_all_but_administer() -> None:
    access, _ = make(None)
    caller = access.identify((), PEER, ())
    assert caller.name == "10.0.0.7"
    assert caller.roles == frozenset(Role) - {Role.ADMIN}
    assert caller.rate is None
    for role in caller.roles:
        access.require(caller, role)


def test_without_tokens_a_certificate_names_the_caller_and_gives_no_more() -> None:
    access, _ = make(None)
    caller = access.identify((), PEER, ("press.example.org", "press"))
    assert caller.name == "press.example.org"
    assert Role.ADMIN not in caller.roles


def test_without_tokens_nobody_administers_and_is_told_what_to_do() -> None:
    access, _ = make(None)
    expected = (
        r"needs the role admin, caller '10\.0\.0\.7' has audit, classify, explain, feedback; "
        r".*ibinn-serve token new .*--role admin"
    )
    with pytest.raises(ForbiddenError, match=expected):
        access.require(access.identify((), PEER, ()), Role.ADMIN)


def test_without_tokens_connections_of_one_host_share_its_rate() -> None:
    access, _ = make(None, caller_rate=1.0, caller_burst=2)
    for port in (1, 2):
        access.charge(access.identify((), f"ipv4:10.0.0.7:{port}", ()), 1)
    with pytest.raises(RateLimitedError):
        access.charge(access.identify((), "ipv4:10.0.0.7:3", ()), 1)
    access.charge(access.identify((), "ipv4:10.0.0.8:3", ()), 1)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:123", "127.0.0.1"),
        ("ipv6:[::1]:1", "::1"),
        ("ipv6:%5B::1%5D:1", "::1"),
        ("ipv6:[2001:0DB8::0001]:443", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1%eth0"),
        ("ipv6:[::ffff:10.0.0.7]:50812", "10.0.0.7"),
        ("unix:", "unix"),
        ("unix:/run/ibinn.sock", "unix"),
        ("unix-abstract:name", "unix-abstract"),
        ("", "unknown"),
        ("ipv4:", "unknown"),
        ("ipv4:host\nname:1", "unknown"),
        ("vsock:1:2", "unknown"),
    ],
)
def test_the_host_of_a_peer_is_found(peer: str, host: str) -> None:
    assert host_of(peer) == host


# ---------------------------------------------------------------------------------- with tokens


def test_a_token_gives_its_name_roles_and_rate(path: Path) -> None:
    access, _ = make(path, caller_rate=9.0, caller_burst=5)
    user = access.identify(bearer(USER), PEER, ())
    assert (user.name, user.roles, user.rate, user.burst) == (
        "user",
        frozenset({Role.CLASSIFY}),
        9.0,
        5,
    )
    operator = access.identify(bearer(ADMIN), PEER, ())
    assert (operator.name, operator.rate, operator.burst) == ("operator", 2.0, 3)
    assert access.identify(bearer(OLD), PEER, ()).rate is None


def test_a_known_token_gives_the_same_answer_again(path: Path) -> None:
    access, _ = make(path)
    assert access.identify(bearer(USER), PEER, ()) is access.identify(bearer(USER), "unix:", ())


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(path: Path, scheme: str) -> None:
    access, _ = make(path)
    assert access.identify((("authorization", f"{scheme} {USER}"),), PEER, ()).name == "user"


def test_without_a_token_nobody_calls(path: Path) -> None:
    access, _ = make(path)
    with pytest.raises(UnauthenticatedError, match=r"no token was sent.*authorization: Bearer"):
        access.identify((("user-agent", "test"),), PEER, ())


@pytest.mark.parametrize(
    "token", ["", "ibinn_", "Ω\udcff", USER[:-1], USER + "x", token_digest(USER).hex()]
)
def test_a_token_that_is_not_known_is_refused(path: Path, token: str) -> None:
    access, _ = make(path)
    with pytest.raises(UnauthenticatedError, match="is not known") as caught:
        access.identify(bearer(token), PEER, ())
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize("value", ["Basic abc", "Bearer", USER, "", b"Bearer x"])
def test_another_authorization_is_refused_and_not_repeated(path: Path, value: str | bytes) -> None:
    access, _ = make(path)
    with pytest.raises(UnauthenticatedError, match="not of the form 'Bearer TOKEN'") as caught:
        access.identify((("authorization", value),), PEER, ())
    assert USER not in str(caught.value)


def test_two_authorizations_are_refused(path: Path) -> None:
    access, _ = make(path)
    with pytest.raises(UnauthenticatedError, match="several"):
        access.identify((*bearer(USER), *bearer(ADMIN)), PEER, ())


def test_a_token_expires_even_for_a_caller_that_was_let_in_before(path: Path) -> None:
    moment = EXPIRY - 1
    access = Access.open(Settings(tokens=path), clock=Clock(), now=lambda: moment)
    assert access.identify(bearer(OLD), PEER, ()).name == "old"
    moment = EXPIRY
    with pytest.raises(UnauthenticatedError, match=r"'old' expired at 2027-01-31 00:00 UTC"):
        access.identify(bearer(OLD), PEER, ())
    assert access.identify(bearer(USER), PEER, ()).name == "user"


def test_a_certificate_with_an_entry_needs_no_token(path: Path) -> None:
    access, _ = make(path)
    caller = access.identify((), PEER, ("other", "press.example.org"))
    assert (caller.name, caller.roles) == ("press", frozenset({Role.CLASSIFY, Role.EXPLAIN}))


def test_a_certificate_without_an_entry_is_refused_by_name(path: Path) -> None:
    access, _ = make(path)
    with pytest.raises(UnauthenticatedError, match=r"certificate of 'lathe\.example\.org'"):
        access.identify((), PEER, ("lathe.example.org",))


def test_a_token_counts_before_a_certificate(path: Path) -> None:
    access, _ = make(path)
    assert access.identify(bearer(ADMIN), PEER, ("press.example.org",)).name == "operator"
    with pytest.raises(UnauthenticatedError, match="is not known"):
        access.identify(bearer("ibinn_x"), PEER, ("press.example.org",))


def test_a_role_that_is_missing_is_named_with_those_held(path: Path) -> None:
    access, _ = make(path)
    access.require(access.identify(bearer(ADMIN), PEER, ()), Role.ADMIN)
    with pytest.raises(ForbiddenError, match=r"needs the role admin, caller 'user' has classify"):
        access.require(access.identify(bearer(USER), PEER, ()), Role.ADMIN)
    with pytest.raises(ForbiddenError, match=r"needs the role classify.*has admin, audit"):
        access.require(access.identify(bearer(ADMIN), PEER, ()), Role.CLASSIFY)


def test_a_revoked_token_is_refused_and_a_new_one_known_within_a_second(path: Path) -> None:
    access, clock = make(path)
    access.identify(bearer(USER), PEER, ())
    fresh = new_token()
    path.write_text(FILE.replace(token_digest(USER).hex(), token_digest(fresh).hex()))
    clock.now += 1
    with pytest.raises(UnauthenticatedError):
        access.identify(bearer(USER), PEER, ())
    assert access.identify(bearer(fresh), PEER, ()).name == "user"


def test_roles_that_change_hold_within_a_second(path: Path) -> None:
    access, clock = make(path)
    access.identify(bearer(USER), PEER, ())
    path.write_text(FILE.replace('roles = ["classify"]', 'roles = ["explain"]'))
    clock.now += 1
    assert access.identify(bearer(USER), PEER, ()).roles == {Role.EXPLAIN}


def test_a_caller_is_charged_for_its_images(path: Path) -> None:
    access, clock = make(path)
    operator = access.identify(bearer(ADMIN), PEER, ())
    access.charge(operator, 3)
    with pytest.raises(RateLimitedError) as caught:
        access.charge(operator, 1)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    clock.now += caught.value.retry_after_s
    access.charge(operator, 1)


def test_callers_without_a_rate_are_never_held_up(path: Path) -> None:
    access, _ = make(path)
    user = access.identify(bearer(USER), PEER, ())
    for _ in range(1000):
        access.charge(user, 1000)


def test_no_token_is_logged_or_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        access, clock = make(path)
        for token in (USER, ADMIN, "ibinn_wrong-token"):
            try:
                access.require(access.identify(bearer(token), PEER, ()), Role.ADMIN)
            except (UnauthenticatedError, ForbiddenError) as error:
                logging.getLogger("test").warning("refused: %s", error)
        path.write_text(FILE + f'\n[[token]]\nname = "x"\nsha256 = "{ADMIN}"\nroles = ["audit"]\n')
        clock.now += 1
        access.identify(bearer(USER), PEER, ())
    assert "stay in force" in caplog.text
    assert "refused" in caplog.text
    for token in (USER, ADMIN, "ibinn_wrong-token"):
        assert token not in caplog.text
        assert token not in repr(vars(access))
    assert set(access._known) == {token_digest(USER), token_digest(ADMIN)}


def test_a_broken_file_is_refused_at_the_start(path: Path) -> None:
    path.write_text("[[token]]", encoding="utf-8")
    with pytest.raises(ConfigError, match="token number 1: name is missing"):
        make(path)


# --------------------------------------------------------------------- before a message is read


def test_without_tokens_everyone_may_enter() -> None:
    access, _ = make(None)
    assert access.may_enter(())
    assert access.may_enter(bearer("ibinn_x"))


def test_a_known_token_or_the_chance_of_a_certificate_may_enter(path: Path) -> None:
    access, clock = make(path)
    assert access.may_enter(bearer(USER))
    assert access.may_enter(())
    for refused in (bearer("ibinn_x"), (("authorization", "Basic x"),), bearer(USER) * 2):
        assert not access.may_enter(refused)
    path.write_text(FILE.partition("[[certificate]]")[0])
    clock.now += 1
    assert not access.may_enter(())
    assert access.may_enter(bearer(USER))
