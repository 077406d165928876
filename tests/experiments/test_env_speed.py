"""The programs that environments are timed with play whole episodes."""

import jax
import numpy as np

from experiments.studies import env_speed
from jaxdiff import envs


def test_a_constant_reward_adds_up_to_what_an_episode_earns():
    env = envs.make("probe-delay")  # pays 1 in its second and last step, whatever is done
    np.testing.assert_array_equal(env_speed.make_program(env, 3)(jax.random.key(0)), np.ones(3))


def test_rates_are_positive_and_every_round_gives_new_episodes():
    rate, returns = env_speed.measure(envs.make("mpe-spread"), 2, 2, 0)
    assert rate > 0.0
    first, second = np.split(returns, 2)
    assert not np.isin(first, second).any()
