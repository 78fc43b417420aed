"""timm's ResNet-50 in every form that this project offers its own network.

What is compared with must be at its best: batch norms folded, weights laid out once, a compiler,
and the graph runtimes that are installed. A form takes (B, 3, 224, 224) in float32 and gives the
logits (B, 1000); how its input is laid out beforehand is its own business, and not timed.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ibinn.inference.convolution import PackedConvolution
from ibinn.inference.plan import Convolution
from tests.benchmarks.imagenet.residual import Residual, folded

_log = logging.getLogger(__name__)

SIDE = 224
OPSET = 17

SINGLY = "-singly"
"""Ends the name of a form that takes a batch image by image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """ResNet-50 under one engine.

    Attributes:
        engine: Its name.
        prepare: Lays an input out as the engine likes it best.
        infer: Computes on what `prepare` gave.
        logits: Gives what `infer` returned as a tensor (B, 1000).
        seconds: What making it took.
    """

    engine: str
    prepare: Callable[[Tensor], Any]
    infer: Callable[[Any], Any]
    logits: Callable[[Any], Tensor]
    seconds: float


def network() -> nn.Module:
    """ResNet-50 with random weights, in evaluation mode."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model("resnet50", pretrained=False)
    return model.eval().requires_grad_(requires_grad=False)


def forms(model: nn.Module, *, batches: Sequence[int], compiled: bool) -> Iterator[Form]:
    """Each form that can be made here; one that cannot is logged and left out.

    Args:
        model: From `network`.
        batches: Batch sizes to be asked for; graphs are made for each.
        compiled: Whether to compile, which takes about a minute.
    """
    weights = folded(model)
    makers: dict[str, Callable[[], Form]] = {
        "plain": lambda: _plain(model),
        "folded": lambda: _packed(weights),
    }
    if _installed("openvino"):
        makers["openvino"] = lambda: _openvino(weights, batches)
    if _installed("onnx", "onnxruntime"):
        makers["onnxruntime"] = lambda: _onnxruntime(weights)
    if compiled:
        makers["compile"] = lambda: _compiled(model, batches)
    for name, make in makers.items():
        try:
            form = make()
        except Exception as error:  # noqa: BLE001 - a form less does not end the benchmark
            _log.warning("ResNet-50 as %s: %s", name, (str(error) or repr(error)).splitlines()[0])
            continue
        yield form
        if name in ("folded", "openvino"):
            yield _singly(form)


def _plain(model: nn.Module) -> Form:
    start = time.perf_counter()
    laid_out = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Form(
        engine="plain",
        prepare=_channels_last,
        infer=torch.inference_mode()(laid_out),
        logits=_as_it_is,
        seconds=time.perf_counter() - start,
    )


def _compiled(model: nn.Module, batches: Sequence[int]) -> Form:
    """`torch.compile` with the weights frozen in, so that they are laid out once."""
    import torch._inductor.config as inductor

    start = time.perf_counter()
    with warnings.catch_warnings(), inductor.patch(freezing=True), torch.no_grad():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, dynamic=False)
        for batch in batches:
            compiled(_channels_last(torch.zeros(batch, 3, SIDE, SIDE)))
    return Form(
        engine="compile",
        prepare=_channels_last,
        infer=torch.no_grad()(compiled),
        logits=_as_it_is,
        seconds=time.perf_counter() - start,
    )


def _singly(form: Form) -> Form:
    """The same, image by image: maps of one image stay in a processor's cache."""
    return Form(
        engine=f"{form.engine}{SINGLY}",
        prepare=lambda x: [form.prepare(image[None]) for image in x],
        infer=lambda images: [_copied(form.infer(image)) for image in images],
        logits=lambda outputs: torch.cat([form.logits(output) for output in outputs]),
        seconds=form.seconds,
    )


def _copied(output: Any) -> Any:
    # The next pass may write where this one's output lies.
    return output.clone() if isinstance(output, Tensor) else output.copy()


# ----------------------------------------------------------------------- one graph, three backends


class Backend(Protocol):
    """Operations of a graph; `Any` is what the backend calls a map."""

    def convolution(self, x: Any, name: str, layer: Convolution) -> Any:
        """With bias and, where the layer says so, a ReLU."""

    def max_pool(self, x: Any) -> Any:
        """3×3, stride 2, padding 1."""

    def add_relu(self, x: Any, y: Any) -> Any:
        """max(x + y, 0)."""

    def head(self, x: Any, weight: Tensor, bias: Tensor) -> Any:
        """Mean over the pixels, then a linear layer."""


def emit(backend: Backend, x: Any, weights: Residual) -> Any:
    """The logits of images `x`, in the backend's terms."""
    x = backend.max_pool(backend.convolution(x, "stem", weights.stem))
    for number, block in enumerate(weights.blocks):
        y = x
        for part, layer in enumerate(block.layers):
            y = backend.convolution(y, f"block{number}.{part}", layer)
        if block.shortcut is not None:
            x = backend.convolution(x, f"block{number}.shortcut", block.shortcut)
        x = backend.add_relu(y, x)
    return backend.head(x, weights.head_weight, weights.head_bias)


