"""Laws of the acceptance set: what is read, which figures come of it, and where the limits are."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from ibinn.errors import DataError, ExpiredError, ImageDecodeError, NotPossibleError, QueueFullError
from ibinn.reliability import top_label_ece
from ibinn.types import Verdict
from service.models import acceptance
from service.models.acceptance import Acceptance, FigureName
from service.models.served import Served
from tests.service.models.scripted import (
    IMAGES_PER_CLASS,
    Script,
    acceptance_set,
    in_background,
    load,
    write,
)
from tests.service.running import settings
from tests.service.stub import CLASSES

COUNT = IMAGES_PER_CLASS * len(CLASSES)


def make(tmp_path, script: Script, **info) -> Served:
    served = Served.of(load(write(tmp_path / "models", script.name, script)))
    return dataclasses.replace(served, info=dataclasses.replace(served.info, **info))


async def compare(tmp_path, candidate, present, *, background=in_background, **changes):
    chosen = tmp_path / "acceptance"
    folder = chosen if chosen.is_dir() else acceptance_set(chosen)
    asked = Acceptance(settings(acceptance=folder, **changes), background)
    return {figure.name: figure for figure in await asked.compare(candidate, present)}


async def test_without_an_acceptance_set_there_are_no_figures(tmp_path):
    served = make(tmp_path, Script())
    assert await Acceptance(settings(), in_background).compare(served, served) == ()


async def test_the_figures_are_those_of_the_answers(tmp_path):
    candidate = make(tmp_path, Script(name="new", wrong=4, flagged=1, confidence=0.7))
    present = make(tmp_path, Script(name="old", wrong=2, flagged=2))
    found = await compare(tmp_path, candidate, present)
    assert found[FigureName.ACCURACY].candidate == pytest.approx(16 / 20)
    assert found[FigureName.ACCURACY].present == pytest.approx(18 / 20)
    assert found[FigureName.TOP_LABEL_ECE].candidate == pytest.approx(abs(16 / 20 - 0.7))
    assert found[FigureName.TOP_LABEL_ECE].present == pytest.approx(0.0, abs=1e-12)
    assert found[FigureName.FALSE_POSITIVE_RATE].candidate == pytest.approx(1 / 20)
    assert found[FigureName.FALSE_POSITIVE_RATE].present == pytest.approx(2 / 20)
    assert {figure.count for figure in found.values()} == {COUNT}


async def test_the_calibration_error_is_the_librarys(tmp_path):
    served = make(tmp_path, Script(wrong=3, confidence=0.8))
    found = await compare(tmp_path, served, served)
    p = np.zeros((COUNT, 3))
    labels = np.repeat(np.arange(3), IMAGES_PER_CLASS)
    top = (labels + (np.arange(COUNT) % IMAGES_PER_CLASS < 3)) % 3
    p[:] = 0.1
    p[np.arange(COUNT), top] = 0.8
    assert found[FigureName.TOP_LABEL_ECE].candidate == pytest.approx(top_label_ece(p, labels))


@pytest.mark.parametrize(
    ("name", "margin", "better", "worse"),
    [
        (FigureName.ACCURACY, "accuracy_margin", {"wrong": 5}, {"wrong": 6}),
        (FigureName.FALSE_POSITIVE_RATE, "false_positive_margin", {"flagged": 5}, {"flagged": 6}),
        (FigureName.TOP_LABEL_ECE, "calibration_margin", {"wrong": 7}, {"wrong": 8}),
    ],
)
async def test_a_figure_passes_up_to_its_margin_and_no_further(
    tmp_path, name, margin, better, worse
):
    start = {"wrong": 2, "flagged": 2}
    present = make(tmp_path, Script(name="old", **start))
    margin_value = 0.25 if name is FigureName.TOP_LABEL_ECE else 0.15
    for number, (script, passes) in enumerate(((better, True), (worse, False))):
        candidate = make(tmp_path, Script(name=f"new{number}", **{**start, **script}))
        found = await compare(tmp_path, candidate, present, **{margin: margin_value})
        assert found[name].passed is passes


async def test_a_margin_of_one_checks_nothing(tmp_path):
    present = make(tmp_path, Script(name="old"))
    candidate = make(tmp_path, Script(name="new", wrong=20, flagged=20))
    margins = dict.fromkeys(("accuracy_margin", "calibration_margin", "false_positive_margin"), 1)
    found = await compare(tmp_path, candidate, present, **margins)
    assert all(figure.passed and 0 <= figure.limit <= 1 for figure in found.values())


async def test_without_a_present_model_only_the_flags_have_a_limit_alpha_and_the_margin(tmp_path):
    candidate = make(tmp_path, Script(wrong=20, flagged=2), alpha=0.05)
    found = await compare(tmp_path, candidate, None, false_positive_margin=0.04)
    rate = found[FigureName.FALSE_POSITIVE_RATE]
    assert (rate.limit, rate.passed, rate.present) == (pytest.approx(0.09), False, None)
    assert found[FigureName.ACCURACY].passed
    assert found[FigureName.TOP_LABEL_ECE].passed


async def test_an_answer_that_is_not_finite_counts_as_certain_and_wrong(tmp_path):
    found = await compare(tmp_path, make(tmp_path, Script(fault="nan")), None)
    assert found[FigureName.ACCURACY].candidate == 0.0
    assert found[FigureName.TOP_LABEL_ECE].candidate == 1.0


async def test_a_model_that_assesses_nothing_counts_as_flagging_all(tmp_path):
    async def not_assessed(served, image, *, patience_s):
        answer = await in_background(served, image, patience_s=patience_s)
        return dataclasses.replace(answer, verdict=Verdict.NOT_ASSESSED, combined=None)

    served = make(tmp_path, Script())
    found = await compare(tmp_path, served, None, background=not_assessed)
    assert found[FigureName.FALSE_POSITIVE_RATE].candidate == 1.0


async def test_images_of_a_class_that_only_the_new_model_knows_are_wrong_for_the_present_one(
    tmp_path,
):
    candidate = make(tmp_path, Script(name="new"))
    present = make(tmp_path, Script(name="old"), classes=("cat", "dog", "plane"))
    found = await compare(tmp_path, candidate, present)
    assert found[FigureName.ACCURACY].present == pytest.approx(2 / 3)


async def test_the_present_models_figures_are_measured_once_per_set(tmp_path):
    asked = []

    async def counted(served, image, *, patience_s):
        asked.append(served)
        return await in_background(served, image, patience_s=patience_s)

    folder = acceptance_set(tmp_path / "acceptance")
    present, first = make(tmp_path, Script(name="old")), make(tmp_path, Script(name="new"))
    check = Acceptance(settings(acceptance=folder), counted)
    await check.compare(first, present)
    await check.compare(first, present)
    assert (asked.count(present), asked.count(first)) == (COUNT, 2 * COUNT)
    (folder / "cat" / "00.png").unlink()
    await check.compare(first, present)
    assert asked.count(present) == COUNT + COUNT - 1


async def test_a_full_queue_is_waited_for(tmp_path):
    refused = iter([True] * 5 + [False] * 1000)

    async def busy(served, image, *, patience_s):
        if next(refused):
            raise QueueFullError("full", retry_after_s=0.001)
        return await in_background(served, image, patience_s=patience_s)

    served = make(tmp_path, Script())
    found = await compare(tmp_path, served, None, background=busy)
    assert found[FigureName.ACCURACY].count == COUNT


async def test_no_more_images_are_asked_at_once_than_fill_a_batch(tmp_path):
    most = now = 0

    async def slow(served, image, *, patience_s):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return await in_background(served, image, patience_s=patience_s)

    await compare(tmp_path, make(tmp_path, Script()), None, background=slow, max_batch_size=4)
    assert most == 4


async def test_a_server_too_busy_for_the_set_says_so(tmp_path):
    async def expired(served, image, *, patience_s):
        raise ExpiredError("no time")

    with pytest.raises(NotPossibleError, match="too busy"):
        await compare(tmp_path, make(tmp_path, Script()), None, background=expired)


async def test_a_file_that_is_no_image_is_named(tmp_path):
    (acceptance_set(tmp_path / "acceptance") / "dog" / "07.png").write_bytes(b"GIF")

    async def background(served, image, *, patience_s):
        if image == b"GIF":
            raise ImageDecodeError("not an image")
        return await in_background(served, image, patience_s=patience_s)

    with pytest.raises(DataError, match=r"dog/07\.png cannot be classified: not an image"):
        await compare(tmp_path, make(tmp_path, Script()), None, background=background)


async def test_a_class_that_no_model_knows_is_named(tmp_path):
    folder = acceptance_set(tmp_path / "acceptance")
    (folder / "dog").rename(folder / "dgo")
    with pytest.raises(DataError, match=r"class 'dgo'.*cat, dog, ship"):
        await compare(tmp_path, make(tmp_path, Script()), None)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images; expected"):
        acceptance.read(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="cat holds no images"):
        acceptance.read(tmp_path)
    with pytest.raises(DataError, match=r"cannot be read.*IBINN_ACCEPTANCE"):
        acceptance.read(tmp_path / "nowhere")


def test_the_sets_digest_follows_names_and_contents_and_leaves_hidden_files_out(tmp_path):
    first = acceptance.read(acceptance_set(tmp_path / "a")).digest
    second = acceptance_set(tmp_path / "b")
    (second / "cat" / ".DS_Store").write_bytes(b"x")
    (second / "readme.txt").write_text("about")
    assert acceptance.read(second).digest == first
    (second / "cat" / "00.png").rename(second / "cat" / "99.png")
    assert acceptance.read(second).digest != first
