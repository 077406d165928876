"""The one loop that runs every table."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.diffusion.denoiser import Denoiser
from jaxdiff.diffusion.level import Level
from jaxdiff.diffusion.solvers.table import Combination, Table
from jaxdiff.types import Array, Key

UNROLL_BELOW = 17  # a chain this short is unrolled: a scan costs host work per step on GPU, and time on CPU
DRAW_AT_ONCE = 100  # up to so many rows of noise come from one generator call; longer chains draw row by row

Projection = Callable[[Array, Level, Array], Array]  # (x [*B, D], level [], standard normal [*B, D]) -> x [*B, D]


def sample(
    denoise: Denoiser,
    table: Table,
    x_T: Array,
    key: Key | None = None,
    *,
    temperature: ArrayLike = 1.0,
    grad_steps: int | None = None,
    unroll: bool | None = None,
    remat: bool = False,
    project: Projection | None = None,
) -> Array:
    """Runs a table: from noise x_T [*B, D] to a sample [*B, D].

    The state is kept in x_T's precision but never below float32; the result has x_T's type.

    Args:
      denoise: (x [*B, D], level []) -> x0_hat [*B, D]; with a learned variance (x0_hat, fraction in [0, 1]).
      table: the sampler, see `jaxdiff.diffusion.solvers`.
      x_T: starting point, usually standard normal times the sigma of the first level (`initial_noise`).
      key: consumed; may be None for a deterministic table without `project`.
      temperature: multiplies the injected noise (not x_T); may be traced.
      grad_steps: differentiate through the last so many network calls only, 1 to N; None: all.
      unroll: True for a Python loop, False for `lax.scan`; None: a loop up to 16 calls. Results agree to rounding.
      remat: recompute each call in the backward pass, which saves memory in long chains.
      project: called on x_T and on the state after every row, with the level it lives at and noise of its own.

    Raises:
      ValueError: noise to be drawn without a key, grad_steps outside 1 .. N, a table with a leading axis, or `project`
        with a table of several stages per step, whose inner states it would tear apart.
    """
    options = _Options(temperature, grad_steps, unroll, remat, project)
    return _run(denoise, table, x_T, key, options, record=False)[0]


def sample_path(
    denoise: Denoiser,
    table: Table,
    x_T: Array,
    key: Key | None = None,
    *,
    temperature: ArrayLike = 1.0,
    grad_steps: int | None = None,
    unroll: bool | None = None,
    remat: bool = False,
    project: Projection | None = None,
) -> tuple[Array, Array]:
    """As `sample`, with every state on the way: how a sample came out of noise.

    Arguments and errors are those of `sample`.

    Returns:
      (x0 [*B, D], path [N + 1, *B, D]): path[k] is where call k is made, at the table's level k, and path[N] is x0.
      path[0] is x_T, after `project` if there is one.
    """
    options = _Options(temperature, grad_steps, unroll, remat, project)
    x0, path = _run(denoise, table, x_T, key, options, record=True)
    assert path is not None
    return x0, path


def initial_noise(key: Key, table: Table, shape: tuple[int, ...]) -> Array:
    """Noise at the scale of a table's first level: sigma_T z, [*shape]. Consumes key.

    On variance-preserving schedules with little signal left that is the standard normal, with alpha = 1 sigma_max z.
    """
    return table.level.sigma[0] * jax.random.normal(key, shape)


class _Options(NamedTuple):
    temperature: ArrayLike
    grad_steps: int | None
    unroll: bool | None
    remat: bool
    project: Projection | None


def _run(
    denoise: Denoiser, table: Table, x_T: Array, key: Key | None, options: _Options, *, record: bool
) -> tuple[Array, Array | None]:
    """The result of a table and, with `record`, the states [N + 1, *B, D] from the first to it."""
    temperature, grad_steps, unroll, remat, project = options
    _check(table, key, grad_steps, project)
    num_calls = table.num_calls
    x = jnp.asarray(x_T, dtype=jnp.promote_types(x_T.dtype, jnp.float32))
    table = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=x.dtype), table)
    history = jnp.shape(table.slopes)[1]
    key_rows, key_projection = (key, None) if project is None else _split(key)
    chain = _Chain(
        _stepper(denoise, project, remat),
        table,
        _Noise(key_rows, x, table.noisy_rows, jnp.asarray(temperature, x.dtype)),
        _Noise(key_projection, x, 0 if project is None else num_calls + 1, jnp.ones((), x.dtype)),
        record,
    )
    if project is not None:
        x = _project(project, x, jax.tree.map(lambda leaf: leaf[0], table.level), chain.projection_noise.row(num_calls))

    run = _loop if (num_calls < UNROLL_BELOW if unroll is None else unroll) else _scan
    cut = 0 if grad_steps is None else num_calls - grad_steps
    carry = _Carry(x, None if table.base is None else x, (jnp.zeros_like(x),) * (history - 1))
    early = None
    if cut:
        carry, early = jax.lax.stop_gradient(run(chain, carry, 0, cut))
    carry, late = run(chain, carry, cut, num_calls)
    x0 = carry.x.astype(x_T.dtype)
    if late is None:
        return x0, None
    states = (x[None], late) if early is None else (x[None], early, late)
    return x0, jnp.concatenate(states).astype(x_T.dtype)


class _Carry(NamedTuple):
    x: Array  # [*B, D]
    base: Array | None  # [*B, D] q, where it differs from x
    older: tuple[Array, ...]  # H - 1 slopes of earlier calls, newest first


class _Row(NamedTuple):
    level: Level
    after: Level  # where x lives when the row is done
    slope_x: Any
    slope_x0: Any
    state: Combination
    base: Combination | None
    noise_max: Any


class _Noise:
    """Standard normal rows times a scale: drawn at once if they are few, else row by row from keys of their own."""

    def __init__(self, key: Key | None, x: Array, rows: int, scale: Array) -> None:
        self.count, self.shape, self.dtype, self.scale = rows, x.shape, x.dtype, scale
        self.source: Any = None
        self.at_once = rows <= DRAW_AT_ONCE
        if rows and key is not None:
            if self.at_once:
                self.source = scale * jax.random.normal(key, (rows, *x.shape), x.dtype)
            else:
                self.source = jax.random.split(key, rows)

    def row(self, k: int) -> Array | None:
        """Row k, or None where a table draws none."""
        return self.finish(self.source[k]) if k < self.count else None

    def slice(self, first: int, last: int) -> Any:
        """What a scan over rows first .. last - 1 gives its body, which calls `finish`."""
        # Rows that draw none have scale 0 in the table, so any noise will do.
        return self.source[np.minimum(np.arange(first, last), self.count - 1)] if self.count else None

    def finish(self, drawn: Any) -> Array | None:
        if drawn is None or self.at_once:
            return drawn
        return self.scale * jax.random.normal(drawn, self.shape, self.dtype)


class _Chain(NamedTuple):
    step: Callable[[_Carry, _Row, Array | None, Array | None], _Carry]
    table: Table
    noise: _Noise
    projection_noise: _Noise
    record: bool  # whether to return the state after every row


def _check(table: Table, key: Key | None, grad_steps: int | None, project: Projection | None) -> None:
    if jnp.ndim(table.slope_x) != 1:
        raise ValueError(f"a table's rows have shape {jnp.shape(table.slope_x)}; use jax.vmap over a stack of tables.")
    num_calls = table.num_calls
    if key is None and table.noisy_rows:
        raise ValueError(f"this sampler draws noise in {table.noisy_rows} of its {num_calls} steps; pass key=.")
    if key is None and project is not None:
        raise ValueError("project= draws noise of its own; pass key=.")
    if project is not None and table.base is not None:
        raise ValueError(
            "project= needs a table whose every row is a whole step, and this one has inner stages; use a one-stage or "
            "multistep sampler, or hold what is known with `hold_known` or `inpaint`."
        )
    if grad_steps is not None and not 1 <= grad_steps <= num_calls:
        raise ValueError(f"grad_steps={grad_steps}; allowed: 1 to {num_calls} (the table's calls), or None for all.")


def _split(key: Key | None) -> tuple[Key, Key]:
    assert key is not None
    first, second = jax.random.split(key)
    return first, second


def _stepper(denoise: Denoiser, project: Projection | None, remat: bool) -> Callable[..., _Carry]:
    """One row of a table as a function of the carry, the row and its noise."""

    def combine(how: Combination, q: Array, slopes: tuple[Array, ...], noise: Array | None) -> Array:
        moved = how.anchor * q + sum(how.slopes[h] * g for h, g in enumerate(slopes))
        return moved if noise is None else moved + how.noise * noise

    def step(carry: _Carry, row: _Row, noise: Array | None, projection_noise: Array | None) -> _Carry:
        x, base, older = carry
        x0_hat: Any = denoise(x, row.level)
        if row.noise_max is not None:
            x0_hat, fraction = x0_hat
            if noise is not None:
                noise = noise * _spread(row.state.noise, row.noise_max, fraction)
        recent = (row.slope_x * x + row.slope_x0 * x0_hat, *older)
        q = x if base is None else base
        moved = combine(row.state, q, recent, noise)
        if project is not None:
            moved = _project(project, moved, row.after, projection_noise)
        return _Carry(moved, None if row.base is None else combine(row.base, q, recent, noise), recent[:-1])

    return jax.checkpoint(step) if remat else step


def _project(project: Projection, x: Array, level: Level, noise: Array | None) -> Array:
    assert noise is not None  # one row for every call and one for the start, see `sample`
    return project(x, level, noise)


def _spread(low: Array, high: Array, fraction: Array) -> Array:
    """(high / low)**fraction: noise at scale low times this has log-variance between the two. 1 where low is 0."""
    some = low > 0
    ratio = jnp.where(some, high, 1.0) / jnp.where(some, low, 1.0)
    return ratio**fraction


def _rows(table: Table, take: Callable[[Any], Any], after: Callable[[Any], Any]) -> _Row:
    """Rows of a table; `take` and `after` pick from [N, ...] and, one further, from the levels [N + 1]."""
    pick: Callable[[Any], Any] = functools.partial(jax.tree.map, take)
    return _Row(
        pick(table.level),
        jax.tree.map(after, table.level),
        take(table.slope_x),
        take(table.slope_x0),
        pick(Combination(table.anchor, table.slopes, table.noise)),
        pick(table.base),
        pick(table.noise_max),
    )


def _loop(chain: _Chain, carry: _Carry, first: int, last: int) -> tuple[_Carry, Array | None]:
    """Rows first .. last - 1 in a Python loop; rows without noise do not add any."""
    states = []
    for k in range(first, last):
        row = _rows(chain.table, lambda leaf, k=k: leaf[k], lambda leaf, k=k: leaf[k + 1])  # type: ignore[misc]
        carry = chain.step(carry, row, chain.noise.row(k), chain.projection_noise.row(k))
        states.append(carry.x)
    return carry, jnp.stack(states) if chain.record else None


def _scan(chain: _Chain, carry: _Carry, first: int, last: int) -> tuple[_Carry, Array | None]:
    """Rows first .. last - 1 in a `lax.scan`."""
    rows = _rows(chain.table, lambda leaf: leaf[first:last], lambda leaf: leaf[first + 1 : last + 1])
    noises = chain.noise.slice(first, last), chain.projection_noise.slice(first, last)

    def body(carry: _Carry, inputs: Any) -> tuple[_Carry, Array | None]:
        row, (noise, projection_noise) = inputs
        carry = chain.step(carry, row, chain.noise.finish(noise), chain.projection_noise.finish(projection_noise))
        return carry, carry.x if chain.record else None

    return jax.lax.scan(body, carry, (rows, noises))
