"""timm's ResNet-50 in every form that this project offers its own network.

What is compared with must be at its best: batch norms folded into the convolutions, channels last,
a compiler, and the graph runtimes that are installed. A form takes (B, 3, 224, 224) in float32 and
gives the logits (B, 1000); how it lays out its input is its own business, and not timed.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import operator
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

_log = logging.getLogger(__name__)

Prepare = Callable[[Tensor], Any]
Infer = Callable[[Any], Any]

OPSET = 17


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
    prepare: Prepare
    infer: Infer
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
        batches: Batch sizes to be asked for: the compiler gets one graph for each.
        compiled: Whether to compile, which takes about a minute.
    """
    makers: dict[str, Callable[[], Form]] = {
        "plain": lambda: _eager(model, "plain"),
        "folded": lambda: _eager(fuse(model), "folded"),
    }
    if _installed("onnx", "onnxruntime"):
        makers["onnxruntime"] = lambda: _onnxruntime(model)
    if _installed("onnx", "openvino"):
        makers["openvino"] = lambda: _openvino(model)
    if compiled:
        makers["compile"] = lambda: _compiled(model, batches)
    for name, make in makers.items():
        try:
            yield make()
        except Exception as error:  # noqa: BLE001 - a form less does not end the benchmark
            _log.warning("ResNet-50 as %s: %s", name, str(error).splitlines()[0])


def _eager(model: nn.Module, engine: str) -> Form:
    start = time.perf_counter()
    laid_out = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Form(
        engine=engine,
        prepare=_channels_last,
        infer=torch.inference_mode()(laid_out),
        logits=lambda output: output,
        seconds=time.perf_counter() - start,
    )


def _compiled(model: nn.Module, batches: Sequence[int]) -> Form:
    """`torch.compile` with the weights frozen in, so that they are laid out once."""
    import torch._inductor.config as inductor

    start = time.perf_counter()
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    # A copy: freezing takes the weights of what it is given.
    frozen = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with warnings.catch_warnings(), inductor.patch(freezing=True), torch.no_grad():
        warnings.simplefilter("ignore")
        infer = torch.compile(frozen, dynamic=False)
        for batch in batches:
            infer(_channels_last(torch.zeros(batch, 3, 224, 224)))
    return Form(
        engine="compile",
        prepare=_channels_last,
        infer=torch.no_grad()(infer),
        logits=lambda output: output,
        seconds=time.perf_counter() - start,
    )


def _onnxruntime(model: nn.Module) -> Form:
    import onnxruntime

    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        onnx_model(model), options, providers=["CPUExecutionProvider"]
    )
    return Form(
        engine="onnxruntime",
        prepare=lambda x: x.contiguous().numpy(),
        infer=lambda pixels: session.run(None, {"x": pixels})[0],
        logits=torch.from_numpy,
        seconds=time.perf_counter() - start,
    )


def _openvino(model: nn.Module) -> Form:
    import openvino

    start = time.perf_counter()
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(onnx_model(model)),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        },
    )
    request = compiled.create_infer_request()

    def infer(pixels: Any) -> Any:
        return request.infer([pixels], share_inputs=True, share_outputs=True)[0]

    return Form(
        engine="openvino",
        prepare=lambda x: x.contiguous().numpy(),
        infer=infer,
        logits=lambda output: torch.from_numpy(output.copy()),
        seconds=time.perf_counter() - start,
    )


def onnx_model(model: nn.Module) -> bytes:
    """The network as an ONNX graph for any batch size, batch norms folded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = fuse(model)
    modules = dict(graph.named_modules())
    nodes, weights = [], []

    def constant(name: str, value: Tensor) -> str:
        weights.append(numpy_helper.from_array(value.detach().contiguous().numpy(), name))
        return name

    for node in graph.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        inputs = [
            "x" if argument.op == "placeholder" else argument.name
            for argument in node.args
            if isinstance(argument, fx.Node)
        ]
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        kind, attributes = _operator(node, module)
        if isinstance(module, nn.Conv2d | nn.Linear):
            inputs.append(constant(f"{node.name}.weight", module.weight))
            if module.bias is not None:
                inputs.append(constant(f"{node.name}.bias", module.bias))
        nodes.append(helper.make_node(kind, inputs, [node.name], **attributes))
    shown = helper.make_graph(
        nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 3, 224, 224])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["B", 1000])],
        weights,
    )
    made = helper.make_model(shown, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _operator(node: fx.Node, module: nn.Module | None) -> tuple[str, Mapping[str, Any]]:
    """Name and attributes of the ONNX operator of one step of the traced network."""
    if isinstance(module, nn.Conv2d):
        return "Conv", _window(module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.MaxPool2d):
        return "MaxPool", _window(module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.ReLU):
        return "Relu", {}
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return "GlobalAveragePool", {}
    if isinstance(module, nn.Flatten):
        return "Flatten", {"axis": 1}
    if isinstance(module, nn.Linear):
        return "Gemm", {"transB": 1}
    if isinstance(module, nn.Identity):
        return "Identity", {}
    if node.target in (operator.add, operator.iadd, torch.add):
        return "Add", {}
    raise NotImplementedError(f"step {node.format_node()} of ResNet-50 has no ONNX operator here")


def _window(kernel: Any, stride: Any, padding: Any) -> dict[str, Any]:
    down, right = _pair(padding)
    return {
        "kernel_shape": _pair(kernel),
        "strides": _pair(stride),
        "pads": [down, right, down, right],
    }


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(part) for part in value]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)
