"""The waypoint generator on the closed-form mazes: true successors, true rewards, whole episodes, wide coverage."""

import functools

import jax
import numpy as np
import pytest

from jaxdiff.data import waypoint
from jaxdiff.envs import pointmaze

OPEN = ("#####", "#OOO#", "#OGO#", "#OOO#", "#####")


def maze_of(size, *, dense=False, max_episode_steps=None):
    env = pointmaze.pointmaze(size, dense=dense, max_episode_steps=max_episode_steps)
    goal = env.facts["goal"]
    return waypoint.Maze(tuple(env.facts["layout"]), (goal[0], goal[1]), env.spec.max_episode_steps, dense)


@functools.cache
def physics_of(maze):
    return functools.partial(pointmaze.physics_step, walls=pointmaze.walls_of(maze.layout))


@functools.cache
def walked(size="umaze", *, dense=False, num_steps=3050, noise=0.5, seed=0):
    maze = maze_of(size, dense=dense)
    return maze, waypoint.generate(jax.random.key(seed), maze, physics_of(maze), num_steps=num_steps, noise=noise)


def test_next_observation_is_the_successor_inside_an_episode():
    maze, columns = walked()
    inside = np.flatnonzero(~columns.truncated)
    step = jax.jit(jax.vmap(physics_of(maze)))
    position, velocity = step(columns.obs[:, :2], columns.obs[:, 2:], columns.action)
    expected = np.concatenate([position, velocity], axis=1)[inside]
    np.testing.assert_allclose(columns.obs[inside + 1], expected, atol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
def test_rewards_are_those_of_the_fixed_goal_after_the_step(dense):
    maze, columns = walked(dense=dense)
    inside = np.flatnonzero(~columns.truncated)
    after = columns.obs[inside + 1, :2].astype(np.float64)
    distance = np.sqrt(((after - np.array(maze.goal)) ** 2).sum(1))
    clear = np.abs(distance - 0.5) > 1e-4  # on the rim, float32 may decide otherwise
    expected = np.exp(-distance) if dense else distance <= 0.5
    np.testing.assert_allclose(columns.reward[inside][clear], expected[clear], atol=1e-5)
    assert 0 < columns.reward.mean() < 1


@pytest.mark.parametrize("dense", [False, True])
def test_the_environment_pays_the_same(dense):
    env = pointmaze.pointmaze("umaze", dense=dense)
    _, columns = walked(dense=dense)
    state, _ = env.reset(jax.random.key(0))
    step = jax.jit(
        jax.vmap(lambda obs, action: env.step(state.replace(position=obs[:2], velocity=obs[2:]), action)[1].reward)
    )
    paid = np.asarray(step(columns.obs[:500], columns.action[:500]))
    differs = np.abs(paid - columns.reward[:500]) > 1e-5
    assert differs.mean() < 0.005  # rounding on the rim of the sparse goal


def test_episodes_last_the_mazes_clock_and_the_last_is_cut():
    _, columns = walked()
    np.testing.assert_array_equal(np.flatnonzero(columns.truncated), [*range(299, 3000, 300), 3049])
    assert not columns.terminated.any()
    assert len(columns.obs) == len(columns.reward) == len(columns.extras["infos/goal"]) == 3050


def test_the_walk_covers_the_maze_and_stays_off_its_walls():
    maze, columns = walked("medium", num_steps=24_000)
    free = {(i, j) for i, row in enumerate(maze.layout) for j, mark in enumerate(row) if mark != "#"}
    # Cell (i, j) is [i - 0.7, i + 0.3] x [j - 0.7, j + 0.3].
    visited = {(int(i), int(j)) for i, j in np.floor(columns.obs[:, :2] + 0.7)}
    assert visited == free


def test_targets_are_spread_over_the_cells_and_reached():
    maze, columns = walked("umaze", num_steps=3050)
    target = columns.extras["infos/goal"]
    cells = np.unique(np.rint(target).astype(int), axis=0)
    assert len(cells) == 7  # the free cells of the U
    changes = np.flatnonzero((target[1:] != target[:-1]).any(1) & ~columns.truncated[:-1])
    assert len(changes) > 5
    gap = np.linalg.norm(columns.obs[changes + 1, :2] - target[changes], axis=1)
    assert gap.max() < 0.1 + 1e-5


def test_without_noise_actions_are_the_controllers_own():
    """a = clip(10 (wp - x) - v): wp solved from an unsaturated action is within reach of a free cell."""
    maze, columns = walked(noise=0.0)
    free = np.array([(i, j) for i, row in enumerate(maze.layout) for j, mark in enumerate(row) if mark != "#"])
    unsaturated = (np.abs(columns.action) < 0.999).all(1)
    aim = (columns.action + columns.obs[:, 2:])[unsaturated] / 10 + columns.obs[unsaturated, :2]
    offset = np.abs(aim[:, None] - (free - 0.05)).max(-1).min(1)  # waypoints in [-0.2, 0], targets in [-0.1, 0.1]
    assert unsaturated.sum() > 100
    assert offset.max() <= 0.15 + 1e-3


def test_noise_makes_worse_walkers():
    changes = []
    for noise in (0.0, 2.0):
        _, columns = walked("umaze", noise=noise)
        target = columns.extras["infos/goal"]
        changes.append(int(((target[1:] != target[:-1]).any(1) & ~columns.truncated[:-1]).sum()))
    assert changes[0] > changes[1]


def test_actions_stay_in_the_box_and_all_is_finite():
    _, columns = walked(noise=2.0)
    assert np.abs(columns.action).max() <= 1.0
    assert all(np.isfinite(array).all() for array in (columns.obs, columns.action, columns.reward))
    assert columns.obs.dtype == columns.action.dtype == columns.reward.dtype == np.float32


def test_seeds_differ_and_one_seed_repeats():
    maze, first = walked(seed=0)
    again = waypoint.generate(jax.random.key(0), maze, physics_of(maze), num_steps=3050)
    np.testing.assert_array_equal(first.obs, again.obs)
    assert (walked(seed=1)[1].obs != first.obs).any()


def test_routes_are_shortest_paths():
    """In an open room a shortest path is as long as the sum of the coordinates' differences."""
    free, route = waypoint.plan(OPEN)
    for target in range(len(free)):
        for cell in range(len(free)):
            steps, here = 0, cell
            while here != target:
                here, steps = route[target, here], steps + 1
            assert steps == np.abs(free[target] - free[cell]).sum()


def test_a_corner_is_walked_around():
    free, route = waypoint.plan(pointmaze.LAYOUTS["umaze"])
    number = {tuple(map(int, cell)): k for k, cell in enumerate(free)}
    path, target = [number[3, 1]], number[1, 1]
    while path[-1] != target:
        path.append(int(route[target, path[-1]]))
    assert [tuple(map(int, free[k])) for k in path] == [(3, 1), (3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]


@pytest.mark.parametrize(
    ("layout", "message"),
    [(("###", "###"), "no free cell"), (("#####", "#O#O#", "#####"), r"no path from cell \(1, 3\) to \(1, 1\)")],
)
def test_a_maze_without_ways_is_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        waypoint.plan(layout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 1}, "num_steps=1 must be at least 2"),
        ({"num_steps": 9, "noise": -1.0}, "noise=-1.0"),
        ({"num_steps": 9, "jitter": 0.7}, "jitter=0.7"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    maze = maze_of("umaze")
    with pytest.raises(ValueError, match=message):
        waypoint.generate(jax.random.key(0), maze, physics_of(maze), **arguments)
