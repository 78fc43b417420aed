"""From a bundle's folder to a classifier, under the settings in force."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ibinn import manifest
from ibinn.errors import ConfigError
from ibinn.manifest import Manifest
from ibinn.policy import Policy
from ibinn.signing import read_manifest, read_policy, verify_bundle
from service.access.signatures import trusted_keys_of
from service.models import folder
from service.models.served import Classifier
from service.settings import Settings

if TYPE_CHECKING:
    from ibinn.deciding import DecidingClassifier
    from ibinn.trusted import TrustedClassifier

_log = logging.getLogger(__name__)


def verify(settings: Settings, bundle: Path) -> Manifest:
    """The manifest of a bundle whose every file is the one that was written.

    Raises:
        BundleError: A file is missing or another, or a signature is required and there is none of
            a trusted key.
        ConfigError: The trusted keys cannot be read.
    """
    if (keys := trusted_keys_of(settings)) is not None:
        verify_bundle(bundle, keys)
    return manifest.verify(bundle)


def load(settings: Settings, bundle: Path) -> Classifier:
    """The classifier of a bundle, under its own policy or the settings' if there is one.

    Raises:
        BundleError: As in `verify`, or the bundle cannot be used.
        ConfigError: The bundle's calibration cannot give the significance asked for, or one is
            given beside a policy, which has its own.
        PolicyError: The policy cannot be used, or not with this bundle.
        BundleSignatureError: A signature is required, and the bundle, or a policy beside it in the
            models folder, bears none of a trusted key.
    """
    path = policy_path(settings, bundle)
    policy = None if path is None else _policy(settings, path)
    keys = trusted_keys_of(settings)
    # torch takes seconds to import: a wrong setting, policy or path need not wait for it.
    read_manifest(bundle, keys)
    from ibinn import bundle as bundle_module
    from ibinn import deciding
    from ibinn.images import Limits

    limits = Limits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_px,
        max_side=settings.max_side_px,
    )
    if settings.threads is not None:
        import torch

        torch.set_num_threads(settings.threads)  # engines take as many when they are made
    device, engine = settings.device, settings.engine
    started = time.monotonic()
    classifier: TrustedClassifier | DecidingClassifier
    if policy is not None:
        classifier = deciding.load(
            bundle, policy, device=device, limits=limits, keys=keys, engine=engine
        )
    else:
        classifier = bundle_module.load(
            bundle, alpha=settings.alpha, device=device, limits=limits, keys=keys, engine=engine
        )
    _log.info(
        "loaded %s in %.2f s, computed by %s",
        bundle.name,
        time.monotonic() - started,
        classifier.computed_by,
    )
    return classifier


def policy_path(settings: Settings, bundle: Path) -> Path | None:
    """The policy file meant for a bundle.

    For one of the models folder it is ``NAME.policy.json`` beside it, where there is one; else the
    settings' policy, if there is any.
    """
    own = folder.policy_file(bundle)
    if settings.models is not None and bundle.parent == settings.models and own.is_file():
        return own
    return settings.policy


def _policy(settings: Settings, path: Path) -> Policy:
    if settings.alpha is not None:
        raise ConfigError(
            f"got alpha {settings.alpha:g} and policy {path}; a policy has its own significance, "
            "leave --alpha (IBINN_ALPHA) out"
        )
    # The settings' policy is the operator's own word; one of the models folder came with a bundle.
    keys = None if path == settings.policy else trusted_keys_of(settings)
    return read_policy(path, keys)
