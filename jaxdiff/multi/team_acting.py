"""How a planner of joint trajectories acts: one plan for all, or one of each agent's own as its ego."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff import diffusion
from jaxdiff.algorithms.acting import ActConfig, Present, Proposal, make_acting
from jaxdiff.algorithms.planner import Known, Planner, Warm
from jaxdiff.algorithms.search import search
from jaxdiff.algorithms.trajectories import statistics_of
from jaxdiff.multi.egos import of_ego, of_everyone
from jaxdiff.multi.teams import apart, as_one, noise_keys, team_size, together
from jaxdiff.types import Array, Key, PyTree, Spec, TrainState

# (state, obs [*B, A, O], next_obs [*B, A, O]) -> action [*B, A, U]
TeamTowards = Callable[[TrainState, Array, Array], Array]


class TeamActing(NamedTuple):
    """`Algorithm.act` and `Algorithm.init_memory` of a team."""

    act: Callable[[Key, TrainState, Array, PyTree], tuple[Array, PyTree]]
    init_memory: Callable[[tuple[int, ...]], PyTree]


class PlanSizes(NamedTuple):
    """Static facts about a team's plans."""

    horizon: int  # T rows, past ones included
    history: int  # h of them observed, the present one included
    teammates: bool  # decentralised: teammates are predicted
    shared_noise: bool  # decentralised: all egos draw the same noise


def centralised(config: ActConfig, spec: Spec, planner: Planner, towards: TeamTowards, sizes: PlanSizes) -> TeamActing:
    """One plan that begins with what all agents see, and each agent follows its rows of it."""
    num_agents, dim = team_size(spec), spec.obs_dim

    def heading(state: TrainState, obs: Array, next_obs: Array) -> Array:
        return together(towards(state, apart(obs, num_agents), apart(next_obs, num_agents)))

    def propose(key: Key, state: TrainState, present: Present, last: Array | None) -> Proposal:
        units = statistics_of(state).obs
        known = of_everyone(units.normalise(apart(present.past, num_agents)), sizes.horizon)

        def draw(key: Key, known: Known) -> tuple[Array, Array, Array]:
            x, path = _drawn(key, state, planner, known, _warm(last, config), num_agents)
            return x, jnp.zeros(x.shape[:-2]), path

        found = search(key, draw, known, config.search)
        obs, path = (together(units.unnormalise(apart(x, num_agents))) for x in (found.x, found.path))
        return Proposal(found.x, found.value, obs, heading(state, obs, _after(obs)), path)

    acting = make_acting(config, as_one(spec), propose, heading, dim=num_agents * dim, **_lengths(sizes))

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        action, memory = acting.act(key, state, together(obs), memory)
        return apart(action, num_agents), memory

    return TeamActing(act, acting.init_memory)


def decentralised(
    config: ActConfig, spec: Spec, planner: Planner, towards: TeamTowards, sizes: PlanSizes
) -> TeamActing:
    """Every agent draws a plan of its own that begins with what it sees, and follows its own rows."""
    num_agents, dim = team_size(spec), spec.obs_dim
    egos = jnp.arange(num_agents)

    def own(x: Array, axis: int) -> Array:
        """Each ego's rows of its own plan: [.., A, .., T, A O] with egos on `axis`, -> [.., A, .., T, O]."""
        rows = apart(x, num_agents)
        return jnp.moveaxis(jnp.diagonal(rows, axis1=axis - 1, axis2=-2), -1, axis)

    def propose(key: Key, state: TrainState, present: Present, last: Array | None) -> Proposal:
        units = statistics_of(state).obs
        past = units.normalise(present.past)  # [*B, A, h, O]
        ego = jnp.broadcast_to(egos, past.shape[:-2])
        known = of_ego(past, ego, num_agents, sizes.horizon, teammates=sizes.teammates)

        def draw(key: Key, known: Known) -> tuple[Array, Array, Array]:
            def one(key: Key, mask: Array, values: Array, warm: Any) -> tuple[Array, Array]:
                return _drawn(key, state, planner, Known(mask, values), warm, num_agents)

            warm = _warm(last, config)
            axes = None if warm is None else Warm(-4, None)  # type: ignore[arg-type]
            keys = noise_keys(key, num_agents, shared=sizes.shared_noise)
            x, path = jax.vmap(one, (0, -4, -4, axes), (-4, -4))(keys, known.mask, known.values, warm)
            return x, jnp.zeros(x.shape[:-2]), path

        found = search(key, draw, known, config.search)
        obs, path = units.unnormalise(own(found.x, -4)), units.unnormalise(own(found.path, -3))
        action = towards(state, jnp.moveaxis(obs, -4, -2), jnp.moveaxis(_after(obs), -4, -2))
        return Proposal(found.x, found.value, obs, jnp.moveaxis(action, -2, -4), path)

    alone = dataclasses.replace(spec, num_agents=None)
    acting = make_acting(config, alone, propose, towards, dim=num_agents * dim, **_lengths(sizes))

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        action, memory = acting.act(key, state, obs, memory)  # [*B, A, 1, U]
        return jnp.swapaxes(action, -3, -2), memory

    return TeamActing(act, lambda batch_shape: acting.init_memory((*batch_shape, num_agents)))


def _drawn(
    key: Key, state: TrainState, planner: Planner, known: Known, warm: Warm | None, num_agents: int
) -> tuple[Array, Array]:
    """Joint trajectories [*B, T, A O] of the wanted return, and how they came out of noise."""
    h, params, batch = state.hparams, state.target_params["planner"], known.values.shape[:-2]
    wanted = jnp.full((*batch, num_agents, 1), jnp.asarray(h.target_return))
    given, nothing = (wanted, jnp.ones_like(wanted)), (jnp.zeros_like(wanted), jnp.zeros_like(wanted))
    guided = diffusion.compose(planner.bind(params, known), [given], nothing, [h.guidance_scale])
    drawn = planner.draw(
        key,
        planner.bounded(guided),
        known,
        batch,
        temperature=h.act_temperature,
        start_temperature=h.start_temperature,
        warm=warm,
    )
    return drawn.x, drawn.path


def _warm(last: Array | None, config: ActConfig) -> Warm | None:
    """The last plan [*B, T, D] to start each candidate from."""
    return None if last is None else Warm(jnp.expand_dims(last, -3), config.warm_calls)


def _after(obs: Array) -> Array:
    """obs [.., T, O] one step later, the last one repeated."""
    return jnp.concatenate([obs[..., 1:, :], obs[..., -1:, :]], axis=-2)


def _lengths(sizes: PlanSizes) -> dict[str, Any]:
    return {"horizon": sizes.horizon, "history": sizes.history, "fill_history": True}
