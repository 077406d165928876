"""How the score depends on each swept hyperparameter."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxdiff.io.report import scatter, svg
from jaxdiff.io.report.knobs import Axis, knobs, swept_keys
from jaxdiff.io.report.looks import Look
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import Estimate, Results, Setting, estimate

MAX_LINES = 6  # more combinations of the other keys than this are pooled into one line


class Line(NamedTuple):
    """The estimates along one swept key, everything else held (or pooled)."""

    name: str
    class_: str
    dash: str | None
    points: tuple[tuple[Any, Estimate], ...]  # (value, estimate), in the axis' order
    unfinished: frozenset[Any] = frozenset()  # values whose setting has not finished


def panels(results: Results, looks: Mapping[str, Look], width: int = 340, height: int = 270) -> list[Markup]:
    """One chart per swept key: lines where the study is a grid, dots where its settings were sampled."""
    charts = []
    keys = swept_keys(results)
    if is_sampled(results):
        return [scatter.panel(results, looks, key, values, width, height) for key, values in keys.items()]
    for key, values in keys.items():
        lines = _lines(results, looks, key, values)
        charts.append(_panel(results, key, values, lines, width, height))
    return charts


def is_sampled(results: Results) -> bool:
    """Whether the settings are no grid: some key has many values, and too many combinations of other keys for lines."""
    return any(
        Axis.of(values).is_sampled and len(_contexts(results, key)) > MAX_LINES
        for key, values in swept_keys(results).items()
    )


def _contexts(results: Results, key: str) -> dict[tuple[tuple[str, Any], ...], dict[Any, Setting]]:
    """The other keys' values -> the key's value -> the setting."""
    contexts: dict[tuple[tuple[str, Any], ...], dict[Any, Setting]] = {}
    of_task = results.run.stamp.get("task_keys", ())  # one value each, and the section's title says it
    for setting in results.settings:
        own = knobs(setting)
        if setting.last is not None and key in own:
            others = tuple(sorted((k, v) for k, v in own.items() if k != key and k not in of_task))
            contexts.setdefault(others, {})[own[key]] = setting
    return contexts


def _lines(results: Results, looks: Mapping[str, Look], key: str, values: Sequence[Any]) -> list[Line]:
    """One line per combination of the other keys, or everything pooled where those are too many."""
    contexts = _contexts(results, key)
    if len(contexts) > MAX_LINES:
        return [_pooled(list(contexts.values()), values)]
    lines = []
    for index, (others, by_value) in enumerate(sorted(contexts.items(), key=lambda item: str(item[0]))):
        first = next(iter(by_value.values()))
        name = ", ".join(str(v) if k == "algorithm" else f"{k.split('.')[-1]}={v}" for k, v in others)
        found = [(value, by_value[value].last) for value in values if value in by_value]
        points = tuple((value, last) for value, last in found if last is not None)
        unfinished = frozenset(value for value, setting in by_value.items() if setting.provisional)
        dash = looks[first.label].dash if key != "algorithm" else None
        lines.append(Line(name or "no other key", f"c{index}", dash, points, unfinished))
    return lines


def _pooled(contexts: Sequence[Mapping[Any, Setting]], values: Sequence[Any]) -> Line:
    """All finished seeds at each value, whatever the other keys are."""
    points = []
    for value in values:
        settings = [by_value[value] for by_value in contexts if value in by_value]
        scores = [score for setting in settings if setting.last is not None for score in setting.last.scores]
        found = estimate(scores)
        if found is not None:
            points.append((value, found))
    return Line(f"all {len(contexts)} combinations of the other keys pooled", "pooled", None, tuple(points))


def _panel(results: Results, key: str, values: Sequence[Any], lines: Sequence[Line], width: int, height: int) -> Markup:
    ends = [end for line in lines for _, found in line.points for end in (found.iqm, *(found.interval or ()))]
    axis = Axis.of(values)
    frame = svg.Frame.make(width, height, axis.span(), svg.span(ends), x_kind=axis.kind)
    ticks = axis.ticks((frame.x.stop - frame.x.start) / len(values))
    parts = [svg.axes(frame, axis.note, results.quantity_name, x_ticks=ticks)]
    for index, line in enumerate(lines):
        shift = (index - (len(lines) - 1) / 2) * 7  # side by side, so that whiskers do not hide one another
        parts.append(_line(frame, key, line, axis.positions(), shift, joined=axis.is_numeric))
    drawn = svg.drawing(frame, *parts, label=f"{results.quantity_name} against {key}")
    return tag("figure", tag("figcaption", tag("code", key)), drawn, _key(lines))


def _line(
    frame: svg.Frame, key: str, line: Line, positions: Mapping[Any, float], shift: float, *, joined: bool
) -> Markup:
    parts, points = [], []
    for value, found in line.points:
        x, y = frame.x(positions[value]) + shift, frame.y(found.iqm)
        points.append((x, y))
        words = f"{line.name}\n{key} = {value}: IQM {found.iqm:.1f} over {len(found.scores)} seeds"
        if found.interval is not None:
            words += f"\n95 % interval {found.interval.low:.1f} to {found.interval.high:.1f}"
            ends = {"y1": frame.y(found.interval.low), "y2": frame.y(found.interval.high)}
            parts.append(tag("line", class_="whisker", x1=x, x2=x, **ends))
        if value in line.unfinished:
            words += "\nunfinished"
        parts.append(svg.dot(x, y, words, class_="hollow" if value in line.unfinished else "dot"))
    if joined:
        parts.insert(0, tag("path", class_="line thin", d=svg.path(points), fill="none", stroke_dasharray=line.dash))
    return tag("g", *parts, class_=line.class_)


def _key(lines: Sequence[Line]) -> Markup:
    items = []
    for line in lines:
        sample = tag("path", class_="line", d="M0 6H26", stroke_dasharray=line.dash)
        disc = tag("circle", class_="dot", cx=13.0, cy=6.0, r=3.5)
        mark = tag("svg", sample, disc, viewBox="0 0 26 12", class_="key", aria_hidden="true")
        items.append(tag("li", mark, tag("span", line.name), class_=line.class_))
    return tag("ul", *items, class_="keys")
