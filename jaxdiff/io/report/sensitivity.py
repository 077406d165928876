"""How the score depends on each swept hyperparameter."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.io.report import svg
from jaxdiff.io.report.curves import Look
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import Estimate, Results, Setting, estimate

MAX_LINES = 6  # more combinations of the other keys than this are pooled into one line
LOG_SPAN = 10.0


class Line(NamedTuple):
    """The estimates along one swept key, everything else held (or pooled)."""

    name: str
    class_: str
    dash: str | None
    points: tuple[tuple[Any, Estimate], ...]  # (value, estimate), in the axis' order
    unfinished: frozenset[Any] = frozenset()  # values whose setting has not finished


def swept_keys(results: Results) -> dict[str, list[Any]]:
    """Key -> its distinct values in axis order, for every key with two values or more among settings with a number."""
    values: dict[str, list[Any]] = {}
    for setting in results.settings:
        for key, value in _knobs(setting).items():
            known = values.setdefault(key, [])
            if setting.last is not None and value not in known:
                known.append(value)
    return {key: sorted(found, key=_order) for key, found in sorted(values.items()) if len(found) > 1}


def panels(results: Results, looks: Mapping[str, Look], width: int = 340, height: int = 270) -> list[Markup]:
    """One chart per swept key."""
    charts = []
    for key, values in swept_keys(results).items():
        lines = _lines(results, looks, key, values)
        charts.append(_panel(results, key, values, lines, width, height))
    return charts


def _knobs(setting: Setting) -> dict[str, Any]:
    knobs = {key: _plain(value) for key, value in setting.overrides.items()}
    return {"algorithm": setting.algorithm, **knobs}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict | tuple) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _order(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if _is_number(value) else (1, 0.0, str(value))


def _lines(results: Results, looks: Mapping[str, Look], key: str, values: Sequence[Any]) -> list[Line]:
    """One line per combination of the other keys, or everything pooled where those are too many."""
    contexts: dict[tuple[tuple[str, Any], ...], dict[Any, Setting]] = {}
    for setting in results.settings:
        knobs = _knobs(setting)
        if setting.last is not None and key in knobs:
            others = tuple(sorted((k, v) for k, v in knobs.items() if k != key))
            contexts.setdefault(others, {})[knobs[key]] = setting
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
    is_numeric = all(_is_number(value) for value in values)
    is_log = is_numeric and min(values) > 0 and max(values) / min(values) > LOG_SPAN
    is_even = not is_numeric or (not is_log and min(values) >= 0 and _uneven(values))
    kind: svg.Kind = "log" if is_log else "linear"
    positions = {value: float(index) if is_even else float(value) for index, value in enumerate(values)}
    pad = 0.5 / (len(values) - 1) if is_even else 0.08
    frame = svg.Frame.make(width, height, svg.span(positions.values(), kind, pad), svg.span(ends), x_kind=kind)
    room = (frame.x.stop - frame.x.start) / len(values)
    ticks = [(positions[value], _label(value, room)) for value in _thin(values, room)] if is_even or is_log else None
    note = "log scale" if is_log else "evenly spaced" if is_even and is_numeric else ""
    parts = [svg.axes(frame, note, results.quantity_name, x_ticks=ticks)]
    for index, line in enumerate(lines):
        shift = (index - (len(lines) - 1) / 2) * 7  # side by side, so that whiskers do not hide one another
        parts.append(_line(frame, key, line, positions, shift, joined=is_numeric))
    drawn = svg.drawing(frame, *parts, label=f"{results.quantity_name} against {key}")
    return tag("figure", tag("figcaption", tag("code", key)), drawn, _key(lines))


def _uneven(values: Sequence[float]) -> bool:
    """Whether 0 and values far apart are swept together, which neither a linear nor a log axis can show."""
    positive = [value for value in values if value > 0]
    return len(positive) < len(values) and len(positive) > 1 and max(positive) / min(positive) > LOG_SPAN


def _thin(values: Sequence[Any], room: float) -> Sequence[Any]:
    stride = max(1, int(np.ceil(34 / room)))
    return values[::stride]


def _label(value: Any, room: float) -> str:
    if _is_number(value):
        return svg.short(value)
    fits = max(4, int(room / 6.5))
    return str(value) if len(str(value)) <= fits else str(value)[: fits - 1] + "…"


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
