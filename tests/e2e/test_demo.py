"""The demo as people run it: a real server, the embedded model, a picture."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ibinn.errors import BundleError


@pytest.mark.slow
def test_the_demo_ends_by_itself_with_its_line_and_its_picture(tmp_path: Path) -> None:
    bundle = pytest.importorskip("ibinn.bundle", reason="there is no ibinn.bundle yet")
    try:
        embedded = bundle.embedded_path()
    except BundleError as error:
        pytest.skip(f"there is no embedded bundle: {error}")
    if not (embedded / "manifest.json").is_file():
        pytest.skip(f"there is no embedded bundle at {embedded}")

    result = subprocess.run(
        [sys.executable, "-m", "ibinn.demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    ended = re.fullmatch(
        r"demo: ok, (\d+) images, (\d+) unknown, model [0-9a-f]{12}",
        result.stdout.splitlines()[-1],
    )
    assert ended is not None, result.stdout
    images, unknown = int(ended[1]), int(ended[2])
    assert images >= 8
    assert 2 <= unknown < images
    with Image.open(tmp_path / "out" / "demo.png") as sheet:
        sheet.load()
        assert sheet.format == "PNG"
        assert min(sheet.size) > 200
