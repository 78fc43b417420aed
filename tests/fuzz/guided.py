"""Inputs chosen by what they reach in the code (atheris), in a process of its own.

    python -m tests.fuzz.guided decode --runs 50000 --seed 1 --corpus DIR --failures DIR

An input that raises what it should not is saved in the folder of failures. Inputs that reach
something new stay in the folder of the corpus; they are sent to the server afterwards.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

SLOW_S = 1.0
_DEADLINE_S = 20

Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def available() -> bool:
    """Whether atheris is installed."""
    return importlib.util.find_spec("atheris") is not None


def main() -> None:
    """Fuzzes one target; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("decode", "messages"))
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--failures", type=Path, required=True)
    options = parser.parse_args()

    import atheris

    with atheris.instrument_imports(
        include=[
            *("ibinn.decoding", "ibinn.images", "PIL"),
            *("service.rules", "service.converters", "service.oip"),
        ],
        enable_loader_override=False,
    ):
        from tests.fuzz import image_mutations, message_mutations, targets

    warnings.simplefilter("ignore")
    rng = random.Random(options.seed)
    if options.target == "decode":
        seeds = list(targets.image_seeds())
        change, run = image_mutations.mutated, targets.decode_one
    else:
        seeds = list(targets.message_seeds(random.Random(options.seed)))
        change, run = _behind_first_byte(message_mutations.mutated), targets.check_one
    options.corpus.mkdir(parents=True, exist_ok=True)
    options.failures.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(seeds):
        (options.corpus / f"seed-{i:04}").write_bytes(seed)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng.seed(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, max_size))
        return change(data, rng, seeds)[:max_size]

    atheris.Setup(
        [
            sys.argv[0],
            f"-runs={options.runs}",
            f"-seed={options.seed}",
            f"-max_len={image_mutations.MAX_BYTES}",
            f"-artifact_prefix={options.failures}/",
            f"-timeout={_DEADLINE_S}",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-close_fd_mask=1",
            str(options.corpus),
        ],
        _timed(run, options.failures),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


def _behind_first_byte(change: Change) -> Change:
    """Changes what follows the byte that says which kind of request it is."""

    def changed(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
        kind = data[:1] if rng.random() < 0.95 else rng.randbytes(1)
        return kind + change(data[1:], rng, [other[1:] for other in others])

    return changed


def _timed(run: Callable[[bytes], None], failures: Path) -> Callable[[bytes], None]:
    """Keeps inputs that take too long; whether they do elsewhere is for others to find out."""

    def timed(data: bytes) -> None:
        start = time.perf_counter()
        run(data)
        if time.perf_counter() - start > SLOW_S:
            (failures / f"slow-{abs(hash(data)):x}").write_bytes(data)

    return timed


if __name__ == "__main__":
    main()
