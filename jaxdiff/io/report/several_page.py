"""The page of a study of several tasks: all tasks together first, then each as the page of a study of one shows it."""

from collections.abc import Mapping

import numpy as np

from jaxdiff.io import tasks as names_of_tasks
from jaxdiff.io.report import sections, svg, tables
from jaxdiff.io.report.aggregate import FEW, MAX_RIVALS, Aggregate, Row, aggregate, profiles
from jaxdiff.io.report.answer import answer
from jaxdiff.io.report.looks import Look, keys, looks_of
from jaxdiff.io.report.markup import Child, Markup, tag
from jaxdiff.io.report.page import document
from jaxdiff.io.report.results import Results
from jaxdiff.io.report.several import Found, sentences, thresholds_of

MAX_COLUMNS = 12  # tasks with a column of their own in the table over all
MAX_PROFILES = 6
FOREST = (150, 24)  # pixels of an interval's drawing
SIZE = (430, 300)
STYLE = (
    f".across {{ display: block; width: {FOREST[0]}px; height: {FOREST[1]}px; }}"
    " h2.task { font-size: 1.7rem; border-top-width: 4px; }"
)


def page(results: Results, found: Found, refresh_seconds: float | None = None) -> str:
    """One HTML document that refers to nothing outside itself.

    Args:
      results: of the whole folder.
      found: of `by_task`, not empty.
      refresh_seconds: see `report.page.page`.
    """
    over, stamp = aggregate(found), results.run.stamp
    looks = shared_looks(over, found)
    told, short = sentences(found, over), short_names(found).items()
    parts = [
        sections.header(results, told, _asked(results, found, over)),
        _table(over, found),
        _profiles(over, looks),
        _improvements(over),
        *(_task(number, name, found[task], results, looks) for number, (task, name) in enumerate(short, 1)),
        sections.trouble_and_cost(results),
        sections.repeat(results),
        tag("footer", "Written by jaxdiff. This page needs no network and no other file."),
    ]
    title = f"{stamp.get('study') or results.run.dir.path.name} · jaxdiff report"
    return document(title, parts, style=STYLE, refresh_seconds=refresh_seconds)


def shared_looks(over: Aggregate, found: Found) -> dict[str, Look]:
    """A setting's look is one on all tasks; the palette goes to the best over all."""
    everywhere = {s.label: s for results in reversed(list(found.values())) for s in results.settings}
    return looks_of([everywhere[row.label] for row in over.rows], None)


def _asked(results: Results, found: Found, over: Aggregate) -> list[tuple[str, Child]]:
    listed = tag("ul", *(tag("li", task) for task in found))
    counts = f"{len(found)} tasks, {len(over.rows)} settings, {len(results.members)} members"
    return [("Tasks", listed), ("Asked", counts)]


def _table(over: Aggregate, found: Found) -> Markup:
    """Settings over all tasks, and their IQM on each."""
    short = short_names(found)
    columns = short if len(found) <= MAX_COLUMNS else {}
    heads = ["#", "setting", "tasks", "runs", "mean", "IQM", "95 % interval", "", *columns.values()]
    scale = _scale(over)
    rows = [
        [*_cells(rank, row, over, scale, short), *(_own(found[task], row) for task in columns)]
        for rank, row in enumerate(over.rows, 1)
    ]
    note = (
        "Normalised scores of the last checkpoint. A run is a seed on a task; IQM is the mean of the middle half of "
        "all runs. Intervals are 95 % percentile bootstraps, seeds resampled inside each task. A setting without a "
        "score on some task has no number over all."
    )
    if over.left_out:
        note += f" Put together: {', '.join(short[task] for task in over.tasks) or 'no task'}."
    if columns:
        note += " The columns of tasks hold each one's own IQM, in the unit of its own table below."
    numbers = {0, 2, 3, 4, 5, *range(8, len(heads))}
    table = tables.shortened(heads, rows, "Settings over all tasks", numbers)
    return sections.section("across", "All tasks together", tag("p", note, class_="note"), table)


def short_names(found: Found) -> dict[str, str]:
    """Task -> its environment, where no other task has the same, else its whole name."""
    envs = [task.split(" ")[0] for task in found]
    return {task: env if envs.count(env) == 1 else task for task, env in zip(found, envs, strict=True)}


def _cells(rank: int, row: Row, over: Aggregate, scale: svg.Scale | None, short: Mapping[str, str]) -> list[Child]:
    last = row.last if scale is not None else None
    marks: list[Child] = [row.label]
    marks += [tag("span", f"missing on {short[task]}", class_="tag bad") for task in row.missing[:3]]
    marks += [tag("span", f"and {len(row.missing) - 3} more", class_="tag bad")] if len(row.missing) > 3 else []
    marks += [tag("span", f"unfinished on {len(row.provisional)}", class_="tag")] if row.provisional else []
    numbers = ["–", "–"] if last is None else [f"{last.mean:.1f}", f"{last.iqm:.1f}"]
    counts: list[Child] = [f"{len(row.settings)} of {len(over.tasks)}", sum(row.seeds)]
    return [rank, tag("span", *marks), *counts, *numbers, tables.between(last), _drawing(row, scale)]


def _own(results: Results, row: Row) -> str:
    """The IQM on one task."""
    here = next((setting.last for setting in results.settings if setting.label == row.label), None)
    return "–" if here is None else f"{here.iqm:.1f}"


