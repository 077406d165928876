"""Score against a hyperparameter whose values were sampled: a dot for each setting, and means of stretches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxdiff.io.report import statistics, svg
from jaxdiff.io.report.knobs import Axis, bins, knobs, spread
from jaxdiff.io.report.looks import Look
from jaxdiff.io.report.markup import Markup, join, tag
from jaxdiff.io.report.results import Results, Setting

MAX_TITLES = 400  # settings; with more, dots have no tooltips
CUT = 5.0  # per cent of the settings that may lie below the axis where they are far off


def panel(
    results: Results, looks: Mapping[str, Look], key: str, values: Sequence[Any], width: int, height: int
) -> Markup:
    """One dot a setting at its last checkpoint's IQM, and means over the settings of each stretch or value."""
    axis = Axis.of(values)
    shown = [(rank, s) for rank, s in enumerate(results.settings, 1) if s.last is not None and key in knobs(s)]
    scores = np.array([setting.last.iqm for _, setting in shown if setting.last is not None])
    low, below = floor(scores)
    frame = svg.Frame.make(width, height, axis.span(), svg.span(scores[scores >= low]), x_kind=axis.kind)
    room = (frame.x.stop - frame.x.start) / len(values)
    at = axis.positions()
    groups = bins(axis, [knobs(setting)[key] for _, setting in shown])
    xs = np.array([frame.x(at[knobs(setting)[key]]) for _, setting in shown])
    side = min(0.3 * room, 24.0, float(xs.min()) - frame.x.start - 3, frame.x.stop - float(xs.max()))
    shifts = np.zeros(len(shown)) if axis.is_sampled else spread(groups, scores, side)
    dots = [
        _dot(rank, setting, key, looks, float(x + shift), frame.y(max(score, low)), len(shown))
        for (rank, setting), x, shift, score in zip(shown, xs, shifts, scores, strict=True)
    ]
    means = _means(frame, groups, xs, scores, low, joined=axis.is_numeric)
    parts = [svg.axes(frame, axis.note, results.quantity_name, x_ticks=axis.ticks(room)), *reversed(dots), means]
    drawn = svg.drawing(frame, *parts, label=f"{results.quantity_name} against {key}, {len(shown)} settings")
    told = tag("figcaption", f"{below} settings far below are drawn at {svg.short(low)}.") if below else None
    return tag("figure", tag("figcaption", tag("code", key)), drawn, told)


def floor(scores: np.ndarray) -> tuple[float, int]:
    """Where an axis of scores may begin, and how many lie below: a few that failed must not flatten the others."""
    low, middle, high = np.percentile(scores, [CUT, 50, 100])
    if float(scores.min()) < low - 2 * (high - low) and high > middle:
        return float(low), int((scores < low).sum())
    return float(scores.min()), 0


def _dot(rank: int, setting: Setting, key: str, looks: Mapping[str, Look], x: float, y: float, count: int) -> Markup:
    look = looks[setting.label]
    title = None
    if count <= MAX_TITLES and setting.last is not None:
        unfinished = f", {setting.standing}" if setting.standing else ""
        title = tag("title", f"#{rank}: IQM {setting.last.iqm:.1f} at {knobs(setting)[key]}{unfinished}")
    class_ = "hollow" if setting.provisional else "dot"
    drawn = tag("circle", title, class_=class_, cx=x, cy=y, r=3.6 if look.main else 2.6)
    if not look.main:
        return tag("g", drawn, class_="pooled faint")
    return tag("g", drawn, class_=f"series {look.class_}", data_series=look.series)


def _means(
    frame: svg.Frame, groups: Sequence[int], xs: np.ndarray, scores: np.ndarray, low: float, *, joined: bool
) -> Markup:
    """Mean score of each group with its bootstrap interval over settings, at the middle of the group's dots."""
    parts, points = [], []
    for group in sorted(set(groups)):
        rows = np.flatnonzero(np.asarray(groups) == group)
        mean, x = float(scores[rows].mean()), float(np.median(xs[rows]))
        interval = statistics.stratified_bootstrap([scores[rows]], statistics.mean) if len(rows) > 1 else None
        words = f"{len(rows)} settings: mean IQM {mean:.1f}"
        if interval is not None:
            words += f"\n95 % interval over settings {interval.low:.1f} to {interval.high:.1f}"
            ends = {"y1": frame.y(max(interval.low, low)), "y2": frame.y(max(interval.high, low))}
            parts.append(tag("line", class_="whisker", x1=x, x2=x, **ends))
        points.append((x, frame.y(max(mean, low))))
        parts.append(svg.dot(*points[-1], words, radius=4.5))
    line = tag("path", class_="line", d=svg.path(points), fill="none") if joined else Markup()
    return tag("g", join([line, *parts]), class_="mean")
