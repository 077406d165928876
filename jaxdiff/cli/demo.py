"""`jaxdiff demo`: a whole study in minutes, from nothing: data, sweep, evaluation, report.

  jaxdiff demo [--workdir=DIR] [any flag of `jaxdiff sweep`]

Makes the maze dataset, trains diffusion behaviour cloning and Diffusion-QL with three weights of its Q term over four
seeds, scores them on 64 episodes each, prints the table and writes report.html. Needs no network.
"""

import sys

from jaxdiff.cli import run

# Lanes over all devices, one after another on a CPU core: what the probe of --lanes=auto picks, without its compiles.
ARGUMENTS = ["--config=pointmaze", "--sweep=demo", "--lanes=shard"]


def main(argv: list[str]) -> int:
    """Runs the study `demo` of the shipped config `pointmaze`; flags are those of `jaxdiff sweep`."""
    if any(argument in ("-h", "--help", "-help") for argument in argv):
        print(__doc__)
        return 0
    print("jaxdiff demo = jaxdiff sweep " + " ".join([*ARGUMENTS, *argv]), file=sys.stderr)
    return run.sweep([*ARGUMENTS, *argv])