def _scale(over: Aggregate) -> svg.Scale | None:
    """Of the drawings of intervals; None where nothing is put together."""
    found = [row.last for row in over.ranked if row.last is not None]
    if len(over.tasks) < 2 or not found:
        return None
    ends = [end for last in found for end in (last.iqm, *(last.interval or ()))]
    return svg.Scale(*svg.span(ends), 6, FOREST[0] - 6)


def _drawing(row: Row, scale: svg.Scale | None) -> Markup | None:
    if scale is None or row.last is None:
        return None
    middle, parts = FOREST[1] / 2, []
    if row.last.interval is not None:
        ends = {"x1": scale(row.last.interval.low), "x2": scale(row.last.interval.high)}
        parts.append(tag("line", class_="whisker", y1=middle, y2=middle, **ends))
    parts.append(svg.dot(scale(row.last.iqm), middle, f"{row.label}: IQM {row.last.iqm:.1f}", radius=4.5))
    return svg.drawing(FOREST, *parts, label=f"IQM {row.last.iqm:.1f}", class_="across")


def _profiles(over: Aggregate, looks: Mapping[str, Look]) -> Markup | None:
    """Fraction of runs above a score, of the best settings."""
    rows = [row for row in over.ranked if looks[row.label].main][:MAX_PROFILES]
    if len(over.tasks) < 2 or not rows:
        return None
    ends = thresholds_of(rows, 2)
    frame = svg.Frame.make(*SIZE, svg.span(ends), (-0.02, 1.04))
    taus = np.linspace(frame.x.low, frame.x.high, 160)
    drawn = [svg.axes(frame, "normalised score", "fraction of runs above")]
    for row in reversed(rows):  # the best is drawn last, on top
        look, (above, low, high) = looks[row.label], profiles(row.strata, taus)
        marks = [svg.band(frame, taus, low, high, class_="band"), tag("title", row.label)]
        marks.append(svg.line(frame, taus, above, class_="line thin", stroke_dasharray=look.dash))
        drawn.append(tag("g", *marks, class_=f"series {look.class_}", data_series=look.series))
    note = (
        "The fraction of a setting's runs that score above the number below, the mean over tasks; further right is "
        "better. Band: pointwise 95 % bootstrap, seeds resampled inside each task. "
        f"{len(rows)} of {len(over.ranked)} settings with a score on every task are drawn."
    )
    words = f"performance profiles of {len(rows)} settings over {len(over.tasks)} tasks"
    chart = svg.drawing(frame, *drawn, label=words)
    listed = keys((row.label, looks[row.label].class_, looks[row.label].dash) for row in rows)
    shown = tag("div", tag("figure", chart, listed), class_="pair")
    return sections.section("profiles", "Performance profiles", tag("p", note, class_="note"), shown)


def _improvements(over: Aggregate) -> Markup | None:
    """Who beats whom, over all tasks."""
    if len(over.tasks) < 2 or not over.improvements:
        return None
    rows: list[list[Child]] = []
    for (first, second), chance in over.improvements.items():
        span = "one seed" if chance.interval is None else f"{chance.interval.low:.2f} to {chance.interval.high:.2f}"
        rows.append([first, second, f"{chance.value:.2f}", span])
    which = (
        "Every pair of settings"
        if len(over.ranked) <= FEW
        else f"The best setting against each of the next {MAX_RIVALS} at most"
    )
    note = (
        f"{which}: how often a run of the first scores above a run of the second on the same task, ties counted half, "
        "the mean over tasks, with its 95 % bootstrap interval. An interval that holds 0.50 settles nothing."
    )
    heads = ["first", "second", "P(first > second)", "95 % interval"]
    table = tables.shortened(heads, rows, "Probability of improvement over all tasks", {2})
    return sections.section("better", "Probability of improvement", tag("p", note, class_="note"), table)


def _task(number: int, name: str, own: Results, results: Results, looks: Mapping[str, Look]) -> Markup:
    """One task: the tables and curves of a study of its own, the rest folded away."""
    naming = names_of_tasks.of_stamp(results.run.stamp)
    told = {" ".join([s.algorithm, *naming.following(s.algorithm, s.overrides)]): s for s in own.settings}
    follows = [words for words, setting in told.items() if words != setting.algorithm]
    first = [sections.final(own), sections.learning(own, looks)]
    more = [
        sections.which(own, looks),
        sections.sensitivities(own, looks),
        sections.improvement(own),
        sections.rollouts(own, looks),
        sections.offloaded(own),
        sections.planned(own),
        sections.training(own, looks),
    ]
    facts = [
        tag("h2", name, class_="task", id=f"task-{number}"),
        tag("p", *(tag("span", sentence, " ") for sentence in answer(own))),
        *([tag("p", "Data: ", data)] if (data := sections.described(own.run.stamp.get("dataset") or {})) else []),
        *([tag("p", f"Set for this task: {'; '.join(follows)}.", class_="note")] if follows else []),
    ]
    shown = [part for part in more if part is not None]
    folded = tag("details", tag("summary", f"More of {name}"), *shown) if shown else None
    return _renamed(tag("div", *facts, *first, folded), number)


def _renamed(part: Markup, number: int) -> Markup:
    """Anchors are unique on a page; a user's own text cannot hold this, since it is escaped."""
    return Markup(str(part).replace('<section id="', f'<section id="task-{number}-'))
