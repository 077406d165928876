"""`jaxdiff rerun DIR`: the same numbers from the run folder alone."""

import dataclasses
from pathlib import Path
import shutil

import numpy as np
import pytest

from jaxdiff.cli import run as commands
from jaxdiff.cli import work
from jaxdiff.io import files
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import load_run


def test_rerun_gives_the_same_bits(trained, tmp_path):
    again = tmp_path / "again"
    assert commands.rerun([str(trained), f"--workdir={again}"]) == 0
    first, second = load_run(trained), load_run(again)
    assert [pack.id for pack in first.packs] == [pack.id for pack in second.packs]
    assert len(first.packs) == 2
    for there, here in zip(first.packs, second.packs, strict=True):
        for name in ("train", "eval"):
            old, new = getattr(there, name), getattr(here, name)
            assert old.keys() == new.keys()
            assert len(old["step"]) == 2
            for column in old.keys() - {"wall_seconds"}:
                np.testing.assert_array_equal(old[column], new[column], err_msg=f"{name} {column}")
        assert there.members == here.members
    assert {**second.stamp["config"]} == first.stamp["config"]
    assert second.stamp["command"][:2] == ["jaxdiff", "rerun"]


def test_rerun_keeps_the_lane_mode_that_a_probe_once_chose(trained, study, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    first, second = RunDir(copy).list_packs()
    path = RunDir(copy).pack(first).pack_json
    files.write_json_atomic(path, {**files.read_json(path), "lanes": "map"})
    plan = plan_of(study, tmp_path)
    packs = {pack.id: pack for pack in plan.packs}
    assert work.lanes_of(plan, packs[first]) == "vmap"
    repeated = dataclasses.replace(plan, repeats=copy)
    assert [work.lanes_of(repeated, packs[name]) for name in (first, second)] == ["map", "vmap"]


def plan_of(study: list[str], folder: Path) -> commands.Plan:
    """The plan of the study's command line."""
    plans: list[commands.Plan] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "execute", lambda plan: plans.append(plan) or 0)
        commands.sweep([*study, f"--workdir={folder / 'new'}"])
    return plans[0]


def test_rerun_refuses_data_that_changed(trained, bandit_data, tmp_path):
    kept = tmp_path / "kept.npz"
    shutil.copy(bandit_data, kept)
    try:
        arrays = dict(np.load(bandit_data))
        np.savez(bandit_data, **{**arrays, "rewards": arrays["rewards"] + 1})
        with pytest.raises(ValueError, match=r"corners.npz has changed since .*; bring the old file back"):
            commands.rerun([str(trained), f"--workdir={tmp_path / 'new'}"])
    finally:
        shutil.copy(kept, bandit_data)
    assert not (tmp_path / "new").exists()


def test_rerun_wants_one_run_folder(trained, tmp_path):
    with pytest.raises(ValueError, match="rerun takes one run folder, got 0"):
        commands.rerun([])
    with pytest.raises(ValueError, match="is not a run folder: it has no run.json"):
        commands.rerun([str(tmp_path)])
