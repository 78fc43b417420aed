"""Laws that every invertible layer obeys, and what each kind of layer is."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor, nn

from ibinn.flow import (
    ActNorm,
    AffineCoupling,
    ArctanClamp,
    ChannelPermutation,
    ChannelRotation,
    DctPooling,
    DoubleCoupling,
    DownsamplingCoupling,
    FlowLayer,
    HaarDownsampling,
    InvertibleNetwork,
    Sequential,
    SoftplusActNorm,
    SpaceToDepth,
    TanhClamp,
)
from ibinn.flow.subnetworks import convolutional, fully_connected, use_low_precision
from tests.ibinn.networks import randomise

BATCH = 2


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer to hold the laws against.

    Attributes:
        make: Makes the layer.
        shape: One input, without the batch.
        condition: One condition, without the batch, or None.
        tolerance: Of sums of about 50 numbers. Fixed rotations are stored in float32, so that
            they are orthogonal to about 1e-7 only.
    """

    make: Callable[[], FlowLayer]
    shape: tuple[int, ...]
    condition: tuple[int, ...] | None = None
    tolerance: float = 1e-10


def downsampling(first: int | None = None) -> DownsamplingCoupling:
    return DownsamplingCoupling(
        3, strided=convolutional(4, stride=2), plain=convolutional(4), first=first
    )


LAYERS = {
    "coupling": Case(make=lambda: AffineCoupling(4, convolutional(6)), shape=(4, 3, 2)),
    "coupling of odd channels": Case(
        make=lambda: AffineCoupling(3, convolutional(6, leading_relu=True, dropout=0.5)),
        shape=(3, 2, 2),
    ),
    "coupling of vectors": Case(make=lambda: AffineCoupling(5, fully_connected(8)), shape=(5,)),
    "coupling with arctan clamp and shift gain": Case(
        make=lambda: AffineCoupling(4, convolutional(6), clamp=ArctanClamp(1.0), shift_gain=0.1),
        shape=(4, 2, 2),
    ),
    "conditional coupling": Case(
        make=lambda: AffineCoupling(4, convolutional(6), condition_channels=3),
        shape=(4, 2, 2),
        condition=(3, 2, 2),
    ),
    "conditional coupling of vectors": Case(
        make=lambda: AffineCoupling(4, fully_connected(6), condition_channels=2),
        shape=(4,),
        condition=(2,),
    ),
    "double coupling": Case(make=lambda: DoubleCoupling(5, fully_connected(8)), shape=(5,)),
    "double coupling of maps": Case(
        make=lambda: DoubleCoupling(4, convolutional(6), clamp=TanhClamp), shape=(4, 2, 2)
    ),
    "down-sampling coupling": Case(make=downsampling, shape=(3, 4, 4)),
    "down-sampling coupling of one channel first": Case(
        make=lambda: downsampling(first=1), shape=(3, 4, 4)
    ),
    "Haar": Case(make=HaarDownsampling, shape=(2, 4, 6)),
    "Haar with a factor": Case(make=lambda: HaarDownsampling(factor=0.5), shape=(2, 4, 4)),
    "space to depth": Case(make=SpaceToDepth, shape=(2, 4, 6)),
    "act-norm": Case(make=lambda: ActNorm(3, initial_scale=0.75), shape=(3, 2, 4)),
    "act-norm of softplus": Case(
        make=lambda: SoftplusActNorm(3, initial_scale=0.75), shape=(3, 2, 4)
    ),
    "act-norm of vectors": Case(make=lambda: ActNorm(5), shape=(5,)),
    "rotation": Case(
        make=lambda: ChannelRotation(6, generator=seeded()), shape=(6, 2, 2), tolerance=1e-5
    ),
    "rotation of vectors": Case(
        make=lambda: ChannelRotation(6, generator=seeded()), shape=(6,), tolerance=1e-5
    ),
    "permutation": Case(make=lambda: ChannelPermutation(6, generator=seeded()), shape=(6, 2, 2)),
    "permutation of vectors": Case(
        make=lambda: ChannelPermutation(9, generator=seeded()), shape=(9,)
    ),
    "cosine pooling": Case(make=lambda: DctPooling(2, 3, 5), shape=(2, 3, 5)),
    "published cosine pooling": Case(
        make=lambda: DctPooling(2, 3, 5, normalization="published"), shape=(2, 3, 5)
    ),
    "sequence": Case(
        make=lambda: Sequential(
            [
                HaarDownsampling(factor=0.7),
                AffineCoupling(4, convolutional(6)),
                ActNorm(4),
                Sequential([DctPooling(4, 2, 3), DoubleCoupling(24, fully_connected(8))]),
            ]
        ),
        shape=(1, 4, 6),
    ),
    "sequence with a condition": Case(
        make=lambda: Sequential(
            [
                AffineCoupling(4, convolutional(6), condition_channels=2),
                ChannelPermutation(4, generator=seeded()),
                AffineCoupling(4, convolutional(6), condition_channels=2),
            ]
        ),
        shape=(4, 2, 2),
        condition=(2, 2, 2),
    ),
    "network": Case(
        make=lambda: InvertibleNetwork(
            [("half", HaarDownsampling()), ("pooling", DctPooling(4, 2, 2))],
            input_shape=(1, 4, 4),
            heatmap_shape=(2, 2, 4),
        ),
        shape=(1, 4, 4),
    ),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS.keys())
