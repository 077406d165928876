"""Statistics over seeds: interquartile mean, stratified bootstrap intervals, probability of improvement.

Pure numpy and SciPy, no files and no drawing. A stratum is a task: seeds are resampled inside it, never across, so a
study over several tasks keeps every task's weight. One task is one stratum.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]  # (samples [..., n], axis) -> [...]

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
IQM_MIN_SEEDS = 4  # below it a quarter of the seeds is less than one seed, and nothing is trimmed


class Interval(NamedTuple):
    """A confidence interval, low <= high."""

    low: float
    high: float


def iqm(scores: ArrayLike, axis: int = -1) -> Floats:
    """Interquartile mean: the mean of what is left after dropping floor(n / 4) values at each end.

    iqm(x) = mean(sort(x)[k : n - k]),  k = floor(n / 4)

    Args:
      scores: [*B, n] finite numbers, n >= 1. With n < 4 nothing is dropped and this is the mean.
      axis: the axis of the n numbers.

    Returns:
      [*B] float64.

    Raises:
      ValueError: if the axis is empty.

    Reference: Agarwal et al. 2021, arXiv:2108.13264, section 4.3 (there over runs and tasks pooled).
    """
    values = np.moveaxis(np.asarray(scores, np.float64), axis, -1)
    n = values.shape[-1]
    if n == 0:
        raise ValueError("iqm needs at least one number, got an empty axis; leave settings without results out.")
    cut = n // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1))


def mean(scores: ArrayLike, axis: int = -1) -> Floats:
    """Arithmetic mean as float64, with the signature of `iqm`."""
    return np.asarray(np.asarray(scores, np.float64).mean(axis=axis))


def stratified_bootstrap(
    strata: Sequence[ArrayLike],
    statistic: Statistic = iqm,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of a statistic of all scores pooled, resampling seeds inside each stratum.

    Args:
      strata: one [n_k] array per task: one number per seed.
      statistic: (samples [..., n], axis) -> [...]; `iqm` or `mean`.
      confidence: in (0, 1).
      num_resamples: bootstrap draws.
      seed: of the draws; the same seed and scores give the same interval.

    Returns:
      The interval, or None where some stratum has fewer than two seeds: one seed says nothing about its spread.

    Raises:
      ValueError: no stratum, or a confidence outside (0, 1).

    Reference: Agarwal et al. 2021, arXiv:2108.13264, section 4.2; SciPy's `bootstrap`, whose several samples are
    resampled independently, which is what a stratum means.
    """
    if not strata or not 0 < confidence < 1:
        raise ValueError(f"need a stratum or more and 0 < confidence < 1, got {len(strata)} and {confidence}.")
    samples = tuple(np.asarray(stratum, np.float64) for stratum in strata)
    if any(sample.size < 2 for sample in samples):
        return None

    def pooled(*parts: Floats, axis: int = -1) -> Floats:
        return np.asarray(statistic(np.concatenate(parts, axis=axis), axis=axis))

    found = stats.bootstrap(
        samples,
        pooled,
        n_resamples=num_resamples,
        confidence_level=confidence,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def mean_band(
    curves: ArrayLike, *, confidence: float = CONFIDENCE, num_resamples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Mean over seeds and its pointwise percentile bootstrap band, where seeds may be missing.

    Args:
      curves: [S, T]; NaN where a seed has no number at that time.
      confidence: in (0, 1).
      num_resamples: bootstrap draws, each of whole curves.
      seed: of the draws.

    Returns:
      mean, low, high: [T]. The mean is NaN where no seed has a number; low and high where fewer than two have.
    """
    values = np.asarray(curves, np.float64)
    present = np.isfinite(values)
    centre, low, high = (np.full(values.shape[1], np.nan) for _ in range(3))
    generator = np.random.default_rng(seed)
    tail = 100 * (1 - confidence) / 2
    for pattern in np.unique(present, axis=1).T:  # columns with the same seeds present are done together
        columns = (present == pattern[:, None]).all(axis=0)
        rows = values[pattern][:, columns]
        if not len(rows):
            continue
        centre[columns] = rows.mean(axis=0)
        if len(rows) > 1:
            # A resample is a count per seed, so all resampled means are one matrix product.
            counts = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=num_resamples)
            means = counts @ rows / len(rows)
            low[columns], high[columns] = np.percentile(means, [tail, 100 - tail], axis=0)
    return centre, low, high


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """P(X > Y) + P(X = Y) / 2 over all pairs of seeds: the Mann-Whitney statistic divided by the number of pairs.

    Args:
      x: [n] scores of one setting.
      y: [m] scores of the other.

    Returns:
      A number in [0, 1]; 0.5 where neither tends to be better.

    Reference: Agarwal et al. 2021, arXiv:2108.13264, section 4.3; Mann and Whitney 1947.
    """
    ranks = stats.rankdata(np.concatenate([np.asarray(x, np.float64), np.asarray(y, np.float64)]))
    n, m = np.size(x), np.size(y)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def improvement_interval(
    x: ArrayLike, y: ArrayLike, *, confidence: float = CONFIDENCE, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval | None:
    """Percentile bootstrap interval of `probability_of_improvement`, both groups of seeds resampled independently.

    Args:
      x: [n] scores of one setting.
      y: [m] scores of the other.
      confidence: in (0, 1).
      num_resamples: bootstrap draws.
      seed: of the draws.

    Returns:
      An interval inside [0, 1], or None where a group has fewer than two seeds.
    """
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if min(first.size, second.size) < 2:
        return None
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)  # [n, m]
    generator = np.random.default_rng(seed)
    rows = generator.multinomial(first.size, np.full(first.size, 1 / first.size), size=num_resamples)
    columns = generator.multinomial(second.size, np.full(second.size, 1 / second.size), size=num_resamples)
    drawn = np.einsum("rn,nm,rm->r", rows, wins, columns, optimize=True) / (first.size * second.size)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(float(low), float(high))


def performance_profile(
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[Floats, Floats, Floats]:
    """Fraction of runs that score above each threshold, with its pointwise percentile bootstrap band.

    F(tau) = mean over seeds of 1[score > tau]

    Args:
      scores: [S], one number per seed.
      thresholds: [D].
      confidence: in (0, 1).
      num_resamples: bootstrap draws.
      seed: of the draws.

    Returns:
      fraction, low, high: [D]; low and high are NaN with one seed.

    Reference: Agarwal et al. 2021, arXiv:2108.13264, section 4.2 (there over tasks too).
    """
    above = np.asarray(scores, np.float64)[:, None] > np.asarray(thresholds, np.float64)  # [S, D]
    return mean_band(above.astype(np.float64), confidence=confidence, num_resamples=num_resamples, seed=seed)


def share_explained(groups: Sequence[Any], values: ArrayLike) -> float:
    """Share of the variance of some values that knowing each one's group explains, corrected for the groups' number.

    epsilon^2 = 1 - (N - 1) / (N - k) * SS_within / SS_total,  at least 0, for k groups

    Args:
      groups: [N] hashable names.
      values: [N].

    Returns:
      A number in [0, 1]; 0 where every group has one member, or all values are equal.

    Reference: Kelley 1935, An unbiased correlation ratio measure.
    """
    numbers = np.asarray(values, np.float64)
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    index = np.array([names[name] for name in groups])
    total = float(((numbers - numbers.mean()) ** 2).sum())
    if total == 0.0 or len(names) == len(numbers):
        return 0.0
    means = np.bincount(index, numbers) / np.bincount(index)
    within = float(((numbers - means[index]) ** 2).sum())
    return max(0.0, 1 - (len(numbers) - 1) / (len(numbers) - len(names)) * within / total)
