"""Lines over updates: the learning curve, the training metrics, and the look that a setting keeps in all of them."""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from jaxdiff.io.report import statistics, svg
from jaxdiff.io.report.markup import Markup, join, tag
from jaxdiff.io.report.results import MemberResult, Results, Setting

NUM_COLOURS = 8  # the theme's palette; more colours could not be told apart
DASHES = (None, "7 4", "2 4", "10 3 2 3")  # by algorithm, so that colour is never the only cue
MAX_POINTS = 150  # of a training metric; more would not be seen and would make the file heavy
LOG_RATIO = 50.0  # a positive metric that spans more than this is drawn on a log scale


@dataclasses.dataclass(frozen=True)
class Look:
    """How a setting is drawn everywhere."""

    series: int  # identifies the setting's marks to the legend's buttons
    class_: str  # its colour
    dash: str | None
    main: bool  # False: beyond the palette, drawn thin and grey


def assign_looks(results: Results) -> dict[str, Look]:
    """The best settings and the baseline get the palette's colours, in alphabetical order; the others are grey."""
    coloured = [setting.label for setting in results.settings[:NUM_COLOURS]]
    if results.baseline is not None and results.baseline.label not in coloured:
        coloured[-1] = results.baseline.label
    algorithms = sorted({setting.algorithm for setting in results.settings})
    order = {label: index for index, label in enumerate(sorted(coloured))}
    looks = {}
    for series, setting in enumerate(results.settings):
        colour = order.get(setting.label)
        dash = DASHES[algorithms.index(setting.algorithm) % len(DASHES)]
        class_ = "other" if colour is None else f"c{colour}"
        looks[setting.label] = Look(series, class_, dash, colour is not None)
    return looks


def legend(results: Results, looks: Mapping[str, Look]) -> Markup:
    """One button a setting; pressing it hides or shows the setting in every chart. The grey ones are folded away."""
    settings = sorted(results.settings, key=lambda setting: setting.label)
    main = [_button(s.label, looks[s.label]) for s in settings if looks[s.label].main]
    grey = [_button(s.label, looks[s.label]) for s in settings if not looks[s.label].main]
    if results.dataset_mean is not None:
        words = tag("span", f"dataset mean {results.dataset_mean:.1f}")
        main.append(tag("div", _key("level", None), words))
    shown = tag("div", *main, class_="legend")
    if not grey:
        return shown
    folded = tag("details", tag("summary", f"{len(grey)} more, in grey"), tag("div", *grey, class_="legend"))
    return join([shown, folded])


def _button(label: str, look: Look) -> Markup:
    state = {"type": "button", "aria_pressed": "true"}
    name = tag("span", label)
    return tag("button", _key("line", look.dash), name, class_=look.class_, data_toggle=look.series, **state)


def _key(class_: str, dash: str | None) -> Markup:
    sample = tag("path", class_=class_, d="M0 6H26", stroke_dasharray=dash)
    return tag("svg", sample, viewBox="0 0 26 12", class_="key", aria_hidden="true")


def learning_curves(results: Results, looks: Mapping[str, Look], width: int, height: int) -> Markup:
    """Score against updates: mean over seeds, its 95 % bootstrap band, every seed drawn faintly."""
    drawn = [setting for setting in results.settings if any(len(result.steps) for result in setting.members)]
    if not drawn:
        return Markup()
    values = [value for setting in drawn for result in setting.members for value in result.values]
    if results.dataset_mean is not None:
        values.append(results.dataset_mean)
    steps = [float(step) for setting in drawn for result in setting.members for step in result.steps]
    frame = svg.Frame.make(width, height, (min(0.0, *steps), max(*steps, 1.0)), svg.span(values))
    parts = [svg.axes(frame, "updates", results.quantity_name)]
    for setting in reversed(drawn):  # the best is drawn last, on top
        parts.append(_curve(frame, setting, looks[setting.label]))
    if results.dataset_mean is not None:
        at = frame.y(results.dataset_mean)
        rule = tag("line", class_="level", x1=frame.x.start, x2=frame.x.stop, y1=at, y2=at)
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


