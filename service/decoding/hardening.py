"""What a decoder process gives up before it sees its first image. Linux; elsewhere only limits.

None of it is needed to decode; all of it is in the way of whoever takes the process over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_FIRST_TO_BE_KILLED = 900
_OPEN_FILES = 24


def harden(*, memory_bytes: int, parent: int) -> None:
    """Limits this process for good.

    Memory beyond what it has now is limited, it leaves no core file, writes no file, opens few,
    begins no process or thread (where it does not run as root), gains no rights, can be traced by
    no process of the same user, is the first to go when memory runs out, and ends with its parent.

    Args:
        memory_bytes: How much address space it may take beside what it has.
        parent: Process id of the parent.

    Raises:
        SystemExit: The parent has ended already.
    """
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(_FIRST_TO_BE_KILLED))
    for number, value in ((_PR_SET_PDEATHSIG, int(signal.SIGKILL)), (_PR_SET_NO_NEW_PRIVS, 1)):
        _prctl(number, value)
    _prctl(_PR_SET_DUMPABLE, 0)
    if os.getppid() != parent:  # it ended before the kernel was told to end this process with it
        sys.exit(0)
    _limit(resource.RLIMIT_AS, _address_space_bytes() + memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_NPROC, 0)


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, value))


def _address_space_bytes() -> int:
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 2**30  # not known here; more than numpy and Pillow take


def _prctl(number: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(number, value, 0, 0, 0)
