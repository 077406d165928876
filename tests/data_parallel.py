"""Mode data on eight CPU devices. test_sweep.py runs it in a process of its own: devices are asked for at the start.

Prints OK when everything holds.
"""

import sys
from typing import Any

import jax
import numpy as np
from toy_algorithm import plain, toy_dataset

from jaxdiff import sweep, train
from jaxdiff.algorithms import diffusion_bc
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.types import Algorithm, PyTree, Spec

DEVICES, BATCH, UPDATES = 8, 16, 12


def make() -> Algorithm:
    config = diffusion_bc.Config(PolicyConfig(hidden=(16,), num_levels=3, num_steps=1))
    return diffusion_bc.make(config, Spec("test", obs_dim=3, action_dim=3, max_episode_steps=1))


def lanes_of_two_seeds(algorithm: Algorithm) -> train.Lane:
    hparams = sweep.stack([jax.tree.map(np.float32, diffusion_bc.HParams(lr=lr)) for lr in (3e-3, 1e-3)])
    return jax.jit(jax.vmap(lambda h, s: train.init_lane(algorithm, h, s)))(hparams, np.arange(2))  # type: ignore[no-any-return]


def compiled(mode: str, traced: list[str]) -> Any:
    constrain = sweep.split_batch(BATCH) if mode == "data" else lambda batch: batch
    chunk = train.make_chunk(make(), BATCH, constrain=constrain)

    def counted(*args: PyTree) -> PyTree:
        traced.append(mode)
        return chunk(*args)

    return sweep.over_lanes(counted, mode)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES)
    assert jax.device_count() == DEVICES
    results, traced = {}, []
    for mode in ("map", "data"):
        advance = compiled(mode, traced)
        lanes = sweep.place(lanes_of_two_seeds(make()), mode)
        dataset = sweep.replicate(toy_dataset(), mode)
        program = advance.lower(lanes, np.int32(0), dataset).compile().as_text()
        assert ("all-reduce" in program) == (mode == "data"), mode
        shapes = [f"f32[{rows},3]" in program for rows in (BATCH // DEVICES, BATCH)]
        assert shapes[0] or mode == "map", "no array holds one device's share of a batch"
        lanes, _ = advance(lanes, np.int32(UPDATES - 2), dataset)
        results[mode] = advance(lanes, np.int32(2), dataset)
    assert traced.count("data") == traced.count("map"), traced  # a second call traces nothing
    for leaf in jax.tree.leaves(results["data"]):
        assert leaf.sharding.is_fully_replicated
        assert len(leaf.devices()) == DEVICES
    for a, b in zip(*map(jax.tree.leaves, (results["data"], results["map"])), strict=True):
        np.testing.assert_allclose(plain(a), plain(b), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(results["data"][0].state.step, [UPDATES, UPDATES])
    try:
        sweep.split_batch(20)
    except ValueError as error:
        assert "batch_size=20 must be a multiple of the 8 devices" in str(error)
        assert "try 16." in str(error)
    else:
        raise AssertionError("20 rows cannot be divided among 8 devices")
    sys.stdout.write("OK\n")


if __name__ == "__main__":
    main()
