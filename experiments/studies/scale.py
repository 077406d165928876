"""What packs are worth: a study of hundreds of members in one process against one process per member.

  python -m experiments.studies.scale --out=runs/scale [--config=pointmaze] [--sweep=large] [--lone=8] [--workers=2]

Trains the study with `jaxdiff sweep`, then a sample of its members, evenly spread over the list, each in a process of
its own (`jaxdiff work` on packs of one member), as many side by side as there are workers. Both sides find the programs
of one unmeasured member in the compilation cache. Prints wall times, the ratio extrapolated to all members, and the
largest resident memory of a process. Flags after `--` go to `jaxdiff sweep` in both.
"""

import argparse
from collections.abc import Sequence
from concurrent import futures
import os
from pathlib import Path
import statistics
import subprocess
import sys
import time

from jaxdiff.io.digest import member_digests
from jaxdiff.io.packlist import read_list
from jaxdiff.io.runs import load_run

COMMAND = "import sys; from jaxdiff.cli.main import main; sys.exit(main(sys.argv[1:]))"


def run(*arguments: str) -> tuple[float, float]:
    """Seconds and largest resident memory [MB] of one `jaxdiff` process.

    Raises:
      RuntimeError: it failed.
    """
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"jaxdiff {' '.join(arguments)} ended with status {status}.")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def sample(names: Sequence[str], count: int) -> list[str]:
    """`count` names, evenly spread."""
    return [names[i * len(names) // count] for i in range(count)]


def main() -> int:
    """Measures both sides and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--config", default="pointmaze")
    parser.add_argument("--sweep", default="large")
    parser.add_argument("--lone", type=int, default=8, help="members that get a process of their own")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes side by side")
    parser.add_argument("extra", nargs="*", help="flags of jaxdiff sweep, behind --")
    flags = parser.parse_args()
    study = ["sweep", f"--config={flags.config}", f"--sweep={flags.sweep}", *flags.extra]
    packed, lone = (str(flags.out / name) for name in ("packed", "lone"))
    run(*study, f"--workdir={lone}", "--max_lanes=1", "--prepare")
    listed = read_list(lone)
    assert listed is not None
    names = sample([pack.id for pack in listed.packs], flags.lone + 1)
    run("work", lone, f"--packs={names[0]}")
    started = time.monotonic()
    with futures.ThreadPoolExecutor(flags.workers) as pool:
        alone = list(pool.map(lambda name: run("work", lone, f"--packs={name}"), names[1:]))
    each = (time.monotonic() - started) / flags.lone
    seconds, memory = run(*study, f"--workdir={packed}")
    there, here = member_digests(load_run(lone)), member_digests(load_run(packed))
    equal = sum(here[name] == found for name, found in there.items())
    total = len(here)
    print(f"{total} members, {len(load_run(packed).packs)} packs in one process: {seconds:.0f} s, {memory:.0f} MB")
    print(
        f"one process each, {flags.workers} side by side: {each:.1f} s per member of {flags.lone} "
        f"(median of a process {statistics.median(s for s, _ in alone):.1f} s, {max(m for _, m in alone):.0f} MB), "
        f"so {each * total:.0f} s for all"
    )
    print(f"ratio: {each * total / seconds:.1f}; of {len(there)} lone members {equal} have the packed bits")
    return 0


if __name__ == "__main__":
    sys.exit(main())
