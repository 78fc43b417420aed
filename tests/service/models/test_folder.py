"""Laws of the models folder: which names lead where, and what is new in it."""

from __future__ import annotations

import pytest

from ibinn.errors import NotPossibleError, UnknownModelError
from service.models import folder
from service.models.watch import Watch
from tests.service.models.scripted import flip_a_byte, write


@pytest.fixture
def models(tmp_path):
    (tmp_path / "models").mkdir()
    write(tmp_path / "models", "v1")
    write(tmp_path, "outside")
    return tmp_path / "models"


def names(found) -> list[str]:
    return [one.bundle.name for one in found]


def test_a_bundle_is_found_by_name(models):
    assert folder.find(models, "v1") == models / "v1"


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "v1/..", "/etc", "v2", "a b", "v1/"])
def test_no_name_leads_out_of_the_folder(models, name):
    with pytest.raises(UnknownModelError, match="there are: v1"):
        folder.find(models, name)


def test_links_lead_to_bundles_of_the_folder_alone(models):
    (models / "current").symlink_to("v1")
    (models / "stray").symlink_to("../outside")
    assert folder.find(models, "current") == models / "current"
    with pytest.raises(UnknownModelError, match="there are: current, v1"):
        folder.find(models, "stray")


def test_without_a_models_folder_there_is_nothing_to_ask_for():
    with pytest.raises(NotPossibleError, match="IBINN_MODELS"):
        folder.find(None, "v1")


def test_a_fingerprint_follows_names_contents_and_the_policy_beside(models):
    seen = {folder.fingerprint(models / "v1")}
    flip_a_byte(models / "v1" / "weights.safetensors")
    seen.add(folder.fingerprint(models / "v1"))
    (models / "v1" / "manifest.sig").write_text("{}")
    seen.add(folder.fingerprint(models / "v1"))
    (models / "v1.policy.json").write_text("{}")
    seen.add(folder.fingerprint(models / "v1"))
    assert len(seen) == 4


def test_a_bundle_is_new_once_it_stayed_the_same_for_one_look(models):
    watch = Watch(models)
    assert names(watch.look(())) == []
    assert names(watch.look(())) == ["v1"]
    assert names(watch.look(())) == ["v1"]
    flip_a_byte(models / "v1" / "weights.safetensors")
    assert names(watch.look(())) == []
    assert names(watch.look(())) == ["v1"]


def test_a_judged_bundle_is_new_again_only_when_it_changes(models):
    watch = Watch(models)
    watch.look(())
    judged = {one.fingerprint for one in watch.look(())}
    assert names(watch.look(judged)) == []
    flip_a_byte(models / "v1" / "weights.safetensors")
    watch.look(judged)
    assert names(watch.look(judged)) == ["v1"]


def test_unfinished_and_hidden_folders_and_stray_links_are_left_alone(models, tmp_path):
    for name in (".hidden", "v2.tmp", "no bundle"):
        write(models, name)
    (models / "empty").mkdir()
    (models / "stray").symlink_to("../outside")
    watch = Watch(models)
    watch.look(())
    assert names(watch.look(())) == ["v1"]


def test_a_folder_that_is_not_there_yet_holds_nothing(tmp_path):
    assert Watch(tmp_path / "models").look(()) == ()
