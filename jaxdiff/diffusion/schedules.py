"""Noise schedules as (log alpha, log sigma), and nothing else.

x_t = alpha(t) x0 + sigma(t) eps,  t = 0 clean, t = 1 noise.

A schedule is a pytree whose leaves are its constants, so they may be traced, vmapped or learned. While they are plain
numbers everything is computed in float64 numpy, so the tables of a sampler become exact constants of the program.
"""

from collections.abc import Callable
import dataclasses
import functools
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.types import Array

Tree = Any


def array_namespace(*values: Tree) -> ModuleType:
    """numpy (float64) while every leaf is concrete and host-side; jax.numpy as soon as one is a jax array or tracer."""
    return jnp if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(values)) else np


def safe_log(x: ArrayLike) -> Any:
    """log(x) with log(0) = -inf and a gradient of zero there, where the plain log would give NaN."""
    xp = array_namespace(x)
    positive = xp.asarray(x) > 0
    return xp.where(positive, xp.log(xp.where(positive, x, 1.0)), -xp.inf)


class Level(NamedTuple):
    """One noise level, or an array of them: all a denoiser may know about where it stands."""

    t: Any  # [*B] diffusion time in [0, 1]
    log_alpha: Any  # [*B]
    log_sigma: Any  # [*B], -inf at the clean end

    @property
    def alpha(self) -> Any:
        return array_namespace(self.log_alpha).exp(self.log_alpha)

    @property
    def sigma(self) -> Any:
        return array_namespace(self.log_sigma).exp(self.log_sigma)

    @property
    def half_logsnr(self) -> Any:
        """lambda = log alpha - log sigma, in nats; +inf at the clean end."""
        return self.log_alpha - self.log_sigma


class Schedule(Protocol):
    """Maps t [*B] in [0, 1] to (log alpha, log sigma), each [*B]."""

    def log_alpha_sigma(self, t: ArrayLike) -> tuple[Any, Any]: ...


