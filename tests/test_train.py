"""The training loop: exact to the bit however it is cut, and safe from a lane that goes non-finite."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_algorithm import assert_same_bits, plain, toy, toy_dataset, toy_hparams

from jaxdiff import sweep, train
from jaxdiff.algorithms import diffusion_bc
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.data import sample_batch
from jaxdiff.types import Spec

DATA = toy_dataset()


def lane_of_seed(seed: int, **changes: float) -> train.Lane:
    return train.init_lane(toy(), toy_hparams(**changes), np.int32(seed))


@pytest.fixture(scope="module")
def chunk() -> Callable[..., Any]:
    return jax.jit(train.make_chunk(toy(), 8))


def test_hundred_and_hundred_updates_are_two_hundred_bit_for_bit(chunk):
    lane = lane_of_seed(3)
    whole, _ = chunk(lane, 200, DATA)
    for cuts in ((100, 100), (1, 199), (67, 0, 133)):
        pieces = lane
        for count in cuts:
            pieces, _ = chunk(pieces, count, DATA)
        assert_same_bits(pieces, whole)
    assert int(whole.state.step) == 200


def test_a_real_algorithm_is_exact_however_it_is_cut_and_restarted():
    """Between the pieces the lane goes through numpy, as it does through a checkpoint."""
    spec = Spec("test", obs_dim=3, action_dim=3, max_episode_steps=1)
    config = diffusion_bc.Config(PolicyConfig(hidden=(8,), num_levels=2, num_steps=1))
    algorithm = diffusion_bc.make(config, spec)
    chunk = jax.jit(train.make_chunk(algorithm, 4))
    hparams = jax.tree.map(np.float32, diffusion_bc.HParams(lr_decay_steps=15.0))
    lane = jax.jit(lambda h: train.init_lane(algorithm, h, np.int32(1)))(hparams)
    whole, _ = chunk(lane, 20, DATA)
    for count in (7, 13):
        lane, _ = chunk(lane, count, DATA)
        key = jax.random.wrap_key_data(np.array(jax.random.key_data(lane.key)))
        lane = train.Lane(jax.tree.map(np.array, lane.state), key, np.array(lane.alive))
    assert_same_bits(lane, whole)


def test_number_of_updates_is_traced(trace_counter):
    counted = jax.jit(trace_counter(train.make_chunk(toy(), 8)))
    lane = lane_of_seed(0)
    for count in (0, 1, 7, 500):
        assert int(counted(lane, jnp.int32(count), DATA)[0].state.step) == count
    counted(lane_of_seed(5, lr=0.7), jnp.int32(3), DATA)
    assert trace_counter.count == 1


def test_no_updates_change_nothing_and_have_no_metrics(chunk):
    lane = lane_of_seed(0)
    after, metrics = chunk(lane, 0, DATA)
    assert_same_bits(after, lane)
    assert all(np.isnan(value) for value in metrics.values())


def test_metrics_are_means_over_the_updates(chunk):
    lane, rows = lane_of_seed(1), []
    _, metrics = chunk(lane, 5, DATA)
    for _ in range(5):
        lane, row = chunk(lane, 1, DATA)
        rows.append(row)
    for name, value in metrics.items():
        assert float(value) == pytest.approx(np.mean([float(row[name]) for row in rows]), rel=1e-5)
    assert len({float(row["reward_mean"]) for row in rows}) == 5  # every update has a batch of its own


def test_noise_of_an_update_is_not_the_one_that_drew_its_batch():
    def echo(key: Any, state: Any, batch: Any) -> Any:
        same = sample_batch(key, DATA, 8).reward.mean()
        return state.replace(step=state.step + 1), {"drawn": batch.reward.mean(), "echoed": same}

    advance = jax.jit(train.make_chunk(toy()._replace(update=echo), 8))
    _, metrics = advance(lane_of_seed(0), 1, DATA)
    assert float(metrics["drawn"]) != float(metrics["echoed"])


def test_batches_cover_the_data(chunk):
    """Rewards are 0 .. 49: the mean of 8000 draws is 24.5 within five standard errors."""
    _, metrics = chunk(lane_of_seed(1), 1000, DATA)
    assert float(metrics["reward_mean"]) == pytest.approx(24.5, abs=5 * np.sqrt((50**2 - 1) / 12 / 8000))


def test_runs_of_one_seed_share_weights_and_batches_whatever_their_hyperparameters(chunk):
    slow, fast, other = lane_of_seed(4, lr=0.01), lane_of_seed(4, lr=0.5), lane_of_seed(5, lr=0.01)
    assert_same_bits(slow.state.params, fast.state.params)
    assert (plain(slow.state.params["w"]) != plain(other.state.params["w"])).all()
    rewards = [float(chunk(lane, 10, DATA)[1]["reward_mean"]) for lane in (slow, fast, other)]
    assert rewards[0] == rewards[1] != rewards[2]


@pytest.mark.parametrize("seed", [0, -1, 2**31 - 1])
def test_weights_and_updates_have_different_keys(seed):
    key_init, key_run = train.run_keys(np.int32(seed))
    assert (plain(key_init) != plain(key_run)).any()


@pytest.mark.parametrize("fault", ["nan_at", "inf_metric_at"])
def test_a_lane_stops_at_its_last_good_state(chunk, fault):
    good, metrics = chunk(lane_of_seed(2), 6, DATA)
    lane, frozen_metrics = chunk(lane_of_seed(2, **{fault: 6.0}), 20, DATA)
    assert not bool(lane.alive)
    assert int(lane.state.step) == 6
    for part in ("params", "target_params", "opt_state"):
        assert_same_bits(getattr(lane.state, part), getattr(good.state, part))
    for name in metrics:  # of the six updates that counted
        assert float(frozen_metrics[name]) == pytest.approx(float(metrics[name]), rel=1e-6)


def test_a_frozen_lane_stays_frozen_and_reports_nan(chunk):
    lane, _ = chunk(lane_of_seed(2, nan_at=6.0), 20, DATA)
    healed = lane.replace(state=lane.state.replace(hparams=toy_hparams()))  # even if the cause has gone
    later, metrics = chunk(healed, 50, DATA)
    assert_same_bits(later, healed)
    assert all(np.isnan(value) for value in metrics.values())


@pytest.fixture(scope="module", params=["vmap", "map"])
def pack(request: pytest.FixtureRequest) -> Iterator[Callable[[list[float], list[int]], Any]]:
    """(rates, seeds) -> lanes and metrics after forty updates side by side, under one lane mode."""
    advance = sweep.over_lanes(train.make_chunk(toy(), 8), request.param)
    init = jax.jit(jax.vmap(lambda h, seed: train.init_lane(toy(), h, seed)))

    def run(rates: list[float], seeds: list[int]) -> Any:
        hparams = sweep.stack([toy_hparams(lr=rate) for rate in rates])
        return advance(init(hparams, np.int32(seeds)), jnp.int32(40), DATA)

    run.mode = request.param  # type: ignore[attr-defined]
    yield run


@pytest.mark.parametrize("lr", [np.nan, np.inf, 1e30])
def test_neighbours_of_a_bad_lane_are_what_they_are_without_it(pack, lr):
    (lanes, metrics), (alone, alone_metrics) = pack([0.1, lr, 0.3], [0, 1, 2]), pack([0.1, 0.3], [0, 2])
    np.testing.assert_array_equal(lanes.alive, [True, False, True])
    np.testing.assert_array_equal(lanes.state.step, [40, 0, 40])
    assert all(np.isnan(value[1]) for value in metrics.values())
    first = lane_of_seed(1).state
    np.testing.assert_allclose(lanes.state.params["w"][1], first.params["w"], rtol=1e-6)
    for there, here in ((0, 0), (2, 1)):
        with_bad = jax.tree.map(lambda leaf, i=there: plain(leaf)[i], (lanes, metrics))
        without = jax.tree.map(lambda leaf, i=here: plain(leaf)[i], (alone, alone_metrics))
        if pack.mode == "map":
            assert_same_bits(with_bad, without)
        for a, b in zip(jax.tree.leaves(with_bad), jax.tree.leaves(without), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_finite_looks_at_metrics_and_parameters():
    state = lane_of_seed(0).state
    bad = state.replace(params={"w": jnp.array([0.0, jnp.inf, 0.0])})
    assert bool(train.is_finite(state, {"loss": jnp.float32(1.0)}))
    assert not bool(train.is_finite(bad, {"loss": jnp.float32(1.0)}))
    assert not bool(train.is_finite(state, {"a": jnp.float32(0.0), "loss": jnp.float32(jnp.nan)}))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_needs_a_transition(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}; it must be at least 1"):
        train.make_chunk(toy(), batch_size)
