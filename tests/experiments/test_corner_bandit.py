"""The bandit study: shares of counted points, two algorithms trained for a moment, none left out in silence."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import corner_bandit as study
from jaxdiff import train
from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.cli.settings import make_settings
from jaxdiff.cli.task import make_algorithm
from jaxdiff.envs import probes

SEEDS = (0, 3)
NUM_UPDATES = 4
NAMES = ("td3_bc", "diffusion_bc")


@pytest.fixture(scope="module", params=NAMES)
def trained(request: pytest.FixtureRequest) -> tuple[Any, Any, train.Lane]:
    """(config, dataset, lanes) of a few updates."""
    config, dataset = study.make_config(request.param, NUM_UPDATES), study.make_dataset(400)
    lanes, _ = study.train_seeds(config, SEEDS, dataset)
    return config, dataset, lanes


def test_every_algorithm_has_settings_or_a_reason_to_be_absent():
    assert set(ALGORITHMS) - set(study.SETTINGS) <= set(study.ABSENT)
    assert not set(study.SETTINGS) & set(study.ABSENT)
    assert all(study.ABSENT.values())
    assert all(setting.why for setting in study.SETTINGS.values() if setting.changes)


def test_what_settings_change_are_settings_of_the_algorithm():
    for name, setting in study.SETTINGS.items():
        config = study.make_config(name, 100)
        assert config.algorithm == name
        assert config.num_updates == 100
        for key, value in setting.changes.items():
            *groups, leaf = key.split(".")
            group = config
            for part in groups:
                group = group[part]
            assert group[leaf] == value


def test_a_name_without_settings_is_refused():
    with pytest.raises(KeyError, match="unknown algorithm of the bandit 'bcc'"):
        study.make_config("bcc", 100)


def test_shares_count_the_points_at_each_corner_and_elsewhere():
    corner = np.array([[0.8, -0.8]])
    at = np.concatenate([np.tile(corner + [0.15, -0.15], (3, 1)), np.tile(-corner + [0.1, 0.0], (2, 1))])
    off = np.array([[0.0, 0.0], [0.8, -0.5], [0.5, -0.8]])
    shares = study.corner_shares(np.stack([np.concatenate([at, off]), np.zeros((8, 2))]))
    np.testing.assert_allclose(shares, [[2 / 8, 0, 0, 3 / 8, 3 / 8], [0, 0, 0, 0, 1]])
    assert study.BEST == 3


def test_the_dataset_is_the_bandits_and_every_step_terminates():
    rows = study.make_dataset(400).transitions
    action, reward = probes.bandit_corners(0, num_points=400)
    np.testing.assert_array_equal(rows.action, action)
    np.testing.assert_array_equal(rows.reward, reward)
    assert not np.any(rows.discount)


def test_seeds_differ_and_shares_sum_to_one(trained):
    config, _, lanes = trained
    assert np.asarray(lanes.alive).all()
    assert np.asarray(lanes.state.step).tolist() == [NUM_UPDATES] * len(SEEDS)
    algorithm = make_algorithm(config, probes.bandit().spec, None)
    actions = study.draw_actions(algorithm, lanes.state, SEEDS, 50)
    assert actions.shape == (len(SEEDS), 50, 2)
    assert np.any(actions[0] != actions[1])
    np.testing.assert_allclose(study.corner_shares(actions).sum(axis=-1), 1.0)


def test_a_lane_is_what_its_seed_gives_alone(trained):
    config, dataset, lanes = trained
    algorithm = make_algorithm(config, probes.bandit().spec, None)
    hparams = jax.tree.map(np.float32, make_settings(config)[1])
    scaled = study.scaled(config, dataset)
    lane = jax.jit(lambda seed: train.init_lane(algorithm, hparams, seed))(jnp.int32(SEEDS[1]))
    lane, _ = jax.jit(train.make_chunk(algorithm, config.batch_size))(lane, jnp.int32(NUM_UPDATES), scaled)
    for alone, together in zip(*map(jax.tree.leaves, (lane.state.params, lanes.state.params)), strict=True):
        np.testing.assert_allclose(together[1], alone, atol=1e-5)


def test_a_row_of_the_table_has_a_cell_per_column():
    row = {"acting": [[0.0, 0.0, 0.0, 0.9, 0.1], [0.0, 0.2, 0.0, 0.8, 0.0]], "acting_edge": [0.0, 0.5]}
    line = study.table_row("edp", {**row, "finite_seeds": 1, "train_seconds": 3.0})
    assert line == "| `edp` (1 seeds not finite) | 85.0 | 80.0 to 90.0 | 0.0 | 0.0 | 10.0 | 5.0 | 25.0 |  | 3 |"
    assert {line.count("|") for line in study.HEADER.splitlines()} == {line.count("|")}
