"""Every bad file is refused in one line that names the file, what was found, and what to do."""

import h5py
import numpy as np
import pytest
from synthetic_d4rl import random_arrays

from jaxdiff.data import load
from jaxdiff.data.sources import load_columns


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BASE = random_arrays()
BAD_ARRAYS = {
    "missing": ({"rewards": None}, r"no 'rewards'; found: actions, next_obs.*rename"),
    "two missing": ({"rewards": None, "actions": None}, r"no 'actions', 'rewards'"),
    "obs ndim": ({"observations": BASE["rewards"]}, r"observations has shape \(60,\); it must be \(N, O\)"),
    "no rows": ({"observations": BASE["observations"][:0]}, r"observations has shape \(0, 3\); at least 2 rows"),
    "one row": ({name: array[:1] for name, array in BASE.items()}, r"\(1, 3\); at least 2 rows"),
    "action rows": ({"actions": BASE["actions"][:50]}, r"actions has shape \(50, 2\), observations \(60, 3\)"),
    "action ndim": ({"actions": BASE["rewards"]}, r"actions has shape \(60,\), observations \(60, 3\)"),
    "reward rows": ({"rewards": BASE["rewards"][:59]}, r"rewards has shape \(59,\), observations have 60 rows"),
    "reward width": ({"rewards": BASE["actions"]}, r"rewards has shape \(60, 2\).*must be \(60,\)"),
    "terminal rows": ({"terminals": BASE["terminals"][:9]}, r"terminals has shape \(9,\)"),
    "timeout rows": ({"timeouts": BASE["timeouts"][:9]}, r"timeouts has shape \(9,\)"),
    "next rows": ({"next_observations": BASE["actions"]}, r"next_observations has shape \(60, 2\)"),
    "nan obs": (
        {"observations": with_value(BASE["observations"], (4, 1), np.nan)},
        r"observations has 1 NaN or infinite values, the first at \(4, 1\)",
    ),
    "inf reward": ({"rewards": with_value(BASE["rewards"], 5, np.inf)}, r"rewards has 1 NaN or infinite.*\(5,\)"),
    "overflow": ({"rewards": with_value(BASE["rewards"].astype(np.float64), 0, 1e39)}, r"rewards has 1 NaN or inf"),
    "nan action": ({"actions": with_value(BASE["actions"], (0, 0), np.nan)}, r"actions has 1 NaN"),
    "range": (
        {"actions": with_value(with_value(BASE["actions"], (0, 0), 2.5), (1, 1), -1.5)},
        r"actions span \[-1.5, 2.5\]; they must lie in \[-1, 1\].*--action_limit=2.5",
    ),
    "text": ({"rewards": np.array([b"x"] * 60)}, r"rewards has type .*numbers are needed"),
    "flags": ({"terminals": BASE["rewards"]}, r"terminals must be booleans, or numbers 0 and 1"),
    "no end": ({"timeouts": None}, r"no 'timeouts'.*pass max_episode_steps.*jaxdiff data import"),
    "all ends": ({"timeouts": np.ones(60, bool)}, r"no transition is left of 60 rows: each is a time limit or the"),
    "scalar": ({"rewards": np.float32(1.0)}, r"rewards has shape \(1,\), observations have 60 rows"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(save, case):
    changes, message = BAD_ARRAYS[case]
    path = save(BASE, "bad.hdf5", **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_team_reward_with_terminals_per_agent_is_refused(save):
    arrays = random_arrays(agents=2)
    with pytest.raises(ValueError, match=r"terminals has shape \(60, 2\) but rewards \(60,\).*store terminals as"):
        load(save(arrays, terminals=np.zeros((60, 2), bool)))


def test_use_next_observations_needs_them(save, arrays):
    with pytest.raises(ValueError, match="no 'next_observations'"):
        load(save(arrays, next_observations=None), use_next_observations=True)


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_hdf5_file_is_named(save, kept):
    path = save(random_arrays(5000))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"truncated or damaged HDF5, \d+ bytes"):
        load(path)


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_truncated_npz_file_is_named(tmp_path, arrays, kept):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"truncated or damaged .npz, \d+ bytes"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.hdf5", b"", "empty file, 0 bytes"),
        ("data.hdf5", b"<html>403 Forbidden</html>", "not an HDF5 file, it begins with b'<html>403.*fetch it again"),
        ("data.npz", b"\x93NUMPY\x01\x00 and so on", "not an .npz archive.*numpy.savez"),
        ("data.csv", b"1,2,3\n4,5,6\n", r"unknown format, it begins with b'1,2,3.*readable: d4rl \(.hdf5, .h5\), npz"),
        ("data.pkl", b"\x80\x04K\x01.", "pickles, which can run code and are never read"),
    ],
)
def test_other_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_pickled_objects_inside_npz_are_refused(tmp_path, arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **{**arrays, "rewards": np.array([{}] * 60, dtype=object)})
    with pytest.raises(ValueError, match="array 'rewards' cannot be read.*pickled objects are refused"):
        load(path)


