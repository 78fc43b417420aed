"""`ibinn admin`, with a stub in place of the operator's client."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ibinn import cli
from ibinn.client import Erased
from ibinn.errors import NotAllowedError, PreconditionError
from ibinn.serving import Mode, Reloaded, ServerState
from tests.ibinn.client.test_admin import STATE

CANDIDATE = STATE.candidates[0]


class StubAdmin:
    """Notes what it is told; refuses the bundle `bad`, and all at the server `forbidden:1`."""

    told: list[Any]

    def __init__(self, target: str, **options: Any) -> None:
        self.target = target

    def __enter__(self) -> StubAdmin:
        if self.target == "forbidden:1":
            raise NotAllowedError("the token lacks the role admin", code="PERMISSION_DENIED")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status(self) -> ServerState:
        return self._did("status")

    def rollback(self) -> ServerState:
        return self._did("rollback")

    def end_shadow(self) -> ServerState:
        return self._did("end_shadow")

    def set_shadow(self, bundle: str, *, share: float | None) -> ServerState:
        return self._did("set_shadow", bundle, share)

    def set_mode(self, mode: Mode, *, reason: str) -> ServerState:
        return self._did("set_mode", mode, reason)

    def acknowledge_drift(self, reason: str) -> ServerState:
        return self._did("acknowledge_drift", reason)

    def erase_image(self, record_id: str, reason: str) -> Erased:
        self._did("erase_image", record_id, reason)
        return Erased(found=record_id == "a" * 32, records=2)

    def reload(self, bundle: str) -> Reloaded:
        if bundle == "bad":
            raise PreconditionError(
                "bad was refused", code="FAILED_PRECONDITION", reasons=("too wrong", "unsigned")
            )
        return Reloaded(candidate=CANDIDATE, state=self._did("reload", bundle))

    def load(self, bundle: str) -> Reloaded:
        return Reloaded(candidate=CANDIDATE, state=self._did("load", bundle))

    def _did(self, *what: Any) -> ServerState:
        self.told.append(what)
        return STATE


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    StubAdmin.told = []
    module = SimpleNamespace(AdminClient=StubAdmin)
    monkeypatch.setitem(sys.modules, "ibinn.client", module)  # type: ignore[arg-type]
    return StubAdmin.told


def admin(*arguments: str, server: str = "host:1") -> Result:
    return CliRunner().invoke(cli.app, ["admin", *arguments, "--server", server])


@pytest.mark.parametrize(
    ("command", "order"),
    [
        (("status",), ("status",)),
        (("rollback",), ("rollback",)),
        (("reload", "b"), ("reload", "b")),
        (("reload", "b", "--keep-default"), ("load", "b")),
        (("shadow", "b"), ("set_shadow", "b", None)),
        (("shadow", "b", "--share", "0.5"), ("set_shadow", "b", 0.5)),
        (("shadow", "--end"), ("end_shadow",)),
        (("mode", "abstain-all", "--reason", "why"), ("set_mode", Mode.ABSTAIN_ALL, "why")),
        (("mode", "normal"), ("set_mode", Mode.NORMAL, "")),
        (("acknowledge", "seen"), ("acknowledge_drift", "seen")),
    ],
)
def test_each_command_is_one_order_and_shows_the_state(
    command: tuple[str, ...], order: tuple[Any, ...], told: list[Any]
) -> None:
    result = admin(*command)
    assert (result.exit_code, told) == (0, [order]), result.output
    for words in (
        "ABSTAINS: every decision is left to people: drift",
        "2026-01",
        "generation  7",
        "2, 1 not yet at this generation",
        "25.0 % of calls, 10 compared: class differs 20.0 %",
        "2026-03  not readable  refused  2026-01-02 03:04:05 UTC",
        "- not readable",
        "GUARANTEE SUSPENDED since 2026-01-02 03:04:05 UTC: the p-values drift",
        "p_values         1,200          6.50      4.10  alarm",
        "best effort, sqlite:///records.db, 3 waiting, 2 DROPPED; NOT REACHABLE",
    ):
        assert words in result.stdout, words
    found = json.loads(admin(*command, "--json").stdout)
    assert (found.get("state") or found)["mode"] == "abstain-all"


def test_an_erasure_says_what_was_there_and_that_records_stay(told: list[Any]) -> None:
    result = admin("erase", "a" * 32, "asked for")
    assert (result.exit_code, told) == (0, [("erase_image", "a" * 32, "asked for")])
    assert "its image was erased; it was that of 2 records, and they stay" in result.stdout
    assert "there was no image" in admin("erase", "b" * 32, "asked for").stdout
    found = json.loads(admin("erase", "a" * 32, "asked for", "--json").stdout)
    assert found == {"record_id": "a" * 32, "found": True, "records": 2}


def test_a_refused_candidate_gives_code_1_and_every_reason(told: list[Any]) -> None:
    result = admin("reload", "bad")
    assert result.exit_code == 1
    assert result.stderr == "ibinn: bad was refused\n  - too wrong\n  - unsigned\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("shadow",), "give BUNDLE to begin a shadow"),
        (("shadow", "b", "--end"), "give BUNDLE to begin a shadow"),
        (("status", "--model", "abcdef12"), "got --model"),
        (("mode", "off"), "off"),
        (("reload",), "BUNDLE"),
    ],
)
def test_wrong_usage_gives_code_2(command: tuple[str, ...], message: str, told: list[Any]) -> None:
    result = admin(*command)
    assert (result.exit_code, message in result.stderr, told) == (2, True, []), result.stderr


def test_a_server_must_be_named_and_must_allow_it(told: list[Any]) -> None:
    missing = CliRunner().invoke(cli.app, ["admin", "status"])
    assert (missing.exit_code, "--server is missing" in missing.stderr) == (2, True)
    refused = admin("status", server="forbidden:1")
    assert (refused.exit_code, "lacks the role admin" in refused.stderr) == (2, True)
