"""A sampler is a table: one row of scalars per network call, and one loop for all of them (`sample`).

Row k, with x where the network is called, q the state at the start of the current step, and G the last H slopes, the
newest first:

    m  = denoise(x, level_k)
    G <- (p_k x + r_k m, G_0, ..., G_{H-2})
    x <- a_k q + sum_h b_kh G_h + s_k z_k          z_k standard normal
    q <- the same with coefficients of its own (`base`), or the new x where a table has no inner stages

Solver, eta, order and grid are data in the rows: they may be traced, swept by vmap and exchanged without compiling
again. An inner stage of a Runge-Kutta step leaves q as it is; a corrector moves q before x is predicted from it.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion.level import Level, array_namespace, is_concrete


class Combination(NamedTuple):
    """anchor q + sum_h slopes_h G_h + noise z."""

    anchor: Any  # [N]
    slopes: Any  # [N, H]
    noise: Any  # [N]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["level", "slope_x", "slope_x0", "anchor", "slopes", "noise", "base", "noise_max"],
    meta_fields=["noisy_rows"],
)
@dataclasses.dataclass(frozen=True)
class Table:
    """Coefficients of a sampler with N network calls and H slopes of history."""

    level: Level  # [N + 1] each: where the network is called, and where the result lives
    slope_x: Any  # [N] p
    slope_x0: Any  # [N] r
    anchor: Any  # [N] a
    slopes: Any  # [N, H] b
    noise: Any  # [N] s
    base: Combination | None = None  # None: every row is a whole step
    noise_max: Any = None  # [N], with a learned variance: s goes from noise to noise_max as the network says
    noisy_rows: int = 0  # leading rows that draw noise; static. 0: deterministic, no key needed

    @property
    def num_calls(self) -> int:
        return jnp.shape(self.slope_x)[-1]


def split_levels(levels: Level) -> tuple[Level, Level]:
    """Levels [K + 1] as (starts, ends) of the K steps.

    Raises:
      ValueError: fewer than two levels, or a step that does not lose noise.
    """
    if np.ndim(levels.log_sigma) != 1 or np.shape(levels.log_sigma)[0] < 2:
        raise ValueError(f"levels have shape {np.shape(levels.log_sigma)}; a sampler needs one axis of at least two.")
    if is_concrete(levels):
        half_logsnr = np.asarray(levels.half_logsnr)
        if not (half_logsnr[1:] > half_logsnr[:-1]).all():
            raise ValueError(f"levels must lose noise in every step, from t = 1 down to t = 0; got t = {levels.t}.")
    return Level(*(leaf[:-1] for leaf in levels)), Level(*(leaf[1:] for leaf in levels))


def join_levels(levels: Sequence[Level]) -> Level:
    """Single levels [] as one level [N]."""
    xp = array_namespace(*levels)
    return Level(*(xp.stack([xp.asarray(value) for value in leaf]) for leaf in zip(*levels, strict=True)))


def ends_clean(levels: Level) -> bool:
    """Whether the last level is known, now, to be free of noise."""
    return is_concrete(levels.log_sigma) and bool(np.isneginf(np.asarray(levels.log_sigma)[-1]))


def noisy_steps(levels: Level, *strengths: Any) -> int:
    """Steps that draw noise: none if a strength is 0, all but a last one that ends at clean data otherwise."""
    if any(array_namespace(s) is np and np.all(np.asarray(s) == 0.0) for s in strengths):
        return 0
    return np.shape(levels.log_sigma)[0] - 1 - ends_clean(levels)


def check_order(order: int, allowed: Sequence[int], num_steps: int) -> None:
    """Refuses an order that a solver does not have, or that the chain is too short for.

    Raises:
      ValueError: as said.
    """
    if order not in allowed:
        raise ValueError(f"order={order}; allowed: {', '.join(map(str, allowed))}.")
    if num_steps < order:
        raise ValueError(
            f"order={order} needs a grid of at least {order} steps, and this one has {num_steps}; "
            f"use num_steps >= {order} or order <= {num_steps}."
        )


def eps_slope(level: Level) -> tuple[Any, Any]:
    """(p, r) that make the slope the predicted noise: (x - alpha x0_hat) / sigma.

    Raises:
      ValueError: a level without noise, where it has no value.
    """
    if is_concrete(level.log_sigma) and np.isneginf(np.asarray(level.log_sigma)).any():
        raise ValueError("the network would be called at sigma = 0, where eps_hat has no value; end the grid earlier.")
    return 1.0 / level.sigma, -level.alpha / level.sigma


def as_arrays(table: Table) -> Table:
    """The finished table as arrays of JAX's float type (float32, unless x64 is enabled), whatever it was built in."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=float), table)


