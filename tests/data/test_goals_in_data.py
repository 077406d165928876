"""The walker's data where the goal changes: what a row and its successor know of it."""

import functools

import jax
import numpy as np
import pytest

from jaxdiff.data import columns as rows
from jaxdiff.data import waypoint
from jaxdiff.envs import pointmaze
from jaxdiff.envs.layouts import LAYOUTS, walls_of


@functools.cache
def physics_of(layout):
    return functools.partial(pointmaze.physics_step, walls=walls_of(layout))


@functools.cache
def walked(dense=False):
    maze = waypoint.Maze(LAYOUTS["umaze"], None, 300, dense, multi=True)
    return waypoint.generate(jax.random.key(0), maze, physics_of(maze.layout), num_steps=3050)


def test_a_row_and_its_successor_have_the_rows_own_goal():
    columns = walked()
    assert columns.obs.shape == columns.next_obs.shape == (3050, 6)
    np.testing.assert_array_equal(columns.obs[:, 4:], columns.extras["infos/goal"])
    np.testing.assert_array_equal(columns.next_obs[:, 4:], columns.obs[:, 4:])
    inside = np.flatnonzero(~columns.truncated)
    np.testing.assert_array_equal(columns.next_obs[inside, :4], columns.obs[inside + 1, :4])
    changes = (columns.obs[inside, 4:] != columns.obs[inside + 1, 4:]).any(axis=1)
    assert changes.sum() > 5


def test_the_walk_is_that_of_the_single_goal_data():
    maze = waypoint.Maze(LAYOUTS["umaze"], (1.0, 1.0), 300, False)
    single = waypoint.generate(jax.random.key(0), maze, physics_of(maze.layout), num_steps=3050)
    np.testing.assert_array_equal(single.obs, walked().obs[:, :4])
    np.testing.assert_array_equal(single.action, walked().action)
    assert single.next_obs is None


@pytest.mark.parametrize("dense", [False, True])
def test_rewards_are_about_the_rows_own_goal_after_the_step(dense):
    columns = walked(dense)
    after = columns.next_obs.astype(np.float64)
    distance = np.sqrt(((after[:, :2] - after[:, 4:]) ** 2).sum(axis=1))
    clear = np.abs(distance - 0.5) > 1e-4
    expected = np.exp(-distance) if dense else distance <= 0.5
    np.testing.assert_allclose(columns.reward[clear], expected[clear], atol=1e-5)
    assert 0.02 < columns.reward.mean() < 0.98


def test_transitions_never_mix_two_goals():
    columns = walked()
    dataset = rows.to_dataset(columns, "test", use_next_observations=True)
    t = dataset.transitions
    np.testing.assert_array_equal(t.obs[:, 4:], t.next_obs[:, 4:])
    assert dataset.num_transitions == 3050
    assert np.bincount(dataset.episode).tolist() == [300] * 10 + [50]


def test_a_landmark_in_a_wall_is_refused():
    maze = waypoint.Maze(LAYOUTS["umaze"], None, 300, False, landmarks=((2, 2),))
    with pytest.raises(ValueError, match=r"landmark \(2, 2\) is not a free cell; choose among \[\(1, 1\), "):
        waypoint.generate(jax.random.key(0), maze, physics_of(maze.layout), num_steps=10)


def test_of_equally_long_ways_mirrored_routes_take_the_other():
    ring = ("#####", "#OOO#", "#O#O#", "#OOO#", "#####")
    free, route = waypoint.plan(ring)
    _, mirrored = waypoint.plan(ring, mirrored=True)
    number = {tuple(map(int, cell)): k for k, cell in enumerate(free)}
    opposite = [((1, 1), (3, 3)), ((1, 2), (3, 2)), ((1, 3), (3, 1)), ((2, 1), (2, 3))]
    for one, other in [*opposite, *(pair[::-1] for pair in opposite)]:
        steps = [tuple(map(int, free[r[number[one], number[other]]])) for r in (route, mirrored)]
        assert steps[0] != steps[1]
        assert all(abs(i - other[0]) + abs(j - other[1]) == 1 for i, j in steps)


def test_a_walk_that_passes_waypoints_early_reaches_more_targets():
    changes = []
    for passing in (0.1, 0.4):
        maze = waypoint.Maze(LAYOUTS["umaze"], None, 300, False, passing=passing)
        columns = waypoint.generate(jax.random.key(0), maze, physics_of(maze.layout), num_steps=3050, noise=0.0)
        target = columns.extras["infos/goal"]
        changes.append(int(((target[1:] != target[:-1]).any(1) & ~columns.truncated[:-1]).sum()))
    assert changes[1] > 1.1 * changes[0]
