"""A diffusion model of whole trajectories: network, process and known entries joined into (loss, draw).

Shared by every planner. Trajectories x [*B, H, D] are in the network's units; what their entries mean is the
algorithm's matter.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff import diffusion
from jaxdiff.algorithms.process import Process, make_process
from jaxdiff.diffusion.level import expand_to
from jaxdiff.networks import AGENT_TRAJECTORY_NETWORKS, BIASES, TRAJECTORY_NETWORKS, check_horizon
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class PlannerConfig:
    """Static choices of a model of trajectories."""

    network: str = "temporal_unet"  # one of TRAJECTORY_NETWORKS, of a whole team one of AGENT_TRAJECTORY_NETWORKS
    width: int = 32
    mults: tuple[int, ...] = (1, 2, 4, 8)  # temporal_unet: channels of each resolution, in units of width
    depth: int = 2  # dit, transformer, lstm: blocks or layers
    kernel_size: int = 5  # temporal_unet
    attention: bool = False  # temporal_unet: linear attention over the plan at every resolution
    bias: str = "zeros"  # where biases start, one of BIASES; "torch" draws them as PyTorch does
    horizon: int = 32  # H, steps of a plan, the present included
    patch: int = 1  # steps in a row that the network sees as one token: a shorter sequence of wider tokens
    schedule: str = "cosine_betas"  # one of SCHEDULES
    beta_max: float = 20.0  # of the vp schedule
    kind: str = "x0"  # what the network predicts, one of PARAMETERISATIONS
    num_levels: int = 20  # noise levels seen in training; 0: continuous time
    token_levels: bool = False  # in training every step of a plan has a noise level of its own (diffusion forcing)
    tell_known: bool = False  # the network is told which whole steps are given, and so clean; the papers' are not
    sampler: str = "ddpm"  # one of SOLVERS
    spacing: str = "uniform"  # where the sampler's levels lie, one of GRIDS but "custom"
    t_end: float = 0.0  # where they end, in [0, 1); 0: clean data
    num_steps: int = 20  # network calls per plan
    clip: bool = False  # keep predictions in [-1, 1]: for data in limits


class Known(NamedTuple):
    """Entries of a plan that are given: they come back as they are."""

    mask: Array  # broadcasts to [*B, H, D], bool
    values: Array  # broadcasts to [*B, H, D]

    def write(self, x: Array) -> Array:
        mask, values = (jnp.broadcast_to(part, x.shape) for part in (self.mask, self.values))
        return jnp.where(mask, values, x)


class Warm(NamedTuple):
    """A plan to start from, noised to the level of the chain's last `num_calls` calls."""

    x: Array  # [*B, H, D]
    num_calls: int  # static


class Team(NamedTuple):
    """A planner of A agents' trajectories side by side: tokens are A agents' numbers, agent 0's first."""

    num_agents: int
    attention: bool  # between the agents


class Drawn(NamedTuple):
    """Plans, and how they came out of noise."""

    x: Array  # [*B, H, D]
    before: Array  # [*B, H, D] what the last network call was shown
    path: Array  # [K + 1, *B, H, D]


