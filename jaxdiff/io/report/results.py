"""A run folder's numbers, arranged as a reader asks for them: settings, their seeds, last and best checkpoints."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdiff.io.report import statistics
from jaxdiff.io.runs import Member, Pack, Run

Status = Literal["finished", "unfinished", "stopped", "non-finite"]
Quantity = Literal["scores", "returns"]
RUNNING = 10  # evaluations in the running average


class Estimate(NamedTuple):
    """Scores of some seeds and what they say together."""

    scores: statistics.Floats  # [S], one per seed
    mean: float
    iqm: float
    interval: statistics.Interval | None  # of the IQM; None with one seed


@dataclasses.dataclass(frozen=True)
class MemberResult:
    """One seed of one setting: its evaluations up to the point where it failed, if it did."""

    member: Member
    pack: str
    status: Status
    failed_at: int | None
    num_updates: int  # planned
    steps: np.ndarray  # [T] updates at each evaluation
    values: np.ndarray  # [T] mean over the evaluation's episodes
    imitates: bool  # it learned no values: what improves on the data is compared with it


@dataclasses.dataclass(frozen=True)
class Setting:
    """All seeds of one combination of algorithm and hyperparameters."""

    label: str
    algorithm: str
    overrides: dict[str, Any]  # without the seed
    members: tuple[MemberResult, ...]

    @functools.cached_property
    def provisional(self) -> bool:
        """Whether no seed has finished, so that `last` is only the newest evaluation so far."""
        return not any(result.status == "finished" and len(result.steps) for result in self.members)

    @functools.cached_property
    def standing(self) -> str:
        """What to say behind the label: stopped by a search, unfinished, or nothing."""
        if not self.provisional:
            return ""
        known = {result.status for result in self.members if len(result.steps)}
        return "stopped" if "stopped" in known and "unfinished" not in known else "unfinished"

    @functools.cached_property
    def counted(self) -> tuple[MemberResult, ...]:
        """The seeds the estimates are made of: the finished ones; without any, those still running or stopped."""
        wanted = self.standing or "finished"
        return tuple(result for result in self.members if result.status == wanted and len(result.steps))

    @functools.cached_property
    def last_step(self) -> int:
        """Updates at the evaluation that `last` reports: the newest one that every counted seed has reached."""
        return min((int(result.steps[-1]) for result in self.counted), default=0)

    @functools.cached_property
    def last(self) -> Estimate | None:
        """Over seeds, the last checkpoint's score; None where no seed counts."""
        return estimate([_at(result, self.last_step) for result in self.counted])

    @functools.cached_property
    def running(self) -> Estimate | None:
        """Over seeds, the mean of the last RUNNING evaluations up to `last_step`: steadier than the last alone."""
        return estimate([_mean_until(result, self.last_step) for result in self.counted])

    @functools.cached_property
    def best(self) -> Estimate | None:
        """Over seeds, each seed's highest evaluation: chosen by the number it reports, so optimistic."""
        return estimate([float(result.values.max()) for result in self.counted])

    @property
    def num_nonfinite(self) -> int:
        """Seeds that went non-finite."""
        return sum(result.status == "non-finite" for result in self.members)


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything the report shows that is a number."""

    run: Run
    quantity: Quantity
    settings: tuple[Setting, ...]  # best first
    baseline: Setting | None
    dataset_mean: float | None  # the dataset's own mean return, in the report's quantity

    @property
    def quantity_name(self) -> str:
        """How the quantity is called in a heading."""
        return "normalised score" if self.quantity == "scores" else "return"

    @property
    def best(self) -> Setting | None:
        """The setting with the highest last-checkpoint IQM; None before the first evaluation."""
        return self.settings[0] if self.settings and self.settings[0].last is not None else None

    @property
    def members(self) -> tuple[MemberResult, ...]:
        """All members of all settings."""
        return tuple(result for setting in self.settings for result in setting.members)


def estimate(scores: Sequence[float]) -> Estimate | None:
    """Mean, IQM and its stratified bootstrap interval of one number per seed; None without seeds."""
    if not scores:
        return None
    values = np.asarray(scores, np.float64)
    interval = statistics.stratified_bootstrap([values])
    return Estimate(values, float(values.mean()), float(statistics.iqm(values)), interval)


def best_of_each(settings: Sequence[Setting]) -> list[Setting]:
    """The best setting of each algorithm, of settings that come best first; those without a number are left out."""
    best: dict[str, Setting] = {}
    for setting in settings:
        if setting.last is not None:
            best.setdefault(setting.algorithm, setting)
    return list(best.values())


def median_seed(setting: Setting) -> MemberResult:
    """The seed in the middle: neither the luckiest nor the worst is what the reader should see."""
    ranked = sorted(setting.counted, key=lambda result: float(result.values[-1]))
    return ranked[(len(ranked) - 1) // 2]


def collect(run: Run) -> Results:
    """Arranges a run. Settings come best first: complete ones, then unfinished ones, then those without a number."""
    quantity = _quantity(run)
    grouped: dict[str, list[MemberResult]] = {}
    for result in member_results(run, quantity):
        grouped.setdefault(result.member.label, []).append(result)
    settings = [_setting(label, members) for label, members in grouped.items()]
    settings.sort(key=lambda s: (s.last is None, s.provisional, -s.last.iqm if s.last else 0.0, s.label))
    return Results(run, quantity, tuple(settings), _baseline(settings), _dataset_mean(run, quantity))


def member_results(run: Run, quantity: Quantity) -> list[MemberResult]:
    """Every member, in the order of packs and lanes; without evaluations where its pack has not this quantity."""
    return [result for pack in run.packs for result in _pack_results(pack, quantity)]


def _quantity(run: Run) -> Quantity:
    evaluated = [pack.eval for pack in run.packs if pack.eval is not None and len(pack.eval["step"])]
    return "scores" if evaluated and all("scores" in table for table in evaluated) else "returns"


def _pack_results(pack: Pack, quantity: Quantity) -> list[MemberResult]:
    failures, stopped = pack.nonfinite(), pack.stopped()
    results = []
    for lane, member in enumerate(pack.members):
        failed_at = failures.get(member.id)
        steps, values = np.zeros(0, np.int64), np.zeros(0)
        if pack.eval is not None and quantity in pack.eval and lane < pack.eval[quantity].shape[1]:
            steps, values = pack.eval["step"], pack.eval[quantity][:, lane].astype(np.float64).mean(axis=-1)
            kept = np.isfinite(values) if failed_at is None else np.isfinite(values) & (steps < failed_at)
            kept &= steps <= stopped.get(member.id, steps[-1] if len(steps) else 0)
            steps, values = steps[kept], values[kept]
        status: Status = "finished" if pack.status == "finished" else "unfinished"
        if member.id in stopped:
            status = "stopped"
        if failed_at is not None:
            status = "non-finite"
        imitates = _has_metric(pack, "bc_loss", lane) and not _has_metric(pack, "critic_loss", lane)
        results.append(MemberResult(member, pack.id, status, failed_at, pack.num_updates, steps, values, imitates))
    return results


def _has_metric(pack: Pack, name: str, lane: int) -> bool:
    if pack.train is None or name not in pack.train or lane >= pack.train[name].shape[1]:
        return False
    return bool(np.isfinite(pack.train[name][:, lane]).any())


def _setting(label: str, members: list[MemberResult]) -> Setting:
    first = members[0].member
    overrides = {key: value for key, value in first.overrides.items() if key != "seed"}
    return Setting(label, first.algorithm, overrides, tuple(sorted(members, key=lambda result: result.member.seed)))


def _at(result: MemberResult, step: int) -> float:
    """The value at the newest evaluation not after `step`."""
    return float(result.values[np.searchsorted(result.steps, step, side="right") - 1])


def _mean_until(result: MemberResult, step: int) -> float:
    """Mean of the newest RUNNING evaluations not after `step`, or of as many as there are."""
    end = int(np.searchsorted(result.steps, step, side="right"))
    return float(result.values[max(end - RUNNING, 0) : end].mean())


def _baseline(ranked: Sequence[Setting]) -> Setting | None:
    for setting in ranked:
        if setting.last is not None and any(result.imitates for result in setting.members):
            return setting
    return None


def _dataset_mean(run: Run, quantity: Quantity) -> float | None:
    dataset = run.stamp.get("dataset") or {}
    mean, reference = dataset.get("return_mean"), dataset.get("reference_scores")
    if mean is None or not np.isfinite(mean):
        return None
    if quantity == "returns":
        return float(mean)
    if not reference or reference[0] == reference[1]:
        return None
    return 100.0 * (float(mean) - reference[0]) / (reference[1] - reference[0])
