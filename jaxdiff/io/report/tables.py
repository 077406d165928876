"""The report's tables: the final scores, who beats whom, and how any table is made and shortened."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdiff.io.report import statistics, svg
from jaxdiff.io.report.looks import MAX_ROWS, is_large
from jaxdiff.io.report.markup import Child, Markup, join, tag
from jaxdiff.io.report.results import Estimate, Results, Setting

MAX_MATRIX = 12  # settings in the matrix of improvement; more would not fit a screen
FOREST = (170, 28)  # pixels of the little interval drawings


def final(results: Results) -> Markup:
    """One row per setting, best first: last checkpoint, the last ten, the best, seeds, failures."""
    groups = [
        tag("th", colspan=4),
        tag("th", "last checkpoint ", tag("small", results.quantity_name), colspan=4, class_="group"),
        tag("th", "mean of the last 10 evaluations", colspan=2, class_="group"),
        tag("th", "best checkpoint * (oracle)", colspan=2, class_="group optimistic"),
    ]
    head = [
        tag("th", "#", class_="n"),
        tag("th", "setting", class_="label"),
        tag("th", "seeds", class_="n"),
        tag("th", "non-", tag("br"), "finite", class_="n"),
        tag("th", "mean", class_="n"),
        tag("th", "IQM", class_="n"),
        tag("th", "95 % interval"),
        tag("th", _forest_head(results), class_="forest"),
        tag("th", "IQM", class_="n"),
        tag("th", "95 % interval"),
        tag("th", "IQM", class_="n optimistic"),
        tag("th", "95 % interval", class_="optimistic"),
    ]
    ranked = list(enumerate(results.settings, 1))
    long = ranked[MAX_ROWS:] if is_large(results) else []
    body = [_final_row(results, rank, s) for rank, s in ranked if s is results.baseline or (rank, s) not in long]
    top = tag("thead", tag("tr", *groups), tag("tr", *head))
    wide = "wide many" if long else "wide"
    table = scroll(tag("table", top, tag("tbody", *body), class_=wide), "Final scores")
    rest = [_short_row(rank, setting) for rank, setting in long if setting is not results.baseline]
    if not rest:
        return table
    heads = ["#", "setting", "seeds", "non-finite", "mean", "IQM", "95 % interval", "last 10: IQM", "best *: IQM"]
    name = f"The other {len(rest)} of {len(ranked)} settings"
    return join([table, tag("details", tag("summary", name), plain(heads, rest, name, numbers={0, 2, 3, 4, 5, 7, 8}))])


def _short_row(rank: int, setting: Setting) -> list[Child]:
    """A row without drawings: of a setting that few will look for."""
    last, running, best = setting.last, setting.running, setting.best
    standing = f" ({setting.standing}: {setting.last_step:,} updates)" if setting.standing and last else ""
    label = setting.label + standing
    numbers = [None if found is None else f"{found.iqm:.1f}" for found in (last, running, best)]
    mean = None if last is None else f"{last.mean:.1f}"
    counted = f"{len(setting.counted)} of {len(setting.members)}"
    return [rank, label, counted, setting.num_nonfinite, mean, numbers[0], between(last), *numbers[1:]]


def _final_row(results: Results, rank: int, setting: Setting) -> Markup:
    last, running, best = setting.last, setting.running, setting.best
    label: list[Child] = [setting.label]
    if setting is results.baseline:
        label.append(tag("span", "baseline", class_="tag"))
    if setting.standing and last is not None:
        label.append(tag("span", f"{setting.standing}: {setting.last_step:,} updates", class_="tag"))
    if last is None:
        label.append(tag("span", "no result", class_="tag bad"))
    failed = setting.num_nonfinite
    cells = [
        tag("td", rank, class_="n"),
        tag("td", *label, class_="label"),
        tag("td", len(setting.counted), tag("small", f" of {len(setting.members)}"), class_="n"),
        tag("td", failed, class_="n bad" if failed else "n"),
        tag("td", "–" if last is None else f"{last.mean:.1f}", class_="n"),
        tag("td", "–" if last is None else tag("b", f"{last.iqm:.1f}"), class_="n"),
        tag("td", between(last)),
        tag("td", _forest(results, setting), class_="forest"),
        tag("td", "–" if running is None else f"{running.iqm:.1f}", class_="n"),
        tag("td", between(running)),
        tag("td", "–" if best is None else f"{best.iqm:.1f}", class_="n optimistic"),
        tag("td", between(best), class_="optimistic"),
    ]
    return tag("tr", *cells, class_="top" if setting is results.best else None)


def between(found: Estimate | None) -> str:
    """'60.1 to 80.3', or why there is no interval."""
    if found is None:
        return "–"
    return f"{found.interval.low:.1f} to {found.interval.high:.1f}" if found.interval is not None else "one seed"


def _forest_scale(results: Results) -> svg.Scale:
    found = [estimate for s in results.settings for estimate in (s.last, s.best) if estimate is not None]
    ends = [end for estimate in found for end in (estimate.iqm, *(estimate.interval or ()))]
    return svg.Scale(*svg.span(ends), 6, FOREST[0] - 6)


def _forest_head(results: Results) -> Markup:
    """The common axis of the drawings below it."""
    scale = _forest_scale(results)
    ticks = [tag("text", svg.short(t), class_="tick", x=scale(t), y=20, text_anchor="middle") for t in scale.ticks(4)]
    return svg.drawing(FOREST, *ticks, label="axis")


def _forest(results: Results, setting: Setting) -> Markup:
    """The last checkpoint's IQM and interval as a filled dot and bar, the best checkpoint's as a hollow dot."""
    scale, middle = _forest_scale(results), FOREST[1] / 2
    parts = []
    if results.dataset_mean is not None and scale.low <= results.dataset_mean <= scale.high:
        at = scale(results.dataset_mean)
        rule = tag("line", class_="level", x1=at, x2=at, y1=0, y2=FOREST[1])
        parts.append(tag("g", rule, tag("title", f"dataset mean {results.dataset_mean:.1f}")))
    if setting.last is not None:
        if setting.last.interval is not None:
            ends = {"x1": scale(setting.last.interval.low), "x2": scale(setting.last.interval.high)}
            parts.append(tag("line", class_="whisker", y1=middle, y2=middle, **ends))
        if setting.best is not None:
            words = f"best checkpoint {setting.best.iqm:.1f} (optimistic)"
            parts.append(svg.dot(scale(setting.best.iqm), middle, words, radius=4, class_="hollow"))
        parts.append(svg.dot(scale(setting.last.iqm), middle, f"last checkpoint {setting.last.iqm:.1f}", radius=4.5))
    return svg.drawing(FOREST, *parts, label=f"last checkpoint {between(setting.last)}")


def improvement(results: Results) -> Markup | None:
    """P(row > column) over pairs of seeds, with its interval; None with fewer than two settings to compare.

    An unfinished setting has had fewer updates, so it is left out as soon as two others are complete.
    """
    ranked = [(rank, s) for rank, s in enumerate(results.settings, 1) if s.last is not None]
    complete = [(rank, s) for rank, s in ranked if not s.provisional]
    ranked = (complete if len(complete) > 1 else ranked)[:MAX_MATRIX]
    if len(ranked) < 2:
        return None
    head = [tag("th", "P(row > column)", class_="label"), *(tag("th", f"#{rank}", title=s.label) for rank, s in ranked)]
    body = []
    for rank, row in ranked:
        cells = [tag("td", f"#{rank} {row.label}", class_="label")]
        cells += [tag("td", "–", class_="p") if column is row else _probability(row, column) for _, column in ranked]
        body.append(tag("tr", *cells))
    class_ = "matrix many" if is_large(results) else "matrix"
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_=class_)
    return scroll(table, "Probability of improvement")


def _probability(row: Setting, column: Setting) -> Markup:
    x = row.last.scores if row.last is not None else np.zeros(0)
    y = column.last.scores if column.last is not None else np.zeros(0)
    chance, interval = statistics.probability_of_improvement(x, y), statistics.improvement_interval(x, y)
    theme = "--up" if chance >= 0.5 else "--down"
    style = f"background: rgba(var({theme}), {abs(chance - 0.5):.2f})"  # half opaque at most: ink stays readable
    span = "one seed" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"
    words = f"{row.label} beats {column.label} in {chance:.0%} of pairs of seeds"
    return tag("td", f"{chance:.2f}", tag("br"), tag("small", span), class_="p", style=style, title=words)


def duration(seconds: float | None) -> str:
    """'42.0 s', '5 min 03 s', '2 h 07 min'; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plain(heads: Sequence[str], rows: Sequence[Sequence[Any]], name: str, numbers: set[int]) -> Markup:
    """A table of text; the columns in `numbers` are set to the right."""
    classes = ["n" if index in numbers else None for index in range(len(heads))]
    top = tag("tr", *(tag("th", head, class_=class_) for head, class_ in zip(heads, classes, strict=True)))
    body = [tag("tr", *(tag("td", cell, class_=c) for cell, c in zip(row, classes, strict=True))) for row in rows]
    return scroll(tag("table", tag("thead", top), tag("tbody", *body)), name)


def shortened(heads: Sequence[str], rows: Sequence[Sequence[Any]], name: str, numbers: set[int]) -> Markup:
    """A table of the first MAX_ROWS rows, the others folded away below it."""
    first = plain(heads, rows[:MAX_ROWS], name, numbers)
    if len(rows) <= MAX_ROWS:
        return first
    words = f"{name}: the other {len(rows) - MAX_ROWS} of {len(rows)}"
    return join([first, tag("details", tag("summary", words), plain(heads, rows[MAX_ROWS:], words, numbers))])


def scroll(table: Markup, name: str) -> Markup:
    """A box in which a wide table scrolls sideways, reachable by keyboard."""
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=name)
