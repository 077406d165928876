"""The answer of a study of several tasks, in words and numbers: each task's own, and what they say together."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
from typing import Any

import numpy as np

from jaxdiff.io.report import answer as of_one
from jaxdiff.io.report.aggregate import Aggregate, Row, aggregate, profiles
from jaxdiff.io.report.answer import aligned, seeds, spoken
from jaxdiff.io.report.by_task import data_of
from jaxdiff.io.report.compare import ACROSS, Value
from jaxdiff.io.report.results import Results
from jaxdiff.io.report.statistics import Floats

THRESHOLDS = 101  # of a profile in report.json
MAX_ROWS = 20  # of the terminal's table

Found = Mapping[str, Results]  # task -> its results


def sentences(found: Found, over: Aggregate) -> list[str]:
    """Sentences about all tasks, the most important first."""
    told = [_lead(over), *_left_out(over), *_missing(over), *_doubts(over)]
    for task, results in found.items():
        kinds = data_of(results)
        if len(kinds) > 1:
            names = ", ".join(f"{data.get('name')} ({str(data.get('sha256'))[:10]})" for data in kinds)
            told.append(f"On {task} packs learned from different data: {names}.")
    return told


def _lead(found: Aggregate) -> str:
    if len(found.tasks) < 2:
        few = f"only {found.tasks[0]} has" if found.tasks else "no task has"
        return f"Nothing is put together: {few} normalised scores; the tasks are told one by one."
    if not found.ranked:
        return f"Nothing is put together: no setting has a score on all of {len(found.tasks)} tasks."
    best = found.ranked[0]
    assert best.last is not None
    runs = f"{len(found.tasks)} tasks, {seeds(best.last).replace('seed', 'run')}"
    lead = f"Best of {len(found.ranked)} settings over all tasks: " if len(found.ranked) > 1 else "The one setting: "
    lead += f"{best.label}, last-checkpoint IQM {spoken(best.last)} ({runs}), normalised score."
    rival = next(iter(found.improvements.items()), None)
    return lead if rival is None else f"{lead} {_against(*rival)}"


def _against(pair: tuple[str, str], chance: Value) -> str:
    words = f"A run of {pair[0]} beats one of {pair[1]} on the same task with probability {chance.value:.2f}"
    if chance.interval is None:
        return f"{words}; one seed gives no interval."
    low, high = chance.interval
    open_ = ": these runs do not separate the two" if low <= 0.5 <= high else ""
    return f"{words}, 95 % interval {low:.2f} to {high:.2f}{open_}."


def _left_out(found: Aggregate) -> list[str]:
    return [f"Not put together with others: {task}, {why}." for task, why in found.left_out.items()]


def _missing(found: Aggregate) -> list[str]:
    """Settings without a number over tasks, since they have none on some task."""
    rows = [row for row in found.rows if row.missing and row.settings]
    if not rows or len(found.tasks) < 2:
        return []
    told = "; ".join(f"{row.label} (missing on {', '.join(row.missing)})" for row in rows[:3])
    more = f"; and {len(rows) - 3} more" if len(rows) > 3 else ""
    return [f"{len(rows)} of {len(found.rows)} settings have no score on every task and no number here: {told}{more}."]


def _doubts(found: Aggregate) -> list[str]:
    told: list[str] = []
    best = found.ranked[:1]
    if not best or len(found.tasks) < 2:
        return []
    if any(len(set(row.seeds)) > 1 for row in found.ranked):
        told.append("Tasks have different numbers of seeds, and weigh in an IQM by them.")
    waiting = sum(bool(row.provisional) for row in found.ranked)
    if waiting:
        told.append(f"{waiting} of {len(found.ranked)} settings are unfinished on some task: provisional.")
    lost = sum(row.num_nonfinite for row in found.ranked)
    if lost:
        told.append(f"{lost} runs became non-finite and are left out of every score.")
    if min(len(scores) for scores in best[0].strata) < 3:
        told.append("With one or two seeds on a task an interval says little.")
    return told


def row_of(rank: int, row: Row, found: Aggregate) -> dict[str, Any]:
    """A setting over all tasks as plain numbers, None where a task is missing."""
    last = row.last if len(found.tasks) > 1 else None
    interval = last.interval if last else None
    return {
        "rank": rank,
        "label": row.label,
        "algorithm": row.algorithm,
        "tasks": len(row.settings),
        "missing": list(row.missing),
        "unfinished": list(row.provisional),
        "runs": sum(row.seeds),
        "nonfinite": row.num_nonfinite,
        "last_mean": last.mean if last else None,
        "last_iqm": last.iqm if last else None,
        "last_iqm_low": interval.low if interval else None,
        "last_iqm_high": interval.high if interval else None,
        "task_iqms": {task: s.last.iqm for task, s in row.settings.items() if s.last is not None},
    }


def thresholds_of(rows: Sequence[Row], count: int = THRESHOLDS) -> Floats:
    """Evenly spaced from the lowest to the highest score of the settings."""
    scores = np.concatenate([scores for row in rows for scores in row.strata])
    return np.linspace(float(scores.min()), float(scores.max()), count)


def as_json(run: Results, found: Found) -> dict[str, Any]:
    """The report's numbers for a program; `tasks` has for each what a study of one task has."""
    over = aggregate(found)
    rows = over.ranked if len(over.tasks) > 1 else ()
    taus = thresholds_of(rows) if rows else np.zeros(0)
    names = ("fraction", "low", "high")
    return {
        "study": run.run.stamp.get("study"),
        "answer": sentences(found, over),
        "aggregate": {
            "quantity": "normalised score",
            "tasks": list(over.tasks),
            "left_out": dict(over.left_out),
            "settings": [row_of(rank, row, over) for rank, row in enumerate(over.rows, 1)],
            "profile_thresholds": taus.tolist(),
            "profiles": {
                row.label: {
                    name: [float(x) if np.isfinite(x) else None for x in line]
                    for name, line in zip(names, profiles(row.strata, taus), strict=True)
                }
                for row in rows
            },
            "improvement": [
                {
                    "first": pair[0],
                    "second": pair[1],
                    "probability": chance.value,
                    "low": chance.interval.low if chance.interval else None,
                    "high": chance.interval.high if chance.interval else None,
                }
                for pair, chance in (over.improvements.items() if rows else ())
            ],
        },
        "tasks": [{"task": task, **of_one.as_json(results)} for task, results in found.items()],
        "nonfinite": of_one.as_json(run)["nonfinite"],
        "unfinished_packs": [pack.id for pack in run.run.packs if pack.status != "finished"],
    }


