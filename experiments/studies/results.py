"""All policies on a maze, on real MuJoCo data and on a brax set, four seeds each: the tables of docs/results.md.

  python -m experiments.studies.results --out=runs/results [--domains=pointmaze,brax] [--policies=edp,iql]
  python -m experiments.studies.results --out=runs/results --hopper=hopper_mixed.hdf5      # and real Hopper
  python -m experiments.studies.results --out=runs/results --table                         # only the tables

Each run is `jaxdiff sweep --config=results:DOMAIN:POLICY --sweep=seed --workdir=OUT/DOMAIN/POLICY`, one after another,
in a process of its own. Finished runs are passed over and broken ones go on from their last checkpoint, so the command
may be stopped and given again. Runs that were not made are not in a table.
"""

import argparse
from pathlib import Path
import sys

from experiments.results import DOMAINS, POLICIES
from experiments.studies import grid


def table(domain: str, out: Path) -> str:
    """The domain's runs that are finished, best first; empty where there are none."""
    facts = DOMAINS[domain]
    length = f"{facts.num_updates:,} updates of {facts.batch_size}, {facts.eval_episodes} episodes each"
    return grid.table(facts.env, length, domain, POLICIES, out)


def main() -> int:
    """Makes the runs that are missing and prints the tables. Returns 1 where a run failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--domains", default="pointmaze,brax", help=f"of {', '.join(DOMAINS)}, separated by commas")
    parser.add_argument("--policies", default=",".join(POLICIES), help="separated by commas")
    parser.add_argument("--hopper", type=Path, help="D4RL-schema file of Hopper; adds the domain hopper")
    parser.add_argument("--table", action="store_true", help="make no runs")
    flags = parser.parse_args()
    domains = list(dict.fromkeys([*flags.domains.split(","), *(["hopper"] if flags.hopper else [])]))
    policies = flags.policies.split(",")
    for given, known in ((domains, DOMAINS), (policies, POLICIES)):
        if not set(given) <= set(known):
            parser.error(f"unknown: {', '.join(sorted(set(given) - set(known)))}; known: {', '.join(known)}.")
    if "hopper" in domains and not flags.hopper and not flags.table:
        parser.error("the domain hopper needs --hopper=FILE.hdf5.")
    more = {"hopper": [f"--config.dataset={flags.hopper}"]}
    wanted = [] if flags.table else [(domain, p, more.get(domain, [])) for domain in domains for p in policies]
    failed = grid.make_missing("results", wanted, flags.out)
    print("\n\n".join(text for domain in DOMAINS if (text := table(domain, flags.out))))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
