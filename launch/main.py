"""`jaxdiff launch ENGINE DIR`: spread a prepared study over processes, Slurm, Ray, Kubernetes or TPU VMs.

  jaxdiff sweep --config=pointmaze --sweep=demo --workdir=DIR --prepare
  jaxdiff launch local DIR

--dry_run prints what would be run or submitted. `jaxdiff launch ENGINE --help` shows an engine's flags.
"""

import argparse
import difflib
import importlib
from typing import Any

# name -> (module, what it is for)
ENGINES = {
    "local": ("local", "worker processes on this machine"),
    "slurm": ("slurm", "a Slurm job array, through submitit"),
    "ray": ("ray_tasks", "tasks on a Ray cluster"),
    "k8s": ("k8s", "a JobSet for Kubernetes, as YAML"),
    "tpu_vm": ("tpu_vm", "one worker on each host of a Cloud TPU slice"),
}


def main(argv: list[str]) -> int:
    """Runs one engine on one prepared study; returns its exit code.

    Raises:
      KeyError: no such engine.
      ValueError: no prepared study, or a flag out of range.
      ImportError: the engine's library is not installed.
    """
    if not argv or argv[0] in ("-h", "--help", "-help"):
        rows = [f"  {name:8} {about}" for name, (_, about) in ENGINES.items()]
        print("\n".join([__doc__ or "", "engines:", *rows]))
        return 0
    name, *rest = argv
    if name not in ENGINES:
        near = difflib.get_close_matches(name, ENGINES, 1)
        meant = f"did you mean {near[0]!r}? " if near else ""
        raise KeyError(f"unknown engine {name!r}; {meant}Known: {', '.join(ENGINES)}.")
    engine: Any = importlib.import_module(f".{ENGINES[name][0]}", __package__)
    parser = argparse.ArgumentParser(
        f"jaxdiff launch {name}", description=engine.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a prepared study: a folder, or a URL that every worker reaches")
    parser.add_argument("--dry_run", action="store_true", help="print what would be done, do nothing")
    engine.add_flags(parser)
    flags = parser.parse_args(rest)
    code: int = engine.run(flags.folder, flags)
    return code
