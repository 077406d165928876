"""Boxes in observations, against plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.regions import visited
from jaxdiff.types import Region

BOX = Region("box", (0.0, -1.0), (1.0, 2.0))


def test_visited_asks_the_regions_axes_alone():
    obs = np.random.default_rng(0).uniform(-3, 3, (6, 5, 4)).astype(np.float32)
    expected = (obs[..., 0] >= 0) & (obs[..., 0] <= 1) & (obs[..., 1] >= -1) & (obs[..., 1] <= 2)
    found = visited(jnp.asarray(obs), BOX)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (6, 5)
    assert 0 < expected.mean() < 1


def test_the_edge_belongs_to_the_region():
    assert visited(jnp.array([[0.0, -1.0], [1.0, 2.0]]), BOX).all()
    assert not visited(jnp.array([[-1e-3, 0.0], [0.5, 2.001]]), BOX).any()


@pytest.mark.parametrize(
    ("region", "shape"), [(BOX, (3, 1)), (BOX, ()), (Region("crooked", (0.0,), (1.0, 1.0)), (3, 4))]
)
def test_a_region_must_fit_the_observation(region, shape):
    with pytest.raises(ValueError, match=f"region '{region.name}' has low of"):
        visited(jnp.zeros(shape), region)
