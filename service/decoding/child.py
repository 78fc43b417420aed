"""The program of a decoder process: images come in by a socket, its standard input, answers go out.

`service.decoding.parent` starts it. It never imports torch. Whatever ends it ends only it.
"""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable, Sequence

from ibinn.errors import ImageError
from ibinn.images import PreparedImage
from service.decoding import frames
from service.decoding.frames import Answer, Raised
from service.decoding.hardening import harden

Prepare = Callable[[bytes], object]
"""A preparer, not trusted to give what it should."""

_BUFFER_BYTES = 2**18


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until the socket is closed.

    The first image that takes longer than it may ends the process by SIGALRM's default action,
    which needs no cooperation of the decoder.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a draining server still needs its decoders
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout-s", type=float, required=True)
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    harden(memory_bytes=options.memory_bytes, parent=options.parent)
    _silence()
    with socket.socket(fileno=0) as connection:
        _serve(connection, timeout_s=options.timeout_s)


def _serve(connection: socket.socket, *, timeout_s: float) -> None:
    preparers: dict[int, Prepare] = {}
    connection.sendall(frames.READY)
    with open(connection.fileno(), "rb", buffering=_BUFFER_BYTES, closefd=False) as stream:
        while (request := frames.read_request(stream)) is not None:
            if request.pickled:
                preparers[request.preparer] = pickle.loads(request.pickled)
            preparer = preparers[request.preparer]
            results = [_prepare(preparer, image, timeout_s) for image in request.images]
            connection.sendall(frames.answer(results))


def _prepare(preparer: Prepare, image: bytes, timeout_s: float) -> Answer:
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        prepared = preparer(image)
        if isinstance(prepared, PreparedImage):
            return prepared
        return Raised(trace=f"{preparer!r} gave a {type(prepared).__name__}, no PreparedImage")
    except ImageError as error:
        return error
    except Exception:  # noqa: BLE001 - this process's task: the server logs it and goes on
        return Raised(trace=traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _silence() -> None:
    """Sends what C libraries print about damaged images, a stranger's words, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


if __name__ == "__main__":
    main()
