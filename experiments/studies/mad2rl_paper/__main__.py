"""MAD2RL's figures and tables anew: delays and queues by methods, tasks and V, decision times, throughput.

  python -m experiments.studies.mad2rl_paper learning --out=DIR     # 5 clients, 3 service vehicles, while training
  python -m experiments.studies.mad2rl_paper clients --out=DIR      # 3 to 7 clients, 5 vehicles
  python -m experiments.studies.mad2rl_paper servers --out=DIR      # 5 clients, 3 to 7 vehicles
  python -m experiments.studies.mad2rl_paper v --out=DIR            # V = 10, 50, 150, learned side by side
  python -m experiments.studies.mad2rl_paper decisions --out=DIR    # seconds per decision; wants an idle machine
  python -m experiments.studies.mad2rl_paper throughput --out=DIR   # 1, 8 and 64 lanes; as that
  python -m experiments.studies.mad2rl_paper table --out=DIR        # all tables, the paper's claims among them

A method at a point is one file in DIR/runs, made once and shared by the parts: --redo makes it anew. All seeds of a
method are lanes of one program, and so are the points of `v` that are missing. Every part but the last three writes its
figure. Networks and training are smaller than the paper's by default; `--episodes=1000 --num_envs=1
--updates_per_step=1 --hidden=256,256,256 --num_steps=7 --batch_size=128 --target_rate=1e-3` are its sizes, batch size
and what else it leaves open being ours.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path
import sys
from typing import Any

from jaxdiff.cli.machine import use_all_cores, use_compilation_cache
from jaxdiff.io.files import write_json_atomic
from jaxdiff.suggest import unknown_name
from jaxdiff.sweep import MODES

from ._costs import decision_seconds, machine, simulator_rate, throughput
from ._methods import LEARNED, METHODS, Point, Sizes
from ._report import learning_figure, points_figure, read, tables
from ._runs import run_missing, sizes_of

COUNTS, WEIGHTS = (3, 4, 5, 6, 7), (10.0, 50.0, 150.0)
BASE = Point(5, 3, 10.0)
# part -> (its points, what its figure is drawn against)
PARTS: dict[str, tuple[tuple[Point, ...], str]] = {
    "learning": ((BASE,), ""),
    "clients": (tuple(Point(count, 5, 10.0) for count in COUNTS), "clients"),
    "servers": (tuple(Point(5, count, 10.0) for count in COUNTS), "servers"),
    "v": (tuple(BASE._replace(v=v) for v in WEIGHTS), "v"),
}
COSTS = ("decisions", "throughput")
Table = dict[str, Any]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.studies.mad2rl_paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=[*PARTS, *COSTS, "table"])
    parser.add_argument("--out", type=Path, default=Path("runs/mad2rl_paper"), help="folder of the results")
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas; default all")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="clients or vehicles to look at")
    parser.add_argument("--lane_counts", default="1,8,64", help="of throughput")
    parser.add_argument("--time", type=float, default=2.0, help="seconds of a round of throughput")
    parser.add_argument("--lanes", default="shard", choices=MODES, help="how lanes share the machine; default shard")
    parser.add_argument("--redo", action="store_true", help="make finished runs anew")
    for field in dataclasses.fields(Sizes):
        default: Any = field.default
        kind, shown = (str, ",".join(map(str, default))) if isinstance(default, tuple) else (type(default), default)
        parser.add_argument(f"--{field.name}", type=kind, default=shown, help=f"default {shown}")
    return parser


def sizes_from(options: dict[str, Any]) -> Sizes:
    """The flags' sizes.

    Raises:
      ValueError: a size below 1.
    """
    sizes = Sizes(**{field.name: options[field.name] for field in dataclasses.fields(Sizes)})
    sizes = dataclasses.replace(sizes, hidden=tuple(int(width) for width in options["hidden"].split(",")))
    for name in ("episodes", "seeds", "eval_every", "eval_episodes"):
        if getattr(sizes, name) < 1:
            raise ValueError(f"--{name}={getattr(sizes, name)} must be at least 1.")
    return sizes


def make_part(part: str, methods: Sequence[str], counts: Sequence[int], out: Path, sizes: Sizes, **how: Any) -> None:
    """Runs of a part that are missing, and its figure."""
    points, field = PARTS[part]
    if field in ("clients", "servers"):
        points = tuple(point for point in points if getattr(point, field) in counts)
    for method in methods:
        run_missing(out, method, points, sizes, **how)
    figure = points_figure(points, field, out) if field else learning_figure(points[0], out)
    figure.savefig(out / f"{part}.png", dpi=150)


def make_decisions(methods: Sequence[str], counts: Sequence[int], sizes: Sizes) -> Table:
    """{"machine", "sizes", "seconds": point -> method -> times}."""
    points = [Point(5, count, 10.0) for count in counts]
    seconds = {str(p): {method: decision_seconds(method, p, sizes) for method in methods} for p in points}
    return {"machine": machine(), "sizes": sizes_of("mad2rl", sizes), "seconds": seconds}


def make_throughput(methods: Sequence[str], lanes: Sequence[int], sizes: Sizes, time: float, mode: str) -> Table:
    """{"machine", "sizes", "rates": loop -> lanes -> rates}."""
    rates: Table = {
        method: {str(count): throughput(method, BASE, sizes, count, time, mode) for count in lanes}
        for method in methods
        if method in LEARNED
    }
    rates["task alone"] = {str(count): simulator_rate(BASE, count * sizes.num_envs, time) for count in lanes}
    return {"machine": machine(), "sizes": sizes_of("mad2rl", sizes), "rates": rates}


def main(argv: Sequence[str]) -> int:
    """Makes what is missing of a part, or prints the tables. Returns the exit code."""
    options = vars(_parser().parse_args(argv))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("jax").setLevel(logging.WARNING)
    part, out, sizes = options["part"], options["out"], sizes_from(options)
    methods, counts = options["methods"].split(","), [int(count) for count in options["counts"].split(",")]
    for name in methods:
        if name not in METHODS:
            raise unknown_name("method", name, METHODS)
    if part == "table":
        print(tables(out, {name: points for name, (points, _) in PARTS.items()}))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    use_all_cores(options["lanes"])
    use_compilation_cache()
    if part in PARTS:
        make_part(part, methods, counts, out, sizes, redo=options["redo"], lanes=options["lanes"])
    elif options["redo"] or not read(out / f"{part}.json"):
        lanes = [int(count) for count in options["lane_counts"].split(",")]
        found = (
            make_decisions(methods, counts, sizes)
            if part == "decisions"
            else make_throughput(methods, lanes, sizes, options["time"], options["lanes"])
        )
        write_json_atomic(out / f"{part}.json", found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
