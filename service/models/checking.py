"""What a bundle must pass before it is served."""

from __future__ import annotations

import asyncio
import io
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from PIL import Image

from ibinn.errors import (
    BundleIntegrityError,
    BundleSignatureError,
    ConfigError,
    IbinnError,
    PolicyError,
)
from ibinn.manifest import Manifest
from ibinn.serving import AcceptanceFigure, Candidate
from ibinn.types import Versions
from service.models import folder
from service.models.acceptance import Acceptance, FigureName
from service.models.candidates import Judged, Reason
from service.models.served import Classifier, Served
from service.monitoring import Monitor
from service.settings import Settings

_log = logging.getLogger(__name__)

Verify = Callable[[Path], Manifest]
"""Checks a bundle's files, and its signature where one is required; does not load it."""
Load = Callable[[Path], Classifier]
"""Loads a bundle under the policy that is meant for it."""
_T = TypeVar("_T")

_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    # The first match counts: subclasses stand before their bases.
    (BundleSignatureError, Reason.SIGNATURE),
    (BundleIntegrityError, Reason.INTEGRITY),
    (OSError, Reason.INTEGRITY),
    (PolicyError, Reason.POLICY),
    (ConfigError, Reason.POLICY),
    (MemoryError, Reason.MEMORY),
)
_FIGURES = {
    FigureName.ACCURACY: (Reason.ACCURACY, "accuracy", "least", "IBINN_ACCURACY_MARGIN"),
    FigureName.TOP_LABEL_ECE: (
        Reason.CALIBRATION,
        "top-label calibration error",
        "most",
        "IBINN_CALIBRATION_MARGIN",
    ),
    FigureName.FALSE_POSITIVE_RATE: (
        Reason.FALSE_POSITIVES,
        "false-positive rate",
        "most",
        "IBINN_FALSE_POSITIVE_MARGIN",
    ),
}


class RefusedError(Exception):
    """Inside the checks: a candidate fails; never leaves `Checks.check`.

    Args:
        reason: Why, by name.
        sentences: Why, in words.
        figures: What the acceptance set said.
    """

    def __init__(
        self, reason: Reason, *sentences: str, figures: tuple[AcceptanceFigure, ...] = ()
    ) -> None:
        super().__init__(*sentences)
        self.reason = reason
        self.sentences = sentences
        self.figures = figures


