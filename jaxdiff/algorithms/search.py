"""Choosing among plans: the best of N, and beam search over chunks of a plan. Both work with any planner.

A planner is seen as one function, draw(key, known) -> (plans, values); known's leading axes say how many.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.algorithms.planner import Known
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key

SEARCHES = ("beam", "best_of")


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Static choices. Network calls per decision: best_of num_candidates K, beam beam_width beam_branch stages K."""

    method: str = "best_of"  # one of SEARCHES
    num_candidates: int = 1  # best_of: plans drawn side by side
    beam_width: int = 4  # beam: prefixes kept after each stage
    beam_branch: int = 4  # beam: plans drawn from each prefix
    beam_chunk: int = 8  # beam: steps by which a prefix grows
    beam_stages: int = 4  # beam: stages, the first without a prefix


class Found(NamedTuple):
    """Plans, best first."""

    x: Array  # [*B, N, H, D]
    value: Array  # [*B, N]
    path: Array  # [K + 1, *B, H, D] of the best


# -> x [*B, N, H, D], value [*B, N], path [K + 1, *B, N, H, D]
Draw = Callable[[Key, Known], tuple[Array, Array, Array]]


def check_search(config: SearchConfig, horizon: int, *, ranked: bool) -> None:
    """Refuses a search that cannot be.

    Args:
      config: what is asked for.
      horizon: H.
      ranked: whether plans have values to be ranked by.

    Raises:
      KeyError: an unknown method.
      ValueError: a number below 1, a prefix longer than a plan, or nothing to rank by.
    """
    if config.method not in SEARCHES:
        raise unknown_name("search method", config.method, SEARCHES)
    numbers = {field: getattr(config, field) for field in ("num_candidates", "beam_width", "beam_branch",
                                                           "beam_chunk", "beam_stages")}  # fmt: skip
    for field, number in numbers.items():
        if number < 1:
            raise ValueError(f"search.{field}={number}; it must be at least 1.")
    if config.method == "beam" and (config.beam_stages - 1) * config.beam_chunk >= horizon:
        raise ValueError(
            f"search.beam_stages={config.beam_stages} and beam_chunk={config.beam_chunk} make a prefix of "
            f"{(config.beam_stages - 1) * config.beam_chunk} steps, and a plan has horizon={horizon}; make it shorter."
        )
    if (config.method == "beam" or config.num_candidates > 1) and not ranked:
        raise ValueError(
            f"search.method={config.method!r} with num_candidates={config.num_candidates} needs values to rank plans "
            "by; set value=True, or num_candidates=1."
        )


def search(key: Key, draw: Draw, known: Known, config: SearchConfig) -> Found:
    """The plans that `draw` gives for known entries [*B, H, D], searched as the config says, best first."""
    if config.method == "best_of":
        return _ranked(*draw(key, _repeat(known, config.num_candidates)))
    return _beam(key, draw, known, config)


def _repeat(known: Known, count: int) -> Known:
    """Known entries [*B, H, D] for `count` plans each, [*B, count, H, D]."""

    def repeat(x: Array) -> Array:
        return jnp.broadcast_to(jnp.expand_dims(x, -3), (*x.shape[:-2], count, *x.shape[-2:]))

    return Known(repeat(known.mask), repeat(known.values))


def _ranked(x: Array, value: Array, path: Array) -> Found:
    order = jnp.argsort(-value, axis=-1)
    best = jnp.take_along_axis(path, order[None, ..., :1, None, None], axis=-3)[..., 0, :, :]
    return Found(_take(x, order), jnp.take_along_axis(value, order, axis=-1), best)


def _take(x: Array, index: Array) -> Array:
    """x [*B, N, H, D] at index [*B, n]."""
    return jnp.take_along_axis(x, index[..., None, None], axis=-3)


def _beam(key: Key, draw: Draw, known: Known, config: SearchConfig) -> Found:
    """Stage m draws `branch` plans from each of `width` prefixes of m chunks, and keeps the best prefixes.

    A prefix is scored by the value of the whole plan it is part of. Reference, over tokens: Janner et al. 2021,
    arXiv:2106.02039, algorithm 1.
    """
    width, branch = config.beam_width, config.beam_branch
    base = _repeat(known, width * branch)
    token = jnp.broadcast_to(jnp.arange(known.values.shape[-2])[:, None], base.values.shape)

    def stage(carry: tuple[Array, Array], m: Array) -> tuple[tuple[Array, Array], Array]:
        x, value = carry
        kept = _take(x, jnp.argsort(-value, axis=-1)[..., :width])
        prefix = jnp.repeat(kept, branch, axis=-3)
        mask = base.mask | (token < m * config.beam_chunk)
        x, value, path = draw(jax.random.fold_in(key, m), Known(mask, base.write(prefix)))
        return (x, value), path

    nothing = (jnp.zeros(base.values.shape), jnp.zeros(base.values.shape[:-2]))
    if config.beam_stages > 1:
        nothing, _ = jax.lax.scan(stage, nothing, jnp.arange(config.beam_stages - 1))
    (x, value), path = stage(nothing, jnp.asarray(config.beam_stages - 1))
    return _ranked(x, value, path)
