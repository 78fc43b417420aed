"""Passes computed by OpenVINO, on the processor, in float32.

Shapes: B batch, C channels, H and W sides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ibinn.flow.base import ACTIVATION_FLOOR, InvertibleNetwork, Observed
from ibinn.inference.openvino_graph import graph_of
from ibinn.inference.openvino_module import ov
from ibinn.inference.planning import stages_of

SMALL_BYTES = 32 << 20
"""Weights of networks for which batches have a graph of their own."""

BATCH = 8
"""Its images; a larger network's convolutions are as fast for one image."""


def make_observe(network: InvertibleNetwork) -> Callable[[Tensor], Observed]:
    """The network's `observe`, compiled for as many threads as torch has now.

    Raises:
        ConfigError: A layer is of a kind that the folded forms do not know.
        RuntimeError: OpenVINO refuses.
    """
    weights = sum(4 * parameter.numel() for parameter in network.parameters())
    sizes = (BATCH, 1) if weights <= SMALL_BYTES else (1,)
    requests = {size: _request(network, size) for size in sizes}

    def observe(x: Tensor) -> Observed:
        images = x.detach().to("cpu", torch.float32).contiguous()
        parts: list[tuple[Tensor, ...]] = []
        for size in _sizes(len(images), sizes):
            part, images = images[:size], images[size:]
            parts.append(_infer(requests[size], part))
        z, log_dets, energies = (torch.cat(values) for values in zip(*parts, strict=True))
        return Observed(
            z=z.to(x.device),
            stage_log_dets=log_dets.to(x.device),
            activations=(energies.sqrt() + ACTIVATION_FLOOR).log().to(x.device),
        )

    return observe


def _request(network: InvertibleNetwork, batch: int) -> ov.InferRequest:
    graph = graph_of(stages_of(network), batch=batch, input_shape=network.input_shape)
    compiled = ov.Core().compile_model(
        graph,
        "CPU",
        {
            # Scores and log-determinants need the full mantissa also where bfloat16 is fast.
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            # Several server processes side by side would all be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        },
    )
    return compiled.create_infer_request()


def _sizes(count: int, sizes: tuple[int, ...]) -> list[int]:
    """Batches of the given sizes, largest first, that make up a number of images."""
    chosen: list[int] = []
    for size in sizes:
        chosen += [size] * (count // size)
        count %= size
    return chosen


def _infer(request: ov.InferRequest, images: Tensor) -> tuple[Tensor, ...]:
    request.infer({0: images.numpy()}, share_inputs=True)
    # The request's own memory is written by the next pass.
    return tuple(torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(3))
