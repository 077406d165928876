"""Mazes of one's own, goals that change and rooms, as a user asks for them."""

from typing import Any

import h5py
import numpy as np
import pytest

from jaxdiff.cli import pretrained
from jaxdiff.cli.main import main
from jaxdiff.cli.settings import OLDER_RUNS, base_config, in_env
from jaxdiff.cli.task import check_fit, make_env
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, load
from jaxdiff.envs import make, rooms

pytestmark = pytest.mark.usefixtures("compiled_once")

MAZE = r"#####\#OOO#\###O#\#GOO#\#####"


def config(**changes: Any) -> dict[str, Any]:
    made = base_config("bc")
    made.update(changes)
    return made.to_dict()


def test_a_config_names_a_maze_of_ones_own():
    spec = make_env(config(env="pointmaze-custom-dense", maze=MAZE)).spec
    assert (spec.name, spec.goal) == ("pointmaze-custom-dense", (3.0, 1.0, 0.0, 0.0))
    assert make_env(config(env="pointmaze-custom-multi", maze=MAZE)).spec.goal_dim == 2
    older = config()
    del older["maze"]
    assert make_env(older).spec.name == "pointmaze-umaze"
    assert OLDER_RUNS["maze"] == ""


def test_another_environment_leaves_the_maze_behind():
    own = config(env="pointmaze-custom", maze=MAZE)
    assert make_env(in_env(own, "pointmaze-open")).spec.name == "pointmaze-open"
    assert make_env(in_env(own, "pointmaze-custom-dense")).facts["layout"] == MAZE.split("\\")
    assert in_env(own, None) == own


def test_a_run_that_starts_from_another_takes_its_maze_over_with_its_env(monkeypatch):
    there = config(env="pointmaze-custom", maze=MAZE)
    older = {key: value for key, value in config(env="pointmaze-open").items() if key != "maze"}
    mine = base_config("bc")
    for plan, overrides, expected in (
        (there, {}, ("pointmaze-custom", MAZE)),
        (there, {"env": "pointmaze-umaze"}, ("pointmaze-umaze", "")),
        (older, {}, ("pointmaze-open", "")),
    ):
        monkeypatch.setattr(pretrained, "plans_of", lambda _, plan=plan: [{"config": plan}])
        found = pretrained.inherit(mine, overrides)
        assert (found.env, found.maze) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": "pointmaze-custom"}, r"config.env=pointmaze-custom needs config.maze, its rows parted by backslashes"),
        ({"maze": MAZE}, "has no use in config.env=pointmaze-umaze; give --config.env=pointmaze-custom"),
        ({"maze": MAZE, "env": "gymnasium-Hopper-v5"}, "has no use in config.env=gymnasium-Hopper-v5"),
        ({"env": "pointmaze-custom", "maze": MAZE.replace("G", "O")}, "the maze has 0 goals"),
        ({"env": "pointmaze-custom", "maze": "umaze"}, "needs a maze, rows of"),
    ],
)
def test_a_maze_goes_with_a_custom_env_and_with_no_other(changes, message):
    with pytest.raises(ValueError, match=message):
        make_env(config(**changes))


def test_a_misspelt_custom_env_is_named_first():
    with pytest.raises(KeyError, match="did you mean 'pointmaze-custom'"):
        make_env(config(env="pointmaze-costum", maze=MAZE))


def test_data_are_made_in_a_maze_of_ones_own(tmp_path):
    path = tmp_path / "own.hdf5"
    argv = ["data", "make", "pointmaze-custom-multi", f"--maze={MAZE}", "--steps=700", f"--out={path}"]
    assert main([*argv, "--quality=waypoint"]) == 0
    dataset, info = load(path)
    t = dataset.transitions
    np.testing.assert_array_equal(t.obs[:, 4:], t.next_obs[:, 4:])
    assert dataset.num_transitions == 700  # successors are in the file
    check_fit(make("pointmaze-custom-multi", maze=MAZE).spec, info)
    card = cards.read_card(path)
    assert (card.name, card.env) == ("pointmaze-custom-multi-waypoint", "pointmaze-custom-multi")
    assert (card.arguments["maze"], card.arguments["noise"], card.true_next_observations) == (MAZE, 0.0, True)
    copy = tmp_path / "copy.hdf5"
    assert main(["data", "import", str(path), f"--out={copy}"]) == 0
    np.testing.assert_array_equal(load(copy)[0].transitions.next_obs, t.next_obs)


