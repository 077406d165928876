"""A study cut into groups and packs, and lanes side by side."""

import copy
import os
from pathlib import Path
import random
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdiff
from jaxdiff import sweep

CONFIG: dict[str, Any] = {
    "algorithm": "diffusion_ql",
    "env": "pointmaze-umaze",
    "dataset": "pointmaze-umaze",
    "seed": 0,
    "batch_size": 256,
    "num_updates": 100,
    "chunk": 10,
    "eval_interval": 50,
    "eval_episodes": 4,
    "record_episodes": 1,
    "checkpoint_interval": 50,
    "model": {"policy": {"num_steps": 5, "hidden": (16, 16)}, "num_candidates": 4},
    "hparams": {"lr": 3e-4, "q_weight": 1.0},
}


def member(**overrides: Any) -> sweep.Member:
    """A member with dotted overrides, written with __ for the dot."""
    config, flat = copy.deepcopy(CONFIG), {key.replace("__", "."): value for key, value in overrides.items()}
    for key, value in flat.items():
        *groups, leaf = key.split(".")
        inner = config
        for name in groups:
            inner = inner[name]
        assert leaf in inner
        inner[leaf] = value
    return sweep.make_member(config, flat)


@pytest.mark.parametrize(
    ("key", "is_traced"),
    [("seed", True), ("hparams.lr", True), ("model.policy.num_steps", False), ("batch_size", False), ("seeds", False)],
)
def test_hyperparameters_and_the_seed_are_traced_and_nothing_else(key, is_traced):
    assert sweep.is_traced(key) is is_traced


def test_numbers_share_a_program_and_everything_else_splits():
    a = [member(seed=s, hparams__q_weight=q) for s in (0, 1) for q in (0.5, 2.0)]
    b = [member(seed=s, model__num_candidates=8) for s in (0, 1)]
    c = [member(batch_size=128), member(algorithm="diffusion_bc"), member(model__policy__hidden=(8, 8))]
    groups = sweep.group_members([a[0], b[0], *a[1:], *c, b[1]])
    assert [[m.id for m in group] for group in groups] == [[m.id for m in g] for g in (a, b, c[:1], c[1:2], c[2:])]


def test_a_repeated_member_is_kept_once():
    (group,) = sweep.group_members([member(seed=1), member(seed=2), member(seed=1), member(hparams__lr=3e-4, seed=1)])
    assert [m.seed for m in group] == [1, 2]


@pytest.mark.parametrize(
    "overrides",
    [
        {"seed": 1},
        {"hparams__lr": 1e-3},
        {"hparams__q_weight": 1.0000001},
        {"model__policy__num_steps": 6},
        {"model__policy__hidden": (16, 17)},
        {"algorithm": "diffusion_bc"},
        {"env": "pointmaze-medium"},
        {"dataset": "other.hdf5"},
        {"batch_size": 128},
        {"num_updates": 200},
    ],
)
def test_what_decides_a_result_decides_the_id(overrides):
    assert member(**overrides).id != member().id


@pytest.mark.parametrize("key", sweep.ORGANISATION)
def test_how_a_run_is_organised_does_not_change_an_id(key):
    assert member(**{key: 7}).id == member().id


def test_an_id_does_not_depend_on_the_study_the_order_or_the_process():
    """The same setting and seed, reached by other overrides, in another order of keys, in another interpreter."""
    wanted = member(seed=3, hparams__lr=1e-3).id
    config = {key: CONFIG[key] for key in reversed(CONFIG)}
    config |= {"seed": 3, "hparams": {"q_weight": 1.0, "lr": 1e-3}}
    assert sweep.make_member(config, {}).id == wanted
    code = f"from jaxdiff.sweep import make_member; print(make_member({config!r}, {{}}).id)"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(jaxdiff.__file__).parents[1])}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == wanted


def test_tuples_and_lists_of_a_config_are_one_setting():
    """A stamp read back from JSON holds lists."""
    assert member(model__policy__hidden=[16, 16]).id == member().id


def test_labels_name_what_is_swept_and_leave_out_the_seed():
    labels = [
        member(seed=1).label,
        member(seed=4, hparams__q_weight=0.5).label,
        member(algorithm="diffusion_bc", seed=2).label,
        member(model__policy__hidden=(8, 8), hparams__lr=1e-3).label,
    ]
    assert labels == ["diffusion_ql", "diffusion_ql q_weight=0.5", "diffusion_bc", "diffusion_ql hidden=8x8 lr=0.001"]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 5, 9, 10])
