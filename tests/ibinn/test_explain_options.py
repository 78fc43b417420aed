"""Contrasts and resolutions of explanations: what adds up keeps adding up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ibinn.errors import (
    ConfigError,
    IbinnError,
    NotExplainableError,
    RequestError,
    UnknownClassError,
)
from ibinn.explain import options as choices
from ibinn.explain.resolution import enlarged
from ibinn.types import ContrastChoice, ExplainOptions, Explanation, Heatmap, HeatmapSize
from tests.ibinn.answers import CLASSES, make_info, make_prediction

SIDE = 32


def make_explanation(classes: tuple[str, ...] = CLASSES, *, seed: int = 0) -> Explanation:
    """Heatmaps at random, of a 4×4 grid."""
    rng = np.random.default_rng(seed)
    maps = {name: rng.normal(size=(4, 4)) for name in CLASSES}
    return Explanation(
        prediction=make_prediction(),
        heatmaps=tuple(
            Heatmap(
                class_name=name,
                values=maps[name],
                log_posterior=float(maps[name].sum()),
                completeness_error=0.0,
            )
            for name in classes
        ),
        image=np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
    )


@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    side=st.integers(7, 40),
    seed=st.integers(0, 99),
)
def test_enlarging_keeps_the_sum_and_the_range(
    height: int, width: int, side: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=(height, width))
    larger = enlarged(values, side)
    assert larger.shape == (side, side)
    assert larger.sum() == pytest.approx(values.sum(), abs=1e-10)
    flat = np.full((height, width), 2.0)
    assert (enlarged(flat, side) >= 0).all()


def test_enlarging_to_the_same_size_changes_nothing() -> None:
    values = np.random.default_rng(0).normal(size=(8, 8))
    np.testing.assert_allclose(enlarged(values, 8), values, rtol=0, atol=1e-15)


def test_enlarging_by_a_whole_factor_is_linear_interpolation() -> None:
    ramp = np.broadcast_to(np.arange(4.0), (4, 4))
    np.testing.assert_allclose(
        enlarged(ramp, 8)[0] * 4, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3], atol=1e-15
    )


def test_no_cell_is_left_out() -> None:
    with pytest.raises(ConfigError, match="at least 8"):
        enlarged(np.zeros((8, 8)), 7)


@pytest.mark.parametrize("size", HeatmapSize)
def test_contrast_adds_up_to_the_log_odds(size: HeatmapSize) -> None:
    explanation = make_explanation()
    options = ExplainOptions(
        contrast=ContrastChoice(class_name="ship", versus="frog"), heatmap_size=size
    )
    contrast = choices.arranged(explanation, options).contrast
    found = {heatmap.class_name: heatmap.log_posterior for heatmap in explanation.heatmaps}
    assert contrast is not None
    assert contrast.log_odds == found["ship"] - found["frog"]
    assert contrast.values.sum() == pytest.approx(contrast.log_odds, abs=1e-10)
    assert contrast.completeness_error < 1e-10


def test_contrast_turned_round_has_the_other_sign() -> None:
    ship, frog = make_explanation(("ship", "frog")).heatmaps
    one, other = choices.contrast_of(ship, frog), choices.contrast_of(frog, ship)
    np.testing.assert_array_equal(one.values, -other.values)
    assert one.log_odds == -other.log_odds


@pytest.mark.parametrize(
    ("choice", "pair"),
    [
        (ContrastChoice(), ("cat", "dog")),
        (ContrastChoice(class_name="dog"), ("dog", "cat")),
        (ContrastChoice(class_name="ship"), ("ship", "cat")),
        (ContrastChoice(versus="cat"), ("dog", "cat")),
        (ContrastChoice(versus="truck"), ("cat", "truck")),
        (ContrastChoice(class_name="truck", versus="ship"), ("truck", "ship")),
    ],
)
def test_what_is_not_named_is_the_most_probable_class_besides(
    choice: ContrastChoice, pair: tuple[str, str]
) -> None:
    assert choices.chosen_pair(choice, make_prediction()) == pair


def test_classes_are_in_the_order_asked_and_without_a_choice_as_the_model_gave_them() -> None:
    def shown(options: ExplainOptions) -> list[str]:
        wanted = choices.classes_to_compute(options, CLASSES)
        given = make_explanation(("dog", "frog") if wanted is None else tuple(wanted))
        return [heatmap.class_name for heatmap in choices.arranged(given, options).heatmaps]

    assert shown(ExplainOptions(classes=("ship", "cat"))) == ["ship", "cat"]
    assert shown(ExplainOptions()) == ["dog", "frog"]
    with_contrast = ExplainOptions(contrast=ContrastChoice(versus="truck"))
    assert shown(with_contrast) == ["cat", "dog", "frog"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (ExplainOptions(classes=("cow",)), UnknownClassError, "'cow'; it knows cat"),
        (ExplainOptions(classes=("cat", "cat")), RequestError, "named 2 times"),
        (
            ExplainOptions(contrast=ContrastChoice(class_name="cat", versus="cat")),
            RequestError,
            "against itself",
        ),
        (ExplainOptions(contrast=ContrastChoice(versus="cow")), UnknownClassError, "'cow'"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_reason(
    options: ExplainOptions, error: type[IbinnError], words: str
) -> None:
    with pytest.raises(error, match=words):
        choices.check(options, make_info())


def test_no_option_makes_heatmaps_of_a_network_that_has_none() -> None:
    with pytest.raises(NotExplainableError, match="cifar10-small"):
        choices.check(ExplainOptions(), dataclasses.replace(make_info(), explainable=False))


def test_maps_of_the_largest_answer_allowed_are_as_many_as_the_limit_says() -> None:
    info = dataclasses.replace(make_info(), input_side=500)
    three = ExplainOptions(heatmap_size=HeatmapSize.IMAGE)
    choices.check(three, info)
    four = dataclasses.replace(three, contrast=ContrastChoice())
    choices.check(four, info)
    with pytest.raises(RequestError, match="5 heatmaps of 500×500 are 1,250,000"):
        choices.check(dataclasses.replace(four, classes=CLASSES[:4]), info)
