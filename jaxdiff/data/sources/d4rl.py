"""HDF5 files of the D4RL schema: top-level observations, actions, rewards, terminals and (usually) timeouts.

Self-generated files of the same schema are read by the same rules; only a card beside the file tells them apart.
"""

from collections.abc import Mapping
import pathlib

import numpy as np

from jaxdiff.data.columns import OPTIONAL, REQUIRED, require

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".hdf5", ".h5")


def read(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    """Reads the known top-level arrays of an HDF5 file into memory; groups and other keys are left on disk.

    Raises:
      ValueError: not HDF5, cut short, or a required array absent.
    """
    import h5py

    if not h5py.is_hdf5(path):
        with path.open("rb") as file:
            head = file.read(16)
        raise ValueError(
            f"{path}: not an HDF5 file, it begins with {head!r}; "
            "a download that failed often leaves a web page or a pointer under this name: fetch it again."
        )
    try:
        with h5py.File(path, "r") as file:
            require(file, str(path))
            known = [name for name in REQUIRED + OPTIONAL if isinstance(file.get(name), h5py.Dataset)]
            return {name: file[name][()] for name in known}
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: truncated or damaged HDF5, {path.stat().st_size} bytes ({reason}); fetch or make it again."
        ) from error
