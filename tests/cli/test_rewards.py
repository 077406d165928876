"""Reward transforms: each paper's formula, and where a config applies it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.cli.rewards import REWARD_TRANSFORMS, reward_transform
from jaxdiff.cli.settings import base_config
from jaxdiff.cli.task import load_dataset, make_task

EPISODE = np.array([0, 0, 0, 1, 1, 2])
REWARD = np.array([1.0, 2.0, 3.0, -1.0, 0.0, 1.0])  # returns 6, -1, 1


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("none", REWARD),
        ("normalize", (REWARD - 1.0) / np.sqrt(10.0 / 6.0)),
        ("cql_antmaze", [2.0, 6.0, 10.0, -6.0, -2.0, 2.0]),
        ("iql_antmaze", [0.0, 1.0, 2.0, -2.0, -1.0, 0.0]),
        ("iql_locomotion", REWARD * 1000.0 / 7.0),
        ("min_max", [0.0, 0.5, 1.0, -1.0, -0.5, 0.0]),
    ],
)
def test_transforms_are_the_papers_formulas(name, wanted):
    before = REWARD.copy()
    np.testing.assert_allclose(reward_transform(name)(before, EPISODE), wanted, rtol=1e-12)
    np.testing.assert_array_equal(before, REWARD)


def test_antmaze_rewards_are_told_apart_from_the_task_s_own():
    sparse = np.array([0.0, 0.0, 1.0])
    np.testing.assert_array_equal(REWARD_TRANSFORMS["cql_antmaze"](sparse, np.zeros(3, int)), [-2.0, -2.0, 2.0])
    np.testing.assert_array_equal(REWARD_TRANSFORMS["iql_antmaze"](sparse, np.zeros(3, int)), [-1.0, -1.0, 0.0])


@pytest.mark.parametrize("name", REWARD_TRANSFORMS)
def test_every_agent_keeps_an_own_reward(name):
    both = REWARD_TRANSFORMS[name](np.stack([REWARD, REWARD[::-1]], axis=-1), EPISODE)
    assert both.shape == (6, 2)
    assert np.isfinite(both).all()


def test_gaps_between_episodes_are_not_episodes_of_return_zero():
    reward, episode = np.array([3.0, 4.0, 5.0]), np.array([0, 4, 7])
    np.testing.assert_allclose(REWARD_TRANSFORMS["iql_locomotion"](reward, episode), reward * 500.0)


@pytest.mark.parametrize("name", ["normalize", "iql_locomotion", "min_max"])
def test_rewards_that_are_all_the_same_are_refused_with_the_remedy(name):
    with pytest.raises(ValueError, match=f"reward_transform='{name}' divides by .*, which is 0 .*'none'"):
        REWARD_TRANSFORMS[name](np.zeros(4), np.array([0, 0, 1, 1]))


def config(bandit_data: Any, **changes: Any) -> dict[str, Any]:
    chosen = base_config("diffusion_bc")
    chosen.update({"env": "probe-bandit", "dataset": str(bandit_data), **changes})
    return chosen.to_dict()


def test_a_config_transforms_first_and_scales_then(bandit_data):
    plain, _ = load_dataset(config(bandit_data))
    found, _ = load_dataset(config(bandit_data, reward_transform="cql_antmaze", reward_scale=0.5))
    reward = np.asarray(plain.transitions.reward, np.float64)
    np.testing.assert_allclose(found.transitions.reward, 2.0 * (reward - 0.5), rtol=1e-6, atol=1e-6)
    assert np.asarray(found.transitions.reward).dtype == np.float32
    for field in ("obs", "action", "discount", "next_obs"):
        np.testing.assert_array_equal(getattr(found.transitions, field), getattr(plain.transitions, field))
    scaled, _ = load_dataset(config(bandit_data, reward_transform="iql_antmaze", normalise_reward=True))
    assert np.abs(scaled.transitions.reward).max() == pytest.approx(10.0, rel=1e-6)  # every episode is one step


def test_evaluation_is_paid_in_the_task_s_own_rewards(bandit_data):
    """A transform is of the data alone, so scores stay on the published scale whatever the convention."""
    plain = make_task(config(bandit_data))
    changed = make_task(config(bandit_data, reward_transform="cql_antmaze", reward_scale=0.5))
    assert np.abs(np.asarray(changed.dataset.transitions.reward) - plain.dataset.transitions.reward).min() > 1e-3
    paid = []
    for task in (plain, changed):
        state, _ = task.env.reset(jax.random.key(0))
        paid.append(float(task.env.step(state, jnp.asarray([0.8, -0.8]))[1].reward))
    assert paid == [5.0, 5.0]
    assert plain.spec.reference_scores == changed.spec.reference_scores == (2.375, 5.0)


def test_a_misspelt_transform_is_an_error_before_any_data_are_read(bandit_data):
    with pytest.raises(KeyError, match="unknown reward_transform 'cql_antmase'; did you mean 'cql_antmaze'"):
        load_dataset(config("nowhere.hdf5", reward_transform="cql_antmase"))
