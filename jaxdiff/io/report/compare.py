"""Two studies side by side: what a setting gains or loses from one folder to the other, task by task.

Settings are matched by their labels, without the words that name the task; where no label is in both folders, the best
setting of each is compared. Every difference is second minus first, so a positive one says that the second is better.
Seeds are resampled in both folders independently, also where they are the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.io import tasks as names_of_tasks
from jaxdiff.io.report import statistics
from jaxdiff.io.report.results import Results, Setting
from jaxdiff.io.report.statistics import Floats, Interval
from jaxdiff.io.tasks import TASK

ACROSS = "all tasks"


class Value(NamedTuple):
    """A number and what the seeds say about it."""

    value: float
    interval: Interval | None  # None with one seed on a side


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting of each folder on one task, or on all tasks together."""

    task: str
    first: str  # label
    second: str
    iqms: tuple[float, float] | None  # None for all tasks together
    seeds: tuple[int, int]
    difference: Value | None  # None where tasks have no common unit
    improvement: Value  # P(second > first)
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """'better', 'worse' or 'open', as the interval of the difference, or else that of the probability, lies."""
        value, middle = (self.improvement, 0.5) if self.difference is None else (self.difference, 0.0)
        if value.interval is None or value.interval.low <= middle <= value.interval.high:
            return "open"
        return "better" if value.interval.low > middle else "worse"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything that two folders say about each other; the best rows of the second first."""

    first: Path
    second: Path
    quantity_name: str
    rows: tuple[Row, ...]
    is_matched: bool  # by label; else best against best
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Study:
    """A folder's settings that have a number, by name without the task, then by task."""

    results: Results
    settings: dict[str, dict[str, Setting]]
    configs: dict[str, Mapping[str, Any]]  # of one pack of each task

    @property
    def path(self) -> Path:
        return self.results.run.dir.path

    def best(self, task: str) -> Setting:
        """The task's best setting: `Results.settings` come best first."""
        wanted = {tasks[task].label for tasks in self.settings.values() if task in tasks}
        return next(setting for setting in self.results.settings if setting.label in wanted)


def compare(first: Results, second: Results) -> Comparison:
    """Compares two collected runs by their last checkpoints.

    Raises:
      ValueError: they report different quantities, have no task in common, name one task and mean two, or one of them
        has no evaluation yet.
    """
    a, b = arrange(first), arrange(second)
    _check_quantities(a, b)
    tasks = _common_tasks(a, b)
    names = [name for name in b.settings if _tasks_of(name, a, b, tasks)]
    pairs: list[dict[str, tuple[Setting, Setting]]]
    if names:
        pairs = [
            {t: (a.settings[name][t], b.settings[name][t]) for t in _tasks_of(name, a, b, tasks)} for name in names
        ]
    else:
        pairs = [{task: (a.best(task), b.best(task)) for task in tasks}]
    rows = [row for pair in pairs for row in _rows(pair, first.quantity == "scores")]
    return Comparison(a.path, b.path, first.quantity_name, tuple(rows), bool(names), tuple(_notes(a, b, tasks, names)))


def arrange(results: Results) -> Study:
    """Settings by name and task.

    Raises:
      ValueError: none of them has been evaluated.
    """
    packs = {pack.id: pack for pack in results.run.packs}
    settings: dict[str, dict[str, Setting]] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    naming = names_of_tasks.of_stamp(results.run.stamp, [setting.overrides for setting in results.settings])
    for setting in results.settings:
        if setting.last is None:
            continue
        config = {"env": results.run.stamp.get("env"), **packs[setting.members[0].pack].config}
        task = naming.task(config, setting.overrides)
        name = naming.setting(setting.label, setting.algorithm, setting.overrides)
        settings.setdefault(name, {}).setdefault(task, setting)
        configs.setdefault(task, config)
    if not settings:
        raise ValueError(f"{results.run.dir.path} has no evaluation yet; wait, or see `jaxdiff status`.")
    return Study(results, settings, configs)


def improvement_over_tasks(pairs: Sequence[tuple[Floats, Floats]]) -> Value:
    """Mean over tasks of P(second > first), seeds resampled inside each task and folder.

    Reference: Agarwal et al. 2021, arXiv:2108.13264, section 4.3.
    """
    value = float(np.mean([statistics.probability_of_improvement(y, x) for x, y in pairs]))
    if len(pairs) == 1:
        return Value(value, statistics.improvement_interval(pairs[0][1], pairs[0][0]))
    return Value(value, _bootstrap(pairs, _wins))


def difference_over_tasks(pairs: Sequence[tuple[Floats, Floats]]) -> Value:
    """Mean over tasks of IQM(second) - IQM(first), seeds resampled inside each task and folder."""
    value = float(np.mean([statistics.iqm(y) - statistics.iqm(x) for x, y in pairs]))
    return Value(value, _bootstrap(pairs, lambda x, y: statistics.iqm(y) - statistics.iqm(x)))


