"""Rows as files store them: checked once here, whatever the source, then cut into transitions."""

from collections.abc import Iterable, Mapping
import hashlib
from typing import NamedTuple

import numpy as np

from jaxdiff.data.dataset import Dataset
from jaxdiff.types import Transition

REQUIRED = ("observations", "actions", "rewards", "terminals")
OPTIONAL = ("timeouts", "next_observations")
ACTION_TOLERANCE = 1e-5  # float32 policies overshoot the box by rounding; anything more is a unit error
MAX_FLOAT32 = float(np.finfo(np.float32).max)


class Columns(NamedTuple):
    """One row per environment step, N >= 2 rows, in the order they were lived. A row is not yet a transition."""

    obs: np.ndarray  # [N, O] or [N, A, O] float32, before the action
    action: np.ndarray  # [N, U] or [N, A, U] float32 in [-1, 1]
    reward: np.ndarray  # [N] or [N, A] float32
    terminated: np.ndarray  # same shape as reward, bool
    truncated: np.ndarray | None  # [N] bool; None: the file does not say
    next_obs: np.ndarray | None  # as obs; None: the file does not say
    extras: Mapping[str, np.ndarray] = {}  # written to the file beside the rest, never trained on

    def named(self) -> dict[str, np.ndarray]:
        """Arrays under their D4RL names, absent ones left out."""
        arrays = {"observations": self.obs, "actions": self.action, "rewards": self.reward}
        arrays["terminals"] = self.terminated
        if self.truncated is not None:
            arrays["timeouts"] = self.truncated
        if self.next_obs is not None:
            arrays["next_observations"] = self.next_obs
        return arrays


def require(found: Iterable[str], source: str) -> None:
    """Raises ValueError unless every required name is among `found`."""
    found = sorted(found)
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise ValueError(
            f"{source}: no {', '.join(map(repr, missing))}; found: {', '.join(found) or 'nothing'}. "
            f"A dataset needs {', '.join(REQUIRED)}; rename the arrays or export them under these names."
        )


def check(arrays: Mapping[str, np.ndarray], source: str, *, action_limit: float = 1.0) -> Columns:
    """Turns a file's raw arrays into Columns, or says in one line what is wrong with them.

    Args:
      arrays: name -> array under D4RL names, and extras under infos/; others are ignored. (N, 1) rewards, terminals
        and timeouts are squeezed.
      source: how to name the file in an error.
      action_limit: actions are stored in [-action_limit, action_limit] and divided by it.

    Raises:
      ValueError: a missing key, a wrong shape or type, NaN or inf, fewer than 2 rows, actions out of range; a limit
        that is not positive and finite.
    """
    require(arrays, source)
    if not 0.0 < action_limit < np.inf:
        raise ValueError(f"action_limit={action_limit}; it must be positive and finite: the task's largest action.")
    obs = _floats(arrays["observations"], "observations", source)
    if obs.ndim not in (2, 3):
        raise ValueError(f"{source}: observations has shape {obs.shape}; it must be (N, O), or (N, A, O) with agents.")
    if len(obs) < 2 or 0 in obs.shape:
        raise ValueError(f"{source}: observations has shape {obs.shape}; at least 2 rows and 1 feature are needed.")
    action = _floats(arrays["actions"], "actions", source) / np.float32(action_limit)
    if action.ndim != obs.ndim or action.shape[:-1] != obs.shape[:-1] or action.shape[-1] == 0:
        raise ValueError(
            f"{source}: actions has shape {action.shape}, observations {obs.shape}; all axes but the last must agree."
        )
    rows = obs.shape[:-1]
    reward = _per_row(_floats(arrays["rewards"], "rewards", source), "rewards", source, rows)
    terminated = _per_row(_flags(arrays["terminals"], "terminals", source), "terminals", source, rows)
    if terminated.ndim < reward.ndim:
        terminated = np.repeat(terminated[:, None], reward.shape[1], axis=1)
    elif terminated.ndim > reward.ndim:
        raise ValueError(
            f"{source}: terminals has shape {terminated.shape} but rewards {reward.shape}; "
            "with one reward for the team store terminals as (N,)."
        )
    truncated, next_obs = None, None
    if "timeouts" in arrays:
        truncated = _per_row(_flags(arrays["timeouts"], "timeouts", source), "timeouts", source, rows[:1])
    if "next_observations" in arrays:
        next_obs = _floats(arrays["next_observations"], "next_observations", source)
        if next_obs.shape != obs.shape:
            raise ValueError(f"{source}: next_observations has shape {next_obs.shape}, observations {obs.shape}.")
    extras = {name: array for name, array in arrays.items() if name.startswith("infos/")}
    return Columns(obs, _in_box(action, source), reward, terminated, truncated, next_obs, extras)


