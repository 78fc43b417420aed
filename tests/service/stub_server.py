"""A server process with the stub, for tests of signals; run as a module.

The stub's gate is closed until a line comes in on standard input.
"""

from __future__ import annotations

import asyncio
import sys
import threading

from ibinn.types import ModelInfo
from service.server import Addresses, serve
from tests.service.running import settings
from tests.service.stub import StubClassifier


def main() -> None:
    stub = StubClassifier()
    stub.gate.clear()

    def open_gate() -> None:
        sys.stdin.readline()
        stub.gate.set()

    def announce(addresses: Addresses, info: ModelInfo) -> None:
        print(addresses.grpc, flush=True)

    def say_computing() -> None:
        stub.entered.wait()
        print("computing", flush=True)

    threading.Thread(target=open_gate, daemon=True).start()
    threading.Thread(target=say_computing, daemon=True).start()
    asyncio.run(serve(settings(), lambda bundle: stub, on_ready=announce))
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