def case(request) -> Case:
    return request.param


def built(case: Case) -> tuple[FlowLayer, Tensor, Tensor | None]:
    """A randomised layer in float64, an input and a condition."""
    layer = randomise(case.make()).double()
    generator = seeded()

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64)

    return layer, draw(case.shape), draw(case.condition) if case.condition else None


def test_the_laws_cover_every_layer():
    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    kinds = {kind for kind in below(FlowLayer) if kind.__module__.startswith("ibinn.")}
    assert {type(case.make()) for case in LAYERS.values()} == kinds - {FlowLayer}


def test_inverse_undoes_forward(case):
    layer, x, condition = built(case)
    y, _ = layer(x, condition)
    torch.testing.assert_close(
        layer.inverse(y, condition)[0], x, rtol=case.tolerance, atol=case.tolerance
    )


def test_forward_undoes_inverse(case):
    layer, x, condition = built(case)
    y = torch.randn(layer(x, condition)[0].shape, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(
        layer(layer.inverse(y, condition)[0], condition)[0],
        y,
        rtol=case.tolerance,
        atol=case.tolerance,
    )


def test_log_det_of_the_inverse_is_minus_that_of_forward(case):
    layer, x, condition = built(case)
    y, log_det = layer(x, condition)
    torch.testing.assert_close(
        layer.inverse(y, condition)[1], -log_det, rtol=0.0, atol=case.tolerance
    )


def test_log_det_equals_autograd_jacobian(case):
    layer, x, condition = built(case)
    _, log_det = layer(x, condition)
    for i in range(BATCH):
        at = None if condition is None else condition[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(
            lambda flat, at=at: layer(flat.view(1, *case.shape), at)[0].flatten(), x[i].flatten()
        )
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det[i], expected, rtol=0.0, atol=case.tolerance)


def test_one_log_det_per_image_and_as_many_dimensions_out_as_in(case):
    layer, x, condition = built(case)
    y, log_det = layer(x, condition)
    assert log_det.shape == (BATCH,)
    assert y.dtype == log_det.dtype == torch.float64
    assert y.numel() == x.numel()


def test_an_image_does_not_see_the_others_of_its_batch(case):
    layer, x, condition = built(case)
    y, log_det = layer(x, condition)
    for i in range(BATCH):
        one = slice(i, i + 1)
        alone, alone_log_det = layer(x[one], None if condition is None else condition[one])
        torch.testing.assert_close(alone, y[one], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone_log_det, log_det[one], rtol=1e-12, atol=1e-12)


def test_nothing_is_remembered_between_calls(case):
    layer, x, condition = built(case)
    first = layer(x, condition)
    layer(-x, condition)
    assert all(map(torch.equal, layer(x, condition), first))


def test_a_condition_changes_the_coupling_that_takes_it():
    layer, x, condition = built(LAYERS["conditional coupling"])
    assert not torch.allclose(layer(x, condition)[0], layer(x, condition + 1)[0])


def test_layers_without_use_for_a_condition_ignore_it():
    condition = torch.randn(BATCH, 3, 2, 2, dtype=torch.float64)
    for name, case in LAYERS.items():
        if case.condition is None:
            layer, x, _ = built(case)
            assert torch.equal(layer(x, condition)[0], layer(x)[0]), name


@pytest.mark.parametrize("name", ["coupling", "coupling of vectors", "double coupling"])
def test_an_untrained_coupling_is_the_identity(name):
    case = LAYERS[name]
    layer, x = case.make().eval(), torch.randn(BATCH, *case.shape)
    y, log_det = layer(x)
    assert torch.equal(y, x)
    assert torch.equal(log_det, torch.zeros(BATCH))


def test_a_coupling_leaves_its_first_half_alone():
    layer, x, _ = built(LAYERS["coupling of odd channels"])
    y, _ = layer(x)
    assert torch.equal(y[:, :2], x[:, :2])
    assert not torch.isclose(y[:, 2], x[:, 2]).any()


def test_a_coupling_is_the_formula():
    layer, x, _ = built(LAYERS["coupling with arctan clamp and shift gain"])
    s, t = layer.subnetwork(x[:, :2]).chunk(2, dim=1)
    y, log_det = layer(x)
    log_scale = 0.636 * torch.atan(s)
    torch.testing.assert_close(y[:, 2:], x[:, 2:] * log_scale.exp() + 0.1 * t)
    torch.testing.assert_close(log_det, log_scale.sum((1, 2, 3)))


@pytest.mark.parametrize(
    ("clamp", "limit"),
    [(TanhClamp(0.7, 0.1), 0.7), (ArctanClamp(2.0), 2.0 * 0.636 * math.pi / 2)],
    ids=["tanh", "arctan"],
)
def test_clamps_bound_the_log_scale_and_keep_its_sign(clamp, limit):
    s = torch.linspace(-1e6, 1e6, 1001, dtype=torch.float64)
    assert clamp(s).abs().max() <= limit
    assert clamp(s).abs().max() > 0.99 * limit
    assert torch.equal(clamp(s).sign(), s.sign())
    assert (clamp(s).diff() >= 0).all()


def test_haar_gives_average_horizontal_vertical_diagonal_in_this_order():
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])[None, None]
    y, _ = HaarDownsampling()(torch.cat((x, -x), dim=1))
    expected = torch.tensor([11.0, -11.0, -3.0, 3.0, -5.0, 5.0, 1.0, -1.0]) / 2
    assert torch.equal(y.flatten(), expected)


