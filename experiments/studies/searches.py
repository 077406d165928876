"""Random search, successive halving and population-based training at equal numbers of updates, on a point maze.

  python -m experiments.studies.searches --out=runs/searches [--repeats=5] [--updates=2700] [--algorithm=td3_bc]

Each repetition draws its own settings of the learning rate and the weight of Q. Halving starts with 27 of them and
keeps a third at two rungs, which costs as many updates as 7 whole runs; random search and the population have those 7.
What is compared is the best last evaluation among the members that finished, on the same number of episodes: a little
optimistic for everybody, and more so for those that choose among 7 than for halving, which chooses among 3. With
--seeds above 1 settings are compared by their mean over seeds. The command may be stopped and given again.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys

import numpy as np

from jaxdiff import adaptive, points
from jaxdiff.io.folders import RunDir
from jaxdiff.io.report.results import collect
from jaxdiff.io.report.statistics import mean, stratified_bootstrap
from jaxdiff.io.runs import load_run

COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"
RANGES = {"hparams.lr": (1e-5, 1e-1), "hparams.q_weight": (0.03, 30.0)}
WIDE, REDUCTION, RUNGS = 27, 3, 3
METHODS = ("random", "halving", "pbt")
CONFIG = '''"""Settings of one repetition."""

from experiments.pointmaze import get_config as get_maze

POINTS = {points}


def get_config():
    return get_maze()


def sweep_settings():
    yield from POINTS
'''


def budget(updates: int, interval: int) -> tuple[int, int]:
    """(member-updates of one seed of a halving, whole runs that cost as much, rounded up)."""
    cost = adaptive.halving_cost(WIDE, adaptive.rungs(updates, REDUCTION, RUNGS, interval), REDUCTION)
    return cost, -(-cost // updates)


def settings(method: str, repeat: int, flags: argparse.Namespace) -> list[dict[str, object]]:
    """The points of a repetition; those of random search and of the population are the same."""
    count = WIDE if method == "halving" else budget(flags.updates, flags.interval)[1]
    space = {name: (low, high, "log") for name, (low, high) in RANGES.items()}
    fixed = {"algorithm": flags.algorithm, "num_updates": flags.updates, "eval_interval": flags.interval}
    shown = {"checkpoint_interval": flags.interval, "eval_episodes": 64, "record_episodes": 0}
    drawn = points.random_search(space, count, seed=1000 * repeat + (method == "halving"))
    return points.product([fixed | shown], drawn, points.seeds(flags.seeds))


def command(method: str, repeat: int, flags: argparse.Namespace) -> list[str]:
    """The command line of one run; its config is written beside the runs."""
    flags.out.mkdir(parents=True, exist_ok=True)
    config = flags.out / f"{method}_{repeat}.py"
    config.write_text(CONFIG.format(points=json.dumps(settings(method, repeat, flags))))
    ranges = ",".join(f"{name.removeprefix('hparams.')}={low:g}:{high:g}" for name, (low, high) in RANGES.items())
    search = {"random": [], "pbt": [f"--search=pbt,{ranges}"]}.get(
        method, [f"--search=halving,reduction={REDUCTION},rungs={RUNGS}"]
    )
    folder = f"--workdir={flags.out / method / str(repeat)}"
    return ["sweep", f"--config={config}", "--sweep=settings", f"--lanes={flags.lanes}", folder, *search]


def best(folder: Path) -> tuple[float, int]:
    """(best mean over seeds of the last evaluation among what finished, member-updates of the run)."""
    run = load_run(folder)
    scores = [s.last.mean for s in collect(run).settings if s.last is not None and not s.provisional]
    return max(scores), sum(int(pack.done["member_updates"]) for pack in run.packs if pack.done)


def main() -> int:
    """Makes the runs that are missing and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--updates", type=int, default=2700, help="of a member that finishes")
    parser.add_argument("--interval", type=int, default=300, help="updates between evaluations")
    parser.add_argument("--algorithm", default="td3_bc")
    parser.add_argument("--seeds", type=int, default=1, help="of each setting")
    parser.add_argument("--lanes", default="shard")
    flags = parser.parse_args()
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    spent: dict[str, set[int]] = {method: set() for method in METHODS}
    for repeat in range(flags.repeats):
        for method in METHODS:
            folder = flags.out / method / str(repeat)
            if not RunDir(folder).is_done():
                line = [sys.executable, "-c", COMMAND, *command(method, repeat, flags)]
                subprocess.run(line, stdout=subprocess.DEVNULL, check=True)
            score, cost = best(folder)
            found[method].append(score)
            spent[method].add(cost)
    print("| search | member-updates | best last score: mean over repetitions | 95 % interval | each |")
    print("|:--|--:|--:|--:|:--|")
    for method, scores in found.items():
        interval = stratified_bootstrap([np.asarray(scores)], statistic=mean)
        each = ", ".join(f"{score:.1f}" for score in scores)
        costs = ", ".join(f"{cost:,}" for cost in sorted(spent[method]))
        ends = "-" if interval is None else f"{interval.low:.1f} to {interval.high:.1f}"
        print(f"| {method} | {costs} | {np.mean(scores):.1f} | {ends} | {each} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
