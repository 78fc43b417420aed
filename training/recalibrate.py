"""Calibrate a trained bundle anew: the weights and their digest stay, the calibration changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ibinn import bundle
from ibinn.manifest import Manifest, verify
from training import report
from training.calibrate import COVERAGES, calibrate
from training.config import FitConfig, from_dict
from training.image_set import ImageSet
from training.import_checkpoint import REMAINDER
from training.splits import Role
from training.trust_report import CURVE_FILE


def recalibrate(
    folder: Path, roles: dict[Role, ImageSet], out: Path, *, device: torch.device
) -> Manifest:
    """Fit everything but the weights again, and write the bundle to `out` without a report.

    Metrics and detections of the old calibration are dropped: evaluate anew.

    Args:
        folder: The bundle.
        roles: From `training.roles.roles_of`.
        out: Folder to write, which may be `folder` itself.
        device: Where to compute.
    """
    found = verify(folder)
    config: FitConfig = from_dict(dict(found.training.config))
    model, preprocessing = bundle.load_model(folder, device=device)
    reference = calibrate(
        model,
        preprocessing,
        roles[Role.CALIBRATION_A],
        roles[Role.CALIBRATION_B],
        coverages=tuple(sorted({*COVERAGES, found.conformal_coverage})),
        seed=config.seed,
    )
    for name in (report.HTML_FILE, report.JSON_FILE):
        (out / name).unlink(missing_ok=True)
    kept = [name for name in (CURVE_FILE, REMAINDER) if name in found.files]
    extra = {name: (folder / name).read_text(encoding="utf-8") for name in kept}
    written = replace(found, metrics={}, detections=())
    return bundle.save(written, model.cpu(), reference, out, extra=extra)
