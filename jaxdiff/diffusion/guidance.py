"""Guidance by a value's gradient, bounds on the x0-prediction, and strengths that depend on the noise level.

Each wrapper takes a denoiser and returns a denoiser, so they compose; `guide_before` is a hook of the sampler instead.
Guidance by conditions is in `compose`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.diffusion.denoiser import Denoiser
from jaxdiff.diffusion.level import Level, expand_to, is_concrete
from jaxdiff.diffusion.markov import gaussian_steps
from jaxdiff.diffusion.solvers.loop import Projection
from jaxdiff.diffusion.solvers.table import Table
from jaxdiff.types import Array

# A guidance scale: [] or [*B], or a function of the level to that; anything in it may be traced.
Scale = ArrayLike | Callable[[Level], ArrayLike]


def scale_at(scale: Scale, level: Level, x: Array) -> Array:
    """The scale at a level, with the trailing axes of x."""
    return expand_to(scale(level) if callable(scale) else scale, x)


def interval(scale: Scale, low: ArrayLike, high: ArrayLike, outside: ArrayLike = 1.0) -> Scale:
    """The scale w where low <= log(alpha / sigma) <= high, and `outside` elsewhere.

    Args:
      scale: w.
      low: lower end in nats of half log-SNR: a noise bound sigma <= s_high, at alpha = 1, is low = -log(s_high). May be
        traced.
      high: upper end, likewise -log(s_low). May be traced.
      outside: 1 for `cfg`, which is then plain conditional; 0 for the gradient of a value, which is then off.

    Returns:
      Function of the level.

    Raises:
      ValueError: low > high.

    Reference: Kynkäänniemi et al. 2024, arXiv:2404.07724.
    """
    if is_concrete(low, high) and not np.all(np.asarray(low) <= np.asarray(high)):
        raise ValueError(f"low={low} and high={high}; the interval of half log-SNR needs low <= high.")

    def within(level: Level) -> Array:
        inside = (level.half_logsnr >= low) & (level.half_logsnr <= high)
        return jnp.where(inside, scale(level) if callable(scale) else scale, outside)

    return within


def by_level(levels: Level, values: ArrayLike) -> Callable[[Level], Array]:
    """A value per step of a sampler as a function of the level: that of the step with the nearest half log-SNR.

    Args:
      levels: [N] or more; only the first N count, so the levels of a grid or a table [N + 1] fit as they are.
      values: [N].

    Raises:
      ValueError: fewer levels than values, or values without an axis.
    """
    count = jnp.shape(values)[0] if jnp.ndim(values) == 1 else 0
    if not 0 < count <= np.shape(levels.t)[0]:
        raise ValueError(f"values has shape {jnp.shape(values)} and the levels {np.shape(levels.t)}; one value a step.")

    def place(level: Level) -> Array:  # clean and pure noise are infinitely far from everything
        return jnp.clip(jnp.asarray(level.half_logsnr, dtype=float), -40.0, 40.0)

    steps = place(levels)[:count]

    def at(level: Level) -> Array:
        distance = jnp.abs(jnp.expand_dims(place(level), -1) - steps.reshape((1,) * jnp.ndim(level.t) + (-1,)))
        return jnp.asarray(values)[jnp.argmin(distance, axis=-1)]

    return at


def clip(denoise: Denoiser, low: ArrayLike = -1.0, high: ArrayLike = 1.0) -> Denoiser:
    """Clips the x0-prediction to [low, high]; the gradient is zero where it clips."""
    return lambda x, level: jnp.clip(denoise(x, level), low, high)


def threshold(
    denoise: Denoiser, quantile: ArrayLike = 0.995, bound: ArrayLike = 1.0, axis: int | tuple[int, ...] = -1
) -> Denoiser:
    """Dynamic thresholding: shrinks an example's whole x0-prediction into [-bound, bound], and clips what sticks out.

    x0_hat <- (bound / s) clip(x0_hat, -s, s),  s = max(bound, the quantile of |x0_hat|)

    Unlike `clip` it keeps proportions under strong guidance. With few entries the quantile is close to the maximum.

    Args:
      denoise: the denoiser.
      quantile: in [0, 1]; may be traced.
      bound: largest magnitude of data, > 0; may be traced.
      axis: features of one example, for example (-2, -1) for plans [*B, H, D].

    Raises:
      ValueError: quantile outside [0, 1], for example a percentage.

    Reference: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """
    if is_concrete(quantile) and not np.all((np.asarray(quantile) >= 0) & (np.asarray(quantile) <= 1)):
        raise ValueError(f"quantile={quantile}; allowed: 0 to 1, for example 0.995.")

    def bounded(x: Array, level: Level) -> Array:
        x0_hat = denoise(x, level)
        size = jnp.maximum(jnp.quantile(jnp.abs(x0_hat), quantile, axis=axis, keepdims=True), bound)
        return jnp.clip(x0_hat, -size, size) * (bound / size)

    return bounded


def score_gain(level: Level) -> Array:
    """sigma**2 / alpha: how far x0_hat moves per unit of score. 0 where alpha = 0 and it would be infinite."""
    log_alpha, log_sigma = jnp.asarray(level.log_alpha), jnp.asarray(level.log_sigma)
    informed = jnp.isfinite(log_alpha)
    return jnp.where(informed, jnp.exp(2.0 * log_sigma - jnp.where(informed, log_alpha, 0.0)), 0.0)


def posterior_gain(table: Table) -> Callable[[Level], Array]:
    """The gain with which `value_gradient` moves the mean of a sampler's step by w Sigma grad, Sigma its variance.

    A step x' = anchor x + slope x0_hat + noise z has Sigma = noise**2, so moving x0_hat by w (Sigma / slope) grad does
    it: p(x'|x, y) = N(mu + w Sigma grad log p(y|x), Sigma), as in classifier-guided DDPM and Diffuser, here with the
    gradient at x. On `ddpm(levels)` the gain is sigma'**2 / alpha', sigma and alpha where the step ends; with the
    large variance it is `score_gain` times alpha / alpha'. A step that draws no noise is not guided.

    Args:
      table: a sampler of one x0-prediction per row, such as `ddpm` or `ddim` with eta > 0. May be traced.

    Raises:
      ValueError: a table with inner stages, with history, with another slope or with a learned variance.

    Reference: Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 1; Janner et al. 2022, arXiv:2205.09991, eq. 3.
    """
    plain = table.base is None and table.noise_max is None and jnp.shape(table.slopes)[-1] == 1
    if not plain or (is_concrete(table.slope_x) and np.any(np.asarray(table.slope_x) != 0)):
        raise ValueError(
            "the posterior form of guidance needs a sampler whose every row is x' = a x + b x0_hat + s z with a known "
            "s: ddpm (variance 'small' or 'large') or ddim with eta > 0. For others take the default, score_gain."
        )
    slope = jnp.asarray(table.slopes)[:, 0] * jnp.asarray(table.slope_x0)
    moved = slope != 0
    return by_level(table.level, jnp.where(moved, jnp.square(table.noise) / jnp.where(moved, slope, 1.0), 0.0))


def value_gradient(
    denoise: Denoiser,
    value: Callable[[Array, Level], Array],
    scale: Scale = 1.0,
    *,
    gain: Callable[[Level], Array] = score_gain,
) -> Denoiser:
    """Moves the x0-prediction along the gradient of a value of the noisy x (classifier or energy guidance).

    x0_hat <- x0_hat + w gain(level) grad_x value(x_t, level)

    With the gain sigma**2 / alpha this adds w grad log p(y | x_t) to the score when value = log p(y | x_t). Where
    alpha = 0, so that x_t says nothing of x0 and the factor is infinite, there is no guidance.

    Args:
      denoise: the unguided denoiser.
      value: (x [*B, D], level) -> [*B], differentiable in x; examples must not interact.
      scale: w, [] or [*B] or a function of the level, such as `interval`; may be traced.
      gain: `score_gain`, or `posterior_gain(table)` to move the mean of that sampler by w Sigma grad.

    Reference: Dhariwal and Nichol 2021, arXiv:2105.05233, section 4.
    """

    def guided(x: Array, level: Level) -> Array:
        gradient = jax.grad(lambda y: jnp.sum(value(y, level)))(x)
        return denoise(x, level) + scale_at(scale, level, x) * expand_to(gain(level), x) * gradient

    return guided


def dps(
    denoise: Denoiser,
    value: Callable[[Array], Array],
    scale: Scale = 1.0,
    *,
    gain: Callable[[Level], Array] = score_gain,
) -> Denoiser:
    """Moves the x0-prediction along the gradient of a value of itself, taken through the denoiser (DPS).

    x0_hat <- x0_hat + w gain(level) grad_x value(x0_hat(x))

    The value needs no training on noisy data: for a measurement y = A x0 + noise it is log p(y | x0_hat), and with the
    variance of x0 given x_t added to that of the noise this is exact for Gaussian data. One call and one backward pass.

    Args:
      denoise: the unguided denoiser.
      value: x0_hat [*B, D] -> [*B], differentiable; examples must not interact.
      scale: w, [] or [*B] or a function of the level; may be traced.
      gain: `score_gain`, or `posterior_gain(table)`.

    Reference: Chung et al. 2023, arXiv:2209.14687, theorem 1.
    """

    def guided(x: Array, level: Level) -> Array:
        x0_hat, pull = jax.vjp(lambda y: denoise(y, level), x)
        (gradient,) = pull(jax.grad(lambda z: jnp.sum(value(z)))(x0_hat))
        return x0_hat + scale_at(scale, level, x) * expand_to(gain(level), x) * gradient

    return guided


def mean_gradient(
    denoise: Denoiser, value: Callable[[Array, Level], Array], table: Table, scale: Scale = 1.0
) -> Denoiser:
    """Moves the mean mu of a sampler's step along the gradient of a value at mu: x' ~ N(mu + w Sigma g, Sigma).

    mu = a x + b x0_hat,  g = grad value(mu, level);  x0_hat <- x0_hat + w (Sigma / b) g

    `value_gradient` with `posterior_gain` is the same with the gradient at x. A step that draws no noise is not guided.

    Args:
      denoise: the unguided denoiser.
      value: (mu [*B, D], level) -> [*B], differentiable; examples must not interact. The level is that of x, where the
        step starts, as in Diffuser; mu has about the noise of the step's end.
      table: the sampler that will be run, of one x0-prediction per row, such as `ddpm`, or `ddim` with eta > 0.
      scale: w, [] or [*B] or a function of the level; may be traced.

    Raises:
      ValueError: a table with inner stages, with history, with another slope or with a learned variance.

    Reference: Janner et al. 2022, arXiv:2205.09991, eq. 3 and algorithm 1.
    """
    gain, steps = posterior_gain(table), gaussian_steps(table)
    keep, pull = by_level(steps.level, steps.keep), by_level(steps.level, steps.pull)

    def guided(x: Array, level: Level) -> Array:
        x0_hat = denoise(x, level)
        mean = expand_to(keep(level), x) * x + expand_to(pull(level), x) * x0_hat
        gradient = jax.grad(lambda y: jnp.sum(value(y, level)))(mean)
        return x0_hat + scale_at(scale, level, x) * expand_to(gain(level), x) * gradient

    return guided


def guide_before(
    value: Callable[[Array, Level], Array],
    table: Table,
    scale: Scale = 1.0,
    *,
    num_steps: int = 2,
    stop_below: ArrayLike = 0,
    project: Projection | None = None,
) -> Projection:
    """Hook that moves x uphill before the network is called on it, as Diffuser's released code does.

    num_steps times: x <- x + w Sigma grad value(x, level), with Sigma the variance of the step that starts at x

    So the mean of that step is computed from the moved x. The clean end, and steps that draw no noise, are not guided.

    Args:
      value: (x [*B, D], level) -> [*B], differentiable in x; examples must not interact.
      table: the sampler that will be run, or of which parts (`rows`) will be.
      scale: w, [] or [*B] or a function of the level; may be traced.
      num_steps: gradient steps at every level, >= 1; each costs a backward pass of the value.
      stop_below: the table's last so many steps are not guided (Diffuser's t_stopgrad); may be traced.
      project: hook applied before and after every move, such as `keep_known`: the value then sees what is known. None:
        nothing is.

    Raises:
      ValueError: a table that draws no noise, with inner stages or a learned variance, or whose levels go back up;
        num_steps < 1; stop_below < 0.

    Reference: Janner et al. 2022, arXiv:2205.09991, appendix; Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 1.
    """
    if num_steps < 1 or (is_concrete(stop_below) and np.any(np.asarray(stop_below) < 0)):
        raise ValueError(f"num_steps={num_steps} and stop_below={stop_below}; allowed: at least 1, and at least 0.")
    climbs = is_concrete(table.level.log_sigma) and np.any(np.diff(np.asarray(table.level.log_sigma)) >= 0)
    if table.noisy_rows == 0 or table.base is not None or table.noise_max is not None or climbs:
        raise ValueError(
            "guide_before moves x by the variance of each step, so it needs a sampler that draws noise of a known "
            "variance, in whole steps down: ddpm, or ddim with eta > 0. For others take value_gradient."
        )
    left = table.num_calls - 1 - np.arange(table.num_calls)
    variance = jnp.where(left >= stop_below, jnp.square(table.noise), 0.0)
    variance_at = by_level(table.level, jnp.append(variance, 0.0))

    def hook(x: Array, level: Level, noise: Array) -> Array:
        x = x if project is None else project(x, level, noise)
        step = scale_at(scale, level, x) * expand_to(variance_at(level), x)
        for _ in range(num_steps):
            gradient = jax.grad(lambda y: jnp.sum(value(y, level)))(x)
            x = x + jnp.where(step != 0, step * gradient, 0.0)  # at the clean end a value may not be finite
            x = x if project is None else project(x, level, noise)
        return x

    return hook
