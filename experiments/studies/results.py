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
import subprocess
import sys

from experiments.results import DOMAINS, POLICIES
from jaxdiff.io.report.results import Estimate, collect
from jaxdiff.io.runs import RunDir, load_run

COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
COLUMNS = "| policy | last checkpoint: IQM | 95 % interval | mean of the last ten | best (oracle) | seeds | minutes |"


def arguments(domain: str, policy: str, folder: Path, hopper: Path | None) -> list[str]:
    """The command line of one run, after `jaxdiff`."""
    line = ["sweep", f"--config=results:{domain}:{policy}", "--sweep=seed", "--lanes=shard", f"--workdir={folder}"]
    return [*line, f"--config.dataset={hopper}"] if domain == "hopper" else line


def row(policy: str, folder: Path) -> tuple[float, str, str] | None:
    """(number to sort by, line of the table, what the numbers are) of a finished run; None otherwise."""
    if not RunDir(folder).is_done():
        return None
    run = load_run(folder)
    results = collect(run)
    (setting,) = results.settings
    last, running, best = setting.last, setting.running, setting.best
    if last is None or running is None or best is None:
        return None
    seconds = sum(float(pack.done["wall_seconds"]) for pack in run.packs if pack.done)
    cells = [f"`{policy}`", f"{last.iqm:.1f}", interval(last), f"{running.iqm:.1f}", f"{best.iqm:.1f}"]
    cells += [f"{len(setting.counted)}/{len(setting.members)}", f"{seconds / 60:.1f}"]
    return last.iqm, f"| {' | '.join(cells)} |", results.quantity_name


def interval(estimate: Estimate) -> str:
    """Low and high end of an estimate's interval."""
    found = estimate.interval
    return "" if found is None else f"{found.low:.1f} to {found.high:.1f}"


def table(domain: str, out: Path) -> str:
    """The domain's runs that are finished, best first; empty where there are none."""
    rows = [found for policy in POLICIES if (found := row(policy, out / domain / policy)) is not None]
    if not rows:
        return ""
    facts = DOMAINS[domain]
    length = f"{facts.num_updates:,} updates of {facts.batch_size}, {facts.eval_episodes} episodes each"
    head = f"**{facts.env}**, {rows[0][2]}; {length}"
    lines = [line for _, line, _ in sorted(rows, reverse=True)]
    return "\n".join([f"{head}\n", COLUMNS, "|:--|--:|--:|--:|--:|--:|--:|", *lines])


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
    failed = []
    for domain, policy in [] if flags.table else [(d, p) for d in domains for p in policies]:
        folder = flags.out / domain / policy
        if not RunDir(folder).is_done():
            line = arguments(domain, policy, folder, flags.hopper)
            print("jaxdiff", *line, file=sys.stderr, flush=True)
            if subprocess.run(
                [sys.executable, "-c", COMMAND, *line], stdout=subprocess.DEVNULL, check=False
            ).returncode:
                failed.append(f"{domain}:{policy}")
    print("\n\n".join(text for domain in DOMAINS if (text := table(domain, flags.out))))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
