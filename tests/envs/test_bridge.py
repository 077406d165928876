"""The bridge: every rule by a position drawn on paper, and both reference scores by dynamic programming."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import bridge
from jaxdiff.envs.discrete import encode_onehot

STAY, UP, DOWN, RIGHT, LEFT = range(5)
MOVE = jax.jit(bridge.move)


@pytest.mark.parametrize(
    ("before", "actions", "after"),
    [
        # walls, edges
        (((1, 2), (1, 3)), (UP, DOWN), ((1, 2), (1, 3))),
        (((0, 0), (0, 5)), (UP, RIGHT), ((0, 0), (0, 5))),
        (((0, 1), (2, 4)), (RIGHT, LEFT), ((0, 1), (2, 4))),
        # free moves
        (((1, 1), (1, 4)), (UP, DOWN), ((0, 1), (2, 4))),
        (((1, 1), (1, 4)), (LEFT, RIGHT), ((1, 0), (1, 5))),
        # swapping cells
        (((1, 2), (1, 3)), (RIGHT, LEFT), ((1, 2), (1, 3))),
        (((2, 4), (2, 5)), (RIGHT, LEFT), ((2, 5), (2, 4))),  # agent 0 arrives, so both move
        (((0, 0), (0, 1)), (RIGHT, LEFT), ((0, 0), (0, 1))),  # agent 1 would, and that does not count
        # the same cell
        (((1, 1), (1, 3)), (RIGHT, LEFT), ((1, 2), (1, 3))),
        (((1, 4), (1, 5)), (DOWN, STAY), ((2, 4), (1, 5))),
        # a cell whose owner stays
        (((1, 2), (1, 3)), (RIGHT, STAY), ((1, 2), (1, 3))),
        (((1, 2), (1, 3)), (STAY, LEFT), ((1, 2), (1, 3))),
        (((1, 2), (1, 3)), (UP, LEFT), ((1, 2), (1, 3))),  # its owner wants into a wall
        (((1, 5), (2, 5)), (DOWN, STAY), ((2, 5), (2, 5))),  # the goal of agent 0
        (((0, 0), (0, 1)), (STAY, LEFT), ((0, 0), (0, 0))),  # the goal of agent 1
        (((0, 1), (0, 0)), (LEFT, STAY), ((0, 0), (0, 0))),  # agent 1 is done
        # following
        (((1, 2), (1, 3)), (LEFT, LEFT), ((1, 1), (1, 2))),
        (((1, 2), (1, 3)), (RIGHT, RIGHT), ((1, 3), (1, 4))),
        # whoever is done stays and blocks nobody
        (((2, 5), (1, 5)), (UP, DOWN), ((2, 5), (2, 5))),
        (((1, 0), (0, 0)), (UP, RIGHT), ((0, 0), (0, 0))),
        (((2, 5), (2, 5)), (LEFT, LEFT), ((2, 5), (2, 4))),
        (((2, 5), (0, 0)), (LEFT, RIGHT), ((2, 5), (0, 0))),
    ],
)
def test_rules(before, actions, after):
    got = MOVE(jnp.array(before), jnp.array(actions))
    np.testing.assert_array_equal(got, after)


def play(actions, **options):
    env = bridge.bridge(**options)
    state, obs = env.reset(jax.random.key(0))
    timestep = jax.jit(lambda s, a: jax.lax.scan(env.step, s, a)[1])(state, encode_onehot(np.array(actions), 5))
    return np.asarray(obs), jax.tree.map(np.asarray, timestep)


CROSSING = [(LEFT, LEFT), (UP, LEFT), (STAY, LEFT), (DOWN, UP), (RIGHT, STAY), (RIGHT, STAY), (RIGHT, STAY)]


def test_a_crossing_is_paid_by_distances_and_ends_when_both_are_done():
    """Agent 0 lets the other pass in the upper corner."""
    obs, timestep = play([*CROSSING, (RIGHT, STAY), (DOWN, STAY)])
    np.testing.assert_array_equal(obs, [[1, 2, 2, 5, 1, 3, 0, 0]] * 2)
    seen = timestep.obs[:, 0].astype(int)
    first = [(1, 1), (0, 1), (0, 1), (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 5)]
    second = [(1, 2), (1, 1), (1, 0), *[(0, 0)] * 6]
    np.testing.assert_array_equal(seen, [(*a, 2, 5, *b, 0, 0) for a, b in zip(first, second, strict=True)])
    np.testing.assert_array_equal(timestep.obs[:, 0], timestep.obs[:, 1])
    expected = [-0.05 * (math.dist(a, (2, 5)) + math.dist(b, (0, 0))) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(timestep.reward, np.tile(np.array(expected)[:, None], 2), atol=1e-6)
    assert timestep.reward[-1].tolist() == [0.0, 0.0]
    assert np.flatnonzero(timestep.terminated).tolist() == [8]
    assert not timestep.truncated.any()


def test_the_clock_truncates_and_its_step_is_not_paid():
    _, timestep = play([(STAY, STAY)] * 4, max_episode_steps=4)
    each = -0.05 * (math.dist((1, 2), (2, 5)) + math.dist((1, 3), (0, 0)))
    np.testing.assert_allclose(timestep.reward[:, 0], [each] * 3 + [0.0], atol=1e-6)
    assert timestep.truncated.tolist() == [False] * 3 + [True]
    assert not timestep.terminated.any()


def values(following, choose):
    """Return of 50 steps from each state, `choose` over what the 25 joint actions are worth."""
    cells = [divmod(cell, 6) for cell in range(18)]
    distance = np.array([math.dist(a, (2, 5)) + math.dist(b, (0, 0)) for a in cells for b in cells])
    done, value = distance == 0, np.zeros(324)
    for left in range(50):
        reward = np.zeros((324, 25)) if left == 0 else -0.05 * distance[following]
        value = np.where(done, 0.0, choose(reward + value[following], axis=1))
    return value


def test_reference_scores_are_those_of_uniform_actions_and_of_the_best():
    following, waiting, start = bridge.transitions()
    assert start == 18 * (6 * 1 + 2) + (6 * 1 + 3)
    assert (waiting == 0).sum() == 1
    reference = bridge.bridge().spec.reference_scores
    np.testing.assert_allclose(values(following, np.mean)[start], reference[0], atol=1e-3)
    np.testing.assert_allclose(values(following, np.max)[start], reference[1], atol=1e-4)


def test_eight_moves_are_the_fewest():
    following, waiting, start = bridge.transitions()
    reached, steps = {start}, 0
    while not any(waiting[state] == 0 for state in reached):
        reached = {int(s) for state in reached for s in following[state]}
        steps += 1
    assert steps == 8


def test_the_clock_needs_a_step():
    with pytest.raises(ValueError, match="max_episode_steps=0 must be at least 1"):
        bridge.bridge(max_episode_steps=0)
