"""Load on a server: calls at a fixed rate, timed from when each was meant to be sent.

    >>> from ibinn import load_test
    >>> work = load_test.classify_work(images)                         # doctest: +SKIP
    >>> plan = load_test.Plan(target="localhost:50051", work=work, load=load_test.Rate(100))
    ...                                                                # doctest: +SKIP
    >>> report = load_test.run(plan)                                   # doctest: +SKIP
    >>> report.goodput, report.latency.p99_s, report.rejected_share    # doctest: +SKIP

An *open loop* sends on schedule whether or not answers come, as callers who do not know of each
other do. Latency counts from the intended time: if server or generator stall, the calls that
should have been sent meanwhile are late too, and show it. (Timing from the actual send would
leave out just these: "coordinated omission".) A *closed loop* sends the next call when one is
answered: it finds the throughput at saturation, and says nothing about latency under a given
load. Importing this package imports no torch.
"""

from ibinn.load_test.plan import Arrivals, Concurrency, Plan, Rate
from ibinn.load_test.report import CodeFigures, LoadReport, Quantiles, Second
from ibinn.load_test.running import Progress, generate, run
from ibinn.load_test.work import (
    StreamWork,
    UnaryWork,
    Work,
    classify_work,
    explain_work,
    stream_work,
)

__all__ = [
    "Arrivals",
    "CodeFigures",
    "Concurrency",
    "LoadReport",
    "Plan",
    "Progress",
    "Quantiles",
    "Rate",
    "Second",
    "StreamWork",
    "UnaryWork",
    "Work",
    "classify_work",
    "explain_work",
    "generate",
    "run",
    "stream_work",
]
