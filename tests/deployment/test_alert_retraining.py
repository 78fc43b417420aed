"""Retraining that an alert starts in a cluster: its manifests, its privileges, and what runs there.

The API server is a stub that speaks TLS, knows a CronJob and jobs, and allows what the rendered
Role allows.
"""

from __future__ import annotations

import contextlib
import copy
import ipaddress
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deployment.checks import kubernetes, privileges, workloads

Object = dict[str, Any]

FOLDER = kubernetes.FOLDER
PROGRAM = FOLDER / "kubernetes" / "components" / "alert-retraining" / "job.py"
HOOK = "ibinn-retraining-hook"
OVERLAYS = {path.name: path for path in kubernetes.OVERLAYS}
PATH = "/apis/batch/v1/namespaces/ibinn"
ACCOUNT_TOKEN = "the-service-account-s-token"
HOOK_TOKEN = "a-token-for-tests-only"
REASON = "IbinnGuaranteeSuspended model=a-b"


@pytest.fixture(scope="module")
def cpu() -> list[Object]:
    return kubernetes.rendered(OVERLAYS["cpu"])


def one(objects: list[Object], kind: str, name: str = HOOK) -> Object:
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def pod(objects: list[Object]) -> Object:
    found: Object = one(objects, "Deployment")["spec"]["template"]["spec"]
    return found


class Api:
    """What the stub knows, and what it was asked.

    Attributes:
        cronjob: The CronJob of the cluster.
        jobs: The jobs that are there; created ones join them.
        rules: Of the Role of whoever asks.
        troubles: Answers given in place of the right ones, in order; None: the right one.
        after: Answers given after the right thing was done, in order, likewise.
        asked: Verb, resource, name of each request, with a token that the stub knows.
    """

    def __init__(self, cronjob: Object, rules: list[Object]) -> None:
        self.cronjob = cronjob
        self.jobs: list[Object] = []
        self.rules = rules
        self.troubles: list[tuple[int, Object] | None] = []
        self.after: list[tuple[int, Object] | None] = []
        self.asked: list[tuple[str, str, str]] = []
        self.port = 0

    def answer(self, method: str, target: str, token: str, body: Object) -> tuple[int, Object]:
        path, _, query = target.partition("?")
        if token != f"Bearer {ACCOUNT_TOKEN}":
            return status(401, "Unauthorized", "Unauthorized")
        match = re.fullmatch(rf"{PATH}/(cronjobs|jobs)(?:/([^/]+))?", path)
        assert match, path
        resource, name = match[1], match[2] or ""
        verb = "create" if method == "POST" else "get" if name else "list"
        self.asked.append((verb, resource, name))
        if self.troubles and (trouble := self.troubles.pop(0)):
            return trouble
        if not self.allowed(verb, resource, name):
            return status(403, "Forbidden", f"{resource}.batch is forbidden: cannot {verb}")
        done = self.done(verb, name, urllib.parse.parse_qs(query), body)
        if self.after and (trouble := self.after.pop(0)):
            return trouble
        return done

    def allowed(self, verb: str, resource: str, name: str) -> bool:
        return any(
            verb in rule["verbs"]
            and resource in rule["resources"]
            and "batch" in rule["apiGroups"]
            and ("resourceNames" not in rule or name in rule["resourceNames"])
            for rule in self.rules
        )

    def done(
        self, verb: str, name: str, query: dict[str, list[str]], body: Object
    ) -> tuple[int, Object]:
        if verb == "get":
            if name != self.cronjob["metadata"]["name"]:
                return status(404, "NotFound", f'cronjobs.batch "{name}" not found')
            return 200, self.cronjob
        if verb == "list":
            wanted = dict(pair.split("=") for pair in query["labelSelector"][0].split(","))
            items = [
                job for job in self.jobs if wanted.items() <= job["metadata"]["labels"].items()
            ]
            return 200, {"kind": "JobList", "items": items}
        if body["metadata"]["name"] in {job["metadata"]["name"] for job in self.jobs}:
            return status(409, "AlreadyExists", "jobs.batch already exists")
        self.jobs.append(body)
        return 201, body