def _pytree(cls: type) -> type:
    """Registers a frozen dataclass of constants as a pytree."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


def _log_sigma_vp(log_alpha: Any) -> Any:
    """log sigma for alpha**2 + sigma**2 = 1, without the difference of squares."""
    xp = array_namespace(log_alpha)
    return 0.5 * safe_log(-xp.expm1(2.0 * log_alpha))


@_pytree
class _Vp:
    beta_min: ArrayLike
    beta_max: ArrayLike

    def log_alpha_sigma(self, t: ArrayLike) -> tuple[Any, Any]:
        xp = array_namespace(self, t)
        t = xp.asarray(t)
        log_alpha = -0.5 * t * self.beta_min - 0.25 * t**2 * (self.beta_max - self.beta_min)  # type: ignore[operator]
        return log_alpha, _log_sigma_vp(log_alpha)


@_pytree
class _Cosine:
    offset: ArrayLike
    t_max: ArrayLike

    def log_alpha_sigma(self, t: ArrayLike) -> tuple[Any, Any]:
        xp = array_namespace(self, t)
        start = 0.5 * np.pi * self.offset / (1.0 + self.offset)  # type: ignore[operator]
        angle = 0.5 * np.pi * (xp.asarray(t) * self.t_max + self.offset) / (1.0 + self.offset)  # type: ignore[operator]
        # cos(0) / cos(0) may round to just above 1 in float32: alpha is at most 1.
        log_alpha = xp.minimum(xp.log(xp.cos(angle)) - xp.log(xp.cos(start)), 0.0)
        return log_alpha, _log_sigma_vp(log_alpha)


@_pytree
class _FromBetas:
    log_alphas: ArrayLike  # [N + 1], the clean level first

    def log_alpha_sigma(self, t: ArrayLike) -> tuple[Any, Any]:
        xp = array_namespace(self, t)
        grid = np.linspace(0.0, 1.0, np.shape(self.log_alphas)[0])
        log_alpha = xp.interp(xp.asarray(t, dtype=float), xp.asarray(grid), xp.asarray(self.log_alphas))
        return log_alpha, _log_sigma_vp(log_alpha)


@_pytree
class _Flow:
    def log_alpha_sigma(self, t: ArrayLike) -> tuple[Any, Any]:
        xp = array_namespace(t)
        t = xp.asarray(t, dtype=float)
        return safe_log(1.0 - t), safe_log(t)


def vp(beta_min: ArrayLike = 0.1, beta_max: ArrayLike = 20.0) -> Schedule:
    """Variance-preserving schedule with a linear noise rate: alpha(t)**2 + sigma(t)**2 = 1.

    log alpha(t) = -beta_min t / 2 - (beta_max - beta_min) t**2 / 4

    On the grid t = i / T this is exactly the discrete `vp_betas(T, beta_min, beta_max)` of Diffusion-QL, for every T.

    Args:
      beta_min: noise rate at t = 0, in nats per unit time. Scalar >= 0, may be traced.
      beta_max: noise rate at t = 1. At 10 (Diffusion-QL) alpha(1) is 0.080, not 0: x_T is not quite N(0, I).

    Returns:
      Schedule that maps t [*B] in [0, 1] to [*B].

    Reference: Song et al. 2021, arXiv:2011.13456, eq. 33.
    """
    return _Vp(beta_min, beta_max)  # type: ignore[call-arg]


def cosine(offset: ArrayLike = 0.008, t_max: ArrayLike = 0.9946) -> Schedule:
    """Cosine schedule: alpha(t) = cos(pi/2 (t t_max + c)/(1 + c)) / cos(pi/2 c/(1 + c)), variance preserving.

    Args:
      offset: c, keeps the first steps from being too small. Scalar > 0, may be traced.
      t_max: the part of the curve that t in [0, 1] covers. 1 ends at alpha = 0, where eps-prediction is undefined;
        0.9946 ends at log(alpha/sigma) = -4.8, as DPM-Solver (arXiv:2206.00927, appendix D.4) does.

    Returns:
      Schedule that maps t [*B] in [0, 1] to [*B]. For the discrete betas capped at 0.999 use
      `from_betas(cosine_betas(T))`.

    Reference: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17.
    """
    return _Cosine(offset, t_max)  # type: ignore[call-arg]


def flow() -> Schedule:
    """Straight path between data and noise: alpha(t) = 1 - t, sigma(t) = t.

    Returns:
      Schedule that maps t [*B] in [0, 1] to [*B]. Here t = 0 is data, the reverse of Lipman's convention.

    Reference: Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003.
    """
    return _Flow()


def from_betas(betas: ArrayLike) -> Schedule:
    """Schedule through the discrete levels of a DDPM: alpha((i + 1) / N)**2 = prod_{j <= i} (1 - beta_j).

    Between the levels log alpha is linear in t (as DPM-Solver interpolates); at t = 0 the schedule is clean.

    Args:
      betas: [N] noise variances, each in (0, 1). May be traced; then it is not checked.

    Raises:
      ValueError: a beta outside (0, 1), or not one axis.

    Reference: Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    xp = array_namespace(betas)
    betas = xp.asarray(betas, dtype=float)
    if betas.ndim != 1 or betas.shape[0] < 1:
        raise ValueError(f"betas has shape {betas.shape}; give one axis with at least one value.")
    if xp is np and not ((betas > 0) & (betas < 1)).all():
        raise ValueError(
            f"betas range from {betas.min():.4g} to {betas.max():.4g}; each must lie in (0, 1), or alpha is not a "
            "real positive number. Use more steps or a smaller largest beta."
        )
    return _FromBetas(xp.concatenate([xp.zeros(1), 0.5 * xp.cumsum(xp.log1p(-betas))]))  # type: ignore[call-arg]


