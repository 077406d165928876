"""`jaxdiff launch slurm DIR`: a job array, through submitit.

The list of packs is cut into --jobs=N shards, one array task each. The command returns when the array is
submitted; `jaxdiff status DIR` says how it goes, and logs are in DIR/logs/slurm.

Pre-emption and time limits: 120 seconds before the end Slurm sends SIGUSR2 to the task, which tells its worker to save,
waits for it, and has Slurm requeue the job under the same number. A worker that was told to stop by somebody else (exit
code 75) leads to the same, up to 20 times in a row. A worker that fails is started again within the job, --retries
times; then the task fails and Slurm shows it. Submitting again is always safe.

  jaxdiff launch slurm DIR --partition=gpu --gpus=1 --cpus=8 --mem_gb=32 --time_min=240 --parallel=16

Needs: pip install "jaxdiff[slurm]"
"""

import argparse
import os
from pathlib import Path
import shutil
import signal
import subprocess
from typing import Any

from . import worker
from .study import REQUEST_WAS_WRONG, REQUEUE, is_remote, shard, shown, unfinished

SECONDS_TO_SAVE = 120
MOST_STOPS = 20
MOST_TIMEOUTS = 1000


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of this engine."""
    worker.add_flags(parser)
    parser.add_argument("--parallel", type=int, default=64, help="most jobs that run at once (default 64)")
    parser.add_argument("--partition", help="of the cluster")
    parser.add_argument("--account", help="who pays")
    parser.add_argument("--time_min", type=int, default=240, help="minutes until a job is requeued (default 240)")
    parser.add_argument("--gpus", type=int, default=0, help="per job")
    parser.add_argument("--cpus", type=int, default=1, help="per job")
    parser.add_argument("--mem_gb", type=float, help="memory per job")
    parser.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line before; repeatable")
    parser.add_argument("--retries", type=int, default=2, help="of a failing worker within a job (default 2)")
    parser.add_argument("--logs", help="folder for logs and job files (default: DIR/logs/slurm)")
    parser.add_argument("--executor", choices=("slurm", "local"), default="slurm", help="local: processes, no Slurm")
    parser.add_argument("--wait", action="store_true", help="until all jobs have ended; exits 1 if packs are left")


def run(folder: str, arguments: argparse.Namespace) -> int:
    """Submits the array; 0, or with --wait 1 where packs are left.

    Raises:
      ValueError: a flag is out of range, there is no prepared study, or no Slurm.
      ImportError: submitit is missing.
    """
    folder = worker.absolute(folder)
    count = worker.count_shards(folder, arguments.jobs)
    worker.check_count("--retries", arguments.retries, 0)
    if not count:
        print("every pack is finished; nothing to submit.")
        return 0
    commands = [worker.command(arguments.worker, folder, shard(index, count)) for index in range(count)]
    if arguments.dry_run:
        print("\n".join(f"{key}: {value}" for key, value in parameters(arguments).items()))
        print("\n".join(["tasks:", *(f"  {shown(words)}" for words in commands)]))
        return 0
    executor = make_executor(arguments, logs_of(arguments, folder))
    try:
        with executor.batch():
            jobs = [executor.submit(WorkerTask(words, arguments.retries)) for words in commands]
    except subprocess.CalledProcessError:
        raise ValueError("sbatch refused the jobs, and said why above; change the flags, or see --dry_run.") from None
    print(f"submitted {len(jobs)} jobs: {', '.join(job.job_id for job in jobs)}")
    if not arguments.wait:
        return 0
    failed = [job.job_id for job in jobs if job.exception() is not None]
    if failed:
        print(f"failed: {', '.join(failed)}; see {logs_of(arguments, folder)}")
    return int(bool(failed or unfinished(folder)))


def logs_of(arguments: argparse.Namespace, folder: str) -> Path:
    """Where submitit keeps its files: a folder that login and compute nodes see.

    Raises:
      ValueError: the study is in a bucket, which is no such folder.
    """
    if arguments.logs is None and is_remote(folder):
        raise ValueError(f"{folder} is a bucket: name a folder that all nodes see with --logs=FOLDER.")
    return Path(worker.absolute(arguments.logs)) if arguments.logs is not None else Path(folder) / "logs" / "slurm"


def parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """What submitit is asked for, under its own names."""
    common = {
        "name": "jaxdiff",
        "timeout_min": arguments.time_min,
        "gpus_per_node": arguments.gpus or None,
        "cpus_per_task": arguments.cpus,
        "mem_gb": arguments.mem_gb,
        "slurm_partition": arguments.partition,
        "slurm_account": arguments.account,
        "slurm_array_parallelism": arguments.parallel,
        "slurm_signal_delay_s": SECONDS_TO_SAVE,
        "slurm_additional_parameters": {"requeue": True},
        f"{arguments.executor}_setup": arguments.setup or None,
    }
    return {key: value for key, value in common.items() if value is not None}


def make_executor(arguments: argparse.Namespace, logs: Path) -> Any:
    """submitit's executor.

    Raises:
      ImportError: submitit is missing.
      ValueError: there is no Slurm here.
    """
    try:
        import submitit
    except ImportError as error:
        raise ImportError('launch slurm needs submitit: pip install "jaxdiff[slurm]"') from error
    if arguments.executor == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise ValueError("no sbatch and srun here; run on a login node of the cluster, or with --executor=local.")
    timeouts = {f"{arguments.executor}_max_num_timeout": MOST_TIMEOUTS}
    executor = submitit.AutoExecutor(folder=logs, cluster=arguments.executor, **timeouts)
    executor.update_parameters(**parameters(arguments))
    return executor


class WorkerTask:
    """What an array task runs; pickled, so it holds plain words only until it is called."""

    def __init__(self, words: list[str], retries: int, stops: int = 0) -> None:
        self.words, self.retries, self.stops = words, retries, stops
        self.child: worker.Child | None = None
        self.is_told = False  # of SIGTERM, which Slurm sends to the worker too

    def __call__(self) -> str:
        """Runs the worker until it has nothing left to do.

        Raises:
          RuntimeError: it failed more often than it may, or the request was wrong.
        """
        signal.signal(signal.SIGTERM, self._note)
        code = 1
        for _ in range(self.retries + 1):
            self.child = worker.Child(self.words)
            code = self.child.wait()
            if code == REQUEUE:
                self._requeue()
            if code in (0, REQUEST_WAS_WRONG):
                break
        if code != 0:
            raise RuntimeError(f"the worker ended with code {code}: {shown(self.words)}")
        return "finished"

    def checkpoint(self) -> Any:
        """submitit asks before the job's end what to run when it is back: the worker saves first.

        Returns:
          The DelayedSubmission of this task, anew.
        """
        from submitit.helpers import DelayedSubmission

        # A second SIGTERM would end a worker that is saving, so one that was told already is given some time.
        if self.child is not None and not (self.is_told and self.child.ends_within(SECONDS_TO_SAVE / 2)):
            self.child.tell_to_stop()
        if self.child is not None:
            self.child.wait()
        return DelayedSubmission(WorkerTask(self.words, self.retries, self.stops))

    def _note(self, number: int, frame: object) -> None:
        del number, frame
        self.is_told = True

    def _requeue(self) -> None:
        """Ends the job and has it come back, by the signal with which Slurm would ask for it.

        Raises:
          RuntimeError: it was stopped too often, or this process is not submitit's.
        """
        number = signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]
        self.stops += 1
        if self.stops > MOST_STOPS or not callable(signal.getsignal(number)):
            raise RuntimeError(f"the worker was told to stop {self.stops} times: {shown(self.words)}")
        signal.raise_signal(number)
