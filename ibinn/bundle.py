"""Model bundles: a folder with manifest, weights, reference scores and report. No pickle.

manifest.json           what the model is, sha256 of every other file
weights.safetensors     network and mixture
reference.safetensors   calibration; absent if not calibrated
report.html, report.json
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as deserialized_arrays
from safetensors.numpy import save as serialized_arrays

from ibinn import __version__, manifest, paged, reference, weights
from ibinn.assessment import COMBINED, Significance
from ibinn.classifier import GenerativeClassifier
from ibinn.errors import BundleFormatError, ConfigError
from ibinn.flow.base import InvertibleNetwork
from ibinn.images import FORMATS, Limits, Preprocessing, PreprocessingConfig
from ibinn.manifest import Manifest, embedded_path, verify
from ibinn.model_report import model_report
from ibinn.ood import p_values
from ibinn.ood.registry import statistics_of, test_name
from ibinn.reference import Reference
from ibinn.signing import PublicKey, read_manifest
from ibinn.trusted import TrustedClassifier
from ibinn.types import Group, ModelInfo, TestInfo, TestKind, Versions
from ibinn.weights import WEIGHTS

if TYPE_CHECKING:
    from ibinn.inference import Engine, InferenceForm

__all__ = ["Manifest", "embedded_path", "load", "round_subnetworks", "save", "verify"]

REFERENCE = "reference.safetensors"

PAGED_BYTES = 64 << 20
"""Size of models from which on the weights that an inference form was made from may leave the
memory."""


def load(
    path: str | os.PathLike[str],
    *,
    alpha: float | None = None,
    device: str | torch.device = "cpu",
    limits: Limits | None = None,
    keys: Sequence[PublicKey] | None = None,
    engine: Engine = "plain",
) -> TrustedClassifier:
    """Load a bundle after checking every file's sha256, and its signature if keys are given.

    What is checked are the very bytes that are used, so that a file which is replaced meanwhile
    cannot slip in.

    Args:
        path: The bundle's folder.
        alpha: Significance of the verdict; None: the bundle's own.
        device: Where to compute.
        limits: Largest images accepted; None: the defaults.
        keys: Of which one must have signed the bundle, from `ibinn.signing.trusted_keys`; None:
            it needs no signature.
        engine: What computes the network's pass: ``plain``, as it was trained, or a faster form
            of `ibinn.inference`, which takes longer to make.

    Raises:
        BundleNotFoundError: There is no bundle at the path.
        BundleFormatError: Another format version, or a missing or malformed entry.
        BundleIntegrityError: A file is not the one that was written.
        BundleSignatureError: There is no signature, or none of these keys over this manifest.
        AlphaTooSmallError: α is below the smallest p-value that the calibration can give.
        ConfigError: α is not in (0, 1), or there is no such device or engine.
    """
    folder = Path(path)
    found = read_manifest(folder, keys)
    contents = manifest.read_files(found, folder, (WEIGHTS, REFERENCE))
    model = weights.load(found, folder, contents.pop(WEIGHTS, None))
    calibration = _load_reference(model.network, folder, contents.pop(REFERENCE, None))
    settings = Significance(
        alpha=found.alpha if alpha is None else alpha, coverage=found.conformal_coverage
    )
    if calibration is not None:
        p_values.check_alpha(settings.alpha, calibration.count_b, TestKind.HIGH_IS_UNUSUAL)
    elif not 0.0 < settings.alpha < 1.0:
        raise ConfigError(f"significance α is {settings.alpha:g}; expected a number in (0, 1)")
    return assemble(
        found,
        model,
        calibration,
        settings=settings,
        device=device,
        limits=limits or Limits(),
        engine=engine,
    )


def load_model(
    path: str | Path, *, device: str | torch.device = "cpu"
) -> tuple[GenerativeClassifier, Preprocessing]:
    """Weights and preprocessing alone, to be calibrated anew; nothing of a calibration is read.

    Raises:
        BundleNotFoundError, BundleFormatError, BundleIntegrityError: As in `load`.
    """
    folder = Path(path)
    found = manifest.read(folder)
    content = manifest.read_files(found, folder, (WEIGHTS,)).pop(WEIGHTS, None)
    model = weights.load(found, folder, content).to(device=device)
    weights.use_channels_last(model)
    return model, Preprocessing(PreprocessingConfig.from_dict(found.preprocessing))


def assemble(
    found: Manifest,
    model: GenerativeClassifier,
    calibration: Reference | None,
    *,
    settings: Significance,
    device: str | torch.device = "cpu",
    limits: Limits | None = None,
    engine: Engine = "plain",
) -> TrustedClassifier:
    """A classifier from its parts, as `load` does it from files."""
    limits = limits or Limits()
    try:
        model.to(device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device is {str(device)!r}, which cannot be used ({str(error).splitlines()[0]}); "
            "expected cpu, or cuda where there is one"
        ) from error
    model.eval().requires_grad_(requires_grad=False)
    preprocessing = Preprocessing(PreprocessingConfig.from_dict(found.preprocessing))
    form = None if engine == "plain" else _form_of(model, engine)
    if form is None or form.engine == "plain":
        weights.use_channels_last(model)
    return TrustedClassifier(
        model=model,
        preprocessing=preprocessing,
        reference=calibration,
        significance=settings,
        info=_model_info(found, model, calibration, settings, preprocessing, limits),
        limits=limits,
        measured=found.metrics,
        form=form,
    )


def save(
    found: Manifest,
    model: GenerativeClassifier,
    calibration: Reference | None,
    folder: Path,
    *,
    extra: Mapping[str, str] | None = None,
) -> Manifest:
    """Write a bundle; the manifest comes last, so that a half-written one is never valid.

    Args:
        found: What the model is; its ``files`` are filled in here.
        model: The model, on any device. Convolution and linear weights of subnetworks are
            stored in float16 where that loses nothing (see `round_subnetworks`).
        calibration: Reference scores, or None.
        folder: Where to; created if need be.
        extra: Further text files by name, such as ``report.html``.

    Returns:
        The manifest that was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / manifest.FILE).unlink(missing_ok=True)
    weights.write(model, folder)
    names = [WEIGHTS]
    if calibration is not None:
        (folder / REFERENCE).write_bytes(serialized_arrays(reference.to_arrays(calibration)))
        names.append(REFERENCE)
    for name, text in (extra or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
        names.append(name)
    written = replace(found, files={n: manifest.file_sha256(folder / n) for n in names})
    manifest.write(written, folder)
    return written


def add_files(found: Manifest, folder: Path, extra: Mapping[str, str]) -> Manifest:
    """Put text files and new entries of the manifest into a bundle that is there already.

    Args:
        found: The manifest to write; its other files stay as they are.
        folder: The bundle.
        extra: Text files by name, such as ``report.html``.
    """
    (folder / manifest.FILE).unlink()
    for name, text in extra.items():
        (folder / name).write_text(text, encoding="utf-8")
    names = dict.fromkeys((*found.files, *extra))
    written = replace(found, files={n: manifest.file_sha256(folder / n) for n in names})
    manifest.write(written, folder)
    return written


@torch.no_grad()
def round_subnetworks(model: GenerativeClassifier) -> None:
    """Round subnetworks' convolution and linear weights to float16, in place.

    Only these: rotations, act-norms, means and batch-norm statistics stay float32. Calibrate
    and report after rounding, so that the figures are those of the stored model.
    """
    for module in model.network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            for parameter in module.parameters(recurse=False):
                parameter.copy_(parameter.half().float())


def _load_reference(
    network: InvertibleNetwork, folder: Path, content: bytearray | None
) -> Reference | None:
    if content is None:
        return None
    try:
        arrays = deserialized_arrays(bytes(content))
    except (OSError, SafetensorError) as error:
        raise BundleFormatError(
            f"{folder / REFERENCE}: not readable ({error}); calibrate again"
        ) from error
    calibration = reference.from_arrays({name: np.asarray(value) for name, value in arrays.items()})
    expected = {
        test_name(statistic.name, kind)
        for statistic in statistics_of(network)
        for kind in statistic.kinds
    }
    if different := sorted(expected.symmetric_difference(calibration.ranks)):
        raise BundleFormatError(
            f"{folder / REFERENCE}: test {different[0]!r} is "
            f"{'missing' if different[0] in expected else 'unknown'}; expected one reference per "
            "test of this version of ibinn; calibrate again"
        )
    return calibration


def _form_of(model: GenerativeClassifier, engine: Engine) -> InferenceForm:
    """The form of a model's network; what it does not need of a large model leaves the memory."""
    from ibinn import inference

    size = weights.size_of(model)
    memory = None
    if size >= PAGED_BYTES and model.mixture.means.device.type == "cpu":
        memory = paged.room(size)
    if memory is None:
        return inference.make(model.network, engine)
    weights.move_to(memory, model)
    return inference.make(model.network, engine, memory=memory)


def _model_info(
    found: Manifest,
    model: GenerativeClassifier,
    calibration: Reference | None,
    settings: Significance,
    preprocessing: Preprocessing,
    limits: Limits,
) -> ModelInfo:
    return ModelInfo(
        name=found.name,
        classes=found.classes,
        versions=Versions(
            weights=found.weights_digest,
            calibration=found.calibration_digest,
            policy=manifest.policy_digest(alpha=settings.alpha, coverage=settings.coverage),
            taxonomy=found.taxonomy_version,
            software=__version__,
        ),
        architecture=str(found.architecture.get("name", "")),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        input_side=preprocessing.config.side,
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        max_side=limits.max_side,
        formats=tuple(FORMATS),
        calibrated=calibration is not None,
        calibration_count=calibration.count_b if calibration else 0,
        temperature=calibration.temperature if calibration else 1.0,
        alpha=settings.alpha,
        conformal_coverage=settings.coverage,
        tests=_tests(found, model, calibration, settings) if calibration else (),
        metrics=tuple((name, float(value)) for name, value in found.metrics.items()),
        intended_use=found.intended_use,
        training_data=found.training_data,
        explainable=model.network.heatmap_shape is not None,
        report=model_report(found.metrics),
        erased=preprocessing.erased(),
    )


def _tests(
    found: Manifest, model: GenerativeClassifier, calibration: Reference, settings: Significance
) -> tuple[TestInfo, ...]:
    worth = {detection.test: detection for detection in found.detections}
    statistics = statistics_of(model.network)
    entries = [
        (test_name(statistic.name, kind), statistic.group, kind)
        for statistic in statistics
        for kind in statistic.kinds
    ]
    entries.append((COMBINED, Group.COMBINED, TestKind.HIGH_IS_UNUSUAL))
    return tuple(
        TestInfo(
            name=name,
            group=group,
            kind=kind,
            alpha=settings.alpha,
            smallest_p=p_values.smallest_p(calibration.count_b, kind),
            miss_rates=worth[name].miss_rates if name in worth else (),
            auroc=worth[name].auroc if name in worth else (),
        )
        for name, group, kind in entries
    )
