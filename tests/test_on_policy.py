"""The on-policy loop: what a rollout holds, that it can be cut anywhere, and what becomes of the environments."""

from typing import Any

from counting_env import counting
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_algorithm import assert_same_bits, plain, toy, toy_hparams

from jaxdiff import train
from jaxdiff.data import Window, Windows
from jaxdiff.types import Algorithm, Env, Rollout, TrainState, Transition

CONFIG = train.OnPolicyConfig(num_envs=4, rollout_length=3)


def deciding(window: Window | None = None) -> Algorithm:
    """The toy with decisions. Its state keeps the last rollout, and each record what was shown, drawn and known."""
    history, chunk = window or Window()
    rows, base = (CONFIG.rollout_length, CONFIG.num_envs), toy()

    def decide(key: Any, state: TrainState, obs: Any) -> Any:
        newest = obs if window is None else obs[:, -1]
        noise = jax.random.normal(key, (newest.shape[0], chunk, 3))
        action = jnp.tanh((newest * state.params["w"][None])[:, None] + noise)
        known = jnp.broadcast_to(state.params["w"], newest.shape)
        return action, {"shown": obs, "noise": noise, "known": known}

    def init(key: Any, hparams: Any) -> TrainState:
        zeros = jnp.zeros((*rows, 3))
        batch: Any = Transition(zeros, zeros, zeros[..., 0], zeros[..., 0], zeros)
        record = {"shown": zeros, "noise": jnp.zeros((*rows, chunk, 3)), "known": zeros}
        if window is not None:
            past, actions = jnp.zeros((*rows, history, 3)), jnp.zeros((*rows, chunk, 3))
            batch = Windows(past, actions, actions[..., 0], jnp.zeros(rows, jnp.int32), zeros[..., 0], past)
            record["shown"] = past
        state = base.init(key, hparams)
        return state.replace(opt_state={**state.opt_state, "seen": Rollout(batch, jnp.zeros(rows, bool), record)})  # type: ignore[attr-defined]

    def update(key: Any, state: TrainState, rollout: Rollout) -> Any:
        flat = {"obs": rollout.batch.obs.reshape(-1, 3), "reward": rollout.batch.reward.ravel()}
        batch = Transition(flat["obs"], flat["obs"], flat["reward"], flat["reward"], flat["obs"])
        inner = state.replace(opt_state={"mu": state.opt_state["mu"]})  # type: ignore[attr-defined]
        inner, metrics = base.update(key, inner, batch)
        return inner.replace(opt_state={**inner.opt_state, "seen": rollout}), metrics  # type: ignore[attr-defined]

    return base._replace(init=init, update=update, window=window, decide=decide)


def fresh(window: Window | None = None, seed: int = 0, env: Env | None = None, **changes: float) -> train.Lane:
    hparams = toy_hparams(**changes)
    return train.init_on_policy_lane(deciding(window), env or counting(), CONFIG, hparams, np.int32(seed))


@pytest.fixture(scope="module")
def chunk():
    return jax.jit(train.make_on_policy_chunk(deciding(), counting(), CONFIG))


def stream(chunk: Any, lane: train.Lane, count: int) -> Rollout:
    """The rollouts of so many iterations behind one another, [count T, E, ...]."""
    rollouts = []
    for _ in range(count):
        lane, _ = chunk(lane, 1, None)
        rollouts.append(jax.tree.map(np.asarray, lane.state.opt_state["seen"]))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rollouts)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def lived(chunk):
    """Twelve iterations of single transitions: nine episodes in each of four environments."""
    return stream(chunk, fresh(), 12)


def through_numpy(lane: train.Lane) -> train.Lane:
    """As a checkpoint would store it."""

    def copy(leaf: Any) -> Any:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.wrap_key_data(plain(leaf)) if is_key else plain(leaf)

    return jax.tree.map(copy, lane)  # type: ignore[no-any-return]


def test_it_can_be_cut_anywhere_with_its_environments(chunk):
    whole, _ = chunk(fresh(), 40, None)
    for cuts in ((20, 20), (1, 39), (13, 0, 27)):
        pieces = fresh()
        for count in cuts:
            pieces, _ = chunk(through_numpy(pieces), count, None)
        assert_same_bits(pieces, whole)
    assert int(whole.experience.iteration) == int(whole.state.step) == 40


