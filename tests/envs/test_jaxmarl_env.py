"""The JaxMARL adapter on a small environment with JaxMARL's interface, since JaxMARL itself need not be installed."""

import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.cli import env_options
from jaxdiff.envs import make

STEPS = 7  # of the stand-in's clock, which like the particles' rings a step later
AGENTS = ("b", "a")  # not in the order in which a dict of arrays is flattened


class Discrete(NamedTuple):
    n: int
    dtype: type = jnp.uint32


class Box:
    def __init__(self, low, high, shape):
        self.low, self.high, self.shape = low, high, shape


class State(NamedTuple):
    step: jax.Array
    taken: dict  # agent -> what it was handed last


UNEQUAL = Discrete(4), Discrete(2)


class Counting:
    """Agent b sees three numbers and a two; the reward is what an agent did. It has no `step`."""

    def __init__(self, spaces=UNEQUAL, max_steps=STEPS, ends_at=99, out_at=99, widths=(3, 2)):
        self.agents, self.num_agents = list(AGENTS), 2
        self.spaces = dict(zip(AGENTS, spaces, strict=True))
        self.max_steps = self.rings_after = max_steps
        self.ends_at, self.out_at, self.widths = ends_at, out_at, widths

    def action_space(self, agent):
        return self.spaces[agent]

    def see(self, state):
        return {
            "b": jnp.full(self.widths[0], state.step + 1, jnp.int32),
            "a": jnp.full(self.widths[1], -1.0 - state.step),
            "world_state": jnp.zeros(50),
        }

    def reset(self, key):
        del key
        taken = {agent: jnp.zeros(getattr(self.spaces[agent], "shape", ())) for agent in AGENTS}
        state = State(jnp.int32(0), taken)
        return self.see(state), state

    def step_env(self, key, state, actions):
        del key
        assert all(actions[agent].dtype == getattr(self.spaces[agent], "dtype", jnp.float32) for agent in AGENTS)
        after = State(state.step + 1, {agent: jnp.float32(actions[agent]) for agent in AGENTS})
        ended = (state.step >= self.rings_after) | (after.step == self.ends_at)
        done = {"b": ended, "a": ended | (after.step >= self.out_at), "__all__": ended}
        rewards = {agent: after.taken[agent].sum() for agent in AGENTS}
        return self.see(after), after, {**rewards, "__all__": jnp.float32(1e6)}, done, {}

    def get_avail_actions(self, state):
        raise NotImplementedError


class Choosy(Counting):
    """At odd times b may only do 1 or 2; at even times everything. Agent a may never do 0."""

    def get_avail_actions(self, state):
        return {"b": (state.step % 2 == 0) | jnp.array([0, 1, 1, 0], bool), "a": jnp.array([0, 1], jnp.uint8)}


class Unstoppable(Counting):
    """Its clock takes no number."""

    def __init__(self, ends_at=99):
        super().__init__(max_steps=STEPS - 1, ends_at=ends_at)


class Clockless(Counting):
    def __init__(self):
        super().__init__()
        del self.max_steps


class Nested(Counting):
    num_inner_steps = 10


class Body(Counting):
    """As brax's: the clock has another name, and an episode starts again by itself unless told not to."""

    def __init__(self, episode_length=5, auto_reset=True):
        super().__init__(max_steps=episode_length)
        del self.max_steps
        self.episode_length, self.auto_reset = episode_length, auto_reset

    def step_env(self, key, state, actions):
        assert not self.auto_reset
        return super().step_env(key, state, actions)


CLASSES = {kind.__name__: kind for kind in (Counting, Choosy, Unstoppable, Clockless, Nested, Body)}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    module = types.ModuleType("jaxmarl")
    module.registered_envs = list(CLASSES)
    module.make = lambda task, **options: CLASSES[task](**options)
    monkeypatch.setitem(sys.modules, "jaxmarl", module)


def played(env, actions):
    """The first obs, and the TimeSteps of actions [T, A, U]."""

    @jax.jit
    def episode(actions):
        state, obs = env.reset(jax.random.key(0))
        return obs, jax.lax.scan(env.step, state, actions)[1]

    return episode(jnp.asarray(actions, jnp.float32))


