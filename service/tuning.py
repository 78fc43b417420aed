"""What a server process sets once, for the time it serves."""

from __future__ import annotations

import gc
import os


def before_torch() -> None:
    """Lets the threads of a forward pass sleep between its parts instead of spinning.

    Spinning saves them microseconds and takes them from the event loop, which needs them to turn
    callers away in time. Has no effect once torch is imported, or where the environment already
    says OMP_WAIT_POLICY.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def after_loading() -> None:
    """Takes what is loaded out of garbage collection, which would look at it again and again.

    A full collection of a process with torch takes about a tenth of a second, in which nobody is
    answered.
    """
    gc.collect()
    gc.freeze()
