"""The task of a config: rewards, observations and sizes before anything is trained."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from jaxdiff.cli.settings import base_config, check_sizes
from jaxdiff.cli.task import (
    check_fit,
    discounted_returns,
    load_dataset,
    make_env,
    make_task,
    on_one_scale,
    reward_scale,
)
from jaxdiff.data import Dataset
from jaxdiff.envs import probes
from jaxdiff.types import Transition


def dataset_of(reward: Any, episode: Any) -> Dataset:
    reward, count = np.asarray(reward, np.float32), len(reward)
    obs = np.zeros((count, 1), np.float32)
    rows = Transition(obs, obs, reward, np.ones(count, np.float32), obs)
    return Dataset(rows, np.asarray(episode, np.int32))  # type: ignore[arg-type]


def test_discounted_returns_end_with_their_episode():
    found = discounted_returns(dataset_of([1.0, 2.0, 4.0, 8.0, 16.0], [0, 0, 0, 1, 1]), 0.5)
    np.testing.assert_allclose(found, [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4, 8 + 0.5 * 16, 16])
    assert found.dtype == np.float64


def test_agents_have_returns_of_their_own():
    found = discounted_returns(dataset_of([[1.0, 10.0], [2.0, 20.0]], [0, 0]), 0.5)
    np.testing.assert_allclose(found, [[2.0, 20.0], [2.0, 20.0]])


@pytest.mark.parametrize("reward", [[3.0, 3.0, 3.0], [-1.0, 0.5, -7.0]])
def test_normalised_rewards_make_the_largest_return_ten(reward):
    dataset = dataset_of(reward, [0, 0, 0])
    scale = reward_scale({"normalise_reward": True, "reward_scale": 1.0}, dataset)
    returns = [sum(0.99 ** (k - i) * reward[k] for k in range(i, 3)) for i in range(3)]
    assert scale * max(map(abs, returns)) == pytest.approx(10.0, rel=1e-6)
    assert reward_scale({"normalise_reward": True, "reward_scale": 0.5}, dataset) == pytest.approx(scale / 2)
    assert reward_scale({"normalise_reward": False, "reward_scale": 0.5}, dataset) == 0.5


def test_rewards_that_are_all_zero_stay_as_they_are():
    assert reward_scale({"normalise_reward": True, "reward_scale": 1.0}, dataset_of([0.0, 0.0], [0, 0])) == 1.0


def bandit_config(bandit_data: Any, **changes: Any) -> dict[str, Any]:
    config = base_config("diffusion_bc")
    config.update({"env": "probe-bandit", "dataset": str(bandit_data), **changes})
    return config.to_dict()


def test_rewards_are_scaled_and_nothing_else(bandit_data):
    plain, _ = load_dataset(bandit_config(bandit_data))
    scaled, _ = load_dataset(bandit_config(bandit_data, reward_scale=4.0))
    np.testing.assert_allclose(scaled.transitions.reward, 4.0 * np.asarray(plain.transitions.reward), rtol=1e-6)
    for field in ("obs", "action", "discount", "next_obs"):
        np.testing.assert_array_equal(getattr(scaled.transitions, field), getattr(plain.transitions, field))


def test_returns_to_reweight_by_are_the_data_s_own_whatever_happens_to_rewards(bandit_data):
    plain, _ = load_dataset(bandit_config(bandit_data))
    reward = np.asarray(plain.transitions.reward)  # of episodes of one step
    threshold = float(np.quantile(reward, 0.9))
    config = bandit_config(bandit_data, reweight=(threshold, "q0.5"), reward_scale=100.0)
    weighted, _ = load_dataset(config)
    expected = 1 + (reward >= threshold) + (reward >= np.quantile(reward, 0.5))
    np.testing.assert_array_equal(np.bincount(weighted.draws), expected)
    assert plain.draws is None
    with pytest.raises(ValueError, match="no episode's return reaches"):
        load_dataset({**config, "reweight": (float(reward.max()) + 1.0,)})


def test_reweighting_is_of_data_and_refused_online(bandit_data):
    config = bandit_config(bandit_data, reweight=(1.0,), dataset="")
    config["online"]["num_envs"] = 4
    with pytest.raises(ValueError, match=r"config.reweight=\(1.0,\) has no use while config.online.num_envs=4"):
        check_sizes(config)


def test_a_config_joins_datasets_by_a_plus(bandit_data):
    one, known = load_dataset(bandit_config(bandit_data))
    two, info = load_dataset(bandit_config(bandit_data, dataset=f"{bandit_data}+{bandit_data}"))
    assert two.num_transitions == 2 * one.num_transitions
    assert [part.sha256 for part in info.parts] == [known.sha256] * 2


def test_a_task_has_data_and_environment_of_one_size(bandit_data):
    task = make_task(bandit_config(bandit_data, normalise_obs=True))
    assert task.spec.name == "probe-bandit"
    assert task.dataset.transitions.action.shape[1] == task.spec.action_dim == 2
    np.testing.assert_array_equal(task.statistics[0], [0.0])  # the bandit's observation is always zero
    np.testing.assert_array_equal(task.statistics[1], [1.0])
    assert make_task(bandit_config(bandit_data)).statistics is None


def test_data_of_another_task_are_refused_with_both_sizes(bandit_data):
    _, info = load_dataset(bandit_config(bandit_data))
    check_fit(probes.bandit().spec, info)
    with pytest.raises(
        ValueError, match="observations of 1 and actions of 2 .*probe-action has 1 and 1; choose the env"
    ):
        check_fit(probes.action().spec, info)
    with pytest.raises(ValueError, match="has 2 agents, env probe-bandit none; choose the env the data came from"):
        check_fit(probes.bandit().spec, dataclasses.replace(info, num_agents=2))
    wide = dataclasses.replace(info, obs_dim=5)
    with pytest.raises(ValueError, match="observations of 5"):
        check_fit(probes.bandit().spec, wide)


def test_data_of_another_world_are_named_and_lend_the_run_no_scale(bandit_data, capsys):
    _, info = load_dataset(bandit_config(bandit_data))
    spec = dataclasses.replace(probes.bandit().spec, name="mpe-tag-omar", reference_scores=(-4.1, 185.6))
    data = dataclasses.replace(info, name="tag-data", reference_scores=(-5.9, 99.05))
    kept = [on_one_scale(spec, data), on_one_scale(spec, data)]
    assert kept == [dataclasses.replace(data, reference_scores=None)] * 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dataset tag-data has its scores 0 and 100 at returns of -5.9 and 99.05, env mpe-tag-omar at -4.1" in line
    assert "--config.mpe.prey=scripted|FILE|RUN" in line
    for same in (dataclasses.replace(data, reference_scores=(-4.1001, 185.6)), dataclasses.replace(info, name="raw")):
        assert on_one_scale(spec, same) == same
    raw = dataclasses.replace(spec, reference_scores=None)
    assert on_one_scale(raw, data) == data
    assert not capsys.readouterr().err


def test_backend_is_an_option_of_brax_tasks_alone(bandit_data):
    assert make_env(bandit_config(bandit_data, env_backend="mjx")).spec.name == "probe-bandit"
