"""What container files and manifests start is started here, as they do it, without containers."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import typer.main
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

import training.cli

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deployment"
RETRAINING = FOLDER / "kubernetes" / "retraining"
BIN = Path(sys.executable).parent
MODEL = "ibinn.v1.ClassificationService"

# A root file system that nobody can write to, but for one folder, and a user without privileges.
# $1: that folder; $2: where Python lies; $3: a folder above it that only its owner may enter, or
# nothing.
CONTAINED = """\
set -eu
if [ -n "$3" ]; then
    mkdir -p "$1/python"
    mount --bind "$2" "$1/python"
    mount -t tmpfs -o mode=755 none "$3"
    mkdir -p "$2"
    mount --bind "$1/python" "$2"
fi
mount --bind "$1" "$1"
mount -o remount,bind,ro /
if touch /contained 2>/dev/null; then echo "the root file system can be written" >&2; exit 90; fi
shift 3
exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all \
    --inh-caps=-all "$@"
"""


def environment(path: Path) -> dict[str, str]:
    """The variables that a container file sets."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^ENV (PATH=.*)$", text, flags=re.MULTILINE)
    found = dict(word.split("=", 1) for word in line.split())
    return found | {"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}


def contained(writable: Path, *command: str) -> list[str]:
    """The command with a read-only root file system, as user 10001."""
    above = (path for path in Path(sys.base_prefix).parents if not path.stat().st_mode & 0o001)
    closed = str(next(above, ""))
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", CONTAINED, "contained", str(writable), sys.base_prefix, closed, *command),
    ]