class Checks:
    """Everything that a bundle must pass before it is served.

    Args:
        settings: Sizes and margins.
        verify: Checks its files.
        load: Loads it.
        acceptance: Holds it against the acceptance set.
        monitor: Counts candidates.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        verify: Verify,
        load: Load,
        acceptance: Acceptance,
        monitor: Monitor,
    ) -> None:
        self._settings = settings
        self._verify = verify
        self._load = load
        self._acceptance = acceptance
        self._monitor = monitor

    async def check(
        self,
        bundle: Path,
        *,
        loaded: Callable[[str, str], Served | None],
        make_room: Callable[[], Awaitable[None]],
        present: Served | None,
    ) -> tuple[Judged, Served | None]:
        """Verifies, loads, warms up and measures a bundle.

        Args:
            bundle: Its folder.
            loaded: The model in memory with this name and fingerprint, which need not be loaded
                again.
            make_room: Awaited before it is loaded; raises RefusedError if there is none.
            present: The model that it is held against; None: it is not held against the set.

        Returns:
            What became of it, and the loaded model if it passed.

        Raises:
            DataError, NotPossibleError: It could not be judged; see `Acceptance.compare`.
        """
        fingerprint, manifest, served = "", None, None
        figures: tuple[AcceptanceFigure, ...] = ()
        try:
            fingerprint = await _in_thread(Reason.INTEGRITY, lambda: folder.fingerprint(bundle))
            served = loaded(bundle.name, fingerprint)
            if served is None:
                manifest = await _in_thread(Reason.FORMAT, lambda: self._verify(bundle))
                await make_room()
                served = await self.loaded(bundle, fingerprint)
            if present is not None:
                figures = await self._acceptance.compare(served, present)
                _require(figures)
        except RefusedError as refusal:
            versions = _versions(manifest) if served is None else served.info.versions
            judged = _judged(
                bundle, versions, fingerprint, refusal.reason, refusal.sentences, refusal.figures
            )
            self._tell(judged)
            return judged, None
        judged = _judged(bundle, served.info.versions, fingerprint, Reason.NONE, (), figures)
        self._tell(judged)
        return judged, served

    async def loaded(self, bundle: Path, fingerprint: str) -> Served:
        """A bundle in memory, warm, and still of the content that was verified.

        Args:
            bundle: Its folder.
            fingerprint: Of its content; empty: of whatever content it has.

        Raises:
            RefusedError: It cannot be loaded or does not run.
        """
        classifier = await _in_thread(Reason.FORMAT, lambda: self._load(bundle))
        served = Served.of(classifier, bundle=bundle.name, fingerprint=fingerprint)
        found = await _in_thread(Reason.INTEGRITY, lambda: folder.fingerprint(bundle))
        if fingerprint and found != fingerprint:
            raise RefusedError(
                Reason.INTEGRITY,
                f"bundle {bundle.name!r} changed while it was loaded; copy it under a name that "
                "ends with .tmp and rename it when it is whole",
            )
        sizes = sorted({1, self._settings.max_batch_size})
        await _in_thread(Reason.WARM_UP, lambda: _warm_up(served, sizes))
        return served

    def _tell(self, judged: Judged) -> None:
        candidate = judged.candidate
        weights = "" if candidate.versions is None else candidate.versions.weights[:12]
        if candidate.accepted:
            self._monitor.candidate("accepted", judged.reason.value)
            figures = "; ".join(map(_in_words, candidate.figures)) or "without an acceptance set"
            _log.info("bundle %r (%s) accepted: %s", candidate.bundle, weights, figures)
        else:
            self._monitor.candidate("refused", judged.reason.value)
            _log.warning(
                "bundle %r (%s) refused, %s: %s",
                candidate.bundle,
                weights or "not read",
                judged.reason.value,
                "; ".join(candidate.reasons),
            )


def _judged(
    bundle: Path,
    versions: Versions | None,
    fingerprint: str,
    reason: Reason,
    sentences: tuple[str, ...],
    figures: tuple[AcceptanceFigure, ...],
) -> Judged:
    candidate = Candidate(
        bundle=bundle.name,
        versions=versions,
        accepted=reason is Reason.NONE,
        reasons=sentences,
        figures=figures,
        time=datetime.now(UTC),
    )
    return Judged(candidate=candidate, fingerprint=fingerprint, reason=reason)


async def _in_thread(usual: Reason, work: Callable[[], _T]) -> _T:
    """Runs what a candidate brings along, off the event loop.

    Raises:
        RefusedError: It raised whatever; for the usual reason unless the error names another.
    """
    try:
        return await asyncio.to_thread(work)
    except RefusedError:
        raise
    except Exception as error:  # no fault of a candidate may reach the server
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), usual)
        if isinstance(error, IbinnError | OSError):
            raise RefusedError(reason, str(error)) from error
        _log.exception("a candidate failed")
        raise RefusedError(
            reason,
            f"it failed with {type(error).__name__} ({error}); the server's log has the trace",
        ) from error


def _warm_up(served: Served, sizes: Sequence[int]) -> None:
    """Answers a grey image in batches of these sizes, so that no caller waits for first times."""
    side = served.info.input_side
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (128, 128, 128)).save(buffer, format="PNG")
    prepared = served.preparer(buffer.getvalue())
    for size in sizes:
        answers = served.classifier.assess([prepared] * size)
        if len(answers) != size or not all(math.isfinite(a.top.probability) for a in answers):
            raise RefusedError(
                Reason.WARM_UP,
                f"asked about {size} grey images it gave {len(answers)} answers, or some without "
                f"a finite probability; expected {size} with one",
            )


def _require(figures: Sequence[AcceptanceFigure]) -> None:
    failed = [figure for figure in figures if not figure.passed]
    if failed:
        raise RefusedError(
            _FIGURES[FigureName(failed[0].name)][0], *map(_in_words, failed), figures=tuple(figures)
        )


def _in_words(figure: AcceptanceFigure) -> str:
    _, name, bound, setting = _FIGURES[FigureName(figure.name)]
    against = (
        "there is no present model"
        if figure.present is None
        else f"the present model has {figure.present:.4f}"
    )
    return (
        f"{name} is {figure.candidate:.4f} on {figure.count} acceptance images, {against}, "
        f"{'accepted' if figure.passed else 'expected'} is at {bound} {figure.limit:.4f} "
        f"({setting})"
    )


def _versions(manifest: Manifest | None) -> Versions | None:
    """The digests of a bundle that is not loaded; its policy is not known."""
    if manifest is None:
        return None
    return Versions(
        weights=manifest.weights_digest,
        calibration=manifest.calibration_digest,
        policy="",
        taxonomy=manifest.taxonomy_version,
        software="",
    )
