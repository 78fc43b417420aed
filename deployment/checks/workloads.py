"""Our own rules for what is rendered: nothing privileged, nothing dangling, no secret."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

USER = 10001
_AFTER_STOP_S = 5
# Kubernetes puts it into every namespace.
_GIVEN = {("ConfigMap", "kube-root-ca.crt")}


def wrong(objects: list[Object]) -> Iterator[str]:
    """What is wrong with the objects of an overlay, a line each."""
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Secret":
            yield f"{name}: secrets are referred to here, and made elsewhere"
        for template in templates(one):
            yield from (f"{name}: {text}" for text in _pod(template["spec"]))
            yield from (f"{name}: {text}" for text in _dangling(template["spec"], names))
        if one["kind"] == "Deployment":
            yield from (f"{name}: {text}" for text in _probed(one))
            labels = one["spec"]["template"]["metadata"]["labels"]
            if labels.get("app.kubernetes.io/component") == "server":
                yield from (f"{name}: {text}" for text in _drained(one, objects))
        if one["kind"] == "HorizontalPodAutoscaler":
            target = one["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) not in names:
                yield f"{name}: it scales {target['kind']}/{target['name']}, which is not there"
        if one["kind"] in {"PodDisruptionBudget", "Service"}:
            selector = one["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            if not any(
                selector.items() <= template["metadata"]["labels"].items()
                for other in objects
                for template in templates(other)
            ):
                yield f"{name}: it selects nothing"
        if one["kind"] == "ServiceMonitor":
            yield from (f"{name}: {text}" for text in _scraped(one, objects))


def templates(one: Object) -> Iterator[Object]:
    """The pod templates of an object."""
    if one["kind"] in {"Deployment", "Job"}:
        yield one["spec"]["template"]
    elif one["kind"] == "CronJob":
        yield one["spec"]["jobTemplate"]["spec"]["template"]


def containers(pod: Object) -> list[Object]:
    """All containers of a pod's specification."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def _pod(pod: Object) -> Iterator[str]:
    context = pod.get("securityContext", {})
    if not (context.get("runAsNonRoot") and context.get("runAsUser") == USER):
        yield f"runAsNonRoot and runAsUser {USER} are needed"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile RuntimeDefault is needed"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken: false is needed"
    for one in containers(pod):
        context = one.get("securityContext", {})
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{one['name']}: capabilities must drop ALL"
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{one['name']}: allowPrivilegeEscalation: false is needed"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{one['name']}: readOnlyRootFilesystem: true is needed"
        if "/tmp" not in {mount["mountPath"] for mount in one["volumeMounts"]}:
            yield f"{one['name']}: it has no writable /tmp"
        resources = one.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
            yield f"{one['name']}: requests of cpu and memory are needed"
        if "memory" not in resources.get("limits", {}):
            yield f"{one['name']}: a limit of memory is needed"
        tag = one["image"].rpartition("/")[2].partition(":")[2]
        if tag in {"", "latest"}:
            yield f"{one['name']}: image {one['image']} needs a tag other than latest"
        for variable in one.get("env", ()):
            if re.search(r"(?i)(password|secret|token)$", variable["name"]) and "value" in variable:
                yield f"{one['name']}: {variable['name']} is written out; refer to a Secret"


def _dangling(pod: Object, names: set[tuple[str, str]]) -> Iterator[str]:
    wanted = {("ServiceAccount", pod.get("serviceAccountName", "default"))}
    for volume in pod.get("volumes", ()):
        for source in (volume, *volume.get("projected", {}).get("sources", ())):
            if "configMap" in source:
                wanted.add(("ConfigMap", source["configMap"]["name"]))
        if "persistentVolumeClaim" in volume:
            wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    for one in containers(pod):
        wanted |= {
            ("ConfigMap", source["configMapRef"]["name"])
            for source in one.get("envFrom", ())
            if "configMapRef" in source
        }
        for mount in one["volumeMounts"]:
            if mount["name"] not in volumes:
                yield f"{one['name']}: there is no volume {mount['name']}"
    for kind, name in sorted(wanted - names - _GIVEN):
        yield f"it refers to {kind}/{name}, which is not there"


def _probed(deployment: Object) -> Iterator[str]:
    for one in deployment["spec"]["template"]["spec"]["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if probe not in one:
                yield f"{one['name']}: there is no {probe}"


def _drained(deployment: Object, objects: list[Object]) -> Iterator[str]:
    pod = deployment["spec"]["template"]["spec"]
    server = pod["containers"][0]
    settings = tomllib.loads(
        next(one["data"]["settings.toml"] for one in objects if "settings.toml" in _data(one))
    )
    pause = float(server["lifecycle"]["preStop"]["exec"]["command"][1])
    needed = pause + settings["drain_timeout_s"] + _AFTER_STOP_S
    if pod["terminationGracePeriodSeconds"] < needed:
        yield (
            f"terminationGracePeriodSeconds is {pod['terminationGracePeriodSeconds']}, expected "
            f"{needed:g} or more: preStop, drain_timeout_s and {_AFTER_STOP_S} s"
        )


def _data(one: Object) -> Object:
    data: Object = one.get("data", {}) if one["kind"] == "ConfigMap" else {}
    return data


def _scraped(monitor: Object, objects: list[Object]) -> Iterator[str]:
    labels = monitor["spec"]["selector"]["matchLabels"].items()
    services = [
        one
        for one in objects
        if one["kind"] == "Service" and labels <= one["metadata"].get("labels", {}).items()
    ]
    if len(services) != 1:
        yield f"it selects {len(services)} Services, expected 1: two would count everything twice"
    for service in services:
        ports = {port["name"] for port in service["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in ports:
                yield f"Service/{service['metadata']['name']} has no port {endpoint['port']}"
        if service["metadata"]["labels"].get(monitor["spec"]["jobLabel"]) != "ibinn":
            yield "the job's name would not be ibinn, which the rules need"
