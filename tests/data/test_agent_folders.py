"""Folders of data with agents: every row where it belongs, every bad file named in one line."""

import os
import pathlib

from agent_folders import A, agent_rows, save_agents, save_team, save_vault, team_rows
import numpy as np
import pytest

from jaxdiff.cli.ensure import ensure_all
from jaxdiff.cli.main import main
from jaxdiff.data import load
from jaxdiff.data.card import read_card
from jaxdiff.data.sources import Reading, load_columns, sniff, vault


def test_an_agent_s_files_become_its_column_and_episodes_have_25_steps(tmp_path):
    rows = agent_rows(75)
    path = save_agents(tmp_path / "simple_tag" / "expert" / "seed_0_data", rows)
    assert sniff(path) == "agent-npy"
    dataset, info = load(path)
    t = dataset.transitions
    for field, found in (("obs", t.obs), ("acs", t.action), ("rews", t.reward), ("next_obs", t.next_obs)):
        np.testing.assert_array_equal(found, rows[field].astype(np.float32))
    np.testing.assert_array_equal(dataset.episode, np.repeat(np.arange(3), 25))
    assert (t.discount == 1.0).all()
    assert (info.name, info.num_agents, info.num_episodes) == ("simple_tag-expert-seed0", A, 3)
    returns = rows["rews"].reshape(3, 25, A).sum(axis=1).mean(axis=1)
    assert info.return_mean == pytest.approx(returns.mean(), rel=1e-5)
    assert info.reference_scores == (-4.1, 185.6)


def test_all_seeds_of_a_quality_are_pooled_in_the_order_of_their_numbers(tmp_path):
    quality = tmp_path / "spread" / "medium"
    seeds = {k: agent_rows(25, seed=k) for k in (10, 2)}
    for k, rows in seeds.items():
        save_agents(quality / f"seed_{k}_data", rows)
    dataset, info = load(quality)
    expected = np.concatenate([seeds[2]["obs"], seeds[10]["obs"]]).astype(np.float32)
    np.testing.assert_array_equal(dataset.transitions.obs, expected)
    assert (info.name, info.num_episodes, info.reference_scores) == ("spread-medium", 2, None)


@pytest.mark.parametrize(("env", "given", "episodes"), [("HalfCheetah-v2", None, 1), ("HalfCheetah-v2", 500, 2)])
def test_halfcheetah_has_episodes_of_1000_steps_unless_told_otherwise(tmp_path, env, given, episodes):
    rows = agent_rows(1000) | {"states": np.ones((1000, A, 17))}
    path = save_agents(tmp_path / env / "expert" / "seed_0_data", rows)
    _, info = load(path, max_episode_steps=given)
    assert (info.num_episodes, info.reference_scores) == (episodes, None)
    assert load_columns(path).extras["infos/state"].shape == (1000, A, 17)


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def bad_agent_files(folder: pathlib.Path, case: str) -> None:
    if case == "missing":
        (folder / "acs_1.npy").unlink()
    elif case == "length":
        np.save(folder / "rews_2.npy", np.zeros(49))
    elif case == "nan":
        array = np.load(folder / "next_obs_1.npy")
        array[17, 2] = np.nan
        np.save(folder / "next_obs_1.npy", array)
    elif case == "width":
        np.save(folder / "obs_2.npy", np.zeros((50, 3)))
    elif case == "pickle":
        np.save(folder / "obs_0.npy", np.array([Marker(folder / "ran")], object), allow_pickle=True)
    elif case == "cut":
        (folder / "acs_0.npy").write_bytes((folder / "acs_0.npy").read_bytes()[:-100])
    elif case == "web page":
        (folder / "acs_0.npy").write_bytes(b"<html>not found")
    elif case == "flags":
        np.save(folder / "dones_0.npy", np.full(50, 0.5))
    elif case == "ndim":
        np.save(folder / "acs_0.npy", np.zeros(50))
    elif case == "text":
        np.save(folder / "rews_0.npy", np.full(50, "x"))
    else:
        np.save(folder / "rews_0.npy", np.zeros((50, 2)))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("missing", r"seed_0_data: no acs_1\.npy; each of 3 agents needs obs, acs, rews, next_obs, dones"),
        ("length", r"rews_2\.npy: 49 rows, and obs_0\.npy has 50"),
        ("nan", r"next_obs_1\.npy: 1 NaN or infinite values, the first at agent 1, row 17;"),
        ("width", r"obs_0\.npy has 4, obs_1\.npy has 4, obs_2\.npy has 3 numbers a row.*--pad"),
        ("pickle", r"obs_0\.npy: cannot be read .*pickled objects are refused"),
        ("cut", r"acs_0\.npy: cannot be read .*fetch a file that was cut short again"),
        ("web page", r"acs_0\.npy: not an \.npy file, it begins with b'<html>'"),
        ("flags", r"terminals must be booleans, or numbers 0 and 1"),
        ("ndim", r"acs_0\.npy: has shape \(50,\); \(50, numbers of a row\) is needed"),
        ("text", r"rews_0\.npy: has type <U1; numbers are needed"),
        ("two rewards", r"rews_0\.npy: has shape \(50, 2\); one number for each of 50 rows"),
    ],
)
def test_a_bad_agent_s_file_is_named(tmp_path, case, message):
    path = save_agents(tmp_path / "tag" / "expert" / "seed_0_data", agent_rows(50))
    bad_agent_files(path, case)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not (path / "ran").exists()


