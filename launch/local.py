"""Workers on this machine, one for each GPU, or sharing its cores.

  jaxdiff launch local DIR [--workers=N] [--retries=3] [--noreport] [--dry_run]

Every worker walks the whole list and passes over packs that another holds, so none is idle while one is left. A worker
that ends early is started again, after a pause that grows with the failures in a row: ends of any worker between which
no pack was finished and no newer checkpoint written. After more than --retries of them the launcher gives up and says
so. A worker that was killed, or stopped and saved, counts as a tenth of a failure: machines take workers away again and
again, but one that is killed for its memory every time must end, too. One that left because others hold what is left
counts for nothing. Told to stop (SIGTERM, Ctrl-C), the launcher tells the workers, waits until they have saved, and
returns 75.
"""

import argparse
from collections.abc import Callable, Iterator
import contextlib
import functools
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import BinaryIO

from . import study, worker

POLL_SECONDS = 0.2
LONGEST_PAUSE = 60.0
Command = Callable[[str], list[str]]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this engine."""
    parser.add_argument("--workers", type=int, default=None, help="default: one for each GPU, 1 without any")
    parser.add_argument("--worker", help='what stands before DIR in a worker\'s command (default: "jaxdiff work")')
    parser.add_argument("--retries", type=int, default=3, help="failures in a row, without progress; default 3")
    parser.add_argument("--noreport", action="store_true", help="write no report in the end")


def run(folder: str, flags: argparse.Namespace) -> int:
    """Trains the study; 0 where it is finished, 75 where it was stopped, 1 otherwise.

    Raises:
      ValueError: fewer than one worker, or no prepared study.
    """
    places = layout(flags.workers, count_gpus(), sorted(os.sched_getaffinity(0)))
    command = functools.partial(worker.command, flags.worker)
    left = study.unfinished(folder)
    if flags.dry_run:
        for place in places:
            print(place.said() + study.shown(command(folder)))
        return 0
    if left:
        code = Launcher(folder, places, flags.retries, command).run()
        if code:
            return code
    if not flags.noreport:
        return subprocess.run([sys.executable, "-c", study.RUN, "report", folder], check=False).returncode
    return 0


class Place:
    """What of the machine a worker gets."""

    def __init__(self, environment: dict[str, str], cores: list[int]) -> None:
        self.environment, self.cores = environment, cores

    def said(self) -> str:
        """As the front of a command line."""
        pinned = [f"taskset -c {','.join(map(str, self.cores))}"] if self.cores else []
        return " ".join([*(f"{key}={value}" for key, value in self.environment.items()), *pinned, ""])


def count_gpus() -> int:
    """GPUs that nvidia-smi lists, or that CUDA_VISIBLE_DEVICES leaves; 0 without it."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return len([name for name in given.split(",") if name])
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return sum(line.startswith("GPU ") for line in found.splitlines())


def layout(workers: int | None, gpus: int, cores: list[int]) -> list[Place]:
    """Shares the machine out: a GPU for each worker, in turn; without GPUs as many of the cores.

    Raises:
      ValueError: fewer than one worker.
    """
    count = (gpus or 1) if workers is None else workers
    if count < 1:
        raise ValueError(f"--workers={count} must be at least 1.")
    if gpus:
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / -(-count // gpus):.2f}"} if count > gpus else {}
        return [Place({"CUDA_VISIBLE_DEVICES": names[i % gpus], **share}, []) for i in range(count)]
    return [Place({}, cores[i::count] or [cores[i % len(cores)]]) for i in range(count)]


@contextlib.contextmanager
def _on_cores(cores: list[int]) -> Iterator[None]:
    """Processes that are started inside the block inherit these cores; all of ours for none."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def weight(code: int) -> float:
    """How much of a failure the end of a worker is, by its exit code; negative where a signal ended it."""
    return 0.0 if code == 0 else 0.1 if code < 0 or code == study.REQUEUE else 1.0


class Launcher:
    """Keeps workers running until the study is finished, hopeless, or told to stop.

    Args:
      folder: the prepared study.
      places: one for each worker.
      retries: failures in a row without any progress.
      command: folder -> command line of a worker.
      pause: seconds before a first restart; doubles with every failure in a row.
    """

    def __init__(self, folder: str, places: list[Place], retries: int, command: Command, pause: float = 1.0) -> None:
        self.folder, self.places, self.retries, self.command, self.pause = folder, places, retries, command, pause
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * len(places)
        self.start_at = [0.0] * len(places)
        self.failures, self.is_stopping = 0.0, False
        self.progress = self._progress()

    def run(self) -> int:
        """0 finished, 75 stopped, 1 given up."""
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            with contextlib.ExitStack() as logs:
                files: list[BinaryIO] = [logs.enter_context(open(self._log(i), "ab")) for i in range(len(self.places))]
                return self._loop(files)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _loop(self, files: list[BinaryIO]) -> int:
        while True:
            left = study.unfinished(self.folder)
            for i in range(len(self.places)):
                self._look_after(i, files[i], bool(left))
            if not any(self.processes):
                if not left or self.is_stopping:
                    return study.REQUEUE if left else 0
                if self.failures > self.retries:
                    names = " ".join(left[:3])
                    print(f"{len(left)} packs are not finished ({names}); see {self._log(0).parent}", file=sys.stderr)
                    return 1
            time.sleep(POLL_SECONDS)

    def _look_after(self, i: int, log: BinaryIO, is_work_left: bool) -> None:
        process = self.processes[i]
        if process is not None and process.poll() is not None:
            self.processes[i] = None
            self._note_end(i, process.returncode)
        wanted = is_work_left and not self.is_stopping and self.failures <= self.retries
        if self.processes[i] is None and wanted and time.monotonic() >= self.start_at[i]:
            place = self.places[i]
            with _on_cores(place.cores):
                self.processes[i] = subprocess.Popen(
                    self.command(self.folder),
                    env={**os.environ, **place.environment},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on once
                )
            if self.is_stopping:  # it was told so while this one was being started
                self._tell_to_stop(self.processes[i])

    def _note_end(self, i: int, code: int) -> None:
        progress = self._progress()
        self.failures = (0.0 if progress > self.progress else self.failures) + weight(code)
        self.progress = progress
        if code == study.REQUEST_WAS_WRONG:
            self.failures = self.retries + 1.0
        pause = LONGEST_PAUSE / 2 if code == 0 else self.pause * 2.0**self.failures
        self.start_at[i] = time.monotonic() + min(pause, LONGEST_PAUSE)

    def _progress(self) -> tuple[int, int]:
        """(finished packs, sum of the newest checkpoints' steps): grows whenever anything is gained."""
        if study.is_remote(self.folder):
            return -len(study.unfinished(self.folder)), 0
        packs = list((Path(self.folder) / "packs").glob("*"))
        steps = [[int(s.name) for s in p.glob("checkpoints/*") if (s / "card.json").is_file()] for p in packs]
        return sum((pack / "done.json").is_file() for pack in packs), sum(max(s, default=0) for s in steps)

    def _log(self, i: int) -> Path:
        folder = Path("logs") if study.is_remote(self.folder) else Path(self.folder) / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"worker-{i}.log"

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.is_stopping = True
        for process in self.processes:
            self._tell_to_stop(process)

    def _tell_to_stop(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
