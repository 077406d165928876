"""`jaxdiff compare DIR_A DIR_B...`: what each setting gains or loses from the first run folder to each of the others.

Settings are matched by label; where no label is in both folders, the best of each are compared. Differences are those
of the last checkpoint's IQM, with bootstrap intervals over seeds. The table is printed, and with drawings in
DIR_A/compare.html or --out.
"""

from pathlib import Path

from absl import flags

from jaxdiff.cli import places
from jaxdiff.io import files
from jaxdiff.io.report.compare import compare
from jaxdiff.io.report.compare_page import as_page, as_text
from jaxdiff.io.report.results import collect
from jaxdiff.io.runs import load_run


def main(argv: list[str]) -> int:
    """`jaxdiff compare`.

    Returns:
      0 when the page was written.

    Raises:
      ValueError: fewer than two folders, or two that have nothing in common to be compared by.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "The page to write; default: DIR_A/compare.html.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
    folders = values(["jaxdiff compare", *argv])[1:]
    if values["help"].value:
        print(f"usage: jaxdiff compare DIR DIR [DIR ...] [flags]\n\n{__doc__}\n{values.main_module_help() or values}")
        return 0
    if len(folders) < 2:
        raise ValueError(f"compare takes two run folders or more, got {len(folders)}: jaxdiff compare DIR_A DIR_B")
    first, *others = [collect(load_run(places.to_read(folder).folder)) for folder in folders]
    found = [compare(first, other) for other in others]
    target = Path(values["out"].value or first.run.dir.path / "compare.html")
    files.write_text_atomic(target, as_page(found))
    print("\n".join(as_text(comparison) for comparison in found))
    print(target)
    return 0