def _curve(frame: svg.Frame, setting: Setting, look: Look) -> Markup:
    members = [result for result in setting.members if len(result.steps)]
    steps, values = curve_matrix(members)
    centre, low, high = statistics.mean_band(values)
    parts = []
    if look.main:
        parts = [svg.line(frame, result.steps, result.values, class_="seed") for result in members]
        parts.append(svg.band(frame, steps, low, high, class_="band"))
    parts.append(svg.line(frame, steps, centre, class_="line", stroke_dasharray=look.dash))
    for index, step in enumerate(steps):
        count = int(np.isfinite(values[:, index]).sum())
        words = f"{setting.label}\n{step:,} updates: mean {centre[index]:.1f} over {count} seeds"
        if np.isfinite(low[index]):
            words += f"\n95 % interval {low[index]:.1f} to {high[index]:.1f}"
        radius = 2.5 if look.main and len(steps) <= 40 else 0.0
        parts.append(svg.dot(frame.x(step), frame.y(centre[index]), words, radius=radius))
    for result in members:
        if result.failed_at is not None:
            words = f"{setting.label}, seed {result.member.seed}: non-finite at update {result.failed_at:,}"
            parts.append(svg.cross(frame.x(result.steps[-1]), frame.y(result.values[-1]), words))
    return tag("g", *parts, class_=f"series {look.class_}", data_series=look.series)


def metric_panels(results: Results, looks: Mapping[str, Look], width: int = 340, height: int = 240) -> Markup:
    """One small chart per training metric, the mean over seeds still healthy, one line per setting."""
    lines = _metric_lines(results)
    return join(_metric_panel(name, by_label, looks, width, height) for name, by_label in sorted(lines.items()))


def _metric_lines(results: Results) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """By metric, then label: (steps [T'], mean over seeds [T'])."""
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for pack in results.run.packs:
        if pack.train is None or not len(pack.train["step"]):
            continue
        alive = pack.train.get("alive")
        for name, column in pack.train.items():
            if name in ("step", "wall_seconds", "alive") or column.ndim != 2:
                continue
            values = np.where(alive, column, np.nan) if alive is not None else column
            for label in dict.fromkeys(member.label for member in pack.members):
                lanes = [i for i, member in enumerate(pack.members) if member.label == label]
                # Seeds of one label in several packs: the first pack's are shown; the panel is about shape, not rank.
                found.setdefault(name, {}).setdefault(label, _thinned(pack.train["step"], values[:, lanes]))
    return found


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over the finite entries of at most MAX_POINTS stretches of rows [T, S], at each stretch's last step."""
    groups = np.array_split(np.arange(len(steps)), min(len(steps), MAX_POINTS))
    centre = []
    for rows in groups:
        block = values[rows].astype(np.float64)
        block = block[np.isfinite(block)]
        centre.append(block.mean() if block.size else np.nan)
    return np.array([steps[rows[-1]] for rows in groups]), np.array(centre)


def _metric_panel(
    name: str,
    by_label: Mapping[str, tuple[np.ndarray, np.ndarray]],
    looks: Mapping[str, Look],
    width: int,
    height: int,
) -> Markup:
    values = np.concatenate([line for _, line in by_label.values()])
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
    steps = np.concatenate([steps for steps, _ in by_label.values()])
    frame = svg.Frame.make(
        width, height, (0.0, float(max(steps.max(), 1))), svg.span(shown, kind), y_kind=kind, left=60
    )
    lines = [_metric_line(frame, label, *by_label[label], looks[label]) for label in by_label]
    inside = frame.x.start, frame.y.stop, frame.x.stop - frame.x.start, frame.y.start - frame.y.stop
    clip = {"x": inside[0], "y": inside[1], "width": inside[2], "height": inside[3]}
    window = tag("svg", *lines, viewBox=" ".join(f"{side:g}" for side in inside), **clip)
    note = " (log scale)" if is_log else " (outliers beyond the 1st and 99th percentile cut)" if is_cut else ""
    title = name + (" · log" if is_log else " · cut" if is_cut else "")
    drawn = svg.drawing(frame, svg.axes(frame, "updates", title), window, label=f"{name} against updates{note}")
    return tag("figure", drawn)


def _metric_line(frame: svg.Frame, label: str, steps: np.ndarray, values: np.ndarray, look: Look) -> Markup:
    drawn = svg.line(frame, steps, values, class_="line thin", stroke_dasharray=look.dash)
    return tag("g", drawn, tag("title", label), class_=f"series {look.class_}", data_series=look.series)
