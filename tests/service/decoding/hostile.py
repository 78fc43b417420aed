"""Preparers that stand for what a hostile image makes of a decoder: the image says what happens."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ibinn.errors import ImageDecodeError, ImageError, ImageTooLargeError
from ibinn.images import PreparedImage
from ibinn.types import InputInfo, Region

SIDE = 2


def prepared(image: bytes) -> PreparedImage:
    """Pixels that tell the image: all have its first byte."""
    return PreparedImage(
        pixels=np.full((SIDE, SIDE, 3), image[0] if image else 0, np.uint8),
        input=InputInfo(
            width=4,
            height=3,
            format="PNG",
            sha256_bytes="a" * 64,
            sha256_pixels="b" * 64,
            region=Region(left=1, top=0, width=3, height=3),
            reductions=("centre 3×3 of 4×3 px",),
        ),
        encoded_bytes=70 + len(image),
    )


@dataclass(frozen=True, slots=True)
class HostilePreparer:
    """Does what the image says; an image of another text is prepared as it is."""

    def __call__(self, image: bytes) -> PreparedImage:
        name, _, argument = image.decode("latin-1").partition(":")
        action = ACTIONS.get(name)
        if action is not None:
            action(argument)
        return prepared(image)


@dataclass(frozen=True, slots=True)
class AnyPreparer:
    """Returns what is no prepared image."""

    def __call__(self, image: bytes) -> PreparedImage:
        return image  # type: ignore[return-value]


def _segfault(_: str) -> None:
    ctypes.string_at(0)


def _exit(status: str) -> None:
    os._exit(int(status or 0))


def _kill(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _spin(_: str) -> None:
    while True:
        pass


def _spin_deaf(_: str) -> None:
    """Spins as one that took the process over would: no timer ends it."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    while True:
        pass


def _sleep(seconds: str) -> None:
    time.sleep(float(seconds))


def _allocate(_: str) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(2**26))


def _refuse(_: str) -> None:
    raise ImageTooLargeError("image is too large for the test", field="image.width")


def _refuse_oddly(_: str) -> None:
    class OddError(ImageDecodeError):
        pass

    raise OddError("odd\n\x1b[31m" + "x" * 5000)


def _bug(_: str) -> None:
    raise ZeroDivisionError("a\x1bfault of ours")


def _raw(text: str) -> None:
    """Sends bytes instead of an answer, and waits."""
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.sendall(text.encode("latin-1"))
    time.sleep(60)


def _raw_then_answer(text: str) -> None:
    """Sends bytes before the answer."""
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.sendall(text.encode("latin-1"))


def _endless(_: str) -> None:
    """Sends without end."""
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.sendall(struct.pack("<II", 64, 0))
        while True:
            connection.sendall(b"[" * 65536)


def _tell(_: str) -> None:
    """Tells what kind of process this is, as the message of a refusal."""
    names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC")
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        oom = int(file.read())
    told = {
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in names},
        "no_new_privs": int(status["NoNewPrivs"]),
        "oom": oom,
        "environment": sorted(os.environ),
        "modules": sorted({"torch", "asyncio", "grpc", "google.protobuf"} & sys.modules.keys()),
        "nice": os.nice(0),
        "cwd": os.getcwd(),
        "pid": os.getpid(),
    }
    raise ImageError(json.dumps(told))


def _write(path: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("x")
    except OSError as error:
        raise ImageError(f"refused: {type(error).__name__}") from error


ACTIONS: dict[str, Callable[[str], None]] = {
    "segfault": _segfault,
    "exit": _exit,
    "kill": _kill,
    "spin": _spin,
    "spin deaf": _spin_deaf,
    "sleep": _sleep,
    "allocate": _allocate,
    "refuse": _refuse,
    "refuse oddly": _refuse_oddly,
    "bug": _bug,
    "raw": _raw,
    "raw then answer": _raw_then_answer,
    "endless": _endless,
    "tell": _tell,
    "write": _write,
}
