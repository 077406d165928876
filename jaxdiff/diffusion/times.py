"""Diffusion times to train at: which noise levels an update sees, and how often.

All but `importance_times` give times [*shape]; the objective is the mean loss over their distribution.
"""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.diffusion.level import is_concrete
from jaxdiff.diffusion.schedules import Schedule, time_at
from jaxdiff.types import Array, Key


def uniform_times(key: Key, shape: tuple[int, ...], t_min: float = 1e-3) -> Array:
    """Diffusion times uniform on [t_min, 1). Consumes key."""
    return jax.random.uniform(key, shape, minval=t_min, maxval=1.0)


def discrete_times(key: Key, shape: tuple[int, ...], num_levels: int) -> Array:
    """Diffusion times uniform on {1/N, 2/N, ..., 1}: the levels of a chain of N steps. Consumes key.

    Raises:
      ValueError: num_levels < 1.
    """
    if num_levels < 1:
        raise ValueError(
            f"num_levels={num_levels}; a chain has at least 1 level. See uniform_times for continuous time."
        )
    return (jax.random.randint(key, shape, 0, num_levels) + 1) / num_levels


def stratified_times(key: Key, shape: tuple[int, ...], t_min: float = 1e-3) -> Array:
    """Diffusion times on [t_min, 1], one in each of B equal parts: each uniform, their mean far less noisy.

    t_i = t_min + (1 - t_min) mod(u + i / B, 1) with one uniform u for all B = prod(shape). Consumes key.

    Neighbours in the batch get neighbouring times, which matters only where the batch is ordered too.

    Reference: Kingma et al. 2021, arXiv:2107.00630, appendix I.1.
    """
    count = math.prod(shape)
    turned = jnp.mod(jax.random.uniform(key) + jnp.arange(count) / count, 1.0)
    return (t_min + (1.0 - t_min) * turned).reshape(shape)


def logit_normal_times(key: Key, shape: tuple[int, ...], mean: ArrayLike = 0.0, std: ArrayLike = 1.0) -> Array:
    """Diffusion times t = sigmoid(mean + std z), z standard normal: most of them in the middle. Consumes key.

    Args:
      key: consumed.
      shape: of the result.
      mean: larger favours noise; may be traced.
      std: > 0; may be traced.

    Reference: Esser et al. 2024, arXiv:2403.03206, eq. 19.
    """
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def log_normal_times(
    key: Key, shape: tuple[int, ...], schedule: Schedule, mean: ArrayLike = -1.2, std: ArrayLike = 1.2
) -> Array:
    """EDM's noise levels as times of any schedule: log(sigma / alpha) ~ N(mean, std**2). Consumes key.

    With the schedule `edm()` alpha is 1 and sigma itself is log-normal. What the schedule does not reach is taken at
    its nearest end, t = 0 or t = 1.

    Args:
      key: consumed.
      shape: of the result.
      schedule: inverted by `time_at`.
      mean: of the log noise to signal ratio; EDM's -1.2 and 1.2 are for data of deviation 0.5. May be traced.
      std: its deviation, > 0; may be traced.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    half_logsnr = -(mean + std * jax.random.normal(key, shape))
    return jnp.clip(time_at(schedule, half_logsnr), 0.0, 1.0)


def importance_times(key: Key, shape: tuple[int, ...], density: ArrayLike, t_min: float = 1e-3) -> tuple[Array, Array]:
    """Diffusion times more often where it pays, with the weights that leave the objective as it was. Consumes key.

    The mean of weight(t) loss(t) over these times is the mean of loss(t) over `uniform_times`, for every density. Its
    noise is least where the density is proportional to the root mean square of the loss.

    Args:
      key: consumed.
      shape: of the result.
      density: [M] > 0, relative, constant on each of M equal parts of [t_min, 1], the clean end first. May be traced
        (a running estimate, say).
      t_min: the smallest time.

    Returns:
      (t, weight), each [*shape]; weight = 1 / p(t) relative to the uniform distribution.

    Raises:
      ValueError: a density that is not one axis of positive numbers: a part never drawn would be left out silently.

    Reference: Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 18.
    """
    if jnp.ndim(density) != 1 or (is_concrete(density) and not np.all(np.asarray(density) > 0)):
        raise ValueError(f"density has shape {jnp.shape(density)}; give one axis of relative densities, each > 0.")
    mass = jnp.asarray(density, dtype=float)
    mass = mass / jnp.sum(mass)
    parts = mass.shape[0]
    until = jnp.cumsum(mass)
    u = jax.random.uniform(key, shape) * until[-1]
    part = jnp.minimum(jnp.searchsorted(until, u, side="right"), parts - 1)
    within = jnp.clip(1.0 - (until[part] - u) / mass[part], 0.0, 1.0)
    return t_min + (1.0 - t_min) * (part + within) / parts, 1.0 / (parts * mass[part])


# (key, shape, **options) -> times [*shape]
TIMES: dict[str, Callable[..., Array]] = {
    "uniform": uniform_times,
    "discrete": discrete_times,  # needs num_levels
    "stratified": stratified_times,
    "logit_normal": logit_normal_times,
    "log_normal": log_normal_times,  # needs schedule
}
