"""Gains and rates against float64 numpy and numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.offloading import System, gain_db, rate, rates, reachable

SYSTEM = System(num_servers=2)


def test_gain_at_a_hundred_metres_is_that_of_the_table(x64):
    np.testing.assert_allclose(gain_db(jnp.array(100.0), "v2i"), -38.4 - 42.0, rtol=1e-12)
    np.testing.assert_allclose(gain_db(jnp.array(100.0), "v2v"), -44.23 - 33.4, rtol=1e-12)


def test_nodes_nearer_than_a_metre_gain_as_at_one():
    np.testing.assert_array_equal(gain_db(jnp.array([0.0, 0.5, 1.0]), "v2v"), np.full(3, -44.23, np.float32))


def test_rates_follow_shannon_with_the_first_node_as_infrastructure(x64):
    random = np.random.default_rng(0)
    distance, fading = random.uniform(1, 300, (4, 5, 3)), random.exponential(size=(4, 5, 3))
    gain = np.concatenate(
        [-38.4 - 21 * np.log10(distance[..., :1]), -44.23 - 16.7 * np.log10(distance[..., 1:])], axis=-1
    )
    snr = 10 ** ((23.0 + 114.0 + gain) / 10) * fading
    got = rates(SYSTEM, jnp.asarray(distance), jnp.asarray(fading))
    np.testing.assert_allclose(got, 10 * np.log2(1 + snr), rtol=1e-9)


def test_a_raw_image_takes_25_milliseconds_at_a_hundred_metres():
    speed = rate(SYSTEM, jnp.array(100.0), jnp.array(1.0), kind="v2i")
    np.testing.assert_allclose(8 * 0.602112 / speed, 0.0256, rtol=0.01)


def test_a_fading_of_zero_still_gets_through():
    speed = rate(SYSTEM, jnp.array(300.0), jnp.array(0.0), kind="v2i")
    assert 0 < float(speed) < 0.1


def test_vehicles_are_reached_within_range_and_the_rsu_always():
    got = reachable(SYSTEM, jnp.array([[900.0, 150.0, 150.1]]))
    np.testing.assert_array_equal(got, [[True, True, False]])


def test_an_unknown_kind_of_link_is_refused():
    with pytest.raises(KeyError, match="unknown kind of link 'v2x'; .*known: v2i, v2v"):
        gain_db(jnp.array(1.0), "v2x")
