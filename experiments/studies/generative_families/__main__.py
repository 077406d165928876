"""VAE, GAN, flow matching, DDPM, score SDE and consistency on three densities in the plane.

  python -m experiments.studies.generative_families --out=DIR

Every family has the same data, the same width and depth of its networks, the same number of updates and as many tried
settings; all seeds of a family train in one program. What is measured for a family on a density goes to one file in
DIR/parts when it is done, and is not done again. DIR then holds table.md, results.json and two figures.
Time: roughly 25 minutes of processor time. --tune instead tries the settings of each family, to DIR/tune.json.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path
import sys

from jaxdiff.cli.machine import use_all_cores, use_compilation_cache
from jaxdiff.io.files import write_json_atomic
from jaxdiff.suggest import unknown_name

from . import FAMILIES
from ._densities import DENSITIES
from ._report import write_report
from ._study import Plan, has_part, part_path, run_floor, run_part, tune

LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
TUNED_ON, TUNE_SEEDS = "pinwheel", 2

log = logging.getLogger("generative_families")


def _names(text: str, known: Sequence[str], what: str) -> list[str]:
    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            raise unknown_name(what, name, known)
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.generative_families",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--families", default="", help=f"some of: {', '.join(FAMILIES)}; default all")
    parser.add_argument("--densities", default="", help=f"some of: {', '.join(DENSITIES)}; default all")
    parser.add_argument("--tune", action="store_true", help="try the settings instead")
    for field in dataclasses.fields(Plan):
        if isinstance(field.default, int):
            parser.add_argument(f"--{field.name}", type=int, default=field.default, help=f"default {field.default}")
    parser.add_argument("--hidden", default="64,64,64", help="widths of every network; default 64,64,64")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs what is not done yet, writes the report, prints the table. Returns the exit code."""
    options = vars(_parser().parse_args(argv))
    out, tuning = options.pop("out"), options.pop("tune")
    families = _names(options.pop("families"), list(FAMILIES), "family")
    densities = _names(options.pop("densities"), list(DENSITIES), "density")
    options["hidden"] = tuple(int(width) for width in options["hidden"].split(","))
    plan = Plan(**options)
    if tuning:
        _tune(out, families, dataclasses.replace(plan, seeds=TUNE_SEEDS))
        return 0
    for density in densities:
        if not has_part(part_path(out, "floor", density), plan):
            run_floor(out, density, plan)
    for name in families:
        family = FAMILIES[name](plan.hidden)
        for density in densities:
            if has_part(part_path(out, name, density), plan, family):
                log.info("%s on %s: there already", name, density)
                continue
            run_part(out, name, family, density, plan)
            log.info("%s on %s: done", name, density)
    sys.stdout.write(write_report(out))
    return 0


def _tune(out: Path, families: Sequence[str], plan: Plan) -> None:
    found = {}
    for name in families:
        family = FAMILIES[name](plan.hidden)
        found[name] = {"knob": family.knob, "settings": tune(family, TUNED_ON, plan, rates=LEARNING_RATES)}
        write_json_atomic(out / "tune.json", {"density": TUNED_ON, "updates": plan.updates, "families": found})
        log.info("%s: tried", name)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    use_all_cores("auto")
    use_compilation_cache()
    sys.exit(main(sys.argv[1:]))
