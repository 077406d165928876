"""Scores of trained runs under a shifted task, in one figure: DOM2's claim, that diffusion policies bear it better.

  python -m experiments.studies.shifts RUN [RUN ..] --out=shifts.png [--key=mpe.speed_scale] [--values=0.5,0.75,1,1.25]

Nothing is trained: every run is `jaxdiff eval RUN --sweep=KEY=VALUES`, whose records the figure reads, and one that
exists already is not made again. A line is a setting of a run: the IQM over its seeds with a 95 % interval. Prints the
same as a Markdown table.

Reference: Li et al. 2023, DOM2, arXiv:2307.01472, whose shifted particle tasks these are.
"""

import argparse
from collections.abc import Iterator, Sequence
import json
from pathlib import Path
import subprocess
import sys
from typing import Any, NamedTuple

from experiments.studies.grid import COMMAND


class Point(NamedTuple):
    """A setting's score under one value."""

    value: float
    score: float
    interval: tuple[float, float] | None


def records(run: Path, key: str, episodes: int) -> Iterator[dict[str, Any]]:
    """Evaluations of the run's last checkpoint in which `key` alone was changed."""
    for path in sorted((run / "evals").glob("*.json")):
        record = json.loads(path.read_text())
        request = record["request"]
        fits = request["episodes"] == episodes and request["env"] is None and request["checkpoint"] == "last"
        if fits and list(request["overrides"]) == [key]:
            yield record


def lines(run: Path, key: str, values: Sequence[float], episodes: int) -> dict[str, list[Point]]:
    """Setting -> its points in the order of values; those that were not made are left out."""
    found: dict[str, dict[float, Point]] = {}
    for record in records(run, key, episodes):
        value = float(record["request"]["overrides"][key])
        for setting in record["settings"]:
            result = setting["score"] or setting["return"]
            interval = result["interval"]
            ends = None if interval is None else (float(interval[0]), float(interval[1]))
            found.setdefault(setting["label"], {})[value] = Point(value, float(result["iqm"]), ends)
    return {label: [points[v] for v in values if v in points] for label, points in found.items()}


def evaluate(run: Path, key: str, values: Sequence[float], episodes: int) -> None:
    """Makes what is missing of a run's evaluations.

    Raises:
      RuntimeError: `jaxdiff eval` failed; its own message stands before this one.
    """
    known = {float(record["request"]["overrides"][key]) for record in records(run, key, episodes)}
    missing = [f"{value:g}" for value in values if value not in known]
    if not missing:
        return
    line = ["eval", str(run), f"--episodes={episodes}", f"--sweep={key}={','.join(missing)}"]
    print("jaxdiff", *line, file=sys.stderr, flush=True)
    if subprocess.run([sys.executable, "-c", COMMAND, *line], stdout=subprocess.DEVNULL, check=False).returncode:
        raise RuntimeError(f"jaxdiff {' '.join(line)} failed.")


def table(found: dict[str, list[Point]], values: Sequence[float], key: str) -> str:
    """A row per setting, a column per value."""
    head = [f"| `{key}` | {' | '.join(f'{value:g}' for value in values)} |", "|:--|" + "--:|" * len(values)]
    rows = []
    for label, points in found.items():
        by_value = {point.value: f"{point.score:.1f}" for point in points}
        rows.append(f"| `{label}` | {' | '.join(by_value.get(value, '') for value in values)} |")
    return "\n".join(head + rows)


def draw(found: dict[str, list[Point]], key: str, out: Path) -> None:
    """The figure; the format is the file's ending."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot(xlabel=key, ylabel="score, IQM over seeds, 95 % interval")
    for label, points in found.items():
        x = [point.value for point in points]
        (line,) = axes.plot(x, [point.score for point in points], marker="o", label=label)
        ends = [(p.value, *p.interval) for p in points if p.interval is not None]
        if ends:
            axes.fill_between(*zip(*ends, strict=True), alpha=0.15, color=line.get_color())
    axes.axvline(1.0, color="0.6", linewidth=0.8, linestyle=":")
    figure.legend(loc="outside right center")
    figure.savefig(out, dpi=150)


def main() -> int:
    """Evaluates, prints the table and draws the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of one task")
    parser.add_argument("--out", type=Path, required=True, help="the figure")
    parser.add_argument("--key", default="mpe.speed_scale", help="what is shifted, as `jaxdiff eval --sweep` takes it")
    parser.add_argument("--values", default="0.5,0.75,1,1.25,1.5", help="separated by commas")
    parser.add_argument("--episodes", type=int, default=1000)
    flags = parser.parse_args()
    values = [float(value) for value in flags.values.split(",")]
    found: dict[str, list[Point]] = {}
    for run in flags.runs:
        evaluate(run, flags.key, values, flags.episodes)
        for label, points in lines(run, flags.key, values, flags.episodes).items():
            found[label if label not in found else f"{label} ({run.name})"] = points
    print(table(found, values, flags.key))
    draw(found, flags.key, flags.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