def first_agents(columns: Columns, count: int, source: str) -> Columns:
    """The rows of the first `count` agents; extras stay whole.

    Raises:
      ValueError: data without agents, or with fewer.
    """
    there = columns.obs.shape[1] if columns.obs.ndim == 3 else None
    if there is None or not 1 <= count <= there:
        raise ValueError(f"{source}: the first {count} agents are wanted, and it has {there or 'none'}.")
    kept = {}
    for name, array in columns._asdict().items():
        per_agent = isinstance(array, np.ndarray) and array.ndim > 1
        kept[name] = array[:, :count] if per_agent else array
    return Columns(**kept)


def to_dataset(
    columns: Columns, source: str, *, max_episode_steps: int | None = None, use_next_observations: bool = False
) -> Dataset:
    """Cuts rows into transitions as D4RL's `qlearning_dataset` does, without its loop.

    For i in 0 .. N-2, unless truncated[i]:  (o[i], a[i], r[i], 1 - terminated[i], o[i+1]).
    The last row and the rows of a time limit have no successor in the file and are dropped; next_obs after a
    termination is the next episode's first observation, masked by discount 0.

    Args:
      columns: N rows.
      source: how to name the file in an error.
      max_episode_steps: needed only where the file has no timeouts: a row is a time limit when it is the
        max_episode_steps-th of its episode. Each episode is counted from its own first row (D4RL's loop counts from
        one after a termination, which cuts such episodes a step early).
      use_next_observations: take the file's next_observations instead of o[i+1]; then no row is dropped. Only for
        files known to store true successors, which some published ones do not.

    Raises:
      ValueError: neither timeouts nor max_episode_steps; next_observations wanted but absent; no transition left.
    """
    truncated = time_limits(columns, source, max_episode_steps)
    episode = _episode_of_row(columns, truncated)
    if use_next_observations:
        if columns.next_obs is None:
            raise ValueError(f"{source}: no 'next_observations'; read it with use_next_observations=False.")
        next_obs, keep = columns.next_obs, np.ones(len(truncated), bool)
    else:
        next_obs, keep = np.roll(columns.obs, -1, axis=0), ~truncated
        keep[-1] = False
    if not keep.any():
        raise ValueError(
            f"{source}: no transition is left of {len(keep)} rows: each is a time limit or the file's last, and has no "
            "next observation; check 'timeouts'."
        )
    episode = episode[keep]
    episode = np.concatenate([[0], np.cumsum(np.diff(episode) != 0)]).astype(np.int32)
    transitions = Transition(
        obs=columns.obs[keep],  # type: ignore[arg-type]  # host arrays until the loop's one device_put
        action=columns.action[keep],  # type: ignore[arg-type]
        reward=columns.reward[keep],  # type: ignore[arg-type]
        discount=1.0 - columns.terminated[keep].astype(np.float32),  # type: ignore[arg-type]
        next_obs=next_obs[keep],  # type: ignore[arg-type]
    )
    return Dataset(transitions=transitions, episode=episode)  # type: ignore[arg-type]


