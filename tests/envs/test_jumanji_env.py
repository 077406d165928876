"""The jumanji adapter on small instances: step by step against jumanji itself, one program per task."""

import functools

import jax
import numpy as np
import pytest

from jaxdiff.envs import auto_reset, jumanji_env, make
from jaxdiff.envs.discrete import decode_onehot

SMALL = {
    "rware": {"num_agents": 2, "shelf_rows": 1, "shelf_columns": 3, "column_height": 2},
    "lbf": {"num_agents": 2, "num_food": 1, "grid_size": 5, "force_coop": False},
    "connector": {"num_agents": 3, "grid_size": 4},
    "cleaner": {"num_agents": 2, "grid_size": 3},
}
FULL_SIZE = {"rware": (4, 71, 5), "lbf": (2, 18, 6), "connector": (10, 605, 5), "cleaner": (3, 404, 4)}
LIMIT, STEPS, LANES = 25, 40, 8
PLAYED = [*(task for task in SMALL if task != "rware"), pytest.param("rware", marks=pytest.mark.slow)]


def of_jumanji(task):
    """The same small instance, made by hand and without a clock."""
    from jumanji.environments import Cleaner, Connector, LevelBasedForaging, RobotWarehouse
    from jumanji.environments.routing.cleaner import generator as tiles
    from jumanji.environments.routing.connector import generator as boards
    from jumanji.environments.routing.lbf import generator as fields
    from jumanji.environments.routing.robot_warehouse import generator as floors

    return {
        "rware": lambda: RobotWarehouse(floors.RandomGenerator(1, 3, 2, 2, 1, 4), time_limit=999),
        "lbf": lambda: LevelBasedForaging(fields.RandomGenerator(5, 2, 1, 5), time_limit=999),
        "connector": lambda: Connector(boards.RandomWalkGenerator(4, 3), time_limit=999),
        "cleaner": lambda: Cleaner(tiles.RandomGenerator(3, 3, 2), time_limit=999),
    }[task]()


@functools.cache
def played(task):
    """(our first obs and TimeStep, jumanji's first observation and TimeStep), [LANES, STEPS, ...] numpy."""
    env = getattr(jumanji_env, task)(**SMALL[task], max_episode_steps=LIMIT)
    with jax.numpy_rank_promotion("allow"):
        theirs = of_jumanji(task)
    shape = (LANES, STEPS, env.spec.num_agents, env.spec.num_actions)
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)

    def episode(key, actions):
        state, obs = env.reset(key)
        with jax.numpy_rank_promotion("allow"):
            their_state, first = theirs.reset(key)

        def step(carry, action):
            state, their_state, mask = carry
            state, timestep = env.step(state, action)
            with jax.numpy_rank_promotion("allow"):
                their_state, their_timestep = theirs.step(their_state, decode_onehot(action, mask))
            told = (their_timestep.observation, their_timestep.reward, their_timestep.last())
            return (state, their_state, their_timestep.observation.action_mask), (timestep, told)

        carry = (state, their_state, first.observation.action_mask)
        timestep, told = jax.lax.scan(step, carry, actions)[1]
        return obs, timestep, first.observation, told

    keys = jax.random.split(jax.random.key(0), LANES)
    return env.spec, jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys, actions))


@pytest.mark.parametrize("task", PLAYED)
def test_steps_are_jumanjis(task):
    spec, (obs, timestep, first, (observation, reward, last)) = played(task)
    agents = spec.num_agents
    assert timestep.obs.shape == (LANES, STEPS, agents, spec.obs_dim)
    assert {obs.dtype, timestep.obs.dtype, timestep.reward.dtype} == {np.dtype("float32")}
    team = reward if reward.ndim == 3 else np.repeat(reward[..., None], agents, axis=-1)
    np.testing.assert_allclose(timestep.reward, team)
    assert reward.any() or task == "rware"  # whose rewards are too rare for uniform actions
    assert (spec.mask_dim, spec.num_actions, spec.action_dim) == (FULL_SIZE[task][2],) * 3
    np.testing.assert_array_equal(obs[..., -spec.mask_dim :], first.action_mask)
    np.testing.assert_array_equal(timestep.obs[..., -spec.mask_dim :], observation.action_mask)
    assert not observation.action_mask.all()
    np.testing.assert_array_equal(timestep.terminated, last)


