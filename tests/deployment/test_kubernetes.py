"""The manifests as kustomize renders them, and what the check of them finds."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from deployment.checks import kubernetes, rules, workloads

Object = dict[str, Any]

CPU = next(path for path in kubernetes.OVERLAYS if path.name == "cpu")
GPU = next(path for path in kubernetes.OVERLAYS if path.name == "gpu")
TLS = next(path for path in kubernetes.OVERLAYS if path.name == "cpu-tls")


@pytest.fixture(scope="module")
def cpu() -> list[Object]:
    return kubernetes.rendered(CPU)


@pytest.fixture(scope="module")
def gpu() -> list[Object]:
    return kubernetes.rendered(GPU)


def one(objects: list[Object], kind: str, name: str = "ibinn") -> Object:
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def server(objects: list[Object]) -> Object:
    found: Object = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def test_every_overlay_has_nothing_to_mend() -> None:
    assert list(kubernetes.findings()) == []


def test_overlays_hold_what_a_deployment_needs(cpu: list[Object], gpu: list[Object]) -> None:
    kinds = {
        *("Deployment", "Service", "ServiceAccount", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("PodDisruptionBudget", "ServiceMonitor", "PrometheusRule", "CronJob", "ConfigMap"),
        *("PersistentVolumeClaim", "Namespace", "Role", "RoleBinding"),
    }
    assert {o["kind"] for o in cpu} == kinds
    assert {o["kind"] for o in gpu} == kinds | {"Job"}


def test_probes_ask_for_services_whose_health_the_server_knows(cpu: list[Object]) -> None:
    from ibinn.v1 import classification_service_pb2 as contract

    service = contract.DESCRIPTOR.services_by_name["ClassificationService"].full_name
    container = server(cpu)
    assert container["startupProbe"]["grpc"]["service"] == service
    assert container["readinessProbe"]["grpc"]["service"] == service
    # The empty name: the process serves, whether or not a model is loaded.
    assert "service" not in container["livenessProbe"]["grpc"]


def test_settings_are_ones_that_the_server_takes(cpu: list[Object]) -> None:
    from service.settings import PREFIX, Settings

    (text,) = (o["data"]["settings.toml"] for o in cpu if "settings.toml" in o.get("data", {}))
    # Without the database's address, which a Secret brings.
    Settings.model_validate(tomllib.loads(text))
    names = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for objects in (cpu, kubernetes.rendered(GPU), kubernetes.rendered(TLS)):
        assert {variable["name"] for variable in server(objects)["env"]} <= names


def test_autoscaler_and_adapter_speak_of_the_same_metric(cpu: list[Object]) -> None:
    folder = kubernetes.FOLDER / "kubernetes"
    adapter = yaml.safe_load((folder / "prometheus-adapter.yaml").read_text("utf-8"))
    (rule,) = adapter["rules"]["custom"]
    metrics = one(cpu, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metrics[0]["pods"]["metric"]["name"] == rule["name"]["as"]


def test_metric_of_the_autoscaler_is_one_that_the_server_exports() -> None:
    from prometheus_client import CollectorRegistry

    from service.monitoring.series import Series

    registry = CollectorRegistry()
    Series(registry)
    assert any(family.name == "ibinn_queue_wait_seconds" for family in registry.collect())


def test_gpu_overlay_asks_for_accelerators(gpu: list[Object]) -> None:
    assert server(gpu)["resources"]["limits"]["nvidia.com/gpu"] == 1
    job = one(gpu, "Job", "ibinn-train")["spec"]["template"]["spec"]["containers"][0]
    assert job["command"][0] == "torchrun"
    processes = f"--nproc-per-node={job['resources']['limits']['nvidia.com/gpu']}"
    assert processes in job["command"]


def test_tls_overlay_has_no_plaintext(cpu: list[Object]) -> None:
    container = server(kubernetes.rendered(TLS))
    environment = {v["name"]: v.get("value") for v in container["env"]}
    assert environment["IBINN_INSECURE"] == "false"
    assert container["readinessProbe"]["exec"]["command"] == ["ibinn-health"]


def test_rules_of_the_operator_are_those_of_prometheus() -> None:
    assert list(rules.findings()) == []


def grant_root(objects: list[Object]) -> None:
    one(objects, "Deployment")["spec"]["template"]["spec"]["securityContext"]["runAsUser"] = 0


def write_to_root(objects: list[Object]) -> None:
    server(objects)["securityContext"]["readOnlyRootFilesystem"] = False


def stop_early(objects: list[Object]) -> None:
    one(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 30


def hold_a_secret(objects: list[Object]) -> None:
    objects.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}})


def lose_the_volume(objects: list[Object]) -> None:
    objects.remove(one(objects, "PersistentVolumeClaim", "ibinn-models"))


def scale_nothing(objects: list[Object]) -> None:
    one(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] = "other"


def count_twice(objects: list[Object]) -> None:
    again = copy.deepcopy(one(objects, "Service"))
    again["metadata"]["name"] = "again"
    objects.append(again)


def protect_nothing(objects: list[Object]) -> None:
    one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]["x"] = "y"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (grant_root, "runAsUser 10001"),
        (write_to_root, "readOnlyRootFilesystem"),
        (stop_early, "expected 35 or more"),
        (hold_a_secret, "Secret/x"),
        (lose_the_volume, "PersistentVolumeClaim/ibinn-models, which is not there"),
        (scale_nothing, "Deployment/other, which is not there"),
        (count_twice, "it selects 2 Services"),
        (protect_nothing, "it selects nothing"),
    ],
)
def test_what_breaks_a_rule_is_named(
    cpu: list[Object], change: Callable[[list[Object]], None], message: str
) -> None:
    objects = copy.deepcopy(cpu)
    assert list(workloads.wrong(objects)) == []
    change(objects)
    assert any(message in text for text in workloads.wrong(objects))


def test_schema_refuses_unknown_fields_wrong_types_and_unknown_kinds(cpu: list[Object]) -> None:
    found = copy.deepcopy(one(cpu, "Deployment"))
    found["spec"]["replica"] = 2
    assert any("replica" in text for text in kubernetes.invalid(found))
    found = copy.deepcopy(one(cpu, "PodDisruptionBudget"))
    found["spec"]["unhealthyPodEvictionPolicy"] = 3
    assert any("unhealthyPodEvictionPolicy" in text for text in kubernetes.invalid(found))
    found = copy.deepcopy(one(cpu, "ServiceMonitor"))
    found["spec"]["endpoints"][0]["prot"] = "metrics"
    assert any("prot" in text for text in kubernetes.invalid(found))
    gone = {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler"}
    assert any("there is no" in text for text in kubernetes.invalid(gone))
