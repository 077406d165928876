"""Where data come from: one file per format, each reads `{name: array}`; everything after is shared."""

from collections.abc import Callable, Mapping
import errno
import os
import pathlib
from typing import NamedTuple

import numpy as np

from jaxdiff.data import card as cards
from jaxdiff.data.columns import Columns, check, content_sha256, episode_returns, time_limits, to_dataset
from jaxdiff.data.dataset import Dataset, DatasetInfo
from jaxdiff.data.reference import reference_scores, team_scores
from jaxdiff.data.sources import agent_npy, d4rl, minari, npz, ogbench, team_npy, vault
from jaxdiff.data.sources.npy import Reading
from jaxdiff.suggest import did_you_mean


class Source(NamedTuple):
    """A file format."""

    read: Callable[[pathlib.Path], Mapping[str, np.ndarray]]  # known arrays under their D4RL names
    signature: bytes  # the file's first bytes
    suffixes: tuple[str, ...]
    owns: Callable[[pathlib.Path], bool] = lambda path: True  # asked where the signature is that of several formats


class Folder(NamedTuple):
    """A format of several files in one folder."""

    read: Callable[[pathlib.Path, Reading], Mapping[str, np.ndarray]]  # as a file's, and infos/...
    owns: Callable[[pathlib.Path], bool]
    name_of: Callable[[pathlib.Path], str]  # the dataset's
    true_next_observations: bool = False  # those that it reads are what followed, at an episode's end too


SOURCES: Mapping[str, Source] = {
    "d4rl": Source(d4rl.read, d4rl.SIGNATURE, d4rl.SUFFIXES),
    "npz": Source(npz.read, npz.SIGNATURE, npz.SUFFIXES),
    "minari": Source(minari.read, d4rl.SIGNATURE, d4rl.SUFFIXES, minari.owns),
    "ogbench": Source(ogbench.read, npz.SIGNATURE, npz.SUFFIXES, ogbench.owns),
}
FOLDERS: Mapping[str, Folder] = {
    "agent-npy": Folder(agent_npy.read, agent_npy.owns, agent_npy.name_of, true_next_observations=True),
    "team-npy": Folder(team_npy.read, team_npy.owns, team_npy.name_of),
    "vault": Folder(vault.read, vault.owns, vault.name_of),
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
    """Reads a dataset into host memory, checks it, and cuts it into transitions.

    Args:
      path: file or folder to read. If `<path>.json`, the card, lies beside a file, the content must match its hash.
      format: a name in SOURCES or FOLDERS, or None to tell by the first bytes, then by the suffix; of a folder, by
        what it holds.
      max_episode_steps: for files without timeouts (see `columns.to_dataset`).
      use_next_observations: trust the file's own successors (see `columns.to_dataset`), as is done without asking
        where the card or the format says that they are true.

    Returns:
      (Dataset of numpy arrays, DatasetInfo); `to_device` moves the first to an accelerator.

    Raises:
      FileNotFoundError: no such file.
      KeyError: unknown format.
      ValueError: a bad file, in one line that names it.
    """
    columns = load_columns(path, format, reading=Reading(max_episode_steps))
    return cut(columns, path, format, max_episode_steps=max_episode_steps, use_next_observations=use_next_observations)


def cut(
    columns: Columns,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    max_episode_steps: int | None = None,
    use_next_observations: bool = False,
) -> tuple[Dataset, DatasetInfo]:
    """`load` of rows that `load_columns` has read already."""
    path = pathlib.Path(path)
    card = None if path.is_dir() else cards.verify(path, columns)
    source = str(path)
    trusted = use_next_observations or has_true_next_observations(path, format, card)
    dataset = to_dataset(columns, source, max_episode_steps=max_episode_steps, use_next_observations=trusted)
    returns = episode_returns(columns, time_limits(columns, source, max_episode_steps))
    name = card.name if card else name_of(path, format)
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
        reference_scores=card.reference_scores if card else published_scores(name, columns),
        generator=card.generator if card else None,
        num_agents=columns.obs.shape[1] if columns.obs.ndim == 3 else None,
        num_returns=returns.size,
    )
    return dataset, info


def name_of(path: pathlib.Path, format: str | None = None) -> str:
    """A dataset's name where no card tells it: the file's, or what its folders are called."""
    return FOLDERS[format or sniff(path)].name_of(path) if path.is_dir() else path.stem


def has_true_next_observations(path: pathlib.Path, format: str | None, card: cards.Card | None) -> bool:
    """Whether the next observations that are read are what followed, by the card or by the folder's format."""
    if path.is_dir():
        return FOLDERS[format or sniff(path)].true_next_observations
    return card is not None and card.true_next_observations


def published_scores(name: str, columns: Columns) -> tuple[float, float] | None:
    """(random, expert) returns of a dataset's name: those of teams for data with agents, else D4RL's."""
    return reference_scores(name) if columns.obs.ndim == 2 else team_scores(name)


def load_columns(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    action_limit: float = 1.0,
    reading: Reading = Reading(),  # noqa: B008 - immutable
) -> Columns:
    """Reads and checks the rows of a file or folder, before they are cut into transitions. Raises as `load` does."""
    path = pathlib.Path(path)
    if format is not None and format not in (known := {**SOURCES, **FOLDERS}):
        raise KeyError(f"unknown dataset format {format!r}; {did_you_mean(format, known)}")
    require_data(path, format)
    format = format or sniff(path)
    if path.is_dir():
        return check(FOLDERS[format].read(path, reading), str(path), action_limit=action_limit)
    return check(SOURCES[format].read(path), str(path), action_limit=action_limit)


def sniff(path: pathlib.Path) -> str:
    """Name in SOURCES of the format of a file: its first bytes decide, then its suffix. In FOLDERS, of a folder.

    Raises:
      ValueError: an empty file, a pickle, or neither bytes nor suffix known; a folder that no format owns.
    """
    if path.is_dir():
        owner = next((name for name, folder in FOLDERS.items() if folder.owns(path)), None)
        if owner is None:
            raise ValueError(f"{path}: a folder; give the dataset {_inside(path)}.")
        return owner
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


def _inside(path: pathlib.Path) -> str:
    """What to give instead of a folder that is no dataset: folders in it that are, or a file."""
    inside = [child.name for child in sorted(path.iterdir()) if child.is_dir()][:100]
    found = [name for name in inside if any(folder.owns(path / name) for folder in FOLDERS.values())]
    return f"inside it, {' or '.join(found)}" if found else "file inside it"


def require_data(path: pathlib.Path, format: str | None = None) -> None:
    """Raises unless the path is a file, or a folder in one of FOLDERS' formats.

    Raises:
      FileNotFoundError: nothing there; it names the nearest sibling.
      ValueError: a folder that is no dataset, or one where `format` is a file's, or the other way round.
    """
    if path.is_dir():
        sniff(path)
        if format in SOURCES:
            raise ValueError(f"{path}: a folder, and {format} is a format of files; give the dataset file inside it.")
    elif path.exists() and format in FOLDERS:
        raise ValueError(f"{path}: a file, and {format} is a format of folders; give the folder {path.parent}.")
    if not path.exists():
        folder = path.parent
        siblings = [p.name for p in folder.iterdir() if p.suffix in READABLE] if folder.is_dir() else []
        hint = did_you_mean(path.name, siblings).rstrip(".") if siblings else f"{folder} holds no dataset"
        # With errno and name it prints like the system's own, and tools can read error.filename.
        raise FileNotFoundError(errno.ENOENT, f"no such file, {hint}", str(path))
