"""Workers on this machine: who gets what of it, who is started again, and being told to stop."""

import json
import os
from pathlib import Path
import shlex
import signal
import subprocess
import sys
import time

import pytest

from launch import local
from launch.local import Launcher, Place, count_gpus, layout
from launch.main import main

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = "import sys; from launch.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(local, "POLL_SECONDS", 0.02)


def work(study, worker, *, workers=1, retries=3):
    places = [Place({}, [])] * workers
    return Launcher(str(study.folder), places, retries, lambda folder: [*worker, folder], pause=0.01).run()


def test_workers_that_fail_stop_or_are_killed_come_back(make_study, worker):
    study = make_study(5)
    study.will(p0="fail", p1="kill", p3="stop fail")
    assert work(study, worker, workers=2) == 0
    assert study.finished == set(study.names)
    counts = {name: study.visits.count(name) for name in study.names}
    assert counts == {"p0": 2, "p1": 2, "p2": 1, "p3": 3, "p4": 1}


def test_failures_in_a_row_are_given_up_and_said(make_study, worker, capsys):
    study = make_study(2)
    study.will(p1="fail " * 9)
    assert work(study, worker, retries=2) == 1
    assert study.visits == ["p0", "p1", "p1", "p1"], "three are more than two"
    assert "1 packs are not finished (p1)" in capsys.readouterr().err


def test_a_newer_checkpoint_is_progress(make_study, worker):
    study = make_study(1)
    study.will(p0="save save save save")
    assert work(study, worker, retries=1) == 0


def test_kills_count_a_tenth_but_do_count(make_study, worker):
    study = make_study(1)
    study.will(p0="kill " * 30)
    assert work(study, worker, retries=1) == 1
    assert len(study.visits) == 11


def test_a_wrong_request_is_not_repeated(make_study, worker):
    study = make_study(1)
    study.will(p0="wrong wrong")
    assert work(study, worker) == 1
    assert study.visits == ["p0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_tells_the_workers_once_and_waits(make_study, worker_flag, number):
    study = make_study(2)
    study.will(p0="wait", p1="wait")
    argv = ["local", str(study.folder), "--workers=2", worker_flag]
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, *argv], env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    while len(study.visits) < 2:
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as Ctrl-C in a terminal does
    assert process.wait(timeout=20) == 75
    assert sorted(study.saved) == study.names, "the launcher has waited for them"
    assert study.finished == set()
    assert main(["local", str(study.folder), worker_flag, "--noreport"]) == 0
    assert study.finished == set(study.names)
    assert (study.folder / "logs" / "worker-1.log").is_file()


def test_workers_share_the_cores_evenly_and_run_on_them(make_study, worker):
    cores = sorted(os.sched_getaffinity(0))
    places = layout(2, 0, cores)
    assert sorted(core for place in places for core in place.cores) == cores or len(cores) == 1
    assert [place.cores for place in layout(3, 0, [4, 5, 6, 7, 8, 9])] == [[4, 7], [5, 8], [6, 9]]
    assert [place.cores for place in layout(3, 0, [4, 5])] == [[4], [5], [4]], "more workers than cores"
    study = make_study(1)
    Launcher(str(study.folder), places[1:], 0, lambda folder: [*worker, folder]).run()
    [visit] = (study.folder / "visits.txt").read_text().splitlines()
    assert json.loads(visit.partition(" ")[2].rpartition(" ")[0]) == places[1].cores


def test_workers_get_a_gpu_each_or_a_share_of_its_memory(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H200 (UUID: GPU-a)'\necho 'GPU 1: H200 (UUID: GPU-b)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert count_gpus() == 2
    assert [place.environment for place in layout(None, 2, [0])] == [{"CUDA_VISIBLE_DEVICES": n} for n in "01"]
    crowd = [place.environment for place in layout(3, 2, [0])]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in crowd] == ["0", "1", "0"]
    assert all(2 * float(place["XLA_PYTHON_CLIENT_MEM_FRACTION"]) <= 0.9 for place in crowd)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-b")
    assert count_gpus() == 1
    assert layout(None, 1, [0])[0].environment == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert count_gpus() == 0
    tool.unlink()
    with pytest.raises(ValueError, match="--workers=0 must be at least 1"):
        layout(0, 0, [0])


def test_a_dry_run_shows_the_commands_and_starts_nothing(make_study, worker_flag, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    study = make_study(3)
    assert main(["local", str(study.folder), "--workers=1", "--dry_run"]) == 0
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    assert shlex.split(capsys.readouterr().out) == ["taskset", "-c", cores, "jaxdiff", "work", str(study.folder)]
    assert study.visits == []
    assert not (study.folder / "logs").exists()


def test_a_damaged_list_is_named(make_study):
    study = make_study(1)
    (study.folder / "packs.json").write_text("{}")
    with pytest.raises(ValueError, match=r"packs\.json is damaged"):
        main(["local", str(study.folder), "--dry_run"])
