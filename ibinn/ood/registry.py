"""Every out-of-distribution statistic of a model, with its group and its tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from ibinn.classifier import Evidence
from ibinn.flow.base import InvertibleNetwork
from ibinn.ood import statistics
from ibinn.ood.statistics import StatisticContext
from ibinn.types import Group, TestKind

Compute = Callable[[Evidence, StatisticContext], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One statistic: a pure function of the evidence, with what is unusual about it.

    Attributes:
        name: Unique name.
        group: Kind of unusualness it responds to.
        kinds: The tests that are made of it; the first one is its usual one.
        phrase: What an unusual value means, completing "the image has ...".
        compute: (Evidence, StatisticContext) -> (B,), float64.
        alone: Whether the combined test also looks at it alone, high being unusual.
        fitted: Whether it needs `StatisticContext.fitted`; it then makes no use of the latent
            code itself, so that calibration need not keep the codes of its images.
    """

    name: str
    group: Group
    kinds: tuple[TestKind, ...]
    phrase: str
    compute: Compute
    alone: bool = False
    fitted: bool = False


def statistics_of(network: InvertibleNetwork) -> tuple[Statistic, ...]:
    """The statistics of a network, in a fixed order.

    A pooling stage has no Jacobian and no test; without a last feature map there are no
    statistics of cosine bands and of spatial correlation (nor of the latter where the map is one
    cell wide), without observed channels none of their energies.
    """
    stage_names, heatmap_shape = network.stage_names, network.heatmap_shape
    likelihood = (TestKind.TYPICALITY, TestKind.TWO_TAILED)
    two_tailed = (TestKind.TWO_TAILED,)
    high = (TestKind.HIGH_IS_UNUSUAL,)
    found = [
        _statistic(Group.PIXEL, likelihood, "an untypical likelihood", statistics.log_q_x),
        _statistic(Group.STYLE, likelihood, "an untypical latent density", statistics.log_q_z),
        _statistic(Group.STYLE, likelihood, "an untypical style", statistics.log_q_style),
        _statistic(
            Group.SEMANTIC,
            likelihood,
            "an untypical place among the classes",
            statistics.log_q_class,
        ),
        _statistic(
            Group.SEMANTIC, high, "a large distance to every class", statistics.class_distance
        ),
        replace(
            _statistic(
                Group.SEMANTIC,
                high,
                "features that fit no class better than no class",
                statistics.relative_mahalanobis,
            ),
            fitted=True,
        ),
        replace(
            _statistic(Group.SEMANTIC, high, "no clear class", statistics.posterior_entropy),
            alone=True,
        ),
        _statistic(
            Group.PIXEL, two_tailed, "an unusual amount of detail", statistics.encoded_bits_per_dim
        ),
        _statistic(
            Group.PIXEL,
            two_tailed,
            "a likelihood out of line with its detail",
            statistics.complexity_gap,
        ),
        _statistic(
            Group.STYLE,
            two_tailed,
            "style features with unusual outliers",
            statistics.residual_kurtosis,
        ),
        _statistic(
            Group.STYLE, two_tailed, "style features that are not Gaussian", statistics.gaussian_fit
        ),
    ]
    if network.observed_channels:
        energy = _statistic(
            Group.PIXEL,
            high,
            "texture or detail of unusual strength",
            statistics.activation_energy,
        )
        found.append(replace(energy, alone=True, fitted=True))
    for stage, name in enumerate(stage_names):
        if name in ("pooling", "head"):
            continue
        found.append(
            Statistic(
                name=f"log_det_{name}",
                group=Group.PIXEL if stage == 0 else Group.STYLE,
                kinds=two_tailed,
                phrase=f"unusual local structure at {name}",
                compute=partial(statistics.stage_log_det, stage=stage),
            )
        )
    if heatmap_shape is not None and min(heatmap_shape[:2]) > 1:
        found.append(
            _statistic(
                Group.STYLE,
                two_tailed,
                "an unusual spatial layout of its style",
                statistics.spatial_autocorrelation,
            )
        )
    if heatmap_shape is not None:
        for band in range(max(heatmap_shape[:2])):
            found.append(
                Statistic(
                    name=f"band_energy_{band}",
                    group=Group.STYLE,
                    kinds=two_tailed,
                    phrase=f"an unusual amount of style in cosine band {band}",
                    compute=partial(statistics.band_energy, band=band),
                )
            )
    return tuple(found)


def test_name(statistic: str, kind: TestKind) -> str:
    """Name of a test on the wire, such as ``log_q_x.typicality``."""
    return f"{statistic}.{kind.value}"


def _statistic(
    group: Group, kinds: tuple[TestKind, ...], phrase: str, compute: Compute
) -> Statistic:
    name = compute.__name__
    return Statistic(name=name, group=group, kinds=kinds, phrase=phrase, compute=compute)
