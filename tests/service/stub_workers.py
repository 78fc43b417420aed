"""A supervisor of stub workers in a process of its own; run as a module with settings as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from ibinn.errors import IbinnError
from service import logs, workers
from service.ready import Ready
from tests.service.running import settings

COMMAND = (sys.executable, "-m", "tests.service.stub_worker")


def announce(ready: Ready) -> None:
    print(ready.line(), flush=True)


def main() -> None:
    chosen = settings(**json.loads(sys.argv[1]))
    logs.configure(level="info", form="text")
    try:
        asyncio.run(workers.serve(chosen, on_ready=announce, command=COMMAND))
    except IbinnError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