def _bootstrap(pairs: Sequence[tuple[Floats, Floats]], of_pair: Callable[[Floats, Floats], Floats]) -> Interval | None:
    """Interval of the mean over pairs of a function of [..., n] and [..., m]; every array is a stratum of its own."""
    strata = [side for pair in pairs for side in pair]
    ends = np.cumsum([len(side) for side in strata])[:-1]

    def statistic(pooled: Floats, axis: int = -1) -> Floats:
        parts = np.split(np.moveaxis(pooled, axis, -1), ends, axis=-1)
        return np.mean([of_pair(x, y) for x, y in zip(parts[::2], parts[1::2], strict=True)], axis=0)

    return statistics.stratified_bootstrap(strata, statistic)


def _wins(x: Floats, y: Floats) -> Floats:
    x, y = x[..., :, None], y[..., None, :]
    return np.asarray(((y > x) + 0.5 * (y == x)).mean(axis=(-2, -1)))


def _rows(pairs: Mapping[str, tuple[Setting, Setting]], is_one_unit: bool) -> list[Row]:
    """A row for each task, and one over all of them where there are several."""
    found, scores = [], []
    for task, (x, y) in pairs.items():
        assert x.last is not None and y.last is not None
        scores.append((x.last.scores, y.last.scores))
        row = Row(
            task=task,
            first=x.label,
            second=y.label,
            iqms=(x.last.iqm, y.last.iqm),
            seeds=(len(x.counted), len(y.counted)),
            difference=difference_over_tasks(scores[-1:]),
            improvement=improvement_over_tasks(scores[-1:]),
            notes=tuple(_doubts(x, y)),
        )
        found.append(row)
    if len(found) > 1:
        seeds = (min(row.seeds[0] for row in found), min(row.seeds[1] for row in found))
        difference = difference_over_tasks(scores) if is_one_unit else None
        names = [
            " / ".join(dict.fromkeys(labels)) for labels in zip(*((r.first, r.second) for r in found), strict=True)
        ]
        task = f"{ACROSS} ({len(found)})"
        found.append(Row(task, names[0], names[1], None, seeds, difference, improvement_over_tasks(scores)))
    return found


def _doubts(x: Setting, y: Setting) -> list[str]:
    doubts = []
    if x.last_step != y.last_step:
        doubts.append(f"{x.last_step:,} updates against {y.last_step:,}")
    lost = [setting.num_nonfinite for setting in (x, y)]
    if any(lost):
        doubts.append(f"non-finite seeds: {lost[0]}, {lost[1]}")
    if x.provisional or y.provisional:
        doubts.append("unfinished")
    return doubts


def _check_quantities(a: Study, b: Study) -> None:
    if a.results.quantity != b.results.quantity:
        raise ValueError(
            f"{a.path} reports a {a.results.quantity_name} and {b.path} a {b.results.quantity_name}: their numbers "
            "have no common unit. A folder reports scores when every evaluation in it has them."
        )


def _common_tasks(a: Study, b: Study) -> list[str]:
    """Tasks that both have, in the order of the first; checked to be the same ones."""
    tasks = [task for task in a.configs if task in b.configs]
    if not tasks:
        raise ValueError(
            f"{a.path} is of {', '.join(a.configs)} and {b.path} of {', '.join(b.configs)}: numbers of different tasks "
            "cannot be compared."
        )
    for task in tasks:
        there, here = a.configs[task], b.configs[task]
        for key in TASK:
            if key in there and key in here and there[key] != here[key]:
                raise ValueError(
                    f"{task} is not the same task in both folders: {key} is {there[key]!r} in {a.path} and "
                    f"{here[key]!r} in {b.path}."
                )
    return tasks


def _tasks_of(name: str, a: Study, b: Study, tasks: Sequence[str]) -> list[str]:
    return [task for task in tasks if task in a.settings.get(name, {}) and task in b.settings.get(name, {})]


def _notes(a: Study, b: Study, tasks: Sequence[str], names: Sequence[str]) -> list[str]:
    notes = []
    if not names:
        notes.append(
            "No label is in both folders, so the best setting of each is compared; it was chosen by the numbers shown."
        )
    for study, other in ((a, b), (b, a)):
        alone = [task for task in study.configs if task not in tasks]
        if alone:
            notes.append(f"Only in {study.path}, left out: tasks {', '.join(alone)}.")
        unmatched = len(study.settings) - len(names)
        if names and unmatched:
            notes.append(f"Settings of {study.path} without a namesake in {other.path}: {unmatched}.")
    data = [study.results.run.stamp.get("dataset") or {} for study in (a, b)]
    if data[0].get("sha256") != data[1].get("sha256"):
        words = " and ".join(f"{known.get('name', 'none')} ({str(known.get('sha256'))[:10]})" for known in data)
        notes.append(f"They learned from different data: {words}.")
    return notes
