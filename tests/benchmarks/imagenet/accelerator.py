"""Throughput on an accelerator beside ResNet-50; nothing where there is none.

Scores are float32 by the method's rules. So both networks are compared in float32 without TF32,
and apart from that with bfloat16 where IB-INN-50 may have it, inside its subnetworks, and ResNet-50
everywhere.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from ibinn import inference
from ibinn.flow.base import InvertibleNetwork
from ibinn.flow.subnetworks import use_low_precision
from tests.benchmarks.imagenet import material, resnet50
from tests.benchmarks.imagenet.blocks import Spread, Step, alternate
from tests.benchmarks.imagenet.figures import Figure

BATCHES = (64, 256)
Told = Callable[[str], None]


def measure(network: InvertibleNetwork, *, seconds: float, told: Told) -> list[Figure]:
    """Figures ``gpu.*``; none without an accelerator.

    Args:
        network: IB-INN-50 on the CPU.
        seconds: For each batch size and precision.
        told: Hears what is being done.
    """
    if not torch.cuda.is_available():
        return []
    ours = copy.deepcopy(network).cuda().eval()
    low = copy.deepcopy(ours)
    use_low_precision(low, torch.bfloat16)
    theirs = resnet50.network().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    told("forms on the accelerator")
    fast = inference.make(ours, "auto")
    single: dict[str, Callable[[Tensor], object]] = {
        "plain": ours.observe,
        "fast": fast.observe,
        "resnet50 plain": theirs,
        "resnet50 folded": fuse(theirs),
        "resnet50 compile": _compiled(theirs),
    }
    half: dict[str, Callable[[Tensor], object]] = {
        "fast": low.observe,
        "resnet50 plain": _autocast(theirs),
        "resnet50 compile": _compiled(_autocast(theirs)),
    }
    figures = [
        Figure(name="gpu.device", value=torch.cuda.get_device_name(), how="first accelerator"),
        Figure(name="gpu.fast.engine", value=fast.engine, how="what auto chose there"),
    ]
    for batch in BATCHES:
        x = material.inputs(batch).cuda()
        for mark, forms in (("", single), (".bf16", half)):
            told(f"batch {batch}{mark}")
            with _exact_float32():
                figures += _at_batch(f"gpu.b{batch}{mark}", forms, x, seconds)
    return figures


def _at_batch(
    prefix: str, forms: Mapping[str, Callable[[Tensor], object]], x: Tensor, seconds: float
) -> list[Figure]:
    steps = {name: _synchronised(form, x) for name, form in forms.items()}
    blocks = alternate(steps, seconds=seconds, block_s=0.2)
    best = blocks.fastest([name for name in steps if name.startswith("resnet50")])
    of = f"batch {len(x)}, {blocks.rounds} alternating rounds"
    ratio = Figure.of(
        f"{prefix}.ratio_to_resnet50",
        blocks.ratio("fast", to=best),
        how=f"time of fast over {best}, its fastest form; {of}",
    )
    shown = [(name, name) for name in steps if not name.startswith("resnet50")]
    return [
        ratio,
        *(
            Figure.of(
                f"{prefix}.{name}.images_per_s",
                Spread.of([len(x) / taken for taken in blocks.seconds[step]]),
                "images/s",
                how=f"{step}, {of}",
            )
            for name, step in (*shown, ("resnet50", best))
        ),
    ]


def _synchronised(form: Callable[[Tensor], object], x: Tensor) -> Step:
    @torch.no_grad()
    def step() -> None:
        form(x)
        torch.cuda.synchronize()

    return step


def _autocast(model: nn.Module) -> Callable[[Tensor], object]:
    def infer(x: Tensor) -> object:
        with torch.autocast("cuda", torch.bfloat16):
            return model(x)

    return infer


def _compiled(infer: Callable[[Tensor], object]) -> Callable[[Tensor], object]:
    compiled = torch.compile(infer, dynamic=False)

    def call(x: Tensor) -> object:
        with warnings.catch_warnings():  # of the compiler, at the first call
            warnings.simplefilter("ignore")
            return compiled(x)

    return call


@contextmanager
def _exact_float32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
