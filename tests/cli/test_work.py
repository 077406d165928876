"""Workers: a prepared study trained by anyone, in any order, stopped, failed, held by others or made wider."""

import dataclasses
import os
from pathlib import Path
import shutil
import signal

import numpy as np
import pytest

from jaxdiff.cli import main as cli
from jaxdiff.cli import places, work
from jaxdiff.cli import task as tasks
from jaxdiff.cli.pack import PackRun
from jaxdiff.cli.plan import from_folder
from jaxdiff.cli.stopping import REQUEUE, StopRequest
from jaxdiff.io import files, packlist
from jaxdiff.io.folders import RunDir
from jaxdiff.io.locks import held, is_held
from jaxdiff.io.runs import load_run

pytestmark = pytest.mark.usefixtures("traced_once")

SMALL = """

def sweep_small():
    yield {"algorithm": "bc", "model.actor_hidden": (4,), "seed": 0}
    yield {"algorithm": "bc", "model.actor_hidden": (4,), "seed": 1}
    yield {"algorithm": "bc", "model.actor_hidden": (5,)}


def sweep_grown():
    yield from sweep_small()
    yield {"algorithm": "bc", "model.actor_hidden": (4,), "seed": 2}
    yield {"algorithm": "bc", "model.actor_hidden": (5,), "seed": 1}


def sweep_other():
    yield {"algorithm": "bc", "model.actor_hidden": (4,), "seed": 0}
"""