def test_observations_are_padded_and_missing_choices_forbidden():
    env = make("jaxmarl-Counting")
    spec = env.spec
    assert (spec.name, spec.num_agents, spec.num_actions, spec.mask_dim) == ("jaxmarl-Counting", 2, 4, 4)
    assert (spec.obs_dim, spec.action_dim, spec.max_episode_steps) == (3 + 4, 4, STEPS)
    assert env.facts == {"agents": ["b", "a"], "obs_dims": [3, 2]}
    # Agent a has two choices: its scores of the other two do not count.
    first, timestep = played(env, [[[0, 0, 0, 1], [-1, -0.5, 1, 1]], [[1, 0, 0, 0], [0.5, 0, 1, 1]]])
    masks = [[1, 1, 1, 1], [1, 1, 0, 0]]
    np.testing.assert_array_equal(first, np.hstack([[[1, 1, 1], [-1, -1, 0]], masks]))
    np.testing.assert_array_equal(timestep.obs[1], np.hstack([[[3, 3, 3], [-3, -3, 0]], masks]))
    np.testing.assert_array_equal(timestep.reward, [[3, 1], [0, 0]])
    assert timestep.obs.dtype == timestep.reward.dtype == jnp.float32


def test_equal_choices_without_a_mask_need_none():
    spec = make("jaxmarl-Counting", spaces=(Discrete(4), Discrete(4))).spec
    assert (spec.mask_dim, spec.obs_dim, spec.num_actions) == (0, 3, 4)


def test_what_the_task_forbids_is_not_taken():
    env = make("jaxmarl-Choosy")
    wish = [[1.0, -1.0, 0.0, 0.5], [1.0, 0.0, 0.5, 0.5]]  # b: 0, then 2 of 1 and 2; a: 0, and gets 1
    first, timestep = played(env, [wish, wish, wish])
    np.testing.assert_array_equal(first[:, 3:], [[1, 1, 1, 1], [0, 1, 0, 0]])
    np.testing.assert_array_equal(timestep.obs[0, :, 3:], [[0, 1, 1, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(timestep.reward, [[0, 1], [2, 1], [0, 1]])


def test_boxes_are_filled_from_minus_one_to_one():
    spaces = Box(0.0, 1.0, (2,)), Box(jnp.array([-2.0, 1.0]), jnp.array([2.0, 5.0]), (2,))
    env = make("jaxmarl-Counting", spaces=spaces)
    assert (env.spec.num_actions, env.spec.mask_dim, env.spec.obs_dim, env.spec.action_dim) == (None, 0, 3, 2)
    _, timestep = played(env, [[[-1, 1], [-1, 1]], [[0, 0], [0, -0.5]], [[-9, 9], [9, 9]]])
    np.testing.assert_allclose(timestep.reward, [[0 + 1, -2 + 5], [0.5 + 0.5, 0 + 2], [0 + 1, 2 + 5]])


@pytest.mark.parametrize(
    ("name", "options", "ended", "terminated"),
    [
        ("Counting", {}, STEPS, False),
        ("Counting", {"max_episode_steps": 12}, 12, False),
        ("Counting", {"max_episode_steps": 3}, 3, False),
        ("Counting", {"ends_at": 2}, 2, True),
        ("Counting", {"ends_at": STEPS}, STEPS, True),  # in the last step, but by the task
        ("Unstoppable", {"max_episode_steps": STEPS - 1}, STEPS - 1, False),
        ("Unstoppable", {"ends_at": 2}, 2, True),
        ("Clockless", {"max_episode_steps": 4}, 4, False),
        ("Body", {}, 5, False),
    ],
)
def test_a_clock_truncates_and_a_task_terminates(name, options, ended, terminated):
    env = make(f"jaxmarl-{name}", **options)
    assert not terminated or env.spec.max_episode_steps >= ended
    _, timestep = played(env, np.zeros((ended, 2, 4)))
    assert timestep.terminated.tolist() == [False] * (ended - 1) + [terminated]
    assert timestep.truncated.tolist() == [False] * (ended - 1) + [not terminated]


def test_a_clock_that_cannot_be_stopped_is_no_end_of_the_task(monkeypatch):
    class Punctual(Unstoppable):  # counts as the riddle of the switch does: the last step is the number's
        def step_env(self, key, state, actions):
            seen, after, reward, done, info = super().step_env(key, state, actions)
            return seen, after, reward, dict.fromkeys(done, after.step >= self.max_steps), info

    monkeypatch.setitem(CLASSES, "Unstoppable", Punctual)
    _, timestep = played(make("jaxmarl-Unstoppable"), np.zeros((STEPS - 1, 2, 4)))
    assert not timestep.terminated.any()
    assert timestep.truncated.tolist() == [False] * (STEPS - 2) + [True]


def test_an_agent_that_is_out_sees_zeros_and_keeps_its_mask_and_reward():
    _, timestep = played(make("jaxmarl-Counting", out_at=2), np.tile([-1.0, 1.0, 0.0, 0.0], (3, 2, 1)))
    np.testing.assert_array_equal(timestep.obs[:, 1], [[-2, -2, 0, 1, 1, 0, 0]] + 2 * [[0, 0, 0, 1, 1, 0, 0]])
    np.testing.assert_array_equal(timestep.obs[:, 0, :3], [[2] * 3, [3] * 3, [4] * 3])
    assert not (timestep.terminated | timestep.truncated).any()
    np.testing.assert_array_equal(timestep.reward, np.ones((3, 2)))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("Counting", {"spaces": (Discrete(4), Box(0.0, 1.0, (4,)))}, r"the actions b Discrete\(4\), a Box\(4,\)"),
        ("Counting", {"spaces": (Box(0.0, 1.0, (2,)), Box(0.0, 1.0, (3,)))}, r"b Box\(2,\), a Box\(3,\); supported"),
        ("Counting", {"spaces": (Box(0.0, np.inf, (2,)),) * 2}, "bounded box of the same length"),
        ("Counting", {"widths": (3, (2, 2))}, r"a observes an array \(2, 2\); only one vector"),
        ("Counting", {"colour": 1}, "jaxmarl-Counting: .*unexpected keyword argument 'colour'"),
        ("Counting", {"max_steps": 9}, "max_steps is set by the adapter; .* max_episode_steps"),
        ("Counting", {"max_episode_steps": 0}, "max_episode_steps=0; give max_episode_steps, at least 1"),
        ("Clockless", {}, "JaxMARL has no clock for it; give max_episode_steps"),
        ("Unstoppable", {"max_episode_steps": STEPS}, f"max_episode_steps={STEPS} must be at most {STEPS - 1}"),
        ("Nested", {}, "episodes within its episodes"),
    ],
)
def test_what_cannot_be_stacked_is_refused_with_what_was_found(name, options, told):
    with pytest.raises(ValueError, match=told):
        make(f"jaxmarl-{name}", **options)


def test_an_unknown_id_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match="unknown environment of JaxMARL 'Chosy'; did you mean 'Choosy'"):
        make("jaxmarl-Chosy")


