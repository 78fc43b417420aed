"""Manifests read back as they were written, and their digests are of their content alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ibinn import manifest
from ibinn.errors import BundleFormatError, BundleIntegrityError
from ibinn.manifest import Detection
from tests.ibinn.bundles import make_manifest

DETECTION = Detection(
    test="density_of_states",
    auroc=(("digits", 0.99), ("noise", 1.0)),
    miss_rates=(("digits", 0.01, 0.25),),
)


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = make_manifest(detections=(DETECTION,), metrics={"top1": 0.1 + 0.2}, alpha=1 / 3)
    manifest.write(written, tmp_path)
    assert manifest.read(tmp_path) == dataclasses.replace(written)
    assert [path.name for path in tmp_path.iterdir()] == [manifest.FILE]


def test_words_of_any_language_are_kept_readable(tmp_path: Path) -> None:
    manifest.write(make_manifest(), tmp_path)
    assert "übungshalber" in (tmp_path / manifest.FILE).read_text(encoding="utf-8")


def test_digests_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    first = make_manifest()
    turned = dict(reversed(first.architecture.items()))
    assert dataclasses.replace(first, architecture=turned).weights_digest == first.weights_digest
    manifest.write(first, tmp_path)
    path = tmp_path / manifest.FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(reversed(content.items()))), encoding="utf-8")
    assert manifest.read(tmp_path) == first


def test_the_weights_digest_leaves_out_what_a_report_adds() -> None:
    first = make_manifest()
    reported = dataclasses.replace(first, metrics={"top1": 0.9}, detections=(DETECTION,))
    assert reported.weights_digest == first.weights_digest
    assert reported.calibration_digest == first.calibration_digest == ""


def test_the_policy_digest_is_of_the_settings() -> None:
    digest = manifest.policy_digest(alpha=0.01, coverage=0.95)
    assert digest == manifest.policy_digest(coverage=0.95, alpha=0.01)
    assert digest != manifest.policy_digest(alpha=0.05, coverage=0.95)
    assert digest != manifest.policy_digest(alpha=0.01, coverage=0.9)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "\udcff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleFormatError, match=r"not readable as a JSON object.*copy it again"):
        manifest.read(tmp_path)


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    manifest.write(make_manifest(), tmp_path)
    path = tmp_path / manifest.FILE
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"alpha": 0.05', '"alpha": 0.5'), encoding="utf-8")
    with pytest.raises(BundleIntegrityError, match="states"):
        manifest.read(tmp_path)
