"""A comparison of studies, as lines for the terminal and as an offline page."""

from collections.abc import Sequence

from jaxdiff.io.report import svg, tables
from jaxdiff.io.report.answer import aligned
from jaxdiff.io.report.compare import Comparison, Row, Value
from jaxdiff.io.report.looks import MAX_ROWS
from jaxdiff.io.report.markup import Child, Markup, tag
from jaxdiff.io.report.page import document

FOREST = (160, 24)  # pixels of an interval's drawing
STYLE = f".difference {{ display: block; width: {FOREST[0]}px; height: {FOREST[1]}px; }}"


def as_text(comparison: Comparison) -> str:
    """The sentence, the table and the notes. Of many rows the first, the others being on the page."""
    header = ["task", "setting", "seeds", "first", "second", "difference", "95 % interval", "P(second > first)", ""]
    rows = comparison.rows[:MAX_ROWS]
    cells = [header, *(_cells(row, comparison) for row in rows)]
    lines = aligned(cells, {0, 1, 8}) if _tasks(comparison) > 1 else aligned([line[1:] for line in cells], {0, 7})
    left = len(comparison.rows) - len(rows)
    more = [f"and {left} more rows on the page"] if left else []
    return "\n".join([*_heading(comparison), "", *lines, *more, "", *sentences(comparison)]) + "\n"


def sentences(comparison: Comparison) -> list[str]:
    """What came out, then what to beware of."""
    single = [row for row in comparison.rows if row.iqms is not None]
    counts = {word: sum(row.verdict == word for row in single) for word in ("better", "worse", "open")}
    what = "comparison" if len(single) == 1 else "comparisons"
    lead = (
        f"Of {len(single)} {what} the second is better in {counts['better']}, worse in {counts['worse']}, and in "
        f"{counts['open']} these seeds do not tell."
    )
    found = [lead]
    if len(single) >= 20:
        found.append(f"About one in twenty of {len(single)} intervals misses by chance alone.")
    return [*found, *comparison.notes]


def as_page(comparisons: Sequence[Comparison]) -> str:
    """All comparisons with one folder as one HTML document that refers to nothing outside itself."""
    first = comparisons[0].first
    parts = [
        tag(
            "header",
            tag("p", "Comparison · jaxdiff", class_="eyebrow"),
            tag("h1", f"{first.name} against {', '.join(found.second.name for found in comparisons)}"),
        ),
        *(_section(found) for found in comparisons),
        tag("footer", "Written by jaxdiff. This page needs no network and no other file."),
    ]
    return document(f"{first.name} · jaxdiff compare", parts, style=STYLE)


def _section(comparison: Comparison) -> Markup:
    heads = ["task", "setting", "seeds", "first", "second", "difference", "95 % interval", "", "P(second > first)", ""]
    scale = _scale(comparison)
    rows: list[list[Child]] = []
    for row in comparison.rows:
        cells: list[Child] = list(_cells(row, comparison))
        rows.append([*cells[:7], _drawing(row, scale), *cells[7:]])
    numbers = {2, 3, 4, 5, 6, 8}
    if _tasks(comparison) == 1:
        heads, rows, numbers = heads[1:], [row[1:] for row in rows], {column - 1 for column in numbers}
    note = (
        f"{comparison.quantity_name} at the last checkpoint, interquartile means over seeds. Differences are second "
        "minus first. Intervals are 95 % percentile bootstraps, seeds resampled inside each task and folder. Dashed: "
        "no difference."
    )
    return tag(
        "section",
        tag("h2", comparison.second.name),
        *(tag("p", line) for line in _heading(comparison)),
        *(tag("p", sentence) for sentence in sentences(comparison)),
        tag("p", note, class_="note"),
        tables.shortened(heads, rows, f"Against {comparison.second.name}", numbers),
    )


def _heading(comparison: Comparison) -> list[str]:
    task = [f"task:   {comparison.rows[0].task}"] if _tasks(comparison) == 1 else []
    return [f"first:  {comparison.first}", f"second: {comparison.second}", *task]


def _tasks(comparison: Comparison) -> int:
    return len({row.task for row in comparison.rows})


def _cells(row: Row, comparison: Comparison) -> list[str]:
    setting = row.first if row.first == row.second else f"{row.first} -> {row.second}"
    largest = max((abs(iqm) for r in comparison.rows for iqm in r.iqms or ()), default=0.0)
    digits = 1 if largest >= 10 else 3
    iqms = [f"{iqm:.{digits}f}" for iqm in row.iqms] if row.iqms is not None else ["-", "-"]
    difference = (
        [f"{row.difference.value:+.{digits}f}", _between(row.difference, digits)] if row.difference else ["-", "-"]
    )
    chance = f"{row.improvement.value:.2f} ({_between(row.improvement, 2)})"
    verdict = "; ".join([*([row.verdict] if row.verdict != "open" else []), *row.notes])
    return [row.task, setting, f"{row.seeds[0]}, {row.seeds[1]}", *iqms, *difference, chance, verdict]


def _between(value: Value, digits: int) -> str:
    if value.interval is None:
        return "one seed"
    return f"{value.interval.low:.{digits}f} to {value.interval.high:.{digits}f}"


def _scale(comparison: Comparison) -> svg.Scale:
    found = [row.difference for row in comparison.rows if row.difference is not None]
    ends = [end for value in found for end in (value.value, *(value.interval or ()))]
    return svg.Scale(*svg.span([0.0, *ends]), 6, FOREST[0] - 6)


def _drawing(row: Row, scale: svg.Scale) -> Markup | None:
    """The difference as a dot, its interval as a bar, no difference as a dashed line."""
    if row.difference is None:
        return None
    middle, value = FOREST[1] / 2, row.difference
    parts = [tag("line", class_="level", x1=scale(0.0), x2=scale(0.0), y1=0, y2=FOREST[1])]
    if value.interval is not None:
        ends = {"x1": scale(value.interval.low), "x2": scale(value.interval.high)}
        parts.append(tag("line", class_="whisker", y1=middle, y2=middle, **ends))
    parts.append(svg.dot(scale(value.value), middle, f"{value.value:+.4g}", radius=4.5))
    return svg.drawing(FOREST, *parts, label=f"difference {value.value:+.4g}", class_="difference")
