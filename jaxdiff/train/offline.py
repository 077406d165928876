"""The offline loop of one lane: updates on a dataset in one program, nothing to the host inside it.

Lanes are put side by side by `jaxdiff.sweep`; here there is no lane axis.
"""

from collections.abc import Callable

import jax

from jaxdiff.data import Dataset, Segment, sample_batch, sample_segments, sample_windows
from jaxdiff.train.lanes import Chunk, Lane, average, is_finite, keep
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree


def make_chunk(
    algorithm: Algorithm, batch_size: int, *, constrain: Callable[[PyTree], PyTree] = lambda batch: batch
) -> Chunk:
    """Builds the function that applies num_updates updates to a lane.

    num_updates is traced: one compilation serves the probe, every chunk and the remainder at the end. Update k of a
    run draws its batch and its noise from fold_in(lane.key, k), so 100 + 100 updates equal 200 bit for bit.

    An update whose metrics or parameters are not finite is thrown away and the lane stays where it was: frozen at its
    last good state, alive False. Its neighbours go on.

    Args:
      algorithm: what to train.
      batch_size: B, transitions per update.
      constrain: batch -> the same batch, laid out over devices; see `sweep.split_batch`.

    Raises:
      ValueError: batch_size < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; it must be at least 1.")

    def draw(key: Key, dataset: Dataset) -> PyTree:
        if algorithm.window is None:
            return sample_batch(key, dataset, batch_size)
        if isinstance(algorithm.window, Segment):
            return sample_segments(key, dataset, batch_size, algorithm.window)
        return sample_windows(key, dataset, batch_size, algorithm.window)

    def update(lane: Lane, dataset: Dataset) -> tuple[Lane, Metrics, Array]:
        key_batch, key_update = jax.random.split(jax.random.fold_in(lane.key, lane.state.step))
        batch = constrain(draw(key_batch, dataset))
        state, metrics = algorithm.update(key_update, lane.state, batch)
        accept = lane.alive & is_finite(state, metrics)
        state = keep(accept, state, lane.state)
        return lane.replace(state=state, alive=accept), metrics, accept  # type: ignore[attr-defined]

    def chunk(lane: Lane, num_updates: Array, dataset: Dataset) -> tuple[Lane, Metrics]:
        return average(lambda lane: update(lane, dataset), lane, num_updates)

    return chunk
