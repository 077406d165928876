"""`jaxdiff launch ray DIR`: a task per shard on a Ray cluster, or on this machine.

The list of packs is cut into --jobs=N shards, a task each. A task whose worker fails, is stopped (exit code 75) or is
lost with its node runs again, where Ray finds room, --retries times, from the last checkpoints. The command waits for
all tasks and exits 0 when every pack is finished; give it again to go on.

  jaxdiff launch ray DIR --address=auto --gpus=1 --cpus=8

Needs: pip install "jaxdiff[ray]", on all nodes, and DIR on a file system that all of them see.
"""

import argparse
from typing import Any

from . import worker
from .study import REQUEST_WAS_WRONG, shard, shown, unfinished


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this engine."""
    parser.add_argument("--address", help='of the cluster, "auto" for the one this machine is in (default: local)')
    worker.add_flags(parser)
    parser.add_argument("--gpus", type=float, default=0, help="per task; below 1, tasks share one")
    parser.add_argument("--cpus", type=float, default=1, help="per task")
    parser.add_argument("--retries", type=int, default=10, help="of a task (default 10)")


def run(folder: str, arguments: argparse.Namespace) -> int:
    """Runs all shards and waits for them; 0 where the study is finished, 1 otherwise.

    Raises:
      ValueError: a flag is out of range, or there is no prepared study.
      ImportError: ray is missing.
    """
    folder = worker.absolute(folder)
    count = worker.count_shards(folder, arguments.jobs)
    worker.check_count("--retries", arguments.retries, 0)
    options: dict[str, Any] = {
        "num_cpus": arguments.cpus,
        "num_gpus": arguments.gpus,
        "max_retries": arguments.retries,
        "retry_exceptions": True,
    }
    if not count:
        print("every pack is finished; nothing to run.")
        return 0
    if arguments.dry_run:
        print(f"ray.init(address={arguments.address or 'local'!r})\n{count} tasks with {options}:")
        for index in range(count):
            print(f"  {shown(worker.command(arguments.worker, folder, shard(index, count)))}")
        return 0
    ray = connect(arguments.address)
    task = ray.remote(**options)(run_shard)
    try:
        waiting = {task.remote(arguments.worker, folder, index, count): index for index in range(count)}
        failed = gather(ray, waiting)
    finally:
        ray.shutdown()
    return int(bool(failed or unfinished(folder)))


def connect(address: str | None) -> Any:
    """The ray module, connected.

    Raises:
      ImportError: ray is missing.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('launch ray needs ray: pip install "jaxdiff[ray]"') from error
    if not ray.is_initialized():
        ray.init(address=address or "local")
    return ray


def run_shard(prefix: str | None, folder: str, index: int, count: int) -> None:
    """The body of a task: one worker, on the node and with the Python of the task.

    Raises:
      RuntimeError: it has not finished what it was to do, so that Ray runs the task again.
    """
    words = worker.command(prefix, folder, shard(index, count))
    code = worker.Child(words).wait()
    if code == REQUEST_WAS_WRONG:
        print(f"wrong request, not tried again: {shown(words)}")
    elif code != 0:
        raise RuntimeError(f"the worker ended with code {code}: {shown(words)}")


def gather(ray: Any, waiting: dict[Any, int]) -> list[int]:
    """Waits for all tasks; the shards that failed for good."""
    left, failed = list(waiting), []
    while left:
        [reference], left = ray.wait(left, num_returns=1)
        try:
            ray.get(reference)
            print(f"shard {waiting[reference]} has ended, {len(left)} to go", flush=True)
        except ray.exceptions.RayError as error:
            failed.append(waiting[reference])
            print(f"shard {waiting[reference]} failed: {error}", flush=True)
    return failed
