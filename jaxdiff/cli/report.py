"""`jaxdiff report DIR...`: write report.html, report.json and report.csv of run folders.

jaxdiff report DIR --watch[=SECONDS]               the page anew while the study goes on, until it has finished
jaxdiff report DIR --export=csv,parquet,latex      long tables: members, curves, settings.tex
"""

from collections.abc import Iterator, Sequence
import os
from pathlib import Path
import time
import webbrowser

from absl import flags

from jaxdiff.cli import places, watching
from jaxdiff.io.folders import RunDir
from jaxdiff.io.report import build_report, export, summary
from jaxdiff.io.runs import load_run

PAGES = ("report.html", "report.json", "report.csv")
Mark = tuple[tuple[str, int, int], ...]


def main(argv: list[str]) -> int:
    """Writes the report of every folder named, prints its table and where it lies.

    Args:
      argv: folders; `--open` to show each page in a browser, `--watch` to go on until all have finished, `--export`.

    Returns:
      0 when every report was written.

    Raises:
      ValueError: no folder was named, or one is not a run folder.
      KeyError, ImportError: an export format that is unknown, or whose library is not installed.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("open", False, "Show the page in a browser.", flag_values=values)
    watching.define_watch("Write the page anew every so many seconds (10) in which something changed.", values)
    flags.DEFINE_list("export", [], f"Tables beside it: {', '.join(export.FORMATS)}.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    folders = values(["jaxdiff report", *watching.with_seconds(argv)])[1:]
    if values["help"].value:
        print(f"usage: jaxdiff report DIR [DIR ...] [flags]\n\n{__doc__}\n{values.main_module_help() or values}")
        return 0
    if not folders:
        raise ValueError("no run folder was named; give the --workdir of a run, e.g. jaxdiff report runs/demo.")
    seconds: float | None = values["watch"].value
    formats, is_shown = list(values["export"].value or ()), bool(values["open"].value)
    export.check_formats(formats)
    found = [places.to_read(folder) for folder in folders]
    if seconds is not None:
        _watch(found, seconds, is_shown=is_shown)
    for place in found:
        written = build_report(place.folder)
        print(summary(load_run(place.folder)))
        print(written)
        tables = export.export(place.folder, formats) if formats else []
        print(*tables, sep="\n", end="\n" if tables else "")
        place.publish(*PAGES, *(table.name for table in tables))
        if is_shown and seconds is None:
            webbrowser.open(written.resolve().as_uri())
    return 0


def _watch(found: Sequence[places.Place], seconds: float, *, is_shown: bool) -> None:
    """Rewrites the pages of runs in which something changed, until all have finished.

    While it goes on a browser reads them anew by itself; the last writing, also after an interrupt, ends that.
    """
    seen: dict[Path, Mark] = {}

    def look() -> bool:
        for place in found:
            place.refresh()
            folder = place.folder
            mark = tuple(_marks(RunDir(folder)))
            if mark == seen.get(folder):
                continue
            written = build_report(folder, refresh_seconds=seconds)
            print(f"{time.strftime('%H:%M:%S')}  {written}", flush=True)
            if is_shown and folder not in seen:
                webbrowser.open(written.resolve().as_uri())
            place.publish(*PAGES)
            seen[folder] = mark
        return all(RunDir(place.folder).is_done() for place in found)

    try:
        watching.repeat(look, seconds)
    except KeyboardInterrupt:
        for folder in seen:
            build_report(folder)
        raise


def _marks(run: RunDir) -> Iterator[tuple[str, int, int]]:
    """Name, time and size of every file a report is made of."""
    packs = [run.pack(pack_id) for pack_id in run.list_packs()]
    names = ("pack_json", "train", "eval", "rollouts", "plans", "done")
    for path in [run.run_json, run.facts_json, *(getattr(pack, name) for pack in packs for name in names)]:
        found = _stat(path)
        if found is not None:
            yield str(path), found.st_mtime_ns, found.st_size


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
