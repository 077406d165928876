"""A study's digest: blind to packing and clocks, and to nothing else."""

from pathlib import Path

import numpy as np
import pytest

from jaxdiff.io.digest import digest, member_digests
from jaxdiff.io.folders import PackDir, RunDir
from jaxdiff.io.runs import Member, Pack, Run

LOSS = np.asarray([[1.0, 2.0], [3.0, 4.0]], np.float32)  # [T, L]
RETURNS = np.arange(8, dtype=np.float32).reshape(2, 2, 2)  # [T, L, M]


def pack_of(lanes, seconds=(0.0, 1.0), loss=LOSS, returns=RETURNS):
    members = tuple(Member(f"m{i}", "bc", "bc", {}, i) for i in lanes)
    clock = {"step": np.asarray([2, 4]), "wall_seconds": np.asarray(seconds)}
    train, evaluated = ({**clock, name: value[:, lanes]} for name, value in (("loss", loss), ("returns", returns)))
    return Pack("p", PackDir(Path("p")), "map", {}, 4, members, train, evaluated, None, None)


def run_of(*packs):
    return Run(RunDir("r"), {}, {}, packs)


def test_packing_and_clocks_do_not_matter():
    together = member_digests(run_of(pack_of([0, 1])))
    apart = member_digests(run_of(pack_of([1], seconds=(5.0, 9.0)), pack_of([0])))
    assert together == apart
    assert together["m0"] != together["m1"]
    assert digest(together) == digest(dict(reversed(apart.items())))


@pytest.mark.parametrize("changed", ["loss", "returns"])
def test_the_last_bit_of_one_number_matters(changed):
    value = {"loss": LOSS, "returns": RETURNS}[changed].copy()
    value[1, 0] = np.nextafter(value[1, 0], np.float32(np.inf))
    before, after = member_digests(run_of(pack_of([0, 1]))), member_digests(run_of(pack_of([0, 1], **{changed: value})))
    assert before["m0"] != after["m0"]
    assert before["m1"] == after["m1"]
    assert digest(before) != digest(after)


def test_a_member_without_an_evaluation_is_not_there():
    pack = pack_of([0, 1])
    assert member_digests(run_of(Pack(**{**pack.__dict__, "eval": None}))) == {}
