"""The PettingZoo adapter on a small environment with PettingZoo's interface; mpe2 itself where it is installed."""

import importlib.util
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import envs, evaluate
from jaxdiff.cli import task
from jaxdiff.envs import pettingzoo_env
from jaxdiff.types import Algorithm

NAME = "pettingzoo-stand_in.walk"
HAS_MPE = importlib.util.find_spec("mpe2") is not None


class Box(NamedTuple):
    low: np.ndarray
    high: np.ndarray

    @property
    def shape(self):
        return self.low.shape


class Discrete(NamedTuple):
    n: int
    shape: tuple = ()


class Walk:
    """b sees (seed, its sum of actions, steps), a two of these; the reward is the sum of what an agent was handed.

    a leaves after `a_leaves` steps; who is left is truncated after max_cycles, or terminates after `ends_at`.
    """

    possible_agents = ("b", "a")
    num_seen = {"b": 3, "a": 2}

    def __init__(self, max_cycles=4, a_leaves=99, ends_at=99, is_discrete=False, continuous_actions=False):
        assert continuous_actions, "numbers are asked for wherever they are offered"
        self.max_cycles, self.a_leaves, self.ends_at, self.is_discrete = max_cycles, a_leaves, ends_at, is_discrete
        self.closed = False

    @property
    def unwrapped(self):
        return self

    def observation_space(self, agent):
        return Box(*[np.zeros(self.num_seen[agent])] * 2)

    def action_space(self, agent):
        return Discrete(5) if self.is_discrete else Box(np.array([0.0, -2.0]), np.array([1.0, 4.0]))

    def see(self):
        full = {agent: np.array([self.seed, self.sums[agent], self.steps]) for agent in self.agents}
        return {agent: full[agent][: self.num_seen[agent]] for agent in self.agents}

    def reset(self, seed):
        self.agents, self.seed, self.steps = ["b", "a"], seed % 1000, 0
        self.sums = dict.fromkeys(self.agents, 0.0)
        return self.see(), {}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        assert all(action.dtype == np.float32 for action in actions.values())
        self.steps += 1
        for agent, action in actions.items():
            self.sums[agent] += action.sum()
        seen, reward = self.see(), {agent: float(action.sum()) for agent, action in actions.items()}
        terminated = {g: self.steps >= self.ends_at or g == "a" and self.steps >= self.a_leaves for g in self.agents}
        truncated = {g: self.steps >= self.max_cycles and not terminated[g] for g in self.agents}
        self.agents = [g for g in self.agents if not terminated[g] and not truncated[g]]
        return seen, reward, terminated, truncated, {}

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    package, module = types.ModuleType("stand_in"), types.ModuleType("stand_in.walk")
    module.parallel_env = Walk
    monkeypatch.setitem(sys.modules, "stand_in", package)
    monkeypatch.setitem(sys.modules, "stand_in.walk", module)


def test_a_team_has_its_agents_after_the_copies():
    env = envs.make_host(NAME, 3)
    spec = env.spec
    assert (spec.name, spec.num_agents, spec.obs_dim, spec.action_dim, spec.max_episode_steps) == (NAME, 2, 3, 2, 4)
    seeds = np.random.SeedSequence(5).generate_state(3) % 1000
    np.testing.assert_array_equal(env.reset(5), [[[s, 0, 0], [s, 0, 0]] for s in seeds])
    action = np.zeros((3, 2, 2))
    action[1, 0], action[1, 1] = (-1.0, 9.0), (1.0, -0.5)  # b is handed (0, 4), a (1, -0.5)
    obs, reward, terminated, truncated = env.step(action)
    np.testing.assert_array_equal(reward, [[1.5, 1.5], [4.0, 0.5], [1.5, 1.5]])
    np.testing.assert_array_equal(obs[1], [[seeds[1], 4, 1], [seeds[1], 0.5, 0]])
    assert obs.dtype == reward.dtype == np.float32
    assert not terminated.any()
    assert not truncated.any()
    with pytest.raises(ValueError, match=r"action has shape \(3, 2\); give \(3, 2, 2\)"):
        env.step(np.zeros((3, 2)))


def test_who_left_sees_and_earns_nothing_and_the_rest_goes_on_to_the_clock():
    env = envs.make_host(NAME, 1, a_leaves=2)
    env.reset(0)
    steps = [env.step(np.full((1, 2, 2), 1.0)) for _ in range(5)]
    np.testing.assert_array_equal([reward[0] for _, reward, _, _ in steps], [[5, 5], [5, 5], [5, 0], [5, 0], [0, 0]])
    assert [bool(obs[0, 1].any()) for obs, _, _, _ in steps] == [True, True, False, False, False]
    assert [bool(t[0]) for _, _, t, _ in steps] == [False] * 5
    assert [bool(t[0]) for _, _, _, t in steps] == [False, False, False, True, False]


@pytest.mark.parametrize("ends_at", [2, 4])  # 4: in the clock's last step, but by the task
def test_an_end_that_is_no_clock_is_a_termination(ends_at):
    env = envs.make_host(NAME, 1, ends_at=ends_at)
    env.reset(0)
    steps = [env.step(np.zeros((1, 2, 2))) for _ in range(ends_at)]
    assert [bool(t[0]) for _, _, t, _ in steps] == [False] * (ends_at - 1) + [True]
    assert not any(t[0] for _, _, _, t in steps)
    assert env.finished.all()


def always(value):
    def act(key, state, obs, memory):
        return jnp.full((obs.shape[0], 1, 2, 2), value), memory

    return Algorithm(lambda key, hparams: None, lambda *args: None, act, lambda shape: ())


