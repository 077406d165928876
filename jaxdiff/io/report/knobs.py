"""The swept keys of a study: what values they take, how an axis shows them, and how much of the score they explain."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from jaxdiff.io.report import statistics, svg
from jaxdiff.io.report.results import Results, Setting

LOG_SPAN = 10.0  # positive values that span more than this lie on a log axis
MAX_VALUES = 12  # more distinct numbers than this were sampled, not chosen one by one
GOLDEN = (5**0.5 - 1) / 2  # its multiples fill an interval evenly, however many are taken


def swept_keys(results: Results) -> dict[str, list[Any]]:
    """Key -> its distinct values in axis order, for every key with two values or more among settings with a number."""
    values: dict[str, dict[Any, None]] = {}
    for setting in results.settings:
        for key, value in knobs(setting).items():
            known = values.setdefault(key, {})
            if setting.last is not None:
                known[value] = None
    return {key: sorted(found, key=_order) for key, found in sorted(values.items()) if len(found) > 1}


def knobs(setting: Setting) -> dict[str, Any]:
    """What was set for a setting, the algorithm included; lists as text."""
    plain = {key: str(v) if isinstance(v, list | dict | tuple) else v for key, v in setting.overrides.items()}
    return {**plain, "algorithm": setting.algorithm}


def is_number(value: Any) -> bool:
    """Whether a value lies on a number line; True and False do not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))


@dataclasses.dataclass(frozen=True)
class Axis:
    """Where the values of a key lie along an axis."""

    values: tuple[Any, ...]  # in axis order
    is_numeric: bool
    is_even: bool  # evenly spaced: words, or numbers that neither a linear nor a log axis can show
    kind: svg.Kind

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Axis":
        """A linear axis, a log axis for positive numbers that span a factor above LOG_SPAN, even spacing for words."""
        is_numeric = all(is_number(value) for value in values)
        is_log = is_numeric and min(values) > 0 and max(values) / min(values) > LOG_SPAN
        is_even = not is_numeric or (not is_log and min(values) >= 0 and _uneven(values))
        return cls(tuple(values), is_numeric, is_even, "log" if is_log else "linear")

    @property
    def is_sampled(self) -> bool:
        """Whether the values were drawn from a range rather than listed."""
        return self.is_numeric and len(self.values) > MAX_VALUES

    @property
    def note(self) -> str:
        """What a reader must know of the axis."""
        return "log scale" if self.kind == "log" else "evenly spaced" if self.is_even and self.is_numeric else ""

    def positions(self) -> dict[Any, float]:
        """Value -> where it lies, in the axis' own units."""
        return {value: float(index) if self.is_even else float(value) for index, value in enumerate(self.values)}

    def span(self) -> tuple[float, float]:
        """The axis' ends, with room beyond the outer values."""
        pad = 0.5 / (len(self.values) - 1) if self.is_even else 0.08
        return svg.span(self.positions().values(), self.kind, pad)

    def ticks(self, room: float) -> list[tuple[float, str]] | None:
        """(position, label), each with `room` pixels; None where round numbers will do."""
        if self.is_sampled or not (self.is_even or self.kind == "log"):
            return None
        stride = max(1, int(np.ceil(34 / room)))
        at = self.positions()
        return [(at[value], label(value, room)) for value in self.values[::stride]]


def _uneven(values: Sequence[float]) -> bool:
    """Whether 0 and values far apart are swept together, which neither a linear nor a log axis can show."""
    positive = [value for value in values if value > 0]
    return len(positive) < len(values) and len(positive) > 1 and max(positive) / min(positive) > LOG_SPAN


def label(value: Any, room: float) -> str:
    """A value in about `room` pixels."""
    if is_number(value):
        return svg.short(value)
    fits = max(4, int(room / 6.5))
    return str(value) if len(str(value)) <= fits else str(value)[: fits - 1] + "…"


def bins(axis: Axis, values: Sequence[Any]) -> list[int]:
    """The group of each value: the value itself, or for a sampled axis one of about sqrt(N) stretches of equal count.

    Args:
      axis: the key's axis.
      values: [N], each in `axis.values`.

    Returns:
      [N] group numbers, rising along the axis.
    """
    if not axis.is_sampled:
        rank = {value: index for index, value in enumerate(axis.values)}
        return [rank[value] for value in values]
    numbers = np.asarray(values, np.float64)
    count = int(np.clip(np.sqrt(len(numbers)), 3, 10))
    edges = np.quantile(numbers, np.linspace(0, 1, count + 1)[1:-1])
    return [int(group) for group in np.searchsorted(edges, numbers, side="right")]


def spread(groups: Sequence[int], scores: np.ndarray, width: float) -> np.ndarray:
    """Shifts within +-width that keep the marks of a group apart: by golden steps in the order of their scores."""
    shifts = np.zeros(len(groups))
    for group in set(groups):
        rows = np.flatnonzero(np.asarray(groups) == group)
        rows = rows[np.argsort(scores[rows], kind="stable")]
        shifts[rows] = (np.arange(len(rows)) * GOLDEN % 1.0 * 2 - 1) * width
    return shifts


def importance(settings: Sequence[Setting], keys: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    """Key -> share of the variance of the settings' IQMs that the key alone explains, see `share_explained`."""
    shares = {}
    for key, values in keys.items():
        having = [s for s in settings if s.last is not None and key in knobs(s)]
        groups = bins(Axis.of(values), [knobs(setting)[key] for setting in having])
        scores = [setting.last.iqm for setting in having if setting.last is not None]
        shares[key] = statistics.share_explained(groups, scores) if scores else 0.0
    return shares
