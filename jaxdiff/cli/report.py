"""`jaxdiff report DIR...`: write report.html, report.json and report.csv of run folders."""

from pathlib import Path
import webbrowser

from absl import flags

from jaxdiff.io.report import build_report, summary
from jaxdiff.io.runs import load_run


def main(argv: list[str]) -> int:
    """Writes the report of every folder named, prints its table and where it lies.

    Args:
      argv: folders, and `--open` to show each page in a browser.

    Returns:
      0 when every report was written.

    Raises:
      ValueError: no folder was named, or one is not a run folder.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("open", False, "Show the page in a browser.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    folders = values(["jaxdiff report", *argv])[1:]
    if values["help"].value:
        print(f"usage: jaxdiff report DIR [DIR ...] [flags]\n\n{__doc__}\n{values.main_module_help() or values}")
        return 0
    if not folders:
        raise ValueError("no run folder was named; give the --workdir of a run, e.g. jaxdiff report runs/demo.")
    for folder in folders:
        written = build_report(folder)
        print(summary(load_run(folder)))
        print(written)
        if values["open"].value:
            webbrowser.open(Path(written).resolve().as_uri())
    return 0
