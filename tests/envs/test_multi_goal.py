"""Mazes whose goal is drawn at every reset and told in the observation."""

import jax
import numpy as np
import pytest

from jaxdiff.envs import make, pointmaze


def test_spec_and_facts_tell_of_a_goal_that_changes():
    spec = make("pointmaze-medium-multi").spec
    assert (spec.obs_dim, spec.goal, spec.goal_dim, spec.max_episode_steps) == (6, None, 2, 600)
    assert make("pointmaze-medium-multi").facts["goal"] is None
    for size in ("umaze", "medium", "large", "open"):
        for dense in ("", "-dense"):
            single = make(f"pointmaze-{size}{dense}").spec
            assert make(f"pointmaze-{size}-multi{dense}").spec.reference_scores == single.reference_scores is not None


def test_goals_are_drawn_like_starts_and_apart_from_them():
    layout, num = pointmaze.LAYOUTS["umaze"], 4000
    keys = jax.random.split(jax.random.key(1), num)
    single, multi = make("pointmaze-umaze"), make("pointmaze-umaze-multi")
    alone, obs = jax.jit(lambda keys: (jax.vmap(single.reset)(keys)[1], jax.vmap(multi.reset)(keys)[1]))(keys)
    np.testing.assert_array_equal(obs[:, :4], alone)
    start, goal = np.asarray(obs)[:, :2], np.asarray(obs)[:, 4:]
    cell = np.rint(goal).astype(int)
    offset = goal - cell
    assert np.abs(offset).max() <= 0.1
    np.testing.assert_allclose(offset.std(axis=0), 0.2 / np.sqrt(12), rtol=0.05)
    free = [(i, j) for i, row in enumerate(layout) for j, mark in enumerate(row) if mark != "#"]
    drawn, counts = np.unique(cell, axis=0, return_counts=True)
    assert [tuple(c) for c in drawn.tolist()] == free
    expected = num / len(free)
    assert ((counts - expected) ** 2 / expected).sum() < len(free) + 6 * np.sqrt(2 * len(free))  # chi-squared
    same_cell = (np.rint(start).astype(int) == cell).all(axis=1).mean()
    assert abs(same_cell - 1 / len(free)) < 0.03  # start and goal are independent


def test_reward_is_about_the_goal_that_was_drawn():
    envs = [make(f"pointmaze-umaze-multi{dense}") for dense in ("", "-dense")]
    actions = np.random.default_rng(4).uniform(-1, 1, (100, 2)).astype(np.float32)

    def run(key):
        started = [env.reset(key) for env in envs]
        episodes = [jax.lax.scan(env.step, s, actions)[1] for env, (s, _) in zip(envs, started, strict=True)]
        return started[0][1], episodes

    first, (sparse, dense) = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(2), 32))
    obs = np.asarray(sparse.obs, np.float64)
    np.testing.assert_array_equal(obs[..., 4:], np.broadcast_to(np.asarray(first)[:, None, 4:], obs[..., 4:].shape))
    distance = np.linalg.norm(obs[..., :2] - obs[..., 4:], axis=-1)
    clear = np.abs(distance - 0.5) > 1e-5
    np.testing.assert_array_equal(np.asarray(sparse.reward)[clear], (distance <= 0.5)[clear])
    np.testing.assert_allclose(dense.reward, np.exp(-distance), atol=1e-6)
    assert 0.01 < np.mean(sparse.reward) < 0.99
    assert not sparse.terminated.any()


def test_the_layouts_own_goal_does_not_matter():
    bare = pointmaze.pointmaze(r"#####\#OOO#\###O#\#OOO#\#####", multi=True)
    assert (bare.spec.name, bare.facts["goal"]) == ("pointmaze-custom-multi", None)
    with pytest.raises(ValueError, match=r"goal=\(1, 1\) has no use with multi=True"):
        pointmaze.pointmaze("umaze", multi=True, goal=(1, 1))
