"""`--dry_run`: what a study would take, and that nothing is left behind."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxdiff import sweep
from jaxdiff.cli import dry_run, programs
from jaxdiff.cli import run as commands
from jaxdiff.io.packlist import Width

POLICY = (16 * 32 + 32) + (32 * 16 + 16) + (2 + 16 + 1) * 4 + 4 + 4 * 2 + 2  # time embedding, one layer of 4, out
CRITIC = (1 + 2) * 4 + 4 + 4 * 1 + 1
KEY_AND_ALIVE = 8 + 1


def test_plan_is_printed_and_nothing_is_written(study, tmp_path, capsys):
    folder = tmp_path / "planned"
    assert commands.sweep([*study, f"--workdir={folder}", "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert not folder.exists()
    assert f"nothing is written to {folder}" in text
    assert "methods: 3 members, 2 groups that share a program, 2 packs, on 1 x cpu" in text
    assert "group 1: diffusion_bc\n" in text
    assert "group 2: diffusion_ql q_weight=1\n" in text
    assert "2 in 1 pack of 2" in text
    assert "data corners, 63 transitions" in text
    assert "4 updates:" in text
    assert "evaluate  2 times, 16 episodes per member" in text
    assert "total: 2 update loops to compile" in text


def test_member_bytes_are_those_of_its_parameters_four_times(study, tmp_path):
    members = [member for pack_ in plan_of(study, tmp_path).packs for member in pack_.members]
    task = dry_run.make_task(members[1].config)
    hparams = len(members[1].config["hparams"])
    # Weights, their targets and Adam's two moments; counts of the update and of two optimisers.
    expected = 4 * (4 * (POLICY + 2 * CRITIC) + 3 + hparams) + KEY_AND_ALIVE
    assert dry_run.member_bytes(task, members[1]) == expected
    lanes = programs.fresh_lanes(task, members[1:], "vmap")
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(lanes))
    assert held == 2 * expected


def plan_of(study, folder) -> commands.Plan:
    plans: list[commands.Plan] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "execute", lambda plan: plans.append(plan) or 0)
        commands.sweep([*study, f"--workdir={folder / 'new'}"])
    return plans[0]


OTHERS = {"dataset": "rows", "env": "somewhere", "eval_episodes": 16, "checkpoint_interval": 3}


def estimate(**changes) -> dry_run.Estimate:
    """Three members in packs of two and one: 2 s per update of the first, 3 s per evaluation, 5 s to compile."""
    config = {"algorithm": "a", "num_updates": 10, "eval_interval": 4, "seed": 0, **OTHERS}
    members = [sweep.make_member({**config, "seed": seed}, {"seed": seed}) for seed in range(3)]
    packs = (sweep.Pack("p", tuple(members[:2])), sweep.Pack("q", tuple(members[2:])))
    fields = {"packs": packs, "task": None, "mode": "vmap", "probe": {}, "compile_seconds": 5.0, "update_seconds": 2.0}
    made = dry_run.Estimate(**fields, evaluation_seconds=3.0, state_bytes=7, workspace_bytes=None)
    return dataclasses.replace(made, **changes)


def test_time_is_updates_evaluations_and_compiles_of_every_pack():
    found = estimate()
    assert found.training_seconds == 1.5 * 10 * 2.0
    assert found.num_evaluations == 3  # at 4, 8 and 10
    assert found.evaluating_seconds == 1.5 * 3 * 3.0
    assert found.total_seconds == 30.0 + 13.5 + 2 * 5.0  # two widths, two programs


def test_workers_share_packs_and_not_compiles():
    found = estimate()
    assert found.seconds_of_a_worker(1) == found.total_seconds
    assert found.seconds_of_a_worker(2) == found.seconds_of_a_worker(9) == 43.5 / 2 + 10.0
    alone, shared = dry_run._totals([found, found], 1), dry_run._totals([found, found], 2)
    hours = 2 * 53.5 * jax.device_count() / 3600
    assert alone == [
        f"total: 4 update loops to compile, about 107.0 s, {hours:.2g} device-hours; checkpoints and report come on top"
    ]
    assert shared == [*alone, "2 workers like this one: about 63.5 s, each compiling what it trains"]


def test_a_measured_width_is_told_with_its_curve_and_what_a_member_takes():
    curve = {1: 1.25, 4: 40.0, 16: 1234.0}
    width = Width(16, "map", curve, bytes_per_member=3, limit=None)
    bare = SimpleNamespace(dataset=None, info=None, env=None)
    text = "\n".join(dry_run._details(estimate(task=bare, workspace_bytes=10, width=width)))
    assert "width     at most 16 members by map; member-updates/s by width 1: 1.2, 4: 40, 16: 1,234" in text
    assert "7 B of state per member; workspace of a pack 10 B; 12 B per member with both" in text
    assert "30.0 s at 1 member-updates/s, 10.0 s per member; a checkpoint every 6.0 s" in text


def test_sizes_of_packs_are_told_and_the_loops_that_they_need():
    text = "\n".join(dry_run._details(estimate(task=SimpleNamespace(dataset=None, info=None, env=None))))
    assert "3 in 2 packs of 2 + 1" in text
    assert "2 update loops, " in text
    assert "somewhere; data rows, 0 transitions" in text


def test_packs_of_one_program_are_one_group_the_widest_first():
    members = [sweep.make_member({"algorithm": "a", "hparams": {"lr": lr}, "seed": 0}, {}) for lr in (1, 2, 3)]
    other = sweep.make_member({"algorithm": "b", "hparams": {"lr": 1}, "seed": 0}, {})
    narrow, alone = sweep.Pack("n", tuple(members[:1])), sweep.Pack("o", (other,))
    wide = sweep.Pack("w", tuple(members[1:]))
    assert dry_run.packs_by_group([narrow, alone, wide]) == [(wide, narrow), (alone,)]


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000, "2.5 MB")])
def test_sizes_read_as_si_units(number, text):
    assert dry_run._size(number) == text


def test_bytes_count_shapes_as_arrays():
    tree = {"a": np.zeros((3, 2), np.float32), "b": jax.ShapeDtypeStruct((5,), np.int8), "c": None}
    assert dry_run.num_bytes(tree) == 24 + 5