def test_rows_that_are_no_whole_episodes_and_seeds_of_two_tasks_are_named(tmp_path):
    quality = tmp_path / "tag" / "expert"
    path = save_agents(quality / "seed_0_data", agent_rows(53))
    with pytest.raises(ValueError, match="53 rows are 2 episodes of 25 steps and 3 rows; if the task's episodes"):
        load(path)
    assert load(path, max_episode_steps=53)[1].num_episodes == 1
    save_agents(quality / "seed_1_data", agent_rows(53, width=5))
    with pytest.raises(ValueError, match=r"seed_1_data: rows have shapes .*those of seed_0_data .*give one of them"):
        load(quality, max_episode_steps=53)


@pytest.mark.parametrize(("env", "needed"), [("simple_spread", 3), ("Simple_Tag", 3), ("HalfCheetah-v2", 2)])
def test_a_folder_without_its_last_agent_is_no_smaller_team(tmp_path, env, needed):
    quality = tmp_path / env / "expert"
    rows = {field: array[:, :needed] for field, array in agent_rows(50).items()}
    whole, cut = (save_agents(quality / f"seed_{k}_data", rows) for k in (0, 1))
    for file in cut.glob(f"*_{needed - 1}.npy"):
        file.unlink()
    for path in (quality, cut):
        message = rf"seed_1_data: no obs_{needed - 1}\.npy, acs_.*; its task has {needed} agents: fetch"
        with pytest.raises(ValueError, match=message):
            load(path, max_episode_steps=25)
    assert load(whole, max_episode_steps=25)[1].num_agents == needed
    unknown = quality.parent.rename(tmp_path / "hunt") / "expert"
    with pytest.raises(ValueError, match=rf"seed_0_data has {needed}, seed_1_data has {needed - 1}; give one of them"):
        load(unknown, max_episode_steps=25)


def test_padding_is_asked_for_and_fills_up_with_zeros(tmp_path):
    rows = agent_rows(25)
    path = save_agents(tmp_path / "tag" / "expert" / "seed_0_data", rows)
    for field in ("obs", "next_obs"):
        np.save(path / f"{field}_2.npy", rows[field][:, 2, :3])
    columns = load_columns(path, reading=Reading(pad=True))
    np.testing.assert_array_equal(columns.obs[:, :2], rows["obs"][:, :2].astype(np.float32))
    np.testing.assert_array_equal(columns.obs[:, 2, 3], np.zeros(25))
    np.testing.assert_array_equal(columns.next_obs[:, 2, :3], rows["next_obs"][:, 2, :3].astype(np.float32))


