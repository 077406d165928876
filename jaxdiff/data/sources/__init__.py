"""Where data come from: one file per format, each a `read(path) -> {name: array}`; everything after is shared."""

from collections.abc import Callable, Mapping
import errno
import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdiff.data import card as cards
from jaxdiff.data.columns import Columns, check, content_sha256, episode_returns, time_limits, to_dataset
from jaxdiff.data.dataset import Dataset, DatasetInfo
from jaxdiff.data.reference import reference_scores
from jaxdiff.data.sources import d4rl, minari, npz, ogbench
from jaxdiff.suggest import did_you_mean


class Source(NamedTuple):
    """A file format."""

    read: Callable[[pathlib.Path], Mapping[str, np.ndarray]]  # known arrays under their D4RL names
    signature: bytes  # the file's first bytes
    suffixes: tuple[str, ...]
    owns: Callable[[pathlib.Path], bool] = lambda path: True  # asked where the signature is that of several formats


SOURCES: Mapping[str, Source] = {
    "d4rl": Source(d4rl.read, d4rl.SIGNATURE, d4rl.SUFFIXES),
    "npz": Source(npz.read, npz.SIGNATURE, npz.SUFFIXES),
    "minari": Source(minari.read, d4rl.SIGNATURE, d4rl.SUFFIXES, minari.owns),
    "ogbench": Source(ogbench.read, npz.SIGNATURE, npz.SUFFIXES, ogbench.owns),
}
READABLE = tuple(suffix for source in SOURCES.values() for suffix in source.suffixes)
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".npy")


def load(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    max_episode_steps: int | None = None,
    use_next_observations: bool = False,
) -> tuple[Dataset, DatasetInfo]:
    """Reads a dataset file into host memory, checks it, and cuts it into transitions.

    Args:
      path: file to read. If `<path>.json`, the card, lies beside it, the content must match the card's hash.
      format: a name in SOURCES, or None to tell by the first bytes, then by the suffix.
      max_episode_steps: for files without timeouts (see `columns.to_dataset`).
      use_next_observations: trust the file's own successors (see `columns.to_dataset`), as is done without asking
        where the card says that they are true.

    Returns:
      (Dataset of numpy arrays, DatasetInfo); `to_device` moves the first to an accelerator.

    Raises:
      FileNotFoundError: no such file.
      KeyError: unknown format.
      ValueError: a bad file, in one line that names it.
    """
    path = pathlib.Path(path)
    columns = load_columns(path, format)
    card = cards.verify(path, columns)
    source = str(path)
    trusted = use_next_observations or (card is not None and card.true_next_observations)
    dataset = to_dataset(columns, source, max_episode_steps=max_episode_steps, use_next_observations=trusted)
    returns = episode_returns(columns, time_limits(columns, source, max_episode_steps))
    name = card.name if card else path.stem
    info = DatasetInfo(
        name=name,
        path=source,
        env=card.env if card else None,
        num_transitions=dataset.num_transitions,
        num_episodes=int(dataset.episode[-1]) + 1,
        obs_dim=columns.obs.shape[-1],
        action_dim=columns.action.shape[-1],
        sha256=card.content_sha256 if card else content_sha256(columns),
        return_mean=float(returns.mean()) if returns.size else None,
        return_std=float(returns.std()) if returns.size else None,
        reference_scores=card.reference_scores if card else reference_scores(name),
        generator=card.generator if card else None,
        num_agents=columns.obs.shape[1] if columns.obs.ndim == 3 else None,
    )
    return dataset, info


def load_columns(path: str | os.PathLike[str], format: str | None = None, *, action_limit: float = 1.0) -> Columns:
    """Reads and checks the rows of a file, before they are cut into transitions. Raises as `load` does."""
    path = pathlib.Path(path)
    require_file(path)
    if format is None:
        format = sniff(path)
    elif format not in SOURCES:
        raise KeyError(f"unknown dataset format {format!r}; {did_you_mean(format, SOURCES)}")
    return check(SOURCES[format].read(path), str(path), action_limit=action_limit)


def sniff(path: pathlib.Path) -> str:
    """Name in SOURCES of the format of a file: its first bytes decide, then its suffix.

    Raises:
      ValueError: an empty file, a pickle, or neither bytes nor suffix known.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise ValueError(f"{path}: empty file, 0 bytes; fetch or make it again.")
    suffix = path.suffix.lower()
    if suffix in PICKLES:
        raise ValueError(f"{path}: {suffix} files may hold pickles, which can run code and are never read; use .npz.")
    for name, source in reversed(list(SOURCES.items())):  # those that own some files only come last
        if head.startswith(source.signature) and source.owns(path):
            return name
    for name, source in SOURCES.items():
        if suffix in source.suffixes:
            return name
    known = ", ".join(f"{name} ({', '.join(source.suffixes)})" for name, source in SOURCES.items())
    raise ValueError(f"{path}: unknown format, it begins with {head!r}; readable: {known}.")


def require_file(path: pathlib.Path) -> None:
    """Raises FileNotFoundError (with the nearest sibling's name) or, for a folder, ValueError."""
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give the dataset file inside it.")
    if not path.exists():
        folder = path.parent
        siblings = [p.name for p in folder.iterdir() if p.suffix in READABLE] if folder.is_dir() else []
        hint = did_you_mean(path.name, siblings).rstrip(".") if siblings else f"{folder} holds no dataset"
        # With errno and name it prints like the system's own, and tools can read error.filename.
        raise FileNotFoundError(errno.ENOENT, f"no such file, {hint}", str(path))
