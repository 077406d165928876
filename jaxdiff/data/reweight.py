"""Good episodes drawn more often: DOM2's copies of them, as rows to draw from and not as copies."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from jaxdiff.data.dataset import Dataset

MOST_DRAWS = 2**31 - 1  # rows to draw from are counted in int32


def reweight(dataset: Dataset, thresholds: Sequence[float | str]) -> Dataset:
    """The dataset in which an episode counts once, and once more for every threshold that its return reaches.

    D' = D + sum over thresholds r of {episode e in D: R(e) >= r},    R(e) = sum of rewards, the mean over agents

    Transitions are then drawn uniformly from D'; agents stay together. Returns are of the transitions that are there,
    without discount, and before any reward transform.

    Args:
      dataset: N transitions, on the host; what it was reweighted by before counts no more.
      thresholds: returns, or quantiles of the episodes' returns as "q0.75". One that is given twice counts twice.
        None of them: the dataset as it is.

    Raises:
      ValueError: a threshold that is no finite number or "q" and a number in [0, 1), or that no episode reaches; more
        than 2**31 - 1 rows to draw from.

    Reference: Li, Pan and Huang 2023 (DOM2), arXiv:2307.01472, data augmentation by return.
    """
    if not thresholds:
        return dataset
    values = dataset_returns(dataset)
    times = np.ones(len(values), np.int64)
    for threshold in thresholds:
        reached = values >= _value(threshold, values)
        if not reached.any():
            raise ValueError(
                f"reweight: no episode's return reaches {threshold}; the largest in the data is {values.max():.6g}. "
                'Lower the threshold, or give a quantile, as "q0.75".'
            )
        times += reached
    _, number = np.unique(np.asarray(dataset.episode), return_inverse=True)
    rows = times[number]
    if rows.sum() > MOST_DRAWS:
        raise ValueError(
            f"reweight: {rows.sum()} rows to draw from, at most {MOST_DRAWS} can be; give fewer thresholds."
        )
    draws: Any = np.repeat(np.arange(len(rows), dtype=np.int32), rows)
    return dataclasses.replace(dataset, draws=draws)


def dataset_returns(dataset: Dataset) -> np.ndarray:
    """Undiscounted return [E] of every episode's transitions, float64; the mean over agents where each has a reward."""
    reward = np.asarray(dataset.transitions.reward, np.float64)
    reward = reward if reward.ndim == 1 else reward.mean(axis=1)
    _, number = np.unique(np.asarray(dataset.episode), return_inverse=True)
    return np.bincount(number, weights=reward)


def _value(threshold: float | str, values: np.ndarray) -> float:
    """The threshold as a return."""
    message = f'reweight: {threshold!r} must be a finite number or a quantile in [0, 1), as "q0.75".'
    if isinstance(threshold, str) and threshold.startswith("q"):
        try:
            quantile = float(threshold[1:])
        except ValueError as error:
            raise ValueError(message) from error
        if not 0.0 <= quantile < 1.0:
            raise ValueError(message)
        return float(np.quantile(values, quantile))
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not np.isfinite(threshold):
        raise ValueError(message)
    return float(threshold)
