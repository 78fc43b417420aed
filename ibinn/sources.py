"""Who answers the command line: a classifier in this process, or a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console

from ibinn.errors import (
    ConfigError,
    DeadlineError,
    IbinnError,
    ImageError,
    InternalServerError,
    InvalidImageError,
    OverloadedError,
)
from ibinn.explain import options as choices
from ibinn.server_options import ServerOptions
from ibinn.types import ExplainOptions, Explanation, ModelInfo, Prediction

if TYPE_CHECKING:
    from ibinn.client import Client
    from ibinn.deciding import DecidingClassifier
    from ibinn.trusted import TrustedClassifier

_BATCH = 32
# What concerns one image only; every other error would meet the next image as well.
IMAGE_ERRORS = (
    ImageError,
    InvalidImageError,
    OverloadedError,
    DeadlineError,
    InternalServerError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An image that could not be answered, and why."""

    error: IbinnError


class Source(Protocol):
    """Who answers: a classifier in this process, or a server."""

    def classify(self, paths: Sequence[Path]) -> Iterator[Prediction | Failure]:
        """Answer each image, in order; a `Failure` where one could not be answered."""

    def explain(self, path: Path, options: ExplainOptions) -> Explanation:
        """Heatmaps for one image, and its answer."""

    def model(self) -> ModelInfo:
        """What the model is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSource:
    """Answers from a classifier in this process, computed in batches."""

    classifier: TrustedClassifier | DecidingClassifier

    def classify(self, paths: Sequence[Path]) -> Iterator[Prediction | Failure]:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            prepared = []
            failures: dict[int, Failure] = {}
            for position, path in enumerate(batch):
                try:
                    prepared.append(self.classifier.prepare(path))
                except ImageError as error:
                    failures[position] = Failure(error=error)
            predictions = iter(self.classifier.assess(prepared) if prepared else ())
            for position in range(len(batch)):
                yield failures[position] if position in failures else next(predictions)

    def explain(self, path: Path, options: ExplainOptions) -> Explanation:
        info = self.classifier.info
        choices.check(options, info)
        wanted = choices.classes_to_compute(options, info.classes)
        return choices.arranged(self.classifier.explain(path, wanted), options)

    def model(self) -> ModelInfo:
        return self.classifier.info


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSource:
    """Answers from a server."""

    client: Client

    def classify(self, paths: Sequence[Path]) -> Iterator[Prediction | Failure]:
        if len(paths) == 1:
            yield self._classify(paths[0])
            return
        for result in self.client.classify_many(paths):
            match result:
                case Prediction():
                    yield result
                case error if isinstance(error, IMAGE_ERRORS):
                    yield Failure(error=error)
                case error:
                    raise error

    def _classify(self, path: Path) -> Prediction | Failure:
        try:
            return self.client.classify(path)
        except IMAGE_ERRORS as error:
            return Failure(error=error)

    def explain(self, path: Path, options: ExplainOptions) -> Explanation:
        return self.client.explain(
            path,
            classes=options.classes,
            contrast=options.contrast,
            heatmap_size=options.heatmap_size,
        )

    def model(self) -> ModelInfo:
        return self.client.model()


@contextmanager
def open_source(
    asked: ServerOptions,
    *,
    bundle: Path | None,
    alpha: float | None = None,
    policy: Path | None = None,
) -> Iterator[Source]:
    """The source that the options ask for, closed afterwards.

    Raises:
        ConfigError: Options that exclude each other.
        BundleError: The bundle cannot be used.
        PolicyError: The policy cannot be used, or not with this bundle.
        RemoteError: The server cannot be reached.
    """
    if asked.server is not None:
        if bundle is not None:
            raise ConfigError("got --server and --bundle; a server has its own bundle, give one")
        if alpha is not None:
            raise ConfigError(
                "got --server and --alpha; a server keeps its own significance, leave --alpha out"
            )
        if policy is not None:
            raise ConfigError(
                "got --server and --policy; a server keeps its own policy, leave --policy out"
            )
        with asked.client() as client:
            yield RemoteSource(client=client)
        return
    asked.refuse("name the server, or leave it out")
    if alpha is not None and policy is not None:
        raise ConfigError(
            "got --alpha and --policy; a policy has its own significance, leave --alpha out"
        )
    with Console(stderr=True).status("loading the model …"):
        classifier = (
            load_classifier(bundle, alpha) if policy is None else load_under_policy(bundle, policy)
        )
    yield LocalSource(classifier=classifier)


def load_classifier(path: Path | None, alpha: float | None) -> TrustedClassifier:
    """The classifier of the bundle at ``path``, or of the embedded bundle."""
    from ibinn.bundle import embedded_path, load

    return load(embedded_path() if path is None else path, alpha=alpha)


def load_under_policy(path: Path | None, policy: Path) -> DecidingClassifier:
    """The classifier of the bundle at ``path``, or of the embedded bundle, with its decisions."""
    from ibinn.policy.file import read

    rules = read(policy)
    from ibinn.bundle import embedded_path
    from ibinn.deciding import load

    return load(embedded_path() if path is None else path, rules)
