"""Job arrays, through submitit's executor of local processes: stopped and failing workers come back."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import pytest

from launch import slurm
from launch.main import main
from launch.worker import Child

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Jobs of submitit's import `launch`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # Imported here, submitit would set up logging anew and close the streams of everybody else's handlers.
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")


LAUNCH = "import sys; from launch.main import main; sys.exit(main(sys.argv[1:]))"


def submit(study, worker_flag, *flags):
    """(exit code, output) of a process of its own."""
    pytest.importorskip("submitit")
    line = ["slurm", str(study.folder), "--executor=local", worker_flag, "--time_min=30", "--wait", *flags]
    environment = {key: value for key, value in os.environ.items() if key != "SUBMITIT_LOG_LEVEL"}
    command = [sys.executable, "-c", LAUNCH, *line]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout


def test_an_array_finishes_the_study_through_stops_and_a_failure(make_study, worker_flag, capsys):
    study = make_study(4)
    study.finish("p3")
    study.will(p0="stop", p1="fail")
    code, told = submit(study, worker_flag, "--jobs=2")
    assert code == 0
    assert study.finished == set(study.names)
    assert study.visits.count("p0") == 2
    assert study.visits.count("p1") == 2
    assert "submitted 2 jobs" in told
    logs = "".join(path.read_text() for path in (study.folder / "logs" / "slurm").glob("*log.err"))
    assert "preempted" in logs or "timed-out" in logs
    assert main(["slurm", str(study.folder), "--executor=local"]) == 0
    assert "nothing to submit" in capsys.readouterr().out


def test_a_hopeless_worker_fails_the_launch(make_study, worker_flag):
    study = make_study(2)
    study.will(p0="fail " * 9, p1="wrong wrong")
    code, told = submit(study, worker_flag, "--jobs=2", "--retries=1")
    assert code == 1
    assert study.visits.count("p0") == 2
    assert study.visits.count("p1") == 1, "a wrong request is not tried again"
    assert "failed: " in told


def test_preemption_saves_once_and_gives_the_task_back(make_study, worker):
    """Slurm's SIGTERM reaches the worker as well as the task; the signal before the end must not tell it twice."""
    pytest.importorskip("submitit")
    study = make_study(1)
    study.will(p0="wait")
    task = slurm.WorkerTask([*worker, str(study.folder)], retries=0, stops=4)
    task.child = Child(task.words)
    while not study.visits:
        time.sleep(0.02)
    task.child.process.send_signal(signal.SIGUSR2)
    task.child.process.send_signal(signal.SIGTERM)
    task.is_told = True
    again = task.checkpoint()
    assert task.child.wait() == 75
    assert again.function.words == task.words
    assert again.function.stops == 4
    assert again.function() == "finished"
    assert study.finished == {"p0"}


def test_a_task_passes_the_preemption_signal_on(make_study, worker, tmp_path):
    """As under Slurm: the handler runs while the task waits for its worker."""
    pytest.importorskip("submitit")
    study = make_study(1)
    study.will(p0="wait")
    code = f"""
import signal, sys
from launch.slurm import WorkerTask
task = WorkerTask({[*worker, str(study.folder)]!r}, retries=0)
def preempt(number, frame):
    task.checkpoint()
    sys.exit(task.child.wait())
signal.signal(signal.SIGUSR2, preempt)
task()
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not study.visits:
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(timeout=20) == 75


def test_stops_without_end_are_an_error(make_study, worker):
    study = make_study(1)
    study.will(p0="stop")
    task = slurm.WorkerTask([*worker, str(study.folder)], retries=0, stops=slurm.MOST_STOPS)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(RuntimeError, match="told to stop 21 times"):
            task()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_dry_run_shows_parameters_and_commands(make_study, capsys):
    study = make_study(3)
    flags = ["--partition=gpu", "--gpus=1", "--parallel=2", "--setup=module load cuda", "--account=me", "--dry_run"]
    assert main(["slurm", str(study.folder), *flags]) == 0
    text = capsys.readouterr().out
    for line in ("slurm_partition: gpu", "gpus_per_node: 1", "slurm_array_parallelism: 2", "slurm_account: me"):
        assert line in text
    assert f"jaxdiff work {study.folder} --shard=2/3" in text
    assert not (study.folder / "logs").exists()


def test_without_submitit_or_slurm_the_error_says_what_to_do(make_study, monkeypatch):
    folder = str(make_study(1).folder)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r'pip install "jaxdiff\[slurm\]"'):
        main(["slurm", folder])
    monkeypatch.setitem(sys.modules, "submitit", slurm)  # any module will do
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="no sbatch and srun here"):
        main(["slurm", folder])
