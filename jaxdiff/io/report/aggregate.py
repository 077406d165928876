"""All tasks of a study put together: settings by their normalised scores over tasks and seeds.

A run is a seed on a task. Only tasks whose evaluations are normalised scores are put together, and only settings that
have a score on each of them: over fewer tasks, a setting that skipped the hard ones would win.

Reference: Agarwal et al. 2021, arXiv:2108.13264, sections 4.2 and 4.3.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools

import numpy as np

from jaxdiff.io.report import statistics
from jaxdiff.io.report.compare import Value, improvement_over_tasks
from jaxdiff.io.report.results import Estimate, Results, Setting
from jaxdiff.io.report.statistics import Floats

FEW = 5  # settings of which every pair is compared; of more, the best with each of the others
MAX_RIVALS = 12


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting on all tasks that are put together."""

    label: str  # without the task
    algorithm: str
    settings: Mapping[str, Setting]  # task -> the setting there, where it has a score
    missing: tuple[str, ...]  # tasks without a score of it

    @property
    def strata(self) -> list[Floats]:
        """One score per seed, of each task."""
        return [setting.last.scores for setting in self.settings.values() if setting.last is not None]

    @functools.cached_property
    def last(self) -> Estimate | None:
        """Over tasks and seeds; None where a task is missing."""
        if self.missing or not self.settings:
            return None
        scores = np.concatenate(self.strata)
        interval = statistics.stratified_bootstrap(self.strata)
        return Estimate(scores, float(scores.mean()), float(statistics.iqm(scores)), interval)

    @property
    def provisional(self) -> tuple[str, ...]:
        """Tasks on which no seed of it has finished."""
        return tuple(task for task, setting in self.settings.items() if setting.provisional)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that count, on each task."""
        return tuple(len(scores) for scores in self.strata)

    @property
    def num_nonfinite(self) -> int:
        """Seeds that went non-finite, on the tasks where it has a score."""
        return sum(setting.num_nonfinite for setting in self.settings.values())


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """What the tasks say together."""

    tasks: tuple[str, ...]  # that are put together
    left_out: Mapping[str, str]  # task -> why not
    rows: tuple[Row, ...]  # best first: complete ones, unfinished ones, those that miss a task

    @property
    def ranked(self) -> tuple[Row, ...]:
        """The settings that have a number."""
        return tuple(row for row in self.rows if row.last is not None)

    @functools.cached_property
    def improvements(self) -> dict[tuple[str, str], Value]:
        """(x, y) -> P(a seed of x scores above one of y), the mean over tasks, better ones first.

        Every pair of few settings; of many, the best one and each of the next MAX_RIVALS. Unfinished settings are left
        out as soon as two others are complete.
        """
        complete = [row for row in self.ranked if not row.provisional]
        rows = complete if len(complete) > 1 else list(self.ranked)
        firsts = rows if len(rows) <= FEW else rows[:1]
        pairs = [(x, y) for i, x in enumerate(firsts) for y in rows[i + 1 : MAX_RIVALS + 1]]
        return {
            (x.label, y.label): improvement_over_tasks(list(zip(y.strata, x.strata, strict=True))) for x, y in pairs
        }


def aggregate(found: Mapping[str, Results]) -> Aggregate:
    """Puts tasks together.

    Args:
      found: of `by_task`.
    """
    left_out = {task: why for task, results in found.items() if (why := _why_not(results))}
    tasks = tuple(task for task in found if task not in left_out)
    labels: dict[str, Setting] = {}
    for results in found.values():
        for setting in results.settings:
            labels.setdefault(setting.label, setting)
    rows = [_row(label, setting.algorithm, {task: found[task] for task in tasks}) for label, setting in labels.items()]
    rows.sort(key=lambda r: (r.last is None, bool(r.provisional), -r.last.iqm if r.last else 0.0, r.label))
    return Aggregate(tasks, left_out, tuple(rows))


def profiles(strata: Sequence[Floats], thresholds: Floats) -> tuple[Floats, Floats, Floats]:
    """Fraction of runs that score above each threshold, the mean over tasks, with its pointwise bootstrap band.

    F(tau) = mean over tasks of mean over seeds of 1[score > tau]

    Args:
      strata: one [n_k] array per task.
      thresholds: [D].

    Returns:
      fraction, low, high: [D]; low and high are NaN where a task has one seed.

    Reference: Agarwal et al. 2021, arXiv:2108.13264, section 4.3, run-score distributions.
    """
    generator, tail = np.random.default_rng(0), 100 * (1 - statistics.CONFIDENCE) / 2
    fraction, resampled = np.zeros(len(thresholds)), np.zeros((statistics.NUM_RESAMPLES, len(thresholds)))
    for scores in strata:
        above = (scores[:, None] > thresholds).astype(np.float64)  # [n_k, D]
        counts = generator.multinomial(len(scores), np.full(len(scores), 1 / len(scores)), statistics.NUM_RESAMPLES)
        fraction += above.mean(axis=0) / len(strata)
        resampled += counts @ above / (len(scores) * len(strata))
    if min(len(scores) for scores in strata) < 2:
        return fraction, np.full_like(fraction, np.nan), np.full_like(fraction, np.nan)
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=0)
    return fraction, low, high


def _why_not(results: Results) -> str | None:
    """Why a task cannot be put together with others."""
    evaluated = [pack for pack in results.run.packs if pack.eval is not None and len(pack.eval["step"])]
    if not evaluated or all(setting.last is None for setting in results.settings):
        return "no evaluation yet"
    return None if results.quantity == "scores" else "its returns have no reference scores to normalise them by"


def _row(label: str, algorithm: str, found: Mapping[str, Results]) -> Row:
    settings = {}
    for task, results in found.items():
        here = next((s for s in results.settings if s.label == label and s.last is not None), None)
        if here is not None:
            settings[task] = here
    return Row(label, algorithm, settings, tuple(task for task in found if task not in settings))