def test_discrete_actions_become_scores_and_masks_the_end_of_the_observation(tmp_path):
    rows = team_rows((4, 6, 3), discrete=True)
    path = save_team(tmp_path / "3m" / "Good", rows)
    assert sniff(path) == "team-npy"
    columns = load_columns(path)
    np.testing.assert_array_equal(columns.action.argmax(axis=-1), rows["actions"])
    assert set(np.unique(columns.action)) == {-1.0, 1.0}
    assert (columns.action.sum(axis=-1) == -3.0).all()
    np.testing.assert_array_equal(columns.obs[..., :4], rows["obs"])
    np.testing.assert_array_equal(columns.obs[..., 4:], rows["legals"])
    np.testing.assert_array_equal(np.flatnonzero(columns.terminated[:, 0]), [3, 12])
    np.testing.assert_array_equal(np.flatnonzero(columns.truncated), [9])
    assert load(path)[1].name == "3m-Good"


def test_without_a_mask_the_number_of_actions_is_as_told_or_as_seen(tmp_path):
    rows = team_rows((4, 4), discrete=True)
    del rows["legals"]
    rows["actions"] = np.minimum(rows["actions"], 3)
    rows["actions"][0, 0] = 3
    path = save_team(tmp_path / "3m" / "Poor", rows)
    assert load_columns(path).action.shape == (8, A, 4)
    assert load_columns(path, reading=Reading(num_actions=6)).action.shape == (8, A, 6)
    with pytest.raises(ValueError, match=r"action 3 of agent 0, row 0, is none of 0 \.\. 2; give the right --num_act"):
        load_columns(path, reading=Reading(num_actions=3))


def test_paths_of_one_length_are_ended_by_the_clock_and_continuous_actions_stay(tmp_path):
    rows = team_rows((5, 5))
    path = save_team(tmp_path / "2ant" / "expert", rows)
    columns = load_columns(path)
    np.testing.assert_array_equal(columns.action, rows["actions"])
    np.testing.assert_array_equal(np.flatnonzero(columns.truncated), [4, 9])
    assert not columns.terminated.any()
    assert load(path)[1].num_transitions == 8  # what follows a time limit is not in the files


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path_lengths": None}, r"Good: no path_lengths\.npy; it needs obs, actions, rewards, path_lengths"),
        ({"path_lengths": np.array([4, 6])}, r"path_lengths\.npy: the lengths sum to 10, and obs\.npy has 13 rows"),
        ({"path_lengths": np.array([4.5, 8.5])}, r"path_lengths\.npy: whole numbers of at least 1"),
        ({"rewards": np.zeros((12, A))}, r"rewards\.npy: has shape \(12, 3\), and obs\.npy \(13, 3, 4\)"),
        ({"obs": np.zeros((13, 4))}, r"obs\.npy: has shape \(13, 4\); \(rows, agents, numbers\) is needed"),
        ({"legals": np.zeros((13, A, 5))}, r"actions\.npy: 39 actions are not among the allowed.*at agent 0"),
        ({"rewards": np.full((13, A), np.nan)}, r"rewards\.npy: 39 NaN .*the first at agent 0, row 0"),
    ],
)  # fmt: skip
def test_a_bad_file_of_a_team_is_named(tmp_path, changes, message):
    rows = {k: v for k, v in (team_rows((4, 6, 3), discrete=True) | changes).items() if v is not None}
    path = save_team(tmp_path / "3m" / "Good", rows)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def vault_arrays() -> dict[str, np.ndarray]:
    """Two sequences of 6 steps: ends by the task at 2, by the clock at 4 of the first, and of nothing else."""
    rng = np.random.default_rng(0)
    ends = np.zeros((2, 6, A), bool)
    terminals, truncations = ends.copy(), ends.copy()
    terminals[0, 2], truncations[0, 4] = True, True
    terminals[1, 3, 0] = True  # one agent of three: the episode goes on
    return {
        "observations": rng.normal(size=(2, 6, A, 4)).astype(np.float32),
        "actions": rng.integers(0, 5, size=(2, 6, A)),
        "rewards": rng.normal(size=(2, 6, A)).astype(np.float32),
        "terminals": terminals,
        "truncations": truncations,
        "infos.state": rng.normal(size=(2, 6, 7)).astype(np.float32),
        "infos.legals": np.ones((2, 6, A, 5), np.int32),
    }


