"""`jaxdiff data make game-...`: returns, cards, and rows that the game itself would give."""

import jax
import numpy as np
import pytest

from jaxdiff.cli.main import main
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, load
from jaxdiff.envs import make

NAMES = [f"{env}-{quality}" for env, known in catalog.GAME_QUALITIES.items() for quality in known]
STEPS = 1000


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_once):
    """Paths of datasets, each made once."""
    folder, paths = tmp_path_factory.mktemp("games"), {}

    def one(name, *argv):
        if (name, argv) not in paths:
            path = folder / f"{len(paths)}.hdf5"
            assert main(["data", "make", name, f"--steps={STEPS}", f"--out={path}", *argv]) == 0
            paths[name, argv] = path
        return paths[name, argv]

    return one


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_those_of_the_task(name, made):
    dataset, info = load(made(name))
    env = make(catalog.GENERATED[name].env)
    spec, rows = env.spec, dataset.transitions
    assert (info.env, info.num_transitions) == (spec.name, STEPS)
    assert (info.num_agents, info.obs_dim, info.action_dim) == (spec.num_agents, spec.obs_dim, spec.action_dim)
    assert rows.reward.shape == rows.discount.shape == (STEPS, spec.num_agents)
    assert info.reference_scores == spec.reference_scores
    np.testing.assert_array_equal(rows.discount[:-1].min(axis=1) == 1, rows.discount[:-1].max(axis=1) == 1)
    if spec.num_actions:
        np.testing.assert_array_equal(np.sort(rows.action, axis=-1)[..., :-1], -1.0)
        np.testing.assert_array_equal(rows.action.max(axis=-1), 1.0)
    starts = np.flatnonzero(np.diff(dataset.episode, prepend=-1))
    np.testing.assert_allclose(rows.obs[starts], np.tile(env.reset(jax.random.key(0))[1], (len(starts), 1, 1)))
    assert np.bincount(dataset.episode).max() <= spec.max_episode_steps


@pytest.mark.parametrize(
    ("name", "mean", "error"),
    [
        ("game-xor-02", 50.0, 1e-6),
        ("game-xor-02_20", 50.0, 1e-6),
        ("game-xor-00_02_20", 33.3, 3.0),  # 20 episodes whose returns deviate by 3.3, three errors of the mean
        ("game-xor-random", 0.15, 6.0),  # by 8.7
        ("game-bridge-optimal", -1.2552, 0.01),
        ("game-bridge-random", -17.56, 4.0),
        ("game-landmarks-optimal", 1.0, 0.01),
        ("game-payoff-random", -40.0 / 9.0, 0.9),
        ("game-mixture-samples", 0.425, 0.03),
    ],
)
def test_returns_are_the_expected_ones(name, mean, error, made):
    card = cards.read_card(made(name))
    np.testing.assert_allclose(card.return_mean, mean, atol=error)
    assert card.true_next_observations


def test_optimal_crossings_are_sixteen_and_have_three_returns(made):
    """So have the 500 published ones: -1.2355, -1.2591 and -1.2904."""
    dataset, _ = load(made("game-bridge-optimal"))
    rows, lengths = dataset.transitions, np.bincount(dataset.episode)
    assert set(lengths[:-1]) == {8}
    whole = 8 * (len(lengths) - 1)
    assert (rows.discount[7:whole:8] == 0).all()
    returns = rows.reward[:whole, 0].reshape(-1, 8).sum(axis=1)
    np.testing.assert_allclose(np.unique(returns.round(4)), [-1.2904, -1.2591, -1.2355], atol=2e-4)
    paths = np.unique(rows.next_obs[:whole, 0].reshape(-1, 64), axis=0)
    assert len(paths) == 16
    arrived = (paths.reshape(16, 8, 8)[:, :, :2] == (2, 5)).all(axis=-1).sum(axis=1)
    assert (arrived > 1).sum() == 8  # agent 0 is the first in half of them


def test_mixed_crossings_take_turns(made):
    dataset, _ = load(made("game-bridge-mixed"))
    lengths = np.bincount(dataset.episode)[:-1]
    assert (lengths[1::2] == 8).all()
    assert (lengths[::2] > 8).all()


def test_a_quality_is_a_name_and_a_seed_repeats(made):
    named = made("game-xor-02_20").read_bytes()
    assert made("game-xor", "--quality=02_20").read_bytes() == named
    assert made("game-xor", "--quality=02_20", "--seed=1").read_bytes() != named


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["game-xor"], "game-xor: no quality; give --quality=02|02_20|00_02_20|random"),
        (["game-bridge", "--quality=optimum"], "unknown quality of game-bridge 'optimum'; did you mean 'optimal'"),
        (["game-xor-02", "--noise=0.5"], "game-xor-02 has no use for --noise"),
        (["game-xor-02", "--backend=mjx"], "game-xor-02 has no use for --backend"),
    ],
)
def test_a_wrong_request_is_one_line_and_exits_2(argv, message, capsys):
    assert main(["data", "make", *argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
