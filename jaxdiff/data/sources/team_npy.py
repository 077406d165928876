"""Folders with one file for each field, agents as their second axis, as MADiff publishes its data.

    {obs,actions,rewards}.npy [sum of T, A, ...]    path_lengths.npy [E], each episode's T    legals.npy, if any

Terminations are not stored: an episode shorter than the others was ended by its task, one of full length by the clock.

Reference: Zhu et al. 2024 (MADiff), arXiv:2305.17330, and its code.
"""

import pathlib

import numpy as np

from jaxdiff.data.sources import discrete
from jaxdiff.data.sources.npy import Reading, read_array, require_finite

FIELDS = ("obs", "actions", "rewards", "path_lengths")


def owns(path: pathlib.Path) -> bool:
    """Whether a folder holds the lengths of paths, or observations and actions."""
    return (path / "path_lengths.npy").is_file() or all((path / f"{n}.npy").is_file() for n in ("obs", "actions"))


def name_of(path: pathlib.Path) -> str:
    """The names of the folder and of the one it lies in: `3m-Good`."""
    *_, parent, last = ("", *path.resolve().parts)
    return f"{parent}-{last}".lstrip("-")


def read(path: pathlib.Path, reading: Reading) -> dict[str, np.ndarray]:
    """Reads the episodes end to end; discrete actions become scores, and a mask the end of the observation.

    Episodes of `reading.max_episode_steps`, by default the longest in the data, are ended by the clock.

    Raises:
      ValueError: a file is missing or no array of numbers, lengths do not fit together, NaN, wrong actions.
    """
    missing = [f"{field}.npy" for field in FIELDS if not (path / f"{field}.npy").is_file()]
    if missing:
        raise ValueError(f"{path}: no {', '.join(missing)}; it needs {', '.join(FIELDS)}: fetch the folder again.")
    obs, action, reward, lengths = (read_array(path / f"{field}.npy") for field in FIELDS)
    allowed = read_array(path / "legals.npy") if (path / "legals.npy").is_file() else None
    if obs.ndim != 3:
        raise ValueError(f"{path / 'obs.npy'}: has shape {obs.shape}; (rows, agents, numbers) is needed.")
    named = {"obs": obs, "actions": action, "rewards": reward, **({} if allowed is None else {"legals": allowed})}
    for field, array in named.items():
        if len(array) != len(obs) or (array.ndim > 1 and array.shape[1] != obs.shape[1]):
            raise ValueError(
                f"{path / field}.npy: has shape {array.shape}, and obs.npy {obs.shape}; rows and agents must agree."
            )
        require_finite(array, f"{path / field}.npy")
    if allowed is not None and allowed.ndim != 3:
        raise ValueError(f"{path / 'legals.npy'}: has shape {allowed.shape}; (rows, agents, actions) is needed.")
    terminated, truncated = _ends(lengths, len(obs), path, reading.max_episode_steps)
    if action.dtype.kind in "iu" or allowed is not None:
        where = f"{path / 'actions.npy'}"
        action = discrete.scores(action, where, allowed=allowed, num_actions=reading.num_actions)
    return {
        "observations": discrete.with_mask(np.asarray(obs), allowed),
        "actions": np.asarray(action),
        "rewards": np.asarray(reward[..., 0] if reward.ndim == 3 and reward.shape[-1] == 1 else reward),
        "terminals": terminated,
        "timeouts": truncated,
    }


def _ends(
    lengths: np.ndarray, num_rows: int, path: pathlib.Path, max_episode_steps: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """[N] bool twice: the rows that the task ended, and those that the clock did."""
    where = path / "path_lengths.npy"
    counts = lengths.astype(np.int64)
    if lengths.ndim != 1 or (counts != lengths).any() or counts.min() < 1:
        raise ValueError(f"{where}: whole numbers of at least 1 are needed, one for each episode.")
    if counts.sum() != num_rows:
        raise ValueError(f"{where}: the lengths sum to {counts.sum()}, and obs.npy has {num_rows} rows.")
    limit = int(counts.max()) if max_episode_steps is None else max_episode_steps
    if counts.max() > limit:
        raise ValueError(f"{where}: an episode has {counts.max()} steps, and max_episode_steps={limit}.")
    terminated, truncated = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    last = np.cumsum(counts) - 1
    terminated[last[counts < limit]], truncated[last[counts == limit]] = True, True
    return terminated, truncated
