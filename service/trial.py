"""What would be served, tried out: the model is loaded and answers one grey image."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable

from PIL import Image

from ibinn.types import ModelInfo
from service.models.served import Classifier
from service.settings import Settings

_SIDE_PX = 64
_GREY = 128


def summary(settings: Settings, load: Callable[[], Classifier]) -> list[str]:
    """Lines that say what would be served, and to whom.

    Raises:
        IbinnError: The model cannot be loaded, or cannot answer.
    """
    start = time.monotonic()
    classifier = load()
    loading_s = time.monotonic() - start
    image = _grey_png(settings)
    start = time.monotonic()
    (answer,) = classifier.assess([classifier.preparer(image)])
    seconds = time.monotonic() - start
    return [
        f"model: {_model(classifier.info)}, loaded in {loading_s:.2f} s",
        f"answer to a grey image: {answer.verdict.value} after {1000 * seconds:.0f} ms",
        f"grpc: {settings.host}:{settings.port}, {_wire(settings)}, {_callers(settings)}",
        f"metrics: {f'{settings.host}:{settings.metrics_port}' if settings.metrics else 'off'}",
        f"workers: {settings.workers} on {settings.device}",
        f"new models: {_new_models(settings)}",
    ]


def _grey_png(settings: Settings) -> bytes:
    side = min(_SIDE_PX, settings.max_side_px, math.isqrt(settings.max_image_px))
    file = io.BytesIO()
    Image.new("RGB", (side, side), (_GREY, _GREY, _GREY)).save(file, "PNG")
    return file.getvalue()


def _model(info: ModelInfo) -> str:
    policy = "no policy" if info.policy is None else f"policy {info.policy.name!r}"
    return f"{info.name}, weights {info.versions.weights[:12]}, α {info.alpha:g}, {policy}"


def _wire(settings: Settings) -> str:
    if settings.tls_certificate is None:
        return "plaintext"
    return "TLS" if settings.tls_client_ca is None else "mutual TLS"


def _callers(settings: Settings) -> str:
    if settings.tokens is not None:
        return f"callers of {settings.tokens}"
    return "every caller" if settings.tls_client_ca is None else "callers with a certificate"


def _new_models(settings: Settings) -> str:
    if settings.models is None:
        return "none"
    signed = "signed bundles" if settings.require_signature else "bundles"
    held = "verified" if settings.acceptance is None else f"held against {settings.acceptance}"
    return f"{signed} in {settings.models}, {held}"
