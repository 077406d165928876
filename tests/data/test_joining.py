"""Datasets laid end to end: rows in order, episodes numbered on, returns as if they were one file."""

import dataclasses
import json

import numpy as np
import pytest
from synthetic_d4rl import random_arrays

from jaxdiff.cli.ensure import ensure_all
from jaxdiff.data import join, load


def parts(save, agents=None):
    names = ("low.hdf5", "high.hdf5")
    loaded = [load(save(random_arrays(60, seed=seed, agents=agents), name)) for seed, name in enumerate(names)]
    return [dataset for dataset, _ in loaded], [info for _, info in loaded]


@pytest.mark.parametrize("agents", [None, 2])
def test_rows_lie_end_to_end_and_no_episode_crosses_the_seam(save, agents):
    datasets, infos = parts(save, agents)
    both, info = join(datasets, infos)
    first = datasets[0].num_transitions
    for field in ("obs", "action", "reward", "discount", "next_obs"):
        pieces = [getattr(dataset.transitions, field) for dataset in datasets]
        np.testing.assert_array_equal(getattr(both.transitions, field), np.concatenate(pieces))
    np.testing.assert_array_equal(both.episode[:first], datasets[0].episode)
    np.testing.assert_array_equal(both.episode[first:] - datasets[0].episode[-1] - 1, datasets[1].episode)
    assert both.episode.dtype == np.int32
    assert info.num_episodes == both.episode[-1] + 1 == sum(part.num_episodes for part in infos)


def test_returns_are_those_of_all_episodes(save):
    """Against returns summed by a loop over both files' rows."""
    datasets, infos = parts(save)
    returns = []
    for seed in range(2):
        arrays, running = random_arrays(60, seed=seed), 0.0
        for reward, ended in zip(arrays["rewards"], arrays["terminals"] | arrays["timeouts"], strict=True):
            running += float(reward)
            if ended:
                returns.append(running)
                running = 0.0
    _, info = join(datasets, infos)
    assert info.num_returns == len(returns)
    np.testing.assert_allclose([info.return_mean, info.return_std], [np.mean(returns), np.std(returns)], rtol=1e-5)


def test_the_parts_are_recorded_and_their_order_is_part_of_the_hash(save):
    datasets, infos = parts(save)
    _, info = join(datasets, infos)
    _, turned = join(datasets[::-1], infos[::-1])
    assert (info.name, turned.name) == ("low+high", "high+low")
    assert info.sha256 != turned.sha256
    assert [part["sha256"] for part in json.loads(json.dumps(dataclasses.asdict(info)))["parts"]] == [
        part.sha256 for part in infos
    ]
    assert join(datasets[:1], infos[:1]) == (datasets[0], infos[0])


def test_data_of_two_tasks_are_refused_by_their_names(save):
    datasets, infos = parts(save)
    wide = load(save(random_arrays(30, agents=2), "team.hdf5"))
    with pytest.raises(
        ValueError, match=r"datasets low \(observations of 3, actions of 2\) and team \(.*, 2 agents with"
    ):
        join([*datasets, wide[0]], [*infos, wide[1]])


def test_names_are_parted_at_a_plus_unless_it_is_in_a_file_s_name(save):
    arrays = random_arrays(20)
    low, high, plus = (save(arrays, name) for name in ("low.hdf5", "high.hdf5", "low.hdf5+high.hdf5"))
    assert ensure_all(f"{low} + {high}") == [low, high]
    assert ensure_all(plus) == [plus]
    with pytest.raises(ValueError, match="a name is missing beside a"):
        ensure_all(f"{low}+")
    with pytest.raises(FileNotFoundError, match="did you mean 'high.hdf5'"):
        ensure_all(f"{low}+{low.with_name('hihg.hdf5')}")