def test_another_seed_lives_and_learns_otherwise(chunk):
    first, second = (chunk(fresh(seed=seed), 5, None)[0] for seed in (0, 1))
    assert (plain(first.state.params["w"]) != plain(second.state.params["w"])).all()
    assert (plain(first.experience.past) != plain(second.experience.past)).any(axis=-1).all()


def test_other_numbers_seeds_and_hyperparameters_trace_nothing_anew(trace_counter):
    traced = jax.jit(trace_counter(train.make_on_policy_chunk(deciding(), counting(), CONFIG)))
    lane, _ = traced(fresh(), jnp.int32(2), None)
    traced(lane, jnp.int32(0), None)
    traced(fresh(seed=7, lr=0.5), jnp.int32(5), None)
    assert trace_counter.count == 1


def test_every_row_is_a_transition_that_the_environment_made(lived):
    rows = lived.batch
    assert rows.obs.shape == (36, 4, 3)
    np.testing.assert_array_equal(rows.next_obs[..., 0], rows.obs[..., 0])
    np.testing.assert_array_equal(rows.next_obs[..., 1], rows.obs[..., 1] + 1)
    np.testing.assert_allclose(rows.next_obs[..., 2], rows.action.sum(axis=-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(rows.reward, rows.obs[..., 0] + rows.next_obs[..., 1], rtol=1e-6)


def test_an_episode_ends_by_its_clock_too_and_is_discounted_only_by_its_task(lived):
    rows = lived.batch
    last = rows.next_obs[..., 1] == 4
    np.testing.assert_array_equal(lived.ended, last)
    np.testing.assert_array_equal(rows.discount, np.where(last & (rows.obs[..., 0] <= 0.5), 0.0, 1.0))
    assert {0.0, 1.0} == set(rows.discount[last])


def test_rows_follow_one_another_within_and_between_rollouts(lived):
    before, after, ended = lived.batch.next_obs[:-1], lived.batch.obs[1:], lived.ended[:-1]
    np.testing.assert_array_equal(after[~ended], before[~ended])
    np.testing.assert_array_equal(after[ended][:, 1:], 0.0)
    starts = after[ended][:, 0]
    assert len(np.unique(starts)) == len(starts) == 32  # every episode is one of its own


def test_the_policy_that_decides_is_the_newest_and_draws_anew_each_time(chunk):
    lane, noise = fresh(), []
    for _ in range(3):
        known = plain(lane.state.params["w"])
        lane, _ = chunk(lane, 1, None)
        seen = lane.state.opt_state["seen"]
        np.testing.assert_array_equal(seen.record["known"], np.broadcast_to(known, (3, 4, 3)))
        np.testing.assert_array_equal(seen.record["shown"], seen.batch.obs)
        wanted = np.tanh(plain(seen.batch.obs) * known + plain(seen.record["noise"])[..., 0, :])
        np.testing.assert_allclose(seen.batch.action, wanted, rtol=1e-5, atol=1e-6)
        noise.append(plain(seen.record["noise"]))
    assert len(np.unique(np.concatenate(noise))) == 3 * 3 * 4 * 3


def test_returns_of_whole_episodes_are_reported(chunk):
    lane, metrics = chunk(fresh(), 1, None)
    assert np.isnan(metrics["train_return"])  # three steps of four
    starts = plain(lane.state.opt_state["seen"].batch.obs)[0, :, 0]
    lane, metrics = chunk(lane, 1, None)
    np.testing.assert_allclose(metrics["train_return"], np.mean(4 * starts + 10), rtol=1e-5)
    np.testing.assert_allclose(lane.experience.last_return, 4 * starts + 10, rtol=1e-5)


def test_metrics_are_averages_over_the_iterations(chunk, lived):
    _, metrics = chunk(fresh(), 12, None)
    np.testing.assert_allclose(metrics["reward_mean"], lived.batch.reward.mean(), rtol=1e-5)


def test_a_bad_update_freezes_the_lane_at_its_last_good_state(chunk):
    good, _ = chunk(fresh(nan_at=4.0), 4, None)
    assert bool(good.alive)
    lane, metrics = chunk(good, 16, None)
    assert not bool(lane.alive)
    assert_same_bits(lane.state, good.state)
    assert np.isnan(metrics["loss"])
    assert int(lane.experience.iteration) == 20  # its environments go on


CHUNKS = Window(1, 3)


@pytest.fixture(scope="module")
def in_chunks():
    """Eight rollouts in chunks of three actions, in an environment that claims its task's end once it is over."""

    def step(state: Any, action: Any) -> Any:
        state, out = counting().step(state, action)
        return state, out._replace(terminated=out.terminated | (state.time > 4))

    env = counting()._replace(step=step)
    chunk = jax.jit(train.make_on_policy_chunk(deciding(CHUNKS), env, CONFIG))
    return stream(chunk, fresh(CHUNKS, env=env), 8)


def test_a_chunk_stops_where_its_episode_ends(in_chunks):
    """Four steps are a whole chunk, then one step of the second; what the environment says after it is not heard."""
    rows = in_chunks.batch
    start, time = rows.obs[..., 0, 0], rows.obs[..., 0, 1]
    assert rows.action.shape == (24, 4, 3, 3)
    assert set(time.ravel()) == {0.0, 3.0}
    np.testing.assert_array_equal(rows.length, np.where(time == 0, 3, 1))
    steps = time[..., None] + np.arange(1, 4)
    np.testing.assert_allclose(rows.reward, np.where(steps <= 4, start[..., None] + steps, 0.0), rtol=1e-6)
    np.testing.assert_array_equal(in_chunks.ended, time == 3)
    np.testing.assert_array_equal(rows.discount, np.where((time == 3) & (start <= 0.5), 0.0, 1.0))
    assert {0.0, 1.0} == set(rows.discount[time == 3])


def test_after_a_chunk_comes_what_it_led_to_or_a_fresh_episode(in_chunks):
    rows, ended = in_chunks.batch, in_chunks.ended
    start, time = rows.obs[..., 0, 0], rows.obs[..., 0, 1]
    np.testing.assert_array_equal(rows.next_obs[..., 0, 0], start)
    np.testing.assert_array_equal(rows.next_obs[..., 0, 1], np.where(time == 0, 3, 4))
    led_to = np.where(ended, rows.action[:, :, 0].sum(axis=-1), rows.action[:, :, 2].sum(axis=-1))
    np.testing.assert_allclose(rows.next_obs[..., 0, 2], led_to, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows.obs[1:][~ended[:-1]], rows.next_obs[:-1][~ended[:-1]])
    np.testing.assert_array_equal(rows.obs[1:][ended[:-1]][:, 0, 1:], 0.0)
    assert (start[1:][ended[:-1]] != start[:-1][ended[:-1]]).all()


def test_a_history_is_of_decisions_and_begins_with_the_first_one_repeated():
    window = Window(3, 1)
    chunk = jax.jit(train.make_on_policy_chunk(deciding(window), counting(), CONFIG))
    lived = stream(chunk, fresh(window), 5)
    rows = lived.batch
    assert rows.obs.shape == rows.next_obs.shape == (15, 4, 3, 3)
    np.testing.assert_array_equal(lived.record["shown"], rows.obs)
    time = rows.obs[..., -1, 1]
    assert set(time.ravel()) == {0.0, 1.0, 2.0, 3.0}
    for age in (0, 1, 2):  # decisions ago
        np.testing.assert_array_equal(rows.obs[..., 2 - age, 1], np.maximum(time - age, 0.0))
    np.testing.assert_array_equal(rows.obs[..., 0], np.broadcast_to(rows.obs[..., -1:, 0], rows.obs.shape[:-1]))
    np.testing.assert_array_equal(rows.next_obs[..., :-1, :], rows.obs[..., 1:, :])
    np.testing.assert_array_equal(rows.next_obs[..., -1, 1], time + 1)
    went_on = ~lived.ended[:-1]
    np.testing.assert_array_equal(rows.obs[1:][went_on], rows.next_obs[:-1][went_on])


@pytest.mark.parametrize("field", ["num_envs", "rollout_length"])
def test_sizes_below_one_are_refused(field):
    config = train.OnPolicyConfig(**{field: 0})
    with pytest.raises(ValueError, match=f"online.{field}=0; it must be at least 1"):
        train.make_on_policy_chunk(deciding(), counting(), config)
    with pytest.raises(ValueError, match=f"online.{field}=0"):
        train.init_on_policy_lane(deciding(), counting(), config, toy_hparams(), np.int32(0))


def test_an_algorithm_that_does_not_decide_is_refused():
    with pytest.raises(ValueError, match="learns from any data; the on-policy loop needs one with `decide`"):
        train.make_on_policy_chunk(toy(), counting(), CONFIG)
