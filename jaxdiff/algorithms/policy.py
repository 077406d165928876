"""A diffusion policy: network, schedule and sampler joined into (loss, sample). Shared by every algorithm."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff import diffusion
from jaxdiff.algorithms.process import check_process, make_process
from jaxdiff.networks import ACTIVATIONS, BIASES, NETWORKS, SEQUENCE_NETWORKS
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, PyTree, Spec

CLIPS = ("prediction", "sample")  # the clean prediction, or the noisy action that a step leads to


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """Static choices of a diffusion policy: whatever changes a shape, a loop length or a Python branch."""

    network: str = "mlp"  # one of NETWORKS
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "mish"
    layer_norm: bool = False
    bias: str = "zeros"  # where biases start, one of BIASES; "torch" draws them as PyTorch does
    time_dim: int = 16
    schedule: str = "vp"  # one of SCHEDULES
    beta_max: float = 10.0  # of the vp schedule; 10 with few steps, 20 with many
    kind: str = "eps"  # what the network predicts, one of PARAMETERISATIONS
    num_levels: int = 5  # noise levels seen in training; 0: continuous time
    sampler: str = "ddpm"  # one of SOLVERS
    spacing: str = "uniform"  # where the sampler's levels lie, one of GRIDS but "custom"
    t_end: float = 0.0  # where they end, in [0, 1); 0: clean data
    num_steps: int = 5  # network calls per action
    grad_steps: int = 0  # differentiate the chain through its last calls only; 0: all
    remat: bool = False  # recompute each call in the backward pass: memory for time, in chains of 50 calls and more
    clip: str = "prediction"  # what every sampling step keeps in [-1, 1], one of CLIPS


Guide = Callable[[diffusion.Denoiser], diffusion.Denoiser]


class DiffusionPolicy(NamedTuple):
    """Pure functions of the denoiser's parameters.

    init(key) -> params
    loss(key, params, obs [B, O], action [B, U]) -> [B]
    imitate(key, params, obs [B, O], action [B, U]) -> (loss [B], x0_hat [B, U] in [-1, 1]), from one network call
    sample(key, params, obs [*B, O], temperature, guide) -> action [*B, U] in [-1, 1]; guide wraps the denoiser
    denoiser(params, obs [*B, O], guide) -> denoiser, its x0-predictions clipped to [-1, 1]
    table: the sampler's
    start(key, batch_shape) -> x_T [*B, U], where sampling starts
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, Array, Array], Array]
    imitate: Callable[[Key, PyTree, Array, Array], tuple[Array, Array]]
    sample: Callable[..., Array]
    denoiser: Callable[..., diffusion.Denoiser]
    table: diffusion.Table
    start: Callable[[Key, tuple[int, ...]], Array]


def _check(config: PolicyConfig) -> None:
    known: dict[str, tuple[str, Any]] = {
        "network": (config.network, NETWORKS),
        "activation": (config.activation, ACTIVATIONS),
        "bias": (config.bias, BIASES),
        "clip": (config.clip, CLIPS),
    }
    for field, (value, registry) in known.items():
        if value not in registry:
            raise unknown_name(field, value, registry)
    check_process(config)
    if not 0 <= config.grad_steps <= config.num_steps:
        raise ValueError(f"grad_steps={config.grad_steps}; allowed: 0 (all) to num_steps={config.num_steps}.")


class PolicyNetwork(NamedTuple):
    """The network of a policy as functions.

    init(key) -> params
    bind(params) -> (x [*B, U], t [] or [*B], obs [*B, O]) -> [*B, U]
    """

    init: Callable[[Key], PyTree]
    bind: Callable[[PyTree], diffusion.Network]


