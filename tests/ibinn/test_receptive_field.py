"""The receptive field is the Jacobian's, and its radii are those of its mass."""

import numpy as np
import pytest
import torch

from ibinn.errors import NotExplainableError
from ibinn.explain.receptive_field import field_of, receptive_field
from tests.ibinn.networks import CIFAR, SIDE, SMALL, randomise


def test_it_is_the_mean_over_images_of_the_absolute_jacobian_of_the_central_column():
    network = randomise(SMALL.build())
    x = torch.randn(3, 3, SIDE, SIDE)
    pooling = network.layers[-1]

    def column(image):
        maps = pooling.to_pixels(network(image[None])[0])
        return maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2]

    expected = sum(
        torch.autograd.functional.jacobian(column, image).abs().sum((0, 1)) for image in x
    )
    found = receptive_field(network, x, batch=2)
    np.testing.assert_allclose(
        found.sensitivity, (expected / expected.sum()).numpy(), rtol=1e-4, atol=1e-7
    )
    assert found.images == 3
    assert found.sensitivity.sum() == pytest.approx(1.0)


def test_a_cell_that_sees_only_itself_has_its_whole_mass_there():
    sensitivity = np.zeros((16, 16))
    sensitivity[8:12, 8:12] = 1 / 16
    field = field_of(sensitivity, cells=(4, 4), images=1)
    assert (field.row, field.column, field.cell_px) == (10.0, 10.0, 4.0)
    assert field.share_in_cell == pytest.approx(1.0)
    assert field.radius_90_px == pytest.approx(np.hypot(1.5, 1.5))


def test_an_even_field_has_the_radii_of_a_disc():
    side = 200
    rows, columns = np.mgrid[:side, :side] + 0.5
    disc = (np.hypot(rows - 150, columns - 150) < 40).astype(float)
    field = field_of(disc / disc.sum(), cells=(2, 2), images=1)
    assert field.radius_50_px == pytest.approx(40 * 0.5**0.5, abs=0.5)
    assert field.radius_90_px == pytest.approx(40 * 0.9**0.5, abs=0.5)


def test_a_network_that_mixes_all_positions_has_no_receptive_field():
    with pytest.raises(NotExplainableError, match="ends in DCT pooling"):
        receptive_field(CIFAR.build().eval(), torch.randn(1, 3, SIDE, SIDE))