def vp_betas(num_steps: int, beta_min: float = 0.1, beta_max: float = 10.0) -> np.ndarray:
    """Betas [T] of `vp` on the grid t = i / T: 1 - exp(-b_min/T - (b_max - b_min)(2i - 1)/(2 T**2)), i = 1..T.

    Reference: Xiao et al. 2022, arXiv:2112.07804; the schedule of Diffusion-QL (arXiv:2208.06193), b_max = 10.
    """
    i = np.arange(1, num_steps + 1)
    return -np.expm1(-beta_min / num_steps - 0.5 * (beta_max - beta_min) * (2 * i - 1) / num_steps**2)


def cosine_betas(num_steps: int, offset: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    """Betas [T] of the cosine schedule, capped at max_beta. Reference: arXiv:2102.09672, eq. 17 and section 3.2."""
    x = np.arange(num_steps + 1) / num_steps
    alpha_bar = np.cos(0.5 * np.pi * (x + offset) / (1 + offset)) ** 2
    return np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def linear_betas(
    num_steps: int, beta_min: float = 1e-4, beta_max: float = 2e-2, *, reference_steps: int | None = 1000
) -> np.ndarray:
    """Betas [T] from beta_min to beta_max, scaled by reference_steps / T so that any T ends at the same noise.

    Args:
      num_steps: T. With the default scaling T must exceed 20, or the largest beta reaches 1.
      beta_min: first beta at T = reference_steps.
      beta_max: last beta at T = reference_steps.
      reference_steps: None for no scaling (Diffusion-QL's `linear`), 1000 for EDP's and OpenAI's.

    Raises:
      ValueError: the scaled betas reach 1.

    Reference: Ho et al. 2020, arXiv:2006.11239, section 4; scaling as in Kang et al. 2023, arXiv:2305.20081.
    """
    scale = 1.0 if reference_steps is None else reference_steps / num_steps
    if scale * beta_max >= 1.0:
        raise ValueError(
            f"linear betas with num_steps={num_steps} would end at {scale * beta_max:.3g}, and a beta must be below 1; "
            f"use num_steps > {int(reference_steps * beta_max)} or another schedule (vp, cosine)."  # type: ignore[operator]
        )
    return np.linspace(scale * beta_min, scale * beta_max, num_steps)


def level_at(schedule: Schedule, t: ArrayLike) -> Level:
    """The noise level(s) at diffusion time t [*B] in [0, 1]."""
    log_alpha, log_sigma = schedule.log_alpha_sigma(t)
    return Level(array_namespace(t, log_alpha).asarray(t, dtype=float), log_alpha, log_sigma)


def logsnr(schedule: Schedule, t: ArrayLike) -> Any:
    """log(alpha(t)**2 / sigma(t)**2) in nats, [*B]; +inf at t = 0."""
    return 2.0 * level_at(schedule, t).half_logsnr


def add_noise(level: Level, x0: Array, eps: Array) -> Array:
    """x_t = alpha x0 + sigma eps, with level [*B] and x0, eps [*B, ..., D]. Reference: arXiv:2006.11239, eq. 4."""
    return expand_to(level.alpha, x0) * x0 + expand_to(level.sigma, x0) * eps


def expand_to(scalar: ArrayLike, x: Array) -> Array:
    """Gives a per-example scalar [*B] the trailing axes of x [*B, ...], as float of x's type."""
    scalar = jnp.asarray(scalar, dtype=x.dtype)
    return scalar.reshape(scalar.shape + (1,) * (x.ndim - scalar.ndim)) if scalar.ndim else scalar


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "vp": vp,
    "cosine": cosine,
    "flow": flow,
    "linear": functools.partial(lambda num_steps=100, **kwargs: from_betas(linear_betas(num_steps, **kwargs))),
    "cosine_betas": functools.partial(lambda num_steps=100, **kwargs: from_betas(cosine_betas(num_steps, **kwargs))),
}
