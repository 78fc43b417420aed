"""Flags win over the environment, the environment over the file, the file over defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import pytest

from ibinn.errors import ConfigError
from service.settings import PREFIX, Settings, load


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "serve.toml"
    path.write_text("port = 3\nmax_pending = 3\nmax_batch_size = 3\n")
    return path


def test_defaults_listen_on_this_machine_only() -> None:
    settings = load({})
    assert (settings.host, settings.port, settings.metrics_port) == ("127.0.0.1", 50051, 9464)


def test_flags_win_over_environment_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBINN_PORT", "2")
    monkeypatch.setenv("IBINN_MAX_PENDING", "2")
    settings = load({"config": file, "port": 1, "max_pending": None})
    assert (settings.port, settings.max_pending, settings.max_batch_size) == (1, 2, 3)
    assert settings.decode_threads == 2


def test_file_may_be_named_in_the_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBINN_CONFIG", str(file))
    assert load({}).port == 3


def test_wrong_value_is_named_with_every_place_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBINN_METRICS_PORT", "99999")
    with pytest.raises(
        ConfigError, match=r"metrics_port.*65535.*'99999'.*--metrics-port"
    ) as caught:
        load({})
    assert "IBINN_METRICS_PORT" in str(caught.value)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, "often"])
def test_alpha_is_a_probability(alpha: object) -> None:
    with pytest.raises(ConfigError, match="setting alpha"):
        load({"alpha": alpha})


def test_unknown_key_of_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text("prot = 3\n")
    with pytest.raises(ConfigError, match="no setting 'prot'; known are"):
        load({"config": path})


def test_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no settings file"):
        load({"config": tmp_path / "none.toml"})
    path = tmp_path / "serve.toml"
    path.write_text("port: 3\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        load({"config": path})


def test_grpc_takes_messages_over_the_image_limit_so_that_our_error_names_it() -> None:
    settings = load({"max_image_bytes": 1000})
    assert settings.max_message_bytes > 2 * 1000


def test_the_engines_are_those_of_the_library() -> None:
    from ibinn.inference import ENGINES  # imports torch, which settings do without

    assert get_args(Settings.model_fields["engine"].annotation) == ENGINES