@pytest.fixture(scope="module")
def grown(study: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments without --sweep: of `small`, three members in two groups, and of a wider and a narrower study."""
    path, _, data = study[0].removeprefix("--config=").partition(":")
    copy = tmp_path_factory.mktemp("grown") / "study.py"
    copy.write_text(Path(path).read_text() + SMALL)
    return [f"--config={copy}:{data}", "--lanes=vmap"]


@pytest.fixture(scope="module")
def small(grown: list[str]) -> list[str]:
    return [*grown, "--sweep=small"]


@pytest.fixture(scope="module")
def whole(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, trained by one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(["sweep", *small, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture
def prepared(small: list[str], tmp_path: Path) -> Path:
    folder = tmp_path / "prepared"
    assert cli.main(["sweep", *small, f"--workdir={folder}", "--prepare"]) == 0
    return folder


def numbers(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Member id -> its columns of both tables, clocks left out."""
    found = {}
    for pack in load_run(folder).packs:
        assert pack.train is not None and pack.eval is not None
        for lane, member in enumerate(pack.members):
            tables = {"train": pack.train, "eval": pack.eval}
            columns = {f"{t} {n}": v for t, table in tables.items() for n, v in table.items() if n != "wall_seconds"}
            found[member.id] = {n: v if n.endswith(" step") else v[:, lane] for n, v in columns.items()}
    return found


def assert_same(first: dict[str, dict[str, np.ndarray]], second: dict[str, dict[str, np.ndarray]]) -> None:
    assert first.keys() == second.keys()
    for member, columns in first.items():
        assert columns.keys() == second[member].keys()
        for name, values in columns.items():
            np.testing.assert_array_equal(values, second[member][name], err_msg=name)


def test_a_prepared_study_is_a_list_that_workers_share_without_another_word(prepared, whole, capsys):
    run = RunDir(prepared)
    assert [p.id for p in packlist.read_list(prepared).packs] == [p.id for p in packlist.read_list(whole).packs]
    assert run.list_packs() == []
    assert not run.is_done()
    assert cli.main(["work", str(prepared), "--shard=1/2"]) == 0
    assert len(run.list_packs()) == 1
    assert not run.is_done()
    assert cli.main(["work", str(prepared)]) == 0
    assert run.is_done()
    assert_same(numbers(whole), numbers(prepared))


def test_shards_are_the_whole_list_and_refuse_what_is_none():
    packs = list(range(7))
    assert sorted(x for i in range(3) for x in packlist.pick(packs, (i, 3))) == packs
    with pytest.raises(ValueError, match="shard 3/3: the first number must be 0 to 2"):
        packlist.pick(packs, (3, 3))
    with pytest.raises(ValueError, match=r"--shard='1of2' must be I/N"):
        work.read_shard("1of2")


def test_an_unknown_pack_and_a_folder_without_a_run_are_refused(prepared, tmp_path, capsys):
    assert cli.main(["work", str(prepared), "--packs=nonsense"]) == 2
    assert "has no pack 'nonsense'" in capsys.readouterr().err
    assert cli.main(["work", str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_a_pack_that_is_held_is_passed_over(prepared):
    plan = from_folder(prepared, ["work"])
    first, second = plan.packs
    folder = RunDir(prepared).pack(first.id)
    assert not is_held(folder.lock)
    with held(folder.lock) as mine:
        assert mine
        assert is_held(folder.lock)
        outcome = work.run_packs(plan, plan.packs, work.Tasks(plan), lambda: False)
    assert (outcome.finished, outcome.passed, outcome.exit_code) == (1, 1, 0)
    assert RunDir(prepared).list_packs() == sorted([first.id, second.id])
    assert not folder.is_done()
    assert not is_held(folder.lock)


def test_a_stopped_worker_has_saved_and_the_next_one_ends_with_the_same_bits(prepared, whole):
    plan = from_folder(prepared, ["work"])
    outcome = work.run_packs(plan, plan.packs, work.Tasks(plan), lambda: True)
    assert outcome.exit_code == REQUEUE
    assert len(RunDir(prepared).list_packs()) == 1
    (name,) = RunDir(prepared).list_packs()
    assert [int(path.name) for path in RunDir(prepared).pack(name).checkpoints.iterdir()] == [2]
    assert work.run_packs(plan, plan.packs, work.Tasks(plan), lambda: False).finished == 2
    assert_same(numbers(whole), numbers(prepared))


def test_a_stop_between_intervals_is_saved_where_it_was(small, tmp_path):
    folder, asked = tmp_path / "short", [False, True]
    line = ["sweep", *small, f"--workdir={folder}", "--config.chunk=1", "--prepare"]
    assert cli.main(line) == 0
    plan = from_folder(folder, ["work"])
    assert work.run_packs(plan, plan.packs[:1], work.Tasks(plan), lambda: asked.pop(0)).is_stopped
    saved = RunDir(folder).pack(plan.packs[0].id).checkpoints
    assert sorted(int(path.name) for path in saved.iterdir()) == [2]
    asked = [True]
    assert work.run_packs(plan, plan.packs[:1], work.Tasks(plan), lambda: asked.pop(0)).is_stopped
    assert sorted(int(path.name) for path in saved.iterdir()) == [2, 3]


def test_signals_are_noted_once_and_then_mean_what_they_meant():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        assert signal.getsignal(signal.SIGTERM) == before
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_failed_pack_is_told_the_others_are_trained_and_the_next_try_clears_it(prepared, whole, monkeypatch):
    plan = from_folder(prepared, ["work"])
    broken, healthy = plan.packs
    real = PackRun.run

    def fail(self, *args):
        if self.pack.id == broken.id:
            raise RuntimeError("out of\nmemory")
        return real(self, *args)

    monkeypatch.setattr(PackRun, "run", fail)
    outcome = work.run_packs(plan, plan.packs, work.Tasks(plan), lambda: False)
    assert (outcome.exit_code, outcome.finished, list(outcome.failed)) == (1, 1, [broken.id])
    told = files.read_json(RunDir(prepared).pack(broken.id).failed)
    assert told["error"] == "RuntimeError: out of memory"
    assert not RunDir(prepared).pack(healthy.id).failed.exists()
    monkeypatch.undo()
    assert cli.main(["work", str(prepared)]) == 0
    assert not RunDir(prepared).pack(broken.id).failed.exists()
    assert_same(numbers(whole), numbers(prepared))


def test_a_wider_study_trains_only_what_is_new(grown, whole, tmp_path):
    folder = tmp_path / "wide"
    shutil.copytree(whole, folder)
    run, before = RunDir(folder), numbers(folder)
    times = {name: run.pack(name).done.stat().st_mtime_ns for name in run.list_packs()}
    assert cli.main(["sweep", *grown, "--sweep=grown", f"--workdir={folder}"]) == 0
    after = numbers(folder)
    assert len(after) == len(before) + 2
    assert_same(before, {name: after[name] for name in before})
    assert {name: run.pack(name).done.stat().st_mtime_ns for name in times} == times
    assert len(packlist.read_list(folder).packs) == len(times) + 2
    # Its members are those of a study that had them from the start.
    anew = tmp_path / "anew"
    assert cli.main(["sweep", *grown, "--sweep=grown", f"--workdir={anew}", "--prepare"]) == 0
    assert {name for pack in packlist.read_list(anew).packs for name in pack.members} == after.keys()


def test_a_narrower_study_is_refused_before_anything_is_written(grown, tmp_path, capsys):
    folder = tmp_path / "wide"
    assert cli.main(["sweep", *grown, "--sweep=small", f"--workdir={folder}", "--prepare"]) == 0
    before = (folder / "run.json").read_bytes()
    assert cli.main(["sweep", *grown, "--sweep=other", f"--workdir={folder}"]) == 2
    assert "holds another run: its pack" in capsys.readouterr().err
    assert (folder / "run.json").read_bytes() == before


def test_a_study_under_a_url_is_trained_from_two_machines(small, whole, tmp_path, monkeypatch):
    """Two scratch folders stand for two machines, and a folder behind fsspec for the bucket."""
    url = f"file://{tmp_path / 'bucket' / 'run'}"
    (tmp_path / "bucket").mkdir()
    monkeypatch.setenv("JAXDIFF_SCRATCH", str(tmp_path / "first"))
    assert cli.main(["sweep", *small, f"--workdir={url}", "--prepare"]) == 0
    assert cli.main(["work", url, "--shard=0/2"]) == 0
    monkeypatch.setenv("JAXDIFF_SCRATCH", str(tmp_path / "second"))
    asked = [False, True]
    place = places.to_work(url)
    plan = dataclasses.replace(from_folder(place.folder, ["work"]), mirror=place.mirror)
    stopped = work.run_packs(plan, plan.packs[1:], work.Tasks(plan), lambda: asked.pop(0) or True)
    assert stopped.is_stopped
    monkeypatch.setenv("JAXDIFF_SCRATCH", str(tmp_path / "third"))
    assert cli.main(["work", url]) == 0
    assert RunDir(tmp_path / "bucket" / "run").is_done()
    monkeypatch.setenv("JAXDIFF_SCRATCH", str(tmp_path / "reader"))
    assert_same(numbers(whole), numbers(places.to_read(url).folder))


def test_packs_of_a_group_compile_once_also_where_one_is_resumed(grown, tmp_path, monkeypatch, task_store):
    monkeypatch.setattr(tasks, "make_task", task_store.make)  # nothing was traced before
    folder = tmp_path / "packs"
    line = ["sweep", *grown, "--sweep=grown", f"--workdir={folder}", "--max_lanes=1", "--prepare"]
    assert cli.main(line) == 0
    plan, made = from_folder(folder, ["work"]), []
    real = PackRun.__init__

    def note(self, *args, **further):
        real(self, *args, **further)
        made.append(self.programs.chunk)

    monkeypatch.setattr(PackRun, "__init__", note)
    worker = work.Tasks(plan)
    assert work.run_packs(plan, plan.packs, worker, lambda: True).is_stopped
    assert work.run_packs(plan, plan.packs, worker, lambda: False).finished == 5
    groups = [entry.group for entry in packlist.read_list(folder).packs]
    groups = [groups[0], *groups]  # the first one was stopped, and went on from its checkpoint
    assert len(set(groups)) == 2
    by_group = {group: {id(chunk) for chunk, g in zip(made, groups, strict=True) if g == group} for group in groups}
    assert [len(found) for found in by_group.values()] == [1, 1]
    assert all(chunk._cache_size() == 1 for chunk in made)