@pytest.mark.parametrize("task", PLAYED)
def test_the_clock_truncates_and_the_task_terminates(task):
    _, (_, timestep, _, _) = played(task)
    np.testing.assert_array_equal(timestep.truncated[:, : LIMIT - 1], False)
    np.testing.assert_array_equal(timestep.truncated[:, LIMIT - 1], ~timestep.terminated[:, LIMIT - 1])
    assert timestep.terminated[:, : LIMIT - 1].any()


@pytest.mark.parametrize("task", ["lbf", pytest.param("rware", marks=pytest.mark.slow)])
def test_who_observes_a_field_or_a_warehouse_gets_jumanjis_numbers(task):
    spec, (_, timestep, _, (observation, _, _)) = played(task)
    np.testing.assert_array_equal(timestep.obs[..., : -spec.mask_dim], observation.agents_view)


def test_wires_are_told_apart_as_own_and_others():
    spec, (_, timestep, _, (observation, _, _)) = played("connector")
    for lane, step in ((0, 0), (3, 4), (7, 9)):
        grid = observation.grid[lane, step]
        for i in range(spec.num_agents):
            expected = np.zeros((6, 4, 4))
            for cell in np.argwhere(grid > 0):
                owner, kind = divmod(int(grid[tuple(cell)]) - 1, 3)
                expected[(kind if owner == i else 3 + kind, *cell)] = 1
            assert expected[1].sum() == 1  # one head of its own
            np.testing.assert_array_equal(timestep.obs[lane, step, i, :96], expected.ravel())


def test_tiles_show_dirt_walls_oneself_and_the_others():
    spec, (first, timestep, start, (observation, _, _)) = played("cleaner")
    for i in range(spec.num_agents):
        planes = timestep.obs[0, 2, i, :36].reshape(4, 3, 3)
        np.testing.assert_array_equal(planes[0], observation.grid[0, 2] == 0)
        np.testing.assert_array_equal(planes[1], observation.grid[0, 2] == 2)
        np.testing.assert_array_equal(np.argwhere(planes[2]), observation.agents_locations[0, 2, i][None])
        np.testing.assert_array_equal(np.argwhere(planes[3]), observation.agents_locations[0, 2, 1 - i][None])
    assert (start.agents_locations == 0).all()
    assert (first[..., 18] == 1).all()  # both start in the upper left corner


@pytest.mark.parametrize("task", SMALL)
def test_names_and_sizes_without_compiling(task):
    name = f"jumanji-{task}"
    env = make(name)
    assert (env.spec.num_agents, env.spec.obs_dim, env.spec.num_actions) == FULL_SIZE[task]
    assert env.spec.name == name


@pytest.mark.parametrize("task", ["lbf", "cleaner"])
def test_episodes_can_start_again_by_themselves(task):
    """A reset and a step return states of one structure, whose keys can be selected."""
    env = auto_reset(make(f"jumanji-{task}", **SMALL[task]))
    actions = jax.ShapeDtypeStruct((3, env.spec.num_agents, env.spec.action_dim), np.float32)
    timestep = jax.eval_shape(lambda k, a: jax.lax.scan(env.step, env.reset(k)[0], a)[1], jax.random.key(0), actions)
    assert timestep.obs.shape == (3, env.spec.num_agents, env.spec.obs_dim)
    assert timestep.reward.shape == (3, env.spec.num_agents)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jumanji-lbf", {"num_agents": 0}, "num_agents=0, max_episode_steps=100; both must be at least 1"),
        ("jumanji-cleaner", {"max_episode_steps": 0}, "max_episode_steps=0; both"),
        ("jumanji-cleaner", {"grid_size": 2}, "grid_size=2 must be at least 3"),
        ("jumanji-lbf", {"grid_size": 4}, "jumanji-lbf: Grid size must be greater than 5"),
        ("jumanji-rware", {"shelf_columns": 2}, "must be an odd number"),
        ("jumanji-rware", {"num_agents": 99}, "shelves are too few to request 198 at a time"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)
