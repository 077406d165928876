"""The learning curves: score over updates, a line for each setting and in large studies a band for the rest."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxdiff.io.report import statistics, svg
from jaxdiff.io.report.looks import REST, Look, folded
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import MemberResult, Results, Setting

MAX_TIPS = 60  # points of a curve with a tooltip
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the settings that are no line of their own


def learning_curves(results: Results, looks: Mapping[str, Look], width: int, height: int) -> Markup:
    """Score against updates: mean over seeds, its 95 % bootstrap band, every seed drawn faintly."""
    evaluated = [setting for setting in results.settings if any(len(result.steps) for result in setting.members)]
    rest = folded(results, looks)
    drawn = [setting for setting in evaluated if setting not in rest]
    if not evaluated:
        return Markup()
    at, spread = rest_quantiles(rest)
    values = [value for setting in drawn for result in setting.members for value in result.values]
    values += spread.ravel().tolist()
    if results.dataset_mean is not None:
        values.append(results.dataset_mean)
    steps = [float(step) for setting in evaluated for result in setting.members for step in result.steps]
    frame = svg.Frame.make(width, height, (min(0.0, *steps), max(*steps, 1.0)), svg.span(values))
    parts = [svg.axes(frame, "updates", results.quantity_name)]
    if len(at):
        parts.append(rest_band(frame, at, spread, len(rest)))
    for setting in reversed(drawn):  # the best is drawn last, on top
        parts.append(_curve(frame, setting, looks[setting.label]))
    if results.dataset_mean is not None:
        level = frame.y(results.dataset_mean)
        rule = tag("line", class_="level", x1=frame.x.start, x2=frame.x.stop, y1=level, y2=level)
        words = f"dataset mean {results.dataset_mean:.1f}"
        parts.append(tag("g", rule, tag("title", words)))
    words = f"Learning curves of {len(drawn)} settings: {results.quantity_name} against updates."
    return svg.drawing(frame, *parts, label=words)


def curve_matrix(members: Sequence[MemberResult]) -> tuple[np.ndarray, np.ndarray]:
    """Evaluations of several seeds on one grid: steps [T], values [S, T] with NaN where a seed was not evaluated."""
    steps = np.unique(np.concatenate([result.steps for result in members]))
    values = np.full((len(members), len(steps)), np.nan)
    for row, result in zip(values, members, strict=True):
        row[np.searchsorted(steps, result.steps)] = result.values
    return steps, values


def rest_quantiles(settings: Sequence[Setting]) -> tuple[np.ndarray, np.ndarray]:
    """How the settings' means over seeds spread: steps [T], the QUANTILES over settings [5, T].

    A setting that was evaluated at other steps counts in between by interpolation, and not outside of its own.
    """
    means = []
    for setting in settings:
        members = [result for result in setting.members if len(result.steps)]
        if members:
            steps, values = curve_matrix(members)
            count = np.isfinite(values).sum(axis=0)
            means.append((steps, np.nansum(values, axis=0) / count))
    if not means:
        return np.zeros(0), np.zeros((len(QUANTILES), 0))
    grid = np.unique(np.concatenate([steps for steps, _ in means]))
    rows = np.stack([np.interp(grid, steps, values, left=np.nan, right=np.nan) for steps, values in means])
    return grid, np.nanquantile(rows, QUANTILES, axis=0)


def rest_band(frame: svg.Frame, steps: np.ndarray, spread: np.ndarray, count: int, tips: int = MAX_TIPS) -> Markup:
    """Two grey bands, the middle 80 % and the middle half of `count` settings, and their median as a line."""
    parts = [
        svg.band(frame, steps, spread[0], spread[4], class_="band"),
        svg.band(frame, steps, spread[1], spread[3], class_="band"),
        svg.line(frame, steps, spread[2], class_="line"),
    ]
    for index in _spaced(len(steps), tips):
        words = f"the other {count} settings\n{steps[index]:,} updates: median {spread[2, index]:.4g}"
        words += f"\nhalf of them {spread[1, index]:.4g} to {spread[3, index]:.4g}"
        if np.isfinite(spread[2, index]):
            parts.append(svg.dot(frame.x(steps[index]), frame.y(spread[2, index]), words, radius=0.0))
    return tag("g", *parts, class_="series other", data_series=REST)


def _spaced(count: int, most: int) -> range:
    """At most `most` of `count` indices, evenly spaced."""
    return range(0, count, -(-count // most)) if count and most else range(0)


def _curve(frame: svg.Frame, setting: Setting, look: Look) -> Markup:
    members = [result for result in setting.members if len(result.steps)]
    steps, values = curve_matrix(members)
    centre, low, high = statistics.mean_band(values)
    parts = []
    if look.main:
        parts = [svg.line(frame, result.steps, result.values, class_="seed") for result in members]
        parts.append(svg.band(frame, steps, low, high, class_="band"))
    parts.append(svg.line(frame, steps, centre, class_="line", stroke_dasharray=look.dash))
    for index in _spaced(len(steps), MAX_TIPS):
        count = int(np.isfinite(values[:, index]).sum())
        words = f"{setting.label}\n{steps[index]:,} updates: mean {centre[index]:.1f} over {count} seeds"
        if np.isfinite(low[index]):
            words += f"\n95 % interval {low[index]:.1f} to {high[index]:.1f}"
        radius = 2.5 if look.main and len(steps) <= 40 else 0.0
        parts.append(svg.dot(frame.x(steps[index]), frame.y(centre[index]), words, radius=radius))
    for result in members:
        if result.failed_at is not None:
            words = f"{setting.label}, seed {result.member.seed}: non-finite at update {result.failed_at:,}"
            parts.append(svg.cross(frame.x(result.steps[-1]), frame.y(result.values[-1]), words))
    return tag("g", *parts, class_=f"series {look.class_}", data_series=look.series)
