"""Options of the shared policy and critics: where biases start and where the sampler's levels end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import constant_policy, random_params
import pytest

from jaxdiff import diffusion
from jaxdiff.algorithms.critics import make_critics
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.types import Spec

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)


def biases(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [np.asarray(leaf) for path, leaf in leaves if "bias" in jax.tree_util.keystr(path)]


def test_biases_of_policies_and_critics_start_where_they_are_told():
    for bias, is_zero in (("zeros", True), ("torch", False)):
        policy = jax.jit(make_policy(PolicyConfig(hidden=(4,), bias=bias, time_dim=4), SPEC).init)(jax.random.key(0))
        critics = jax.jit(make_critics(SPEC, (4,), bias=bias).init)(jax.random.key(0))
        assert [(leaf == 0).all() for leaf in biases((policy, critics))] == [is_zero] * 6
        if not is_zero:
            assert all((leaf[0] != leaf[1]).all() for leaf in biases(critics))  # two critics
            np.testing.assert_array_less(np.abs(np.concatenate([leaf.ravel() for leaf in biases(critics)])), 0.5)


def test_kernels_are_the_same_whatever_the_biases():
    inits = [make_critics(SPEC, (4,), bias=bias).init for bias in ("zeros", "torch")]
    first, second = jax.jit(lambda key: [init(key) for init in inits])(jax.random.key(0))
    for layer in ("Dense_0", "Dense_1"):
        a, b = (params["params"]["Mlp_0"][layer]["kernel"] for params in (first, second))
        np.testing.assert_array_equal(a, b)


def test_an_unknown_start_of_biases_is_answered_with_the_known_ones():
    with pytest.raises(KeyError, match="unknown bias 'pytorch'; .*torch, zeros"):
        make_policy(PolicyConfig(bias="pytorch"), SPEC)
    with pytest.raises(KeyError, match="unknown bias 'pytorch'"):
        make_critics(SPEC, (4,), bias="pytorch")


def test_samples_end_at_the_level_of_t_end():
    """DDIM with a constant x0-prediction walks x = alpha x0 + sigma z for one z: at t_end that is not x0 yet."""
    config = PolicyConfig(hidden=(4,), kind="x0", sampler="dpm_solver_1", schedule="linear", num_levels=100, time_dim=4)
    whole, early = (make_policy(dataclasses.replace(config, t_end=t), SPEC) for t in (0.0, 0.05))
    params = random_params(jax.eval_shape(whole.init, jax.random.key(0)))
    params, obs = constant_policy(params, [0.3, -0.2]), jnp.zeros((64, 3))
    np.testing.assert_allclose(whole.sample(jax.random.key(0), params, obs), [[0.3, -0.2]] * 64, atol=1e-5)
    schedule = diffusion.SCHEDULES["linear"](num_steps=100)
    level, start = diffusion.level_at(schedule, 0.05), diffusion.level_at(schedule, 1.0)
    x_T = jax.random.normal(jax.random.split(jax.random.key(0))[0], (64, 2))
    z = (np.asarray(x_T) - float(start.alpha) * np.array([0.3, -0.2])) / float(start.sigma)
    wanted = float(level.alpha) * np.array([0.3, -0.2]) + float(level.sigma) * z
    np.testing.assert_allclose(early.sample(jax.random.key(0), params, obs), np.clip(wanted, -1, 1), atol=1e-4)


@pytest.mark.parametrize("t_end", [-0.1, 1.0])
def test_an_end_outside_the_chain_is_refused(t_end):
    with pytest.raises(ValueError, match=f"t_end={t_end}; allowed: 0 .clean data. to below 1"):
        make_policy(PolicyConfig(t_end=t_end), SPEC)
