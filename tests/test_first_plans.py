"""The plans that pictures show are the ones that episodes begin with."""

import jax
from line_env import line
import numpy as np
import pytest
from toy_algorithm import toy
import toy_planner

from jaxdiff import evaluate
from jaxdiff.envs import HostEnv
from jaxdiff.types import Spec

EPISODES = 6


class HostLine:
    """`line` as gymnasium has it, for `HostEnv`; it never ends."""

    class action_space:
        low, high = -np.ones(2), np.ones(2)

    def reset(self, seed):
        self.place = np.random.default_rng(seed).uniform()
        return np.array([self.place, self.place**2, 1.0]), {}

    def step(self, action):
        self.place += 0.1 * float(action[0])
        return np.array([self.place, self.place**2, 1.0]), 0.0, False, False, {}


def planner(spec):
    algorithm = toy_planner.make(toy_planner.Config(), spec)
    return algorithm, algorithm.init(jax.random.key(1), toy_planner.HParams())


@pytest.mark.parametrize("where", ["device", "host"])
def test_episodes_begin_with_the_plans_of_the_same_key(where):
    key = jax.random.key(7)
    if where == "device":
        env = line(end=np.inf)
        algorithm, state = planner(env.spec)
        done = jax.jit(evaluate.make_rollout(algorithm, env, EPISODES, num_recorded=EPISODES))(key, state)
    else:
        env = HostEnv(Spec("line", 3, 2, 8), [HostLine() for _ in range(EPISODES)])
        algorithm, state = planner(env.spec)
        done = evaluate.make_host_rollout(algorithm, env, EPISODES, num_recorded=EPISODES)(key, state)
    for count in (2, EPISODES):  # what is drawn for two episodes is what is drawn for the first two of more
        obs, plans = evaluate.make_planning(algorithm, env, EPISODES, num_planned=count)(key, state)
        assert plans.obs.shape == (count, 3, 6, 3) and plans.path.shape == (toy_planner.CALLS + 1, count, 6, 3)
        np.testing.assert_allclose(obs, done.recorded.obs[:count, 0], rtol=1e-6)
        np.testing.assert_allclose(plans.obs[:, :, 0], np.repeat(obs[:, None], 3, axis=1), rtol=1e-6)
        np.testing.assert_allclose(done.recorded.action[:count, :6], plans.action[:, 0], rtol=1e-5)
    assert np.ptp(np.asarray(plans.action[:, 0, 0, 0])) > 0.1  # so that the comparison can fail


def test_only_planners_plan_and_only_for_episodes_that_are_run():
    env = line()
    with pytest.raises(ValueError, match="an algorithm that plans nothing"):
        evaluate.make_planning(toy(), env, 2, num_planned=1)
    algorithm, _ = planner(env.spec)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"plans of {count} of 2 episodes.*at least 1 and at most all"):
            evaluate.make_planning(algorithm, env, 2, num_planned=count)
