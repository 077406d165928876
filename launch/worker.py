"""A worker as an engine's task has it: its command, a process that is told to stop once, and flags that say how many.

Exit codes of a worker: 0 nothing is left for it to do, 75 it was told to stop and has saved, 1 a pack failed, 2 the
request was wrong and trying again is useless; a negative one is the signal that killed it.
"""

import argparse
from collections.abc import Sequence
import os
import shlex
import signal
import subprocess
import time

from . import study

MOST_SHARDS = 64  # that are made unless a number is asked for
# Slurm may send to a whole step the signal that is meant for its task; one that is not expected ends a process. And an
# engine may lose the task alone: without it the worker, which would keep its pack from the next one, saves and leaves.
SHIELD = (
    *("sh", "-c"),
    'trap "" USR2; command -v setpriv >/dev/null && exec setpriv --pdeathsig TERM "$0" "$@"; exec "$0" "$@"',
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of every engine that cuts the list of packs into shards."""
    parser.add_argument("--jobs", type=int, help="shards of the list (default: one for each unfinished pack, up to 64)")
    parser.add_argument("--worker", help='what stands before DIR in a worker\'s command (default: "jaxdiff work")')


def command(prefix: str | None, folder: str, *more: str) -> list[str]:
    """The words of `jaxdiff work DIR more`, where prefix, as a shell would read it, may stand for `jaxdiff work`.

    With None it is the jaxdiff of this Python. A prefix is for containers: "apptainer exec image.sif jaxdiff work".
    """
    return study.worker(folder, *more) if prefix is None else [*shlex.split(prefix), folder, *more]


def absolute(folder: str) -> str:
    """The folder's full path, since workers start elsewhere; a URL as it is."""
    return folder if study.is_remote(folder) else os.path.abspath(os.path.expanduser(folder))


def count_shards(folder: str, jobs: int | None) -> int:
    """How many shards the list is cut into; 0 where every pack is finished.

    Raises:
      ValueError: as `study.unfinished`, or jobs is below 1.
    """
    if jobs is not None:
        check_count("--jobs", jobs)
    left = len(study.unfinished(folder))
    return min(left, MOST_SHARDS) if jobs is None or not left else jobs


def check_count(flag: str, value: int, least: int = 1) -> None:
    """Raises ValueError unless value is at least `least`."""
    if value < least:
        raise ValueError(f"{flag}={value} must be at least {least}.")


def parse_pairs(flag: str, pairs: Sequence[str]) -> dict[str, str]:
    """{KEY: VALUE} of a repeated flag's KEY=VALUE.

    Raises:
      ValueError: one of them has no `=`.
    """
    wrong = [pair for pair in pairs if not pair.partition("=")[1]]
    if wrong:
        raise ValueError(f"{flag}={wrong[0]} must be KEY=VALUE.")
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


class Child:
    """A running worker, shielded from SIGUSR2, and told to stop when this process dies (where there is setpriv).

    Waiting uses waitid, which leaves the process to be reaped later: a signal handler may therefore wait for the child
    while the code that it interrupted does too, where two `Popen.wait` of one thread would lock each other out.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.process = subprocess.Popen([*SHIELD, *words], stdin=subprocess.DEVNULL, start_new_session=True)

    def wait(self) -> int:
        """Waits for its end; the exit code."""
        if self.process.returncode is None:
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        return self.process.wait()

    def tell_to_stop(self) -> None:
        """Sends SIGTERM, at the first of which a worker saves and at the second of which it ends without."""
        self.process.send_signal(signal.SIGTERM)

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended, waiting so long for it."""
        until = time.monotonic() + seconds
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while self.process.returncode is None and os.waitid(os.P_PID, self.process.pid, options) is None:
            if time.monotonic() > until:
                return False
            time.sleep(0.1)
        return True
