"""Observation normalisation around an algorithm."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.normalise import normalise_obs, normalise_obs_running, obs_statistics, running_moments
from jaxdiff.data import Windows
from jaxdiff.rl import Moments
from jaxdiff.types import Algorithm, Rollout, Spec, TrainState, Transition


def spy() -> Algorithm:
    """An algorithm whose functions return what they are given."""

    def act(key: Any, state: Any, obs: Any, memory: Any) -> Any:
        return obs, memory

    return Algorithm(lambda key, hparams: hparams, lambda key, state, batch: (batch, {}), act, lambda shape: ())


def test_statistics_are_those_of_each_feature():
    obs = np.random.default_rng(0).normal(size=(500, 3)) * [0.1, 1.0, 20.0] + [5.0, 0.0, -3.0]
    mean, std = obs_statistics(obs.astype(np.float32))
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, obs.sum(axis=0) / 500, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(std, np.sqrt(((obs - obs.mean(axis=0)) ** 2).sum(axis=0) / 500), rtol=1e-4)


def test_statistics_pool_agents():
    obs = np.random.default_rng(0).normal(size=(50, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(obs_statistics(obs)[0], obs.reshape(200, 2).mean(axis=0), atol=1e-6)


def test_a_constant_feature_is_centred_and_not_blown_up():
    obs = np.column_stack([np.linspace(-1.0, 1.0, 100), np.full(100, 7.0), 7.0 + 1e-6 * np.arange(100)])
    mean, std = obs_statistics(obs)
    np.testing.assert_array_equal(std[1:], [1.0, 1.0])
    assert np.abs((obs - mean)[:, 1:]).max() < 1e-3


def test_all_features_constant_gives_ones():
    np.testing.assert_array_equal(obs_statistics(np.full((10, 2), 3.0))[1], [1.0, 1.0])


def test_update_and_act_see_normalised_observations_and_nothing_else_changes():
    mean, std = np.array([1.0, -2.0], np.float32), np.array([2.0, 0.5], np.float32)
    algorithm = normalise_obs(spy(), mean, std)
    raw = jnp.array([[3.0, -2.0], [1.0, -1.0]])
    wanted = np.array([[1.0, 0.0], [0.0, 2.0]])
    batch = Transition(raw, jnp.ones((2, 1)), jnp.ones(2), jnp.ones(2), raw + 1.0)
    seen, _ = algorithm.update(jax.random.key(0), None, batch)  # type: ignore[arg-type]
    np.testing.assert_allclose(seen.obs, wanted)
    np.testing.assert_allclose(seen.next_obs, wanted + 1.0 / std)
    for field in ("action", "reward", "discount"):
        assert getattr(seen, field) is getattr(batch, field)
    for obs in (raw[0], raw, raw[None, None]):
        action, _ = algorithm.act(jax.random.key(0), None, obs, ())  # type: ignore[arg-type]
        np.testing.assert_allclose(action, wanted[0] if obs.ndim == 1 else wanted.reshape(obs.shape))


@pytest.mark.parametrize("std", [[1.0, 0.0], [1.0, -1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_deviation_that_cannot_divide_is_refused(std):
    with pytest.raises(ValueError, match="obs std must be positive and finite, got .*see obs_statistics"):
        normalise_obs(spy(), np.zeros(2), np.array(std))


def test_fields_of_transition_are_all_considered():
    """A new field must be decided on here: is it in units of observations?"""
    assert {f.name for f in dataclasses.fields(Transition)} == {"obs", "action", "reward", "discount", "next_obs"}


def online_spy(**others: Any) -> Algorithm:
    """A spy whose update keeps what it was shown, and counts, in its own optimiser's state."""

    def init(key: Any, hparams: Any) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), {}, {}, {"seen": jnp.zeros(())}, hparams)

    def update(key: Any, state: TrainState, batch: Any) -> Any:
        return state.replace(step=state.step + 1, opt_state={"seen": batch}), {}  # type: ignore[attr-defined]

    return spy()._replace(init=init, update=update, **others)


def running(**others: Any) -> tuple[Algorithm, TrainState]:
    algorithm = normalise_obs_running(online_spy(**others), Spec("test", 3, 1, 9))
    return algorithm, algorithm.init(jax.random.key(0), None)


def as_batch(obs: np.ndarray) -> Transition:
    zeros = jnp.zeros(obs.shape[:-1])
    return Transition(
        jnp.asarray(obs, jnp.float32), zeros[..., None], zeros, zeros, jnp.asarray(obs + 1.0, jnp.float32)
    )


def act(algorithm: Algorithm, state: TrainState, obs: Any) -> np.ndarray:
    return np.asarray(algorithm.act(jax.random.key(0), state, jnp.asarray(obs, jnp.float32), ())[0])


def batches() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.normal(size=(n, 3)) * [0.1, 1.0, 20.0] + [5.0, 0.0, -3.0] for n in (40, 1, 300)]


def test_running_statistics_are_those_of_all_that_was_learnt_from():
    algorithm, state = running()
    for obs in batches():
        state, _ = algorithm.update(jax.random.key(0), state, as_batch(obs))
    everything = np.concatenate(batches())
    moments = state.opt_state["obs"]
    assert int(moments.count) == 341
    np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moments.var, everything.var(axis=0), rtol=1e-3)
    for shape in ((3,), (7, 3), (2, 5, 3)):
        obs = np.random.default_rng(3).normal(size=shape)
        wanted = np.clip((obs - everything.mean(axis=0)) / everything.std(axis=0), -10.0, 10.0)
        assert (np.abs(wanted[..., 0]) == 10.0).all()  # 50 deviations away
        np.testing.assert_allclose(act(algorithm, state, obs), wanted, rtol=1e-3, atol=1e-3)


