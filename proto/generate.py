"""Generates the Python code of `ibinn/v1` from `proto/ibinn/v1`, or checks that it is current.

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

GRPCIO_TOOLS = "1.85.1"
ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = Path("ibinn") / "v1"
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
    """Writes the code of every .proto file of the package under `out`."""
    from google.rpc import status_pb2
    from grpc_tools import protoc

    sources = [str(path.relative_to(PROTO)) for path in sorted((PROTO / PACKAGE).glob("*.proto"))]
    # Messages get Python code; only files with services get stubs, else they would be empty.
    services = [name for name in sources if "\nservice " in (PROTO / name).read_text("utf-8")]
    include = Path(protoc.__file__).parent / "_proto"
    shared = Path(status_pb2.__file__).parents[2]  # google.rpc's files lie beside its modules
    common = ["protoc", *(f"--proto_path={path}" for path in (PROTO, include, shared))]
    messages = [f"--python_out={out}", f"--pyi_out={out}", *sources]
    stubs = [f"--grpc_python_out={out}", *services]
    for arguments in (messages, stubs):
        if protoc.main([*common, *arguments]) != 0:
            raise GenerationError("protoc failed; its message is above")


def generated_files(root: Path) -> dict[str, bytes]:
    """Name and content of the generated files under `root`."""
    folder = root / PACKAGE
    return {path.name: path.read_bytes() for glob in GENERATED for path in folder.glob(glob)}


def stale_files(root: Path = ROOT) -> list[str]:
    """Names of the generated files under `root` that differ, are missing or should not be."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted, found = generated_files(Path(scratch)), generated_files(root)
    return sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns its exit code."""
    parser = argparse.ArgumentParser(description="Generate ibinn/v1 from proto/ibinn/v1.")
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
            (ROOT / PACKAGE / name).unlink(missing_ok=True)
        generate(ROOT)
    except GenerationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
