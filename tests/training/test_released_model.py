"""Every tensor of a checkpoint has its place, and what has none is named."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ibinn.errors import BundleFormatError, CheckpointError, ConfigError
from ibinn.flow.ib_inn_50 import IbInn50Config
from tests.training.released import TINY, bits_equal, made_model
from training.released_layout import class_permutation, rest_order
from training.released_model import Remainder, model_of, sizes_of, tensors_of

Tensors = dict[str, Tensor]


@pytest.fixture
def tensors() -> Tensors:
    return tensors_of(made_model())


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        IbInn50Config(side=32, width=4, blocks=(1, 1, 2), strides=(1, 1, 1), pooling="published"),
        IbInn50Config(side=16, width=4, blocks=(2,), strides=(2,), pooling="published"),
        IbInn50Config(
            side=16, width=4, blocks=(1, 2), strides=(1, 2), haar=False, pooling="published"
        ),
        IbInn50Config(side=16, channels=4, width=4, blocks=(1,), strides=(1,), pooling="published"),
    ],
    ids=["as published", "strides of 1", "stride first", "without Haar", "four channels"],
)
def test_sizes_and_tensors_survive_the_way_there_and_back(config: IbInn50Config) -> None:
    model = made_model(config)
    tensors = tensors_of(model)
    released = model_of(tensors)
    assert released.sizes.architecture == config
    x = torch.randn(2, config.channels, config.side, config.side)
    with torch.no_grad():
        z, log_det = model(x)
        back, back_log_det = released.model(x)
        assert torch.equal(z, back)
        assert torch.equal(log_det, back_log_det)
        assert torch.equal(model.mixture.logits(z), released.model.mixture.logits(back))
    again = tensors_of(released.model, released.remainder)
    assert list(again) == list(tensors)
    assert all(bits_equal(again[key], tensors[key]) for key in tensors)


def test_logits_do_not_depend_on_the_order_of_the_latent_dimensions() -> None:
    model = made_model()
    tensors = tensors_of(model)
    z = torch.randn(3, model.mixture.dims)
    channels, side = 3 * 4**3, 4
    fc = tensors["mu"].shape[2]
    their_class_code = z[:, class_permutation(fc)]
    their_rest = z[:, fc:][:, rest_order(channels, side, fc)]
    with torch.no_grad():
        products = their_class_code @ tensors["mu"][0].T
        products += their_rest @ (tensors["mu_t"] @ tensors["mu_m"]).T
        assert torch.allclose(products, model.mixture.mean_products(z), atol=1e-4)


def test_no_tensor_can_be_missing_without_being_named(tensors: Tensors) -> None:
    for key in tensors:
        rest = {name: value for name, value in tensors.items() if name != key}
        with pytest.raises(CheckpointError, match="missing") as caught:
            model_of(rest)
        # A layer of one tensor is missing as a whole.
        assert key in str(caught.value) or key == "module_list.2.haar_weights"


def test_a_missing_layer_is_named(tensors: Tensors) -> None:
    rest = {key: value for key, value in tensors.items() if "module_list.5." not in key}
    with pytest.raises(CheckpointError, match=r"'module_list\.5\.\*' are missing"):
        model_of(rest)


@pytest.mark.parametrize(
    "key", ["module_list.4.act_scale", "module_list.4.s.12.weight", "phi", "module_list.0.weight"]
)
def test_a_tensor_without_a_place_is_named(tensors: Tensors, key: str) -> None:
    with pytest.raises(CheckpointError, match=f"not known: '{re.escape(key)}'"):
        model_of({**tensors, key: torch.zeros(3)})


def test_no_tensor_can_have_another_shape_without_being_named(tensors: Tensors) -> None:
    for key, value in tensors.items():
        if value.dim() == 0:
            other = value[None]
        else:
            other = torch.cat((value, value[:1]))
        with pytest.raises(CheckpointError, match=r"shape|channels|dimensions|classes") as caught:
            model_of({**tensors, key: other})
        # Sizes come from some tensors; where one of these is wrong, others no longer fit it.
        assert "module_list" in str(caught.value) or "mu" in str(caught.value)


SAME = "module_list.4.s.2.weight"


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (SAME, lambda t: t.double(), r"is of torch\.float64; expected torch\.float32"),
        (SAME, lambda t: t.half(), r"is of torch\.float16; expected torch\.float32"),
        (SAME, lambda t: t * float("nan"), "not finite"),
        (SAME, lambda t: t / 0.0, "not finite"),
        (SAME, lambda t: t[:, :, 0], r"has shape \(4, 24, 1\); expected 4 dimensions"),
        (SAME, lambda t: t[:3], "has shape .* 4 output channels there"),
        ("module_list.4.act_norm", lambda t: t[0], r"shape \(48, 1, 1\); expected \(1, 48, 1, 1\)"),
        ("module_list.4.s.0.running_var", lambda t: -t, "variance and has values below 0"),
        ("module_list.4.s.0.num_batches_tracked", lambda t: t.int(), "expected torch.int64"),
        ("module_list.4.w", lambda t: 0.5 * t, "not a permutation matrix"),
        ("module_list.4.w", lambda t: t + 1e-6, "not a permutation matrix"),
        ("module_list.4.w", lambda t: torch.cat((t[:1], t[:-1])), "not a permutation matrix"),
        ("module_list.4.w_inv", lambda t: t.roll(1, 0), "is fixed, and differs by up to 1"),
        ("module_list.2.haar_weights", lambda t: 0.5 * t, "is fixed, and differs by up to 0.5"),
        ("module_list.1.reshape_kernels.0", lambda t: t.flip(2), "is fixed, and differs"),
        ("mu_t", lambda t: t[:-1], r"'mu_t' has shape \(4, 3\); expected \(5, 3\)"),
        ("mu_m", lambda t: t[:, :-1], "expected 3·side² for a square image"),
        ("mu", lambda t: t[0], r"'mu' has shape \(5, 8\); expected 3 dimensions"),
    ],
)
def test_a_wrong_tensor_is_refused_by_its_name(
    tensors: Tensors, key: str, change: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        model_of({**tensors, key: change(tensors[key])})
    assert key in str(caught.value) or "mu" in key


def test_cosines_of_another_library_are_taken_and_kept(tensors: Tensors) -> None:
    pooling = max(key for key in tensors if key.endswith(".inv_weight"))
    tensors[pooling] = torch.nextafter(tensors[pooling], torch.tensor(9.0))
    released = model_of(tensors)
    again = tensors_of(released.model, Remainder.from_json(released.remainder.to_json()))
    assert bits_equal(again[pooling], tensors[pooling])
    tensors[pooling] = tensors[pooling] + 2e-5
    with pytest.raises(CheckpointError, match="fixed, and differs"):
        model_of(tensors)


def test_counts_of_batches_survive_the_remainder(tensors: Tensors) -> None:
    counted = [key for key in tensors if key.endswith("num_batches_tracked")]
    for number, key in enumerate(counted):
        tensors[key] = torch.tensor(1_000_000 + number)
    released = model_of(tensors)
    again = tensors_of(released.model, Remainder.from_json(released.remainder.to_json()))
    assert [int(again[key]) for key in counted] == [int(tensors[key]) for key in counted]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"pooling_number": 3, "other": 1}', '{"pooling_number": 3, "batches": 4}']
)
def test_a_remainder_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BundleFormatError, match="import the checkpoint again"):
        Remainder.from_json(text)


def test_class_dimensions_beyond_the_averages_have_no_place_in_the_layout() -> None:
    with pytest.raises(ConfigError, match="expected 1 to 192"):
        tensors_of(made_model(class_dims=193))


def test_a_checkpoint_of_another_network_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"0 layers named module_list\.N"):
        sizes_of({"conv1.weight": torch.zeros(3)})
