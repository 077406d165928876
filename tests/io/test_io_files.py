import errno
import json
import os

import numpy as np
import pytest

from jaxdiff.io import files


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_json_round_trip_makes_numpy_and_paths_plain(tmp_path):
    path = tmp_path / "deep" / "a.json"
    value = {"i": np.int32(3), "f": np.float32(0.5), "b": np.bool_(True), "a": np.eye(2), "p": tmp_path, "t": (1, 2)}
    files.write_json_atomic(path, value)
    assert files.read_json(path) == {
        "i": 3,
        "f": 0.5,
        "b": True,
        "a": [[1.0, 0.0], [0.0, 1.0]],
        "p": str(tmp_path),
        "t": [1, 2],
    }


def test_npz_round_trip_keeps_every_dtype_and_any_name(tmp_path):
    arrays = {
        "file": np.arange(3, dtype=np.int64),  # np.savez cannot take this name
        "a/b": np.zeros((2, 0, 3), np.float32),
        "flag": np.array([True, False]),
        "text": np.array(["x", "yz"]),
        "scalar": np.float64(2.5),
    }
    files.write_npz_atomic(tmp_path / "a.npz", arrays)
    back = files.read_npz(tmp_path / "a.npz")
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == np.asarray(array).dtype


def test_numpy_reads_the_npz_without_pickle(tmp_path):
    files.write_npz_atomic(tmp_path / "a.npz", {"x": np.arange(4.0)})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["x"], [0.0, 1.0, 2.0, 3.0])


def test_npz_refuses_objects_before_touching_the_file(tmp_path):
    path = tmp_path / "a.npz"
    files.write_npz_atomic(path, {"x": np.zeros(1)})
    with pytest.raises(ValueError, match="array 'y' holds Python objects"):
        files.write_npz_atomic(path, {"y": np.array([{}])})
    assert list(files.read_npz(path)) == ["x"]


def test_json_refuses_what_has_no_json_form_before_touching_the_file(tmp_path):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, 1)
    with pytest.raises(TypeError, match="has no JSON form"):
        files.write_json_atomic(path, {"x": object()})
    assert files.read_json(path) == 1


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_keeps_the_previous_file_and_leaves_no_litter(tmp_path, monkeypatch, call):
    files.write_json_atomic(tmp_path / "a.json", {"old": 1})
    files.write_npz_atomic(tmp_path / "a.npz", {"old": np.ones(2)})
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.write_json_atomic(tmp_path / "a.json", {"new": 2})
    with pytest.raises(OSError, match="No space left"):
        files.write_npz_atomic(tmp_path / "a.npz", {"new": np.ones(2)})
    monkeypatch.undo()
    assert files.read_json(tmp_path / "a.json") == {"old": 1}
    assert list(files.read_npz(tmp_path / "a.npz")) == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.npz"]


def test_disk_that_fills_in_the_middle_of_a_write_keeps_the_previous_file(tmp_path):
    path = tmp_path / "a.bin"
    files.write_atomic(path, lambda file: file.write(b"old") and None)

    def half(file):
        file.write(b"ne")
        full_disk()

    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_truncated_json_is_named(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"config": {"seed": 1}})[:-4])
    with pytest.raises(ValueError, match=r"run\.json is not valid JSON .*cut short"):
        files.read_json(path)


@pytest.mark.parametrize("keep", [0, 10, 150])
def test_truncated_npz_is_named(tmp_path, keep):
    path = tmp_path / "eval.npz"
    files.write_npz_atomic(path, {"x": np.random.default_rng(0).random(100)})
    os.truncate(path, keep)
    with pytest.raises(ValueError, match=r"eval\.npz is not a readable npz"):
        files.read_npz(path)


def test_pickled_npz_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="not a readable npz"):
        files.read_npz(path)


def test_a_full_disk_is_told_with_the_files_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_json_atomic(tmp_path / "a.json", 1)
    assert caught.value.filename == str(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_be_made_and_written_is_left_unmade(tmp_path):
    files.check_writable(tmp_path / "a" / "b", "choose another")
    files.check_writable(tmp_path, "choose another")
    assert not list(tmp_path.iterdir())


def test_a_file_in_a_folders_place_is_named(tmp_path):
    file = tmp_path / "notes.txt"
    file.touch()
    for path in (file, file / "a" / "b"):
        with pytest.raises(NotADirectoryError, match="is a file, where a folder is needed; choose another") as caught:
            files.check_writable(path, "choose another")
        assert caught.value.filename == str(file)


def test_a_folder_that_takes_no_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "TemporaryFile", full_disk)
    with pytest.raises(OSError, match=r"no file can be written there \(No space left.*\); choose another") as caught:
        files.check_writable(tmp_path / "new", "choose another")
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"), [([1], "holds a JSON list, not an object"), ({"a": 1}, "has no 'b', 'c': it was edited")]
)
def test_json_that_is_another_than_expected_is_named(tmp_path, value, message):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, value)
    with pytest.raises(ValueError, match=message) as caught:
        files.read_json_object(path, ("a", "b", "c"))
    assert str(caught.value).startswith(str(path))
