"""How far answers of the fast form are from those of the network as it was trained.

Shapes: n calibration images of part B.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ibinn import bundle, inference, samples
from ibinn.classifier import Evidence, GenerativeClassifier, gather_evidence
from ibinn.inference import InferenceForm
from tests.benchmarks.imagenet import material
from tests.benchmarks.imagenet.figures import Figure

IMAGES = 8


def of_ib_inn_50(model: GenerativeClassifier, form: InferenceForm | None = None) -> list[Figure]:
    """Figures ``agreement.ib_inn_50.*``, on photographs.

    Args:
        model: IB-INN-50.
        form: Its fast form; None: it is made.
    """
    form = form or inference.make(model.network, "auto")
    steps = material.preprocessing()
    subspaces = model.mixture.subspaces()
    x = material.inputs(IMAGES)
    with torch.no_grad():
        plain, fast = (
            gather_evidence(
                observe(x),
                subspaces=subspaces,
                preprocessing_log_det=steps.log_det,
                encoded_bytes=torch.zeros(IMAGES),
            )
            for observe in (model.network.observe, form.observe)
        )
    how = f"largest difference of {form.engine} from plain on {IMAGES} crops of photographs"
    return _differences("ib_inn_50", plain, fast, how)


def of_embedded() -> list[Figure]:
    """Figures ``agreement.embedded.*``, on thumbnails, photographs, digits and noise."""
    plain, fast = (
        bundle.load(bundle.embedded_path(), engine=engine) for engine in ("plain", "auto")
    )
    images = [
        *(sample.data for sample in samples.all_samples()),
        *(samples.digit(index).data for index in range(1, 20)),
        *(samples.noise(seed).data for seed in range(1, 20)),
    ]
    prepared = [plain.prepare(image) for image in images]
    pixels = np.stack([image.pixels for image in prepared])
    assert plain.reference is not None
    steps = plain.reference.count_b + 1
    found = fast.form.engine if fast.form else "plain"
    how = f"largest difference of {found} from plain on {len(images)} images"
    figures = _differences("embedded", plain.evidence(prepared), fast.evidence(prepared), how)
    one, other = plain.score(pixels), fast.score(pixels)
    pairs: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = [
        *((one.p_values[name], other.p_values[name]) for name in one.p_values),
        (one.combined_p, other.combined_p),
    ]
    worst = max(float(np.abs(a - b).max()) for a, b in pairs)
    return [
        *figures,
        Figure(
            name="agreement.embedded.p_value_steps",
            value=round(worst * steps, 6),
            unit="1/(n + 1)",
            how=f"{how}, over {len(pairs)} tests, in steps of a p-value; n = {steps - 1}",
        ),
    ]


def _differences(name: str, plain: Evidence, fast: Evidence, how: str) -> list[Figure]:
    posterior = (plain.log_posterior() - fast.log_posterior()).abs().max()
    bits = (plain.bits_per_dim - fast.bits_per_dim).abs().max()
    latent = (plain.z - fast.z).abs().max() / plain.z.abs().max()
    return [
        Figure(
            name=f"agreement.{name}.log_posterior", value=float(posterior), unit="nats", how=how
        ),
        Figure(name=f"agreement.{name}.bits_per_dim", value=float(bits), unit="bits/dim", how=how),
        Figure(
            name=f"agreement.{name}.z",
            value=float(latent),
            unit="of the largest",
            how=f"{how}, as a share of the largest |z|",
        ),
    ]
