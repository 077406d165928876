"""MADiff: one diffusion model of all agents' future observations, with attention between agents, and inverse dynamics.

model    x [T, A, O], the first C = history - 1 rows past, row C the present; what is known is written clean into x_t:
           centralised     rows 0 .. C of everyone
           decentralised   rows 0 .. C of one ego, drawn per example; its teammates' past is zeros, and what they see
                           now is predicted with their future (teammate modelling)
         loss = E |target - F_theta(x_t, t, R)|**2 over what is not known; R_i the return to go of each agent, each
         dropped with probability condition_dropout
inverse  loss = E |a_i - f_phi(o_i, o_i')|**2 on clean steps from the present on; cross-entropy where actions are
         discrete, among those that are allowed;   total = (model + inverse) / 2
acting   x0_hat(null) + w (x0_hat(R) - x0_hat(null)), from start_temperature * x_T; then a_i = f_phi(o_i, next o_i of
         the plan). Decentralised, every agent is the ego of a plan of its own and follows its own rows of it

So an agent's action depends on its own observations alone where the execution is decentralised; `shared_noise` lets
all draw the same plan noise, common randomness by which they may still agree.

Returns are relative, 0 the smallest and 1 the largest return to go in the data; the released code divides by a constant
of the task. With discrete actions the last numbers of an observation are the mask of what is allowed
(`Spec.mask_dim`), and a plan contains them.

Reference: Zhu et al. 2024, arXiv:2305.17330; details that only the released code shows are marked [code].
"""

import dataclasses

import chex
from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.acting import ActConfig
from jaxdiff.algorithms.conditions import relative_return
from jaxdiff.algorithms.planner import Known, PlannerConfig, Team, check_warm, make_planner
from jaxdiff.algorithms.search import check_search
from jaxdiff.algorithms.steps import initial_state
from jaxdiff.algorithms.trajectories import (
    Statistics,
    blank_statistics,
    statistics_of,
    step_networks,
    with_statistics,
)
from jaxdiff.data import Dataset, Segment, Segments, check_padding, fit_normaliser, returns_to_go
from jaxdiff.multi.egos import of_ego, of_everyone
from jaxdiff.multi.inverse import make_inverse
from jaxdiff.multi.team_acting import PlanSizes, centralised, decentralised
from jaxdiff.multi.teams import team_size, together
from jaxdiff.rl import agent_weights
from jaxdiff.rl.factors import EXECUTIONS
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    planner: PlannerConfig = PlannerConfig(
        "agent_unet", width=128, mults=(1, 4, 8), horizon=24, kind="eps", num_levels=200, num_steps=200, clip=True
    )
    act: ActConfig = ActConfig(control="inverse")
    execution: str = "decentralised"  # or "centralised": whether acting knows what all agents see
    attention: bool = True  # between agents; without it an agent's rows tell nothing about another's
    weighted: bool = False  # agents' losses count w_i**2, w learned with mean 1 (DoF's weighted concat)
    teammates: bool = True  # decentralised: model what the others see, not only the ego
    history: int = 1  # observations a plan begins with, the present one included
    shared_inverse: bool = True  # one inverse dynamics for all agents, or one each
    shared_noise: bool = False  # decentralised: all egos draw the same noise
    inverse_hidden: tuple[int, ...] = (256, 256)
    normaliser: str = "quantile"  # of observations and actions of all agents, one of data.NORMALISERS
    padding: str = "repeat"  # of stretches that run over their episode's end, one of data.PADDINGS [code]
    discount_factor: float = 0.99  # of the return to go, in [0, 1]
    ema_period: int = 10  # updates between moves of the averaged weights [code]


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 2e-4  # Adam step size, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 1e9  # largest global gradient norm, > 0; the code clips none
    condition_dropout: float = 0.25  # probability that an agent's return is dropped in training, in [0, 1]
    guidance_scale: float = 1.2  # w; 1: plain conditional, 0: no condition
    target_return: float = 0.9  # of every agent; 0 the smallest, 1 the largest return to go of the data
    ema_rate: float = 0.005  # share of the new weights in the average, in (0, 1]
    ema_start: float = 2000.0  # updates during which the average is a copy
    start_temperature: float = 0.5  # scale of x_T [code], >= 0
    act_temperature: float = 1.0  # scale of the noise injected while planning, >= 0


