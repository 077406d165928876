"""Workers as tasks of engines have them: their commands, their signals, and how a list is cut."""

import fcntl
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import time

import pytest

from launch.main import main
from launch.worker import Child, command, count_shards

ROOT = Path(__file__).resolve().parents[2]


def test_command_is_this_pythons_jaxdiff_or_what_the_prefix_says():
    assert command("apptainer exec 'my image.sif' jaxdiff work", "/runs/s", "--shard=0/2") == [
        *("apptainer", "exec", "my image.sif", "jaxdiff", "work", "/runs/s", "--shard=0/2")
    ]
    words = command(None, "/runs/s")
    assert words[0] == sys.executable
    assert words[-2:] == ["work", "/runs/s"]


def test_default_command_reaches_jaxdiff_work(tmp_path):
    """A folder that is no study is a wrong request, said by `jaxdiff work` itself."""
    done = subprocess.run(
        command(None, str(tmp_path)), capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 2
    assert "jaxdiff: error: " in done.stderr
    assert str(tmp_path) in done.stderr


def test_a_list_is_cut_into_as_many_shards_as_it_has_unfinished_packs(make_study):
    study = make_study(70)
    folder = str(study.folder)
    assert count_shards(folder, None) == 64
    assert count_shards(folder, 3) == 3
    study.finish(*study.names[:68])
    assert count_shards(folder, None) == 2
    study.finish(*study.names[68:])
    assert count_shards(folder, None) == count_shards(folder, 3) == 0
    with pytest.raises(ValueError, match="--jobs=0 must be at least 1"):
        count_shards(folder, 0)


def test_waiting_twice_and_being_told_late_do_no_harm(make_study, worker):
    study = make_study(1)
    child = Child([*worker, str(study.folder)])
    assert child.wait() == child.wait() == 0
    child.tell_to_stop()
    assert child.ends_within(0)


def test_one_that_does_not_end_in_time_is_told_from_one_that_does(make_study, worker):
    study = make_study(1)
    study.will(p0="wait")
    child = Child([*worker, str(study.folder)])
    while not study.visits:
        time.sleep(0.02)
    assert not child.ends_within(0.2)
    child.tell_to_stop()
    assert child.ends_within(20)
    assert child.wait() == 75


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_worker_whose_task_is_killed_gives_its_pack_back(make_study, worker):
    study = make_study(1)
    study.will(p0="wait")
    code = f"from launch.worker import Child; Child({[*worker, str(study.folder)]!r}).wait()"
    task = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not study.visits:
        time.sleep(0.02)
    task.send_signal(signal.SIGKILL)
    task.wait()
    end = time.monotonic() + 20
    with open(study.folder / "packs" / "p0" / "lock", "ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)
    assert study.saved == ["p0"]


def test_misspelt_engine_names_the_nearest_and_help_lists_all(capsys):
    with pytest.raises(KeyError, match="unknown engine 'slrum'; did you mean 'slurm'"):
        main(["slrum", "DIR"])
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in ("local", "slurm", "ray", "k8s", "tpu_vm"))


@pytest.mark.parametrize("engine", ["local", "slurm", "ray", "k8s", "tpu_vm"])
def test_every_engine_tells_its_flags_and_wants_a_prepared_study(engine, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main([engine, "--help"])
    assert stop.value.code == 0
    assert "--dry_run" in capsys.readouterr().out
    if engine != "tpu_vm":  # whose folder is on other machines
        with pytest.raises(ValueError, match="--prepare"):
            main([engine, str(tmp_path), *(["--image=i"] if engine == "k8s" else [])])
