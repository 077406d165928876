"""The paper's claims, one by one, held against our numbers and their intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._methods import Point
from ._runs import final, load

OURS = "mad2rl"
GREEDY = ("greedy", "greedy_delay")
# Improvements of the task completion time in percent, over greedy, genetic, P-QMIX; decision times in seconds for 3 to
# 7 service vehicles, of P-QMIX, MAD2RL, genetic: Liu et al. 2025, arXiv:2406.06986, evaluation.
SHORTER = {
    Point(3, 5, 10.0): (54.59, 21.23, 19.14),
    Point(7, 5, 10.0): (60.06, 43.94, 19.93),
    Point(5, 3, 10.0): (50.1, 39.79, 22.8),
    Point(5, 7, 10.0): (41.65, 29.15, 21.58),
}
REWARD_POINT, REWARD_GAIN = Point(7, 5, 10.0), 52.0
PAPER_SECONDS = {
    "pqmix": (0.023, 0.027, 0.035, 0.041, 0.052),
    "mad2rl": (0.089, 0.097, 0.118, 0.151, 0.183),
    "genetic": (0.301, 0.453, 0.623, 0.915, 1.338),
}
ROUGHLY = 20.0  # percent within which "roughly unchanged" has to lie, its interval included
NUM_RESAMPLES = 4000


class Change(NamedTuple):
    """100 (ours - theirs) / |theirs| and its 95 % interval, NaN where there are too few numbers for one."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:+.1f} % ({self.low:+.1f} to {self.high:+.1f})"


class Verdict(NamedTuple):
    """A line of the table."""

    claim: str
    paper: str
    ours: str
    reproduced: bool


def change(ours: Any, theirs: Any) -> Change:
    """Relative change of means; percentile bootstrap, both groups (seeds or episodes) resampled by themselves."""
    groups = [np.asarray(group, float) for group in (ours, theirs)]
    if any(group.size == 0 for group in groups):
        return Change(np.nan, np.nan, np.nan)
    ratio = _relative(*(group.mean() for group in groups))
    if any(group.size < 2 for group in groups):
        return Change(float(ratio), np.nan, np.nan)
    generator = np.random.default_rng(0)
    drawn = [group[generator.integers(group.size, size=(NUM_RESAMPLES, group.size))].mean(axis=1) for group in groups]
    low, high = np.percentile(_relative(*drawn), [2.5, 97.5])
    return Change(float(ratio), float(low), float(high))


def _relative(ours: Any, theirs: Any) -> Any:
    return 100.0 * (ours - theirs) / np.abs(theirs)


def verdicts(out: Path, decisions: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Verdict]:
    """Every claim whose runs are finished.

    Args:
      out: folder of the study.
      decisions: point -> method -> seconds; may be empty.
    """

    def compare(metric: str, first: tuple[str, Point], second: tuple[str, Point]) -> Change | None:
        records = load(out, *first), load(out, *second)
        if records[0] is None or records[1] is None:
            return None
        return change(final(records[0], metric), final(records[1], metric))

    return [*_delays(compare), *_trends(compare), *_weights(compare), *_decisions(decisions)]


Compare = Callable[[str, tuple[str, Point], tuple[str, Point]], Change | None]


def _delays(compare: Compare) -> Iterator[Verdict]:
    for point, (greedy, genetic, pqmix) in SHORTER.items():
        where = f"{point.clients} clients, {point.servers} vehicles"
        for other, gain in (*((name, greedy) for name in GREEDY), ("genetic", genetic), ("pqmix", pqmix)):
            if found := compare("delay", (OURS, point), (other, point)):
                claim = f"{where}: {OURS} takes less time than {other}"
                yield Verdict(claim, f"-{gain} %", str(found), found.high < 0)
    if found := compare("return", (OURS, REWARD_POINT), ("pqmix", REWARD_POINT)):
        claim = f"{REWARD_POINT.clients} clients, {REWARD_POINT.servers} vehicles: {OURS} earns more than pqmix"
        yield Verdict(claim, f"+{REWARD_GAIN:g} %", str(found), found.low > 0)


def _trends(compare: Compare) -> Iterator[Verdict]:
    ends = {"clients": (Point(7, 5, 10.0), Point(3, 5, 10.0)), "vehicles": (Point(5, 7, 10.0), Point(5, 3, 10.0))}
    for method in (OURS, "pqmix", *GREEDY, "genetic"):
        for what, (most, fewest) in ends.items():
            if found := compare("delay", (method, most), (method, fewest)):
                if what == "clients":
                    yield Verdict(f"{method}: time grows from 3 to 7 clients", "grows", str(found), found.low > 0)
                else:
                    claim = f"{method}: time falls from 3 to 7 vehicles"
                    yield Verdict(claim, "falls (to be expected)", str(found), found.high < 0)


def _weights(compare: Compare) -> Iterator[Verdict]:
    high, low = Point(5, 3, 150.0), Point(5, 3, 10.0)
    if found := compare("backlog", (OURS, high), (OURS, low)):
        yield Verdict(f"{OURS}: queues grow from V = 10 to 150", "grow", str(found), found.low > 0)
    if found := compare("delay", (OURS, high), (OURS, low)):
        fine = found.low > -ROUGHLY and found.high < ROUGHLY
        claim = f"{OURS}: time is roughly the same at V = 10 and 150 (within {ROUGHLY:g} %)"
        yield Verdict(claim, "about 0", str(found), fine)


def _decisions(decisions: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[Verdict]:
    """Order of the three decision times, by medians, and the ratio that the paper's come to."""
    for servers, paper in zip(range(3, 8), zip(*PAPER_SECONDS.values(), strict=True), strict=True):
        for where, seconds in decisions.items():
            if f"c{servers}s" not in where or not set(PAPER_SECONDS) <= set(seconds):
                continue
            mlp, chain, genetic = (float(np.median(seconds[name])) for name in PAPER_SECONDS)
            for claim, ours, theirs, fine in (
                (f"{OURS} decides faster than genetic", chain / genetic, paper[1] / paper[2], chain < genetic),
                (f"{OURS} decides more slowly than pqmix", chain / mlp, paper[1] / paper[0], chain > mlp),
            ):
                yield Verdict(f"{servers} vehicles: {claim}", f"x {theirs:.2f}", f"x {ours:.2f}", fine)