def test_a_group_in_an_arrays_place_counts_as_missing(save, arrays):
    path = save(arrays, observations=None)
    with h5py.File(path, "a") as file:
        file.create_group("observations")["achieved_goal"] = arrays["observations"]
    with pytest.raises(ValueError, match="no 'observations'"):
        load(path)


def test_a_missing_file_offers_its_nearest_sibling(save, arrays):
    path = save(arrays, "hopper_medium.hdf5")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'hopper_medium.hdf5'\?") as caught:
        load(path.with_name("hoper_medium.hdf5"))
    assert caught.value.filename == str(path.with_name("hoper_medium.hdf5"))


def test_a_missing_file_in_an_empty_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no dataset"):
        load(tmp_path / "data.hdf5")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a folder; give the dataset file inside"):
        load(tmp_path)


def test_an_unknown_format_is_offered_the_known_ones(save, arrays):
    with pytest.raises(KeyError, match="unknown dataset format 'd4lr'; did you mean 'd4rl'"):
        load(save(arrays), "d4lr")


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan, np.inf])
def test_an_action_limit_that_would_spoil_every_action_is_refused(save, arrays, limit):
    with pytest.raises(ValueError, match=f"action_limit={limit}; it must be positive and finite"):
        load_columns(save(arrays), action_limit=limit)


def test_the_nearest_of_many_siblings_is_offered(save, arrays, tmp_path):
    path = save(arrays, "zebra.hdf5")
    for i in range(50):
        (tmp_path / f"other{i:02}.hdf5").touch()
    with pytest.raises(FileNotFoundError, match=r"did you mean 'zebra.hdf5'\? known, of 51 the nearest: ") as caught:
        load(path.with_name("zebr.hdf5"))
    assert len(str(caught.value)) < 400


EPISODE = {"observations": (6, 4), "actions": (5, 2), "rewards": (5,), "terminations": (5,), "truncations": (5,)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": (6, 3)}, r"observations of episode_1 have shape \(5, 3\), those of episode_0 \(5, 4\)"),
        ({"actions": (5, 1)}, r"actions of episode_1 have shape \(5, 1\), those of episode_0 \(5, 2\)"),
        ({"rewards": (4,)}, r"episode_1 has rewards of shape \(4,\) for 5 actions; one each is needed"),
        ({"truncations": (5, 2)}, r"episode_1 has truncations of shape \(5, 2\) for 5 actions"),
    ],
)
def test_minari_episodes_that_do_not_fit_together_are_named(tmp_path, changes, message):
    path = tmp_path / "main_data.hdf5"
    with h5py.File(path, "w") as file:
        for name, shapes in {"episode_0": EPISODE, "episode_1": {**EPISODE, **changes}}.items():
            for key, shape in shapes.items():
                file[f"{name}/{key}"] = np.zeros(shape)
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
