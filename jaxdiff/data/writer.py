"""Writes a dataset and its card, each whole or not at all; the same rows give the same bytes."""

from collections.abc import Callable, Mapping
import dataclasses
import errno
import io
import os
import pathlib
import tempfile

import numpy as np

from jaxdiff.data.card import Card, Origin, card_path, file_sha256, to_json, versions
from jaxdiff.data.columns import Columns, content_sha256, episode_returns, time_limits, to_dataset
from jaxdiff.data.reference import normalised_score

CHUNK_ROWS = 16384
GZIP_LEVEL = 4


def write(
    path: pathlib.Path,
    columns: Columns,
    origin: Origin,
    *,
    max_episode_steps: int | None = None,
    source: str | None = None,
) -> Card:
    """Writes `path` (HDF5 of the D4RL schema) and `<path>.json`, replacing older ones.

    `timeouts` are always written: without them in `columns`, max_episode_steps tells where episodes end. An error about
    the rows names `source`, where they came from, if it is given.

    Raises:
      ValueError: `path` does not end in .hdf5 or .h5; no way to tell where episodes end; no transition in the rows; an
        origin that JSON cannot hold. Nothing was written.
      OSError: the disk is full, or the folder is not writable; it names the file, and the previous one is still there.
    """
    require_hdf5_name(path)
    source = str(path) if source is None else source
    truncated = time_limits(columns, source, max_episode_steps)
    columns = columns._replace(truncated=truncated)
    dataset = to_dataset(columns, source, use_next_observations=origin.true_next_observations)
    num_transitions = dataset.num_transitions
    path.parent.mkdir(parents=True, exist_ok=True)
    cards: list[Card] = []

    def write_both(temporary: pathlib.Path) -> None:
        _write_hdf5(temporary, {**columns.named(), **columns.extras})
        cards.append(_card(columns, origin, file_sha256(temporary), num_transitions))
        text = to_json(cards[0])
        atomically(card_path(path), lambda card: card.write_text(text, encoding="utf-8"))

    atomically(path, write_both)
    return cards[0]


def _card(columns: Columns, origin: Origin, sha256: str, num_transitions: int) -> Card:
    """The card of rows whose ends are known, stored in a file of that hash."""
    returns = episode_returns(columns, time_limits(columns, origin.name))
    mean = float(returns.mean()) if returns.size else None
    reference = origin.reference_scores
    fields = {field.name: getattr(origin, field.name) for field in dataclasses.fields(Origin)}
    return Card(
        **fields,
        sha256=sha256,
        content_sha256=content_sha256(columns),
        num_rows=len(columns.obs),
        num_transitions=num_transitions,
        num_episodes=len(returns),
        obs_dim=columns.obs.shape[-1],
        action_dim=columns.action.shape[-1],
        num_agents=columns.obs.shape[1] if columns.obs.ndim == 3 else None,
        return_mean=mean,
        return_std=float(returns.std()) if returns.size else None,
        normalised_score=None if mean is None or reference is None else normalised_score(mean, reference),
        versions=versions(),
    )


def require_hdf5_name(path: pathlib.Path) -> None:
    """Raises ValueError unless the name says HDF5."""
    if path.suffix not in (".hdf5", ".h5"):
        raise ValueError(f"{path}: datasets are written as HDF5; give a name that ends in .hdf5.")


def atomically(path: pathlib.Path, write_to: Callable[[pathlib.Path], object]) -> None:
    """Runs write_to(temporary file in the same folder), then moves the result to `path`.

    Raises:
      OSError: it names `path` where the system named no file, as for a full disk.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        write_to(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_hdf5(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """No times, fixed chunks and compression: bytes depend on the arrays and the HDF5 and zlib versions only.

    Made in memory first: on a full disk HDF5 cannot close its file, and takes the process down.
    """
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w", track_order=False) as file:
        for name, array in sorted(arrays.items()):
            chunks = (min(CHUNK_ROWS, len(array)), *array.shape[1:])
            file.create_dataset(
                name,
                data=array,
                chunks=chunks,
                compression="gzip",
                compression_opts=GZIP_LEVEL,
                shuffle=True,
                track_times=False,
            )
    path.write_bytes(content.getbuffer())


def _umask() -> int:
    """The process's mask; POSIX lets it be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
