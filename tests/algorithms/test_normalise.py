"""Observation normalisation around an algorithm."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.normalise import normalise_obs, obs_statistics
from jaxdiff.types import Algorithm, Transition


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
