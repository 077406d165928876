"""The max-Q backup: the largest Q among several next actions for each critic, then the smaller critic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import coin_policy, q_values, random_params, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import diffusion_ql
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.types import Spec, Transition

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
COIN = PolicyConfig(hidden=(16,), kind="x0", num_levels=1, num_steps=1)  # next actions of -1 and 1, see coin_policy
BATCH = 256


def target_mean(batch: Transition, critics: Any, **changes: Any) -> float:
    """What the critics regress on, averaged, when the target policy throws a coin between -1 and 1."""
    algorithm = diffusion_ql.make(diffusion_ql.Config(policy=COIN, critic_hidden=(16,), **changes), SPEC)
    hparams = jax.tree.map(np.float32, diffusion_ql.HParams())
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams))
    params = random_params(state.params)
    targets = {"policy": coin_policy(params["policy"]), "critic": critics}
    state = state.replace(params=params, target_params=targets, hparams=hparams)
    _, metrics = jax.jit(algorithm.update)(jax.random.key(0), state, batch)
    return float(metrics["target_mean"])


def test_every_critic_takes_its_own_best_action_and_the_smaller_of_the_two_counts():
    rng = np.random.default_rng(0)
    obs, next_obs = (jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32) for _ in range(2))
    action = jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 1)), jnp.float32)
    reward, discount = rng.normal(size=BATCH), rng.integers(0, 2, size=BATCH).astype(float)
    batch = Transition(obs, action, jnp.asarray(reward, jnp.float32), jnp.asarray(discount, jnp.float32), next_obs)
    shapes = jax.eval_shape(
        diffusion_ql.make(diffusion_ql.Config(policy=COIN, critic_hidden=(16,)), SPEC).init,
        jax.random.key(0), diffusion_ql.HParams(),
    )  # fmt: skip
    critics = scaled_critics(random_params(shapes.params["critic"], 3), 20.0)
    left, right = (q_values(critics, next_obs, np.full((BATCH, 1), a)) for a in (-1.0, 1.0))  # [2, B] each

    def wanted(value: np.ndarray) -> float:
        return float((reward + 0.99 * discount * value).mean())

    each = np.maximum(left, right).min(axis=0)
    joint = np.maximum(left.min(axis=0), right.min(axis=0))
    plain = 0.5 * (left.min(axis=0) + right.min(axis=0))
    assert wanted(each) - wanted(joint) > 0.05  # the readings can be told apart
    assert wanted(joint) - wanted(plain) > 0.05
    # Among forty coins both sides appear.
    assert target_mean(batch, critics, max_q_backup=True, num_backup_candidates=40) == pytest.approx(wanted(each), 1e-4)
    single = target_mean(batch, critics, num_backup_candidates=40)  # off unless max_q_backup says so
    spread = 0.99 * np.abs(left.min(axis=0) - right.min(axis=0)).mean() / np.sqrt(BATCH)
    assert single == pytest.approx(wanted(plain), abs=4.5 * spread)


def test_ten_samples_are_the_papers():
    assert diffusion_ql.Config().num_backup_candidates == 10
    assert not diffusion_ql.Config().max_q_backup


def test_a_backup_over_no_action_is_refused():
    with pytest.raises(ValueError, match="num_backup_candidates=0; it must be at least 1"):
        diffusion_ql.make(diffusion_ql.Config(num_backup_candidates=0), SPEC)
