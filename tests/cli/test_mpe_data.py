"""`jaxdiff data make mpe-...`: rows that the task itself would give, cards, and what may be asked."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.cli.main import main
from jaxdiff.cli.make_scripted import noise_of_episodes
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, load
from jaxdiff.envs import make, mpe

STEPS = 1010  # 40 episodes of 25, and one that is cut


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_once):
    """Paths of datasets, each made once."""
    folder, paths = tmp_path_factory.mktemp("mpe"), {}

    def one(name, *argv):
        if (name, argv) not in paths:
            path = folder / f"{len(paths)}.hdf5"
            assert main(["data", "make", name, f"--steps={STEPS}", f"--out={path}", *argv]) == 0
            paths[name, argv] = path
        return paths[name, argv]

    return one


@pytest.mark.parametrize(("task", "width"), [("spread", 18), ("tag", 16), ("world", 24)])
def test_rows_are_episodes_with_agents_and_true_successors(task, width, made):
    dataset, info = load(made(f"mpe-{task}-expert"))
    assert (info.env, info.num_agents, info.obs_dim, info.action_dim) == (f"mpe-{task}", 3, width, 2)
    assert info.reference_scores == make(f"mpe-{task}").spec.reference_scores
    assert info.num_transitions == STEPS
    rows = dataset.transitions
    assert (rows.obs.shape, rows.action.shape, rows.reward.shape) == ((STEPS, 3, width), (STEPS, 3, 2), (STEPS, 3))
    assert rows.discount.shape == (STEPS, 3)
    assert (rows.discount == 1).all()
    np.testing.assert_array_equal(np.bincount(dataset.episode), [25] * 40 + [10])
    inside = np.flatnonzero(np.diff(dataset.episode) == 0)
    np.testing.assert_array_equal(rows.next_obs[inside], rows.obs[inside + 1])
    across = np.flatnonzero(np.diff(dataset.episode))
    assert (rows.next_obs[across] != rows.obs[across + 1]).any(axis=(1, 2)).all()
    assert task == "spread" or (rows.reward == rows.reward[:, :1]).all()
    assert np.abs(rows.action).max() <= 1.0


def test_the_environment_pays_what_the_file_says(made):
    """In spread the observation of agent 0 tells the whole state."""
    env = make("mpe-spread")
    dataset, _ = load(made("mpe-spread-expert"))
    rows = dataset.transitions

    @jax.jit
    @jax.vmap
    def step(obs, action):
        here = obs[:1, 2:4]
        position = jnp.concatenate([here, here + obs[0, 10:14].reshape(2, 2)])
        landmarks = here + obs[0, 4:10].reshape(3, 2)
        state = mpe.MPEState(position, obs[:, :2], landmarks, jnp.int32(0))
        return env.step(state, action)[1]

    timestep = step(rows.obs, rows.action)
    np.testing.assert_allclose(timestep.obs, rows.next_obs, atol=1e-4)
    close = np.abs(np.asarray(timestep.reward) - rows.reward) < 1e-2 * np.abs(rows.reward) + 1e-3
    assert close.mean() > 0.99  # a touch may fall on either side of the rim


def test_qualities_are_graded_and_the_card_tells_them(made):
    scores = {}
    for quality in ("random", "replay", "medium", "expert"):
        card = cards.read_card(made(f"mpe-spread-{quality}"))
        assert card.true_next_observations
        assert card.arguments["quality"] == quality
        assert card.arguments["noise"] == catalog.GENERATED[f"mpe-spread-{quality}"].noise
        assert "not the dataset of OMAR" in card.generator
        scores[quality] = card.normalised_score
    assert scores["random"] < scores["replay"] < scores["medium"] < scores["expert"]
    assert abs(scores["random"]) < 12  # 40 episodes with a deviation of 17
    assert "own scripted prey" in cards.read_card(made("mpe-tag-expert")).generator


def test_a_quality_is_a_name_and_a_seed_repeats(made):
    named = made("mpe-spread-medium").read_bytes()
    assert made("mpe-spread", "--quality=medium").read_bytes() == named
    assert made("mpe-spread", "--quality=medium", "--seed=1").read_bytes() != named


def test_noise_takes_the_place_of_the_qualitys_own(made):
    path = made("mpe-spread-expert", "--noise=0")
    assert cards.read_card(path).arguments["noise"] == 0.0
    with h5py.File(path) as file:
        assert not file["infos/noise"][()].any()
    assert cards.read_card(path).return_mean > cards.read_card(made("mpe-spread-expert")).return_mean


def test_a_replay_goes_from_uniform_actions_to_those_of_medium(made):
    with h5py.File(made("mpe-spread-replay")) as file:
        noise = file["infos/noise"][()]
    assert (noise[0], noise[-1]) == (1.0, np.float32(0.77))
    assert (np.diff(noise) <= 0).all()
    np.testing.assert_array_equal(noise[24:50:25], noise[[0, 25]])
    np.testing.assert_allclose(noise_of_episodes(0.2, 3.0, 5), 1 - 0.8 * np.array([0, 1, 8, 27, 64]) / 64, rtol=1e-6)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["mpe-tag"], "mpe-tag: no quality; give --quality=random|medium|expert|replay"),
        (["mpe-tag", "--quality=medum"], "unknown quality of mpe-tag 'medum'; did you mean 'medium'"),
        (["mpe-tug", "--quality=medium"], "did you mean 'mpe-tag'"),
        (["mpe-tag-medium", "--noise=1.5"], "--noise=1.5; it is a chance, at most 1"),
        (["mpe-tag-random", "--noise=0.5"], "mpe-tag-random has no use for --noise"),
        (["mpe-tag-medium", "--train_steps=5"], "mpe-tag-medium has no use for --train_steps"),
        (["mpe-tag-medium", "--steps=1"], "--steps"),
    ],
)
def test_a_wrong_request_is_one_line_and_exits_2(argv, message, capsys):
    assert main(["data", "make", *argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
