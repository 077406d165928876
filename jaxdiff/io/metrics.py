"""Metrics of many members as columns: one row per logged step, one array per column, one file per pack."""

from collections.abc import Mapping
import os

import numpy as np

from jaxdiff.io import files

RESERVED = ("step", "wall_seconds")


class MetricTable:
    """Rows of `step`, `wall_seconds` and named arrays, every column keeping one shape and dtype.

    Floats are stored as float32, booleans and integers as they are. `wall_seconds` is whatever clock the caller
    keeps; on resume it should go on from the last row's value, see `last_wall_seconds`.
    """

    def __init__(self) -> None:
        self._steps: list[int] = []
        self._seconds: list[float] = []
        self._columns: dict[str, list[np.ndarray]] = {}
        self._layout: dict[str, tuple[tuple[int, ...], np.dtype]] | None = None

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the metrics, without `step` and `wall_seconds`, in the order of the first row."""
        return tuple(self._columns)

    @property
    def last_step(self) -> int | None:
        """Step of the newest row; None when there is none."""
        return self._steps[-1] if self._steps else None

    @property
    def last_wall_seconds(self) -> float:
        """Clock of the newest row; 0 when there is none."""
        return self._seconds[-1] if self._seconds else 0.0

    def append(self, step: int, wall_seconds: float, values: Mapping[str, np.ndarray]) -> None:
        """Adds one row.

        Args:
          step: updates applied so far; greater than the newest row's.
          wall_seconds: seconds since the run began.
          values: name -> array [L, ...]; after the first row always the same names and shapes.

        Raises:
          ValueError: the step does not advance, a name is reserved, or names or shapes changed. The table is as before.
        """
        step = int(step)
        if self._steps and step <= self._steps[-1]:
            raise ValueError(
                f"step={step} is not after the newest row's step={self._steps[-1]}; "
                "call truncate_after(step) first when resuming from an older checkpoint."
            )
        row = {name: _storable(value) for name, value in values.items()}
        self._check(row)
        self._steps.append(step)
        self._seconds.append(float(wall_seconds))
        for name, value in row.items():
            self._columns[name].append(value.astype(self._layout[name][1]))  # type: ignore[index]

    def truncate_after(self, step: int) -> int:
        """Drops rows with a step greater than `step` and says how many.

        For resume: the checkpoint may be older than the newest row, and the updates between them run again.
        """
        keep = sum(1 for known in self._steps if known <= int(step))
        dropped = len(self._steps) - keep
        del self._steps[keep:], self._seconds[keep:]
        for column in self._columns.values():
            del column[keep:]
        return dropped

    def arrays(self) -> dict[str, np.ndarray]:
        """All columns: step [T] int64, wall_seconds [T] float64, each metric [T, L, ...]."""
        out = {"step": np.asarray(self._steps, np.int64), "wall_seconds": np.asarray(self._seconds, np.float64)}
        for name, (shape, dtype) in (self._layout or {}).items():
            rows = self._columns[name]
            out[name] = np.stack(rows) if rows else np.empty((0, *shape), dtype)
        return out

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes all columns as one npz, atomically: an earlier file survives a full disk."""
        files.write_npz_atomic(path, self.arrays())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "MetricTable":
        """Reads a table that `save` wrote.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file is damaged, or its columns are not of one length.
        """
        arrays = files.read_npz(path)
        missing = [name for name in RESERVED if name not in arrays]
        if missing:
            raise ValueError(f"{path} has no column {missing[0]!r}; it is not a metric table.")
        steps, seconds = arrays.pop("step"), arrays.pop("wall_seconds")
        lengths = {name: len(column) for name, column in {"wall_seconds": seconds, **arrays}.items()}
        uneven = [name for name, length in lengths.items() if length != len(steps)]
        if uneven:
            raise ValueError(f"{path}: column {uneven[0]!r} has {lengths[uneven[0]]} rows, step has {len(steps)}.")
        table = cls()
        table._steps, table._seconds = steps.tolist(), seconds.tolist()
        table._columns = {name: list(column) for name, column in arrays.items()}
        if arrays:
            table._layout = {name: (column.shape[1:], column.dtype) for name, column in arrays.items()}
        return table

    def _check(self, row: dict[str, np.ndarray]) -> None:
        if self._layout is None:
            reserved = sorted(set(row) & set(RESERVED))
            if reserved:
                raise ValueError(f"column {reserved[0]!r} is the table's own; give the metric another name.")
            self._layout = {name: (value.shape, value.dtype) for name, value in row.items()}
            self._columns = {name: [] for name in row}
            return
        missing, new = sorted(set(self._layout) - set(row)), sorted(set(row) - set(self._layout))
        if missing or new:
            raise ValueError(
                f"the columns are fixed by the first row: missing {missing}, new {new}; "
                f"known: {', '.join(self._layout)}. Give every metric in every row (NaN where it has no value)."
            )
        for name, value in row.items():
            if value.shape != self._layout[name][0]:
                raise ValueError(f"column {name!r} has shape {self._layout[name][0]} per row, this row {value.shape}.")


def _storable(value: np.ndarray) -> np.ndarray:
    array = np.array(value)  # a copy: the caller may reuse its buffer
    return array if array.dtype.kind in "biu" else array.astype(np.float32)
