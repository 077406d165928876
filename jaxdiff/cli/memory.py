"""Bytes of a member's lane, of a pack's programs, and how many there are for them."""

from collections.abc import Callable
import math
from pathlib import Path
import re

import jax
import numpy as np

from jaxdiff import sweep
from jaxdiff.cli.programs import Programs, fresh_lanes
from jaxdiff.cli.task import Task
from jaxdiff.types import PyTree

ONE_DEVICE = ("vmap", "map")  # lane modes that use the first device alone
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def num_bytes(tree: PyTree) -> int:
    """Bytes of the arrays, or shapes of arrays, in a pytree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def member_bytes(task: Task, member: sweep.Member) -> int:
    """Bytes of one member's lane: parameters, targets, optimiser, hyperparameters, key."""
    return num_bytes(jax.eval_shape(lambda: fresh_lanes(task, [member], "vmap")))


def workspace(programs: Programs) -> int | None:
    """Bytes that one device needs for the update loop beyond what goes in; None where the backend does not say."""
    lower = getattr(programs.chunk, "lower", None)  # pmap's wrapper has none
    if lower is None:
        return None
    analysis = lower(programs.lanes, np.int32(0), programs.dataset).compile().memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)


def pack_bytes(programs: Programs) -> int:
    """Bytes of a pack's state, workspace and data in the memory of one device.

    On a CPU, whose devices are one memory, it is the sum over the devices that the mode uses.
    """
    count = jax.device_count()
    state = num_bytes(programs.lanes)
    if programs.mode in ("shard", "pmap"):
        state = -(-state // count)
    held = state + (workspace(programs) or 0) + num_bytes(programs.dataset)
    is_shared = jax.devices()[0].platform == "cpu" and programs.mode not in ONE_DEVICE
    return held * count if is_shared else held


def device_bytes(num_processes: int = 1) -> int | None:
    """Bytes that a process may take on a device; None where nobody says.

    Args:
      num_processes: that share this machine; on a CPU each gets its part of the RAM that is available now.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        ram = available_ram(_text)
        return None if ram is None else ram // num_processes
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return None if limit is None else int(limit)


def available_ram(read: Callable[[Path], str]) -> int | None:
    """Bytes of RAM that are available on Linux, no more than the container's limit leaves; None elsewhere.

    Args:
      read: path -> text, "" where there is no such file.
    """
    found = re.search(r"^MemAvailable:\s*(\d+) kB", read(MEMINFO), re.MULTILINE)
    if found is None:
        return None
    available = 1024 * int(found[1])
    limit, used = (read(CGROUP / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdecimal() and used.isdecimal():  # "max" is no limit
        available = min(available, max(int(limit) - int(used), 0))
    return available


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
