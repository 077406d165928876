"""Units a planner's network works in: limits, gaussian or quantile, measured on the data and kept as pytrees.

A dimension that is constant in the data is centred and otherwise left alone, so it maps to 0 and back.
"""

from collections.abc import Callable

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array

CONSTANT = 1e-4  # a spread below this share of the largest one counts as none
NUM_KNOTS = 129  # quantiles kept of each dimension


@struct.dataclass
class Affine:
    """y = (x - shift) / scale; on the way back y is first kept within +-bound."""

    shift: Array  # [D]
    scale: Array  # [D] > 0
    bound: Array  # [] 1 for limits, inf otherwise

    def normalise(self, x: Array) -> Array:
        return (x - _like(self.shift, x)) / _like(self.scale, x)

    def unnormalise(self, y: Array) -> Array:
        return _like(self.shift, y) + _like(self.scale, y) * jnp.clip(y, -self.bound, self.bound)


@struct.dataclass
class Quantile:
    """y = 2 F(x) - 1, F the empirical distribution of each dimension, linear between its quantiles.

    So every dimension of the data is uniform in [-1, 1]; what lies outside the data maps to the nearer end.
    """

    knots: Array  # [D, NUM_KNOTS], increasing
    constant: Array  # [D] bool

    def normalise(self, x: Array) -> Array:
        levels = jnp.linspace(-1.0, 1.0, self.knots.shape[-1])
        mapped = _per_dimension(lambda x, knots: jnp.interp(x, knots, levels), x, self.knots)
        return jnp.where(_like(self.constant, mapped), 0.0, mapped)

    def unnormalise(self, y: Array) -> Array:
        levels = jnp.linspace(-1.0, 1.0, self.knots.shape[-1])
        return _per_dimension(lambda y, knots: jnp.interp(y, levels, knots), y, self.knots)


Normaliser = Affine | Quantile


def _like(feature: Array, x: Array) -> Array:
    """feature [D] with as many axes as x [*B, D]."""
    return feature.reshape((1,) * (jnp.ndim(x) - 1) + (-1,))


def _per_dimension(function: Callable[[Array, Array], Array], x: Array, knots: Array) -> Array:
    return jax.vmap(function, in_axes=(-1, 0), out_axes=-1)(x, knots)


def _identity(x: Array) -> Affine:
    width = x.shape[-1]
    return Affine(jnp.zeros(width), jnp.ones(width), jnp.full((), jnp.inf))


def _limits(x: Array) -> Affine:
    low, high = x.min(axis=0), x.max(axis=0)
    return Affine((low + high) / 2.0, _spread((high - low) / 2.0), jnp.ones(()))


def _gaussian(x: Array) -> Affine:
    near = x - x[:1]  # small numbers keep their digits in the sums
    mean = near.mean(axis=0)
    std = jnp.sqrt(jnp.mean(jnp.square(near - mean[None]), axis=0))
    return Affine(x[0] + mean, _spread(std), jnp.full((), jnp.inf))


def _quantile(x: Array) -> Quantile:
    knots = jnp.quantile(x, jnp.linspace(0.0, 1.0, NUM_KNOTS), axis=0).T
    spread = knots[:, -1] - knots[:, 0]
    return Quantile(knots, ~_varies(spread))


def _varies(spread: Array) -> Array:
    return spread > CONSTANT * spread.max()


def _spread(spread: Array) -> Array:
    return jnp.where(_varies(spread), spread, 1.0)


# x [N, D] -> Normaliser: 2 (x - min) / (max - min) - 1, (x - mean) / std, 2 F(x) - 1, x.
NORMALISERS: dict[str, Callable[[Array], Normaliser]] = {
    "gaussian": _gaussian,
    "limits": _limits,
    "none": _identity,
    "quantile": _quantile,
}


def check_normaliser(name: str) -> None:
    """Raises KeyError unless the name is one of NORMALISERS."""
    if name not in NORMALISERS:
        raise unknown_name("normaliser", name, NORMALISERS)


def fit_normaliser(name: str, x: Array) -> Normaliser:
    """The normaliser of that name for data x [N, D], N >= 1; pure, works inside jit.

    Raises:
      KeyError: unknown name.

    Reference: limits and gaussian: Janner et al. 2022, arXiv:2205.09991, code; quantile: Ajay et al. 2023,
    arXiv:2211.15657, code ("CDFNormalizer"). There a constant dimension divides by zero, or shifts all others.
    """
    check_normaliser(name)
    return NORMALISERS[name](jnp.asarray(x))


def blank_normaliser(name: str, width: int) -> Normaliser:
    """A normaliser of that structure before any data were seen: fitted to the box [-1, 1]."""
    return fit_normaliser(name, jnp.stack([-jnp.ones(width), jnp.ones(width)]))
