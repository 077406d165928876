"""Who works on a folder: a lock that the system takes back when its process ends, however it ends."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import os
from pathlib import Path
import time

from absl import logging

TRIES, PAUSE = 3, 0.02  # seconds between tries
UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}


@contextlib.contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[bool]:
    """Holds the file's lock (flock) inside the block, if nobody else does.

    The lock spares work and is not needed for correctness: a pack's files are replaced whole, and members compute the
    same bits wherever they run. So a file system without locks is worked on as if the lock had been got.

    Args:
      path: of the lock file; made if missing, never removed, since a removed one could be held twice.

    Yields:
      Whether the block may go on: False where another process holds the lock.

    Raises:
      OSError: the file cannot be made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        yield _try(file.fileno(), path)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a live process on a machine that shares these locks holds the file's lock."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in UNSUPPORTED
    return False


def _try(handle: int, path: Path) -> bool:
    for _ in range(TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in UNSUPPORTED:
                logging.warning("%s: this file system has no locks, so two workers may do the same pack.", path)
                return True
            time.sleep(PAUSE)  # somebody who only looks, as `is_held` does, is gone by then
        else:
            return True
    return False
