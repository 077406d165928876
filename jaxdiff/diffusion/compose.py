"""Guidance by conditions: one network, several conditions in one batch, and a weighted sum that adds up to one.

Because every parameterisation is affine in the network's output, and the weights add up to one, it makes no difference
whether x0, eps, v, flow or the score is combined.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.diffusion.denoiser import Denoiser
from jaxdiff.diffusion.guidance import Scale, by_level, scale_at
from jaxdiff.diffusion.level import Level, array_namespace, expand_to, safe_sqrt
from jaxdiff.types import Array

ConditionalDenoiser = Callable[[Array, Level, Any], Array]  # (x [*B, D], level, cond [*B, ...]) -> x0_hat [*B, D]


def cfg(
    denoise: ConditionalDenoiser,
    cond: Any,
    null: Any,
    guidance_scale: Scale | None,
    *,
    rescale: ArrayLike | None = None,
    axis: int | tuple[int, ...] = -1,
) -> Denoiser:
    """Classifier-free guidance, both branches in one network call.

    x0_hat = w x0_hat(cond) + (1 - w) x0_hat(null)

    w = 1 is plain conditional and w = 0 unconditional; Ho and Salimans' omega is w - 1, so (1 + omega) eps(cond) -
    omega eps(null) is w = 1 + omega.

    Args:
      denoise: (x [*B, D], level, cond) -> x0_hat [*B, D], broadcasting over leading axes.
      cond: conditioning, a pytree of arrays [*B, ...].
      null: the empty conditioning, same structure and shapes as cond.
      guidance_scale: w, [] or [*B] or a function of the level such as `interval`; may be traced. None, which is static,
        leaves guidance out: cond alone, at half the price.
      rescale: phi in [0, 1], how far to bring the standard deviation of the guided prediction back to that of the
        conditional one; may be traced. None: not at all, at no price.
      axis: features of one example, over which that deviation is taken.

    Raises:
      ValueError: cond and null of different structure or shapes.

    Reference: Ho and Salimans 2022, arXiv:2207.12598, eq. 6; rescale: Lin et al. 2023, arXiv:2305.08891, eq. 15-16.
    """
    if guidance_scale is None:
        return lambda x, level: denoise(x, level, cond)
    branches = _branches(denoise, [cond, null])
    w: Scale = guidance_scale

    def guided(x: Array, level: Level) -> Array:
        predictions = branches(x, level)
        x0_hat = _combine(predictions, [scale_at(w, level, x)])
        return x0_hat if rescale is None else match_deviation(x0_hat, predictions[0], rescale, axis)

    return guided


def compose(denoise: ConditionalDenoiser, conds: Sequence[Any], null: Any, scales: Sequence[Scale]) -> Denoiser:
    """Several conditions at once (AND), or against one (NOT, a negative weight), all in one network call.

    x0_hat = x0_hat(null) + sum_i w_i (x0_hat(cond_i) - x0_hat(null))

    This is the score of p(x_t) prod_i (p(x_t | cond_i) / p(x_t))**w_i, with w_i = 1 that of p(x_t | cond_1, cond_2 ..)
    where the conditions are independent given x_t. It need not be the noised version of any density of clean data.

    Args:
      denoise: (x [*B, D], level, cond) -> x0_hat [*B, D], broadcasting over leading axes.
      conds: conditionings, each a pytree of arrays [*B, ...].
      null: the empty conditioning, same structure and shapes as each of conds.
      scales: w_i, each [] or [*B] or a function of the level; may be traced. Negative: NOT.

    Raises:
      ValueError: not one scale for each condition, or conditions of different structure or shapes.

    Reference: Liu et al. 2022, arXiv:2206.01714, section 4; Ajay et al. 2023, arXiv:2211.15657.
    """
    if len(conds) != len(scales) or not conds:
        raise ValueError(f"{len(conds)} conditions and {len(scales)} scales; give one scale for each condition.")
    branches = _branches(denoise, [*conds, null])
    return lambda x, level: _combine(branches(x, level), [scale_at(w, level, x) for w in scales])


def autoguidance(denoise: Denoiser, weaker: Denoiser, guidance_scale: Scale) -> Denoiser:
    """Away from a weaker model: x0_hat = w x0_hat + (1 - w) x0_hat_weaker; w = 1 is the model itself.

    Args:
      denoise: the model, its condition bound.
      weaker: a smaller or less trained one of the same data, with the same condition bound.
      guidance_scale: w >= 1, [] or [*B] or a function of the level; may be traced.

    Reference: Karras et al. 2024, arXiv:2406.02070.
    """

    def guided(x: Array, level: Level) -> Array:
        return _combine(jnp.stack([denoise(x, level), weaker(x, level)]), [scale_at(guidance_scale, level, x)])

    return guided


def cfgpp_scale(levels: Level, strength: ArrayLike) -> Scale:
    """The scale with which `cfg` on `ddim(levels)` is CFG++: noised again by the unconditional noise.

    x' = alpha' (x0_hat(null) + strength (x0_hat(cond) - x0_hat(null))) + sigma' eps_hat(null)

    This is DDIM with w = strength / (1 - exp(-h)), h the step in log(alpha / sigma): small steps are guided more, and a
    last one to clean data by the strength itself.

    Args:
      levels: [K + 1] decreasing noise, those of the table.
      strength: in [0, 1]; may be traced.

    Reference: Chung et al. 2024, arXiv:2406.08070, algorithm 2.
    """
    xp = array_namespace(levels)
    half_logsnr = xp.asarray(levels.half_logsnr)
    return by_level(levels, strength / -xp.expm1(half_logsnr[:-1] - half_logsnr[1:]))


def match_deviation(guided: Array, reference: Array, strength: ArrayLike, axis: int | tuple[int, ...] = -1) -> Array:
    """Scales `guided` [*B, D] towards the standard deviation that `reference` has over `axis`: fully at strength 1.

    Reference: Lin et al. 2023, arXiv:2305.08891, eq. 15-16.
    """
    wanted, present = (safe_sqrt(jnp.var(x, axis=axis, keepdims=True)) for x in (reference, guided))
    varies = present > 0
    ratio = jnp.where(varies, wanted / jnp.where(varies, present, 1.0), 1.0)
    return guided * (1.0 + expand_to(strength, guided) * (ratio - 1.0))


def _branches(denoise: ConditionalDenoiser, conds: list[Any]) -> Denoiser:
    """Predictions under each condition [n, *B, D] from one call."""
    for cond in conds[:-1]:
        _check_same(cond, conds[-1])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *conds)
    count = len(conds)

    def together(x: Array, level: Level) -> Array:
        copies = Level(
            *(jnp.broadcast_to(leaf, (count, *jnp.shape(leaf))) if jnp.ndim(leaf) else leaf for leaf in level)
        )
        return denoise(jnp.stack([x] * count), copies, stacked)

    return together


def _combine(predictions: Array, scales: list[Array]) -> Array:
    """sum_i w_i m_i + (1 - sum_i w_i) m_n, exact where one weight is 1 and the others are 0."""
    rest = 1.0 - sum(scales[1:], start=scales[0])
    return sum((w * m for w, m in zip(scales, predictions[:-1], strict=True)), start=rest * predictions[-1])


def _check_same(cond: Any, null: Any) -> None:
    given, empty = str(jax.tree.structure(cond)), str(jax.tree.structure(null))
    if given != empty:
        raise ValueError(f"the condition is {given} and null {empty}; they must have the same structure.")
    for (path, c), n in zip(jax.tree.leaves_with_path(cond), jax.tree.leaves(null), strict=True):
        if jnp.shape(c) != jnp.shape(n):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"the condition{where} has shape {jnp.shape(c)} and null{where} {jnp.shape(n)}; they must be equal."
            )