def _packed(weights: Residual) -> Form:
    start = time.perf_counter()
    backend = _Packed()

    @torch.no_grad()
    def infer(x: Tensor) -> Tensor:
        logits: Tensor = emit(backend, x.permute(0, 2, 3, 1), weights)
        return logits

    infer(_channels_last(torch.zeros(1, 3, SIDE, SIDE)))
    return Form(
        engine="folded",
        prepare=_channels_last,
        infer=infer,
        logits=_as_it_is,
        seconds=time.perf_counter() - start,
    )


class _Packed:
    """Torch, with the convolutions of `ibinn.inference`; maps are (B, H, W, C)."""

    def __init__(self) -> None:
        self._made: dict[str, PackedConvolution] = {}

    def convolution(self, x: Tensor, name: str, layer: Convolution) -> Tensor:
        if name not in self._made:
            self._made[name] = PackedConvolution(layer, x.shape[1])
        y: Tensor = self._made[name](x)
        return y

    def max_pool(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.permute(0, 3, 1, 2), 3, stride=2, padding=1).permute(0, 2, 3, 1)

    def add_relu(self, x: Tensor, y: Tensor) -> Tensor:
        return x.add_(y).relu_()

    def head(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x.mean((1, 2)), weight, bias)


def _openvino(weights: Residual, batches: Sequence[int]) -> Form:
    from ibinn.inference.openvino_module import core, ops, ov

    start = time.perf_counter()
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    requests = {}
    for batch in {1, *batches}:
        image = ops.parameter([batch, 3, SIDE, SIDE], np.float32)
        logits = emit(_OpenVino(ops), image, weights)
        graph = ov.Model([ops.result(logits)], [image])
        requests[batch] = core().compile_model(graph, "CPU", settings).create_infer_request()

    def infer(pixels: Any) -> Any:
        request = requests[len(pixels)]
        return request.infer({0: pixels}, share_inputs=True, share_outputs=True)[0]

    return Form(
        engine="openvino",
        prepare=_contiguous,
        infer=infer,
        logits=lambda output: torch.from_numpy(output.copy()),
        seconds=time.perf_counter() - start,
    )


class _OpenVino:
    """Nodes of an OpenVINO model."""

    def __init__(self, ops: Any) -> None:
        self._ops = ops

    def convolution(self, x: Any, name: str, layer: Convolution) -> Any:
        ops, (strides, pads) = self._ops, ([layer.stride] * 2, [layer.padding] * 2)
        weight = ops.constant(layer.weight.numpy())
        y = ops.convolution(x, weight, strides, pads, pads, [1, 1])
        assert layer.bias is not None
        y = ops.add(y, ops.constant(layer.bias.view(1, -1, 1, 1).numpy()))
        return ops.relu(y) if layer.activation == "relu" else y

    def max_pool(self, x: Any) -> Any:
        # The second output are positions.
        return self._ops.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)

    def add_relu(self, x: Any, y: Any) -> Any:
        return self._ops.relu(self._ops.add(x, y))

    def head(self, x: Any, weight: Tensor, bias: Tensor) -> Any:
        ops = self._ops
        means = ops.reduce_mean(x, np.array([2, 3]))
        product = ops.matmul(means, ops.constant(weight.numpy()), False, True)
        return ops.add(product, ops.constant(bias[None].numpy()))


def _onnxruntime(weights: Residual) -> Form:
    import onnxruntime

    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        onnx_model(weights), options, providers=["CPUExecutionProvider"]
    )
    return Form(
        engine="onnxruntime",
        prepare=_contiguous,
        infer=lambda pixels: session.run(None, {"x": pixels})[0],
        logits=torch.from_numpy,
        seconds=time.perf_counter() - start,
    )


def onnx_model(weights: Residual) -> bytes:
    """The network as an ONNX graph for any batch size."""
    from onnx import TensorProto, helper

    backend = _Onnx()
    last = emit(backend, "x", weights)
    graph = helper.make_graph(
        backend.nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["B", len(weights.head_bias)])],
        backend.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


class _Onnx:
    """Nodes of an ONNX graph; maps are their names."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def convolution(self, x: str, name: str, layer: Convolution) -> str:
        assert layer.bias is not None
        y = self._node(
            "Conv",
            [x, self._constant(layer.weight), self._constant(layer.bias)],
            kernel_shape=list(layer.weight.shape[2:]),
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
        )
        return self._node("Relu", [y]) if layer.activation == "relu" else y

    def max_pool(self, x: str) -> str:
        return self._node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def add_relu(self, x: str, y: str) -> str:
        return self._node("Relu", [self._node("Add", [x, y])])

    def head(self, x: str, weight: Tensor, bias: Tensor) -> str:
        means = self._node("Flatten", [self._node("GlobalAveragePool", [x])])
        constants = [self._constant(weight), self._constant(bias)]
        return self._node("Gemm", [means, *constants], transB=1)

    def _node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"map{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, value: Tensor) -> str:
        from onnx import numpy_helper

        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.contiguous().numpy(), name))
        return name


def _as_it_is(output: Tensor) -> Tensor:
    return output


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _contiguous(x: Tensor) -> Any:
    return x.contiguous().numpy()


@functools.cache
def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)