def check(config: Config, spec: Spec) -> None:
    """Refuses settings that exclude one another, and tasks without agents.

    Raises:
      KeyError: an unknown execution or padding.
      ValueError: a number out of range.
    """
    team_size(spec)
    if config.execution not in EXECUTIONS:
        raise unknown_name("execution", config.execution, EXECUTIONS)
    check_padding(config.padding)
    if config.ema_period < 1 or not 1 <= config.history < config.planner.horizon:
        raise ValueError(
            f"ema_period={config.ema_period} and history={config.history}; both must be at least 1, and the history "
            f"shorter than horizon={config.planner.horizon}, of which it is a part."
        )
    if config.shared_noise and config.execution == "centralised":
        raise ValueError("shared_noise=True and execution='centralised'; one plan has one noise: leave it False.")


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task with agents.

    Raises:
      KeyError, ValueError: a name or a number out of range, see `check`, `make_planner` and `make_acting`.
    """
    check(config, spec)
    num_agents, dim, horizon = team_size(spec), spec.obs_dim, config.planner.horizon
    planner = make_planner(config.planner, num_agents * dim, (1,), Team(num_agents, config.attention))
    check_search(config.act.search, horizon, ranked=False)
    check_warm(planner.process, config.act.warm_calls)
    inverse = make_inverse(spec, config.inverse_hidden, shared=config.shared_inverse)
    past = config.history - 1
    segment = Segment(horizon - past, spec.max_episode_steps, config.padding, config.discount_factor, history=past)

    def init(key: Key, hparams: HParams) -> TrainState:
        key_planner, key_inverse = jax.random.split(key)
        params = {"planner": planner.init(key_planner), "inverse": inverse.init(key_inverse)}
        if config.weighted:
            params["weights"] = jnp.zeros(num_agents)
        return with_statistics(initial_state(params, hparams), blank_statistics(config.normaliser, spec))

    def known_in_training(key: Key, x0: Array) -> Known:
        """What is known of x0 [B, T, A, O]: everyone's past, or that of one ego per example."""
        first = x0[:, : config.history]
        if config.execution == "centralised":
            return of_everyone(first, horizon)
        ego = jax.random.randint(key, x0.shape[:1], 0, num_agents)
        own = jnp.take_along_axis(first, ego[:, None, None, None], axis=2)[:, :, 0]
        return of_ego(own, ego, num_agents, horizon, teammates=config.teammates)

    def update(key: Key, state: TrainState, batch: Segments) -> tuple[TrainState, Metrics]:
        chex.assert_shape(batch.obs, (None, horizon, num_agents, dim))
        key_ego, key_keep, key_planner = jax.random.split(key, 3)
        h, statistics = state.hparams, statistics_of(state)
        x0 = statistics.obs.normalise(batch.obs)
        known = known_in_training(key_ego, x0)
        returns = jnp.broadcast_to(batch.return_to_go.reshape(x0.shape[0], -1, 1), (x0.shape[0], num_agents, 1))
        keep = jax.random.bernoulli(key_keep, 1.0 - jnp.asarray(h.condition_dropout), returns.shape)
        cond = (relative_return(returns, statistics.returns), keep.astype(jnp.float32))

        def model_loss(params: PyTree, weights: Array) -> tuple[Array, Metrics]:
            flat = together(x0)
            weight = jnp.broadcast_to(jnp.repeat(jnp.square(weights), dim), flat.shape[1:])
            counted = 1.0 - jnp.mean(jnp.broadcast_to(known.mask, flat.shape).astype(jnp.float32), axis=(1, 2))
            loss = jnp.mean(planner.loss(key_planner, params, flat, cond, known, weight) / counted)
            return 0.5 * loss, {"planner_loss": loss}

        weights = agent_weights(state.params["weights"]) if config.weighted else jnp.ones(num_agents)

        def inverse_loss(params: PyTree) -> tuple[Array, Metrics]:
            lived = batch.mask[:, past + 1 :]  # a step into the padding is no step
            error = inverse.loss(params, x0, batch, statistics.action)[:, past:].mean(axis=-1)
            loss = jnp.sum(lived * error) / jnp.maximum(jnp.sum(lived), 1.0)
            return 0.5 * loss, {"inverse_loss": loss}

        losses = {
            "planner": (lambda params: model_loss(params, weights), h.lr),
            "inverse": (inverse_loss, h.lr),
            "weights": (lambda logits: model_loss(state.params["planner"], agent_weights(logits)), h.lr),
        }
        return step_networks(state, losses, config.ema_period)

    def towards(state: TrainState, obs: Array, next_obs: Array) -> Array:
        """obs, next_obs [*B, A, O] -> [*B, A, U]."""
        statistics = statistics_of(state)
        units = statistics.obs.normalise
        return inverse.action(state.target_params["inverse"], units(obs), units(next_obs), statistics.action)

    sizes = PlanSizes(horizon, config.history, config.teammates, config.shared_noise)
    execute = centralised if config.execution == "centralised" else decentralised
    acting = execute(config.act, spec, planner, towards, sizes)

    def fit(state: TrainState, dataset: Dataset) -> TrainState:
        returns, rows = returns_to_go(dataset, segment), dataset.transitions
        obs, action = (fit_normaliser(config.normaliser, x.reshape(-1, x.shape[-1])) for x in (rows.obs, rows.action))
        return with_statistics(state, Statistics(obs, action, jnp.stack([returns.min(), returns.max()])))

    return Algorithm(init, update, *acting, window=segment, fit=fit)
