"""Sweeps that look at their scores while they train: successive halving, population-based training.

Halving decides on the host, between chunks, and makes the program narrower; a population stays as wide as it is and
decides inside a program. Neither knows how a lane trains or who measured the scores.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key, PyTree, TrainState


def rungs(num_updates: int, reduction: float, count: int, multiple_of: int = 1) -> tuple[int, ...]:
    """Steps at which settings are ranked: num_updates reduction**-k for k = count - 1, ..., 0.

    All but the last are rounded up to what `multiple_of` divides, so that they are steps at which scores exist.

    Args:
      num_updates: the whole length of a run, K >= 1; the last rung, where nothing is cut any more.
      reduction: eta > 1, by which settings become fewer and runs longer from rung to rung.
      count: number of rungs, the last one included, >= 1; 1 cuts nothing.
      multiple_of: the evaluation interval, >= 1.

    Returns:
      [count] steps, strictly ascending.

    Raises:
      ValueError: an argument out of range, or rungs that fall together.

    Reference: Jamieson and Talwalkar 2016, arXiv:1502.07943, Successive Halving; as rungs, Li et al. 2020,
    arXiv:1810.05934, algorithm 1.
    """
    _check_reduction(reduction)
    if min(num_updates, count, multiple_of) < 1:
        raise ValueError(
            f"num_updates={num_updates}, count={count} and multiple_of={multiple_of}; each must be at least 1."
        )
    exact = [num_updates / Fraction(reduction) ** k for k in range(count - 1, 0, -1)]
    steps = [math.ceil(step / multiple_of) * multiple_of for step in exact] + [num_updates]
    if any(later <= earlier for earlier, later in zip(steps, steps[1:], strict=False)):
        raise ValueError(
            f"rungs {steps} fall together: count={count} and reduction={reduction:g} are too many cuts for "
            f"num_updates={num_updates} at multiples of {multiple_of}; take fewer rungs or evaluate more often."
        )
    return tuple(steps)


def num_left(num_settings: int, num_cuts: int, reduction: float) -> int:
    """Settings that go on after so many cuts: max(1, floor(num_settings reduction**-num_cuts)).

    Raises:
      ValueError: num_settings < 1, num_cuts < 0 or reduction <= 1.

    Reference: Jamieson and Talwalkar 2016, arXiv:1502.07943, Successive Halving.
    """
    _check_reduction(reduction)
    if num_settings < 1 or num_cuts < 0:
        raise ValueError(f"num_settings={num_settings} must be at least 1 and num_cuts={num_cuts} at least 0.")
    return max(1, math.floor(num_settings / Fraction(reduction) ** num_cuts))


def halving_cost(num_settings: int, rungs: Sequence[int], reduction: float) -> int:
    """Member-updates of one seed of a halving, to be compared with num_settings x rungs[-1] of the whole grid.

    sum over k of num_left(num_settings, k, reduction) (rungs[k] - rungs[k - 1]),  rungs[-1] = 0 for k = 0:
    survivors go on from where they are and pay for the distance to the next rung only.

    Raises:
      ValueError: rungs that do not ascend from 1 or above, or as `num_left`.
    """
    starts = (0, *rungs[:-1])
    if not rungs or any(end <= start for start, end in zip(starts, rungs, strict=True)):
        raise ValueError(f"rungs={tuple(rungs)} must ascend, from at least 1.")
    stages = enumerate(zip(starts, rungs, strict=True))
    return sum(num_left(num_settings, k, reduction) * (end - start) for k, (start, end) in stages)


def _check_reduction(reduction: float) -> None:
    if not 1.0 < reduction < math.inf:
        raise ValueError(f"reduction={reduction}; it must be above 1, usually 2 to 4.")


def survivors(scores: Any, settings: Any, keep: int) -> np.ndarray:
    """Lanes of the best settings by their mean score over seeds.

    A setting's lanes survive or go together. A score that is not finite counts as -inf, and so does the mean it is in.
    Sums are exact and ties go to the smaller setting id, so the choice does not depend on the order of the lanes.

    Args:
      scores: [L] higher is better; give NaN for lanes that are frozen.
      settings: [L] ints, equal for lanes that differ in their seed alone.
      keep: how many settings, from 1 to all.

    Returns:
      [M] int64 lane indices, ascending.

    Raises:
      ValueError: shapes differ, settings are not integers, or keep is out of range.
    """
    scores, settings = np.asarray(scores, np.float64), np.asarray(settings)
    if scores.ndim != 1 or scores.shape != settings.shape:
        raise ValueError(f"scores {scores.shape} and settings {settings.shape}; both must be [L], one per lane.")
    if not np.issubdtype(settings.dtype, np.integer):
        raise ValueError(f"settings are {settings.dtype}; they must be integers, equal for seeds of one setting.")
    known = np.unique(settings)
    if not 1 <= keep <= len(known):
        raise ValueError(f"keep={keep} of {len(known)} settings; it must be at least 1 and at most all.")
    counted = np.where(np.isfinite(scores), scores, -np.inf)
    of_setting = [counted[settings == setting] for setting in known]
    means = np.asarray([math.fsum(values) / len(values) for values in of_setting])
    kept = known[np.argsort(-means, kind="stable")[:keep]]
    return np.flatnonzero(np.isin(settings, kept))


def compact(lanes: PyTree, indices: Any) -> PyTree:
    """The lanes `indices` alone: leaf [L, ...] -> leaf [M, ...], bit for bit, for a program of M lanes.

    What they compute from here on may differ in the last bits from what L lanes side by side would have computed.

    Args:
      lanes: leaves [L, ...], typed keys included.
      indices: [M] ints in 0 .. L - 1.

    Raises:
      ValueError: an index out of range, no index, or leaves that disagree on L.
    """
    indices = np.asarray(indices)
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(lanes)}
    if len(counts) != 1:
        raise ValueError(f"leading axes {sorted(counts)}; all leaves must have one of the same L lanes.")
    (count,) = counts
    if indices.ndim != 1 or not indices.size or indices.min() < 0 or indices.max() >= count:
        raise ValueError(f"indices {indices.tolist()} of {count} lanes; give at least one in 0 .. {count - 1}.")
    return _gather(lanes, indices)


@jax.jit
def _gather(lanes: PyTree, indices: Array) -> PyTree:
    # One program: leaf by leaf each shape would be compiled by itself.
    return jax.tree.map(lambda leaf: leaf[indices], lanes)


def exploit_explore(
    key: Key,
    states: TrainState,
    scores: Array,
    *,
    ranges: Mapping[str, tuple[float, float]],
    quantile: float = 0.25,
    factors: Sequence[float] = (0.8, 1.25),
    resample: float = 0.0,
) -> tuple[TrainState, Array]:
    """One round of population-based training: bad members become altered copies of good ones.

    Let m = max(1, floor(quantile L)). A member among the m worst, and any without a finite score, draws a parent
    uniformly from those of the m best that have one, and if the parent's score is above its own takes over the whole
    state (weights, targets, moments, step, hyperparameters). Each hyperparameter h in `ranges` then becomes

      clip(h f, low, high)  with f drawn from `factors`, or with probability `resample`
      low (high / low)**u   with u uniform in [0, 1)

    Every draw belongs to a rank, not to a place among the lanes: without ties, permuted lanes give permuted results.
    Pure, for use under jit with everything but key, states and scores fixed; one trace serves all scores. Independent
    populations are a leading axis over keys, states and scores under vmap.

    Args:
      key: consumed.
      states: leaves [L, ...], L >= 2; hparams a struct.dataclass of [L].
      scores: [L] higher is better; not finite is worst. Equal ones are ranked in the order of the lanes.
      ranges: name of a hyperparameter -> (low, high), 0 < low < high; the others are copied as they are.
      quantile: share of the population that is replaced, and to copy from, in (0, 0.5].
      factors: what a copied hyperparameter is multiplied by, each > 0.
      resample: probability in [0, 1] of a fresh draw, for each hyperparameter on its own.

    Returns:
      (states, parents [L] int32): lane i holds what was lane parents[i]'s state; parents[i] == i where it stayed.

    Raises:
      ValueError: an argument out of range, or shapes that do not fit.
      KeyError: the members have no hyperparameter of such a name.

    Reference: Jaderberg et al. 2017, arXiv:1711.09846, algorithm 1, with truncation selection;
    perturb and resample as in its section 4.1.
    """
    _check_round(states, scores, ranges, quantile, factors, resample)
    count = scores.shape[0]
    some = max(1, math.floor(quantile * count + 1e-9))
    finite = jnp.isfinite(scores)
    scores = jnp.where(finite, scores, -jnp.inf)
    order = jnp.argsort(-scores)  # stable, best first
    rank = jnp.argsort(order)
    # One row of [0, 1) per member: for its parent, then choice, factor and fresh value for each hyperparameter.
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rank)
    draws = jax.vmap(lambda k: jax.random.uniform(k, (1 + 3 * len(ranges),), jnp.float32))(keys)
    drawn = order[jnp.floor(draws[:, 0] * jnp.clip(finite.sum(), 1, some)).astype(jnp.int32)]
    copies = ((rank >= count - some) | ~finite) & (scores[drawn] > scores)
    parents = jnp.where(copies, drawn, jnp.arange(count)).astype(jnp.int32)
    states = jax.tree.map(lambda leaf: leaf[parents], states)
    moved = _moved(states.hparams, draws[:, 1:], ranges, factors, resample)
    hparams = {name: jnp.where(copies, value, getattr(states.hparams, name)) for name, value in moved.items()}
    return states.replace(hparams=states.hparams.replace(**hparams)), parents  # type: ignore[attr-defined]


def _moved(
    hparams: Any, draws: Array, ranges: Mapping[str, tuple[float, float]], factors: Sequence[float], resample: float
) -> dict[str, Array]:
    """[L] another value within its range for every hyperparameter in `ranges`, from three draws [L, 3 R] for each."""
    new = {}
    for i, (name, (low, high)) in enumerate(sorted(ranges.items())):
        old = getattr(hparams, name)
        choice, which, fresh = draws[:, 3 * i : 3 * i + 3].T
        factor = jnp.asarray(factors, old.dtype)[jnp.floor(which * len(factors)).astype(jnp.int32)]
        value = jnp.where(choice < resample, low * (high / low) ** fresh, old * factor)
        new[name] = jnp.clip(value, low, high).astype(old.dtype)
    return new


def _check_round(
    states: TrainState,
    scores: Array,
    ranges: Mapping[str, tuple[float, float]],
    quantile: float,
    factors: Sequence[float],
    resample: float,
) -> None:
    if scores.ndim != 1 or scores.shape[0] < 2:
        raise ValueError(f"scores {scores.shape}; a population is [L] with at least 2 members.")
    counts = {leaf.shape[:1] for leaf in jax.tree.leaves(states)}
    if counts != {scores.shape}:
        raise ValueError(f"scores {scores.shape} for states with leading axes {sorted(counts)}; all must be [L].")
    if not 0.0 < quantile <= 0.5:
        raise ValueError(f"quantile={quantile}; it must lie in (0, 0.5], so that no member is both best and worst.")
    if not 0.0 <= resample <= 1.0:
        raise ValueError(f"resample={resample}; it is a probability in [0, 1].")
    if not factors or min(factors) <= 0.0:
        raise ValueError(f"factors={tuple(factors)}; give at least one, each above 0.")
    known = vars(states.hparams)
    for name, (low, high) in ranges.items():
        if name not in known:
            raise unknown_name("hyperparameter", name, known)
        if not 0.0 < low < high < math.inf:
            raise ValueError(f"ranges[{name!r}]={low, high}; it must be 0 < low < high, since steps are factors.")


def evolve(
    key: Key, lanes: Any, scores: Array, *, ranges: Mapping[str, tuple[float, float]], **options: Any
) -> tuple[Any, Array]:
    """`exploit_explore` for lanes that can freeze: a frozen one counts as worst, and lives again as a copy.

    Keys and experience stay each lane's own: a copy goes on with other batches than its parent.

    Args:
      key: consumed.
      lanes: struct.dataclass with `state`, a stacked TrainState, and `alive` [L] bool.
      scores: [L] of the states as they are; those of frozen lanes are not looked at.
      ranges: as in `exploit_explore`, whose other keyword arguments are `options`.

    Returns:
      (lanes, parents [L] int32).
    """
    measured = jnp.where(lanes.alive, scores, jnp.nan)
    states, parents = exploit_explore(key, lanes.state, measured, ranges=ranges, **options)
    return lanes.replace(state=states, alive=lanes.alive[parents]), parents
