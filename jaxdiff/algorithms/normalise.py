"""Observation normalisation as `Algorithm -> Algorithm`."""

import jax.numpy as jnp
import numpy as np

from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, TrainState, Transition

MIN_STD = 1e-3  # relative to the largest deviation: a constant feature is centred, not blown up


def obs_statistics(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature of obs [N, ..., O]; a (nearly) constant feature gets 1.

    Returns:
      (mean [O], std [O]), float32.
    """
    flat = np.asarray(obs, np.float64).reshape(-1, obs.shape[-1])
    std = flat.std(axis=0)
    return flat.mean(axis=0).astype(np.float32), np.where(std > MIN_STD * std.max(), std, 1.0).astype(np.float32)


def normalise_obs(algorithm: Algorithm, mean: np.ndarray, std: np.ndarray) -> Algorithm:
    """The algorithm on observations (obs - mean) / std, while data and environments keep their own units.

    Args:
      algorithm: any algorithm whose update takes a `Transition`.
      mean: [O].
      std: [O], > 0.

    Raises:
      ValueError: a standard deviation that is not positive and finite.
    """
    if not (np.isfinite(std).all() and (np.asarray(std) > 0).all()):
        raise ValueError(f"obs std must be positive and finite, got {np.asarray(std).tolist()}; see obs_statistics.")

    def scale(obs: Array) -> Array:
        return (obs - _like(mean, obs)) / _like(std, obs)

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        batch = batch.replace(obs=scale(batch.obs), next_obs=scale(batch.next_obs))  # type: ignore[attr-defined]
        return algorithm.update(key, state, batch)

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        return algorithm.act(key, state, scale(obs), memory)

    return algorithm._replace(update=update, act=act)


def _like(feature: np.ndarray, obs: Array) -> Array:
    """feature [O] with as many axes as obs [*B, O]."""
    return jnp.asarray(feature).reshape((1,) * (obs.ndim - 1) + (-1,))
