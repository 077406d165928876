"""Minari's HDF5 files (`main_data.hdf5`): a group per episode, one observation more than steps.

The library itself is not needed to read them; `minari download ID`, of the extra `minari`, brings them.

Reference: minari.farama.org, Dataset Standards.
"""

from collections.abc import Mapping
import pathlib
import re
from typing import Any

import numpy as np

STEPS = ("actions", "rewards", "terminations", "truncations")
GOAL_OBSERVATION = ("observation", "desired_goal")  # of dict observations; achieved_goal is part of the first


def read(path: pathlib.Path) -> Mapping[str, np.ndarray]:
    """Lays the episodes end to end in the order of their numbers, under D4RL names.

    Dict observations of goal tasks become [observation, desired_goal]. An episode whose recording stopped before any
    end is ended by the clock.

    Raises:
      ValueError: damaged, no episode, an array absent, or observations or actions of another kind.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = sorted((n for n in file if _is_episode(n)), key=lambda n: int(n.removeprefix("episode_")))
            if not names:
                raise ValueError(f"{path}: no group 'episode_0'; found: {', '.join(sorted(file)) or 'nothing'}.")
            episodes = [_episode(file[name], f"{path}: {name}") for name in names]
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: truncated or damaged HDF5 ({reason}); fetch or make it again.") from error
    for name, episode in zip(names, episodes, strict=True):
        for key, first in episodes[0].items():
            if episode[key].shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"{path}: {key} of {name} have shape {episode[key].shape}, those of {names[0]} {first.shape}; all "
                    "episodes must have the same sizes."
                )
    return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}


def owns(path: pathlib.Path) -> bool:
    """Whether an HDF5 file holds groups of episodes."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return any(_is_episode(name) for name in file)
    except OSError:
        return False  # the generic reader says what is wrong with it


def _is_episode(name: str) -> bool:
    return re.fullmatch(r"episode_\d+", name) is not None


def _episode(group: Any, source: str) -> dict[str, np.ndarray]:
    import h5py

    missing = [name for name in ("observations", *STEPS) if name not in group]
    if missing:
        raise ValueError(f"{source} has no {', '.join(map(repr, missing))}; found: {', '.join(sorted(group))}.")
    stored = group["observations"]
    if isinstance(stored, h5py.Group):
        if not all(isinstance(stored.get(name), h5py.Dataset) for name in GOAL_OBSERVATION):
            raise ValueError(
                f"{source} has observations of {', '.join(sorted(stored))}; of several parts only "
                f"{' and '.join(GOAL_OBSERVATION)} are understood: flatten them and export to .npz."
            )
        obs = np.concatenate([stored[name][()] for name in GOAL_OBSERVATION], axis=1)
    else:
        obs = stored[()]
    if not isinstance(group["actions"], h5py.Dataset):
        raise ValueError(f"{source} has actions of several parts; flatten them and export to .npz.")
    action, reward, terminated, truncated = (group[name][()] for name in STEPS)
    num_steps = len(action)
    if len(obs) != num_steps + 1 or num_steps == 0:
        raise ValueError(f"{source} has {len(obs)} observations for {num_steps} actions; there must be one more.")
    for name, array in zip(STEPS[1:], (reward, terminated, truncated), strict=True):
        if array.size != num_steps:
            raise ValueError(f"{source} has {name} of shape {array.shape} for {num_steps} actions; one each is needed.")
    truncated = truncated.astype(bool).reshape(num_steps)
    terminated = terminated.astype(bool).reshape(num_steps)
    truncated[-1] |= not terminated[-1]
    return {
        "observations": obs[:-1],
        "actions": action,
        "rewards": reward.reshape(num_steps),
        "terminals": terminated,
        "timeouts": truncated,
        "next_observations": obs[1:],
    }
