"""Alertmanager's webhook starts retraining: once, with the token, for alerts that ask for it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployment.monitoring.hook import Retraining, reason_of, serve

TOKEN = "a-token-for-tests-only"
WRITE = "import os, sys; open(sys.argv[1], 'a').write(os.environ['IBINN_RETRAIN_REASON'] + '\\n')"


def alert(name: str = "IbinnCalibrationDrift", **changes: Any) -> dict[str, Any]:
    labels = {"alertname": name, "model": "m", "action": "retrain"}
    return {"status": "firing", "labels": labels, **changes}


def message(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "alerts": list(alerts)}


@contextlib.contextmanager
def listening(retraining: Retraining) -> Iterator[str]:
    server = serve(retraining, token=TOKEN, host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        retraining.wait()


def post(url: str, body: bytes, *, token: str = TOKEN) -> tuple[int, str]:
    request = urllib.request.Request(
        url, data=body, headers={"Authorization": f"Bearer {token}"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def writing(path: Path, **changes: Any) -> Retraining:
    return Retraining((sys.executable, "-c", WRITE, str(path)), pause_s=3600, **changes)


def test_a_firing_alert_starts_it_and_the_same_again_does_not(tmp_path: Path) -> None:
    now = [0.0]
    retraining = writing(tmp_path / "ran", clock=lambda: now[0])
    body = json.dumps(message(alert())).encode()
    with listening(retraining) as url:
        assert post(f"{url}/alerts", body) == (202, "started")
        retraining.wait()
        assert post(f"{url}/alerts", body) == (200, "not again so soon")
        now[0] = 3601
        assert post(f"{url}/alerts", body) == (202, "started")
    assert (tmp_path / "ran").read_text() == "IbinnCalibrationDrift model=m\n" * 2


def test_only_one_runs_at_a_time(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    waits = "import sys; open(sys.argv[1]).read()"
    retraining = Retraining((sys.executable, "-c", waits, str(tmp_path / "pipe")), pause_s=0)
    assert retraining.start("first") == "started"
    with (tmp_path / "pipe").open("w"):  # opens once the command reads
        assert retraining.start("second") == "running already"
    retraining.wait()
    assert retraining.start("third") == "started"
    (tmp_path / "pipe").open("w").close()
    retraining.wait()


def test_one_that_failed_may_be_started_again_at_once() -> None:
    retraining = Retraining((sys.executable, "-c", "raise SystemExit(3)"), pause_s=3600)
    for _ in range(2):
        assert retraining.start("because") == "started"
        retraining.wait()


def test_a_command_that_is_not_there_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    retraining = Retraining(("/no/such/program",), pause_s=3600)
    assert retraining.start("because") == "started"
    retraining.wait()
    assert "retraining cannot start (No such file or directory)" in caplog.text


@pytest.mark.parametrize(
    "alerts",
    [
        [],
        [alert(status="resolved")],
        [alert(labels={"alertname": "IbinnLatencyHigh"})],
    ],
)
def test_other_messages_start_nothing(tmp_path: Path, alerts: list[dict[str, Any]]) -> None:
    with listening(writing(tmp_path / "ran")) as url:
        body = json.dumps(message(*alerts)).encode()
        assert post(f"{url}/alerts", body) == (200, "nothing to do")
    assert not (tmp_path / "ran").exists()


def test_who_does_not_show_the_token_starts_nothing(tmp_path: Path) -> None:
    with listening(writing(tmp_path / "ran")) as url:
        status, said = post(f"{url}/alerts", json.dumps(message(alert())).encode(), token="wrong")
    assert (status, "--token-file" in said) == (401, True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"alerts": [1]}', b"\xff"])
def test_what_is_no_message_of_alertmanager_is_refused(tmp_path: Path, body: bytes) -> None:
    with listening(writing(tmp_path / "ran")) as url:
        assert post(f"{url}/alerts", body)[0] == 400
    assert not (tmp_path / "ran").exists()


def test_a_message_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with listening(writing(tmp_path / "ran")) as url:
        request = urllib.request.Request(
            f"{url}/alerts",
            data=b"",
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Length": str(2 << 20)},
            method="POST",
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        with refused.value:
            assert refused.value.code == 413


def test_health_is_told_without_a_token() -> None:
    with (
        listening(Retraining(("true",), pause_s=0)) as url,
        urllib.request.urlopen(f"{url}/healthz", timeout=30) as response,
    ):
        assert response.status == 200


def test_the_reason_names_alerts_and_models() -> None:
    found = message(alert(), alert("IbinnGuaranteeSuspended"))
    assert reason_of(found) == "IbinnCalibrationDrift model=m; IbinnGuaranteeSuspended model=m"
