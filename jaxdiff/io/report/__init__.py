"""The answer of a run folder: one offline HTML page, its numbers as JSON and CSV, and a table for the terminal."""

import os
from pathlib import Path

from jaxdiff.io import files
from jaxdiff.io.report import several, several_page
from jaxdiff.io.report.answer import as_csv, as_json, as_text
from jaxdiff.io.report.by_task import by_task
from jaxdiff.io.report.page import page
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import Run, load_run


def build_report(run_dir: str | os.PathLike[str], *, refresh_seconds: float | None = None) -> Path:
    """Writes report.html, report.json and report.csv into a run folder, finished or not.

    Args:
      run_dir: a folder with a run.json.
      refresh_seconds: a browser reads the page anew that often; None, the page of a study at rest: never.

    Returns:
      Path of report.html.

    Raises:
      ValueError: `run_dir` is not a run folder.
      OSError: the folder is not writable; earlier reports are still there.
    """
    run = load_run(run_dir)
    results, target, found = collect(run), run.dir.report_html, by_task(run)
    numbers = several.as_json(results, found) if found else as_json(results)
    table = several.as_csv(found) if found else as_csv(results)
    html = several_page.page(results, found, refresh_seconds) if found else page(results, refresh_seconds)
    files.write_json_atomic(target.with_suffix(".json"), numbers)
    files.write_text_atomic(target.with_suffix(".csv"), table)
    files.write_text_atomic(target, html)
    return target


def summary(run: Run) -> str:
    """The answer and the final table as text, with the numbers of the page.

    Args:
      run: what `jaxdiff.io.runs.load_run` gives.

    Returns:
      Lines for a terminal, ending in a newline.
    """
    found = by_task(run)
    return several.as_text(found) if found else as_text(collect(run))


__all__ = ["build_report", "summary"]