def test_the_return_of_an_episode_is_the_mean_over_agents():
    env = envs.make_host(NAME, 2, a_leaves=1)
    rollout = evaluate.make_host_rollout(always(1.0), env, 2, num_recorded=1)
    found = rollout(jax.random.key(0), None)
    np.testing.assert_allclose(found.returns, [5 + 3 * 2.5] * 2)
    np.testing.assert_array_equal(found.lengths, [4, 4])
    assert found.recorded.obs.shape == (1, 4, 2, 3)
    assert found.recorded.action.shape == (1, 4, 2, 2)
    np.testing.assert_array_equal(found.recorded.reward, [[5, 2.5, 2.5, 2.5]])


def test_five_numbers_of_mpe2_move_as_the_two_signed_ones():
    action = np.array([[0.3, -0.7, 0.2], [-1.0, 0.0, 0.9]])
    five = pettingzoo_env.pushes(action)
    np.testing.assert_allclose(five[:, 2] - five[:, 1], action[:, 0])
    np.testing.assert_allclose(five[:, 4] - five[:, 3], action[:, 1])
    np.testing.assert_array_equal(five[:, 5], action[:, 2])
    assert five[:, :5].min() == 0.0


def test_a_run_has_it_with_options():
    config = {"env": NAME, "env_options": "max_cycles=7", "eval_episodes": 2}
    env = task.make_env(config)
    assert (env.num_envs, env.spec.max_episode_steps) == (2, 7)
    with pytest.raises(ValueError, match=r"stand_in.walk: .*unexpected keyword argument 'cycles'"):
        task.make_env({**config, "env_options": "cycles=7"})
    with pytest.raises(ValueError, match="none is read by config.env=gymnasium-Hopper-v5"):
        task.make_env({**config, "env": "gymnasium-Hopper-v5"})


def test_tasks_of_another_kind_are_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"actions b Discrete\(n=5.*only bounded boxes of one size"):
        envs.make_host(NAME, 1, is_discrete=True)
    monkeypatch.setattr(Walk, "observation_space", lambda self, agent: Discrete(5))
    with pytest.raises(ValueError, match=r"b observes Discrete.*only one vector for each agent"):
        envs.make_host(NAME, 1)
    del sys.modules["stand_in.walk"].parallel_env
    with pytest.raises(ValueError, match=r"stand_in.walk has no parallel_env"):
        envs.make_host(NAME, 1)


def test_an_environment_without_a_clock_is_refused():
    def endless(continuous_actions):
        walk = Walk(continuous_actions=continuous_actions)
        del walk.max_cycles
        return walk

    sys.modules["stand_in.walk"].parallel_env = endless
    with pytest.raises(ValueError, match="no max_cycles; a task needs a time limit"):
        envs.make_host(NAME, 1)


def test_without_the_extra_the_message_is_the_line_that_installs_it(monkeypatch):
    for package in ("mpe2", "pettingzoo"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "jaxdiff\[pettingzoo\]"'):
        envs.make_host("pettingzoo-simple_spread_v3", 1)


@pytest.mark.skipif(not HAS_MPE, reason="needs the extra pettingzoo")
def test_spread_of_mpe2_sees_what_ours_sees_and_is_pushed_as_hard():
    env = envs.make_host("pettingzoo-simple_spread_v3", 2)
    ours = envs.make("mpe-spread").spec
    assert (env.spec.obs_dim, env.spec.action_dim, env.spec.num_agents) == (ours.obs_dim, 2, 3)
    assert env.spec.max_episode_steps == ours.max_episode_steps
    rng = np.random.default_rng(0)
    obs = env.reset(1)
    for step in range(25):
        action = rng.uniform(-1, 1, (2, 3, 2))
        after, reward, terminated, truncated = env.step(action)
        others = obs[..., 10:14].reshape(2, 3, 2, 2)
        free = (np.linalg.norm(others, axis=-1) > 0.31).all(axis=-1)  # of contact
        velocity = 0.75 * obs[..., :2] + 0.1 * 5.0 * action  # mass 1, force 5, as in ours
        np.testing.assert_allclose(after[free][:, :2], velocity[free], atol=1e-5)
        # mpe2 moves by the velocity before the push, ours by the one after it.
        np.testing.assert_allclose(after[..., 2:4], obs[..., 2:4] + 0.1 * obs[..., :2], atol=1e-5)
        assert not terminated.any()
        assert truncated.all() == (step == 24)
        obs = after
    assert (reward < 0).all()
    env.close()


@pytest.mark.skipif(not HAS_MPE, reason="needs the extra pettingzoo")
def test_teams_of_mpe2():
    tag = envs.make_host("pettingzoo-simple_tag_v3", 1)
    assert (tag.spec.num_agents, tag.spec.obs_dim, tag.spec.action_dim) == (4, 16, 2)
    assert (tag.reset(0)[0, 3, 14:] == 0).all()  # the prey's, which sees 14 numbers
    talking = envs.make_host("pettingzoo-simple_reference_v3", 1)
    assert (talking.spec.num_agents, talking.spec.action_dim) == (2, 2 + 10)
    with pytest.raises(KeyError, match="unknown task of PettingZoo 'simple_spred_v3'; did you mean 'simple_spread_v3'"):
        envs.make_host("pettingzoo-simple_spred_v3", 1)
    with pytest.raises(ValueError, match="only bounded boxes of one size"):
        envs.make_host("pettingzoo-simple_speaker_listener_v4", 1)
