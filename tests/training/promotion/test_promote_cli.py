"""`ibinn-train promote`, `approve` and `plan` on real bundles of a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from ibinn import bundle, manifest, signing
from tests.ibinn.bundles import rewrite_manifest, write_bundle
from training.cli import app
from training.data import open_data
from training.promotion import deploying, paired

MARGINS = (
    "--accuracy-margin=0.05",
    "--calibration-margin=0.1",
    "--false-positive-margin=0.1",
    "--miss-margin=0.1",
    "--recall-margin=0.3",
)


def ibinn_train(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Place:
    """Bundles, sets and keys in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.current = root / "current"
        self.candidate = root / "candidate"
        self.acceptance = root / "acceptance"
        self.ood = root / "ood"
        self.out = root / "decision"
        self.models = root / "models"
        self.models.mkdir()
        write_bundle(self.current)
        write_bundle(self.candidate, seed=1)
        digits = open_data("digits").train
        for index in range(200):
            name = digits.class_names[int(digits.labels[index])]
            self.put(self.acceptance / name / f"{index}.png", digits.load(index))
        noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
        for index, image in enumerate(noise):
            self.put(self.ood / "noise" / f"{index}.png", image)
        self.key, self.keys = self.make_key("signing")

    def make_key(self, name: str) -> tuple[Path, Path]:
        pair = signing.generate_keypair()
        private, public = self.root / f"{name}.pem", self.root / f"{name}.pub.pem"
        private.write_bytes(pair.private_pem)
        public.write_bytes(pair.public_pem)
        return private, public

    def put(self, path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def promote(self, *more: str | Path, margins: tuple[str, ...] = MARGINS) -> Result:
        return ibinn_train(
            "promote", self.candidate, f"--current={self.current}", *margins,
            f"--acceptance={self.acceptance}", f"--ood={self.ood}", f"--out={self.out}", *more,
        )  # fmt: skip

    def approve(self, *more: str | Path) -> Result:
        return ibinn_train("approve", self.out, "--by=Ada", f"--key={self.key}", *more)

    def deploy(self, keys: Path | None = None) -> Result:
        return ibinn_train(
            "promote", f"--approved={self.out}", f"--deploy={self.models}",
            f"--trusted-keys={keys or self.keys}",
        )  # fmt: skip

    @property
    def deployed(self) -> list[str]:
        return sorted(path.name for path in self.models.iterdir())

    def decision(self) -> dict[str, object]:
        return json.loads((self.out / "decision.json").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    # The same calibration: an equal candidate under another name.
    for path in made.current.iterdir():
        (made.candidate / path.name).write_bytes(path.read_bytes())
    rewrite_manifest(made.candidate, name="tiny-2")
    return made


def test_an_equal_candidate_waits_is_approved_and_then_served(place: Place) -> None:
    waits = place.promote()
    assert waits.exit_code == 3, waits.output
    assert "PENDING_APPROVAL" in waits.stdout
    assert "use 1 of 10 of the acceptance set" in waits.stdout
    assert place.deployed == []
    page = (place.out / "decision.html").read_text()
    assert "Waits for a person" in page
    assert manifest.file_sha256(place.candidate / manifest.FILE) in page
    refused = place.deploy()
    assert refused.exit_code == 1
    assert "is not approved: there is no approval.json" in refused.stderr
    assert place.deployed == []
    assert place.approve("--comment=read it").exit_code == 0
    done = place.deploy()
    assert done.exit_code == 0, done.output
    assert "approved by Ada" in done.stdout
    [name] = place.deployed
    assert name.startswith("tiny-2-")
    assert bundle.verify(place.models / name).name == "tiny-2"
    assert place.deploy().exit_code == 0  # again: nothing to do
    assert place.deployed == [name]


def test_deploying_without_an_approval_or_a_plan_is_no_option(place: Place) -> None:
    result = place.promote(f"--deploy={place.models}")
    assert result.exit_code == 2
    assert "--deploy needs an approved decision" in result.stderr
    assert place.deployed == []


def test_an_approval_by_another_key_or_of_another_decision_is_worth_nothing(place: Place) -> None:
    place.promote()
    place.approve()
    _, others = place.make_key("other")
    stranger = place.deploy(others)
    assert stranger.exit_code == 2
    assert "which is not trusted" in stranger.stderr
    path = place.out / "decision.json"
    path.write_text(path.read_text().replace('"retired": []', '"retired": ["9"]'))
    changed = place.deploy()
    assert changed.exit_code == 2
    assert "it was changed after the approval" in changed.stderr
    assert place.deployed == []


def test_the_signature_of_a_bundle_approves_nothing(place: Place) -> None:
    place.promote()
    place.approve()
    signing.sign_bundle(place.candidate, place.key.read_bytes())
    signature = (place.candidate / manifest.SIGNATURE).read_bytes()
    (place.out / "approval.json.sig").write_bytes(signature)
    assert place.deploy().exit_code == 2


def test_a_candidate_changed_after_its_approval_is_not_copied(place: Place) -> None:
    place.promote()
    place.approve()
    rewrite_manifest(place.candidate, alpha=0.5)
    result = place.deploy()
    assert result.exit_code == 2
    assert "it was changed after it was judged" in result.stderr
    assert place.deployed == []


def test_an_expired_approval_deploys_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from training.promotion import approval
    from training.promotion.decision import now

    place.promote()
    place.approve("--valid-days=1")
    monkeypatch.setattr(approval, "now", lambda: now() + timedelta(days=2))
    result = place.deploy()
    assert result.exit_code == 1
    assert "the approval ran out at" in result.stderr


def test_an_inferior_candidate_is_refused_and_cannot_be_approved(place: Place) -> None:
    # It calls every second image unknown.
    rewrite_manifest(place.candidate, alpha=0.5)
    refused = place.promote()
    assert refused.exit_code == 1, refused.output
    assert "false_positive_rate against current: inferior beyond its margin" in refused.stdout
    assert "false_positive_rate against first: inferior" in refused.stdout
    assert place.decision()["state"] == "REFUSED"
    assert "Refused" in (place.out / "decision.html").read_text()
    result = place.approve()
    assert result.exit_code == 1
    assert "a refusal cannot be approved" in result.stderr
    assert not (place.out / "approval.json").exists()


def test_too_few_images_refuse_without_using_up_the_set(place: Place) -> None:
    result = place.promote(margins=("--accuracy-margin=0.001",))
    assert result.exit_code == 1
    assert "accuracy against current: too few images" in result.stdout
    assert f"(200 images, {paired.fewest(0.001):,} needed)" in result.stdout
    assert not (place.root / "acceptance.uses.jsonl").exists()


def test_uses_of_the_set_are_counted_and_end(place: Place) -> None:
    assert place.promote("--use-limit=2").exit_code == 3
    again = place
    again.out = place.root / "again"
    assert "use 1 of 2 of the acceptance set (this comparison was made before)" in (
        again.promote("--use-limit=2").stdout
    )
    place.out = place.root / "second"
    rewrite_manifest(place.candidate, name="tiny-3")
    assert "use 2 of 2" in place.promote("--use-limit=2").stdout
    # One image more does not make it a new set.
    place.put(place.acceptance / "3" / "more.png", open_data("digits").train.load(500))
    place.out = place.root / "third"
    result = place.promote("--use-limit=2")
    assert result.exit_code == 1
    assert "use 3 of 2 of the acceptance set: the set is used up" in result.stdout
    log = place.root / "acceptance.uses.jsonl"
    assert len(log.read_text().splitlines()) == 2
    log.write_text(log.read_text().replace('"candidate": "', '"candidate": "0'))
    place.out = place.root / "fourth"
    assert "acceptance.uses.jsonl, line 1: not the line that was written" in (
        place.promote().stderr
    )


def test_sets_that_cannot_be_used_are_named(place: Place) -> None:
    (place.acceptance / "3" / "broken.png").write_bytes(b"no image")
    assert "3/broken.png" in place.promote().stderr
    copy = (place.acceptance / "3").glob("*.png")
    twice = next(path for path in sorted(copy) if path.name != "broken.png")
    (place.acceptance / "3" / "broken.png").write_bytes(twice.read_bytes())
    assert "are the same image; each may count once" in place.promote().stderr
    (place.acceptance / "3" / "broken.png").unlink()
    (place.ood / "empty").mkdir()
    assert "empty holds no images" in place.promote().stderr
    assert not place.out.exists()


def test_decisions_are_kept(place: Place) -> None:
    place.promote()
    result = place.promote()
    assert result.exit_code == 2
    assert "holds a decision already" in result.stderr


def plan_of(place: Place, *edits: tuple[str, str]) -> Path:
    path = place.root / "plan.toml"
    made = ibinn_train(
        "plan", "new", path, f"--current={place.current}", f"--acceptance={place.acceptance}",
        f"--ood={place.ood}", "--promotions=1",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    text = path.read_text()
    wide = {
        "accuracy = 0.01": "accuracy = 0.05",
        "calibration = 0.02": "calibration = 0.1",
        "positives = 0.01": "positives = 0.1",
        "misses = 0.03": "misses = 0.1",
        "\nrecall = 0.05": "\nrecall = 0.3",
    }
    for old, new in (*wide.items(), *edits):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    signed = ibinn_train("plan", "sign", path, f"--key={place.key}")
    assert signed.exit_code == 0, signed.output
    return path


def under(place: Place, plan: Path) -> Result:
    return place.promote(
        f"--plan={plan}", f"--trusted-keys={place.keys}", f"--deploy={place.models}", margins=()
    )


def test_within_a_signed_plan_nobody_is_asked_as_often_as_it_says(place: Place) -> None:
    plan = plan_of(place)
    done = under(place, plan)
    assert done.exit_code == 0, done.output
    assert "APPROVED_BY_PLAN" in done.stdout
    assert len(place.deployed) == 1
    checked = ibinn_train("plan", "check", plan, f"--trusted-keys={place.keys}")
    assert "1 of 1 promotions made" in checked.stdout
    rewrite_manifest(place.candidate, name="tiny-3")
    place.out = place.root / "second"
    waits = under(place, plan)
    assert waits.exit_code == 3
    assert "waits for a person: the plan's 1 promotions are used up" in waits.stdout
    assert len(place.deployed) == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("valid_until = 2", "valid_until = 1", "the plan ran out at 1"),
        ('lineage = ["', 'lineage = ["' + 64 * "0" + '"] # ["', "is not of its lineage"),
        ("[limits]", "[limits]\nfalse_positives = 0.0", "false_positives is "),
        ("[limits]", "[limits]\naccuracy = 0.999", "accuracy is "),
    ],
)
def test_outside_a_plan_a_candidate_waits_for_a_person(
    place: Place, old: str, new: str, said: str
) -> None:
    result = under(place, plan_of(place, (old, new)))
    assert result.exit_code == 3, result.output
    assert f"waits for a person: {said}" in result.stdout or said in result.stdout
    assert place.deployed == []


def test_a_plan_that_nobody_trusted_signed_is_refused_before_anything_is_measured(
    place: Place,
) -> None:
    plan = plan_of(place)
    plan.write_text(plan.read_text().replace("promotions = 1", "promotions = 99"))
    result = under(place, plan)
    assert result.exit_code == 2
    assert "it was changed" in result.stderr
    assert not (place.root / "acceptance.uses.jsonl").exists()


def test_a_half_copied_bundle_is_not_seen_by_a_server(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.promote()
    place.approve()

    def full(source: Path, target: Path) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(deploying, "_copy", full)
        result = place.deploy()
    assert result.exit_code == 2
    assert "cannot be written (no space left)" in result.stderr
    assert all(name.endswith(".tmp") for name in place.deployed)
    assert place.deploy().exit_code == 0
    assert not any(name.endswith(".tmp") for name in place.deployed)
