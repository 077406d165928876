"""Operations: how many a program holds, by its trace, and how many per second a device does at best."""

from collections.abc import Callable, Iterator
import math
import time
from typing import Any

import jax
import jax.numpy as jnp

PEAK_SECONDS = 0.3
PEAK_SIZES = (1024, 2048)  # of the matrices on a CPU


def matrix_flops(function: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations in the matrix products and convolutions of function(*args): two per multiply-add.

    A product of [B, M, K] and [B, K, N] is 2 B M K N. A `scan` counts as often as it runs, a `cond` as its most
    expensive branch, a `while`, whose number of rounds is data, once. Elementwise work is left out, so a device does
    at least this much. Nothing is compiled or run.

    Args:
      function: pure.
      *args: arrays or `jax.ShapeDtypeStruct`s.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def matrix_peak() -> float:
    """Operations per second of a large float32 matrix product on one device: the best of several sizes and rounds.

    On a CPU one device uses all cores, however many devices JAX divides them into.
    """
    best = 0.0
    for size in PEAK_SIZES if jax.default_backend() == "cpu" else (4096, 8192):
        multiply = jax.jit(lambda x: x @ x / x.shape[0])
        x = multiply(jnp.ones((size, size), jnp.float32)).block_until_ready()
        for _ in range(4):
            count, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < PEAK_SECONDS:
                for _ in range(4):
                    x = multiply(x)
                x.block_until_ready()
                count += 4
            best = max(best, 2 * size**3 * count / elapsed)
    return best


def _count(jaxpr: Any) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        per_output = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * per_output
    inside = [_count(jaxpr) for value in params.values() for jaxpr in _jaxprs(value)]
    if name == "cond":
        return max(inside)
    return sum(inside) * (params["length"] if name == "scan" else 1)


def _jaxprs(value: Any) -> Iterator[Any]:
    """The traces among an equation's parameters."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _jaxprs(item)
    elif hasattr(value, "eqns"):
        yield getattr(value, "jaxpr", value)
