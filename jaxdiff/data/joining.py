"""Datasets of one task laid end to end: mixed qualities as one dataset."""

from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from jaxdiff.data.dataset import Dataset, DatasetInfo


def join(datasets: Sequence[Dataset], infos: Sequence[DatasetInfo]) -> tuple[Dataset, DatasetInfo]:
    """One dataset of several, in their order; episodes are numbered on.

    Args:
      datasets: at least one, on the host, not reweighted.
      infos: theirs; they become `DatasetInfo.parts`.

    Returns:
      (Dataset, DatasetInfo): returns are over all parts' episodes, the hash is of the parts' hashes in their order, and
      env and reference scores are those of the parts where all agree.

    Raises:
      ValueError: two parts with other sizes; it names both.
    """
    if len(datasets) == 1:
        return datasets[0], infos[0]
    for dataset, info in zip(datasets, infos, strict=True):
        sizes, first = (jax.tree.map(lambda x: x.shape[1:], d.transitions) for d in (dataset, datasets[0]))
        if sizes != first:
            raise ValueError(
                f"datasets {infos[0].name} ({_sizes(infos[0], datasets[0])}) and {info.name} ({_sizes(info, dataset)}) "
                "cannot be joined; give data of one task."
            )
    starts = np.cumsum([0, *(int(dataset.episode[-1]) + 1 for dataset in datasets)])
    episode: Any = np.concatenate([d.episode + np.int32(start) for d, start in zip(datasets, starts, strict=False)])
    transitions = jax.tree.map(lambda *parts: np.concatenate(parts), *(dataset.transitions for dataset in datasets))
    return Dataset(transitions, episode), _info(infos, len(episode), int(starts[-1]))


def _info(infos: Sequence[DatasetInfo], num_transitions: int, num_episodes: int) -> DatasetInfo:
    known = [info for info in infos if info.return_mean is not None]
    counts = np.array([info.num_returns for info in known])
    means, deviations = (np.array([getattr(info, name) for info in known]) for name in ("return_mean", "return_std"))
    mean = float(np.average(means, weights=counts)) if known else None
    std = float(np.sqrt(np.average(deviations**2 + (means - mean) ** 2, weights=counts))) if known else None
    digest = hashlib.sha256("\n".join(info.sha256 for info in infos).encode())
    return dataclasses.replace(
        infos[0],
        name="+".join(info.name for info in infos),
        path="+".join(str(info.path) for info in infos),
        env=_agreed([info.env for info in infos]),
        num_transitions=num_transitions,
        num_episodes=num_episodes,
        sha256=digest.hexdigest(),
        return_mean=mean,
        return_std=std,
        reference_scores=_agreed([info.reference_scores for info in infos]),
        generator=_agreed([info.generator for info in infos]),
        num_returns=int(counts.sum()),
        parts=tuple(infos),
    )


def _agreed(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _sizes(info: DatasetInfo, dataset: Dataset) -> str:
    reward = "one reward" if dataset.transitions.reward.ndim == 1 else "rewards of each"
    agents = "" if info.num_agents is None else f", {info.num_agents} agents with {reward}"
    return f"observations of {info.obs_dim}, actions of {info.action_dim}{agents}"
