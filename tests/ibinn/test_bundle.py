"""A bundle is what was saved, to the bit, or an error that says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ibinn import bundle, manifest
from ibinn.errors import (
    AlphaTooSmallError,
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleNotFoundError,
    ConfigError,
)
from ibinn.flow.architectures import CifarConfig
from ibinn.reference import from_arrays, to_arrays
from ibinn.types import Verdict
from tests.ibinn.bundles import (
    CLASSES,
    COUNT_B,
    SIDE,
    make_manifest,
    make_model,
    make_reference,
    rehash,
    rewrite_manifest,
    write_bundle,
)

IMAGE = np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3)
FILES = ("weights.safetensors", "reference.safetensors", "report.html", "report.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A calibrated bundle."""
    path = tmp_path / "bundle"
    write_bundle(path)
    return path


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_a_loaded_model_is_the_saved_one_to_the_bit(tmp_path: Path) -> None:
    model = write_bundle(tmp_path)
    loaded = bundle.load(tmp_path).model
    saved_state, loaded_state = model.state_dict(), loaded.state_dict()
    assert saved_state.keys() == loaded_state.keys()
    for name, value in saved_state.items():
        if "num_batches_tracked" not in name:
            assert torch.equal(value, loaded_state[name]), name
            assert loaded_state[name].dtype is value.dtype


def test_the_calibration_survives_the_file_to_the_bit(folder: Path) -> None:
    loaded = bundle.load(folder).reference
    assert loaded is not None
    saved = to_arrays(make_reference())
    for name, values in to_arrays(loaded).items():
        np.testing.assert_array_equal(values, saved[name], err_msg=name)
    assert loaded.count_b == COUNT_B
    assert to_arrays(from_arrays(saved)).keys() == saved.keys()


def test_only_subnetwork_weights_are_stored_in_half_precision(folder: Path) -> None:
    stored = load_file(folder / "weights.safetensors")
    halves = {name for name, value in stored.items() if value.dtype is torch.float16}
    assert halves
    assert all(".subnetwork." in name for name in halves)
    model = make_model()
    for name, value in stored.items():
        module = model.get_submodule(name.rpartition(".")[0])
        is_layer = isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
        assert (name in halves) == is_layer, name
        assert is_layer or value.dtype is model.state_dict()[name].dtype


def test_unrounded_weights_are_stored_in_full_precision(tmp_path: Path) -> None:
    model = make_model()
    bundle.save(make_manifest(), model, None, tmp_path)
    stored = load_file(tmp_path / "weights.safetensors")
    assert all(value.dtype is not torch.float16 for value in stored.values())
    loaded = bundle.load(tmp_path).model.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in stored.items())


def test_a_bundle_written_again_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    loaded = bundle.load(folder)
    again = tmp_path / "again"
    bundle.save(manifest.read(folder), loaded.model, loaded.reference, again)
    assert bundle.load(again).versions == loaded.versions


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_flipped_byte_is_an_error_that_names_the_file(
    folder: Path, name: str, where: float
) -> None:
    flip_byte(folder / name, round(where * ((folder / name).stat().st_size - 1)))
    with pytest.raises(BundleIntegrityError, match=rf"{name} has sha256 .* states .* copy"):
        bundle.load(folder)


def test_a_flipped_byte_anywhere_in_the_manifest_is_an_error_that_names_it(folder: Path) -> None:
    path = folder / manifest.FILE
    whole = path.read_bytes()
    found = set()
    for position in range(0, len(whole) - 1, 13):
        flip_byte(path, position)
        with pytest.raises(BundleError, match=r"manifest\.json") as caught:
            bundle.verify(folder)
        found.add(type(caught.value))
        path.write_bytes(whole)
    # Not readable or another format version, or readable and changed.
    assert found == {BundleFormatError, BundleIntegrityError}


def test_a_changed_class_name_is_noticed(folder: Path) -> None:
    path = folder / manifest.FILE
    path.write_text(path.read_text(encoding="utf-8").replace('"tiny"', '"tony"'), encoding="utf-8")
    with pytest.raises(BundleIntegrityError, match=r"manifest\.json: .*changed or damaged.*copy"):
        bundle.verify(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleIntegrityError, match=rf"{name} is listed .* missing; copy"):
        bundle.load(folder)


def test_files_outside_of_the_bundle_are_not_looked_at(folder: Path) -> None:
    rewrite_manifest(folder, files={"../weights.safetensors": "00"})
    with pytest.raises(BundleIntegrityError, match="missing"):
        bundle.load(folder)


@pytest.mark.parametrize("path", ["nowhere", "empty"])
def test_a_wrong_path_is_said(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleNotFoundError, match=rf"no model bundle at .*{path}.*give the path"):
        bundle.load(tmp_path / path)


def test_another_format_version_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, format_version=2)
    with pytest.raises(BundleFormatError, match=r"format version is 2, .* reads 1; use"):
        bundle.load(folder)


def test_unknown_missing_and_malformed_entries_are_named(folder: Path) -> None:
    rewrite_manifest(folder, surprise=1)
    with pytest.raises(BundleFormatError, match="'surprise' is unknown; expected: alpha"):
        bundle.load(folder)
    rewrite_manifest(folder, surprise=None, classes=None)
    with pytest.raises(BundleFormatError, match="'classes' is missing"):
        bundle.load(folder)
    rewrite_manifest(folder, classes=CLASSES, training={"command": "x"})
    with pytest.raises(BundleFormatError, match=r"malformed entry .*missing 5 required"):
        bundle.load(folder)


def test_a_manifest_without_its_own_digest_is_refused(folder: Path) -> None:
    path = folder / manifest.FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleFormatError, match="'sha256' is missing"):
        bundle.load(folder)