def asked(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the health command says."""
    return subprocess.run(
        [sys.executable, FOLDER / "containers" / "health.py", *options],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]} | variables,
    )


def secrets(folder: Path) -> None:
    command = {"COMMAND": f"{sys.executable} -m service", "PYTHONPATH": str(ROOT)}
    subprocess.run(
        ["sh", FOLDER / "secrets.sh", str(folder)],
        check=True,
        env=os.environ | command,
        capture_output=True,
    )


def test_secrets_are_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secrets(folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o077 == 0
    assert set(first) == {
        *("postgres_password", "grafana_password", "receipt.key", "settings.toml", "tokens.toml"),
        *("console.token", "operator.token"),
    }
    assert len(first["receipt.key"].strip()) == 64
    assert first["postgres_password"].strip() in first["settings.toml"]
    secrets(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder of user 10001's, outside of folders that only their owner may enter."""
    folder = Path("/tmp") / f"ibinn-contained-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_server_runs_read_only_without_privileges_answers_probes_and_stops(scratch: Path) -> None:
    tried = contained(scratch, str(BIN / "python"), "-c", "import ibinn")
    if os.geteuid() or subprocess.run(tried, check=False, capture_output=True).returncode:
        pytest.skip("needs root, unshare and setpriv for a read-only root file system")
    secrets(scratch / "secrets")
    for name in ("tmp", "state", "models"):
        (scratch / name).mkdir()
    text = (FOLDER / "kubernetes" / "base" / "settings.toml").read_text("utf-8")
    for inside, here in (
        ("/etc/ibinn/access/", "secrets/"),
        ("/etc/ibinn/receipts/", "secrets/"),
        ("/var/lib/ibinn", "state"),
        ("/models", "models"),
    ):
        text = text.replace(f'"{inside}', f'"{scratch}/{here}')
    (scratch / "settings.toml").write_text(text)
    subprocess.run(["chown", "-R", "10001:10001", scratch], check=True)

    variables = environment(FOLDER / "containers" / "serve.Containerfile") | {
        "IBINN_CONFIG": f"{scratch}/settings.toml",
        "IBINN_PORT": "0",
        "IBINN_METRICS_PORT": "0",
        "HOME": f"{scratch}/tmp",
        "TMPDIR": f"{scratch}/tmp",
    }
    with (
        (scratch / "log").open("w") as log,
        subprocess.Popen(
            contained(scratch, str(BIN / "ibinn-serve")),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=variables,
            cwd=f"{scratch}/tmp",
        ) as server,
    ):
        try:
            line = server.stdout.readline() if server.stdout else ""
            found = re.search(r"ready grpc=\S*:(\d+) ", line)
            assert found, (scratch / "log").read_text()
            port = found[1]
            assert asked(IBINN_PORT=port).returncode == 0
            assert asked("--service=", IBINN_PORT=port).returncode == 0
            unknown = asked("--service", "nobody", IBINN_PORT=port)
            assert unknown.returncode == 1
            token = (scratch / "secrets" / "operator.token").read_text().strip()
            answer = subprocess.run(
                [
                    *(BIN / "ibinn", "classify", "--server", f"127.0.0.1:{port}"),
                    next((ROOT / "ibinn" / "samples" / "thumbnails").glob("*.jpg")),
                ],
                check=False,
                capture_output=True,
                text=True,
                env=os.environ | {"IBINN_TOKEN": token},
            )
            assert answer.returncode == 0, answer.stderr
            os.kill(server.pid, signal.SIGTERM)
            assert server.wait(45) == 0
        finally:
            server.kill()
    exported = subprocess.run(
        ["sh", RETRAINING / "export.sh"],
        check=False,
        capture_output=True,
        text=True,
        env=variables | {"STATE": str(scratch / "retraining"), "RUN": "a"},
    )
    assert exported.returncode == 0, exported.stderr
    assert (scratch / "retraining" / "exports" / "a" / "export.json").is_file()


# Stands in for ibinn-train: writes down what it is asked, and ends promote with a status.
STUB = """\
#!/bin/sh
echo "$@" >>"$CALLS"
[ "$1" != promote ] || exit "$STATUS"
"""


@pytest.mark.parametrize(
    ("status", "ended", "said"),
    [(0, 0, "promoted"), (1, 0, "refused"), (3, 0, "waits for approval"), (2, 2, "")],
)
def test_retraining_job_ends_well_unless_something_is_wrong(
    tmp_path: Path, status: int, ended: int, said: str
) -> None:
    stub = tmp_path / "bin" / "ibinn-train"
    stub.parent.mkdir()
    stub.write_text(STUB)
    stub.chmod(0o755)
    calls = tmp_path / "calls"
    lines = (RETRAINING / "settings.env").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    variables = {
        "PATH": f"{stub.parent}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "STATUS": str(status),
        "STATE": str(tmp_path / "state"),
        "RUN": "a",
    }
    done = subprocess.run(
        ["sh", RETRAINING / "retrain.sh"],
        check=False,
        capture_output=True,
        text=True,
        env=variables | given,
    )
    assert done.returncode == ended, done.stderr
    assert said in done.stdout
    asked_for = [line.split() for line in calls.read_text().splitlines()]
    assert [words[0] for words in asked_for] == ["retrain", "promote"]
    commands = typer.main.get_command(training.cli.app).commands  # type: ignore[attr-defined]
    for name, *words in asked_for:
        known = {option for param in commands[name].params for option in param.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_retraining_job_says_which_setting_is_missing() -> None:
    done = subprocess.run(
        ["sh", RETRAINING / "retrain.sh"],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "CURRENT": "a", "RUN": "a"},
    )
    assert done.returncode == 2
    assert "FIRST is not set" in done.stderr


def training_command() -> list[str]:
    """What the training job runs."""
    job = yaml.safe_load((FOLDER / "kubernetes" / "training" / "job.yaml").read_text("utf-8"))
    found: list[str] = job["spec"]["template"]["spec"]["containers"][0]["command"]
    return found


def test_training_job_asks_for_what_there_is() -> None:
    command = training_command()
    assert shutil.which(command[0], path=str(BIN)) is not None
    start = command.index("ibinn-train")
    commands = typer.main.get_command(training.cli.app).commands  # type: ignore[attr-defined]
    known = {option for param in commands[command[start + 1]].params for option in param.opts}
    assert {word.split("=")[0] for word in command[start + 2 :]} <= known


@pytest.mark.slow
def test_training_job_trains_on_two_processes(tmp_path: Path) -> None:
    small = {
        "--nproc-per-node": "2",
        "--recipe": "digits",
        "--data": "digits",
        "--out": str(tmp_path / "run"),
        "--accelerator": "cpu",
        "--devices": "2",
    }
    command = []
    for word in training_command():
        name = word.split("=")[0]
        command.append(f"{name}={small[name]}" if name in small else word)
    done = subprocess.run(
        [*command, "--set", "epochs=1"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "bundle" / "manifest.json").is_file()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, for a host that is not this one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ibinn.example.org")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("ibinn.example.org")]), False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "tls.crt", folder / "tls.key"


@contextlib.contextmanager
def healthy(certificate: tuple[Path, Path]) -> Iterator[tuple[int, health.HealthServicer]]:
    """A server with TLS that only knows its health, and its port."""
    chain, key = (path.read_bytes() for path in certificate)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    try:
        yield port, servicer
    finally:
        server.stop(None).wait()


def test_health_command_speaks_tls_where_the_server_does(certificate: tuple[Path, Path]) -> None:
    with healthy(certificate) as (port, servicer):
        variables = {"IBINN_PORT": str(port), "IBINN_TLS_CERTIFICATE": str(certificate[0])}
        servicer.set(MODEL, health_pb2.HealthCheckResponse.SERVING)
        assert asked(**variables).returncode == 0
        servicer.set(MODEL, health_pb2.HealthCheckResponse.NOT_SERVING)
        done = asked(**variables)
        assert done.returncode == 1
        assert "NOT_SERVING" in done.stderr
        assert asked("--timeout", "1", IBINN_PORT=str(port)).returncode == 1
    gone = asked(IBINN_PORT=str(port), IBINN_TLS_CERTIFICATE="/nowhere/tls.crt")
    assert gone.returncode == 2
    assert "/nowhere/tls.crt" in gone.stderr
