import errno
import os

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.io.metrics import MetricTable


def filled(steps):
    table = MetricTable()
    for step in steps:
        table.append(step, 0.5 * step, {"loss": np.array([step, -step]), "alive": np.array([True, step < 20])})
    return table


def test_columns_stack_rows_in_order():
    arrays = filled([10, 20, 30]).arrays()
    np.testing.assert_array_equal(arrays["step"], [10, 20, 30])
    np.testing.assert_array_equal(arrays["wall_seconds"], [5.0, 10.0, 15.0])
    np.testing.assert_array_equal(arrays["loss"], [[10, -10], [20, -20], [30, -30]])
    np.testing.assert_array_equal(arrays["alive"], [[True, True], [True, False], [True, False]])
    assert arrays["alive"].dtype == np.bool_


@pytest.mark.parametrize("value", [np.ones(2), jnp.ones(2, jnp.bfloat16), np.ones(2, np.float16)])
def test_floats_of_any_width_are_stored_as_float32(tmp_path, value):
    table = MetricTable()
    table.append(1, 0.0, {"x": value})
    table.save(tmp_path / "a.npz")
    assert MetricTable.load(tmp_path / "a.npz").arrays()["x"].dtype == np.float32


def test_a_row_is_a_copy():
    table, buffer = MetricTable(), np.ones(2, np.float32)
    table.append(1, 0.0, {"x": buffer})
    buffer[:] = 7
    np.testing.assert_array_equal(table.arrays()["x"], [[1, 1]])


def test_saved_and_resumed_equals_uninterrupted(tmp_path):
    filled([10, 20, 30]).save(tmp_path / "train.npz")
    resumed = MetricTable.load(tmp_path / "train.npz")
    assert resumed.truncate_after(20) == 1  # the checkpoint is of step 20
    assert resumed.last_step == 20
    assert resumed.last_wall_seconds == 10.0
    for step in (30, 40):
        resumed.append(
            step, 0.5 * step, {"alive": np.array([True, False]), "loss": np.array([step, -step], np.float32)}
        )
    straight = filled([10, 20, 30, 40]).arrays()
    assert resumed.arrays().keys() == straight.keys()
    for name, column in straight.items():
        np.testing.assert_array_equal(resumed.arrays()[name], column)
        assert resumed.arrays()[name].dtype == column.dtype


def test_truncating_everything_keeps_the_columns(tmp_path):
    table = filled([10])
    assert table.truncate_after(0) == 1
    table.save(tmp_path / "a.npz")
    empty = MetricTable.load(tmp_path / "a.npz")
    assert (len(empty), empty.last_step, empty.columns) == (0, None, ("loss", "alive"))
    with pytest.raises(ValueError, match="missing"):
        empty.append(1, 0.0, {"loss": np.zeros(2)})


def test_table_without_rows_round_trips(tmp_path):
    MetricTable().save(tmp_path / "a.npz")
    table = MetricTable.load(tmp_path / "a.npz")
    table.append(1, 0.0, {"x": np.zeros(3)})
    assert table.columns == ("x",)


def test_columns_are_fixed_by_the_first_row():
    table = filled([10])
    with pytest.raises(ValueError, match=r"missing \['alive'\], new \['q'\]"):
        table.append(20, 1.0, {"loss": np.zeros(2), "q": np.zeros(2)})
    with pytest.raises(ValueError, match=r"column 'loss' has shape \(2,\) per row, this row \(3,\)"):
        table.append(20, 1.0, {"loss": np.zeros(3), "alive": np.ones(2, bool)})
    assert len(table) == 1


@pytest.mark.parametrize("step", [9, 10])
def test_a_step_that_does_not_advance_is_refused(step):
    with pytest.raises(ValueError, match="truncate_after"):
        filled([10]).append(step, 0.0, {"loss": np.zeros(2), "alive": np.ones(2, bool)})


def test_reserved_names_are_refused():
    table = MetricTable()
    with pytest.raises(ValueError, match="'step' is the table's own"):
        table.append(1, 0.0, {"step": np.zeros(2)})
    table.append(1, 0.0, {"x": np.zeros(2)})
    assert table.columns == ("x",)


def test_uneven_columns_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", step=np.arange(3), wall_seconds=np.zeros(3), x=np.zeros((2, 1)))
    with pytest.raises(ValueError, match="column 'x' has 2 rows, step has 3"):
        MetricTable.load(tmp_path / "a.npz")


def test_full_disk_keeps_the_previous_table(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    filled([10]).save(path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        filled([10, 20]).save(path)
    assert MetricTable.load(path).last_step == 10
