"""Actions that are numbers of a choice become scores, and masks of what is allowed become part of the observation."""

import numpy as np


def scores(action: np.ndarray, source: str, *, allowed: np.ndarray | None, num_actions: int | None) -> np.ndarray:
    """One-hot of the choices in -1 and 1: the task takes the largest score among the allowed ones.

    Args:
      action: [N, A] or [N, A, 1], whole numbers from 0.
      source: how to name the file in an error.
      allowed: [N, A, n], 1 for what may be chosen; it tells n. None: everything.
      num_actions: n, where no mask tells it; None: the largest choice in the data and 1.

    Returns:
      [N, A, n] float32.

    Raises:
      ValueError: another shape, a number that is no choice, a choice that the mask forbids.
    """
    action = action[..., 0] if action.ndim == 3 and action.shape[-1] == 1 else action
    if action.ndim != 2:
        raise ValueError(f"{source}: discrete actions have shape {action.shape}; one number for each row and agent.")
    choice = action.astype(np.int64)
    count = int(choice.max()) + 1 if num_actions is None else num_actions
    count = count if allowed is None else allowed.shape[-1]
    wrong = (choice != action) | (choice < 0) | (choice >= count)
    if wrong.any():
        row, agent = (int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{source}: action {action[row, agent]} of agent {agent}, row {row}, is none of 0 .. {count - 1}; give the "
            "right --num_actions, or files of one task."
        )
    if allowed is not None:
        forbidden = ~np.take_along_axis(allowed > 0, choice[..., None], axis=-1)[..., 0]
        if forbidden.any():
            row, agent = (int(i) for i in np.argwhere(forbidden)[0])
            raise ValueError(
                f"{source}: {int(forbidden.sum())} actions are not among the allowed ones, the first at agent {agent}, "
                f"row {row}; actions and masks are of different rows."
            )
    return np.where(choice[..., None] == np.arange(count), np.float32(1.0), np.float32(-1.0))


def with_mask(obs: np.ndarray, allowed: np.ndarray | None) -> np.ndarray:
    """obs [N, A, O] with the mask [N, A, n] as its last n numbers, 1 or 0; as it is where there is no mask."""
    if allowed is None:
        return obs
    return np.concatenate([obs, (allowed > 0).astype(np.float32)], axis=-1)
