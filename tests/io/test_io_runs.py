import os

import numpy as np
import pytest

from jaxdiff.io import files
from jaxdiff.io.folders import RunDir
from jaxdiff.io.metrics import MetricTable
from jaxdiff.io.runs import Member, load_run, read_plan

MEMBERS = [
    {"id": f"m{i}", "label": "bc lr=1", "algorithm": "bc", "overrides": {"hparams.lr": 1.0}, "seed": i}
    for i in range(2)
]


def plan(run, pack_id):
    pack = run.pack(pack_id)
    value = {"id": pack_id, "lanes": "vmap", "config": {"seed": 0}, "num_updates": 20, "members": MEMBERS}
    files.write_json_atomic(pack.pack_json, value)
    return pack


def log(path, rows):
    table = MetricTable()
    for step, values in rows:
        table.append(step, float(step), values)
    table.save(path)


@pytest.fixture
def run(tmp_path):
    """Four packs: finished, dead before the first evaluation, planned only, and a bare folder."""
    run = RunDir(tmp_path)
    files.write_json_atomic(run.run_json, {"env": "pointmaze-open", "config": {"seed": 0}})
    a = plan(run, "a")
    log(a.train, [(10, {"alive": np.array([True, True])}), (20, {"alive": np.array([True, False])})])
    log(a.eval, [(20, {"returns": np.ones((2, 3))})])
    files.write_npz_atomic(a.rollouts, {"obs": np.zeros((2, 1, 4, 3)), "mask": np.ones((2, 1, 4))})
    files.write_json_atomic(a.done, {"num_updates": 20, "nonfinite": [{"member": "m1", "step": 15}]})
    b = plan(run, "b")
    log(b.train, [(10, {"alive": np.array([False, True])})])
    plan(run, "c")
    run.pack("d").path.mkdir()
    return run


def test_paths_are_those_of_the_run_folder(tmp_path):
    pack = RunDir(tmp_path).pack("p-0.1_x")
    base = tmp_path / "packs" / "p-0.1_x"
    assert (pack.id, pack.path) == ("p-0.1_x", base)
    assert [pack.pack_json, pack.train, pack.eval, pack.rollouts, pack.checkpoints, pack.done] == [
        base / name for name in ("pack.json", "train.npz", "eval.npz", "rollouts.npz", "checkpoints", "done.json")
    ]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden"])
def test_pack_id_must_be_a_plain_name(tmp_path, name):
    with pytest.raises(ValueError, match="pack id"):
        RunDir(tmp_path).pack(name)


def test_list_packs_and_done(run, tmp_path):
    assert run.list_packs() == ["a", "b", "c", "d"]
    assert [run.pack(name).is_done() for name in run.list_packs()] == [True, False, False, False]
    assert not run.is_done()
    assert RunDir(tmp_path / "nowhere").list_packs() == []
    assert not RunDir(tmp_path / "nowhere").is_done()


def test_finished_pack_is_read_whole(run):
    loaded = load_run(run.path)
    pack = loaded.packs[0]
    assert loaded.stamp["env"] == "pointmaze-open"
    assert (pack.status, pack.last_step, pack.lanes, pack.num_updates) == ("finished", 20, "vmap", 20)
    assert pack.members[1] == Member("m1", "bc lr=1", "bc", {"hparams.lr": 1.0}, 1)
    assert pack.eval["returns"].shape == (1, 2, 3)
    assert pack.rollouts["mask"].shape == (2, 1, 4)
    assert pack.nonfinite() == {"m1": 15}
    assert pack.problems == ()


def test_missing_pieces_are_none_not_fatal(run):
    _, died, planned, bare = load_run(run.path).packs
    assert (died.status, died.last_step, died.eval, died.done) == ("started", 10, None, None)
    assert died.nonfinite() == {"m0": 10}
    assert (planned.status, planned.last_step, planned.train, len(planned.members)) == ("not started", 0, None, 2)
    assert (bare.status, bare.members, bare.lanes) == ("not started", (), None)
    assert bare.problems == ("pack.json is missing: the pack never started",)


def test_damaged_pieces_are_named_and_the_rest_is_read(run):
    os.truncate(run.pack("a").eval, 30)
    os.truncate(run.pack("a").done, 5)
    run.facts_json.write_text("{")
    loaded = load_run(run.path)
    assert loaded.packs[0].eval is None
    assert loaded.packs[0].done is None
    assert loaded.packs[0].last_step == 20
    assert [problem.split(":")[0] for problem in loaded.packs[0].problems] == ["eval.npz", "done.json"]
    assert loaded.facts == {}
    assert "facts.json" in loaded.problems[0]


def test_a_folder_without_run_json_is_not_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"not a run folder: it has no run\.json"):
        load_run(tmp_path)


PLAN = {"id": "p", "lanes": "map", "config": {"env": "e"}, "members": [
    {"id": "a", "label": "a", "algorithm": "bc", "overrides": {}, "seed": 0}
]}  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ([1], "pack.json holds a JSON list"),
        ({}, "pack.json has no 'id', 'lanes', 'config', 'members'"),
        ({**PLAN, "members": []}, "needs a config and at least one member"),
        ({**PLAN, "config": 3}, "needs a config and at least one member"),
        ({**PLAN, "members": [{"id": "a"}]}, "a member has no 'label', 'algorithm', 'overrides', 'seed'"),
        ({**PLAN, "members": [1]}, "a member has no 'id'"),
    ],
)
def test_an_edited_plan_is_named_and_only_its_pack_is_lost(tmp_path, plan, message):
    run = RunDir(tmp_path)
    files.write_json_atomic(run.run_json, {})
    files.write_json_atomic(run.pack("good").pack_json, PLAN)
    files.write_json_atomic(run.pack("spoilt").pack_json, plan)
    with pytest.raises(ValueError, match=message):
        read_plan(run.pack("spoilt").pack_json)
    good, spoilt = load_run(tmp_path).packs
    assert (len(good.members), good.problems) == (1, ())
    assert message.split()[-1] in spoilt.problems[0]


def test_a_config_without_what_is_wanted_of_it_is_named(tmp_path):
    path = RunDir(tmp_path).pack("p").pack_json
    files.write_json_atomic(path, PLAN)
    assert read_plan(path, ["env"]) == PLAN
    with pytest.raises(ValueError, match="pack.json: its config has no 'model': it was edited; restore a copy"):
        read_plan(path, ["env", "model"])
