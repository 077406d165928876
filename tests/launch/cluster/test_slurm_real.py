"""Job arrays on a real Slurm of one node: `pytest -m cluster`, as root; see start_slurm.sh."""

from collections.abc import Callable, Iterator
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[3]
START = Path(__file__).with_name("start_slurm.sh")
LAUNCH = "import sys; from launch.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a login node."""
    folder = Path(tempfile.mkdtemp(prefix="jaxdiff-slurm-"))  # sockets need a short path
    try:
        said = subprocess.run([START, folder], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
        name, _, value = said.stdout.strip().removeprefix("export ").partition("=")
        yield {**os.environ, name: value, "PYTHONPATH": str(ROOT)}
    finally:
        subprocess.run([START, folder, "stop"], check=False)
        time.sleep(1)
        shutil.rmtree(folder, ignore_errors=True)


def launch(slurm: dict[str, str], study, worker_flag: str, *flags: str) -> list[str]:
    """Submits; the ids of the jobs."""
    argv = ["slurm", str(study.folder), worker_flag, "--time_min=30", *flags]
    done = subprocess.run([sys.executable, "-c", LAUNCH, *argv], capture_output=True, text=True, env=slurm, check=False)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("submitted")]
    return line.partition(": ")[2].split(", ")


def until(is_so: Callable[[], bool], slurm: dict[str, str], jobs: list[str], seconds: float = 60) -> None:
    """Waits; jobs that Slurm holds back for two minutes after a requeue are let go at once."""
    end = time.monotonic() + seconds
    while not is_so():
        queue = subprocess.run(["squeue"], capture_output=True, text=True, env=slurm, check=False).stdout
        assert time.monotonic() < end, queue
        for job in jobs:
            command = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
            subprocess.run(command, capture_output=True, env=slurm, check=False)
        time.sleep(0.5)


def logs_of(study) -> str:
    return "".join(path.read_text() for path in sorted((study.folder / "logs" / "slurm").glob("*_log.*")))


def test_an_array_finishes_the_study_and_a_stopped_worker_comes_back(slurm, make_study, worker_flag):
    study = make_study(3)
    study.will(p0="stop", p1="fail")
    jobs = launch(slurm, study, worker_flag)
    assert len(jobs) == 3
    assert {job.partition("_")[0] for job in jobs} == {jobs[0].partition("_")[0]}, "one array"
    until(lambda: study.finished == set(study.names), slurm, jobs)
    assert study.visits.count("p0") == 2
    assert "Requeued job" in logs_of(study)


def test_the_signal_before_the_end_saves_and_requeues(slurm, make_study, worker_flag):
    """Slurm sends it to every process of the step, the worker among them, which must not die of it."""
    study = make_study(1)
    study.will(p0="wait")
    jobs = launch(slurm, study, worker_flag)
    until(lambda: study.visits == ["p0"], slurm, [])
    subprocess.run(["scancel", "--signal=USR2", jobs[0]], check=True, env=slurm)
    until(lambda: study.finished == {"p0"}, slurm, jobs)
    assert study.visits == ["p0", "p0"]
    assert study.saved == ["p0"]
    assert "Calling checkpoint method" in logs_of(study)
    assert "ended with code" not in logs_of(study)


def test_a_requeue_by_the_administrator_is_survived(slurm, make_study, worker_flag):
    """Pre-emption without a warning: SIGTERM to all, SIGKILL soon after, and Slurm starts the job again."""
    study = make_study(1)
    study.will(p0="wait")
    jobs = launch(slurm, study, worker_flag)
    until(lambda: study.visits == ["p0"], slurm, [])
    subprocess.run(["scontrol", "requeue", jobs[0]], check=True, env=slurm)
    until(lambda: study.finished == {"p0"}, slurm, jobs, seconds=90)


def test_a_hopeless_worker_is_a_failed_job(slurm, make_study, worker_flag):
    study = make_study(1)
    study.will(p0="fail " * 5)
    jobs = launch(slurm, study, worker_flag, "--retries=1")

    def state() -> str:
        shown = subprocess.run(["scontrol", "show", "job", jobs[0]], capture_output=True, text=True, env=slurm).stdout
        return shown.partition("JobState=")[2].split()[0]

    until(lambda: state() == "FAILED", slurm, [])
    assert study.visits == ["p0", "p0"]
