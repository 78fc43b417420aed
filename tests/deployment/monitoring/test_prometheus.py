"""A real Prometheus reads three replicas with one database: its figures are the store's."""

from __future__ import annotations

import contextlib
import io
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deployment.monitoring import recording
from ibinn import manifest
from ibinn.client import Client
from ibinn.errors import InvalidImageError
from ibinn.policy import Costs, Policy
from ibinn.policy.file import write
from ibinn.records import Provenance, Selection
from ibinn.samples import all_samples
from ibinn.types import Prediction
from service.records.contents import CalibrationTable
from service.records.ledger import Ledger
from tests.deployment.monitoring import prometheus
from tests.deployment.monitoring.files import dashboards, panels
from tests.deployment.monitoring.prometheus import PATIENCE_S, SCRAPE_S, Prometheus
from tests.faults.server import ServerProcess, eventually, real_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="no prometheus on the PATH: install Debian's package prometheus",
    ),
]

REPLICAS = 3
IMAGES = 66  # each; of which the figures of recent images want 50
WINDOW = 50
BOARDS = dashboards()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Three replicas that answered and were told the truth, and what reads them.

    Attributes:
        prometheus: Has read everything.
        table: The store's.
        model: Name of the model.
    """

    prometheus: Prometheus
    table: CalibrationTable
    model: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, embedded_bundle: Path) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    url = f"sqlite:///{folder / 'records.db'}"
    write(policy_for(embedded_bundle), folder / "policy.json")
    for number, image in enumerate(thumbnails()):
        path = folder / "sentinels" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(image))
    told = {
        "records": url,
        "audit": "required",
        "policy": folder / "policy.json",
        "sentinels": folder / "sentinels",
        "sentinel_interval_s": 0.5,
        "drift_window": WINDOW,
        "decode_in": "thread",
        "threads": 1,
        "keep_images": "all",
        "images": folder / "images",
    }
    with contextlib.ExitStack() as stack:
        servers = started(stack, folder, told)
        targets = [server.metrics.split("/")[2] for server in servers]
        reader = stack.enter_context(prometheus.running(folder, targets))
        # From the first sample on, every counter is seen to grow.
        assert reader.comes("count(ibinn_answered_total)", lambda found: found == REPLICAS)
        clients = [
            stack.enter_context(Client(server.target, timeout_s=PATIENCE_S)) for server in servers
        ]
        answers = answered(clients)
        tell_truths(clients, answers)
        ledger = Ledger.open(url, timeout_s=PATIENCE_S)
        versions = answers[0].versions
        model = f"{versions.weights[:12]}-{versions.calibration[:12]}"
        table = ledger.calibration_table(model)
        assert table.count > REPLICAS * WINDOW
        assert reader.comes(
            'sum(model:ibinn_expected_images{window="5m"})', lambda found: found > 0
        )
        # The stated error is of use once several samples were taken.
        seen = f'ibinn_labelled_total{{model="{model}"}}'
        assert eventually(lambda: reader.seen_s(seen) >= 6 * SCRAPE_S, within_s=PATIENCE_S)
        # Windows are computed one after the other; all have seen the last label, and then again.
        assert reader.comes(
            f'min(model:ibinn_labels{{model="{model}"}})',
            lambda found: found >= table.count * (1 - 1e-9),
        )
        now = time.time()
        assert reader.comes(
            f'min(timestamp(model:ibinn_top_label_ece{{model="{model}"}}))',
            lambda found: found > now,
        )
        yield Watched(prometheus=reader, table=table, model=model)


def started(
    stack: contextlib.ExitStack, folder: Path, told: dict[str, Any]
) -> tuple[ServerProcess, ...]:
    """The replicas, started at the same time."""
    contexts = [real_server(state_dir=folder / f"state-{n}", **told) for n in range(REPLICAS)]
    with ThreadPoolExecutor(REPLICAS) as pool:
        starting = [pool.submit(context.__enter__) for context in contexts]
        for context in contexts:
            stack.push(context)
        return tuple(start.result() for start in starting)


def policy_for(bundle: Path) -> Policy:
    found = manifest.read(bundle)
    return Policy(
        name="watched",
        classes=found.classes,
        origin=None,
        alpha=0.02,
        class_alphas=(),
        coverage=found.conformal_coverage,
        costs=Costs.zero_one(len(found.classes), defer=0.2, reject=0.1),
        priors=None,
        certificate=None,
    )


def thumbnails() -> list[Image.Image]:
    found = (Image.open(io.BytesIO(sample.data)).convert("RGB") for sample in all_samples())
    return [image for image in found if max(image.size) <= 64]


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def images(count: int) -> Iterator[bytes]:
    """Thumbnails, each a little brighter or darker than ever before."""
    rng = np.random.default_rng(0)
    for image, _ in zip(cycle(thumbnails()), range(count), strict=False):
        factor = rng.uniform(0.8, 1.2)
        yield encoded(image.point(lambda value, by=factor: min(255, int(value * by))))


def answered(clients: list[Client]) -> list[Prediction]:
    """What the replicas say of images, taking turns; and each refuses one."""
    with ThreadPoolExecutor(REPLICAS) as pool:
        calls = [
            pool.submit(client.classify, image)
            for client, image in zip(cycle(clients), images(REPLICAS * IMAGES), strict=False)
        ]
        found = [call.result() for call in calls]
    for client in clients:
        with pytest.raises(InvalidImageError):
            client.classify(b"no image")
        client.explain(encoded(thumbnails()[0]))
    return found


def tell_truths(clients: list[Client], answers: list[Prediction]) -> None:
    """Truths of which a quarter contradict the answers, each told to another replica than the one
    that answered; some selected with a known chance, some contradicted by another source."""
    rng = np.random.default_rng(1)
    classes = [entry.name for entry in answers[0].classes]
    for number, answer in enumerate(answers):
        wrong = classes[int(rng.integers(1, len(classes)))]
        truth = wrong if rng.random() < 0.25 else answer.top.name
        chance = (None, 0.5, 0.125)[number % 3]
        provenance = Provenance(
            source="inspector",
            selection=None if chance is None else Selection.RANDOM,
            sampling_probability=chance,
        )
        assert answer.receipt is not None
        record, client = answer.receipt.record_id, clients[(number + 1) % REPLICAS]
        client.submit_feedback(
            record, "out-of-scope" if number % 20 == 19 else truth, provenance=provenance
        )
        if number % 10 == 0:
            client.submit_feedback(record, wrong, provenance="another inspector")


def ece(watched: Watched, window: str) -> float:
    (value,) = watched.prometheus.query(
        f'model:ibinn_top_label_ece{{window="{window}", model="{watched.model}"}}'
    ).values()
    return value


def test_raw_counter_sums_reproduce_the_tables_figures(watched: Watched) -> None:
    def sums(metric: str) -> dict[int, float]:
        found = watched.prometheus.query(f'sum by (bin) ({metric}{{model="{watched.model}"}})')
        return {int(dict(labels)["bin"]): value for labels, value in found.items()}

    labelled = sums("ibinn_labelled_total")
    correct = sums("ibinn_correct_total")
    confidence = sums("ibinn_confidence_sum_total")
    for number, expected in enumerate(watched.table.bins):
        assert labelled[number] == expected.count
        assert correct[number] == expected.correct
        assert confidence[number] == pytest.approx(expected.confidence_sum, abs=1e-6)
    exact = watched.table.top_label_ece
    assert exact is not None
    gaps = sum(abs(correct[n] - confidence[n]) for n in labelled)
    assert gaps / sum(labelled.values()) == pytest.approx(exact, abs=1e-6)
    assert ece(watched, "all") == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("window", recording.WINDOWS)
def test_a_windows_calibration_error_is_within_the_stated_error(
    watched: Watched, window: str
) -> None:
    """README.md: e = 2.2 x scrape interval / time seen, |ECE' - ECE| <= e (A + ECE)."""
    reader, exact = watched.prometheus, watched.table.top_label_ece
    assert exact is not None
    by = "sum by (instance, bin)"
    model = f'{{model="{watched.model}"}}'
    gaps = reader.number(
        f"sum(abs({by} (ibinn_correct_total{model}) - {by} (ibinn_confidence_sum_total{model})))"
    )
    e = 2.2 * SCRAPE_S / reader.seen_s(f"ibinn_labelled_total{model}")
    assert e < 0.5
    labels = reader.number(f'model:ibinn_labels{{window="{window}", model="{watched.model}"}}')
    assert watched.table.count * (1 - 1e-9) <= labels <= watched.table.count * (1 + e)
    assert abs(ece(watched, window) - exact) <= e * (gaps / watched.table.count + exact)