def test_before_the_first_update_observations_are_themselves_within_bounds():
    algorithm, state = running()
    np.testing.assert_array_equal(act(algorithm, state, [[-50.0, 0.5, 3.0]]), [[-10.0, 0.5, 3.0]])


def test_an_update_sees_by_the_statistics_it_began_with_and_moves_them_after():
    algorithm, state = running()
    first, second = (as_batch(obs) for obs in batches()[::2])
    state, _ = algorithm.update(jax.random.key(0), state, first)
    seen = state.opt_state["algorithm"]["seen"]
    np.testing.assert_array_equal(seen.obs, np.clip(first.obs, -10.0, 10.0))
    mean, std = np.asarray(first.obs).mean(axis=0), np.asarray(first.obs).std(axis=0)
    state, _ = algorithm.update(jax.random.key(0), state, second)
    seen = state.opt_state["algorithm"]["seen"]
    for name in ("obs", "next_obs"):
        wanted = np.clip((np.asarray(getattr(second, name)) - mean) / std, -10.0, 10.0)
        np.testing.assert_allclose(getattr(seen, name), wanted, rtol=1e-3, atol=1e-3)
    assert int(state.step) == 2
    assert int(state.opt_state["obs"].count) == 340
    assert running_moments(state) is state.opt_state["obs"]
    assert running_moments(online_spy().init(jax.random.key(0), None)) is None


def test_a_running_constant_feature_is_centred_and_not_blown_up():
    algorithm, state = running()
    obs = np.column_stack([np.linspace(-1.0, 1.0, 100), np.full(100, 7.0), 7.0 + 1e-6 * np.arange(100)])
    state, _ = algorithm.update(jax.random.key(0), state, as_batch(obs))
    shown = act(algorithm, state, obs)
    assert np.abs(shown[:, 1:]).max() < 1e-3
    np.testing.assert_allclose(shown[:, 0].std(), 1.0, rtol=1e-3)
    same, state = running()
    state, _ = same.update(jax.random.key(0), state, as_batch(np.full((8, 3), 3.0)))  # nothing varies
    np.testing.assert_allclose(act(same, state, np.full((1, 3), 3.5)), np.full((1, 3), 0.5), atol=1e-5)


def test_rollouts_and_histories_count_as_the_rows_that_they_hold():
    algorithm, state = running()
    obs = np.random.default_rng(4).normal(size=(4, 5, 2, 3)) * 2.0 + 1.0  # [T, E, h, O]
    windows = Windows(jnp.asarray(obs, jnp.float32), *[jnp.zeros((4, 5))] * 4, jnp.asarray(obs, jnp.float32))
    ended, record = jnp.zeros((4, 5), bool), jnp.ones((4, 5))
    state, _ = algorithm.update(jax.random.key(0), state, Rollout(windows, ended, record))
    seen = state.opt_state["algorithm"]["seen"]
    assert seen.ended is ended
    assert seen.record is record
    np.testing.assert_allclose(state.opt_state["obs"].mean, obs.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(state.opt_state["obs"].var, obs.var(axis=(0, 1, 2)), rtol=1e-4)


@pytest.mark.parametrize("make", ["given", "running"])
def test_other_ways_to_act_are_normalised_too_and_stay_absent_where_they_are(make):
    def wrap(algorithm: Algorithm) -> tuple[Algorithm, Any]:
        if make == "given":
            wrapped = normalise_obs(algorithm, np.array([1.0, -2.0, 0.0]), np.array([2.0, 0.5, 1.0]))
            return wrapped, wrapped.init(jax.random.key(0), None)
        wrapped = normalise_obs_running(algorithm, Spec("test", 3, 1, 9))
        state = wrapped.init(jax.random.key(0), None)
        moments = Moments(jnp.float32(9.0), jnp.array([1.0, -2.0, 0.0]), jnp.array([4.0, 0.25, 1.0]))
        return wrapped, state.replace(opt_state={**state.opt_state, "obs": moments})  # type: ignore[attr-defined]

    plain, _ = wrap(online_spy())
    assert plain.explore is None
    assert plain.decide is None
    algorithm, state = wrap(
        online_spy(
            explore=lambda key, state, obs, memory: (obs, memory), decide=lambda key, state, obs: (2.0 * obs, obs)
        )
    )
    obs = jnp.array([[3.0, -2.0, 1.0]])
    wanted = np.array([[1.0, 0.0, 1.0]])
    assert algorithm.explore is not None
    assert algorithm.decide is not None
    explored, memory = algorithm.explore(jax.random.key(0), state, obs, "memory")
    np.testing.assert_allclose(explored, wanted, atol=1e-6)
    assert memory == "memory"
    decided, record = algorithm.decide(jax.random.key(0), state, obs)
    np.testing.assert_allclose(decided, 2.0 * wanted, atol=1e-6)
    np.testing.assert_allclose(record, wanted, atol=1e-6)


def test_masks_of_actions_stay_as_they_are():
    obs = np.array([[5.0, 1.0, 0.0], [7.0, 1.0, 1.0]])
    mean, std = obs_statistics(obs, mask_dim=2)
    np.testing.assert_array_equal(mean, [6.0, 0.0, 0.0])
    np.testing.assert_array_equal(std, [1.0, 1.0, 1.0])
    spec = Spec("test", 3, 2, 9, num_actions=2, mask_dim=2)
    algorithm = normalise_obs_running(online_spy(), spec)
    state, _ = algorithm.update(jax.random.key(0), algorithm.init(jax.random.key(0), None), as_batch(obs))
    np.testing.assert_array_equal(act(algorithm, state, obs)[:, 1:], obs[:, 1:])
    np.testing.assert_allclose(act(algorithm, state, obs)[:, 0], [-1.0, 1.0], rtol=1e-5)
