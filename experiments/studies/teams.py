"""Methods for teams on graded data of the particle tasks, four seeds each: the table of docs/teams.md, and details.

  python -m experiments.studies.teams --out=runs/teams [--datasets=spread-medium,tag-medium] [--methods=bc,madiff]
  python -m experiments.studies.teams --out=runs/teams --table                         # only the tables

The runs are `jaxdiff sweep --config=teams:DATASET:METHOD --sweep=seed`; the command may be stopped and given again.
Runs that were not made are not in a table.
"""

import argparse
from pathlib import Path
import sys

from experiments.studies import grid
from experiments.teams import COMPARED, DATASETS, EVAL_EPISODES, NUM_UPDATES, PLAN_EPISODES


def main() -> int:
    """Makes the runs that are missing and prints the tables. Returns 1 where a run failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--datasets", default=",".join(DATASETS), help="separated by commas")
    parser.add_argument("--methods", default=",".join(COMPARED), help="separated by commas")
    parser.add_argument("--table", action="store_true", help="make no runs")
    flags = parser.parse_args()
    datasets, methods = flags.datasets.split(","), flags.methods.split(",")
    for given, known in ((datasets, DATASETS), (methods, COMPARED)):
        if not set(given) <= set(known):
            parser.error(f"unknown: {', '.join(sorted(set(given) - set(known)))}; known: {', '.join(known)}.")
    wanted = [] if flags.table else [(d, m, ()) for d in datasets for m in methods]
    failed = grid.make_missing("teams", wanted, flags.out)
    length = f"{NUM_UPDATES:,} updates, {EVAL_EPISODES:,} episodes each, {PLAN_EPISODES} of planners"
    tables = [grid.overview(datasets, methods, flags.out)]
    tables += [grid.table(f"mpe-{d}", length, d, methods, flags.out) for d in datasets]
    print("\n\n".join(found for found in tables if found))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