def status(code: int, reason: str, message: str) -> tuple[int, Object]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("authority")
    (folder / "ca.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "ca.crt", folder / "ca.key"


@pytest.fixture
def api(cpu: list[Object], authority: tuple[Path, Path]) -> Iterator[Api]:
    """A listening API server with the rendered CronJob, and no job."""
    cronjob = copy.deepcopy(one(cpu, "CronJob", "ibinn-retrain"))
    cronjob["metadata"]["uid"] = "8d3a2c1e-0000-4000-8000-000000000001"
    known = Api(cronjob, one(cpu, "Role")["rules"])

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            code, answer = known.answer(
                self.command,
                self.path,
                self.headers.get("Authorization", ""),
                json.loads(body or b"{}"),
            )
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    known.port = server.server_port
    try:
        yield known
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def account(tmp_path: Path, authority: tuple[Path, Path]) -> Path:
    """What Kubernetes mounts for a service account."""
    folder = tmp_path / "account"
    folder.mkdir()
    shutil.copy(authority[0], folder / "ca.crt")
    (folder / "token").write_text(ACCOUNT_TOKEN + "\n")
    (folder / "namespace").write_text("ibinn")
    return folder


def ran(
    api: Api, account: Path, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The program in a pod's environment, as isolated as it is there."""
    given = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.port),
        "IBINN_RETRAIN_REASON": REASON,
        # Is not used: it would be shown the token.
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-S", PROGRAM, "--cronjob=ibinn-retrain", "--wait-s=0"]
    return subprocess.run(
        [*command, f"--account={account}", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=given | variables,
    )


def test_it_creates_the_job_of_the_template(api: Api, account: Path) -> None:
    done = ran(api, account)
    assert done.returncode == 0, done.stderr
    (job,) = api.jobs
    template = api.cronjob["spec"]["jobTemplate"]
    assert job["spec"] == template["spec"]
    assert job["metadata"]["labels"] == template["metadata"]["labels"]
    assert job["metadata"]["annotations"] == {"ibinn/retraining-reason": REASON}
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "name": "ibinn-retrain",
        "uid": api.cronjob["metadata"]["uid"],
        "controller": True,
    }
    name = job["metadata"]["name"]
    assert re.fullmatch(r"ibinn-retrain-alert-\d{8}t\d{6}", name)
    assert list(kubernetes.invalid(job)) == []
    assert f"job {name} made in ibinn: {REASON}" in done.stderr


def test_the_role_allows_what_is_asked_and_nothing_else(api: Api, account: Path) -> None:
    assert ran(api, account).returncode == 0
    granted = {
        (verb, resource, name)
        for rule in api.rules
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    assert set(api.asked) == granted


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_any_one_privilege_it_says_which(api: Api, account: Path, left: int) -> None:
    verbs = [("get", "cronjobs"), ("list", "jobs"), ("create", "jobs")]
    api.rules = [
        {"apiGroups": ["batch"], "resources": [resource], "verbs": [verb]}
        for index, (verb, resource) in enumerate(verbs)
        if index != left
    ]
    done = ran(api, account)
    verb, resource = verbs[left]
    assert done.returncode == 1
    assert f"answered 403: {resource}.batch is forbidden: cannot {verb}" in done.stderr
    assert f"look at Role and RoleBinding {HOOK}" in done.stderr
    assert api.jobs == []
    assert api.asked[-1][:2] == (verb, resource)


def job(name: str, conditions: list[Object] | None, **labels: str) -> Object:
    given = {
        "app.kubernetes.io/name": "ibinn-retrain",
        "app.kubernetes.io/component": "retraining",
        "app.kubernetes.io/part-of": "ibinn",
    }
    return {
        "metadata": {"name": name, "labels": given | labels},
        "status": {} if conditions is None else {"conditions": conditions},
    }


@pytest.mark.parametrize(
    "conditions",
    [
        None,
        [],
        [{"type": "Complete", "status": "False"}],
        [{"type": "FailureTarget", "status": "True"}],
    ],
)
def test_it_skips_while_a_job_has_not_ended(
    api: Api, account: Path, conditions: list[Object] | None
) -> None:
    api.jobs = [job("ibinn-retrain-29389560", conditions)]
    done = ran(api, account)
    assert done.returncode == 3
    assert "nothing started: ibinn-retrain-29389560 has not ended" in done.stderr
    assert len(api.jobs) == 1


def test_jobs_that_ended_and_jobs_of_others_do_not_hold_it_up(api: Api, account: Path) -> None:
    api.jobs = [
        job("ibinn-retrain-1", [{"type": "Complete", "status": "True"}]),
        job("ibinn-retrain-2", [{"type": "Failed", "status": "True"}]),
        job("ibinn-train", None, **{"app.kubernetes.io/name": "ibinn-train"}),
    ]
    assert ran(api, account).returncode == 0
    assert len(api.jobs) == 4


def test_a_cronjob_that_is_not_there_is_named(api: Api, account: Path) -> None:
    api.rules[0]["resourceNames"].append("other")
    try:
        done = ran(api, account, "--cronjob=other")
    finally:
        api.rules[0]["resourceNames"].remove("other")
    assert done.returncode == 1
    assert 'answered 404: cronjobs.batch "other" not found' in done.stderr
    assert "is the CronJob in this namespace" in done.stderr


def test_a_token_that_the_cluster_does_not_know_is_told(api: Api, account: Path) -> None:
    (account / "token").write_text("other")
    done = ran(api, account)
    assert done.returncode == 1
    assert "answered 401: Unauthorized" in done.stderr


def test_an_invalid_job_is_told_and_not_asked_for_again(api: Api, account: Path) -> None:
    api.troubles = [None, None, status(422, "Invalid", "Job is invalid: spec: Required value")]
    done = ran(api, account)
    assert done.returncode == 1
    assert "POST" in done.stderr
    assert "answered 422: Job is invalid: spec: Required value" in done.stderr
    assert len(api.asked) == 3


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_recovers_is_asked_again(api: Api, account: Path, code: int) -> None:
    api.troubles = [status(code, "Trouble", "later, please"), None, status(code, "Trouble", "")]
    done = ran(api, account)
    assert done.returncode == 0, done.stderr
    assert f"answered {code}: later, please; again in 0 s" in done.stderr
    assert len(api.jobs) == 1


def test_a_server_that_does_not_recover_is_given_up(api: Api, account: Path) -> None:
    api.troubles = [status(503, "ServiceUnavailable", "no etcd")] * 9
    done = ran(api, account)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("answered 503: no etcd; given up after 4 attempts")
    assert len(api.asked) == 4


def test_an_answer_that_got_lost_makes_no_second_job(api: Api, account: Path) -> None:
    api.after = [None, None, status(504, "Timeout", "the answer took too long")]
    done = ran(api, account)
    assert done.returncode == 0, done.stderr
    assert [verb for verb, _, _ in api.asked] == ["get", "list", "create", "create"]
    assert len(api.jobs) == 1


def test_who_is_not_the_cluster_is_not_shown_the_token(
    api: Api, account: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another")])
    now = datetime.now(UTC)
    other = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (account / "ca.crt").write_bytes(other.public_bytes(serialization.Encoding.PEM))
    done = ran(api, account)
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr
    assert api.asked == []


def test_nobody_there_is_told(api: Api, account: Path) -> None:
    done = ran(api, account, KUBERNETES_SERVICE_PORT="1")
    assert done.returncode == 1
    assert "no answer of the API server at 127.0.0.1:1" in done.stderr


def test_what_is_missing_in_the_pod_is_named(api: Api, account: Path) -> None:
    done = ran(api, account, KUBERNETES_SERVICE_HOST="")
    assert (done.returncode, "KUBERNETES_SERVICE_HOST is ''" in done.stderr) == (2, True)
    (account / "namespace").unlink()
    done = ran(api, account)
    assert (done.returncode, "holds no service account" in done.stderr) == (2, True)
    del api.cronjob["spec"]["jobTemplate"]["metadata"]["labels"]
    (account / "namespace").write_text("ibinn")
    done = ran(api, account)
    assert (done.returncode, "has no labels" in done.stderr) == (2, True)
    assert api.jobs == []


def test_a_long_name_is_cut_to_what_pods_can_be_labelled_with(api: Api, account: Path) -> None:
    name = "n" * 52
    api.cronjob["metadata"]["name"] = name
    api.rules = [{**api.rules[0], "resourceNames": [name]}, *api.rules[1:]]
    done = ran(api, account, f"--cronjob={name}", IBINN_RETRAIN_REASON="r" * 5000)
    assert done.returncode == 0, done.stderr
    (made,) = api.jobs
    assert len(made["metadata"]["name"]) == 63
    assert len(made["metadata"]["annotations"]["ibinn/retraining-reason"]) == 1000


@contextlib.contextmanager
def pod_of(
    objects: list[Object], api: Api, account: Path, folder: Path
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The rendered container's command, with its volumes in a folder; the process and its URL."""
    spec = pod(objects)
    (container,) = spec["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    command = ["--port=0" if w.startswith("--port=") else w for w in container["command"]]
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        here = folder / mount["name"]
        if "projected" in volume:
            here = account
        else:
            here.mkdir(exist_ok=True)
        if "configMap" in volume:
            for name, text in one(objects, "ConfigMap", volume["configMap"]["name"])[
                "data"
            ].items():
                (here / name).write_text(text)
        if "secret" in volume:
            (here / "token").write_text(HOOK_TOKEN + "\n")
        command = [word.replace(f"{mount['mountPath']}/", f"{here}/") for word in command]
        command = [word.replace(f"={mount['mountPath']}", f"={here}") for word in command]
    variables = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(api.port),
    }
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=variables, cwd=folder
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"listening on 0\.0\.0\.0:(\d+)", line)
            assert found, line + process.stderr.read()
            yield process, f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()


def test_what_the_pod_runs_turns_an_alert_into_a_job_and_stops(
    cpu: list[Object], api: Api, account: Path, tmp_path: Path
) -> None:
    labels = {"alertname": "IbinnGuaranteeSuspended", "model": "a-b", "action": "retrain"}
    body = json.dumps({"alerts": [{"status": "firing", "labels": labels}]}).encode()
    headers = {"Authorization": f"Bearer {HOOK_TOKEN}"}
    with pod_of(cpu, api, account, tmp_path) as (process, url):
        (container,) = pod(cpu)["containers"]
        path = container["readinessProbe"]["httpGet"]["path"]
        with urllib.request.urlopen(url + path, timeout=30) as response:
            assert response.status == 200
        request = urllib.request.Request(f"{url}/alerts", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            assert (response.status, response.read()) == (202, b"started")
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        ended = next(line for line in lines if "retraining ended" in line)
        assert "retraining ended with 0" in ended
        # The line comes a moment before the thread that wrote it ends.
        deadline = time.monotonic() + 30
        said = b"running already"
        while said == b"running already" and time.monotonic() < deadline:
            with urllib.request.urlopen(request, timeout=30) as response:
                said = response.read()
        assert said == b"not again so soon"
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(pod(cpu)["terminationGracePeriodSeconds"]) == 0
    (made,) = api.jobs
    assert made["metadata"]["annotations"] == {"ibinn/retraining-reason": REASON}


@pytest.mark.parametrize("name", sorted(OVERLAYS))
def test_every_overlay_with_retraining_has_it(name: str) -> None:
    objects = kubernetes.rendered(OVERLAYS[name])
    one(objects, "CronJob", "ibinn-retrain")
    found = {o["kind"] for o in objects if o["metadata"]["name"] == HOOK}
    assert found == {
        *("Deployment", "Service", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy")
    }
    assert pod(objects)["containers"][0]["image"].partition(":")[0].endswith("/ibinn-serve")


def test_token_and_account_come_as_files_of_this_pod_alone(cpu: list[Object]) -> None:
    volumes = {volume["name"]: volume for volume in pod(cpu)["volumes"]}
    assert volumes["token"]["secret"]["secretName"] == HOOK
    (container,) = pod(cpu)["containers"]
    assert "env" not in container
    others = [
        template["spec"]
        for o in cpu
        for template in workloads.templates(o)
        if o["metadata"]["name"] != HOOK
    ]
    assert others
    assert all(spec["serviceAccountName"] != HOOK for spec in others)
    assert all("projected" not in volume for spec in others for volume in spec["volumes"])


def selected(policy: Object, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(found["key"]) in found["values"]
        for found in selector.get("matchExpressions", ())
    )


def test_only_alertmanager_reaches_it_and_it_reaches_only_the_api_server(
    cpu: list[Object],
) -> None:
    labels = one(cpu, "Deployment")["spec"]["template"]["metadata"]["labels"]
    policies = {
        o["metadata"]["name"]: o["spec"]
        for o in cpu
        if o["kind"] == "NetworkPolicy" and selected(o, labels)
    }
    assert set(policies) == {"ibinn-deny", HOOK}
    assert set(policies["ibinn-deny"]["policyTypes"]) == {"Ingress", "Egress"}
    (into,) = policies[HOOK]["ingress"]
    (source,) = into["from"]
    assert source["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "alertmanager"}
    (out,) = policies[HOOK]["egress"]
    assert {port["port"] for port in out["ports"]} == {443, 6443}
    (container,) = pod(cpu)["containers"]
    (port,) = container["ports"]
    assert {found["port"] for found in into["ports"]} == {port["containerPort"]}
    assert f"--port={port['containerPort']}" in container["command"]


def test_alertmanager_posts_to_the_service(cpu: list[Object]) -> None:
    config = yaml.safe_load((FOLDER / "monitoring" / "alertmanager.yml").read_text("utf-8"))
    receiver = next(found for found in config["receivers"] if found["name"] == "retraining")
    (webhook,) = receiver["webhook_configs"]
    service = one(cpu, "Service")
    (port,) = service["spec"]["ports"]
    place = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert webhook["url"] == f"http://{place}:{port['port']}/alerts"


def test_it_starts_the_cronjob_that_there_is(cpu: list[Object]) -> None:
    (container,) = pod(cpu)["containers"]
    (name,) = (w.partition("=")[2] for w in container["command"] if w.startswith("--cronjob="))
    assert one(cpu, "CronJob", name)["spec"]["jobTemplate"]["metadata"]["labels"]
    assert one(cpu, "Role")["rules"][0]["resourceNames"] == [name]


def may_all(objects: list[Object]) -> None:
    one(objects, "Role")["rules"][1]["verbs"].append("*")


def may_delete(objects: list[Object]) -> None:
    one(objects, "Role")["rules"][1]["verbs"].append("delete")


def may_get_every_cronjob(objects: list[Object]) -> None:
    del one(objects, "Role")["rules"][0]["resourceNames"]


def may_get_a_secret(objects: list[Object]) -> None:
    one(objects, "Role")["rules"].append(
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [HOOK], "verbs": ["get"]}
    )


def may_get_what_is_not_there(objects: list[Object]) -> None:
    one(objects, "Role")["rules"][0]["resourceNames"] = ["other"]


def reach_beyond(objects: list[Object]) -> None:
    one(objects, "Role")["kind"] = "ClusterRole"


def bind_the_server(objects: list[Object]) -> None:
    one(objects, "RoleBinding")["subjects"][0]["name"] = "ibinn"


def bind_everybody(objects: list[Object]) -> None:
    one(objects, "RoleBinding")["subjects"].append(
        {"kind": "Group", "name": "system:authenticated"}
    )


def bind_elsewhere(objects: list[Object]) -> None:
    one(objects, "RoleBinding")["subjects"][0]["namespace"] = "default"


def bind_nobody(objects: list[Object]) -> None:
    objects.remove(one(objects, "RoleBinding"))


def list_by_name(objects: list[Object]) -> None:
    one(objects, "Role")["rules"][1]["resourceNames"] = ["ibinn-retrain"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (may_all, "* of jobs (group 'batch') is not needed"),
        (may_delete, "delete of jobs (group 'batch') is not needed"),
        (may_get_every_cronjob, "get of any cronjobs"),
        (may_get_a_secret, "get of secrets (group '') is not needed"),
        (may_get_what_is_not_there, "no object other among cronjobs"),
        (reach_beyond, f"ClusterRole/{HOOK}: nothing here may reach beyond its namespace"),
        (bind_the_server, "Deployment/ibinn: it runs as ibinn, which may do something"),
        (bind_everybody, "Group/system:authenticated is no ServiceAccount"),
        (bind_elsewhere, "of the namespace 'default'"),
        (bind_nobody, f"it has a token of {HOOK}, which may do nothing"),
        (list_by_name, "only get can be held to resourceNames"),
    ],
)
def test_privileges_beyond_what_is_needed_are_named(
    cpu: list[Object], change: Callable[[list[Object]], None], message: str
) -> None:
    objects = copy.deepcopy(cpu)
    assert list(privileges.wrong(objects)) == []
    change(objects)
    assert any(message in text for text in privileges.wrong(objects))


def test_missing_probes_and_config_maps_are_named(cpu: list[Object]) -> None:
    objects = copy.deepcopy(cpu)
    del pod(objects)["containers"][0]["livenessProbe"]
    account = next(v for v in pod(objects)["volumes"] if v["name"] == "account")
    account["projected"]["sources"][1]["configMap"]["name"] = "other"
    found = list(workloads.wrong(objects))
    assert f"Deployment/{HOOK}: hook: there is no livenessProbe" in found
    assert f"Deployment/{HOOK}: it refers to ConfigMap/other, which is not there" in found


def test_schemas_hold_for_roles_and_bindings(cpu: list[Object]) -> None:
    role = copy.deepcopy(one(cpu, "Role"))
    role["rules"][0]["resourceName"] = ["ibinn-retrain"]
    assert any("resourceName" in text for text in kubernetes.invalid(role))
    binding = copy.deepcopy(one(cpu, "RoleBinding"))
    del binding["roleRef"]
    assert any("roleRef" in text for text in kubernetes.invalid(binding))
