"""Diffuser: a diffusion model of state-action trajectories, steered by a learned value or by inpainting.

model    loss = E |W (x - x0_theta(x_t, t))|**2 / (H D),  x [H, U + O] a stretch of an episode, actions first; the first
         observation (and with reach_goal the last) is written clean into x_t and counts nothing
value    loss = E (V_phi(x_t, t) - R)**2,  R the discounted return from the stretch's start to its episode's end
before   n times  x <- x + w Sigma grad V(x, t),  then x <- mu_theta(x, t) + sigma z          as released
mean     x <- mu + w Sigma grad V(mu, t) + sigma z,  mu = mu_theta(x, t)                        as written
acting   N plans ranked by V; the best one is followed, see `acting`; with reach_goal the goal is inpainted at the end

Sigma = sigma**2, the posterior variance of a step. Averaged weights plan, those of the value among them. Values are
learned in units of the largest return of the data (`value_scale`), and the guidance scale acts on V in units of reward.

Reference: Janner, Du, Tenenbaum and Levine 2022, arXiv:2205.09991, sections 3 and 5; details that only the released
code shows are marked [code].
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff import diffusion
from jaxdiff.algorithms.acting import ActConfig, Present, Proposal, make_acting
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
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState

GUIDANCES = ("none", "before", "mean")


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    planner: PlannerConfig = PlannerConfig()
    act: ActConfig = ActConfig()
    normaliser: str = "gaussian"  # of observations and actions, one of data.NORMALISERS
    padding: str = "zeros"  # of stretches that run over their episode's end, one of data.PADDINGS
    reach_goal: bool = False  # inpaint the task's goal as the last observation of every plan
    value: bool = True  # learn a value of plans, to guide and to rank
    value_scale: bool = True  # learn it in units of the data's largest return; the paper learns it as it is
    guidance: str = "before"  # how the value guides, one of GUIDANCES
    guide_steps: int = 2  # "before": gradient steps per network call [code]
    discount_factor: float = 0.997  # of the return to go, in [0, 1] [code]
    termination_penalty: float = -100.0  # added to the last reward of an episode that terminated [code]
    ema_period: int = 10  # updates between moves of the averaged weights [code]


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 2e-4  # Adam step size of the model, > 0
    value_lr: float = 2e-4  # Adam step size of the value, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 10.0  # largest global gradient norm, > 0
    action_weight: float = 10.0  # of the first action's error; every other entry counts 1
    loss_discount: float = 1.0  # of the errors along the plan, in (0, 1]
    ema_rate: float = 0.005  # share of the new weights in the average, in (0, 1]
    ema_start: float = 2000.0  # updates during which the average is a copy
    act_temperature: float = 1.0  # scale of the noise injected while planning, >= 0
    guidance_scale: float = 0.1  # w
    guidance_stop: float = 2.0  # the last so many network calls are not guided [code: t_stopgrad]


def check(config: Config, spec: Spec) -> None:
    """Refuses settings that exclude one another.

    Raises:
      KeyError: an unknown guidance, normaliser or padding.
      ValueError: counts below 1, guidance without a value, a goal that the task does not have, or `tell_known`.
    """
    if config.planner.tell_known:
        raise ValueError(
            "planner.tell_known=True has no use here: the actions of steps that are given are planned, so no step is "
            "given whole; leave it False, or use a planner of observations alone."
        )
    check_normaliser(config.normaliser)
    check_padding(config.padding)
    if config.guidance not in GUIDANCES:
        raise unknown_name("guidance", config.guidance, GUIDANCES)
    if config.guide_steps < 1 or config.ema_period < 1:
        raise ValueError(
            f"guide_steps={config.guide_steps} and ema_period={config.ema_period}; both must be at least 1."
        )
    if config.guidance != "none" and not config.value:
        raise ValueError(f"guidance={config.guidance!r} needs a value; set value=True or guidance='none'.")
    if config.reach_goal and spec.goal is None and not spec.goal_dim:
        raise ValueError(f"reach_goal=True, and {spec.name} has no goal; plan there with reach_goal=False and a value.")


def check_guidance(config: Config, table: diffusion.Table) -> None:
    """Refuses guidance that the sampler cannot give: it moves a step's mean by the step's own variance.

    Raises:
      ValueError: a sampler with inner stages, or one that draws no noise.
    """

    def nothing(x: Array, level: diffusion.Level) -> Array:
        return jnp.zeros(x.shape[:-2])

    if config.guidance == "none":
        return
    if not table.noisy_rows:
        raise ValueError(
            f"guidance={config.guidance!r} moves a step by its variance, and sampler={config.planner.sampler!r} with "
            f"num_steps={config.planner.num_steps} draws no noise; choose 'ddpm' with 2 or more."
        )
    if config.guidance == "before":
        diffusion.guide_before(nothing, table, 0.0, num_steps=config.guide_steps)
    else:
        diffusion.mean_gradient(lambda x, level: x, nothing, table, 0.0)


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      KeyError, ValueError: a name or a number out of range, see `check`, `make_planner` and `make_acting`.
    """
    check(config, spec)
    horizon, width = config.planner.horizon, spec.action_dim
    state_dim = spec.obs_dim - spec.goal_dim
    dim = width + state_dim
    planner = make_planner(config.planner, dim)
    check_search(config.act.search, horizon, ranked=config.value)
    check_warm(planner.process, config.act.warm_calls)
    check_guidance(config, planner.process.table)
    values = make_value(config.planner, planner.process, dim) if config.value else None
    segment = Segment(
        horizon, spec.max_episode_steps, config.padding, config.discount_factor, config.termination_penalty
    )

    def init(key: Key, hparams: HParams) -> TrainState:
        key_planner, key_value = jax.random.split(key)
        params = {"planner": planner.init(key_planner)}
        if values is not None:
            params["value"] = values.init(key_value)
        return with_statistics(initial_state(params, hparams), blank_statistics(config.normaliser, spec))

    def known_in_training(x0: Array) -> Known:
        known = present_known(x0[:, :1, width:], jnp.ones((), jnp.int32), horizon, width)
        return with_goal(known, x0[:, -1, width:]) if config.reach_goal else known

    def update(key: Key, state: TrainState, batch: Segments) -> tuple[TrainState, Metrics]:
        check_segments(batch, spec, horizon)
        key_planner, key_value = jax.random.split(key)
        h, statistics = state.hparams, statistics_of(state)
        action = statistics.action.normalise(batch.action)
        x0 = jnp.concatenate([action, statistics.obs.normalise(batch.obs[..., :state_dim])], axis=-1)
        known = known_in_training(x0)
        weight = entry_weights(h, horizon, dim, width)

        def model_loss(params: PyTree) -> tuple[Array, Metrics]:
            loss = planner.loss(key_planner, params, x0, None, known, weight).mean()
            return loss, {"planner_loss": loss}

        def value_loss(params: PyTree) -> tuple[Array, Metrics]:
            assert values is not None
            target = batch.return_to_go / (return_scale(statistics) if config.value_scale else 1.0)
            loss = values.loss(key_value, params, x0, known, target).mean()
            return loss, {"value_loss": loss}

        losses = {"planner": (model_loss, h.lr), "value": (value_loss, h.value_lr)}
        return step_networks(state, losses, config.ema_period)

    def propose(key: Key, state: TrainState, present: Present, last: Array | None) -> Proposal:
        statistics = statistics_of(state)
        known = present_known(statistics.obs.normalise(present.past), present.known, horizon, width)
        if config.reach_goal:
            assert present.goal is not None  # see `check`
            known = with_goal(known, statistics.obs.normalise(present.goal))

        def draw(key: Key, known: Known) -> tuple[Array, Array, Array]:
            warm = None if last is None else Warm(jnp.expand_dims(last, -3), config.act.warm_calls)
            return draw_plans(key, state, known, warm)

        found = search(key, draw, known, config.act.search)
        return Proposal(
            found.x,
            found.value,
            statistics.obs.unnormalise(found.x[..., width:]),
            statistics.action.unnormalise(found.x[..., :width]),
            statistics.obs.unnormalise(found.path[..., width:]),
        )

    def draw_plans(key: Key, state: TrainState, known: Known, warm: Warm | None) -> tuple[Array, Array, Array]:
        h, params, table = state.hparams, state.target_params, planner.process.table
        model = planner.bind(params["planner"], known)
        unguided = planner.bounded(lambda x, level: model(x, level, None))

        def value(x: Array, level: diffusion.Level) -> Array:
            if values is None:
                return jnp.zeros(x.shape[:-2])
            scale = return_scale(statistics_of(state)) if config.value_scale else 1.0
            return scale * values.value(params["value"], known.write(x), level)

        denoise: diffusion.Denoiser = unguided
        hook = None
        if config.guidance == "before":
            hook = diffusion.guide_before(
                value, table, h.guidance_scale, num_steps=config.guide_steps, stop_below=h.guidance_stop
            )
        elif config.guidance == "mean":
            denoise = diffusion.mean_gradient(denoise, value, table, h.guidance_scale)
        drawn = planner.draw(
            key, denoise, known, known.values.shape[:-2], temperature=h.act_temperature, hook=hook, warm=warm
        )
        last = jax.tree.map(lambda leaf: leaf[-2], table.level)  # where the last call is made
        ranked_by = drawn.before if hook is not None else drawn.x  # before its last guided step, as the code does
        return drawn.x, value(ranked_by, last), drawn.path

    acting = make_acting(config.act, spec, propose, None, horizon=horizon, dim=dim)
    fit = make_fit(config.normaliser, spec, segment)
    return Algorithm(init, update, acting.act, acting.init_memory, window=segment, fit=fit, plan=acting.plan)


def entry_weights(hparams: HParams, horizon: int, dim: int, action_dim: int) -> Array:
    """[H, D] weights of squared errors: loss_discount**h over its mean, and action_weight for the first action.

    Reference: the released code of arXiv:2205.09991.
    """
    along = jnp.asarray(hparams.loss_discount) ** jnp.arange(horizon)
    weight = jnp.broadcast_to((along / along.mean())[:, None], (horizon, dim))
    return weight.at[0, :action_dim].set(hparams.action_weight)
