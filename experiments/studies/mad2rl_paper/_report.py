"""Tables and figures out of what is finished."""

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxdiff.io.report.statistics import mean, mean_band, stratified_bootstrap

from ._claims import verdicts
from ._methods import METHODS, METRICS, Point
from ._runs import Record, final, load

Axis = Any  # matplotlib's
PANELS = {"delay": "task completion time [s]", "backlog": "queues [GFLOP]"}


def read(path: Path) -> dict[str, Any]:
    """A JSON file, {} where there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def estimate(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % bootstrap interval over seeds or episodes, NaN where there are none or one."""
    if not values.size:
        return np.nan, np.nan, np.nan
    found = stratified_bootstrap([values], mean)
    return (float(values.mean()), *((np.nan, np.nan) if found is None else found))


def tables(out: Path, parts: Mapping[str, Sequence[Point]]) -> str:
    """All Markdown tables."""
    decisions = read(out / "decisions.json").get("seconds", {})
    found = [points_table(part, points, out) for part, points in parts.items()]
    found += [claims_table(out, decisions), decisions_table(decisions), throughput_table(read(out / "throughput.json"))]
    return "\n\n".join(text for text in found if text)


def points_table(part: str, points: Sequence[Point], out: Path) -> str:
    """Methods at the points of a part: time with its interval, queues, return."""
    columns = ["clients", "vehicles", "V", "method", "time [s]", "95 % interval", *list(METRICS)[1:], "numbers"]
    lines = [f"**{part}**: queues in GFLOP\n", _row(columns), "|--:|--:|--:|:--|" + "--:|" * (len(columns) - 4)]
    for point in points:
        for method in METHODS:
            if (record := load(out, method, point)) is None:
                continue
            time, low, high = estimate(final(record, "delay"))
            rest = [f"{_mean(final(record, name)):.4g}" for name in list(METRICS)[1:]]
            cells = [point.clients, point.servers, f"{point.v:g}", f"`{method}`", f"{time:.2f}"]
            lines.append(_row([*cells, f"{low:.2f} to {high:.2f}", *rest, _numbers(record)]))
    return "\n".join(lines) if len(lines) > 3 else ""


def claims_table(out: Path, decisions: Mapping[str, Any]) -> str:
    """The paper's claims."""
    found = verdicts(out, decisions)
    lines = [_row(["claim", "paper", "here", ""]), "|:--|--:|--:|:--|"]
    lines += [_row([v.claim, v.paper, v.ours, "reproduced" if v.reproduced else "not"]) for v in found]
    return "\n".join(["**claims**: change of the mean, 95 % interval\n", *lines]) if found else ""


def decisions_table(decisions: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Median milliseconds per decision, quartiles, and the ratio to the genetic search."""
    lines = [_row(["task", "method", "ms", "quartiles", "ratio to genetic"]), "|:--|:--|--:|--:|--:|"]
    for where, seconds in decisions.items():
        base = np.median(seconds["genetic"]) if "genetic" in seconds else np.nan
        for method, values in seconds.items():
            low, middle, high = 1e3 * np.percentile(values, [25, 50, 75])
            cells = [where, f"`{method}`", f"{middle:.3g}", f"{low:.3g} to {high:.3g}", f"{middle / 1e3 / base:.3g}"]
            lines.append(_row(cells))
    return "\n".join(["**decisions**, one environment\n", *lines]) if decisions else ""


def throughput_table(found: Mapping[str, Any]) -> str:
    """Steps and updates of all lanes per second."""
    lines = [_row(["loop", "lanes", "environment steps/s", "updates/s"]), "|:--|--:|--:|--:|"]
    for method, by_lanes in found.get("rates", {}).items():
        for lanes, rates in by_lanes.items():
            updates = f"{rates['updates']:,.0f}" if "updates" in rates else ""
            lines.append(_row([f"`{method}`", lanes, f"{rates['env_steps']:,.0f}", updates]))
    return "\n".join(["**throughput**\n", *lines]) if found else ""


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan


def _numbers(record: Record) -> str:
    if "values" in record:
        return f"{len(record['values']['delay'])} episodes"
    return f"{sum(record['alive'])}/{len(record['alive'])} seeds"


def learning_figure(point: Point, out: Path) -> Any:
    """Time and queues while learning, bands over seeds; heuristics as lines. Logarithmic, since they lie far apart."""
    records = {method: record for method in METHODS if (record := load(out, method, point)) is not None}
    figure, axes = _figure(2)
    for axis, (metric, label) in zip(axes, PANELS.items(), strict=True):
        for colour, (method, record) in enumerate(records.items()):
            style = {"color": f"C{colour}", "lw": 1.2}
            if "values" in record:
                axis.axhline(_mean(final(record, metric)), label=method, ls="--", **style)
                continue
            curves = np.asarray(record["curves"][metric])[np.asarray(record["alive"])]
            centre, low, high = mean_band(curves)
            axis.plot(record["trained"], centre, label=method, **style)
            axis.fill_between(record["trained"], low, high, color=style["color"], alpha=0.2, lw=0)
        axis.set(xlabel="episodes of training", ylabel=label, yscale="log", title=str(point))
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def points_figure(points: Sequence[Point], axis_name: str, out: Path) -> Any:
    """Time and queues against one field of the points, with 95 % intervals."""
    figure, axes = _figure(2)
    for axis, (metric, label) in zip(axes, PANELS.items(), strict=True):
        for method in METHODS:
            found = [(p, record) for p in points if (record := load(out, method, p)) is not None]
            if not found:
                continue
            where = [getattr(point, axis_name) for point, _ in found]
            centre, low, high = np.array([estimate(final(record, metric)) for _, record in found]).T
            error = np.nan_to_num([centre - low, high - centre])
            axis.errorbar(where, centre, yerr=np.maximum(error, 0), label=method, marker="o", ms=3, lw=1, capsize=2)
        axis.set(xlabel=axis_name, ylabel=label, yscale="log", xticks=[getattr(point, axis_name) for point in points])
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def _figure(columns: int) -> tuple[Any, Sequence[Axis]]:
    # Not pyplot: that would choose a backend and keep every figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * columns, 3.4), layout="constrained")
    return figure, figure.subplots(1, columns)
