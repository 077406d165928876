"""Tasks with numbers of a lane's own, and with agents, in the online loop and in evaluation."""

import dataclasses

from counting_env import SPEC, counting
import jax
import jax.numpy as jnp
import numpy as np
from toy_algorithm import toy, toy_hparams

from jaxdiff import envs, evaluate, train
from jaxdiff.multi import independent
from jaxdiff.types import Env, bound

A = 2  # as many as environments side by side: a number of the environments would fit where one of the agents belongs
CONFIG = train.OnlineConfig(num_envs=2, replay_capacity=32, warmup=4)


def paying(price=1.0) -> Env:
    """The counting environment, whose every reward is multiplied by the lane's `lr`."""
    inner = counting()

    def step(state, action):
        state, out = inner.step(state, action)
        return state, out._replace(reward=price * out.reward)

    return Env(inner.reset, step, SPEC, bind=lambda hparams: paying(hparams.lr))


def team() -> Env:
    """Two agents in one counting environment; the second earns three times as much."""
    inner = counting()

    def step(state, action):
        state, out = inner.step(state, action[0])
        obs, reward = jnp.stack([out.obs, out.obs]), out.reward * jnp.array([1.0, 3.0])
        return state, out._replace(obs=obs, reward=reward)

    def reset(key):
        state, obs = inner.reset(key)
        return state, jnp.stack([obs, obs])

    return Env(reset, step, dataclasses.replace(SPEC, num_agents=A))


def test_lanes_of_one_program_live_in_tasks_of_their_own():
    chunk = train.make_online_chunk(toy(), paying(), 4, CONFIG)
    rollout = evaluate.make_rollout(toy(), paying(), 3)

    @jax.jit
    def lanes(lr):
        lane = train.init_online_lane(toy(), paying(), CONFIG, toy_hparams().replace(lr=lr), np.int32(0))
        lane, _ = chunk(lane, jnp.int32(3), None)
        return lane.experience.replay.transitions.reward, rollout(jax.random.key(1), lane.state).returns

    rewards, returns = jax.vmap(lanes)(jnp.array([0.0, 0.1, 0.2]))
    assert (rewards[0] == 0.0).all()
    assert (rewards[1, :6] > 0.0).all()
    np.testing.assert_allclose(rewards[2], 2.0 * rewards[1], rtol=1e-6)
    np.testing.assert_allclose(returns[2], 2.0 * returns[1], rtol=1e-6)


def test_wrappers_of_a_task_keep_what_is_a_lanes_own():
    assert envs.auto_reset(counting()).bind is None
    state, _ = envs.auto_reset(paying()).reset(jax.random.key(0))
    action = jnp.zeros(3)
    usual = envs.auto_reset(paying()).step(state, action)[1].reward
    lane = toy().init(jax.random.key(1), toy_hparams(lr=0.5))
    wrapped = bound(envs.auto_reset(paying()), lane)
    _, out = wrapped.step(state, action)
    np.testing.assert_allclose(out.reward, 0.5 * usual)
    assert bound(counting(), lane).bind is None


def test_a_team_remembers_every_agents_reward_and_reports_their_mean():
    spec = team().spec
    algorithm = independent(lambda config, spec: toy(), None, spec)
    start = jax.jit(lambda: train.init_online_lane(algorithm, team(), CONFIG, toy_hparams(), np.int32(0)))()
    lane, metrics = jax.jit(train.make_online_chunk(algorithm, team(), 4, CONFIG))(start, 16, None)
    rows = jax.tree.map(np.asarray, lane.experience.replay.transitions)
    assert rows.reward.shape == rows.discount.shape == (32, A)
    np.testing.assert_array_equal(rows.reward[:, 1], 3.0 * rows.reward[:, 0])
    over = (rows.next_obs[:, 0, 1] == 4) & (rows.obs[:, 0, 0] <= 0.5)
    assert over.any()
    np.testing.assert_array_equal(rows.discount, np.repeat(1.0 - over[:, None], A, axis=1))
    newest = rows.obs[-2:, 0, 0]  # the starts of the two episodes that ended last
    np.testing.assert_allclose(metrics["train_return"], 2.0 * np.mean(4 * newest + 10), rtol=1e-5)
