"""A dataset is one pytree of arrays on the device; a batch is an index into it."""

import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.types import Array, Key, Transition


@struct.dataclass
class Dataset:
    """Transitions in the order they were lived, so that a window is a slice.

    With an agent axis the fields of `transitions` are obs [N, A, O], action [N, A, U], and reward and discount both
    [N] (one reward for the team) or both [N, A].
    """

    transitions: Transition  # [N, ...] float32
    episode: Array  # [N] int32, 0 .. number of episodes - 1, never decreasing
    draws: Array | None = None  # [M] int32, rows with multiplicity to draw from; None: each row once

    @property
    def num_transitions(self) -> int:
        return self.episode.shape[0]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a run records about its data. Every field is plain, so `dataclasses.asdict` goes straight into JSON."""

    name: str
    path: str | None
    env: str | None
    num_transitions: int
    num_episodes: int
    obs_dim: int
    action_dim: int
    sha256: str  # of the content, not of the file: recompressing a file keeps it
    return_mean: float | None  # undiscounted, over episodes that ended in the file; None where none did
    return_std: float | None
    reference_scores: tuple[float, float] | None = None
    generator: str | None = None
    num_agents: int | None = None
    num_returns: int = 0  # of how many episodes return_mean and return_std are
    parts: tuple["DatasetInfo", ...] = ()  # of data that were joined, what each part is


def draw_rows(key: Key, dataset: Dataset, count: int) -> Array:
    """Rows [count] int32, uniform over `dataset.draws`, or over all rows where it is None; with replacement."""
    if dataset.draws is None:
        return jax.random.randint(key, (count,), 0, dataset.num_transitions)
    draws = jnp.asarray(dataset.draws)
    return draws[jax.random.randint(key, (count,), 0, draws.shape[0])]


def sample_batch(key: Key, dataset: Dataset, batch_size: int) -> Transition:
    """Draws transitions uniformly over the dataset's `draws`, with replacement.

    Args:
      key: consumed.
      dataset: N transitions, shared by every lane of a vmap over keys.
      batch_size: B, static, at least 1.

    Returns:
      Transition with fields [B, ...].

    Raises:
      ValueError: batch_size < 1, or no transition to draw from.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1; 256 is usual.")
    if dataset.num_transitions < 1:
        raise ValueError("the dataset holds 0 transitions, nothing can be drawn; load a file with at least 2 rows.")
    index = draw_rows(key, dataset, batch_size)
    return jax.tree.map(lambda x: jnp.asarray(x).at[index].get(mode="promise_in_bounds"), dataset.transitions)


def to_device(dataset: Dataset, device: Any = None) -> Dataset:
    """Copies a host dataset to `device`: a jax.Device, a Sharding (replicated for a sweep) or None for the default."""
    return jax.device_put(dataset, device)
