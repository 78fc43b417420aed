"""Latency and throughput of the forward pass on the CPU, beside ResNet-50 and the machine's peak.

Both networks run in one process on the same images, in every form that can be made here; the best
form of each is then timed against the other's once more, alternating. What counts is the median
over the rounds of the ratio within a round.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibinn import inference
from ibinn.errors import IbinnError
from ibinn.flow.base import InvertibleNetwork
from ibinn.inference import InferenceForm
from tests.benchmarks.imagenet import material, resnet50
from tests.benchmarks.imagenet.blocks import Blocks, Spread, Step, alternate
from tests.benchmarks.imagenet.figures import Figure

_log = logging.getLogger(__name__)

BATCHES = (1, 8)
CLOSE = 1.1
"""Forms of ResNet-50 within this factor of its fastest are timed again."""

SIDES = (1024, 2048, 4096)
"""Of the square matrices whose product gives the peak."""

RESNET = "resnet50 "
FAST, PLAIN = "fast", "plain"

Told = Callable[[str], None]
FloatMatrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A matrix product.

    Attributes:
        what: Library and shape.
        step: Computes it.
        operations: Floating-point operations of one product.
    """

    what: str
    step: Step
    operations: float


def our_forms(
    network: InvertibleNetwork, *, compiled: bool, told: Told
) -> dict[str, InferenceForm]:
    """The form that a server takes as ``fast``, and every other engine by its name.

    Args:
        network: In evaluation mode.
        compiled: Whether to try the compiler too, which takes minutes.
        told: Hears what is being made.
    """
    told("IB-INN-50 as auto")
    found = {FAST: inference.make(network, "auto")}
    for engine in inference.ENGINES:
        if engine in ("auto", found[FAST].engine) or (engine == "compile" and not compiled):
            continue
        told(f"IB-INN-50 as {engine}")
        try:
            form = inference.make(network, engine)
        except IbinnError as error:
            _log.warning("IB-INN-50 as %s: %s", engine, error)
            continue
        found[engine] = form
    return found


def measure(
    network: InvertibleNetwork,
    *,
    seconds: float,
    compiled: Literal["none", "theirs", "all"],
    told: Told,
    batches: Sequence[int] = BATCHES,
) -> list[Figure]:
    """Figures ``cpu.*``.

    Args:
        network: IB-INN-50 in evaluation mode.
        seconds: For each of the two passes over the forms, at each batch size.
        compiled: Which networks the compiler gets.
        told: Hears what is being done.
        batches: Images per call.
    """
    ours = our_forms(network, compiled=compiled == "all", told=told)
    figures = [
        Figure(name="cpu.fast.engine", value=ours[FAST].engine, how="what auto chose here"),
        *(
            Figure(
                name=f"cpu.{name}.making_s",
                value=form.seconds,
                unit="s",
                how=f"making IB-INN-50's form {form.engine}, once",
            )
            for name, form in ours.items()
            if form.engine != "plain"
        ),
    ]
    told("ResNet-50 in each form")
    theirs = list(resnet50.forms(resnet50.network(), batches=batches, compiled=compiled != "none"))
    for batch in batches:
        figures += _at_batch(ours, theirs, batch, seconds=seconds, told=told)
    return figures


def _at_batch(
    ours: Mapping[str, InferenceForm],
    theirs: Sequence[resnet50.Form],
    batch: int,
    *,
    seconds: float,
    told: Told,
) -> list[Figure]:
    x = material.inputs(batch)
    steps: dict[str, Step] = {name: observing(form, x) for name, form in ours.items()}
    steps |= {
        f"{RESNET}{form.engine}": functools.partial(form.infer, form.prepare(x))
        for form in theirs
        if batch > 1 or not form.engine.endswith(resnet50.SINGLY)
    }
    told(f"every form, batch {batch}")
    screened = alternate(steps, seconds=seconds, block_s=0.2)
    others = [name for name in steps if name.startswith(RESNET)]
    best_s = screened.spread(screened.fastest(others)).median
    close = [name for name in others if screened.spread(name).median <= CLOSE * best_s]
    finalists = {name: steps[name] for name in (FAST, *close)}
    products: list[Product] = []
    if batch == max(BATCHES):
        told("the machine's peak")
        products = peak_products()
        finalists |= {product.what: product.step for product in products}
    told(f"fast and ResNet-50, batch {batch}")
    final = alternate(finalists, seconds=seconds, block_s=0.3)
    best = final.fastest(close)
    figures = _latencies(batch, screened, final, best)
    plain = PLAIN if PLAIN in ours else FAST
    figures += [
        Figure.of(
            f"cpu.b{batch}.ratio_to_resnet50",
            final.ratio(FAST, to=best),
            how=f"latency of fast over ResNet-50's as {best.removeprefix(RESNET)}, its fastest "
            f"form of {len(others)}; median over {final.rounds} alternating rounds",
        ),
        Figure.of(
            f"cpu.b{batch}.plain_over_fast",
            screened.ratio(plain, to=FAST),
            how=f"latency of plain over fast; median over {screened.rounds} alternating rounds",
        ),
    ]
    if products:
        figures += _share_of_peak(batch, final, products)
    return figures