class Planner(NamedTuple):
    """Pure functions of the network's parameters.

    init(key) -> params
    loss(key, params, x0 [B, H, D], cond, known, weight [H, D]) -> [B]; known entries count nothing
    bind(params, known) -> (x [*B, H, D], level, cond) -> x0_hat
    bounded(denoiser) -> denoiser, in [-1, 1] where the config clips
    draw(key, denoise, known, batch_shape, ...) -> x [*batch_shape, H, D]
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, Array, Any, Known, Array], Array]
    bind: Callable[[PyTree, Known | None], Callable[[Array, diffusion.Level, Any], Array]]
    bounded: Callable[[diffusion.Denoiser], diffusion.Denoiser]
    draw: Callable[..., Drawn]
    process: Process


def check_planner(config: PlannerConfig, team: Team | None = None) -> None:
    """Refuses a model that cannot be built; the process is checked by `make_process`.

    Raises:
      KeyError: an unknown network or bias.
      ValueError: a horizon that the network cannot halve, or below 2.
    """
    networks = TRAJECTORY_NETWORKS if team is None else AGENT_TRAJECTORY_NETWORKS
    for field, registry in (("network", networks), ("bias", BIASES)):
        if getattr(config, field) not in registry:
            raise unknown_name(field, getattr(config, field), registry)
    if config.horizon < 2:
        raise ValueError(f"horizon={config.horizon}; a plan needs the present and at least one step: 2 or more.")
    if config.patch < 1 or config.horizon % config.patch:
        raise ValueError(f"horizon={config.horizon} and patch={config.patch}; a plan must be whole patches.")
    for field in ("token_levels", "tell_known"):
        if getattr(config, field) and config.patch > 1:
            raise ValueError(f"{field}=True and patch={config.patch}; a level per step needs patch=1.")
    if config.network in ("temporal_unet", "agent_unet"):
        check_horizon(config.horizon // config.patch, config.mults)


def _check_width(config: PlannerConfig, dim: int) -> None:
    """Refuses a U-Net that predicts noise through fewer channels than a token has numbers.

    All of x passes through the first resolution. Noise has no structure to be compressed by, so what does not fit is
    lost, and plans come out as noise; clean plans (kind="x0") are of low rank and do fit.
    """
    convolutional = config.network in ("temporal_unet", "agent_unet")
    if convolutional and config.kind != "x0" and config.patch * dim > config.width:
        size = config.patch * dim
        raise ValueError(
            f"kind={config.kind!r}, width={config.width} and patch={config.patch}; a token of {config.patch} steps has "
            f"{size} numbers, whose noise does not pass through {config.width} channels: choose a width of at least "
            f"{size}, a smaller patch, or kind='x0'."
        )


def patched(x: Array, patch: int) -> Array:
    """[*B, H, D] -> [*B, H / patch, patch D]: steps in a row side by side."""
    return x.reshape(*x.shape[:-2], x.shape[-2] // patch, patch * x.shape[-1])


def agents_apart(x: Array, num_agents: int, patch: int) -> Array:
    """A team's [*B, H, A D] -> [*B, H / patch, A, patch D]: each agent's steps in a row side by side."""
    *batch, horizon, width = x.shape
    parts = x.reshape(*batch, horizon // patch, patch, num_agents, width // num_agents)
    return jnp.swapaxes(parts, -3, -2).reshape(*batch, horizon // patch, num_agents, -1)


def agents_together(x: Array, patch: int) -> Array:
    """The reverse of `agents_apart`."""
    *batch, tokens, num_agents, width = x.shape
    parts = jnp.swapaxes(x.reshape(*batch, tokens, num_agents, patch, width // patch), -3, -2)
    return parts.reshape(*batch, tokens * patch, -1)


def check_warm(process: Process, num_calls: int) -> None:
    """Refuses a warm start of so many calls, 0 for none, that the sampler cannot make.

    Raises:
      ValueError: more calls than the chain has, or a sampler that cannot start half way.
    """
    total = process.table.num_calls
    if num_calls > total:
        raise ValueError(f"act.warm_calls={num_calls}, and a whole plan takes num_steps={total} calls; give fewer.")
    if num_calls:
        diffusion.rows(process.table, total - num_calls, total)


def make_planner(
    config: PlannerConfig, dim: int, cond_sizes: tuple[int, ...] = (), team: Team | None = None
) -> Planner:
    """Builds a planner's functions for trajectories of H tokens of `dim` numbers.

    Args:
      config: its choices.
      dim: D.
      cond_sizes: sizes of the groups of numbers that a plan can be conditioned on; none by default. Conditions are then
        pairs (values [*B, sum of sizes], keep [*B, groups]), of a team with an axis A before the last.
      team: whose trajectories these are; None: one agent's.

    Raises:
      KeyError, ValueError: as `check_planner` and `make_process`, or noise that the network cannot let through.
    """
    check_planner(config, team)
    _check_width(config, dim if team is None else dim // team.num_agents)
    process = make_process(config)
    clean = process.c_noise(diffusion.level_at(process.schedule, 0.0))
    init, apply = _network(config, dim, cond_sizes, team, clean)

    def loss(key: Key, params: PyTree, x0: Array, cond: Any, known: Known, weight: Array) -> Array:
        key_level, key_noise = jax.random.split(key)
        level = process.random_level(key_level, x0.shape[:2] if config.token_levels else x0.shape[:1])
        counted = jnp.where(jnp.broadcast_to(known.mask, x0.shape), 0.0, jnp.broadcast_to(weight, x0.shape))
        return diffusion.denoising_loss(
            apply(params, known),
            config.kind,
            level,
            x0,
            jax.random.normal(key_noise, x0.shape),
            cond,
            c_noise=process.c_noise,
            metric=lambda error: jnp.mean(counted * jnp.square(error), axis=(-2, -1)),
            project=diffusion.keep_known(known.mask, known.values),
        )

    def bind(params: PyTree, known: Known | None) -> Callable[[Array, diffusion.Level, Any], Array]:
        def denoise(x: Array, level: diffusion.Level, cond: Any) -> Array:
            return diffusion.denoiser(apply(params, known), config.kind, cond, c_noise=process.c_noise)(x, level)

        return denoise

    def bounded(denoise: diffusion.Denoiser) -> diffusion.Denoiser:
        return diffusion.clip(denoise) if config.clip else denoise

    def draw(
        key: Key,
        denoise: diffusion.Denoiser,
        known: Known,
        batch_shape: tuple[int, ...],
        *,
        temperature: ArrayLike = 1.0,
        start_temperature: ArrayLike = 1.0,
        hook: diffusion.Projection | None = None,
        warm: Warm | None = None,
        table: diffusion.Table | None = None,
    ) -> Drawn:
        """Plans of a denoiser (conditions and guidance bound), known entries exactly as given."""
        key_start, key_chain = jax.random.split(key)
        noise = start_temperature * jax.random.normal(key_start, (*batch_shape, config.horizon, dim))
        table = process.table if table is None else table
        x_T = jnp.asarray(process.prior_std * noise)

        def run(denoise: diffusion.Denoiser, table: diffusion.Table, x: Array, key: Key, hook: Any) -> Any:
            # Scanned however short: such a network is worth a loop's overhead, and compiles once, not K times.
            return diffusion.sample_path(denoise, table, x, key, temperature=temperature, project=hook, unroll=False)

        if warm is not None:
            table = diffusion.rows(table, table.num_calls - warm.num_calls, table.num_calls)
            first = jax.tree.map(lambda leaf: leaf[0], table.level)
            x_T = diffusion.add_noise(first, jnp.broadcast_to(warm.x, noise.shape), jnp.asarray(noise))
        held = diffusion.hold_known(denoise, known.mask, known.values)
        before, path = x_T, x_T[None]
        if hook is not None and table.num_calls > 1:
            key_chain, key_last = jax.random.split(key_chain)
            last = table.num_calls - 1
            head, table = diffusion.rows(table, 0, last), diffusion.rows(table, last, last + 1)
            before, path = run(held, head, x_T, key_chain, hook)
            key_chain, hook = key_last, None  # the hook has already acted where the last call is made
        x, rest = run(held, table, before, key_chain, hook)
        path = jax.vmap(known.write)(jnp.concatenate([path, rest[1:]]))
        return Drawn(known.write(x), known.write(before), path)

    return Planner(init, loss, bind, bounded, draw, process)


def _network(
    config: PlannerConfig, dim: int, cond_sizes: tuple[int, ...], team: Team | None, clean: ArrayLike
) -> tuple[Callable[[Key], PyTree], Callable[[PyTree, Known | None], diffusion.Network]]:
    """init(key) -> params, and apply(params, known) -> (x [*B, H, D], t, cond) -> [*B, H, D].

    With `tell_known`, tokens all of whose numbers are known come with the noise input `clean`, whatever t is.
    """
    options = {name: getattr(config, name) for name in ("width", "mults", "depth", "kernel_size", "attention")}
    if team is None:
        network = TRAJECTORY_NETWORKS[config.network](out=config.patch * dim, cond_sizes=cond_sizes, **options)
        agents: tuple[int, ...] = ()
    else:
        network = AGENT_TRAJECTORY_NETWORKS[config.network](
            out=config.patch * dim // team.num_agents,
            cond_sizes=cond_sizes,
            agent_attention=team.attention,
            **options,
        )
        agents = (team.num_agents,)

    def tokens(x: Array) -> Array:
        return patched(x, config.patch) if team is None else agents_apart(x, team.num_agents, config.patch)

    def init(key: Key) -> PyTree:
        nothing = (jnp.zeros((*agents, sum(cond_sizes))), jnp.zeros((*agents, len(cond_sizes)))) if cond_sizes else None
        params = network.init(key, tokens(jnp.zeros((config.horizon, dim))), jnp.zeros(()), nothing)
        return BIASES[config.bias](jax.random.fold_in(key, 1), params)

    def told(x: Array, t: Array, known: Known) -> Array:
        """Each token's noise input, [*B, H / patch] and of a team [*B, H / patch, A]."""
        given = jnp.all(tokens(jnp.broadcast_to(known.mask, x.shape)), axis=-1)
        return jnp.where(given, jnp.asarray(clean), expand_to(jnp.asarray(t), given))

    def apply(params: PyTree, known: Known | None) -> diffusion.Network:
        def forward(x: Array, t: Array, cond: Any) -> Array:
            if config.tell_known and known is not None:
                t = told(x, t, known)
            y: Any = network.apply(params, tokens(x), t, cond)
            return y.reshape(x.shape) if team is None else agents_together(y, config.patch)

        return forward

    return init, apply
