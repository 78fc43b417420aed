"""Our own rules for what may be done in the cluster: little, by name, by one kind of pod."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deployment.checks.workloads import templates

Object = dict[str, Any]

# All that a Role may grant: verbs by group and resource. Only `get` can be held to names, and is.
_NEEDED = {("batch", "cronjobs"): {"get"}, ("batch", "jobs"): {"list", "create"}}


def wrong(objects: list[Object]) -> Iterator[str]:
    """What is wrong with the privileges of an overlay, a line each."""
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    accounts = {
        subject["name"]
        for one in objects
        if one["kind"] == "RoleBinding"
        for subject in one["subjects"]
    }
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] in {"ClusterRole", "ClusterRoleBinding"}:
            yield f"{name}: nothing here may reach beyond its namespace; use a Role"
        if one["kind"] == "Role":
            for rule in one["rules"]:
                yield from (f"{name}: {text}" for text in _rule(rule, names))
        if one["kind"] == "RoleBinding":
            yield from (f"{name}: {text}" for text in _binding(one, names))
        for template in templates(one):
            yield from (f"{name}: {text}" for text in _holder(template["spec"], accounts))


def _rule(rule: Object, names: set[tuple[str, str]]) -> Iterator[str]:
    verbs = set(rule["verbs"])
    named = rule.get("resourceNames", [])
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in sorted(verbs - _NEEDED.get((group, resource), set())):
                yield f"{verb} of {resource} (group {group!r}) is not needed"
            kinds = {kind for kind, _ in names if f"{kind.lower()}s" == resource}
            for wanted in named:
                if not any((kind, wanted) in names for kind in kinds):
                    yield f"there is no object {wanted} among {resource}"
    if "get" in verbs and not named:
        yield f"get of any {', '.join(rule['resources'])}; say which with resourceNames"
    if verbs - {"get"} and named:
        yield "only get can be held to resourceNames; give the other verbs a rule of their own"


def _binding(binding: Object, names: set[tuple[str, str]]) -> Iterator[str]:
    role = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
    if role[0] != "Role" or role not in names:
        yield f"{'/'.join(role)} is no Role that is there"
    for subject in binding["subjects"]:
        if (subject["kind"], subject["name"]) not in names or subject["kind"] != "ServiceAccount":
            yield f"{subject['kind']}/{subject['name']} is no ServiceAccount that is there"
        elif subject.get("namespace") != binding["metadata"]["namespace"]:
            yield f"{subject['name']} is of the namespace {subject.get('namespace')!r}"


def _holder(pod: Object, accounts: set[str]) -> Iterator[str]:
    """Whether the pod has a token exactly if its account may do something."""
    account = pod.get("serviceAccountName", "default")
    held = any(
        "serviceAccountToken" in source
        for volume in pod.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
    )
    if held and account not in accounts:
        yield f"it has a token of {account}, which may do nothing"
    if not held and account in accounts:
        yield f"it runs as {account}, which may do something, and has no token; use another"