def test_a_vault_is_read_up_to_what_was_written_and_its_sequences_lie_end_to_end(tmp_path):
    arrays = vault_arrays()
    path = save_vault(tmp_path / "3m.vlt" / "Good", arrays)
    assert sniff(path) == "vault"
    columns = load_columns(path)
    np.testing.assert_array_equal(columns.obs[..., :4], arrays["observations"].reshape(12, A, 4))
    np.testing.assert_array_equal(columns.action.argmax(axis=-1), arrays["actions"].reshape(12, A))
    np.testing.assert_array_equal(columns.reward, arrays["rewards"].reshape(12, A))
    np.testing.assert_array_equal(columns.terminated, arrays["terminals"].reshape(12, A))
    np.testing.assert_array_equal(np.flatnonzero(columns.truncated), [4, 5, 11])
    np.testing.assert_array_equal(columns.extras["infos/state"], arrays["infos.state"].reshape(12, 7))
    dataset, info = load(path)
    assert (info.name, info.num_agents, info.num_episodes) == ("3m-Good", A, 3)
    np.testing.assert_array_equal(dataset.episode, [0] * 3 + [1] + [2] * 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, r"^here: no rewards; found: observations, actions, terminals"),
        ({"rewards": np.zeros((2, 5, A))}, r"rewards has shape \(2, 5, 3\), and observations \(2, 6, 3, 4\)"),
        ({"observations": np.zeros((6, A, 4))}, r"observations have shape \(6, 3, 4\); \(sequences, steps, agents"),
        ({"infos.legals": np.zeros((2, 6, A, 5))}, r"here: actions: 36 actions are not among the allowed ones"),
        ({"rewards": np.full((2, 6, A), np.inf)}, r"here: rewards: 36 NaN or infinite values, the first at agent 0"),
    ],
)
def test_arrays_of_a_bad_vault_are_named(changes, message):
    arrays = {k: v for k, v in (vault_arrays() | changes).items() if v is not None}
    with pytest.raises(ValueError, match=message):
        vault.rows(arrays, "here", Reading())


@pytest.mark.parametrize(
    ("broken", "message"), [("metadata", "not the metadata of a vault"), ("store", "damaged vault")]
)
def test_a_damaged_vault_is_named(tmp_path, broken, message):
    path = save_vault(tmp_path / "3m.vlt" / "Good", vault_arrays())
    if broken == "metadata":
        (path / "metadata.json").write_text("{}")
    else:
        (path / "manifest.ocdbt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_of_folders_says_what_to_give(tmp_path):
    for quality in ("expert", "medium"):
        save_agents(tmp_path / "tag" / quality / "seed_0_data", agent_rows(25))
    with pytest.raises(ValueError, match="tag: a folder; give the dataset inside it, expert or medium"):
        load(tmp_path / "tag")
    with pytest.raises(ValueError, match="a folder, and npz is a format of files"):
        load(tmp_path / "tag" / "expert", "npz")
    with pytest.raises(ValueError, match="a file, and vault is a format of folders; give the folder"):
        load(tmp_path / "tag" / "expert" / "seed_0_data" / "obs_0.npy", "vault")


def test_info_and_import_take_a_folder(tmp_path, capsys):
    path = save_agents(tmp_path / "simple_spread" / "expert" / "seed_0_data", agent_rows(50))
    assert ensure_all(path.parent) == [path.parent]
    assert main(["data", "info", str(path.parent)]) == 0
    out = capsys.readouterr().out
    assert "50, 3 agents, in 2 episodes" in out
    assert "writes simple_spread-expert.hdf5" in out
    new = tmp_path / "spread.hdf5"
    argv = ["data", "import", str(path.parent), f"--out={new}", "--agents=2", "--licence=unknown"]
    assert main(argv) == 0
    before, after = load(path)[0].transitions, load(new)
    for name in ("obs", "action", "reward", "next_obs"):
        np.testing.assert_array_equal(getattr(after[0].transitions, name), getattr(before, name)[:, :2])
    card = read_card(new)
    assert (card.num_agents, card.num_transitions, card.reference_scores) == (2, 50, (159.8, 516.8))
    assert card.generator == "imported from simple_spread-expert"
    assert main([*argv[:4], "--agents=4"]) == 2
    assert "the first 4 agents are wanted, and it has 3" in capsys.readouterr().err
