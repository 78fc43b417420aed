"""Every form of every architecture against the network itself."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ibinn import inference
from ibinn.errors import ConfigError
from ibinn.flow import (
    ActNorm,
    AffineCoupling,
    ChannelPermutation,
    ChannelRotation,
    DctPooling,
    HaarDownsampling,
    InvertibleNetwork,
    Sequential,
    SoftplusActNorm,
    SpaceToDepth,
)
from ibinn.flow.base import FlowLayer, Observed
from ibinn.flow.subnetworks import bottleneck, convolutional, use_low_precision
from ibinn.inference import Engine, form, openvino_engine, torch_engines
from ibinn.inference.batches import in_batches
from tests.ibinn.networks import CONFIGS, randomise

ENGINES: list[Engine] = ["plain", "folded", "openvino", "auto"]


def network_of(name: str) -> InvertibleNetwork:
    network = randomise(MIXED() if name == "mixed" else CONFIGS[name].build())
    assert isinstance(network, InvertibleNetwork)
    return network


def MIXED() -> InvertibleNetwork:
    """Layers in orders that no architecture has; what is observed lies between them."""
    generator = torch.Generator().manual_seed(0)
    first = Sequential(
        [
            ActNorm(3),
            SpaceToDepth(),
            SoftplusActNorm(12),
            ChannelPermutation(12, generator=generator),
            AffineCoupling(12, bottleneck(5)),
            ActNorm(12),
            ChannelRotation(12, generator=generator),
            AffineCoupling(12, convolutional(4)),
            ChannelPermutation(12, generator=generator),
            ActNorm(12),
        ]
    )
    second = Sequential([HaarDownsampling(factor=0.7), ActNorm(48), ActNorm(48)])
    return InvertibleNetwork(
        [("first", first), ("second", second), ("pooling", DctPooling(48, 2, 2))],
        input_shape=(3, 8, 8),
        heatmap_shape=(2, 2, 48),
        observed=[(0, 1, 12), (0, 4, 12), (0, 6, 12), (1, 1, 48)],
    )


def images(network: InvertibleNetwork, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, *network.input_shape, generator=generator)


def observed(network: InvertibleNetwork, x: Tensor) -> Observed:
    with torch.no_grad():
        return network.observe(x)


def assert_same(got: Observed, expected: Observed) -> None:
    length = expected.z.norm(dim=1)
    assert ((got.z - expected.z).norm(dim=1) <= 1e-5 * length).all()
    torch.testing.assert_close(got.stage_log_dets, expected.stage_log_dets, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(got.activations, expected.activations, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*CONFIGS, "mixed"])
def test_a_form_gives_what_the_network_gives(name: str, engine: Engine) -> None:
    network = network_of(name)
    made = inference.make(network, engine)
    assert made.engine == ("openvino" if engine == "auto" else engine)
    assert made.seconds >= 0
    x = images(network, 11)
    assert_same(made.observe(x), observed(network, x))


@pytest.mark.gpu
def test_the_folded_form_is_the_network_s_on_an_accelerator() -> None:
    network = network_of("ib-inn-50").cuda()
    made = inference.make(network, "auto")
    assert made.engine == "folded"
    x = images(network, 3).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        got = made.observe(x)
    assert got.z.device == x.device
    assert got.z.dtype == torch.float32
    assert ((got.z - observed(network, x).z).norm() / got.z.norm()) < 1e-5


@pytest.mark.parametrize("engine", ["folded", "openvino"])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_answer_does_not_depend_on_its_batch(name: str, engine: Engine) -> None:
    network = network_of(name)
    made = inference.make(network, engine)
    x = images(network, 9)
    together = made.observe(x)
    for i in (0, 8):
        alone = made.observe(x[i : i + 1])
        assert alone.z.shape == (1, network.dims)
        torch.testing.assert_close(alone.z[0], together.z[i], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            alone.stage_log_dets[0], together.stage_log_dets[i], rtol=1e-5, atol=1e-4
        )


@pytest.mark.parametrize("engine", ["folded", "openvino"])
def test_forms_may_be_used_from_many_threads(engine: Engine) -> None:
    network = network_of("small")
    made = inference.make(network, engine)
    x = images(network, 12)
    expected = made.observe(x).z
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: made.observe(x[i : i + 3]).z, range(10)))
    for i, z in enumerate(found):
        torch.testing.assert_close(z, expected[i : i + 3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ["folded", "openvino"])
def test_answers_are_not_overwritten_by_later_ones(engine: Engine) -> None:
    network = network_of("small")
    made = inference.make(network, engine)
    x = images(network, 2)
    first = made.observe(x[:1])
    kept = first.z.clone()
    made.observe(x[1:])
    assert torch.equal(first.z, kept)


@pytest.mark.parametrize("engine", ["folded", "openvino"])
def test_making_a_form_leaves_the_network_as_it_is(engine: Engine) -> None:
    network = network_of("ib-inn-50")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    expected = observed(network, images(network, 2))
    made = inference.make(network, engine)
    made.observe(images(network, 2))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(observed(network, images(network, 2)).z, expected.z)


def test_subnetworks_that_trained_in_low_precision_infer_in_float32() -> None:
    network = network_of("ib-inn-50")
    x = images(network, 2)
    expected = observed(network, x)
    use_low_precision(network, torch.bfloat16)
    assert_same(torch_engines.make_folded(network)(x), expected)


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"inference engine is 'fast'.*auto, plain, folded"):
        inference.make(network_of("small"), "fast")  # type: ignore[arg-type]


def test_an_engine_that_is_not_installed_is_refused_and_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    network = network_of("small")
    with pytest.raises(ConfigError, match=r"openvino is not installed; install ibinn\[serve\]"):
        inference.make(network, "openvino")
    with caplog.at_level(logging.WARNING, "ibinn.inference"):
        assert inference.make(network).engine == "folded"
    assert "openvino is passed over" in caplog.text


class Reversal(FlowLayer):
    """A layer that the folded forms do not know."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros(len(x))

    def inverse(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y.flip(1), y.new_zeros(len(y))


def test_a_network_with_an_unknown_layer_stays_plain() -> None:
    layers = Sequential([Reversal(), AffineCoupling(4, convolutional(3)), DctPooling(4, 2, 2)])
    network = InvertibleNetwork(
        [("all", randomise(layers))], input_shape=(4, 2, 2), heatmap_shape=None
    )
    with pytest.raises(ConfigError, match="Reversal, which the folded forms do not know"):
        inference.make(network, "folded")
    assert inference.make(network).engine == "plain"


def test_a_form_whose_numbers_are_not_the_network_s_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = network_of("small")
    other = randomise(CONFIGS["small"].build(), seed=1)
    assert isinstance(other, InvertibleNetwork)
    right = openvino_engine.make_observe
    monkeypatch.setattr(openvino_engine, "make_observe", lambda _network, _memory: right(other))
    with pytest.raises(ConfigError, match="openvino differs from the network by"):
        inference.make(network, "openvino")
    assert inference.make(network).engine == "folded"


def test_an_engine_that_breaks_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_network: InvertibleNetwork, _memory: object) -> object:
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(openvino_engine, "make_observe", refuse)
    network = network_of("small")
    with pytest.raises(ConfigError, match="cannot be used here: no such instruction"):
        inference.make(network, "openvino")
    assert inference.make(network).engine == "folded"


