"""A study's numbers as long tables for other programs (CSV, Parquet) and as a table for a paper (LaTeX).

members     one row per member: what it is, how it ended, and the report's numbers of it
curves      one row per member and evaluation, as measured: also after a failure, and where a number is not finite
settings    one row per setting, best first

A number that is not there is an empty cell (CSV) or null (Parquet); NaN and infinities stay what they are.
"""

from collections.abc import Callable, Mapping, Sequence
import csv
import io
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxdiff.io import files
from jaxdiff.io.report.aggregate import aggregate
from jaxdiff.io.report.by_task import by_task, naming_of
from jaxdiff.io.report.compare import ACROSS
from jaxdiff.io.report.results import RUNNING, Estimate, MemberResult, Quantity, Results, collect, member_results
from jaxdiff.io.runs import Pack, Run, load_run
from jaxdiff.suggest import unknown_name

FORMATS = ("csv", "parquet", "latex")
Table = dict[str, list[Any]]  # column -> one value per row, None where there is none
KINDS = {  # Arrow types of the columns that every study has
    **dict.fromkeys(("id", "pack", "label", "task", "algorithm", "status"), "string"),
    **dict.fromkeys(("seed", "step", "num_updates", "failed_at"), "int64"),
    **dict.fromkeys(("wall_seconds", "score", "return"), "float64"),
    **dict.fromkeys((f"{what}_{of}" for what in ("last", "best", "running") for of in ("score", "return")), "float64"),
}
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "{}$&#_%"},
        **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", '"': "''"},
        **{sign: f"{{{sign}}}" for sign in "[]*"},  # after the end of a row they would be an argument of it
    }
)


def export(run_dir: str | os.PathLike[str], formats: Sequence[str]) -> list[Path]:
    """Writes the tables next to the report.

    Args:
      run_dir: a run folder, finished or not.
      formats: of FORMATS. `csv` and `parquet` give members and curves, `latex` gives settings.tex.

    Returns:
      The files written.

    Raises:
      KeyError: an unknown format.
      ImportError: parquet is asked for and pyarrow is not installed. Nothing was written.
      ValueError: not a run folder.
      OSError: the folder is not writable.
    """
    check_formats(formats)
    run = load_run(run_dir)
    written = []
    tables = {"members": members(run), "curves": curves(run)} if {"csv", "parquet"} & set(formats) else {}
    for name, table in tables.items():
        if "csv" in formats:
            written.append(run.dir.path / f"{name}.csv")
            files.write_text_atomic(written[-1], as_csv(table))
        if "parquet" in formats:
            written.append(run.dir.path / f"{name}.parquet")
            files.write_atomic(written[-1], _parquet_writer(table))
    if "latex" in formats:
        written.append(run.dir.path / "settings.tex")
        found = by_task(run)
        files.write_text_atomic(written[-1], latex_of_tasks(found) if found else as_latex(collect(run)))
    return written


def check_formats(formats: Sequence[str]) -> None:
    """Tells before any work whether these formats can be written.

    Raises:
      KeyError, ImportError: see `export`.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("export format", name, FORMATS)
    if "parquet" in formats:
        _pyarrow()


def members(run: Run) -> Table:
    """One row per member, in the order of packs and lanes, a column for every key that the study sets.

    `last`, `best` and `running` (the mean of the last ten evaluations) are the report's: of the evaluations that are
    finite and before the member failed, and `step` is that of the last one. A key that is called like another column
    is prefixed with "config.".
    """
    measured = _quantities(run)
    by_quantity = {quantity: member_results(run, quantity) for quantity in measured}
    results = by_quantity["returns"]
    table: Table = {
        "id": [result.member.id for result in results],
        "pack": [result.pack for result in results],
        "label": [result.member.label for result in results],
        "algorithm": [result.member.algorithm for result in results],
        "seed": [result.member.seed for result in results],
    }
    configs, naming = {pack.id: pack.config for pack in run.packs}, naming_of(run)
    if naming.is_several:
        table["task"] = [naming.task(configs[result.pack], result.member.overrides) for result in results]
    keys = dict.fromkeys(key for result in results for key in result.member.overrides)
    for key in [key for key in keys if key not in ("algorithm", "seed")]:
        name = f"config.{key}" if key in KINDS else key
        table[name] = [result.member.overrides.get(key) for result in results]
    table["status"] = [result.status for result in results]
    table["step"] = [int(result.steps[-1]) if len(result.steps) else None for result in results]
    table["num_updates"] = [result.num_updates for result in results]
    table["failed_at"] = [result.failed_at for result in results]
    for quantity, found in by_quantity.items():
        for what, of in (("last", _last), ("best", _best), ("running", _running)):
            table[f"{what}_{quantity[:-1]}"] = [of(result) if len(result.values) else None for result in found]
    return table


def curves(run: Run) -> Table:
    """One row per member and evaluation: id, step, wall_seconds, and means over the episodes as they were measured."""
    measured = _quantities(run)
    names = ["id", "step", "wall_seconds", *(quantity[:-1] for quantity in measured)]
    table: Table = {name: [] for name in names}
    for pack in run.packs:
        if pack.eval is not None:
            _append_curves(table, pack, measured)
    return table


def _append_curves(table: Table, pack: Pack, measured: Sequence[Quantity]) -> None:
    assert pack.eval is not None
    rows = len(pack.eval["step"])
    means = {name: pack.eval[name].astype(np.float64).mean(axis=-1) for name in measured if name in pack.eval}
    lanes = min([len(pack.members), *(mean.shape[1] for mean in means.values())])
    seconds = pack.eval["wall_seconds"].tolist() if "wall_seconds" in pack.eval else [None] * rows
    for lane, member in enumerate(pack.members[:lanes]):
        table["id"] += [member.id] * rows
        table["step"] += pack.eval["step"].tolist()
        table["wall_seconds"] += seconds
        for name in measured:
            table[name[:-1]] += means[name][:, lane].tolist() if name in means else [None] * rows


def as_csv(table: Table) -> str:
    """A table as CSV text; lists and the like as JSON."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(table)
    writer.writerows([_cell(value) for value in row] for row in zip(*table.values(), strict=True))
    return buffer.getvalue()


