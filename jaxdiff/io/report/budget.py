"""What trying more settings brings: the expected score of the best of n, and how sure a few seeds are of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from jaxdiff.io.report.statistics import CONFIDENCE, Floats


def expected_best(chosen_by: ArrayLike, values: ArrayLike, draws: ArrayLike) -> Floats:
    """Expected value of the setting that looks best among n settings drawn at random without replacement.

    E[value | n] = sum_i v_(i) C(i - 1, n - 1) / C(N, n)

    where v_(i) is the value of the setting that comes i-th from below in `chosen_by`. Settings that tie there are
    chosen between at random.

    Args:
      chosen_by: [*B, N] numbers by which the best one is picked.
      values: [*B, N] numbers that picking it is worth; `chosen_by` itself for the plain expected maximum.
      draws: [D] integers n in [1, N].

    Returns:
      [*B, D] float64.

    Raises:
      ValueError: an n outside [1, N].

    Reference: Tang et al. 2020, arXiv:2004.13705, the estimator without bias; Dodge et al. 2019, arXiv:1909.03004, with
    replacement; Jackson et al. 2025, arXiv:2504.11453, who compare offline methods by their tuning budgets.
    """
    keys, worth, n = np.asarray(chosen_by, np.float64), np.asarray(values, np.float64), np.asarray(draws)
    count = keys.shape[-1]
    if not n.size or n.min() < 1 or n.max() > count:
        raise ValueError(f"draws must lie in 1 to {count}, the number of settings, got {n.tolist()}.")
    order = np.argsort(keys, axis=-1, kind="stable")
    ranked, keys = np.take_along_axis(worth, order, -1), np.take_along_axis(keys, order, -1)
    starts = np.concatenate([np.ones((*keys.shape[:-1], 1), bool), np.diff(keys, axis=-1) != 0], axis=-1)
    if not starts.all():  # the mean over each group of ties, group by group of the flattened rows
        at = np.flatnonzero(starts)
        sizes = np.diff(np.append(at, starts.size))
        ranked = np.repeat(np.add.reduceat(ranked.reshape(-1), at) / sizes, sizes).reshape(ranked.shape)
    i = np.arange(1, count + 1)[:, None]
    # C(i - 1, n - 1) / C(N, n) by logarithms: the binomials themselves overflow at some hundred settings.
    ways = special.gammaln(i) - special.gammaln(n) - special.gammaln(np.maximum(i - n + 1, 1))
    total = special.gammaln(count + 1) - special.gammaln(n + 1) - special.gammaln(count - n + 1)
    chance = np.where(i >= n, np.exp(ways - total), 0.0)  # [N, D]
    return np.asarray(ranked @ (chance / chance.sum(axis=0)))


class Budget(NamedTuple):
    """What it brings to try n settings drawn at random: `expected_best` with what seeds say about its error."""

    draws: NDArray[np.int64]  # [D], n
    expected: Floats  # [D], chosen and valued by the mean over the same seeds
    low: Floats  # [D], NaN where no setting has two seeds
    high: Floats
    held_out: Floats | None  # [D], chosen by all seeds but one and valued by that one; None unless all have two


def tuning_budget(
    scores: Sequence[ArrayLike],
    draws: ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = 500,
    seed: int = 0,
) -> Budget:
    """The expected score of the best of n settings, with a bootstrap interval over seeds.

    Picking the best by noisy means flatters it, and a resample's noise comes on top of the sample's. So the interval
    is the spread of the resampled curves around their own mean, laid around the estimate; and `held_out` shows what is
    left of the flattery: the seed that values a setting had no say in choosing it.

    Args:
      scores: N arrays [S_i], one number per seed.
      draws: [D] integers n in [1, N].
      confidence: in (0, 1).
      num_resamples: bootstrap draws; in each the seeds of every setting are resampled.
      seed: of the draws.

    Raises:
      ValueError: no settings, or see `expected_best`.
    """
    if not len(scores):
        raise ValueError("a tuning budget needs a setting or more with scores, got none.")
    samples = [np.asarray(sample, np.float64) for sample in scores]
    n = np.asarray(draws, np.int64)
    sizes = np.array([sample.size for sample in samples])
    table = np.stack([np.resize(sample, sizes.max()) for sample in samples])  # [N, S]; only the first S_i are drawn
    means = np.array([sample.mean() for sample in samples])
    expected = expected_best(means, means, n)
    low = high = np.full(expected.shape, np.nan)
    if (sizes > 1).any():
        generator = np.random.default_rng(seed)
        resampled = np.empty((num_resamples, len(samples)))
        for row in resampled:  # one at a time: all at once would be large for a thousand settings
            picked = (generator.random(table.shape) * sizes[:, None]).astype(np.int64)
            used = np.arange(table.shape[1]) < sizes[:, None]
            row[:] = (np.take_along_axis(table, picked, 1) * used).sum(axis=1) / sizes
        curves = expected_best(resampled, resampled, n)
        tail = 100 * (1 - confidence) / 2
        low, high = expected + np.percentile(curves - curves.mean(axis=0), [tail, 100 - tail], axis=0)
    held_out = None
    if (sizes > 1).all():
        left = np.arange(sizes.max())[:, None] % sizes  # [S, N], the seed of each setting that is left out
        value = table[np.arange(len(samples)), left]
        held_out = expected_best((means * sizes - value) / (sizes - 1), value, n).mean(axis=0)
    return Budget(n, expected, low, high, held_out)
