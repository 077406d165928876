"""The lane modes on two CPU devices. test_sweep.py runs it in a process of its own: devices are asked for at the start.

Prints OK when everything holds.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from toy_algorithm import assert_same_bits, plain, toy, toy_dataset, toy_hparams

from jaxdiff import sweep, train

MEMBERS = 3
RATES = (0.1, 0.2, np.nan)  # the last one is frozen at once


def fresh(mode: str) -> train.Lane:
    """Three members on as many lanes as the mode wants; the last member fills up."""
    count = sweep.lane_count(MEMBERS, mode, jax.device_count())
    members = [min(i, MEMBERS - 1) for i in range(count)]
    hparams = sweep.stack([toy_hparams(lr=RATES[i]) for i in members])
    lanes = jax.jit(jax.vmap(lambda h, seed: train.init_lane(toy(), h, seed)))(hparams, np.int32(members))
    return sweep.place(lanes, mode)


def run(mode: str) -> tuple[train.Lane, Any]:
    """Thirty updates in two pieces, with donation."""
    constrain = sweep.split_batch(4) if mode == "data" else lambda batch: batch
    advance = sweep.over_lanes(train.make_chunk(toy(), 4, constrain=constrain), mode, donate=True)
    dataset = sweep.replicate(toy_dataset(), mode)
    lanes = fresh(mode)
    first = lanes.state.params["w"]
    lanes, _ = advance(lanes, jnp.int32(20), dataset)
    assert mode == "pmap" or first.is_deleted(), mode
    return advance(lanes, jnp.int32(10), dataset)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    assert jax.device_count() == 2
    results = {mode: run(mode) for mode in sweep.MODES}
    for mode, (lanes, _) in results.items():
        count = lanes.alive.shape[0]
        assert count == (4 if mode in ("shard", "pmap") else 3), (mode, count)
        np.testing.assert_array_equal(lanes.alive, [True, True, False, False][:count])
        np.testing.assert_array_equal(lanes.state.step, [30, 30, 0, 0][:count])
        assert len(lanes.state.params["w"].devices()) == (1 if mode in ("vmap", "map") else 2), mode
    want = first_members(results["map"])
    for mode, result in results.items():
        if mode in ("shard", "pmap"):  # on a CPU both run lanes one by one, as map does
            assert_same_bits(first_members(result), want)
        for a, b in zip(jax.tree.leaves(first_members(result)), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=mode)
    assert_same_bits(*(plain(results["shard"][0].state.params["w"])[i] for i in (2, 3)))
    shared_arguments_reach_every_lane()
    sys.stdout.write("OK\n")


def first_members(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: plain(leaf)[:MEMBERS], tree)


def shared_arguments_reach_every_lane() -> None:
    lanes = {"x": np.arange(4.0, dtype=np.float32)}
    for mode in sweep.MODES:
        function = sweep.over_lanes(lambda lane, a, b: {"y": lane["x"] * a + b.sum()}, mode)
        shared = sweep.replicate(np.ones(5, np.float32), mode)
        out = function(sweep.place(lanes, mode), jnp.float32(2.0), shared)
        np.testing.assert_array_equal(out["y"], 2.0 * np.arange(4.0) + 5.0)


if __name__ == "__main__":
    main()
