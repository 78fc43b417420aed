"""Policy, costs and score files: what is written is read, what is hostile is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as serialized

from ibinn import held_out
from ibinn.errors import ConfigError, DataError, PolicyFormatError, PolicyMismatchError
from ibinn.held_out import HeldOutScores, drivers_of, leave_one_out
from ibinn.ood.p_values import p_values
from ibinn.policy import Certificate, Costs, Origin, Policy, Priors, file, terms
from ibinn.policy.values import content, content_digest
from ibinn.types import TestKind
from tests.ibinn.policies import CLASSES, K, draw_scores, make_policy

CERTIFICATE = Certificate(
    max_risk=0.02,
    delta=0.05,
    threshold=0.93,
    images=2500,
    accepted=900,
    errors=7,
    p_value=0.003,
    level=0.04,
)
FULL = make_policy(
    name="überall",
    origin=Origin(weights="a" * 64, calibration="b" * 64),
    class_alphas=(0.05, None, None, 0.1, None),
    priors=Priors(deployment=(0.1, 0.2, 0.3, 0.4, 0.0), model=(0.2,) * K),
    certificate=CERTIFICATE,
)
cost = st.floats(0.0, 1e6)


@settings(deadline=None, max_examples=40)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    alpha=st.floats(1e-6, 0.99),
    act=st.tuples(*[st.tuples(*[cost] * K)] * K),
    defer=cost,
)
def test_what_is_written_is_read_with_the_same_digest(tmp_path_factory, name, alpha, act, defer):
    costs = Costs(act=act, defer=defer, reject=0.1, unknown=1)
    policy = make_policy(name=name, alpha=alpha, costs=costs)
    path = tmp_path_factory.getbasetemp() / "policy.json"
    file.write(policy, path)
    assert file.read(path) == policy
    assert file.read(path).digest == policy.digest


def test_a_full_policy_is_read_as_it_was_written(tmp_path: Path) -> None:
    file.write(FULL, tmp_path / "policy.json")
    assert file.read(tmp_path / "policy.json") == FULL


def resigned(**changes: object) -> str:
    """The full policy with entries changed and the digest that then belongs to it."""
    values = json.loads(json.dumps(content(FULL))) | changes
    return json.dumps(values | {"sha256": content_digest(values)})


def nested(part: str, **changes: object) -> str:
    return resigned(**{part: json.loads(json.dumps(content(FULL)))[part] | changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as JSON"),
        ("[]", "a list, expected a JSON object"),
        ("null", "None, expected a JSON object"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        ('{"alpha": NaN}', "holds NaN"),
        ('{"alpha": ' + "9" * 10_000 + "}", "not readable as JSON"),
        ('{"name": "\\ud800"}', "not readable as JSON"),
        ("{}", "format version is None"),
        (resigned(format_version=2), "format version is 2"),
        (resigned(format_version=True), "format version is True"),
        (resigned().replace("0.93", "0.03"), "it was changed"),
        (resigned(extra=1), "'extra' is unknown"),
        (resigned(alpha=True), "'alpha' is True; expected a number"),
        (resigned(alpha="0.01"), "'alpha' is a str"),
        (resigned(alpha=10**400), "'alpha' is a int; expected a number that is finite"),
        (resigned(alpha=2.0), "alpha is 2"),
        (resigned(classes="cat"), "'classes' is a str; expected a list"),
        (resigned(classes=[1, 2, 3, 4, 5]), "'classes' is a int; expected text"),
        (resigned(name=None), "'name' is None"),
        (resigned(costs=None), "'costs' is None; expected an object"),
        (nested("costs", act=[[0.0]]), "the costs of acting are 1 rows"),
        (nested("costs", act=5), "'act' is a int; expected a list"),
        (nested("costs", defer=-1.0), "cost defer is -1"),
        (nested("costs", steal=0), "'steal' of costs is unknown"),
        (nested("priors", deployment=[1.0]), "deployment priors and 5 of the model"),
        (nested("priors", model=[0.0, 0.25, 0.25, 0.25, 0.25]), "expected shares above 0"),
        (nested("certificate", threshold=1.5), "threshold is 1.5"),
        (nested("certificate", errors=1000), "expected each at most the next"),
        (nested("certificate", errors=1.5), "'certificate.errors' is a float"),
        (nested("certificate", p_value=0.5), "expected p <= level"),
        (nested("origin", weights=3), "'origin.weights' is a int"),
        (resigned(origin=None), "names no model"),
    ],
)
def test_hostile_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PolicyFormatError, match=message) as caught:
        file.read(path)
    assert str(path) in str(caught.value)


def test_files_that_are_not_text_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("binary", "missing"):
        with pytest.raises(PolicyFormatError, match=name):
            file.read(tmp_path / name)


COSTS = """
error = 1
defer = 0.2
reject = 0.05
unknown = 3
alpha = 0.02
[confusions.cat]
dog = 0.1
[priors]
cat = 0.2
dog = 0.2
frog = 0.2
ship = 0.2
truck = 0.2
[class_alpha]
frog = 0.05
"""


def test_a_costs_file_says_what_each_action_costs() -> None:
    found = terms.parse(COSTS, CLASSES)
    assert found.costs.act[0] == (0.0, 0.1, 1.0, 1.0, 1.0)
    assert found.costs.act[1] == (1.0, 0.0, 1.0, 1.0, 1.0)
    assert (found.costs.defer, found.costs.reject, found.costs.unknown) == (0.2, 0.05, 3.0)
    assert found.alpha == 0.02
    assert found.priors == (0.2,) * K
    assert found.class_alphas == (None, None, 0.05, None, None)


def test_what_a_costs_file_leaves_out_is_as_in_the_bundle() -> None:
    found = terms.parse("error = 2\ndefer = 1\nreject = 0", CLASSES)
    assert found == terms.Terms(
        costs=Costs(
            act=tuple(tuple(2.0 * (i != j) for j in range(K)) for i in range(K)),
            defer=1,
            reject=0,
            unknown=2,
        )
    )


def test_a_costs_file_in_json_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(tomllib.loads(COSTS)), encoding="utf-8")
    assert terms.read(path, CLASSES) == terms.parse(COSTS, CLASSES)
    for text, message in (("[]", "holds a list"), ("{", "not readable as JSON")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            terms.read(path, CLASSES)


BASE = "error = 1\ndefer = 0.2\nreject = 0.05\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("error = ", "not readable as TOML"),
        ("x = " + "[" * 50_000, "not readable as TOML"),
        ("error = 1\ndefer = 1", "'reject' is missing"),
        (BASE + "eror = 1", "'eror' is unknown"),
        (BASE.replace("0.2", "-1"), "defer is -1"),
        (BASE.replace("0.2", "true"), "defer is True"),
        (BASE.replace("0.2", "nan"), "defer is nan"),
        (BASE + "alpha = 0", "alpha is 0"),
        (BASE + "[confusions.cow]\ncat = 1", "no class 'cow'"),
        (BASE + "[confusions.cat]\ncow = 1", "no class 'cow'"),
        (BASE + "[confusions]\ncat = 1", "confusions.cat is 1"),
        (BASE + "confusions = 3", "confusions is 3"),
        (BASE + "[priors]\ncat = 1", "priors lack 'dog'"),
        (BASE + "[class_alpha]\ncat = 2", "class_alpha.cat is 2"),
        (COSTS.replace("truck = 0.2", "truck = 0.9"), "priors add up to 1.7"),
        (COSTS.replace("truck = 0.2", "truck = 1.2"), "priors.truck is 1.2"),
    ],
)
def test_bad_costs_files_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "costs.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        terms.read(path, CLASSES)
    assert str(path) in str(caught.value)


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    scores = draw_scores(50)
    held_out.save(scores, tmp_path / "s", weights="w", calibration="c")
    found = held_out.load(tmp_path / "s", weights="w", calibration="c")
    for name in ("logits", "labels", "combined_p", "drivers", "class_p"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scores, name))


def test_scores_of_another_model_are_refused(tmp_path: Path) -> None:
    held_out.save(draw_scores(5), tmp_path / "s", weights="w", calibration="c")
    with pytest.raises(PolicyMismatchError, match="scored with weights w"):
        held_out.load(tmp_path / "s", weights="v", calibration="c")
    with pytest.raises(PolicyMismatchError, match="scored with calibration c"):
        held_out.load(tmp_path / "s", weights="w", calibration="d")


def test_hostile_score_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores"
    for data, message in (
        (b"", "not readable"),
        (b"\x80\x04pickle", "not readable"),
        (serialized({"x": np.zeros(3)}), "format None"),
        (
            serialized(
                {"logits": np.zeros((2, 3), np.float32)},
                metadata={"format": "ibinn.held_out/1", "weights": "w", "calibration": "c"},
            ),
            "lack 'labels'",
        ),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            held_out.load(path, weights="w", calibration="c")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("labels", np.array([0, 9]), "labels run from 0 to 9"),
        ("labels", np.array([0.0, 1.0]), "labels have type float64"),
        ("labels", np.array([0]), r"labels have shape \(1,\)"),
        ("drivers", np.array([256, 0]), "drivers run from 0 to 127"),
        ("combined_p", np.array([0.0, 1.0]), r"outside \(0, 1\]"),
        ("logits", np.zeros((0, 3)), "logits have shape"),
    ],
)
def test_scores_that_do_not_fit_are_refused(name: str, value: np.ndarray, message: str) -> None:
    arrays = held_out.to_arrays(draw_scores(2)) | {name: value}
    with pytest.raises(DataError, match=message):
        held_out.from_arrays(arrays)


def test_leave_one_out_ranks_each_image_among_the_others(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 20, 60).astype(float)
    found = leave_one_out(scores)
    for i, score in enumerate(scores):
        others = np.sort(np.delete(scores, i))
        expected = p_values(np.array([score]), others, TestKind.HIGH_IS_UNUSUAL)
        assert found[i] == pytest.approx(expected[0])


def test_the_driver_is_the_group_with_the_smallest_p_and_of_equals_the_farthest_out() -> None:
    p = {
        "pixel": np.array([0.1, 0.2, 0.5, np.nan]),
        "style": np.array([0.2, 0.2, 0.1, np.nan]),
        "semantic": np.array([0.3, 0.9, 0.1, 0.5]),
    }
    excess = {
        "pixel": np.array([9.0, 1.0, 9.0, 9.0]),
        "style": np.array([9.0, 2.0, 1.0, 9.0]),
        "semantic": np.array([9.0, 9.0, 3.0, 0.0]),
    }
    np.testing.assert_array_equal(drivers_of(p, excess), [0, 1, 2, 2])


def test_a_subset_keeps_images_together() -> None:
    scores: HeldOutScores = draw_scores(10)
    part = scores.subset(np.array([3, 1]))
    np.testing.assert_array_equal(part.logits, scores.logits[[3, 1]])
    np.testing.assert_array_equal(part.labels, scores.labels[[3, 1]])
    assert len(part) == 2


def test_policies_are_values() -> None:
    assert isinstance(FULL, Policy)
    assert hash(FULL) == hash(file.from_json(resigned()))
