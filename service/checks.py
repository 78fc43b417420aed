"""Everything that is wrong before the server starts, found at once and without torch.

`problems` keeps the server from starting; `warnings` only tell.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ibinn.errors import BundleError, ConfigError, DataError, IbinnError, PolicyError
from ibinn.manifest import Manifest
from ibinn.policy import Policy
from ibinn.policy import file as policy_file
from ibinn.suitability import unsuitable
from service import access, traces
from service.models import acceptance, loading, starting
from service.models import state as state_module
from service.records import checks as record_checks
from service.settings import Settings


def problems(settings: Settings) -> list[str]:
    """Every reason for which the server cannot start as the settings say, a sentence each."""
    return [
        *_of_combinations(settings),
        *_of_models(settings),
        *access.problems(settings),
        *traces.problems(settings),
        *record_checks.problems(settings),
        *_of_folders(settings),
        *_of_ports(settings),
    ]


def warnings(settings: Settings) -> list[str]:
    """What is allowed and still worth a word to the operator."""
    found = [*access.warnings(settings), *record_checks.warnings(settings)]
    cores = len(os.sched_getaffinity(0))
    if settings.workers > cores:
        found.append(
            f"workers is {settings.workers}, this machine lends {cores} cores: more workers than "
            "cores answer no faster and take more memory"
        )
    if settings.workers > 1 and not settings.device.startswith("cpu"):
        found.append(
            f"workers is {settings.workers} and device is {settings.device!r}: each worker puts "
            "its own copy of the model there; one worker fills an accelerator"
        )
    if settings.workers > 1 and settings.caller_rate is not None:
        found.append(
            f"caller_rate is {settings.caller_rate:g}, and each of the {settings.workers} workers "
            "counts for itself: a caller with connections to all may send that many times as much"
        )
    if settings.acceptance is not None and settings.models is None:
        found.append(
            "acceptance is set, models is not: no new model can come, so none is put to the test"
        )
    if settings.models is not None and settings.acceptance is None:
        found.append(
            f"new models in {settings.models} are verified and warmed up, and nobody looks at "
            "their answers: give --acceptance a folder of images that they must answer well"
        )
    return found


def _of_combinations(settings: Settings) -> Iterator[str]:
    if settings.policy is not None and settings.alpha is not None:
        yield (
            f"got alpha {settings.alpha:g} and policy {settings.policy}; a policy has its own "
            "significance, leave --alpha (IBINN_ALPHA) out"
        )
    if settings.workers > 1 and not hasattr(socket, "SO_REUSEPORT"):
        yield (
            f"workers is {settings.workers}, and this system cannot share a port between "
            "processes (SO_REUSEPORT); use one worker"
        )


def _of_models(settings: Settings) -> Iterator[str]:
    policy = None
    if settings.policy is not None:
        try:
            policy = policy_file.read(settings.policy)
        except PolicyError as error:
            yield str(error)
    try:
        bundle = starting.folder_of(settings, _told(settings))
        found = loading.verify(_without_wrong_keys(settings), bundle)
    except (BundleError, ConfigError) as error:
        yield str(error)
        yield from _of_acceptance(settings, None)
        return
    yield from _of_fit(settings, found, bundle, policy)
    yield from _of_acceptance(settings, found)


def _of_fit(
    settings: Settings, found: Manifest, bundle: Path, policy: Policy | None
) -> Iterator[str]:
    path = loading.policy_path(settings, bundle)
    if path is not None and path != settings.policy:  # one of its own, in the models folder
        try:
            policy = policy_file.read(path)
        except PolicyError as error:
            yield str(error)
            return
    alpha = None if policy is not None else settings.alpha
    yield from unsuitable(found, bundle, alpha=alpha, policy=policy)


def _of_acceptance(settings: Settings, found: Manifest | None) -> Iterator[str]:
    if settings.acceptance is None:
        return
    try:
        chosen = acceptance.read(settings.acceptance)
    except DataError as error:
        yield str(error)
        return
    unknown = [name for name in chosen.classes if found and name not in found.classes]
    if found and unknown:
        yield (
            f"acceptance folder {settings.acceptance} has class {unknown[0]!r}, which the model "
            f"does not know; expected folders named {', '.join(found.classes)}"
        )


def _told(settings: Settings) -> state_module.Entry | None:
    """The model that operators made the default before the server stopped."""
    path = None if settings.state_dir is None else settings.state_dir / "state.json"
    try:
        if path is None or not path.is_file():
            return None
        return state_module.from_json(path.read_text(encoding="utf-8")).default
    except (OSError, ConfigError) as error:
        raise ConfigError(
            f"state file {path} cannot be used: {error}; remove it to start from the settings alone"
        ) from error


def _without_wrong_keys(settings: Settings) -> Settings:
    """The settings, without a signature asked for where the keys are at fault, which is told."""
    try:
        access.trusted_keys_of(settings)
    except IbinnError:
        return settings.model_copy(update={"require_signature": False})
    return settings


def _of_folders(settings: Settings) -> Iterator[str]:
    if settings.models is not None and not (
        settings.models.is_dir() and os.access(settings.models, os.R_OK | os.X_OK)
    ):
        yield (
            f"models folder {settings.models} is not there or cannot be read; give --models "
            "(IBINN_MODELS) an existing folder"
        )
    if settings.state_dir is not None:
        nearest = settings.state_dir
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            yield (
                f"state folder {settings.state_dir} cannot be written; give --state-dir "
                "(IBINN_STATE_DIR) a folder that the server may write"
            )


def _of_ports(settings: Settings) -> Iterator[str]:
    wanted = [("port", settings.port)]
    if settings.metrics:
        wanted.append(("metrics_port", settings.metrics_port))
        if settings.port == settings.metrics_port != 0:
            yield (
                f"port and metrics_port are both {settings.port}; choose another --metrics-port "
                "(0 takes a free one)"
            )
            return
    for name, port in wanted:
        if (wrong := _taken(settings.host, port)) is not None:
            flag = name.replace("_", "-")
            yield (
                f"cannot listen on {settings.host}:{port} ({wrong}); choose another --host or "
                f"--{flag} (0 takes a free one)"
            )


def _taken(host: str, port: int) -> str | None:
    """Why a server cannot listen there; None: it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)  # only listening tells it from a port that another one reserved
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "the address is in use"
        return error.strerror or str(error)
    return None
