"""Passes computed by OpenVINO, on the processor, in float32.

Shapes: B batch, C channels, H and W sides.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from ibinn.flow.base import ACTIVATION_FLOOR, InvertibleNetwork, Observed
from ibinn.inference.batches import batch_sizes, in_batches
from ibinn.inference.openvino_graph import graph_of
from ibinn.inference.openvino_module import core, ov
from ibinn.inference.planning import stages_of
from ibinn.paged import PagedMemory, room, trim


def make_observe(
    network: InvertibleNetwork, memory: PagedMemory | None = None
) -> Callable[[Tensor], Observed]:
    """The network's `observe`, compiled for as many threads as torch has now.

    OpenVINO keeps the weights that it is given beside those that it has laid out for this
    processor, and reads the former no more. So with `memory` they are paged as well.

    Args:
        network: The network.
        memory: Where its weights lie, to leave the memory before OpenVINO takes its own; None:
            everything stays in memory.

    Raises:
        ConfigError: A layer is of a kind that the folded forms do not know.
        RuntimeError: OpenVINO refuses.
    """
    sizes = batch_sizes(network)
    requests = {size: request_of(network, size, memory) for size in sizes}
    one_at_a_time = Lock()  # a request in use refuses another caller

    def observe(x: Tensor) -> Observed:
        images = x.detach().to("cpu", torch.float32).contiguous()
        parts: list[tuple[Tensor, ...]] = []
        with one_at_a_time:
            for size in in_batches(len(images), sizes):
                part, images = images[:size], images[size:]
                parts.append(_infer(requests[size], part))
        z, log_dets, energies = (torch.cat(values) for values in zip(*parts, strict=True))
        return Observed(
            z=z.to(x.device),
            stage_log_dets=log_dets.to(x.device),
            activations=(energies.sqrt() + ACTIVATION_FLOOR).log().to(x.device),
        )

    return observe


def request_of(
    network: InvertibleNetwork, batch: int, memory: PagedMemory | None = None
) -> ov.InferRequest:
    """A pass of so many images, compiled."""
    constants = None if memory is None else room(memory.size)
    graph = graph_of(
        stages_of(network), batch=batch, input_shape=network.input_shape, memory=constants
    )
    if memory is not None:
        memory.give_back()
        trim()
    compiled = core().compile_model(
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
    if constants is not None:
        constants.give_back()
    return compiled.create_infer_request()


def _infer(request: ov.InferRequest, images: Tensor) -> tuple[Tensor, ...]:
    request.infer({0: images.numpy()}, share_inputs=True)
    # The request's own memory is written by the next pass.
    return tuple(torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(3))
