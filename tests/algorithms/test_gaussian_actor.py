"""Gaussian and deterministic actors: densities against scipy, densities that integrate to one, and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import mlp, random_params, relu
import pytest
from scipy import stats

from jaxdiff.algorithms import gaussian
from jaxdiff.types import Spec

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
ACTION = np.random.default_rng(1).uniform(-1, 1, size=(5, 2)).astype(np.float32)


def weights(actor, seed=0):
    return random_params(jax.eval_shape(actor.init, jax.random.key(0)), seed)


def test_diagonal_density_is_that_of_a_normal_around_the_tanh_of_the_network():
    actor = gaussian.make_gaussian_actor(SPEC, (8,))
    params = {**weights(actor), "log_std": np.array([-0.7, 0.4], np.float32)}
    mean = np.tanh(mlp(params["mean"]["params"], OBS.astype(np.float64), relu))
    wanted = stats.norm.logpdf(ACTION, mean, np.exp([-0.7, 0.4])).sum(axis=-1)
    np.testing.assert_allclose(actor.log_prob(params, OBS, ACTION), wanted, rtol=1e-5)


@pytest.mark.parametrize(("given", "kept"), [(-50.0, -5.0), (50.0, 2.0)])
def test_log_std_stays_in_its_range(given, kept):
    actor = gaussian.make_gaussian_actor(SPEC, (8,))
    params = weights(actor)
    one, other = ({**params, "log_std": np.full(2, x, np.float32)} for x in (given, kept))
    np.testing.assert_array_equal(actor.log_prob(one, OBS, ACTION), actor.log_prob(other, OBS, ACTION))


def test_squashed_density_integrates_to_one():
    spec = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
    actor = gaussian.make_squashed_actor(spec, (8,))
    params = weights(actor)
    u = np.linspace(-6.0, 6.0, 4001)
    a = np.tanh(u).astype(np.float32)[:, None]
    density = np.exp(np.asarray(actor.log_prob(params, np.tile(OBS[:1], (len(u), 1)), a), np.float64))
    assert np.trapezoid(density * (1 - np.tanh(u) ** 2), u) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("make", [gaussian.make_gaussian_actor, gaussian.make_squashed_actor])
def test_draw_gives_the_density_of_what_it_draws(make):
    actor = make(SPEC, (8,))
    params = weights(actor)
    action, log_prob = actor.draw(jax.random.key(0), params, OBS)
    np.testing.assert_allclose(log_prob, actor.log_prob(params, OBS, action), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("make", [gaussian.make_gaussian_actor, gaussian.make_squashed_actor])
def test_temperature_zero_is_the_middle_whatever_the_key_and_samples_stay_in_bounds(make):
    actor = make(SPEC, (8,))
    params = weights(actor)
    first, second = (actor.sample(jax.random.key(k), params, OBS, 0.0) for k in (0, 1))
    np.testing.assert_array_equal(first, second)
    wide = actor.sample(jax.random.key(0), params, np.tile(OBS, (2, 1, 1)), 20.0)
    assert wide.shape == (2, 5, 2)
    assert np.abs(wide).max() <= 1.0
    assert np.abs(np.asarray(wide) - np.asarray(first)).max() > 0.5


@pytest.mark.parametrize("make", [gaussian.make_gaussian_actor, gaussian.make_squashed_actor])
def test_log_prob_and_its_gradient_are_finite_at_the_border_of_the_data(make):
    actor = make(SPEC, (8,))
    border = jnp.asarray([[1.0, -1.0]] * 5)
    value, slope = jax.value_and_grad(lambda params: actor.log_prob(params, OBS, border).sum())(weights(actor))
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


def test_squashed_density_at_the_border_is_that_of_1e_5_inside():
    """atanh(1) is infinite; this far inside, u is 6.1, where 0.999 would put it at 3.8."""
    actor = gaussian.make_squashed_actor(SPEC, (8,))
    params = weights(actor)
    mean, log_std = np.split(mlp(params["params"], OBS.astype(np.float64), relu), 2, axis=-1)
    edge = 1.0 - 1e-5
    u = np.arctanh([edge, -edge])
    wanted = (stats.norm.logpdf(u, mean, np.exp(np.clip(log_std, -5.0, 2.0))) - np.log(1.0 - edge**2)).sum(axis=-1)
    found = actor.log_prob(params, OBS, jnp.asarray([[1.0, -1.0]] * 5))
    np.testing.assert_allclose(found, wanted, rtol=5e-3)


def test_deterministic_actor_is_the_tanh_of_its_network():
    actor = gaussian.make_deterministic_actor(SPEC, (8,))
    params = weights(actor)
    wanted = np.tanh(mlp(params["params"], OBS.astype(np.float64), relu))
    np.testing.assert_allclose(actor.action(params, OBS), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "make", [gaussian.make_gaussian_actor, gaussian.make_squashed_actor, gaussian.make_deterministic_actor]
)
def test_unknown_activation_is_refused_before_anything_is_traced(make):
    with pytest.raises(KeyError, match="unknown activation 'swish'; .*silu"):
        make(SPEC, (8,), "swish")