def test_rooms_have_data_of_walks_between_landmarks_without_rewards(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXDIFF_DATA", str(tmp_path))
    assert main(["data", "make", "rooms", "--steps=30000"]) == 0
    path = tmp_path / "rooms-steps30000.hdf5"
    dataset, info = load(path)
    assert (info.env, info.reference_scores, info.return_mean) == ("rooms-and", None, 0.0)
    assert np.bincount(dataset.episode).tolist() == [249] * 120
    check_fit(make("rooms-not").spec, info)
    with h5py.File(path) as file:
        target = file["infos/goal"][()]
    first = np.arange(len(target)) % 250 == 0
    drawn = np.rint(target[first | (target != np.roll(target, 1, axis=0)).any(axis=1)]).astype(int)
    favoured = (drawn[:, None] == np.array(rooms.LANDMARKS + rooms.START_CELLS)).all(-1).any(-1).mean()
    # 28 free cells once each, and 8 landmarks 3 times again.
    assert abs(favoured - (8 + 24) / (28 + 24)) < 4 * 0.5 / np.sqrt(len(drawn))
    assert len(np.unique(drawn, axis=0)) == 28


def test_the_list_has_them_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXDIFF_DATA", str(tmp_path))
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert {"pointmaze-large-multi-dense-waypoint", "pointmaze-umaze-multi", "rooms"} <= set(out.split())
    assert "pointmaze-custom" in out
    assert catalog.GENERATED["pointmaze-umaze-multi-dense"] == catalog.Maze("umaze", True, 0.5, True)
    assert catalog.with_quality("rooms", "waypoint") == "rooms-waypoint"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pointmaze-custom", "--out=x.hdf5"], "needs a maze, its rows parted by backslashes: --maze='"),
        (["pointmaze-custom", f"--maze={MAZE}"], "pointmaze-custom needs --out=FILE.hdf5"),
        (["pointmaze-umaze", f"--maze={MAZE}"], "pointmaze-umaze has no use for --maze"),
        (["rooms", "--train_steps=3"], "rooms has no use for --train_steps"),
        (["pointmaze-custom", "--maze=####", "--out=x.hdf5"], "the maze has no free cell"),
        (["pointmaze-custom", r"--maze=#####\#G#O#\#####", "--out=x.hdf5"], "(1, 3) cannot be reached from (1, 1)"),
    ],
)
def test_a_wrong_request_for_data_is_one_line_and_exits_2(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXDIFF_DATA", str(tmp_path / "root"))
    assert main(["data", "make", *argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.hdf5"))


def test_custom_data_have_no_usual_file(capsys):
    with pytest.raises(ValueError, match=r"make them with `jaxdiff data make pointmaze-custom --maze=ROWS --out="):
        catalog.resolve("pointmaze-custom")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config.env=pointmaze-custom"], "config.env=pointmaze-custom needs config.maze"),
        ([f"--config.maze={MAZE}"], "has no use in config.env=pointmaze-umaze"),
        (["--config.env=pointmaze-custom", r"--config.maze=####\#GX#\####"], "unknown character 'X' at row 1"),
    ],
)
def test_a_wrong_maze_stops_a_training_command_with_exit_code_2(argv, message, tmp_path, capsys):
    assert main(["train", "--config=bc", "--lanes=vmap", *argv, f"--workdir={tmp_path / 'run'}"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert not (tmp_path / "run" / "run.json").exists()
