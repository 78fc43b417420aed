"""Generates Python code from the contracts in `proto/`, or checks that it is current.

    proto/ibinn/v1         ->  ibinn/v1
    proto/open_inference   ->  service/oip/v2

    python proto/generate.py            write the generated code
    python proto/generate.py --check    exit 1 and name the files that are not current

The committed code is what one exact version of grpcio-tools makes; another version makes other
bytes, so this script refuses to run with one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from pathlib import Path

GRPCIO_TOOLS = "1.83.2"
ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGES = {"ibinn/v1": PROTO / "ibinn" / "v1", "service/oip/v2": PROTO / "open_inference"}
"""Where the code goes, and where its contract lies."""
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


class GenerationError(Exception):
    """The code cannot be generated."""


def check_tools() -> None:
    """Raises GenerationError unless the pinned grpcio-tools is installed."""
    try:
        version = importlib.metadata.version("grpcio-tools")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version != GRPCIO_TOOLS:
        raise GenerationError(
            f"grpcio-tools {version} is installed, {GRPCIO_TOOLS} is needed; "
            f"run: pip install grpcio-tools=={GRPCIO_TOOLS}"
        )


def generate(out: Path) -> None:
    """Writes the code of every .proto file of the packages under `out`."""
    from google.rpc import status_pb2
    from grpc_tools import protoc

    # protoc names a file, and so the code's module, by its place under a --proto_path; a path
    # VIRTUAL=REAL makes the place another one than on disk.
    sources = {
        f"{package}/{path.name}": path
        for package, folder in PACKAGES.items()
        for path in sorted(folder.glob("*.proto"))
    }
    # Messages get Python code; only files with services get stubs, else they would be empty.
    services = [name for name, path in sources.items() if "\nservice " in path.read_text("utf-8")]
    include = Path(protoc.__file__).parent / "_proto"
    shared = Path(status_pb2.__file__).parents[2]  # google.rpc's files lie beside its modules
    mapped = [f"{package}={folder}" for package, folder in PACKAGES.items()]
    common = ["protoc", *(f"--proto_path={path}" for path in (*mapped, include, shared))]
    messages = [f"--python_out={out}", f"--pyi_out={out}", *sources]
    stubs = [f"--grpc_python_out={out}", *services]
    for arguments in (messages, stubs):
        if protoc.main([*common, *arguments]) != 0:
            raise GenerationError("protoc failed; its message is above")


def generated_files(root: Path) -> dict[str, bytes]:
    """Path under `root` and content of the generated files there."""
    return {
        f"{package}/{path.name}": path.read_bytes()
        for package in PACKAGES
        for glob in GENERATED
        for path in (root / package).glob(glob)
    }


def stale_files(root: Path = ROOT) -> list[str]:
    """Paths of the generated files under `root` that differ, are missing or should not be."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted, found = generated_files(Path(scratch)), generated_files(root)
    return sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(
        description="Generate Python code from the contracts in proto/."
    )
    parser.add_argument("--check", action="store_true", help="only check; exit 1 if not current")
    options = parser.parse_args(arguments)
    try:
        check_tools()
        stale = stale_files()
        if options.check:
            if stale:
                print(
                    f"generated code is not current: {', '.join(stale)}; "
                    "run: python proto/generate.py",
                    file=sys.stderr,
                )
            return 1 if stale else 0
        for name in stale:
            (ROOT / name).unlink(missing_ok=True)
        generate(ROOT)
    except GenerationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
