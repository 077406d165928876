import dataclasses
import datetime
import subprocess

import jax
import ml_collections
import pytest

from jaxdiff.io import files
from jaxdiff.io.stamp import check_directory, read_stamp, stamp, write_stamp

CONFIG = {"seed": 0, "model": {"features": (64, 64), "num_steps": 5}, "hparams": {"q_weight": 1.0, "cap": float("inf")}}


@dataclasses.dataclass(frozen=True)
class Info:
    name: str = "maze"
    sha256: str = "ab"


def make(config=CONFIG, study="grid", dataset=Info(), env="pointmaze-open"):
    return stamp(["jaxdiff", "train"], config, study, dataset, env)


def changed(**flat):
    config = {**CONFIG, "model": dict(CONFIG["model"]), "hparams": dict(CONFIG["hparams"])}
    for key, value in flat.items():
        section, _, name = key.rpartition("__")
        (config[section] if section else config)[name] = value
    return config


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_stamp_names_versions_devices_and_time():
    value = make()
    assert value["versions"]["jax"] == jax.__version__
    assert {"python", "jaxlib", "flax", "optax", "numpy", "jaxdiff"} <= value["versions"].keys()
    assert (value["device_count"], value["device_kind"]) == (jax.device_count(), jax.devices()[0].device_kind)
    assert datetime.datetime.fromisoformat(value["created"]).utcoffset() == datetime.timedelta(0)
    assert value["dataset"] == {"name": "maze", "sha256": "ab"}


def test_config_dict_equals_dict():
    assert make(ml_collections.ConfigDict(CONFIG))["config"] == CONFIG


def test_git_commit_and_dirty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (make()["git_commit"], make()["git_dirty"]) == (None, None)
    git(tmp_path, "init")
    (tmp_path / "a.txt").write_text("1")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-m", "a")
    assert len(make()["git_commit"]) == 40
    assert make()["git_dirty"] is False
    (tmp_path / "a.txt").write_text("2")
    assert make()["git_dirty"] is True


def test_no_git_program_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert make()["git_commit"] is None


def test_stamp_round_trips(tmp_path):
    value = make()
    write_stamp(tmp_path / "run", value)
    back = read_stamp(tmp_path / "run")
    assert back["config"]["model"] == {"features": [64, 64], "num_steps": 5}
    assert back["config"]["hparams"] == CONFIG["hparams"]
    assert back["created"] == value["created"]


def test_the_same_run_resumes_and_the_session_is_noted(tmp_path):
    first = make()
    write_stamp(tmp_path, first)
    write_stamp(tmp_path, {**make(), "created": "later"})
    write_stamp(tmp_path, {**make(), "created": "later still"})
    back = read_stamp(tmp_path)
    assert back["created"] == first["created"]
    assert [session["created"] for session in back["resumed"]] == ["later", "later still"]


def test_another_config_is_refused_by_dotted_key(tmp_path):
    write_stamp(tmp_path, make())
    before = files.read_json(tmp_path / "run.json")
    with pytest.raises(
        ValueError, match=r"hparams\.q_weight is 1\.0 there, 2\.0 here\. Use another --workdir, or .*rerun"
    ):
        write_stamp(tmp_path, make(changed(hparams__q_weight=2.0)))
    assert files.read_json(tmp_path / "run.json") == before


def test_only_the_first_three_differences_are_told(tmp_path):
    write_stamp(tmp_path, make())
    other = changed(seed=1, model__num_steps=6, model__features=(32,), hparams__q_weight=2.0, hparams__lr=0.1)
    with pytest.raises(ValueError, match="holds another run") as error:
        write_stamp(tmp_path, make(other))
    assert str(error.value).count(" there, ") == 3
    assert "and 2 more" in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"env": "ant"}, 'env is "pointmaze-open" there, "ant" here'),
        ({"dataset": Info(sha256="cd")}, r'dataset\.sha256 is "ab" there, "cd" here'),
        ({"config": {"seed": 0}}, r"model\.features is \[ 64, 64 \] there, not set here"),
    ],
)
def test_another_env_data_or_model_is_refused(tmp_path, given, message):
    write_stamp(tmp_path, make())
    with pytest.raises(ValueError, match=message):
        write_stamp(tmp_path, make(**given))


def test_a_study_that_grew_replaces_the_points_that_were_there(tmp_path):
    write_stamp(tmp_path, make({**CONFIG, "points": [{"seed": 0}], "max_lanes": 2}))
    write_stamp(tmp_path, make({**CONFIG, "points": [{"seed": 0}, {"seed": 1}], "max_lanes": 4}, study="seeds"))
    known = read_stamp(tmp_path)
    assert known["config"]["points"] == [{"seed": 0}, {"seed": 1}]
    assert (known["config"]["max_lanes"], known["study"], len(known["resumed"])) == (4, "seeds", 1)


def test_a_moved_data_file_is_the_same_data(tmp_path):
    write_stamp(tmp_path, make(dataset={"path": "a", "sha256": "x"}))
    write_stamp(tmp_path, make(dataset={"path": "b", "sha256": "x"}))
    assert len(read_stamp(tmp_path)["resumed"]) == 1


def test_reading_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a run folder"):
        read_stamp(tmp_path)


def test_a_folder_with_other_files_is_no_place_for_a_run(tmp_path):
    check_directory(tmp_path / "new" / "folder")
    check_directory(tmp_path)
    (tmp_path / ".hidden").touch()
    check_directory(tmp_path)
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"not a run folder and not empty: it has a, b, c and 1 more; give a new"):
        check_directory(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file, where a folder is needed; choose another --workdir"):
        check_directory(tmp_path / "a")
    write_stamp(tmp_path, make())
    check_directory(tmp_path)


@pytest.mark.parametrize(("value", "message"), [([1], "holds a JSON list"), ({"a": 1}, "has no 'config', 'study'")])
def test_a_run_json_of_something_else_is_named(tmp_path, value, message):
    files.write_json_atomic(tmp_path / "run.json", value)
    with pytest.raises(ValueError, match=message):
        read_stamp(tmp_path)