def test_a_config_hands_options_over():
    assert env_options.make("jaxmarl-Counting", "max_episode_steps=3", {}).spec.max_episode_steps == 3
    with pytest.raises(ValueError, match=r"config.env_options='colour=1': jaxmarl-Counting: .*'colour'"):
        env_options.make("jaxmarl-Counting", "colour=1", {})


def test_a_map_is_given_by_its_name(monkeypatch):
    smax = types.ModuleType("jaxmarl.environments.smax.smax_env")
    smax.MAP_NAME_TO_SCENARIO = {"3m": (Discrete(3), Discrete(3))}
    for name in ("jaxmarl.environments", "jaxmarl.environments.smax"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, smax.__name__, smax)
    monkeypatch.setitem(CLASSES, "Counting", lambda scenario, **options: Counting(spaces=scenario, **options))
    assert make("jaxmarl-Counting", scenario="3m").spec.num_actions == 3
    with pytest.raises(KeyError, match="unknown map of SMAX '3n'; known: 3m"):
        make("jaxmarl-Counting", scenario="3n")


def test_without_the_package_the_install_line_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(ImportError, match=r"jaxmarl-Any needs JaxMARL; .*: pip install 'jaxdiff\[marl\]'$"):
        make("jaxmarl-Any")


def test_importing_prints_nothing_and_leaves_the_streams_alone(monkeypatch, tmp_path, capsys):
    monkeypatch.delitem(sys.modules, "jaxmarl")
    lines = ["import sys", "print('loud')", "sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__", "print('loud')"]
    (tmp_path / "jaxmarl.py").write_text("\n".join([*lines, "registered_envs = []"]))
    monkeypatch.syspath_prepend(tmp_path)
    before = sys.stdout, sys.stderr, sys.__stdout__
    with pytest.raises(KeyError, match="known: none"):
        make("jaxmarl-Any")
    assert (sys.stdout, sys.stderr, sys.__stdout__) == before
    assert capsys.readouterr().out == ""
