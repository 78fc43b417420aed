"""Every fault on purpose, in full: `make faults`.

    python -m tests.faults --out out/faults.json [--only rude-callers]

Prints what each scenario found, writes all figures, and ends with status 1 where a law is broken.
Everything stays on this machine and ends by itself, after three to eight minutes. With
``--durability``: statements under kill -9 of servers and databases instead (`make durability`).
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table

from tests.faults import deaths, draining, durability, leaks, overload, sharing, storm
from tests.faults.laws import Result, tried

Told = Callable[[str], None]

SCENARIOS: dict[str, Callable[[Told], Result]] = {
    "sigterm-under-load": lambda told: draining.under_load(),
    "sigterm-while-the-network-hangs": lambda told: draining.while_the_network_hangs(),
    "rude-callers": lambda told: leaks.of_rude_callers(told=told),
    "kill-9-of-decoders": lambda told: deaths.of_decoders(),
    "kill-9-of-a-worker": lambda told: deaths.of_a_worker(),
    "overload": lambda told: overload.measure(60.0, told=told),
    "fairness-between-callers": lambda told: sharing.between_callers(),
    "explain-yields-to-classify": lambda told: sharing.between_lanes(),
    "storm-of-connections": lambda told: storm.of_connections(),
}

DURABILITY: dict[str, Callable[[Told], Result]] = {
    "sqlite": lambda told: durability.on_sqlite(),
    "postgresql": lambda told: durability.on_postgresql(),
    "sqlite-two-workers": lambda told: durability.on_sqlite(count=3000, kills=4, workers=2),
    "postgresql-best-effort": lambda told: durability.on_postgresql(
        count=3000, server_kills=2, database_kills=2, audit="best_effort"
    ),
}
"""What is acknowledged while servers and databases are killed: `make durability`."""

TIMED = ("overload", "fairness-between-callers", "explain-yields-to-classify")
"""Those about rates and latencies, which get up to three attempts (`tests.faults.laws.tried`)."""


def main() -> int:
    """Runs the scenarios; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=(*SCENARIOS, *DURABILITY), action="append")
    parser.add_argument("--durability", action="store_true", help="those about records")
    options = parser.parse_args()
    known = SCENARIOS | DURABILITY
    console = Console()
    found: dict[str, Any] = {}
    broken = 0
    begin = time.monotonic()
    for name in options.only or (DURABILITY if options.durability else SCENARIOS):
        start = time.monotonic()
        with console.status(name) as status:
            measure = functools.partial(known[name], functools.partial(_tell, status, name))
            result, attempts = tried(measure, times=3 if name in TIMED else 1)
        seconds = time.monotonic() - start
        verdict = "[red]broken[/red]" if result.broken else "[green]kept[/green]"
        again = f", attempt {attempts}" if attempts > 1 else ""
        console.print(f"[bold]{name}[/bold]: {verdict} ({seconds:.0f} s{again})")
        console.print(_table(result))
        found[name] = {
            "figures": dataclasses.asdict(result),  # type: ignore[call-overload]
            "broken": result.broken,
            "seconds": seconds,
            "attempts": attempts,
        }
        broken += bool(result.broken)
    machine = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(_plain({"machine": machine, "found": found}), indent=2))
    minutes, seconds = divmod(time.monotonic() - begin, 60)
    console.print(
        f"{len(found) - broken} of {len(found)} scenarios keep their laws; {minutes:.0f} min "
        f"{seconds:.0f} s; figures in {options.out}"
    )
    return 1 if broken else 0


def _tell(status: Status, name: str, line: str) -> None:
    status.update(f"{name}: {line}")


def _table(result: Result) -> Table:
    table = Table(box=None, show_header=False, pad_edge=True)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", overflow="fold")
    for field in dataclasses.fields(result):  # type: ignore[arg-type]
        table.add_row(field.name, _shown(getattr(result, field.name)))
    for law in result.broken:
        table.add_row("[red]broken[/red]", law)
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(each)}" for name, each in value.items()) or "none"
    return "none" if value == () else str(value)


def _plain(value: Any) -> Any:
    """As JSON knows it: what is not finite becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