def as_latex(results: Results) -> str:
    """The settings, best first, as a booktabs table: seeds, IQM of the last checkpoint, its 95 % interval."""
    unit = f"% {results.quantity_name} at the last checkpoint: interquartile mean over seeds, 95 % bootstrap interval"
    return _booktabs(unit, _latex_rows(results))


def latex_of_tasks(found: Mapping[str, Results]) -> str:
    """The tables of all tasks below one another, and last the settings over tasks and seeds."""
    over = aggregate(found)
    rows = []
    for task, results in found.items():
        rows += [_latex_head(f"{task} ({results.quantity_name})"), *_latex_rows(results), r"  \midrule"]
    if len(over.tasks) > 1:
        rows.append(_latex_head(f"{ACROSS} ({len(over.tasks)}, normalised score)"))
        rows += [
            _latex_row(row.label + (f" (missing on {', '.join(row.missing)})" if row.missing else ""),
                       sum(row.seeds), row.last, 1) for row in over.rows
        ]  # fmt: skip
    else:
        rows = rows[:-1]
    unit = "% last checkpoint: interquartile mean over seeds, over all tasks that of tasks and seeds, 95 % interval"
    return _booktabs(unit, rows)


def _latex_head(text: str) -> str:
    return rf"  \multicolumn{{4}}{{l}}{{\emph{{{escape(text)}}}}} \\"


def _latex_rows(results: Results) -> list[str]:
    found = [setting.last for setting in results.settings if setting.last is not None]
    digits = 1 if max((abs(last.iqm) for last in found), default=10.0) >= 10 else 3
    rows = []
    for setting in results.settings:
        label = setting.label + (f" ({setting.standing})" if setting.standing and setting.last else "")
        rows.append(_latex_row(label, len(setting.counted), setting.last, digits))
    return rows


def _latex_row(label: str, seeds: int, last: Estimate | None, digits: int) -> str:
    cells = [escape(label), f"{seeds}", "--", "--"]
    if last is not None:
        cells[2] = f"${last.iqm:.{digits}f}$"
        interval = last.interval
        cells[3] = f"${interval.low:.{digits}f}$ to ${interval.high:.{digits}f}$" if interval else "--"
    return "  " + " & ".join(cells) + r" \\"


def _booktabs(comment: str, rows: Sequence[str]) -> str:
    return "\n".join(
        [
            comment,
            r"% needs \usepackage{booktabs}",
            r"\begin{tabular}{lrrr}",
            r"  \toprule",
            r"  Setting & Seeds & IQM & 95\,\% interval \\",
            r"  \midrule",
            *rows,
            r"  \bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Text that LaTeX sets as it stands, on one line."""
    return " ".join(text.split()).translate(LATEX)


def _quantities(run: Run) -> list[Quantity]:
    """What was measured: returns, and scores where some pack has them."""
    tables = [pack.eval for pack in run.packs if pack.eval is not None]
    return ["scores", "returns"] if any("scores" in table for table in tables) else ["returns"]


def _last(result: MemberResult) -> float:
    return float(result.values[-1])


def _best(result: MemberResult) -> float:
    return float(result.values.max())


def _running(result: MemberResult) -> float:
    return float(result.values[-RUNNING:].mean())


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def _parquet_writer(table: Table) -> Callable[[BinaryIO], None]:
    arrow, parquet = _pyarrow()
    columns = {}
    for name, values in table.items():
        kind = KINDS.get(name) or _kind(values)
        if kind == "string":
            values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        columns[name] = arrow.array(values, type=getattr(arrow, kind)())
    made = arrow.table(columns)
    return lambda file: parquet.write_table(made, file)


def _kind(values: Sequence[Any]) -> str:
    """The narrowest Arrow type that takes a swept key's values; text where they are of several types."""
    types = {type(value) for value in values if value is not None}
    for kind, allowed in (("bool_", {bool}), ("int64", {int}), ("float64", {int, float})):
        if types and types <= allowed:
            return kind
    return "string"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('Parquet tables need pyarrow; run: pip install "jaxdiff[export]"') from error
    return pyarrow, pyarrow.parquet
