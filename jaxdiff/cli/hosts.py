"""Several processes as one: who writes, what all agree on, and arrays that are spread over them, gathered.

Every process runs the same commands in the same order. Functions that say "together" wait for all processes, so all
must call them, and what is decided between two of them must follow from what all know. With one process they cost
nothing and change nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from jaxdiff.types import PyTree

MODES = ("shard", "data")  # of lanes, that spread over the devices of all processes
SHUTDOWN_SECONDS = 60  # that the end of a process waits for the others


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Makes this process one of several, whose devices are `jax.devices()` of them all. Before JAX has started.

    On a CPU each process is one device: with more, collectives wait for one another for ever on JAX 0.10.

    Args:
      coordinator: HOST:PORT of process 0; None, as for the others, where JAX finds it out (Slurm, Cloud TPU).
      num_processes: how many there are.
      process_id: which one this is, from 0.

    Raises:
      ValueError: the three are given in part, or are out of range, or nothing says what they are.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise ValueError(
            f"--coordinator={coordinator} --num_processes={num_processes} --process_id={process_id}: give all three, "
            "or none where JAX finds them out (Slurm, Cloud TPU)."
        )
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"--process_id={process_id} must be 0 to {num_processes - 1}, below --num_processes.")
    # JAX's own notice of a pre-emption would take SIGTERM away from `StopRequest`.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_num_cpu_devices", 1)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, shutdown_timeout_seconds=SHUTDOWN_SECONDS)
    except ValueError as error:  # JAX's, where nothing was given and nothing found
        raise ValueError(
            f"--distributed: {error} Give --coordinator=HOST:PORT --num_processes=N --process_id=I, with the same "
            "HOST:PORT for all, an address of process 0."
        ) from error


def leave() -> None:
    """Waits for the other processes and parts from them; nothing for a process that never joined."""
    if jax.distributed.is_initialized():
        jax.distributed.shutdown()


def are_many() -> bool:
    """Whether there are other processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def check_mode(mode: str, said: str) -> None:
    """Raises ValueError unless lanes in this mode spread over processes; `said` begins the message."""
    if mode not in MODES:
        raise ValueError(
            f"{said}, which runs on the devices of one process; --distributed takes {' and '.join(MODES)}. Work on it "
            "without --distributed, or train anew with --lanes=shard."
        )


def agreed(value: Any) -> Any:
    """What the first process has, together: a number or an array of them, of one shape in all processes."""
    return multihost_utils.broadcast_one_to_all(np.asarray(value)) if are_many() else value


def any_of(is_told: Callable[[], bool]) -> Callable[[], bool]:
    """Whether any process is told so; to be asked together."""

    def ask() -> bool:
        return bool(multihost_utils.process_allgather(np.asarray(is_told())).any())

    return ask if are_many() else is_told


def gather(tree: PyTree) -> PyTree:
    """Arrays that are spread over the processes as numpy arrays, typed keys as local ones, together.

    Leaf by leaf, since each is for a moment whole on every device. Other leaves, and all with one process, stay.
    """
    return jax.tree.map(_gathered, tree)


def _gathered(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return multihost_utils.process_allgather(leaf, tiled=True)
    data = multihost_utils.process_allgather(jax.random.key_data(leaf), tiled=True)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
