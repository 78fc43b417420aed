"""The loop, step by step: serve, watch, hear back, notice drift, retrain, promote, recover."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ibinn.client import AdminClient, Client
from ibinn.errors import UnavailableError
from ibinn.loop.digits import Picture, read_digits
from ibinn.loop.figures import PhaseFigures, phase_figures
from ibinn.loop.judging import Judged, judged_apart
from ibinn.loop.operating import Operator
from ibinn.loop.processes import (
    Prometheus,
    running_database,
    running_prometheus,
    running_server,
)
from ibinn.loop.scenario import Deck, Phase, Scenario, foreign
from ibinn.loop.timeline import Timeline
from ibinn.loop.traffic import Labeller, Seen, seen, send
from ibinn.loop.watching import Sample, Watch
from ibinn.serving import ServerState
from ibinn.types import Guarantee

RULES = Path("deployment/monitoring/rules")
RECORDED = {
    "model:ibinn_top_label_ece": "calibration error",
    "model:ibinn_accuracy": "accuracy of the labelled",
    "model:ibinn_expected_accuracy_assuming_covariate_shift": "expected accuracy",
    "model:ibinn_flag_rate": "flag rate",
}
"""Recording rules whose series over windows of five minutes go into the page, and what they are."""
_RELOADED_WITHIN_S = 180.0
_POLL_S = 0.25
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the loop is asked for.

    Attributes:
        out: Folder of everything that it leaves.
        data: Folder that holds ``mnist``.
        database: ``auto``, ``postgresql`` or ``sqlite``.
        reuse: Folder of base models of earlier runs; None: train anew.
        scenario: The numbers.
    """

    out: Path
    data: Path
    database: str
    reuse: Path | None
    scenario: Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        phases: Figures of each stretch of traffic.
        seen: Every image that was sent.
        samples: The server's metrics, once a second.
        base: The base model on held-out images.
        promoted: The new model on the same.
        delay_images: Noisy images that were answered before an answer said SUSPENDED.
        labels: Statements that were acknowledged.
        retraining: ``retraining.json`` of the new model.
        decision: ``decision.json`` of the promotion.
        database: Which.
        alerts: Alerts of Prometheus that fired; None: there was no Prometheus, or without rules.
        recorded: Series of Prometheus's recording rules by figure and model: (seconds, value).
        seconds: Seconds of each step by name.
    """

    phases: tuple[PhaseFigures, ...]
    seen: tuple[Seen, ...]
    samples: tuple[Sample, ...]
    base: Judged
    promoted: Judged
    delay_images: int | None
    labels: int
    retraining: Mapping[str, Any]
    decision: Mapping[str, Any]
    database: str
    alerts: tuple[str, ...] | None
    recorded: Mapping[str, tuple[tuple[float, float], ...]]
    seconds: Mapping[str, float]


class Story:
    """Plays the scenario once.

    Args:
        options: What is asked for.
        timeline: Told of everything.

    Raises:
        DataError: MNIST is not there.
    """

    def __init__(self, options: Options, timeline: Timeline) -> None:
        self._options = options
        self._scenario = options.scenario
        self._timeline = timeline
        self._tell = timeline.tell
        self._mnist = options.data / "mnist"
        self._deck = Deck(read_digits(self._mnist, "train"), seed=options.scenario.seed)
        self._operator = Operator(options.out, timeline)
        self._rng = np.random.default_rng([options.scenario.seed, 2])
        self._seen: list[Seen] = []
        self._figures: list[PhaseFigures] = []
        self._seconds: dict[str, float] = {}
        self._delay: int | None = None

    def play(self) -> Outcome:
        """All of it.

        Raises:
            IbinnError: A step failed.
        """
        operator, scenario = self._operator, self._scenario
        self._timed("images", self._deal)
        self._tell("step", "the base model learns the digits 0 to 8", name="base")
        bundle = self._timed("base model", lambda: operator.base(scenario, self._options.reuse))
        operator.approve_base(bundle)
        with ExitStack() as running:
            database = running.enter_context(
                running_database(self._options.out / "database", kind=self._options.database)
            )
            self._tell("fact", f"{database.kind} keeps the records")
            server = running.enter_context(
                running_server(*operator.server_flags(database.url), log=operator.server_log)
            )
            self._tell("good", f"ibinn-serve: gRPC at {server.target}, metrics {server.metrics}")
            prometheus = running.enter_context(
                running_prometheus(
                    self._options.out / "prometheus", target=server.metrics, rules=RULES
                )
            )
            self._tell_prometheus(prometheus)
            client = running.enter_context(
                Client(server.target, token=operator.token("application"), timeout_s=60.0)
            )
            admin = running.enter_context(
                AdminClient(server.target, token=operator.token("operator"))
            )
            labeller = Labeller(client, scenario)
            running.callback(labeller.close)
            watch = Watch(server, prometheus, self._timeline)
            watch.start()
            running.callback(watch.stop)
            self._drift(client, admin, labeller, watch)
            self._tell("step", "retraining with what was said", name="retraining")
            run = self._timed("retraining", lambda: operator.retrain(database.url))
            self._tell("step", "the new model is held against the old one", name="promotion")
            self._timed("promotion", lambda: operator.promote(run))
            self._timed("reload", lambda: self._reloaded(admin, run))
            self._recover(client, admin, labeller, watch, run)
            watch.stop()
            recorded = self._recorded(prometheus)
        operator.keep_for_auditors(database)
        self._tell("step", "both models on held-out digits, as they are and noisy", name="judged")
        base, promoted = self._timed(
            "judging",
            lambda: tuple(judged_apart(folder, self._mnist) for folder in (bundle, run / "bundle")),
        )
        self._tell("good", _compared(base, promoted))
        fired = {name for sample in watch.samples for name in sample.alerts}
        return Outcome(
            phases=tuple(self._figures),
            seen=tuple(self._seen),
            samples=watch.samples,
            base=base,
            promoted=promoted,
            delay_images=self._delay,
            labels=labeller.told,
            retraining=operator.retraining(run),
            decision=operator.decision(),
            database=database.kind,
            alerts=tuple(sorted(fired)) if prometheus is not None and prometheus.rules else None,
            recorded=recorded,
            seconds=self._seconds,
        )

    # ------------------------------------------------------------------------------- before

    def _deal(self) -> None:
        scenario, deck = self._scenario, self._deck
        self._tell("step", "dealing MNIST's digits to their roles")
        base = self._operator.deal("base", deck.known(scenario.base_images))
        acceptance = self._operator.deal(
            "acceptance",
            deck.mixed(scenario.acceptance_images, missing=0.1, noisy=0.5, rng=self._rng),
        )
        kinds = self._operator.deal("ood", foreign(deck.known(scenario.foreign_images)))
        self._tell(
            "fact",
            f"{base:,} digits 0 to 8 for the base model, {acceptance:,} of all ten (half of them "
            f"noisy) for the operator's acceptance set, {kinds:,} images that are no digits",
        )

    def _tell_prometheus(self, prometheus: Prometheus | None) -> None:
        if prometheus is None:
            self._tell(
                "note",
                "no program `prometheus` on the PATH: no recording rules and no alerts; the "
                "server's own alarm does without",
            )
        elif not prometheus.rules:
            self._tell("note", f"Prometheus at {prometheus.url}, without rules: none in {RULES}/")
        else:
            self._tell(
                "good",
                f"Prometheus at {prometheus.url} scrapes it every second; rules: "
                + ", ".join(path.name for path in prometheus.rules),
            )

    # ------------------------------------------------------------------------------ traffic

    def _drift(self, client: Client, admin: AdminClient, labeller: Labeller, watch: Watch) -> None:
        scenario = self._scenario
        for phase in (scenario.normal, scenario.noise, scenario.arrival):
            pictures = self._deck.mixed(
                phase.images, missing=phase.missing, noisy=phase.noisy, rng=self._rng
            )
            self._phase(phase.name, phase.title, list(pictures), client, labeller, watch)
            if phase is scenario.noise:
                self._delay = self._noticed(phase)
                self._tell_drift(admin.status())

    def _recover(
        self,
        client: Client,
        admin: AdminClient,
        labeller: Labeller,
        watch: Watch,
        run: Path,
    ) -> None:
        mix = self._operator.calibrated_on(run)
        old, new = mix["old"], mix["new"]
        labelled = {
            phase: sum(image.labelled for image in self._seen if image.phase == phase.name)
            for phase in (self._scenario.normal, self._scenario.noise, self._scenario.arrival)
        }
        chances = [old, *(new * count / sum(labelled.values()) for count in labelled.values())]
        phases = [self._scenario.normal, *labelled]
        drawn = self._rng.choice(
            len(phases), size=self._scenario.recovery_images, p=np.array(chances) / sum(chances)
        )
        pictures = [next(self._one_of(phases[index])) for index in drawn]
        noisy = sum(image.noisy for image in pictures) / len(pictures)
        self._phase(
            "recovery",
            f"traffic as the new model was calibrated on: ten classes, {noisy:.0%} noisy",
            pictures,
            client,
            labeller,
            watch,
        )
        self._tell_drift(admin.status())

    def _one_of(self, phase: Phase) -> Iterator[Picture]:
        return self._deck.mixed(1, missing=phase.missing, noisy=phase.noisy, rng=self._rng)

    def _phase(
        self,
        name: str,
        title: str,
        pictures: Sequence[Picture],
        client: Client,
        labeller: Labeller,
        watch: Watch,
    ) -> None:
        self._tell("step", f"{len(pictures):,} images: {title}", name=name)
        before = watch.read()
        begin = len(self._seen)
        told: set[Guarantee | None] = set()
        with_stranger = name == self._scenario.arrival.name
        for image, answer in send(client, pictures, rate=self._scenario.rate):
            labelled = labeller.consider(answer, image, with_stranger=with_stranger)
            at_s = self._timeline.now_s()
            self._seen.append(seen(image, answer, at_s=at_s, phase=name, labelled=labelled))
            # Each once: answers that are computed at the same moment can come out either way.
            if answer.guarantee not in told:
                self._tell_guarantee(answer.guarantee, answer.guarantee_reason, begin)
                told.add(answer.guarantee)
        labeller.all_told()
        figures = phase_figures(name, title, self._seen[begin:], before, watch.read())
        self._figures.append(figures)
        self._seconds[f"traffic: {name}"] = figures.end_s - figures.begin_s
        self._tell("fact", _in_words(figures))

    def _tell_guarantee(self, guarantee: Guarantee | None, reason: str, begin: int) -> None:
        count = len(self._seen) - begin
        match guarantee:
            case Guarantee.SUSPENDED:
                self._tell(
                    "alarm",
                    f"answer {count:,} of this phase: the guarantee is SUSPENDED ({reason})",
                    name="suspended" if count > 1 else "",
                )
            case Guarantee.HELD:
                self._tell("good", f"answer {count:,} of this phase: the guarantee is held")
            case None:
                self._tell("note", f"answer {count:,} of this phase: nothing watches for drift")

    def _noticed(self, phase: Phase) -> int | None:
        """How many images of a phase were answered before an answer said SUSPENDED."""
        answers = [image for image in self._seen if image.phase == phase.name]
        return next((n for n, image in enumerate(answers) if image.held is False), None)

    def _tell_drift(self, state: ServerState) -> None:
        for detector in state.drift.detectors:
            self._tell(
                "alarm" if detector.alarmed else "fact",
                f"detector {detector.name}: log-evidence {detector.log_evidence:.1f} after "
                f"{detector.count:,} images, alarm at {detector.log_threshold:.1f}",
            )

    # ------------------------------------------------------------------------------- after

    def _reloaded(self, admin: AdminClient, run: Path) -> None:
        """Waits until the server serves the new model.

        Raises:
            UnavailableError: It does not in time, or refuses it.
        """
        expected = self._operator.weights(run / "bundle")
        deadline = time.monotonic() + _RELOADED_WITHIN_S
        while True:
            state = admin.status()
            if state.served[0].versions.weights == expected:
                break
            refused = [c for c in state.candidates if not c.accepted]
            if refused or time.monotonic() > deadline:
                why = "; ".join(refused[0].reasons) if refused else "it was not looked at in time"
                raise UnavailableError(
                    f"the server does not serve the promoted model: {why}", code="UNAVAILABLE"
                )
            time.sleep(_POLL_S)
        held = state.drift.guarantee is Guarantee.HELD
        self._tell(
            "good" if held else "note",
            f"the server changed to {state.served[0].bundle} without a restart; the guarantee of "
            f"its calibration {'is held' if held else 'is not held yet'}",
            name="reloaded",
        )

    def _recorded(
        self, prometheus: Prometheus | None
    ) -> Mapping[str, tuple[tuple[float, float], ...]]:
        """Series of the recording rules over the whole run; seconds since it began."""
        if prometheus is None:
            return {}
        began = self._timeline.began.timestamp()
        end = began + self._timeline.now_s()
        found = {}
        base = self._operator.weights(self._operator.models / "base")
        for name, words in RECORDED.items():
            for labels, points in prometheus.series(f'{name}{{window="5m"}}', start=began, end=end):
                digest = labels.get("model", "").partition("-")[0]
                model = "base" if digest and base.startswith(digest) else "new"
                told = f"{words}, {model} model"
                found[told] = tuple((at - began, value) for at, value in points)
        return found

    def _timed(self, name: str, step: Callable[[], _T]) -> _T:
        began = time.monotonic()
        result = step()
        self._seconds[name] = time.monotonic() - began
        return result


def _compared(base: Judged, promoted: Judged) -> str:
    before, after = base.drifted, promoted.drifted
    return (
        f"noisy held-out digits: calibration error {before.ece:.4f} before, {after.ece:.4f} now; "
        f"accuracy {before.accuracy:.1%} before, {after.accuracy:.1%} now; the new class is "
        f"recognised on {promoted.clean.missing_recognised:.1%} of its images as they are and "
        f"{after.missing_recognised:.1%} of the noisy ones"
    )


def _in_words(figures: PhaseFigures) -> str:
    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    return (
        f"{figures.images:,} answered at {figures.rate:.0f}/s: UNKNOWN {percent(figures.unknown)}, "
        f"accuracy {percent(figures.accuracy)} at confidence {percent(figures.confidence)}, "
        f"calibration error {percent(figures.ece)} (by the {figures.labelled:,} labels "
        f"{percent(figures.labelled_ece)}); accepted ones: expected accuracy without labels "
        f"{percent(figures.expected_accuracy)}, true {percent(figures.accepted_accuracy)}"
    )
