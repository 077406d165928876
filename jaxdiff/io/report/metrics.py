"""The training metrics as small charts, a line for each setting and in large studies a band for the rest."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxdiff.io.report import svg
from jaxdiff.io.report.curves import QUANTILES, rest_band
from jaxdiff.io.report.looks import Look, folded, is_large
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import Results

MAX_POINTS = 150  # of a training metric; more would not be seen and would make the file heavy
FEW_POINTS = 50  # the same in a large study, which has more lines and more metrics
LOG_RATIO = 50.0  # a positive metric that spans more than this is drawn on a log scale

Line = tuple[np.ndarray, np.ndarray]  # steps [T'], mean over seeds [T']


class Rest(NamedTuple):
    """The settings without a line of their own, of one metric."""

    steps: np.ndarray  # [T']
    spread: np.ndarray  # [5, T'], `curves.QUANTILES` over settings
    settings: int


def panels(results: Results, looks: Mapping[str, Look], width: int = 340, height: int = 240) -> dict[str, Markup]:
    """By metric, alphabetically: the mean over seeds still healthy, one line per setting."""
    rest = {setting.label for setting in folded(results, looks)}
    charts = {}
    for name, by_label in sorted(_lines(results).items()):
        own = {label: line for label, line in by_label.items() if label not in rest}
        others = [line for label, line in by_label.items() if label in rest]
        chart = _panel(name, own, _rest(others), looks, width, height)
        if chart:
            charts[name] = chart
    return charts


def _lines(results: Results) -> dict[str, dict[str, Line]]:
    """By metric, then label."""
    found: dict[str, dict[str, Line]] = {}
    most = FEW_POINTS if is_large(results) else MAX_POINTS
    for pack in results.run.packs:
        if pack.train is None or not len(pack.train["step"]):
            continue
        labels = list(dict.fromkeys(member.label for member in pack.members))
        index = {label: row for row, label in enumerate(labels)}
        belongs = np.zeros((len(pack.members), len(labels)))
        belongs[np.arange(len(pack.members)), [index[member.label] for member in pack.members]] = 1.0
        alive = pack.train.get("alive")
        for name, column in pack.train.items():
            if name in ("step", "wall_seconds", "alive") or column.ndim != 2 or column.shape[1] != len(belongs):
                continue
            values = np.where(alive, column, np.nan) if alive is not None else column
            steps, means = thinned(pack.train["step"], values.astype(np.float64), belongs, most)
            for label, row in index.items():
                # Seeds of one label in several packs: the first pack's are shown; the panel is about shape, not rank.
                found.setdefault(name, {}).setdefault(label, (steps, means[:, row]))
    return found


def thinned(steps: np.ndarray, values: np.ndarray, belongs: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over the finite entries of at most `most` stretches of rows, at each stretch's last step.

    Args:
      steps: [T].
      values: [T, L].
      belongs: [L, K], 1 where a lane is of a setting and 0 elsewhere.
      most: number of stretches.

    Returns:
      steps [T'], means [T', K], NaN where a stretch has no finite entry.
    """
    groups = np.array_split(np.arange(len(steps)), min(len(steps), most))
    starts = [rows[0] for rows in groups]
    finite = np.isfinite(values)
    sums = np.add.reduceat(np.where(finite, values, 0.0), starts, axis=0) @ belongs
    counts = np.add.reduceat(finite.astype(np.float64), starts, axis=0) @ belongs
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.asarray(steps)[[rows[-1] for rows in groups]], means


def _rest(lines: list[Line]) -> Rest:
    """Quantiles over the settings whose steps are those of the longest; one with other steps is left out."""
    if not lines:
        return Rest(np.zeros(0), np.zeros((len(QUANTILES), 0)), 0)
    steps = max((steps for steps, _ in lines), key=len)
    rows = np.stack([values for at, values in lines if np.array_equal(at, steps)])
    kept = np.isfinite(rows).any(axis=0)
    return Rest(steps[kept], np.nanquantile(rows[:, kept], QUANTILES, axis=0), len(rows))


def _panel(
    name: str, by_label: Mapping[str, Line], rest: Rest, looks: Mapping[str, Look], width: int, height: int
) -> Markup:
    values = np.concatenate([line for _, line in by_label.values()] + [rest.spread.ravel()])
    values = values[np.isfinite(values)]
    if not values.size:
        return Markup()
    is_log = bool(values.min() > 0 and values.max() / values.min() > LOG_RATIO)
    kind: svg.Kind = "log" if is_log else "linear"
    shown = values
    low, high = np.percentile(values, [1, 99])
    is_cut = not is_log and bool(np.ptp(values) > 5 * (high - low) > 0)
    if is_cut:
        shown = np.clip(values, low, high)
    steps = np.concatenate([steps for steps, _ in by_label.values()] + [rest.steps])
    frame = svg.Frame.make(
        width, height, (0.0, float(max(steps.max(), 1))), svg.span(shown, kind), y_kind=kind, left=60
    )
    lines = [rest_band(frame, *rest, tips=0)] if len(rest.steps) else []
    lines += [_line(frame, label, *by_label[label], looks[label]) for label in by_label]
    inside = frame.x.start, frame.y.stop, frame.x.stop - frame.x.start, frame.y.start - frame.y.stop
    clip = {"x": inside[0], "y": inside[1], "width": inside[2], "height": inside[3]}
    window = tag("svg", *lines, viewBox=" ".join(f"{side:g}" for side in inside), **clip)
    note = " (log scale)" if is_log else " (outliers beyond the 1st and 99th percentile cut)" if is_cut else ""
    title = name + (" · log" if is_log else " · cut" if is_cut else "")
    drawn = svg.drawing(frame, svg.axes(frame, "updates", title), window, label=f"{name} against updates{note}")
    return tag("figure", drawn)


def _line(frame: svg.Frame, label: str, steps: np.ndarray, values: np.ndarray, look: Look) -> Markup:
    drawn = svg.line(frame, steps, values, class_="line thin", stroke_dasharray=look.dash)
    return tag("g", drawn, tag("title", label), class_=f"series {look.class_}", data_series=look.series)
