"""Advantages, ratios and running scales of on-policy learning."""

from flax import struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.types import Array


def generalised_advantage(
    reward: Array,
    discount: Array,
    ended: Array,
    value: Array,
    next_value: Array,
    discount_factor: ArrayLike,
    gae_lambda: ArrayLike,
) -> Array:
    """A_t = delta_t + gamma lambda (1 - ended_t) A_{t+1},  delta_t = r_t + gamma discount_t V(s'_t) - V(s_t).

    Where the clock ends an episode, delta still counts the value of its last observation, and nothing of the next
    episode leaks into the sum.

    Args:
      reward: [T, *B].
      discount: [T, *B], 0 where the task ended, 1 elsewhere, time limits included.
      ended: [T, *B], 1 where the next row is another episode, for either reason.
      value: [T, *B] V(s_t).
      next_value: [T, *B] V(s'_t), of the observation the step really led to.
      discount_factor: gamma in [0, 1]; may be traced.
      gae_lambda: lambda in [0, 1]; 0 is the one-step advantage, 1 the whole return. May be traced.

    Returns:
      [T, *B].

    Reference: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    """
    delta = reward + discount_factor * discount * next_value - value

    def step(later: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, ended = row
        advantage = delta + discount_factor * gae_lambda * (1.0 - ended) * later
        return advantage, advantage

    ended = ended.astype(delta.dtype)
    return jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, ended), reverse=True)[1]


def clipped_surrogate(log_ratio: Array, advantage: Array, clip: ArrayLike) -> Array:
    """-min(rho A, clip(rho, 1 - c, 1 + c) A), rho = exp(log_ratio): [*B], to be minimised.

    Reference: Schulman et al. 2017, arXiv:1707.06347, eq. 7.
    """
    ratio = jnp.exp(log_ratio)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def kl_estimate(log_ratio: Array) -> Array:
    """rho - 1 - log rho >= 0, whose mean over samples of the old policy is KL(old || new), in nats.

    Reference: Schulman 2020, http://joschu.net/blog/kl-approx.html, k3.
    """
    return jnp.expm1(log_ratio) - log_ratio


@struct.dataclass
class Moments:
    """Mean and variance of everything seen so far."""

    count: Array  # [] numbers seen
    mean: Array  # [*F]
    var: Array  # [*F]


def init_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Before anything was seen: mean 0, variance 1."""
    return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def update_moments(moments: Moments, x: Array) -> Moments:
    """The moments after also seeing x [*B, *F]; population variance.

    Reference: Chan, Golub and LeVeque 1983, pairwise updates of means and variances.
    """
    axes = tuple(range(x.ndim - moments.mean.ndim))
    fresh = jnp.asarray(x.size / max(moments.mean.size, 1), jnp.float32)
    mean, var = jnp.mean(x, axis=axes), jnp.var(x, axis=axes)
    total = moments.count + fresh
    share = fresh / total
    shift = mean - moments.mean
    new_var = moments.var * (1.0 - share) + var * share + jnp.square(shift) * share * (1.0 - share)
    return Moments(total, moments.mean + share * shift, new_var)


def running_returns(reward: Array, ended: Array, discount_factor: ArrayLike) -> Array:
    """R_t = gamma (1 - ended_{t-1}) R_{t-1} + r_t with R_0 = r_0: [T, *B] -> [T, *B].

    Returns run forward in time, so that their spread is known before the future is: rewards are divided by it.

    Reference: Engstrom et al. 2020, arXiv:2005.12729, section 3.
    """
    factor = jnp.asarray(discount_factor)

    def step(so_far: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, ended = row
        total = factor * so_far + reward
        return total * (1.0 - ended), total

    return jax.lax.scan(step, jnp.zeros_like(reward[0]), (reward, ended.astype(reward.dtype)))[1]