def time_limits(columns: Columns, source: str, max_episode_steps: int | None = None) -> np.ndarray:
    """[N] bool, true on a row that a time limit ended: the file's word, else a count per episode.

    Raises:
      ValueError: the file has no timeouts and max_episode_steps is None or < 1.
    """
    if columns.truncated is not None:
        return columns.truncated
    if max_episode_steps is None or max_episode_steps < 1:
        raise ValueError(
            f"{source}: no 'timeouts', so episodes cannot be told apart (max_episode_steps={max_episode_steps}); "
            "pass max_episode_steps, 1000 for the Gym tasks, or import the file once: "
            "jaxdiff data import FILE --max_episode_steps=1000 --out=NEW.hdf5"
        )
    row = np.arange(len(columns.obs))
    first = np.concatenate([[True], _all_agents(columns.terminated)[:-1]])
    start = np.maximum.accumulate(np.where(first, row, 0))
    return (row - start) % max_episode_steps == max_episode_steps - 1


def episode_returns(columns: Columns, truncated: np.ndarray) -> np.ndarray:
    """Undiscounted returns [E] of the episodes that end in the file; the mean over agents where each has a reward.

    The row of a time limit counts, although no transition is made of it; rows after the last end do not.
    """
    reward = columns.reward.astype(np.float64)
    reward = reward if reward.ndim == 1 else reward.mean(axis=1)
    episode = _episode_of_row(columns, truncated)
    ended = int((_all_agents(columns.terminated) | truncated).sum())
    return np.bincount(episode, weights=reward, minlength=ended)[:ended]


def content_sha256(columns: Columns) -> str:
    """Hash of every named array's name, type, shape and little-endian bytes, in alphabetical order of names."""
    digest = hashlib.sha256()
    for name, array in sorted(columns.named().items()):
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _episode_of_row(columns: Columns, truncated: np.ndarray) -> np.ndarray:
    """[N] int: how many episodes ended before this row."""
    cut = _all_agents(columns.terminated) | truncated
    return np.concatenate([[0], np.cumsum(cut[:-1])])


def _all_agents(terminated: np.ndarray) -> np.ndarray:
    return terminated if terminated.ndim == 1 else np.all(terminated, axis=1)


def _floats(array: np.ndarray, name: str, source: str) -> np.ndarray:
    """Float32, finite."""
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{source}: {name} has type {array.dtype}; numbers are needed, export it as float32.")
    bad = ~np.isfinite(array) | (np.abs(array) > MAX_FLOAT32)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{source}: {name} has {int(bad.sum())} NaN or infinite values, the first at {first}; "
            "remove those episodes, or repair the file at its origin."
        )
    return np.ascontiguousarray(array, np.float32)


def _flags(array: np.ndarray, name: str, source: str) -> np.ndarray:
    """Booleans, from bool or from numbers that are exactly 0 or 1."""
    if array.dtype.kind not in "fiub" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{source}: {name} must be booleans, or numbers 0 and 1; found {array.dtype} of other values.")
    return np.ascontiguousarray(array, bool)


def _per_row(array: np.ndarray, name: str, source: str, rows: tuple[int, ...]) -> np.ndarray:
    """[N], or [N, A] where rows = (N, A); (N, 1) is squeezed unless that 1 is the agent axis."""
    if array.shape == (rows[0], 1) and array.shape != rows:
        array = array[:, 0]
    allowed = [rows[:1]] + ([rows] if len(rows) > 1 else [])
    if array.shape not in allowed:
        raise ValueError(
            f"{source}: {name} has shape {array.shape}, observations have {rows[0]} rows; "
            f"it must be {' or '.join(map(str, allowed))}. Lengths that differ often mean an interrupted export."
        )
    return array


def _in_box(action: np.ndarray, source: str) -> np.ndarray:
    low, high = float(action.min()), float(action.max())
    limit = max(-low, high)
    if limit > 1 + ACTION_TOLERANCE:
        raise ValueError(
            f"{source}: actions span [{low:.4g}, {high:.4g}]; they must lie in [-1, 1]. Divide by the actuator limit: "
            f"jaxdiff data import FILE --action_limit={limit:.4g} --out=NEW.hdf5"
        )
    return np.clip(action, -1.0, 1.0)
