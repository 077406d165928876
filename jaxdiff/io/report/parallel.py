"""Parallel coordinates: a setting is a line through its hyperparameters' axes to the axis of its score."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.io.report import svg
from jaxdiff.io.report.knobs import Axis, importance, knobs, label, spread, swept_keys
from jaxdiff.io.report.looks import REST, Look, folded
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import Results, Setting
from jaxdiff.io.report.scatter import MAX_TITLES, floor

MAX_AXES = 9  # hyperparameters
MAX_STRANDS = 400  # settings
SIZE = (980, 400)
TOP, BOTTOM, SIDE = 50, 352, 62


class Column(NamedTuple):
    """One axis: where each setting meets it, and the drawing of the axis itself."""

    at: np.ndarray  # [N] pixels from above
    drawn: Markup


def chosen(results: Results) -> list[tuple[str, float]]:
    """(key, share of the score's variance it explains) of the axes, the one that explains most last."""
    found = importance(results.settings, swept_keys(results))
    return sorted(found.items(), key=lambda item: (item[1], item[0]))[-MAX_AXES:]


def strands(results: Results) -> list[tuple[int, Setting]]:
    """(rank, setting) of the lines: all with a number, or the best half of MAX_STRANDS and a sample of the others."""
    ranked = [(rank, setting) for rank, setting in enumerate(results.settings, 1) if setting.last is not None]
    if len(ranked) <= MAX_STRANDS:
        return ranked
    half = MAX_STRANDS // 2
    others = np.linspace(half, len(ranked) - 1, MAX_STRANDS - half).astype(int)
    return ranked[:half] + [ranked[index] for index in others]


def drawing(results: Results, looks: Mapping[str, Look]) -> Markup:
    """The lines, stronger the better a setting's rank, those of the legend in colour; axes with ticks and names."""
    shown, axes = strands(results), chosen(results)
    settings = [setting for _, setting in shown]
    scores = np.array([setting.last.iqm for setting in settings if setting.last is not None])
    places = np.linspace(SIDE, SIZE[0] - SIDE, len(axes) + 1)
    room = float(places[1] - places[0])
    columns = [
        _key_column(key, share, swept_keys(results)[key], settings, scores, float(x), room)
        for (key, share), x in zip(axes, places, strict=False)
    ]
    columns.append(_score_column(results, scores, float(places[-1])))
    heights = np.stack([column.at for column in columns])  # [axes, N]
    rest = {setting.label for setting in folded(results, looks)}
    lines, crowd = [], min(1.0, (100 / len(shown)) ** 0.5)  # many lines must not add up to a solid area
    for index, (rank, setting) in reversed(list(enumerate(shown))):  # the best last, on top
        look = looks[setting.label]
        title = f"#{rank} {setting.label}: IQM {scores[index]:.1f}" if len(shown) <= MAX_TITLES else None
        standing = 1 - index / max(len(shown) - 1, 1)
        weight = 1.0 if look.main else round(0.04 + 0.46 * crowd * standing**2, 2)
        path = svg.path(zip(places, heights[:, index], strict=True))
        lines.append(
            tag(
                "path",
                tag("title", title) if title else None,
                d=path,
                class_=f"strand series {look.class_ if look.main else 'faded'}",
                stroke_opacity=weight,
                stroke_dasharray=look.dash if look.main else None,
                data_series=REST if setting.label in rest else look.series,
            )
        )
    words = f"{len(shown)} settings: the values of {len(axes)} keys and the {results.quantity_name}"
    return svg.drawing(SIZE, *lines, *(column.drawn for column in columns), label=words)


def _key_column(
    key: str,
    share: float,
    values: Sequence[Any],
    settings: Sequence[Setting],
    scores: np.ndarray,
    x: float,
    room: float,
) -> Column:
    axis = Axis.of(values)
    missing = any(key not in knobs(setting) for setting in settings)
    low, high = axis.span()
    scale = svg.Scale(low, high, BOTTOM - 24 * missing, TOP, axis.kind)
    position = axis.positions()
    at = np.array([scale(position[knobs(s)[key]]) if key in knobs(s) else float(BOTTOM) for s in settings])
    gap = (BOTTOM - TOP) / max(len(values), 2)
    if not axis.is_sampled:  # lines through one value fan out a little, or they would hide one another
        groups = [round(height) for height in at]
        at = at + spread(groups, scores, min(0.3 * gap, 13.0)) * (at < BOTTOM - 1)
    if axis.is_sampled:
        ticks = [(tick, svg.short(tick)) for tick in scale.ticks(5)]
    else:
        stride = -(-len(values) * 16 // (BOTTOM - TOP))
        ticks = [(position[value], label(value, room * 0.6)) for value in values[::stride]]
    marks = [(scale(tick), words) for tick, words in ticks]
    if missing:
        marks.append((float(BOTTOM), "not set"))
    short = key.rpartition(".")[2]
    notes = [f"explains {100 * share:.0f} %", axis.note]
    return Column(at, _axis(x, key, label(short, room * 1.1), marks, notes))


def _score_column(results: Results, scores: np.ndarray, x: float) -> Column:
    low, below = floor(scores)
    scale = svg.Scale(*svg.span(scores[scores >= low]), BOTTOM, TOP)
    marks = [(scale(tick), svg.short(tick)) for tick in scale.ticks(6)]
    at = np.array([scale(max(score, low)) for score in scores])
    notes = ["IQM", f"{below} lower" if below else ""]
    return Column(at, _axis(x, results.quantity_name, results.quantity_name, marks, notes))


def _axis(x: float, name: str, shown: str, marks: Sequence[tuple[float, str]], notes: Sequence[str]) -> Markup:
    parts = [
        tag("line", class_="axis", x1=x, x2=x, y1=TOP, y2=BOTTOM),
        tag("text", shown, tag("title", name), class_="title", x=x, y=TOP - 24, text_anchor="middle"),
    ]
    for y, words in marks:
        parts.append(tag("line", class_="axis", x1=x - 4, x2=x, y1=y, y2=y))
        parts.append(tag("text", words, class_="tick", x=x - 7, y=y + 4, text_anchor="end"))
    for line, note in enumerate(notes):
        if note:
            parts.append(tag("text", note, class_="tick", x=x, y=BOTTOM + 24 + 16 * line, text_anchor="middle"))
    return tag("g", *parts)
