"""Formulas against float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.rl import normalised_q_loss, polyak, select_candidate, td_target

RANDOM = np.random.default_rng(0)


def test_td_target_bootstraps_unless_the_episode_terminated(x64):
    reward, next_value = RANDOM.normal(size=(2, 4))
    discount = np.array([1.0, 0.0, 1.0, 0.0])
    got = td_target(jnp.asarray(reward), jnp.asarray(discount), jnp.asarray(next_value), jnp.asarray(0.9))
    np.testing.assert_allclose(got, np.where(discount > 0, reward + 0.9 * next_value, reward), rtol=1e-12)


def test_td_target_passes_no_gradient():
    one = jnp.ones(3)
    gradients = jax.grad(lambda *args: td_target(*args).sum(), argnums=(0, 1, 2, 3))(one, one, one, 0.9)
    assert all((leaf == 0).all() for leaf in gradients)


def test_td_target_refuses_values_that_would_broadcast():
    with pytest.raises(AssertionError, match=r"\(3, 1\)"):
        td_target(jnp.ones(3), jnp.ones(3), jnp.ones((3, 1)), 0.9)


def test_polyak_is_a_weighted_mean_leaf_by_leaf(x64):
    online, target = ({"w": RANDOM.normal(size=(3, 2)), "b": (RANDOM.normal(size=4),)} for _ in range(2))
    got = polyak(jax.tree.map(jnp.asarray, online), jax.tree.map(jnp.asarray, target), 0.3)
    jax.tree.map(lambda g, o, t: np.testing.assert_allclose(g, 0.3 * o + 0.7 * t, rtol=1e-12), got, online, target)


def test_polyak_changes_no_bit_at_rate_zero_nor_between_equal_trees():
    online, target = (jnp.asarray(RANDOM.normal(size=1000), jnp.float32) for _ in range(2))
    np.testing.assert_array_equal(polyak(online, target, jnp.float32(0.0)), target)
    np.testing.assert_array_equal(polyak(online, online, jnp.float32(0.005)), online)
    np.testing.assert_allclose(polyak(online, target, 1.0), online, atol=5e-7)


def test_polyak_keeps_the_target_s_precision():
    half = jnp.ones(3, jnp.bfloat16)
    assert polyak(jnp.zeros(3), half, jnp.float32(0.5)).dtype == jnp.bfloat16


def test_polyak_approaches_its_online_tree_geometrically():
    target = jnp.array([1.0])
    for _ in range(10):
        target = polyak(jnp.array([0.0]), target, 0.1)
    np.testing.assert_allclose(target, 0.9**10, rtol=1e-6)


def test_the_q_loss_does_not_depend_on_the_reward_s_scale(x64):
    q, other = RANDOM.normal(size=(2, 8))
    got = normalised_q_loss(jnp.asarray(q), jnp.asarray(other))
    np.testing.assert_allclose(got, -q.mean() / np.abs(other).mean(), rtol=1e-12)
    np.testing.assert_allclose(normalised_q_loss(jnp.asarray(100 * q), jnp.asarray(100 * other)), got, rtol=1e-12)


def test_the_q_loss_passes_no_gradient_through_its_denominator(x64):
    q = jnp.asarray(RANDOM.normal(size=8))
    np.testing.assert_allclose(
        jax.grad(lambda q: normalised_q_loss(q, q))(q), np.full(8, -1 / 8 / np.abs(np.asarray(q)).mean()), rtol=1e-12
    )


def test_the_q_loss_of_values_that_are_all_zero_is_finite():
    loss, gradient = jax.value_and_grad(normalised_q_loss)(jnp.zeros(4), jnp.zeros(4))
    assert loss == 0.0
    assert jnp.isfinite(gradient).all()


@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_each_example_gets_its_own_candidate(batch):
    candidates = RANDOM.normal(size=(6, *batch, 3)).astype(np.float32)
    index = RANDOM.integers(0, 6, size=batch)
    got = jax.jit(select_candidate)(jnp.asarray(candidates), jnp.asarray(index))
    assert got.shape == (*batch, 3)
    for where in np.ndindex(*batch):
        np.testing.assert_array_equal(got[where], candidates[(index[where], *where)])