def make_network(config: PolicyConfig, spec: Spec) -> PolicyNetwork:
    """The network that a config names, of a task's sizes; names are checked by `make_policy`."""
    network = NETWORKS[config.network](
        **({"history": spec.history} if config.network in SEQUENCE_NETWORKS else {}),
        out=spec.action_dim,
        hidden=config.hidden,
        time_dim=config.time_dim,
        activation=config.activation,
        layer_norm=config.layer_norm,
    )

    def init(key: Key) -> PyTree:
        params = network.init(key, jnp.zeros((spec.action_dim,)), jnp.zeros(()), jnp.zeros((spec.obs_dim,)))
        return BIASES[config.bias](jax.random.fold_in(key, 1), params)

    def bind(params: PyTree) -> diffusion.Network:
        def apply(x: Array, t: Array, cond: Array) -> Array:
            return network.apply(params, x, t, cond)  # type: ignore[return-value]

        return apply

    return PolicyNetwork(init, bind)


def _clip_sample(x: Array, level: diffusion.Level, noise: Array) -> Array:
    """A chain's state in [-1, 1], but for the noise that it starts from."""
    del noise
    return jnp.where(level.t < 1.0, jnp.clip(x, -1.0, 1.0), x)


def make_policy(config: PolicyConfig, spec: Spec, network: PolicyNetwork | None = None) -> DiffusionPolicy:
    """Builds the policy's functions; every name and number is checked here, before anything is traced.

    Args:
      config: its choices.
      spec: the task.
      network: in the place of the one that the config names.

    Raises:
      KeyError: an unknown network, activation, schedule, kind or sampler.
      ValueError: step counts out of range, or a kind the schedule cannot express.
    """
    _check(config)
    network, process = make_network(config, spec) if network is None else network, make_process(config)
    bind, c_noise, table = network.bind, process.c_noise, process.table

    def noise_at_random(key: Key, action: Array) -> tuple[diffusion.Level, Array]:
        key_time, key_noise = jax.random.split(key)
        return process.random_level(key_time, action.shape[:-1]), jax.random.normal(key_noise, action.shape)

    def loss(key: Key, params: PyTree, obs: Array, action: Array) -> Array:
        level, eps = noise_at_random(key, action)
        return diffusion.denoising_loss(bind(params), config.kind, level, action, eps, obs, c_noise=c_noise)

    def imitate(key: Key, params: PyTree, obs: Array, action: Array) -> tuple[Array, Array]:
        level, eps = noise_at_random(key, action)
        answers: list[Array] = []

        def once(x: Array, t: Array, cond: Array) -> Array:  # the loss and the prediction share one call
            if not answers:
                answers.append(bind(params)(x, t, cond))
            return answers[0]

        error = diffusion.denoising_loss(once, config.kind, level, action, eps, obs, c_noise=c_noise)
        denoise = diffusion.denoiser(once, config.kind, obs, c_noise=c_noise)
        return error, jnp.clip(denoise(diffusion.add_noise(level, action, eps), level), -1.0, 1.0)

    def denoiser(params: PyTree, obs: Array, guide: Guide | None = None) -> diffusion.Denoiser:
        denoise = diffusion.denoiser(bind(params), config.kind, obs, c_noise=c_noise)
        denoise = denoise if guide is None else guide(denoise)
        return diffusion.clip(denoise) if config.clip == "prediction" else denoise

    def start(key: Key, batch_shape: tuple[int, ...]) -> Array:
        return process.prior_std * jax.random.normal(key, (*batch_shape, spec.action_dim))

    def sample(key: Key, params: PyTree, obs: Array, temperature: ArrayLike = 1.0, guide: Guide | None = None) -> Array:
        key_start, key_chain = jax.random.split(key)
        x_T, denoise = start(key_start, obs.shape[:-1]), denoiser(params, obs, guide)
        x0 = diffusion.sample(
            denoise,
            table,
            x_T,
            key_chain,
            temperature=temperature,
            grad_steps=config.grad_steps or None,
            remat=config.remat,
            project=None if config.clip == "prediction" else _clip_sample,
        )
        return jnp.clip(x0, -1.0, 1.0)

    return DiffusionPolicy(network.init, loss, imitate, sample, denoiser, table, start)
