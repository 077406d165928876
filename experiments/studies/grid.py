"""Runs of a config for every task and method, and the tables of those that are finished: shared by studies.

A run is `jaxdiff sweep --config=CONFIG:TASK:METHOD --sweep=seed --workdir=OUT/TASK/METHOD`, in a process of its own.
Finished runs are passed over and broken ones go on from their last checkpoint.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
import subprocess
import sys

from jaxdiff.io.folders import RunDir
from jaxdiff.io.report.results import Estimate, Results, collect
from jaxdiff.io.runs import load_run

COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
COLUMNS = "| policy | last checkpoint: IQM | 95 % interval | mean of the last ten | best (oracle) | seeds | minutes |"


def arguments(config: str, task: str, method: str, folder: Path, extra: Sequence[str] = ()) -> list[str]:
    """The command line of one run, after `jaxdiff`."""
    line = ["sweep", f"--config={config}:{task}:{method}", "--sweep=seed", "--lanes=shard", f"--workdir={folder}"]
    return [*line, *extra]


def make_missing(config: str, wanted: Iterable[tuple[str, str, Sequence[str]]], out: Path) -> list[str]:
    """Makes the runs (task, method, more flags) that are not finished, one after another.

    Returns:
      TASK:METHOD of those that failed.
    """
    failed = []
    for task, method, extra in wanted:
        folder = out / task / method
        if not RunDir(folder).is_done():
            line = arguments(config, task, method, folder, extra)
            print("jaxdiff", *line, file=sys.stderr, flush=True)
            command = [sys.executable, "-c", COMMAND, *line]
            if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
                failed.append(f"{task}:{method}")
    return failed


def row(method: str, folder: Path) -> tuple[float, str, str] | None:
    """(number to sort by, line of the table, what the numbers are) of a finished run; None otherwise."""
    results = _results(folder)
    if results is None:
        return None
    (setting,) = results.settings
    last, running, best = setting.last, setting.running, setting.best
    if last is None or running is None or best is None:
        return None
    seconds = sum(float(pack.done["wall_seconds"]) for pack in results.run.packs if pack.done)
    cells = [f"`{method}`", f"{last.iqm:.1f}", interval(last), f"{running.iqm:.1f}", f"{best.iqm:.1f}"]
    cells += [f"{len(setting.counted)}/{len(setting.members)}", f"{seconds / 60:.1f}"]
    return last.iqm, f"| {' | '.join(cells)} |", results.quantity_name


def overview(tasks: Sequence[str], methods: Sequence[str], out: Path) -> str:
    """A row per method and a column per task: the last checkpoint's IQM with its interval; empty cells are not made."""
    head = f"| last checkpoint: IQM, 95 % interval | {' | '.join(tasks)} |\n|:--|{'--:|' * len(tasks)}"
    lines = []
    for method in methods:
        cells = [_cell(out / task / method) for task in tasks]
        if any(cells):
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join([head, *lines]) if lines else ""


def _cell(folder: Path) -> str:
    results = _results(folder)
    last = None if results is None else results.settings[0].last
    return "" if last is None else f"{last.iqm:.1f}, {interval(last)}"


def _results(folder: Path) -> Results | None:
    return collect(load_run(folder)) if RunDir(folder).is_done() else None


def interval(estimate: Estimate) -> str:
    """Low and high end of an estimate's interval."""
    found = estimate.interval
    return "" if found is None else f"{found.low:.1f} to {found.high:.1f}"


def table(title: str, length: str, task: str, methods: Sequence[str], out: Path) -> str:
    """The task's runs that are finished, best first; empty where there are none."""
    rows = [found for method in methods if (found := row(method, out / task / method)) is not None]
    if not rows:
        return ""
    lines = [line for _, line, _ in sorted(rows, reverse=True)]
    return "\n".join([f"**{title}**, {rows[0][2]}; {length}\n", COLUMNS, "|:--|--:|--:|--:|--:|--:|--:|", *lines])