def test_openvino_computes_in_float32_with_torch_s_number_of_threads() -> None:
    network = network_of("small")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        compiled = openvino_engine.request_of(network, 1).get_compiled_model()
    finally:
        torch.set_num_threads(before)
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    assert not compiled.get_property("ENABLE_CPU_PINNING")


def test_importing_openvino_reports_to_nobody(tmp_path: Path) -> None:
    code = (
        "import sys; import ibinn.inference.openvino_engine; "
        "print([name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert ran.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_batches_are_made_up_of_the_sizes_there_are() -> None:
    assert in_batches(19, (8, 1)) == [8, 8, 1, 1, 1]
    assert in_batches(3, (1,)) == [1, 1, 1]


def test_every_engine_is_listed() -> None:
    assert form.ENGINES == ("auto", "plain", "folded", "openvino")


def test_a_signal_finds_a_stack_after_forms_are_gone():
    """OpenVINO's plugin gives threads signal stacks and takes them away."""
    program = (
        "import faulthandler, gc, os, signal\n"
        "faulthandler.enable()  # has a signal stack of its own\n"
        "from ibinn.flow import SmallConfig\n"
        "from ibinn.inference import make\n"
        "heard = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: heard.append(1))\n"
        "network = SmallConfig(side=8, widths=(4,), blocks=(1,)).build().eval()\n"
        "forms = [make(network, 'openvino') for _ in range(3)]\n"
        "while forms:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    forms.pop(0)\n"
        "    gc.collect()\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "assert len(heard) == 6, heard\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
