"""What every planner does with its data: units measured once, values of noisy plans, averages of the weights."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import chex
from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff import diffusion
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.planner import Known, PlannerConfig, patched
from jaxdiff.algorithms.process import Process
from jaxdiff.algorithms.steps import learn, next_state
from jaxdiff.data import (
    Dataset,
    Normaliser,
    Segment,
    Segments,
    blank_normaliser,
    check_normaliser,
    fit_normaliser,
    returns_to_go,
)
from jaxdiff.networks import BIASES, TrajectoryValue
from jaxdiff.types import Array, Key, Metrics, PyTree, Spec, TrainState

DATA = "data"  # where a state keeps its statistics, in opt_state


@struct.dataclass
class Statistics:
    """What was measured on the data before the first update."""

    obs: Normaliser
    action: Normaliser
    returns: Array  # [2] smallest and largest return to go in the data


def statistics_of(state: TrainState) -> Statistics:
    """The statistics in a planner's state."""
    found: Statistics = state.opt_state[DATA]
    return found


def with_statistics(state: TrainState, statistics: Statistics) -> TrainState:
    """The state with these statistics."""
    return state.replace(opt_state={**state.opt_state, DATA: statistics})  # type: ignore[attr-defined,no-any-return]


def blank_statistics(normaliser: str, spec: Spec) -> Statistics:
    """Statistics of a state that has seen no data: of the box [-1, 1], returns 0 to 1. KeyError: unknown normaliser."""
    check_normaliser(normaliser)
    obs, action = (blank_normaliser(normaliser, n) for n in (spec.obs_dim - spec.goal_dim, spec.action_dim))
    return Statistics(obs, action, jnp.array([0.0, 1.0]))


def make_fit(normaliser: str, spec: Spec, segment: Segment) -> Callable[[TrainState, Dataset], TrainState]:
    """(state, dataset) -> state that knows the data's units and its range of returns; pure."""
    state_dim = spec.obs_dim - spec.goal_dim

    def fit(state: TrainState, dataset: Dataset) -> TrainState:
        returns = returns_to_go(dataset, segment)
        obs = fit_normaliser(normaliser, dataset.transitions.obs[:, :state_dim])
        action = fit_normaliser(normaliser, dataset.transitions.action)
        return with_statistics(state, Statistics(obs, action, jnp.stack([returns.min(), returns.max()])))

    return fit


def check_segments(batch: Segments, spec: Spec, horizon: int) -> None:
    """obs [B, H, O], action [B, H, U], mask [B, H], return_to_go [B].

    Raises:
      AssertionError: another shape; the message has the one found.
    """
    chex.assert_shape(batch.obs, (None, horizon, spec.obs_dim))
    chex.assert_shape(batch.action, (None, horizon, spec.action_dim))
    chex.assert_shape(batch.mask, (None, horizon))
    chex.assert_rank(batch.return_to_go, 1)
    chex.assert_equal_shape_prefix([batch.obs, batch.action, batch.mask, batch.return_to_go], 1)


Loss = Callable[[PyTree], tuple[Array, Metrics]]  # params -> (scalar, metrics)


def step_networks(
    state: TrainState, losses: Mapping[str, tuple[Loss, Array]], period: int
) -> tuple[TrainState, Metrics]:
    """One update of a planner: each network down its (loss, step size), averages moved, statistics kept.

    Args:
      state: before it.
      losses: by the networks' names; those that the state does not have are left out.
      period: updates between moves of the averaged weights.
    """
    h = state.hparams
    learned = {}
    for name in state.params:
        loss, lr = losses[name]
        learned[name] = learn(state, name, loss, cosine_decay(lr, state.step, h.lr_decay_steps))
    rate = average_rate(state.step, h.ema_rate, period, h.ema_start)
    new, metrics = next_state(state, learned, dict.fromkeys(learned, rate))
    return with_statistics(new, statistics_of(state)), metrics


def average_rate(step: Array, rate: Array, period: int, start: Array) -> Array:
    """How far the averaged weights move after update `step`: 1 before `start`, then `rate` in every period-th update.

    Reference: Janner et al. 2022, arXiv:2205.09991, code: 0.995 every 10 updates, a copy before update 2000.
    """
    return jnp.where(step < start, 1.0, jnp.where(step % period == 0, rate, 0.0))


def present_known(past: Array, count: Array, horizon: int, offset: int = 0) -> Known:
    """The last `count` of h observations [*B, h, O] as the first tokens of a plan [*B, H, offset + O]."""
    history, width = past.shape[-2:]
    index = jnp.clip(jnp.arange(horizon) + history - count, 0, history - 1)
    values = jnp.concatenate([jnp.zeros((*past.shape[:-2], horizon, offset)), past[..., index, :]], axis=-1)
    mask = (jnp.arange(horizon) < count)[:, None] & (jnp.arange(offset + width) >= offset)[None]
    return Known(jnp.broadcast_to(mask, values.shape), values)


def with_goal(known: Known, goal: Array) -> Known:
    """Known entries with goal [*B, O] as the observation of the last token, its last O numbers."""
    offset = known.values.shape[-1] - goal.shape[-1]
    end = jnp.concatenate([jnp.zeros((*goal.shape[:-1], offset)), goal], axis=-1)
    horizon, dim = known.values.shape[-2:]
    here = (jnp.arange(horizon) == horizon - 1)[:, None] & (jnp.arange(dim) >= offset)[None]
    mask = jnp.broadcast_to(here, known.values.shape)
    values = jnp.where(mask, jnp.broadcast_to(end[..., None, :], known.values.shape), known.values)
    return Known(jnp.broadcast_to(known.mask, mask.shape) | mask, values)


class PlanValue(NamedTuple):
    """A value of noisy plans, learned by regression on the return to go.

    init(key) -> params
    loss(key, params, x0 [B, H, D], known, target [B]) -> [B]
    value(params, x [*B, H, D], level) -> [*B]
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, Array, Known, Array], Array]
    value: Callable[[PyTree, Array, diffusion.Level], Array]


def make_value(config: PlannerConfig, process: Process, dim: int) -> PlanValue:
    """loss = (V(x_t, t) - R)**2, x_t with its known entries clean.

    So V(x_t, t) = E[R | x_t]. Its network has the planner's width, resolutions and kernel.

    Reference: Janner et al. 2022, arXiv:2205.09991, section 3.2 and code.
    """
    network = TrajectoryValue(width=config.width, mults=config.mults, kernel_size=config.kernel_size)

    def init(key: Key) -> PyTree:
        params = network.init(key, patched(jnp.zeros((config.horizon, dim)), config.patch), jnp.zeros(()))
        return BIASES[config.bias](jax.random.fold_in(key, 1), params)

    def value(params: PyTree, x: Array, level: diffusion.Level) -> Array:
        t = jnp.asarray(process.c_noise(level))
        return network.apply(params, patched(x, config.patch), t)  # type: ignore[return-value]

    def loss(key: Key, params: PyTree, x0: Array, known: Known, target: Array) -> Array:
        key_level, key_noise = jax.random.split(key)
        level = process.random_level(key_level, x0.shape[:1])
        x_t = known.write(diffusion.add_noise(level, x0, jax.random.normal(key_noise, x0.shape)))
        return jnp.square(value(params, x_t, level) - target)

    return PlanValue(init, loss, value)


def return_scale(statistics: Statistics) -> Array:
    """The largest magnitude of a return in the data, 1 where all are 0: what values are learned in units of."""
    largest = jnp.abs(statistics.returns).max()
    return jnp.where(largest > 0, largest, 1.0)
