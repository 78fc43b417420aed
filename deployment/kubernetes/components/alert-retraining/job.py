"""Starts retraining now: makes a Job of a CronJob's template, unless one of its jobs still runs.

    python job.py --cronjob ibinn-retrain

What `kubectl create job --from=cronjob/ibinn-retrain NAME` does, for `hook.py` in a pod that has
only Python. It asks the API server as the pod's service account, which may get that CronJob, and
list and create Jobs. IBINN_RETRAIN_REASON goes into an annotation of the job. A suspended schedule
does not stop it.

Exit codes: 0 the job is made; 1 the API server refused, or did not answer; 2 it is not set up;
3 nothing was made, because a job runs: the alert may ask again.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

REASON = "ibinn/retraining-reason"
_LONGEST_REASON = 1000
# Of a pod's label job-name, which the controller sets to the name of the job.
_LONGEST_NAME = 63
_ATTEMPTS = 4
_TIMEOUT_S = 20.0
_ADVICE: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "is the service account's token the cluster's?",
    HTTPStatus.FORBIDDEN: "look at Role and RoleBinding ibinn-retraining-hook, and at quotas",
    HTTPStatus.NOT_FOUND: "is the CronJob in this namespace, under this name?",
    HTTPStatus.UNPROCESSABLE_ENTITY: "would `kubectl create job --from` be refused as well?",
}


class SetupError(Exception):
    """It cannot know whom to ask, or as whom."""


class RefusedError(Exception):
    """The API server said no, or nothing; the message says what was asked, and what to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom to ask and as whom.

    Attributes:
        host: Of the API server.
        port: Of the API server.
        token: Of the service account.
        namespace: Of the CronJob and its jobs.
        tls: Trusts the cluster's authority and nobody else.
    """

    host: str
    port: int
    token: str
    namespace: str
    tls: ssl.SSLContext

    @classmethod
    def read(cls, folder: Path, environment: Mapping[str, str]) -> Account:
        """The account that Kubernetes mounts into a pod.

        Args:
            folder: With ``token``, ``ca.crt`` and ``namespace``.
            environment: With KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT.

        Raises:
            SetupError: Something of it is missing or no good.
        """
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not port.isdecimal():
            raise SetupError(
                f"KUBERNETES_SERVICE_HOST is {host!r} and KUBERNETES_SERVICE_PORT {port!r}, "
                "expected an address and a number; Kubernetes sets them in every pod"
            )
        try:
            token = (folder / "token").read_text("utf-8").strip()
            namespace = (folder / "namespace").read_text("utf-8").strip()
            tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        except (OSError, UnicodeDecodeError) as error:
            raise SetupError(
                f"{folder} holds no service account that can be used (token, ca.crt, namespace): "
                f"{error}"
            ) from error
        # Newer Pythons ask of certificates what those of older clusters do not have.
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if not token or not namespace:
            raise SetupError(f"{folder}: token and namespace must not be empty")
        return cls(host=host, port=int(port), token=token, namespace=namespace, tls=tls)


class Cluster:
    """The few requests to the API server that this needs.

    Args:
        account: Whom to ask and as whom.
        wait_s: Seconds before the second attempt, and twice as many before each further one.
    """

    def __init__(self, account: Account, *, wait_s: float) -> None:
        self._account = account
        self._wait_s = wait_s

    def cronjob(self, name: str) -> dict[str, Any]:
        """The CronJob of this name.

        Raises:
            RefusedError: There is none, it may not be seen, or nobody answers.
        """
        return self._asked("GET", f"cronjobs/{urllib.parse.quote(name, safe='')}")

    def unfinished(self, labels: Mapping[str, str]) -> list[str]:
        """The names of the jobs with these labels that have neither completed nor failed.

        Raises:
            RefusedError: They may not be seen, or nobody answers.
        """
        selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        query = urllib.parse.urlencode({"labelSelector": selector})
        jobs = self._asked("GET", f"jobs?{query}").get("items") or ()
        return sorted(job["metadata"]["name"] for job in jobs if not _finished(job))

    def create(self, job: dict[str, Any]) -> None:
        """Creates the job; one of this name that is there already is the same one, asked for before
        an answer got lost.

        Raises:
            RefusedError: It may not be created, is invalid, or nobody answers.
        """
        self._asked("POST", "jobs", body=json.dumps(job).encode())

    def _asked(self, method: str, path: str, *, body: bytes | None = None) -> dict[str, Any]:
        """The answer, asked for again where the server may recover."""
        path = f"/apis/batch/v1/namespaces/{self._account.namespace}/{path}"
        wait_s = self._wait_s
        for left in reversed(range(_ATTEMPTS)):
            try:
                status, answer = self._once(method, path, body)
            except (OSError, http.client.HTTPException) as error:
                said = f"{method} {path}: no answer of {self._where()}: {error}"
            else:
                if 200 <= status < 300:
                    return answer
                if status == HTTPStatus.CONFLICT and answer.get("reason") == "AlreadyExists":
                    return answer
                said = f"{method} {path}: {self._where()} answered {status}: {_told(answer)}"
                if status < 500 and status not in {
                    HTTPStatus.CONFLICT,
                    HTTPStatus.TOO_MANY_REQUESTS,
                }:
                    raise RefusedError(f"{said}; {_ADVICE.get(status, 'look at its log')}")
            if left:
                _say(f"{said}; again in {wait_s:g} s")
                time.sleep(wait_s)
                wait_s *= 2
        raise RefusedError(f"{said}; given up after {_ATTEMPTS} attempts")

    def _once(self, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, Any]]:
        # Not urllib.request: it would follow redirects and proxies with the token.
        account = self._account
        connection = http.client.HTTPSConnection(
            account.host, account.port, timeout=_TIMEOUT_S, context=account.tls
        )
        headers = {
            "Authorization": f"Bearer {account.token}",
            "Accept": "application/json",
            "User-Agent": "ibinn-retraining-hook",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if isinstance(answer, dict):
            return response.status, answer
        if response.status < 300:
            raise http.client.HTTPException("what came is no object of JSON")
        return response.status, {"message": content[:200].decode("utf-8", "replace")}

    def _where(self) -> str:
        return f"the API server at {self._account.host}:{self._account.port}"


def job_of(cronjob: dict[str, Any], *, now: datetime, reason: str) -> dict[str, Any]:
    """The job to create: the CronJob's template under a name of its own.

    The CronJob owns it, so that its history limits and its deletion hold for the job too.

    Args:
        cronjob: As the API server gives it.
        now: UTC; goes into the name.
        reason: Goes into the annotation `REASON`, cut at 1,000 characters.
    """
    template = cronjob["spec"]["jobTemplate"]
    given = template.get("metadata", {})
    name = cronjob["metadata"]["name"]
    suffix = f"-alert-{now:%Y%m%dt%H%M%S}"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name[: _LONGEST_NAME - len(suffix)].rstrip("-.") + suffix,
            "labels": given.get("labels", {}),
            "annotations": {**given.get("annotations", {}), REASON: reason[:_LONGEST_REASON]},
            # Not blockOwnerDeletion: it needs the right to change the CronJob.
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "CronJob",
                    "name": name,
                    "uid": cronjob["metadata"]["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": template["spec"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    asked = _parser().parse_args(arguments)
    reason = os.environ.get("IBINN_RETRAIN_REASON", "")
    try:
        account = Account.read(asked.account, os.environ)
        cluster = Cluster(account, wait_s=asked.wait_s)
        cronjob = cluster.cronjob(asked.cronjob)
        labels = cronjob["spec"]["jobTemplate"].get("metadata", {}).get("labels")
        if not labels:
            raise SetupError(
                f"the jobTemplate of CronJob {asked.cronjob} has no labels, by which its jobs are "
                "known; give it app.kubernetes.io/name"
            )
        running = cluster.unfinished(labels)
        if running:
            _say(f"nothing started: {', '.join(running)} has not ended")
            return 3
        job = job_of(cronjob, now=datetime.now(UTC), reason=reason)
        cluster.create(job)
    except SetupError as error:
        _say(f"error: {error}")
        return 2
    except RefusedError as error:
        _say(f"error: {error}")
        return 1
    _say(
        f"job {job['metadata']['name']} made in {account.namespace}: {reason or 'no reason given'}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Start a CronJob's job now, unless one runs.")
    parser.add_argument("--cronjob", required=True, help="name of the CronJob")
    parser.add_argument(
        "--account",
        type=Path,
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        help="folder with token, ca.crt and namespace (%(default)s)",
    )
    parser.add_argument(
        "--wait-s",
        type=float,
        default=5.0,
        help="seconds before it asks again where the server may recover, then twice as many "
        "(%(default)g)",
    )
    return parser


def _finished(job: dict[str, Any]) -> bool:
    return any(
        condition.get("type") in {"Complete", "Failed"} and condition.get("status") == "True"
        for condition in job.get("status", {}).get("conditions") or ()
    )


def _told(answer: dict[str, Any]) -> str:
    """What the server's object Status says."""
    return str(answer.get("message") or answer.get("reason") or "without a reason")


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} retraining job: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
