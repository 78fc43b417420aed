"""compose.yaml, and what its check finds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deployment.checks import compose

Spec = dict[str, Any]


@pytest.fixture(scope="module")
def spec() -> Spec:
    found: Spec = yaml.safe_load(compose.filled(compose.FILE.read_text("utf-8")))
    return found


def test_file_has_nothing_to_mend() -> None:
    assert list(compose.findings()) == []


def test_secrets_come_from_files_that_have_to_be_given() -> None:
    text = compose.FILE.read_text("utf-8")
    secrets = yaml.safe_load(text)["secrets"]
    assert all(one["file"].startswith("${IBINN_SECRETS:?") for one in secrets.values())
    assert ":-password" not in text.lower()


def test_server_stops_later_than_it_drains(spec: Spec) -> None:
    from service.settings import Settings

    grace = spec["services"]["ibinn"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > Settings.model_fields["drain_timeout_s"].default


def test_every_setting_of_the_server_is_one(spec: Spec) -> None:
    from service.settings import PREFIX, Settings

    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert set(spec["services"]["ibinn"]["environment"]) <= names


def add_literal_password(found: Spec) -> None:
    found["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"] = "postgres"


def publish_widely(found: Spec) -> None:
    found["services"]["grafana"]["ports"] = ["3000:3000"]


def forget_limits(found: Spec) -> None:
    del found["services"]["console"]["deploy"]


def misspell(found: Spec) -> None:
    found["services"]["ibinn"]["read_onyl"] = True


def float_the_tag(found: Spec) -> None:
    found["services"]["prometheus"]["image"] = "docker.io/prom/prometheus:latest"


def lose_a_secret(found: Spec) -> None:
    del found["secrets"]["tokens"]


def lose_a_file(found: Spec) -> None:
    found["services"]["prometheus"]["volumes"].append("./nowhere.yml:/etc/x:ro")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_literal_password, "POSTGRES_PASSWORD is in the environment"),
        (publish_widely, "beyond this machine"),
        (forget_limits, "limits need"),
        (misspell, "read_onyl"),
        (float_the_tag, "needs a tag"),
        (lose_a_secret, "'tokens' is not among the secrets"),
        (lose_a_file, "./nowhere.yml does not exist"),
    ],
)
def test_what_breaks_a_rule_is_named(
    spec: Spec, change: Callable[[Spec], None], message: str
) -> None:
    found = copy.deepcopy(spec)
    change(found)
    assert any(message in text for text in compose.wrong(yaml.safe_dump(found)))
