"""Plain .npy files, one array each. Arrays of Python objects, which are pickles, are refused with nothing run."""

import pathlib
from typing import NamedTuple

import numpy as np

MAGIC = b"\x93NUMPY"


class Reading(NamedTuple):
    """What a folder's files may not say, and a user does; None: as the reader of the folder tells it."""

    max_episode_steps: int | None = None
    num_actions: int | None = None  # of discrete actions, where the files have no mask that tells it
    pad: bool = False  # fill observations of agents that see fewer numbers than others up with zeros


def read_array(path: pathlib.Path) -> np.ndarray:
    """The array of a file, mapped and not yet copied into memory.

    Raises:
      ValueError: no such file, another format, cut short, or Python objects.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the folder needs it, fetch or export it again.")
    with path.open("rb") as file:
        head = file.read(len(MAGIC))
    if head != MAGIC:
        raise ValueError(f"{path}: not an .npy file, it begins with {head!r}; save the array with numpy.save.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); fetch a file that was cut short "
            "again; pickled objects are refused, since they can run code: save plain numeric arrays."
        ) from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: has type {array.dtype}; numbers are needed, export it as float32.")
    if array.ndim == 0 or len(array) == 0:
        raise ValueError(f"{path}: has shape {array.shape}; a row for every step is needed.")
    return array


def require_finite(array: np.ndarray, where: str, agent: int | None = None) -> None:
    """Raises ValueError with the first agent and row that is NaN or infinite; agents are axis 1 where none is given."""
    bad = ~np.isfinite(array)
    if bad.any():
        first = np.argwhere(bad)[0]
        who = agent if agent is not None else (int(first[1]) if array.ndim > 1 else None)
        place = f"row {int(first[0])}" if who is None else f"agent {who}, row {int(first[0])}"
        raise ValueError(
            f"{where}: {int(bad.sum())} NaN or infinite values, the first at {place}; remove those episodes from all "
            "files, or repair the file at its origin."
        )