def test_weights_without_a_digest_are_not_loaded(folder: Path) -> None:
    rewrite_manifest(folder, files={})
    with pytest.raises(BundleFormatError, match=r"weights\.safetensors is not among its files"):
        bundle.load(folder)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("architecture", {"name": "large"}, "architecture is 'large'; there are: small, cifar"),
        ("mixture", {"rnak": 3}, "rnak"),
        ("preprocessing", {"side": 8}, "preprocessing lacks mean"),
    ],
)
def test_a_model_that_cannot_be_built_is_an_error_of_the_bundle(
    folder: Path, entry: str, value: object, message: str
) -> None:
    rewrite_manifest(folder, **{entry: value})
    with pytest.raises(BundleFormatError, match=rf"{message}.*export it again"):
        bundle.load(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "reference.safetensors"])
def test_a_truncated_file_with_a_matching_digest_is_an_error(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    rehash(folder, name)
    with pytest.raises(BundleFormatError, match=r"again"):
        bundle.load(folder)


def test_missing_unknown_and_misshapen_tensors_are_named(folder: Path) -> None:
    path = folder / "weights.safetensors"
    whole = load_file(path)
    rest = {name: value for name, value in whole.items() if name != "mixture.means"}
    for tensors, message in (
        (rest, r"tensor 'mixture\.means' is missing"),
        (whole | {"extra": torch.zeros(1)}, "tensor 'extra' belongs to no layer"),
        (rest | {"mixture.means": torch.zeros(10, 3)}, r"mixture\.means"),
    ):
        save_file(tensors, path)
        rehash(folder, path.name)
        with pytest.raises(BundleFormatError, match=message):
            bundle.load(folder)


def test_a_calibration_of_other_tests_is_refused(folder: Path) -> None:
    from safetensors.numpy import save_file as save_arrays

    arrays = to_arrays(make_reference())
    for wrong, message in (
        ({n: v for n, v in arrays.items() if n != "combined"}, "'combined' is missing"),
        ({n: v for n, v in arrays.items() if n != "rank/log_q_x.typicality"}, "is missing"),
        (arrays | {"rank/tea_leaves.high": arrays["combined"]}, r"'tea_leaves\.high' is unknown"),
        (arrays | {"counts": arrays["counts"][:1]}, "malformed"),
    ):
        save_arrays(wrong, folder / "reference.safetensors")
        rehash(folder, "reference.safetensors")
        with pytest.raises(BundleFormatError, match=rf"{message}.*calibrate again"):
            bundle.load(folder)


def test_an_alpha_below_the_smallest_p_names_the_counts(folder: Path) -> None:
    with pytest.raises(AlphaTooSmallError, match=r"60 calibration images .*, 99 are needed; .*39"):
        bundle.load(folder, alpha=0.01)
    smallest = 1 / (COUNT_B + 1)
    assert bundle.load(folder, alpha=smallest).info.alpha == smallest


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("calibrated", [True, False])
def test_an_alpha_that_is_no_significance_is_refused(
    tmp_path: Path, alpha: float, calibrated: bool
) -> None:
    write_bundle(tmp_path, calibrated=calibrated)
    with pytest.raises(ConfigError, match="α"):
        bundle.load(tmp_path, alpha=alpha)


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_said(folder: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{device}', which cannot be used"):
        bundle.load(folder, device=device)


def test_each_digest_changes_with_what_it_stands_for(tmp_path: Path) -> None:
    write_bundle(tmp_path / "first")
    write_bundle(tmp_path / "recalibrated", seed=1)
    write_bundle(tmp_path / "renamed", classes=("zero", *CLASSES[1:]))
    first, recalibrated, renamed = (
        bundle.load(tmp_path / name).versions for name in ("first", "recalibrated", "renamed")
    )
    assert recalibrated.weights == first.weights
    assert recalibrated.policy == first.policy
    assert recalibrated.calibration != first.calibration
    other_alpha = bundle.load(tmp_path / "first", alpha=0.1).versions
    assert other_alpha.policy != first.policy
    assert (other_alpha.weights, other_alpha.calibration) == (first.weights, first.calibration)
    assert renamed.weights != first.weights


def test_an_uncalibrated_bundle_does_not_assess(tmp_path: Path) -> None:
    write_bundle(tmp_path, calibrated=False)
    classifier = bundle.load(tmp_path)
    answer = classifier.assess([classifier.prepare(IMAGE)])[0]
    assert answer.verdict is Verdict.NOT_ASSESSED
    assert "not calibrated" in answer.reason
    assert (answer.tests, answer.combined, answer.conformal) == ((), None, None)
    assert answer.observed_accuracy is None
    assert (classifier.info.calibrated, classifier.info.tests) == (False, ())
    assert classifier.versions.calibration == ""


def test_a_network_without_heatmaps_is_saved_and_loaded(tmp_path: Path) -> None:
    config = CifarConfig(side=8, blocks=(1, 1, 1), widths=(4, 4, 4), hidden=8)
    model = make_model(config)
    bundle.save(make_manifest(config), model, None, tmp_path)
    loaded = bundle.load(tmp_path)
    assert not loaded.info.explainable
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(loaded.network(x)[0], model.network(x)[0])


def test_whoever_may_read_the_manifest_may_read_every_file(folder: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {(folder / manifest.FILE).stat().st_mode & 0o777}


def test_a_half_written_bundle_is_no_bundle(folder: Path) -> None:
    class StoppedError(Exception):
        pass

    class Texts(dict[str, str]):
        def items(self):  # type: ignore[no-untyped-def]
            raise StoppedError

    with pytest.raises(StoppedError):
        bundle.save(
            make_manifest(), make_model(), None, folder, extra=Texts({"report.html": "new"})
        )
    with pytest.raises(BundleNotFoundError):
        bundle.load(folder)
