"""Written files read back exactly, come out the same twice, and their cards notice a change."""

import dataclasses
import errno
import json
import os
import time

import h5py
import numpy as np
import pytest
from synthetic_d4rl import random_arrays

from jaxdiff.data import load, writer
from jaxdiff.data.card import Origin, card_path, file_sha256, read_card
from jaxdiff.data.columns import check

ORIGIN = Origin(
    name="toy", generator="drawn at random", licence="CC0", env="probe", seed=3, reference_scores=(0.0, 2.0)
)


@pytest.mark.parametrize("agents", [None, 2])
def test_a_written_file_reads_back_exactly(tmp_path, agents):
    columns = check(random_arrays(agents=agents), "memory")
    path = tmp_path / "toy.hdf5"
    card = writer.write(path, columns, ORIGIN)
    with h5py.File(path) as file:
        for name, array in columns.named().items():
            np.testing.assert_array_equal(file[name][()], array)
    dataset, info = load(path)
    assert dataset.num_transitions == info.num_transitions == card.num_transitions
    assert (info.name, info.env, info.generator) == ("toy", "probe", "drawn at random")
    assert info.reference_scores == (0.0, 2.0)
    assert info.sha256 == card.content_sha256
    assert info.return_mean == card.return_mean
    assert read_card(path) == card


def test_the_same_rows_give_the_same_bytes_at_another_time(tmp_path, arrays):
    columns = check(arrays, "memory")
    writer.write(tmp_path / "a.hdf5", columns, ORIGIN)
    time.sleep(1.1)  # HDF5 stores times in seconds, where it stores them
    writer.write(tmp_path / "b.hdf5", columns, ORIGIN)
    for suffix in ("", ".json"):
        assert (tmp_path / f"a.hdf5{suffix}").read_bytes() == (tmp_path / f"b.hdf5{suffix}").read_bytes()


def test_time_limits_are_written_where_the_source_has_none(tmp_path, arrays):
    del arrays["timeouts"]
    arrays["terminals"][:] = False
    path = tmp_path / "toy.hdf5"
    writer.write(path, check(arrays, "memory"), ORIGIN, max_episode_steps=20)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(np.flatnonzero(file["timeouts"][()]), [19, 39, 59])


def test_changed_arrays_do_not_pass_for_the_cards(tmp_path, arrays):
    path = tmp_path / "toy.hdf5"
    writer.write(path, check(arrays, "memory"), ORIGIN)
    with h5py.File(path, "a") as file:
        file["rewards"][0] += 1.0
    with pytest.raises(ValueError, match=r"content sha256 is \w+..., its card says .*changed after its card"):
        load(path)


def test_a_repacked_file_is_read_with_a_warning(tmp_path, arrays):
    path = tmp_path / "toy.hdf5"
    writer.write(path, check(arrays, "memory"), ORIGIN)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    with pytest.warns(UserWarning, match="was it repacked"):
        assert load(path)[1].name == "toy"


@pytest.mark.parametrize("content", ["not json", "[]", "{}", json.dumps({"format": "other/1"})])
def test_a_bad_card_is_named(save, arrays, content):
    path = save(arrays)
    card_path(path).write_text(content)
    with pytest.raises(ValueError, match=r"data.hdf5.json: not a jaxdiff-dataset/1 card"):
        load(path)


def test_the_card_holds_hashes_counts_and_versions(tmp_path, arrays):
    path = tmp_path / "toy.hdf5"
    writer.write(path, check(arrays, "memory"), ORIGIN)
    fields = json.loads(card_path(path).read_text())
    assert fields["sha256"] == file_sha256(path)
    assert (fields["num_rows"], fields["obs_dim"], fields["action_dim"]) == (60, 3, 2)
    assert (fields["seed"], fields["licence"]) == (3, "CC0")
    assert fields["versions"]["h5py"] == h5py.__version__


def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path, arrays, monkeypatch):
    path = tmp_path / "toy.hdf5"
    columns = check(arrays, "memory")
    writer.write(path, columns, ORIGIN)
    before = path.read_bytes()

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        writer.write(path, columns._replace(reward=columns.reward + 1), ORIGIN)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.hdf5", "toy.hdf5.json"]


def test_only_hdf5_is_written(tmp_path, arrays):
    with pytest.raises(ValueError, match="written as HDF5; give a name that ends in .hdf5"):
        writer.write(tmp_path / "toy.npz", check(arrays, "memory"), ORIGIN)


def test_what_no_card_can_hold_leaves_no_file(tmp_path, arrays):
    origin = dataclasses.replace(ORIGIN, arguments={"noise": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        writer.write(tmp_path / "toy.hdf5", check(arrays, "memory"), origin)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_files_name(tmp_path, arrays, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        writer.write(tmp_path / "toy.hdf5", check(arrays, "memory"), ORIGIN)
    assert caught.value.filename.startswith(str(tmp_path / "toy.hdf5"))
    assert not list(tmp_path.iterdir())