def test_every_rule_is_computed_and_every_figure_has_a_value(watched: Watched) -> None:
    groups = watched.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [
        rule for rule in rules if rule["health"] != "ok"
    ]
    for window in (recording.ALL, "5m"):
        found = watched.prometheus.query(f'{{__name__=~".*:ibinn_.*|ibinn:.*", window="{window}"}}')
        assert {dict(labels)["__name__"] for labels in found} == recording.records()
        assert all(math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("name", BOARDS)
def test_every_query_of_a_dashboard_returns_data(watched: Watched, name: str) -> None:
    for window in (recording.ALL, "5m"):
        for panel in panels(BOARDS[name]):
            for target in panel["targets"]:
                expr = target["expr"].replace("$window", window).replace("$model", ".*")
                assert "$" not in expr
                assert watched.prometheus.query(expr), f"{panel['title']}: no data for {expr}"


def test_the_variable_of_models_finds_them(watched: Watched) -> None:
    models = watched.prometheus.get("label/model/values", **{"match[]": "ibinn_answered_total"})
    assert watched.model in models


def test_no_server_is_missed_and_no_error_is_told(watched: Watched) -> None:
    alerts = watched.prometheus.get("alerts")["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert not firing & {"IbinnNoScrape", "IbinnErrors", "IbinnRecordsUnreachable"}