def test_haar_keeps_energy_up_to_its_factor():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    y, _ = HaarDownsampling(factor=0.5)(x)
    torch.testing.assert_close(y.square().sum(), 0.25 * x.square().sum())


def test_space_to_depth_puts_the_four_pixels_of_a_channel_side_by_side():
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert torch.equal(SpaceToDepth()(x)[0].flatten(), torch.arange(8.0))


def test_act_norm_starts_with_the_scale_asked_for():
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(ActNorm(3, initial_scale=0.75)(x)[0], 0.75 * x)


def test_rotations_are_orthogonal_with_determinant_one_and_belong_to_their_seed():
    matrices = [
        ChannelRotation(48, generator=torch.Generator().manual_seed(seed)).rotation.double()
        for seed in (0, 0, 1)
    ]
    for matrix in matrices:
        torch.testing.assert_close(
            matrix @ matrix.T, torch.eye(48, dtype=torch.float64), rtol=0.0, atol=1e-6
        )
        assert torch.linalg.det(matrix) == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(matrices[0], matrices[1])
    assert not torch.allclose(matrices[0], matrices[2])


def test_cosine_pooling_is_the_orthonormal_dct_with_channels_fastest():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    expected = dctn(x.numpy(), axes=(2, 3), norm="ortho").transpose(0, 2, 3, 1).reshape(2, -1)
    np.testing.assert_allclose(DctPooling(3, 4, 5)(x)[0].numpy(), expected, atol=1e-12)


def test_cosine_pooling_begins_with_the_average_pooling():
    x = torch.randn(2, 3, 4, 5)
    z, _ = DctPooling(3, 4, 5)(x)
    torch.testing.assert_close(z[:, :3], x.mean((2, 3)) * math.sqrt(20))


LOW_PRECISION = {
    name: LAYERS[name]
    for name in ("coupling", "double coupling", "down-sampling coupling", "conditional coupling")
}


@pytest.mark.parametrize("case", LOW_PRECISION.values(), ids=LOW_PRECISION.keys())
def test_low_precision_stays_inside_the_subnetworks(case):
    # The inverse sees the same halves, so that it undoes forward in spite of the rounding.
    plain = randomise(case.make())
    wrapped = nn.Sequential(randomise(case.make()))
    use_low_precision(wrapped, torch.bfloat16)
    x = torch.randn(BATCH, *case.shape)
    condition = torch.randn(BATCH, *case.condition) if case.condition else None
    y, log_det = wrapped[0](x, condition)
    assert y.dtype == log_det.dtype == torch.float32
    assert not torch.equal(y, plain(x, condition)[0])
    torch.testing.assert_close(y, plain(x, condition)[0], rtol=0.05, atol=0.05)
    if not isinstance(plain, DoubleCoupling | DownsamplingCoupling):
        torch.testing.assert_close(wrapped[0].inverse(y, condition)[0], x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", LOW_PRECISION.values(), ids=LOW_PRECISION.keys())
def test_low_precision_does_not_rename_weights(case):
    plain, wrapped = nn.Sequential(randomise(case.make())), nn.Sequential(case.make())
    use_low_precision(wrapped, torch.bfloat16)
    assert list(wrapped.state_dict()) == list(plain.state_dict())
    wrapped.load_state_dict(plain.state_dict())
    for name, value in wrapped.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name])