def test_packs_hold_every_member_once_in_order_in_as_few_packs_and_shapes_as_can_be(count, width):
    group = [member(seed=s) for s in range(count)]
    packs = sweep.split_packs(group, width)
    assert [m.seed for pack in packs for m in pack.members] == list(range(count))
    sizes = [len(pack.members) for pack in packs]
    assert max(sizes) <= width
    assert len(sizes) == -(-count // width)
    assert len(set(sizes)) <= 2
    assert len({pack.id for pack in packs}) == len(packs)


def test_pack_ids_follow_from_the_members():
    group = [member(seed=s) for s in range(4)]
    first, again = sweep.split_packs(group, 2), sweep.split_packs(group, 3)
    assert [pack.id for pack in first] == [pack.id for pack in again]
    assert sweep.split_packs(group[::-1], 4)[0].id != sweep.split_packs(group, 4)[0].id


def test_a_pack_holds_someone():
    with pytest.raises(ValueError, match="pack width 0; a pack holds at least 1 member"):
        sweep.split_packs([member()], 0)


def test_stack_and_lane_of_are_inverse():
    trees = [{"a": np.float32(i), "b": np.arange(3) + i} for i in range(4)]
    stacked = sweep.stack(trees)
    assert stacked["a"].shape == (4,)
    assert stacked["b"].shape == (4, 3)
    for i, tree in enumerate(trees):
        lane = sweep.lane_of(stacked, i)
        assert lane["a"] == tree["a"]
        np.testing.assert_array_equal(lane["b"], tree["b"])


@pytest.mark.parametrize(
    ("members", "mode", "devices", "lanes"),
    [
        (3, "vmap", 8, 3),
        (3, "map", 8, 3),
        (3, "shard", 2, 4),
        (4, "shard", 2, 4),
        (1, "pmap", 8, 8),
        (9, "pmap", 8, 16),
    ],
)
def test_sharded_modes_fill_up_to_a_multiple_of_the_devices(members, mode, devices, lanes):
    assert sweep.lane_count(members, mode, devices) == lanes


@pytest.mark.parametrize("mode", sweep.MODES)
def test_every_mode_works_on_one_device(mode):
    function = sweep.over_lanes(lambda lane, shift: lane * 2.0 + shift, mode, devices=jax.devices()[:1])
    lanes = sweep.place(np.arange(3.0, dtype=np.float32), mode, jax.devices()[:1])
    np.testing.assert_array_equal(function(lanes, jnp.float32(1.0)), [1.0, 3.0, 5.0])


def test_an_unknown_mode_names_the_known_ones():
    with pytest.raises(ValueError, match="lanes='xmap'; allowed: auto, vmap, map, shard, pmap, data"):
        sweep.over_lanes(lambda lane: lane, "xmap")


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"vmap": 1.0}, "vmap"),
        ({"vmap": 1.0, "map": 0.5}, "map"),
        ({"vmap": 1.0, "map": 0.96}, "vmap"),  # not worth another program
        ({"vmap": 1.0, "map": 0.9, "shard": 0.3}, "shard"),
        ({"map": 2.0, "shard": 1.99}, "shard"),
        ({"shard": 1.0}, "shard"),
    ],
)
def test_the_fastest_mode_is_chosen_unless_vmap_is_as_good(seconds, chosen):
    assert sweep.choose_mode(seconds) == chosen


@pytest.mark.parametrize(
    ("members", "devices", "modes"),
    [(1, 1, {"vmap"}), (4, 1, {"vmap", "map"}), (4, 2, {"vmap", "map", "shard"}), (1, 2, {"vmap"})],
)
def test_only_modes_that_can_differ_are_probed(members, devices, modes):
    assert set(sweep.candidate_modes(members, devices)) == modes


def run_script(name: str) -> None:
    """A script beside this file, in a process of its own, that prints OK."""
    script = Path(__file__).with_name(name)
    environment = {**os.environ, "PYTHONPATH": str(Path(jaxdiff.__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    out = subprocess.run(
        [sys.executable, str(script)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert out.stdout.strip() == "OK", out.stderr


def test_all_modes_agree_on_two_devices():
    """Members, padding, donation, a frozen lane and shared arguments; see sharded_lanes.py."""
    run_script("sharded_lanes.py")


def test_eight_devices_that_share_each_batch_train_as_one():
    """Numbers, an all-reduce in the program, no second trace; see data_parallel.py."""
    run_script("data_parallel.py")


def test_shuffling_a_study_changes_no_member():
    study = [member(seed=s, hparams__q_weight=q, batch_size=b) for s in range(3) for q in (0.1, 1.0) for b in (64, 128)]
    shuffled = random.Random(0).sample(study, len(study))
    grouped = [{m.id for m in group} for group in sweep.group_members(study)]
    assert sorted(map(sorted, grouped)) == sorted(sorted(m.id for m in g) for g in sweep.group_members(shuffled))
