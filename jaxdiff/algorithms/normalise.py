"""Observation normalisation as `Algorithm -> Algorithm`."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdiff.rl import Moments, init_moments, update_moments
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Rollout, Spec, TrainState

CLIP = 10.0  # of observations normalised by running statistics, which may be early
MIN_STD = 1e-3  # relative to the largest deviation: a constant feature is centred, not blown up


def obs_statistics(obs: np.ndarray, mask_dim: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature of obs [N, ..., O]; a (nearly) constant feature gets 1.

    Args:
      obs: [N, ..., O].
      mask_dim: the last so many numbers say what is allowed, and stay as they are: mean 0 and deviation 1.

    Returns:
      (mean [O], std [O]), float32.
    """
    flat = np.asarray(obs, np.float64).reshape(-1, obs.shape[-1])
    mean, std = flat.mean(axis=0), flat.std(axis=0)
    std = np.where(std > MIN_STD * std.max(), std, 1.0)
    is_mask = np.arange(len(mean)) >= len(mean) - mask_dim
    return np.where(is_mask, 0.0, mean).astype(np.float32), np.where(is_mask, 1.0, std).astype(np.float32)


def normalise_obs(algorithm: Algorithm, mean: np.ndarray, std: np.ndarray) -> Algorithm:
    """The algorithm on observations (obs - mean) / std, while data and environments keep their own units.

    Args:
      algorithm: any algorithm.
      mean: [O].
      std: [O], > 0.

    Raises:
      ValueError: a standard deviation that is not positive and finite.
    """
    if not (np.isfinite(std).all() and (np.asarray(std) > 0).all()):
        raise ValueError(f"obs std must be positive and finite, got {np.asarray(std).tolist()}; see obs_statistics.")

    return _on_scaled(algorithm, lambda obs: (obs - _like(mean, obs)) / _like(std, obs))


def _on_scaled(algorithm: Algorithm, scale: Callable[[Array], Array]) -> Algorithm:
    """The algorithm with `scale` applied to every observation that it is shown."""

    def update(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        return algorithm.update(key, state, on_observations(batch, scale))

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        return algorithm.act(key, state, scale(obs), memory)

    return algorithm._replace(update=update, act=act, **_also(algorithm, scale))


def normalise_obs_running(algorithm: Algorithm, spec: Spec) -> Algorithm:
    """The algorithm on observations normalised by the mean and deviation of all it has been updated with so far.

    For online learning, where no dataset tells the statistics beforehand. They are part of the state and move after
    each update, so that within one everything is seen in the same units; normalised observations are kept in [-10, 10].
    A mask of actions (`Spec.mask_dim`) stays as it is.
    """
    is_mask = np.arange(spec.obs_dim) >= spec.obs_dim - spec.mask_dim

    def scaled(moments: Moments) -> Callable[[Array], Array]:
        some = moments.var > jnp.square(MIN_STD) * jnp.max(moments.var)
        std = jnp.where(some, jnp.sqrt(jnp.where(some, moments.var, 1.0)), 1.0)

        def scale(obs: Array) -> Array:
            normal = jnp.clip((obs - _like(moments.mean, obs)) / _like(std, obs), -CLIP, CLIP)
            return jnp.where(_like(is_mask, obs), obs, normal)

        return scale

    def split(state: TrainState) -> tuple[TrainState, Algorithm, Moments]:
        moments = state.opt_state["obs"]
        inner = state.replace(opt_state=state.opt_state["algorithm"])  # type: ignore[attr-defined]
        return inner, _on_scaled(algorithm, scaled(moments)), moments

    def join(state: TrainState, moments: Moments) -> TrainState:
        return state.replace(opt_state={"algorithm": state.opt_state, "obs": moments})  # type: ignore[attr-defined,no-any-return]

    def init(key: Key, hparams: Any) -> TrainState:
        return join(algorithm.init(key, hparams), init_moments((spec.obs_dim,)))

    def update(key: Key, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        inner, scaled_algorithm, moments = split(state)
        new, metrics = scaled_algorithm.update(key, inner, batch)
        seen = batch.batch.obs if isinstance(batch, Rollout) else batch.obs
        return join(new, update_moments(moments, seen)), metrics

    def through(name: str) -> Any:
        def call(key: Key, state: TrainState, *args: Any) -> Any:
            inner, scaled_algorithm, _ = split(state)
            return getattr(scaled_algorithm, name)(key, inner, *args)

        return call

    others = {name: through(name) for name in ("explore", "decide") if getattr(algorithm, name) is not None}
    return algorithm._replace(init=init, update=update, act=through("act"), **others)


def running_moments(state: TrainState) -> Moments | None:
    """What `normalise_obs_running` has gathered in a state, or in its lanes; None in the state of another algorithm."""
    found = state.opt_state.get("obs") if isinstance(state.opt_state, dict) else None
    return found if isinstance(found, Moments) else None


def on_observations(batch: Any, function: Callable[[Array], Array]) -> Any:
    """The batch, or the rollout, with the function applied to all its observations."""
    if isinstance(batch, Rollout):
        return batch.replace(batch=on_observations(batch.batch, function))  # type: ignore[attr-defined]
    return batch.replace(obs=function(batch.obs), next_obs=function(batch.next_obs))


def _also(algorithm: Algorithm, scale: Callable[[Array], Array]) -> dict[str, Any]:
    """The algorithm's other ways to act, those that it has."""
    others: dict[str, Any] = {}
    explore, decide = algorithm.explore, algorithm.decide
    if explore is not None:
        others["explore"] = lambda key, state, obs, memory: explore(key, state, scale(obs), memory)
    if decide is not None:
        others["decide"] = lambda key, state, obs: decide(key, state, scale(obs))
    return others


def _like(feature: np.ndarray | Array, obs: Array) -> Array:
    """feature [O] with as many axes as obs [*B, O]."""
    return jnp.asarray(feature).reshape((1,) * (obs.ndim - 1) + (-1,))
