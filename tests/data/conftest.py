"""Synthetic D4RL files, small and random."""

from collections.abc import Callable
import pathlib

import h5py
import numpy as np
import pytest
from synthetic_d4rl import Arrays, random_arrays


@pytest.fixture
def arrays() -> Arrays:
    return random_arrays()


@pytest.fixture
def save(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """save(arrays, name="data.hdf5") -> path of a new HDF5 file; arrays set to None are left out."""

    def write(content: Arrays, name: str = "data.hdf5", **changes: np.ndarray | None) -> pathlib.Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            for key, array in {**content, **changes}.items():
                if array is not None:
                    file[key] = array
        return path

    return write
