"""Ray tasks without Ray: what would run, and the body of a task. The real thing is in tests/launch/cluster."""

import shlex
import sys

import pytest

from launch.main import main
from launch.ray_tasks import run_shard


def test_a_dry_run_shows_the_tasks(make_study, capsys):
    study = make_study(2)
    assert main(["ray", str(study.folder), "--gpus=0.5", "--address=auto", "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "ray.init(address='auto')" in text
    assert "'num_gpus': 0.5" in text
    assert f"jaxdiff work {study.folder} --shard=1/2" in text


def test_a_task_raises_so_that_ray_runs_it_again(make_study, worker):
    study, prefix = make_study(2), shlex.join(worker)
    study.will(p1="stop fail wrong")
    for code in (75, 1):
        with pytest.raises(RuntimeError, match=f"ended with code {code}"):
            run_shard(prefix, str(study.folder), 1, 2)
    run_shard(prefix, str(study.folder), 1, 2)  # a wrong request would be as wrong again
    assert study.finished == set()
    run_shard(prefix, str(study.folder), 1, 2)
    assert study.finished == {"p1"}


def test_without_ray_the_error_says_how_to_install_it(make_study, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r'pip install "jaxdiff\[ray\]"'):
        main(["ray", str(make_study(1).folder)])
