"""The embedded model replaced under load, by a real server over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from safetensors.numpy import load_file, save_file

from ibinn import bundle, manifest, signing
from ibinn.client import AdminClient, AsyncClient, Retry
from ibinn.errors import IbinnError, PreconditionError
from ibinn.serving import Mode
from ibinn.types import Action, Prediction
from service.access import grants

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
CALLERS = 4
PER_CLASS = 12
KEYS = signing.generate_keypair()
SETTINGS = {
    "watch_interval_s": 3600,
    "accuracy_margin": 0.05,
    "calibration_margin": 0.2,
    "false_positive_margin": 0.05,
    "require_signature": "true",
    "port": 0,
    "metrics_port": 0,
    "threads": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    target: str
    metrics: str
    log: Path
    token: str

    def admin(self) -> AdminClient:
        return AdminClient(self.target, timeout_s=PATIENCE_S, token=self.token)

    def refused(self, reason: str) -> float:
        """How many candidates were refused for a reason, over all workers."""
        with urllib.request.urlopen(self.metrics, timeout=PATIENCE_S) as response:
            text = response.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "ibinn_candidates_total"
            and (sample.labels["outcome"], sample.labels["reason"]) == ("refused", reason)
        )


@contextlib.contextmanager
def serving(tmp_path: Path, first: Path, *, workers: int) -> Iterator[Running]:
    """A server process with the bundle, ready; ended afterwards."""
    token = grants.new_token()
    (tmp_path / "tokens.toml").write_text(
        f'[[token]]\nname = "operator"\nsha256 = "{grants.token_digest(token).hex()}"\n'
        'roles = ["admin", "classify"]\n'
    )
    (tmp_path / "trusted.pem").write_bytes(KEYS.public_pem)
    told = {
        **SETTINGS,
        "workers": workers,
        "bundle": first,
        "models": tmp_path / "models",
        "acceptance": tmp_path / "acceptance",
        "tokens": tmp_path / "tokens.toml",
        "trusted_keys": tmp_path / "trusted.pem",
        "state_dir": tmp_path / "state",
    }
    environment = {f"IBINN_{name.upper()}": str(value) for name, value in told.items()}
    log = tmp_path / "log.txt"
    with log.open("a") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        line = process.stdout.readline()
        found = re.match(r"ready grpc=(\S+) metrics=(\S+) ", line)
        assert found is not None, f"{line}\n{log.read_text()}"
        yield Running(target=found[1], metrics=found[2], log=log, token=token)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        process.stdout.close()


def changed(folder: Path, *, tensors: dict[str, float] | None = None, **entries) -> Path:
    """A bundle with tensors multiplied and entries of the manifest replaced, signed again."""
    path = folder / "weights.safetensors"
    if tensors:
        arrays = load_file(path)
        for name, factor in tensors.items():
            arrays[name] = (arrays[name] * factor).astype(arrays[name].dtype)
        save_file(arrays, path)
    found = manifest.read(folder)
    files = {**found.files, path.name: manifest.file_sha256(path)}
    manifest.write(dataclasses.replace(found, files=files, **entries), folder)
    signing.sign_bundle(folder, KEYS.private_pem)
    return folder


def copied(embedded: Path, folder: Path) -> Path:
    return Path(shutil.copytree(embedded, folder))


@pytest.fixture(scope="module")
def acceptance(tmp_path_factory: pytest.TempPathFactory, cifar10_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("set") / "acceptance"
    for class_folder in sorted((cifar10_dir / "test").iterdir()):
        (folder / class_folder.name).mkdir(parents=True)
        for path in sorted(class_folder.iterdir())[:PER_CLASS]:
            shutil.copy(path, folder / class_folder.name / path.name)
    return folder


@pytest.fixture
def folder(tmp_path: Path, embedded_bundle: Path, acceptance: Path) -> Path:
    """A models folder with a good candidate and four bad ones, and an acceptance set."""
    models = tmp_path / "models"
    models.mkdir()
    shutil.copytree(acceptance, tmp_path / "acceptance")
    changed(copied(embedded_bundle, models / "good"), tensors={"mixture.means": 0.93})
    flipped = changed(copied(embedded_bundle, models / "flipped")) / "weights.safetensors"
    content = bytearray(flipped.read_bytes())
    content[-1000] ^= 1
    flipped.write_bytes(bytes(content))
    stranger = signing.generate_keypair().private_pem
    signing.sign_bundle(copied(embedded_bundle, models / "stranger"), stranger)
    names = manifest.read(embedded_bundle).classes
    changed(copied(embedded_bundle, models / "confused"), classes=(*names[1:], names[0]))
    changed(copied(embedded_bundle, models / "nervous"), alpha=0.3)
    return tmp_path


@dataclass(slots=True, kw_only=True)
class Load:
    """What callers got while the models changed."""

    answers: list[tuple[int, Prediction]] = field(default_factory=list)
    failures: list[IbinnError] = field(default_factory=list)


@contextlib.asynccontextmanager
async def load(run: Running, images: list[bytes]) -> AsyncIterator[Load]:
    """Callers that ask without a pause, and try nothing twice."""
    found, stop = Load(), asyncio.Event()

    async def call(number: int) -> None:
        async with AsyncClient(
            run.target, timeout_s=PATIENCE_S, token=run.token, retry=Retry.none()
        ) as client:
            position = number
            while not stop.is_set():
                position = (position + 1) % len(images)
                try:
                    found.answers.append((position, await client.classify(images[position])))
                except IbinnError as error:
                    found.failures.append(error)

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(call(number))
        try:
            yield found
        finally:
            stop.set()


@pytest.mark.parametrize("workers", [1, 2])
async def test_reload_under_load_fails_no_call_mixes_no_models_and_refuses_what_is_worse(
    folder: Path, embedded_bundle: Path, workers: int
) -> None:
    first = changed(copied(embedded_bundle, folder / "first"))
    images = [path.read_bytes() for path in sorted((folder / "acceptance").rglob("*.jpg"))[::5]]
    reasons = {
        "flipped": ("integrity", "weights.safetensors has sha256"),
        "stranger": ("signature", "key"),
        "confused": ("accuracy", "accuracy is "),
        "nervous": ("false_positives", "false-positive rate is "),
    }
    with serving(folder, first, workers=workers) as run, run.admin() as admin:
        async with load(run, images) as found:
            for name, (reason, words) in reasons.items():
                with pytest.raises(PreconditionError, match=f"bundle '{name}' is refused") as told:
                    await asyncio.to_thread(admin.reload, name)
                assert any(words in text for text in told.value.reasons)
                assert run.refused(reason) == 1
                assert f"bundle '{name}'" in run.log.read_text()
                assert f"refused, {reason}: " in run.log.read_text()
            before = len(found.answers)
            reloaded = await asyncio.to_thread(admin.reload, "good")
            after = len(found.answers)
            while len(found.answers) < after + 20:
                await asyncio.sleep(0.01)
            rolled_back = await asyncio.to_thread(admin.rollback)
        assert found.failures == []
        assert (reloaded.state.workers, reloaded.state.workers_agreeing) == (workers, workers)
        assert [one.bundle for one in rolled_back.served] == ["first", "good"]
    expected = {
        known.info.versions.weights: [known.classify(image) for image in images]
        for known in (bundle.load(first), bundle.load(folder / "models" / "good"))
    }
    old, new = expected
    assert {answer.versions.weights for _, answer in found.answers} == {old, new}
    assert {answer.versions.weights for _, answer in found.answers[:before]} == {old}
    assert Counter(a.versions.weights for _, a in found.answers[after + CALLERS :])[new] >= 10
    for position, answer in found.answers:
        own = expected[answer.versions.weights][position]
        assert _distance(answer, own) < 0.01
    apart = [_distance(a, b) for a, b in zip(expected[old], expected[new], strict=True)]
    assert min(apart) > 0.1  # so that a mix would have shown


async def test_what_operators_told_outlives_a_restart(folder: Path, embedded_bundle: Path) -> None:
    first = changed(copied(embedded_bundle, folder / "first"))
    image = next((folder / "acceptance").rglob("*.jpg")).read_bytes()
    with serving(folder, first, workers=1) as run, run.admin() as admin:
        weights = admin.reload("good").candidate.versions.weights
        admin.set_mode(Mode.ABSTAIN_ALL, reason="lamp broken")
    with serving(folder, first, workers=1) as run, run.admin() as admin:
        async with AsyncClient(run.target, timeout_s=PATIENCE_S, token=run.token) as client:
            answer = await client.classify(image)
        assert answer.versions.weights == weights
        assert (answer.decision.action, answer.decision.rule) == (Action.DEFER, "abstain_all")
        state = admin.status()
        assert (state.mode, state.mode_reason) == (Mode.ABSTAIN_ALL, "lamp broken")


def _distance(one: Prediction, other: Prediction) -> float:
    """Largest difference of a class's log-likelihood relative to the mean one, in nats."""
    values = [
        np.array([s.log_likelihood for s in sorted(answer.classes, key=lambda s: s.name)])
        for answer in (one, other)
    ]
    return float(np.abs(np.subtract(*(value - value.mean() for value in values))).max())