def as_csv(found: Found) -> str:
    """The final tables as one, with the task in front; last the settings over all tasks, with what they miss."""
    over = aggregate(found)
    table = [{"task": task, **row, "missing": ""} for task, results in found.items() for row in of_one.rows(results)]
    heads = list(table[0]) if table else ["task"]
    lines = [{**row, "overrides": json.dumps(row["overrides"], sort_keys=True)} for row in table]
    if len(over.tasks) > 1:
        name = f"{ACROSS} ({len(over.tasks)})"
        for rank, row in enumerate(over.rows, 1):
            numbers = row_of(rank, row, over)
            kept = {key: value for key, value in numbers.items() if key in heads}
            lines.append({**kept, "task": name, "seeds": numbers["runs"], "missing": "; ".join(row.missing),
                          "provisional": bool(row.provisional), "quantity": "normalised score"})  # fmt: skip
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, heads, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def as_text(found: Found) -> str:
    """Every task's table, then the one over all tasks and the answer, for a terminal."""
    over = aggregate(found)
    parts = [f"{task}\n{of_one.as_text(results)}" for task, results in found.items()]
    if len(over.tasks) > 1 and over.rows:
        lines = [["#", "setting", "tasks", "runs", "last: mean", "IQM", "95 % interval"]]
        for rank, row in enumerate(over.rows[:MAX_ROWS], 1):
            last = row.last
            numbers = [f"{last.mean:.1f}", f"{last.iqm:.1f}"] if last else ["-", "-"]
            span = f"{last.interval.low:.1f} to {last.interval.high:.1f}" if last and last.interval else "-"
            counts = [f"{len(row.settings)}/{len(over.tasks)}", str(sum(row.seeds))]
            lines.append([str(rank), row.label + (" (unfinished)" if row.provisional else ""), *counts, *numbers, span])
        left = len(over.rows) - MAX_ROWS
        more = [f"the other {left} settings are in report.csv"] if left > 0 else []
        parts.append("\n".join([f"{ACROSS} ({len(over.tasks)})", *aligned(lines, left={1}), *more, ""]))
    return "\n".join([*parts, *sentences(found, over)]) + "\n"