def _latencies(batch: int, screened: Blocks, final: Blocks, best: str) -> list[Figure]:
    """Latency and images per second: of the finalists from the second pass, else the first."""
    figures = []
    for name in screened.seconds:
        chosen = final if name == FAST else screened
        ours = not name.startswith(RESNET)
        shown = name if ours else f"resnet50.{name.removeprefix(RESNET)}"
        figures += _pair(f"cpu.b{batch}.{shown}", chosen, name, batch)
    return [*_pair(f"cpu.b{batch}.resnet50", final, best, batch), *figures]


def _pair(prefix: str, blocks: Blocks, name: str, batch: int) -> list[Figure]:
    spread = blocks.spread(name)
    how = f"{name.strip()}, batch {batch}: median over {blocks.rounds} blocks, {{}}"
    rate = Spread(
        median=batch / spread.median,
        low=batch / spread.high,
        high=batch / spread.low,
        count=spread.count,
    )
    calls = f"{blocks.calls[name]} calls"
    return [
        Figure.of(f"{prefix}.latency_ms", spread.scaled(1e3), "ms", how=how.format(calls)),
        Figure.of(f"{prefix}.images_per_s", rate, "images/s", how=how.format("from the latency")),
    ]


def _share_of_peak(batch: int, final: Blocks, products: Sequence[Product]) -> list[Figure]:
    product = max(products, key=lambda one: one.operations / final.spread(one.what).median)
    ours = 2.0 * material.MULTIPLY_ADDS * batch
    # Share = (ours / our time) / (product / its time).
    share = final.ratio(product.what, to=FAST).scaled(ours / product.operations)
    peak = final.spread(product.what)
    rates = Spread(
        median=product.operations / peak.median,
        low=product.operations / peak.high,
        high=product.operations / peak.low,
        count=peak.count,
    )
    return [
        Figure.of("cpu.matmul_peak", rates.scaled(1e-9), "GFLOP/s", how=f"float32 {product.what}"),
        Figure.of(
            f"cpu.b{batch}.share_of_matmul_peak",
            share,
            how=f"2 × {material.MULTIPLY_ADDS:.4g} operations × images/s of fast over "
            f"{product.what}; median over {final.rounds} alternating rounds",
        ),
    ]


def observing(form: InferenceForm, x: Tensor) -> Step:
    """One pass as a classifier asks for it."""
    return torch.no_grad()(functools.partial(form.observe, x))


def peak_products() -> list[Product]:
    """Of each library, the float32 matrix product with the most operations per second here.

    oneDNN's is given one matrix in the layout that it wants, as forms give it their weights: the
    libraries' own calls lay it out anew each time, or compute otherwise.
    """
    found = []
    libraries = {"torch": _by_torch, "numpy": _by_numpy}
    if torch.backends.mkldnn.is_available():
        libraries["oneDNN"] = _by_onednn
    for library, made in libraries.items():
        products = {}
        for side in SIDES:
            pair = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
            name = f"{library} product of {side}×{side}"
            products[name] = Product(
                what=name, step=made(pair[0], pair[1]), operations=2.0 * side**3
            )
        steps = {name: product.step for name, product in products.items()}
        blocks = alternate(steps, seconds=0.0, block_s=0.05)
        rates = {name: products[name].operations / blocks.spread(name).median for name in steps}
        found.append(products[max(rates, key=rates.__getitem__)])
    return found


def _by_torch(first: FloatMatrix, second: FloatMatrix) -> Step:
    return functools.partial(torch.matmul, torch.from_numpy(first), torch.from_numpy(second))


def _by_numpy(first: FloatMatrix, second: FloatMatrix) -> Step:
    return functools.partial(np.matmul, first, second)


def _by_onednn(first: FloatMatrix, second: FloatMatrix) -> Step:
    ops = torch.ops.mkldnn
    laid_out = ops._reorder_linear_weight(torch.from_numpy(second), len(first))
    rows = torch.from_numpy(first)
    return functools.partial(ops._linear_pointwise, rows, laid_out, None, "none", [], "")