def x0_table(levels: Level, anchor: Any, slopes: Any, noise: Any = 0.0, noisy_rows: int = 0) -> Table:
    """A table of whole steps whose slopes are x0-predictions: x' = anchor x + sum_h slopes_h x0_hat_h + noise z.

    Args:
      levels: [N + 1].
      anchor: [N].
      slopes: [N], or [N, H] with the newest prediction first.
      noise: [N] or a scalar.
      noisy_rows: leading rows that draw noise.
    """
    xp = array_namespace(levels, anchor, slopes, noise)
    zero = xp.zeros_like(xp.asarray(anchor, dtype=float))
    slopes = slopes if np.ndim(slopes) == 2 else slopes[:, None]
    return as_arrays(Table(levels, zero, zero + 1.0, anchor, slopes, zero + noise, noisy_rows=noisy_rows))


def rows(table: Table, first: int, last: int) -> Table:
    """Calls first .. last - 1 of a chain, from its level first to its level last: to start late, or to stop early.

    Start `sample` of the rest from data with the noise of level first (`add_noise`), such as an earlier plan.

    Args:
      table: a sampler whose every row is a whole step from x and one prediction: ddpm, ddim, euler, ...; N calls.
      first: 0 to last - 1.
      last: first + 1 to N.

    Raises:
      ValueError: such rows are not in the table; a table with inner stages or with memory of earlier calls, which a
        part of it would lack; a stack of tables.
    """
    if jnp.ndim(table.slope_x) != 1:
        raise ValueError(f"a table's rows have shape {jnp.shape(table.slope_x)}; use jax.vmap over a stack of tables.")
    if table.base is not None or jnp.shape(table.slopes)[-1] != 1:
        raise ValueError(
            "this table has inner stages or remembers earlier calls, so its rows do not stand alone; take parts of "
            "one-step samplers: ddpm, ddpm_large, ddim, euler, euler_ancestral, dpmpp_1, sde_dpmpp_1, reverse_sde, "
            "pf_euler, consistency."
        )
    if not 0 <= first < last <= table.num_calls:
        raise ValueError(f"first={first} and last={last}; allowed: 0 <= first < last <= {table.num_calls} (its calls).")
    levels = Level(*(leaf[first : last + 1] for leaf in table.level))
    part = jax.tree.map(lambda leaf: leaf[first:last], table)
    return dataclasses.replace(part, level=levels, noisy_rows=max(0, min(table.noisy_rows, last) - first))


def align(tables: Sequence[Table]) -> list[Table]:
    """The same samplers with equal structure, so that one compiled program runs each of them.

    History is padded with zero weights, every table gets a `base`, and all draw noise in as many rows as the noisiest.

    Args:
      tables: samplers of equal network calls.

    Raises:
      ValueError: no table, unequal calls, or a learned variance next to a fixed one.
    """
    calls = [table.num_calls for table in tables]
    if len(set(calls)) != 1:
        raise ValueError(f"these tables make {calls} network calls; give at least one, and all with equal calls.")
    if len({table.noise_max is None for table in tables}) != 1:
        raise ValueError("a table with a learned variance needs another denoiser; align it with its own kind only.")
    history = max(jnp.shape(table.slopes)[-1] for table in tables)
    rows = max(table.noisy_rows for table in tables)

    def pad(slopes: Any) -> Any:
        return jnp.pad(slopes, [(0, 0), (0, history - jnp.shape(slopes)[-1])])

    aligned = []
    for table in tables:
        own = table.base or Combination(table.anchor, table.slopes, table.noise)
        base = Combination(own.anchor, pad(own.slopes), own.noise)
        aligned.append(dataclasses.replace(table, slopes=pad(table.slopes), base=base, noisy_rows=rows))
    return aligned


def stack(tables: Sequence[Table]) -> Table:
    """Aligned tables on a leading axis [S], for `jax.vmap` over samplers. Raises as `align`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *align(tables))
