"""Decision Diffuser: a diffusion model of state trajectories under conditions, and inverse dynamics for the actions.

model    loss = E |W (target - F_theta(x_t, t, y))|**2 / (H O),  x [H, O]; the first observation is written clean into
         x_t and counts nothing; each condition's embedding is dropped with probability condition_dropout
inverse  loss = E |a_h - f_phi(s_h, s_{h+1})|**2 on clean data;  total = (model + inverse) / 2
acting   x0_hat(null) + w sum_i (x0_hat(y_i) - x0_hat(null)) - v sum_j (x0_hat(z_j) - x0_hat(null)),  y_i what a plan
         should have (a return, a goal, regions to visit), z_j what it should not (regions to avoid); noise times
         act_temperature, in x_T too; then a = f_phi(s, s_1)

Conditions: `returns` the return to go, 0 the smallest and 1 the largest of the data; `goal` the last observation of the
stretch; `regions` one region of the task that the stretch visits, drawn among them. Training sees one region at a time;
several, or none of some, are composed while acting.

Reference: Ajay et al. 2023, arXiv:2211.15657; details that only the released code shows are marked [code]. There
returns are divided by a constant of the task; here the data's range is measured. A history is part of the paper only.
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.acting import ActConfig, Present, Proposal, make_acting
from jaxdiff.algorithms.conditions import Wishes, check_conditions, make_conditions
from jaxdiff.algorithms.planner import Known, PlannerConfig, Warm, check_warm, make_planner
from jaxdiff.algorithms.search import check_search, search
from jaxdiff.algorithms.steps import initial_state
from jaxdiff.algorithms.trajectories import (
    blank_statistics,
    check_segments,
    make_fit,
    make_value,
    present_known,
    return_scale,
    statistics_of,
    step_networks,
    with_goal,
    with_statistics,
)
from jaxdiff.data import Segment, Segments, check_normaliser, check_padding
from jaxdiff.networks import Mlp
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState

MARGIN = 0.25  # of the data's range of returns, by which a target may leave it without a warning


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    planner: PlannerConfig = PlannerConfig(
        width=128, mults=(1, 4, 8), horizon=100, kind="eps", num_levels=200, num_steps=200, clip=True
    )
    act: ActConfig = ActConfig(control="inverse")
    normaliser: str = "quantile"  # of observations and actions, one of data.NORMALISERS
    padding: str = "zeros"  # of stretches that run over their episode's end, one of data.PADDINGS
    conditions: tuple[str, ...] = ("returns",)  # what plans can be conditioned on, of conditions.CONDITIONS
    visit: tuple[str, ...] = ()  # regions of the task that plans should visit, all of them
    avoid: tuple[str, ...] = ()  # regions of the task that plans should not enter
    reach_goal: bool = False  # inpaint the task's goal as the last observation of every plan
    history: int = 1  # observations a plan begins with, once there are so many
    value: bool = False  # learn a value of plans, to rank them
    inverse_hidden: tuple[int, ...] = (256, 256)  # of the inverse dynamics; 512 in the paper
    discount_factor: float = 0.99  # of the return to go, in [0, 1] [code]
    termination_penalty: float = -100.0  # added to the last reward of an episode that terminated [code]
    ema_period: int = 10  # updates between moves of the averaged weights [code]


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 2e-4  # Adam step size, > 0
    value_lr: float = 2e-4  # Adam step size of the value, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 10.0  # largest global gradient norm, > 0
    condition_dropout: float = 0.25  # probability that a condition is dropped in training, in [0, 1]
    guidance_scale: float = 1.2  # w; 1: plain conditional, 0: no condition
    avoid_scale: float = 1.2  # v
    target_return: float = 0.9  # 0 the smallest, 1 the largest return to go of the data
    ema_rate: float = 0.005  # share of the new weights in the average, in (0, 1]
    ema_start: float = 2000.0  # updates during which the average is a copy
    act_temperature: float = 0.5  # scale of x_T and of the noise injected while planning, >= 0


def check(config: Config, spec: Spec) -> None:
    """Refuses settings that exclude one another.

    Raises:
      KeyError: an unknown condition, region, normaliser or padding.
      ValueError: counts out of range, or a condition that the task cannot give.
    """
    check_normaliser(config.normaliser)
    check_padding(config.padding)
    check_conditions(config.conditions, (*config.visit, *config.avoid), spec)
    if config.ema_period < 1 or not 1 <= config.history < config.planner.horizon:
        raise ValueError(
            f"ema_period={config.ema_period} and history={config.history}; both must be at least 1, and the history "
            f"shorter than horizon={config.planner.horizon}."
        )
    if config.reach_goal and spec.goal is None and not spec.goal_dim:
        raise ValueError(f"reach_goal=True, and {spec.name} has no goal; leave reach_goal=False.")


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      KeyError, ValueError: a name or a number out of range, see `check`, `make_planner` and `make_acting`.
    """
    check(config, spec)
    horizon, dim = config.planner.horizon, spec.obs_dim - spec.goal_dim
    conditions = make_conditions(config.conditions, spec)
    planner = make_planner(config.planner, dim, conditions.sizes)
    check_search(config.act.search, horizon, ranked=config.value)
    check_warm(planner.process, config.act.warm_calls)
    values = make_value(config.planner, planner.process, dim) if config.value else None
    inverse = Mlp(config.inverse_hidden, spec.action_dim, "relu")
    segment = Segment(
        horizon, spec.max_episode_steps, config.padding, config.discount_factor, config.termination_penalty
    )

    def inverse_action(params: PyTree, pair: Array) -> Array:
        return inverse.apply(params, pair)  # type: ignore[return-value]

    def init(key: Key, hparams: HParams) -> TrainState:
        key_planner, key_inverse, key_value = jax.random.split(key, 3)
        params = {
            "planner": planner.init(key_planner),
            "inverse": inverse.init(key_inverse, jnp.zeros(2 * dim)),
        }
        if values is not None:
            params["value"] = values.init(key_value)
        return with_statistics(initial_state(params, hparams), blank_statistics(config.normaliser, spec))

    def known_in_training(key: Key, x0: Array) -> Known:
        """As many first observations as acting may know, 1 .. history, and the goal where it will be inpainted."""
        count = jax.random.randint(key, (x0.shape[0], 1), 1, config.history + 1)
        mask = (jnp.arange(horizon)[None] < count)[..., None]
        known = Known(jnp.broadcast_to(mask, x0.shape), x0)
        return with_goal(known, x0[:, -1]) if config.reach_goal else known

    def update(key: Key, state: TrainState, batch: Segments) -> tuple[TrainState, Metrics]:
        check_segments(batch, spec, horizon)
        key_known, key_condition, key_planner, key_value = jax.random.split(key, 4)
        h, statistics = state.hparams, statistics_of(state)
        obs = batch.obs[..., :dim]
        x0 = statistics.obs.normalise(obs)
        known = known_in_training(key_known, x0)
        cond = conditions.of_data(key_condition, batch, obs, x0, statistics.returns, h.condition_dropout)

        def model_loss(params: PyTree) -> tuple[Array, Metrics]:
            loss = planner.loss(key_planner, params, x0, cond, known, jnp.ones((horizon, dim))).mean()
            return 0.5 * loss, {"planner_loss": loss}

        def inverse_loss(params: PyTree) -> tuple[Array, Metrics]:
            pair = jnp.concatenate([x0[:, :-1], x0[:, 1:]], axis=-1)
            error = inverse_action(params, pair) - statistics.action.normalise(batch.action[:, :-1])
            lived = batch.mask[:, 1:]  # a step into the padding is no step
            loss = jnp.sum(lived * jnp.mean(jnp.square(error), axis=-1)) / jnp.maximum(jnp.sum(lived), 1.0)
            return 0.5 * loss, {"inverse_loss": loss}

        def value_loss(params: PyTree) -> tuple[Array, Metrics]:
            assert values is not None
            loss = values.loss(key_value, params, x0, known, batch.return_to_go / return_scale(statistics)).mean()
            return loss, {"value_loss": loss}

        losses = {"planner": (model_loss, h.lr), "inverse": (inverse_loss, h.lr), "value": (value_loss, h.value_lr)}
        return step_networks(state, losses, config.ema_period)

    def towards(state: TrainState, obs: Array, next_obs: Array) -> Array:
        statistics = statistics_of(state)
        pair = jnp.concatenate([statistics.obs.normalise(obs), statistics.obs.normalise(next_obs)], axis=-1)
        return statistics.action.unnormalise(inverse_action(state.target_params["inverse"], pair))

    def propose(key: Key, state: TrainState, present: Present, last: Array | None) -> Proposal:
        statistics = statistics_of(state)
        known = present_known(statistics.obs.normalise(present.past), present.known, horizon)
        goal = None if present.goal is None else statistics.obs.normalise(present.goal)
        if config.reach_goal:
            assert goal is not None  # see `check`
            known = with_goal(known, goal)

        def draw(key: Key, known: Known) -> tuple[Array, Array, Array]:
            warm = None if last is None else Warm(jnp.expand_dims(last, -3), config.act.warm_calls)
            return draw_plans(key, state, known, goal, warm)

        found = search(key, draw, known, config.act.search)
        obs = statistics.obs.unnormalise(found.x)
        after = jnp.concatenate([obs[..., 1:, :], obs[..., -1:, :]], axis=-2)
        return Proposal(found.x, found.value, obs, towards(state, obs, after), statistics.obs.unnormalise(found.path))

    def draw_plans(
        key: Key, state: TrainState, known: Known, goal: Array | None, warm: Warm | None
    ) -> tuple[Array, Array, Array]:
        h, params, batch = state.hparams, state.target_params, known.values.shape[:-2]
        wishes = Wishes(h.target_return, goal, config.visit, config.avoid, h.guidance_scale, h.avoid_scale)
        denoise = planner.bounded(conditions.guided(planner.bind(params["planner"], known), wishes, batch))
        drawn = planner.draw(
            key,
            denoise,
            known,
            batch,
            temperature=h.act_temperature,
            start_temperature=h.act_temperature,
            warm=warm,
        )
        last = jax.tree.map(lambda leaf: leaf[-2], planner.process.table.level)
        value = jnp.zeros(batch)
        if values is not None:
            value = return_scale(statistics_of(state)) * values.value(params["value"], drawn.x, last)
        return drawn.x, value, drawn.path

    acting = make_acting(config.act, spec, propose, towards, horizon=horizon, dim=dim, history=config.history)
    fit = make_fit(config.normaliser, spec, segment)
    return Algorithm(init, update, acting.act, acting.init_memory, window=segment, fit=fit, plan=acting.plan)


def advise(config: Config, state: TrainState) -> list[str]:
    """What a user should know of a state that has seen its data: a target far outside them, in words."""
    bounds = statistics_of(state).returns.reshape(-1, 2)  # of each agent, where it is trained so
    low, high = float(bounds[:, 0].min()), float(bounds[:, 1].max())
    target = float(state.hparams.target_return)
    if "returns" not in config.conditions or -MARGIN <= target <= 1.0 + MARGIN:
        return []
    asked = low + target * (high - low)
    sentence = (
        f"hparams.target_return={target:g} asks for a return to go of {asked:.4g}, which the data never reach: theirs "
        f"are {low:.4g} (target 0) to {high:.4g} (target 1)."
    )
    return [sentence]
