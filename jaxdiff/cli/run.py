"""`jaxdiff train`, `sweep` and `rerun`: a config and a study become packs, packs become a run folder and a report.

  jaxdiff train --config=diffusion_ql --config.dataset=hopper.hdf5 --config.env=gymnasium-Hopper-v5
  jaxdiff sweep --config=pointmaze --sweep=demo [--lanes=auto|vmap|map|shard|pmap|data] [--dry_run]
                [--max_lanes=N|auto] [--workers=N]
  jaxdiff rerun DIR [--workdir=NEW]

Run again with the same --workdir, a command goes on from the last checkpoint.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import datetime
from pathlib import Path
import sys
from typing import Any

from absl import flags

from jaxdiff.cli import config as configs
from jaxdiff.cli import config_files, places
from jaxdiff.cli.machine import use_all_cores, use_compilation_cache
from jaxdiff.cli.places import Place
from jaxdiff.cli.plan import MAX_LANES, Plan, as_in_folder, from_stamp, listed, make_plan, read_max_lanes
from jaxdiff.cli.pretrained import check_seeds, inherit
from jaxdiff.cli.searching import check_search, read_search
from jaxdiff.cli.stopping import StopRequest
from jaxdiff.cli.study import product_of
from jaxdiff.cli.tasks import Tasks
from jaxdiff.cli.work import Outcome, run_packs
from jaxdiff.io import files, stamp
from jaxdiff.io.folders import RunDir


def train(argv: list[str]) -> int:
    """`jaxdiff train`: one member."""
    return _run_command("train", argv)


def sweep(argv: list[str]) -> int:
    """`jaxdiff sweep`: every member of a study."""
    return _run_command("sweep", argv)


def rerun(argv: list[str]) -> int:
    """`jaxdiff rerun DIR`: the run of a folder again, into a new folder."""
    flag_values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where to write; default: DIR with -rerun", flag_values=flag_values)
    folders = configs.parse_flags(argv, flag_values, __doc__ or "")
    if len(folders) != 1:
        raise ValueError(f"rerun takes one run folder, got {len(folders)}: jaxdiff rerun DIR")
    there = places.to_work(folders[0])
    plan = from_stamp(there.folder, ["rerun", *argv])
    with contextlib.suppress(ValueError):  # members of older runs were hashed with fewer settings: cut anew then
        plan = as_in_folder(plan)
    use_all_cores(plan.lanes)
    use_compilation_cache()
    here = places.to_write(flag_values.workdir or f"{folders[0].rstrip('/')}-rerun")
    again = dataclasses.replace(plan, workdir=here.folder, mirror=here.mirror, repeats=there.folder)
    return execute(again)


def _run_command(name: str, argv: list[str]) -> int:
    plan = plan_of(name, argv)
    if plan is None:
        return 0
    if not plan.is_only_prepared:
        return execute(plan)
    plan, _ = prepare(plan)
    members = sum(len(pack.members) for pack in plan.packs)
    where = plan.workdir if plan.mirror is None else plan.mirror.remote
    print(f"{where}: {members} members in {len(plan.packs)} packs; nothing is trained yet.")
    print(f"Here: jaxdiff work {where}\nElsewhere: jaxdiff launch ENGINE {where}")
    return 0


def plan_of(name: str, argv: list[str]) -> Plan | None:
    """The checked plan of a command line of `train` or `sweep`; None where --dry_run wanted it printed.

    Raises:
      KeyError, ValueError: an unknown name, key or flag, or a value out of range.
    """
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    parsed = configs.parse(argv, flag_values, __doc__ or "")
    known = config_files.sweeps(parsed.config_path)
    if name == "train" and parsed.sweep:
        raise ValueError("train runs one member; use `jaxdiff sweep` with --sweep.")
    if name == "sweep" and not parsed.sweep:
        raise ValueError(f"--sweep is missing; {parsed.config_path.name} has: {', '.join(known) or 'no sweeps'}.")
    workdir = parsed.workdir or default_workdir(parsed.config_path.stem, parsed.sweep)
    plan = planned([name, *argv], parsed, parsed.sweep, study_points(parsed), workdir)
    use_all_cores(parsed.lanes)
    use_compilation_cache()
    if parsed.dry_run:
        from jaxdiff.cli.dry_run import describe

        print(describe(plan))
        return None
    return plan


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines what `train` and `sweep` take."""
    configs.define_flags(flag_values)
    flags.DEFINE_bool("tensorboard", False, "log every member to TensorBoard", flag_values=flag_values)
    flags.DEFINE_string("wandb_project", None, "log every member to this W&B project", flag_values=flag_values)
    flags.DEFINE_string("mlflow_experiment", None, "log every member to this MLflow experiment",
                        flag_values=flag_values)  # fmt: skip
    flags.DEFINE_bool("prepare", False, "write the run folder and its list of packs, train nothing",
                      flag_values=flag_values)  # fmt: skip
    flags.DEFINE_string("max_lanes", str(MAX_LANES), "members of a pack, at most; auto: measure what is best",
                        flag_values=flag_values)  # fmt: skip
    flags.DEFINE_integer("workers", 1, "how many will share the study: as many packs of a group, at least",
                         lower_bound=1, flag_values=flag_values)  # fmt: skip
    flags.DEFINE_string("search", "", "halving[,reduction=3,rungs=3] or pbt,NAME=LOW:HIGH[,..]: look at scores while "
                        "training", flag_values=flag_values)  # fmt: skip


def study_points(parsed: configs.Parsed) -> list[dict[str, Any]]:
    """The product of the studies that --sweep names; without one, the empty point."""
    known = config_files.sweeps(parsed.config_path)
    return product_of({study: known[study]() for study in parsed.sweep})


def planned(
    command: Sequence[str],
    parsed: configs.Parsed,
    study: Sequence[str],
    points: Sequence[Mapping[str, Any]],
    workdir: str | Path,
) -> Plan:
    """The checked plan of a command line and its points.

    Args:
      command: as run.json names it, without the program.
      parsed: by the flags of `define_flags`.
      study: names of what the points come from.
      points: one for each member.
      workdir: where to write, a path or a URL.

    Raises:
      KeyError, ValueError: an unknown key, or a value out of range.
    """
    flag_values = parsed.flags
    if "algorithm" in parsed.overrides:
        raise ValueError(
            "config.algorithm cannot be overridden: its settings would be another algorithm's; choose a config of that "
            "algorithm with --config=NAME, or set 'algorithm' in a point of a sweep."
        )
    config = inherit(parsed.config, parsed.overrides)
    place = Place(Path(workdir), None) if parsed.dry_run else places.to_write(workdir)
    plan = make_plan(command, config, ",".join(study) or None, points, place.folder, parsed.lanes,
                     max_lanes=read_max_lanes(flag_values.max_lanes), tensorboard=flag_values.tensorboard,
                     wandb_project=flag_values.wandb_project, workers=flag_values.workers)  # fmt: skip
    plan = dataclasses.replace(plan, is_only_prepared=flag_values.prepare, mirror=place.mirror,
                               search=flag_values.search, mlflow_experiment=flag_values.mlflow_experiment)  # fmt: skip
    check_search(read_search(plan.search), plan.packs)
    check_seeds(plan.config, [member.seed for pack in plan.packs for member in pack.members])
    return plan


def default_workdir(config: str, study: Sequence[str]) -> Path:
    """runs/<config>[-<study>]-<time>, so that a run without --workdir never meets an older one."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / "-".join([config, *study, now])


def execute(plan: Plan) -> int:
    """Runs what is not done yet, writes the report, prints the table. Returns the exit code."""
    plan, tasks = prepare(plan)
    with StopRequest() as stop:
        outcome = run_packs(plan, plan.packs, tasks, stop)
    return outcome.exit_code if outcome.is_stopped else conclude(plan, outcome)


def conclude(plan: Plan, outcome: Outcome) -> int:
    """Writes the report, prints the table and what failed. Returns the exit code."""
    from jaxdiff.io import report

    path = report.build_report(plan.workdir)
    print(report.summary(report.load_run(plan.workdir)))
    if plan.mirror is not None:
        plan.mirror.push("report.html", "report.json", "report.csv")
    print(f"\nreport: {path}")
    for pack, error in outcome.failed.items():
        print(f"jaxdiff: pack {pack} failed: {error}", file=sys.stderr)
    if outcome.passed:
        print(f"jaxdiff: {outcome.passed} packs were held by other processes; `jaxdiff status` says how they are")
    return outcome.exit_code


def prepare(plan: Plan) -> tuple[Plan, Tasks]:
    """Writes the run folder's stamp and list of packs, after building the first pack's task, the likeliest to fail.

    Returns:
      The plan as it goes on in its folder, and its first task.
    """
    from jaxdiff.cli.width import measured

    run = RunDir(plan.workdir)
    stamp.check_directory(run.path)
    plan = as_in_folder(plan)
    tasks = Tasks(plan)
    tasks.get(plan.packs[0].members[0].config)
    plan = measured(plan, tasks.get)
    task = tasks.get(plan.packs[0].members[0].config)
    config = {**plan.config, "points": plan.points, "lanes": plan.lanes, "max_lanes": plan.max_lanes}
    config |= {"search": plan.search} if plan.search else {}
    stamp.write_stamp(run.path, stamp.stamp(plan.command, config, plan.study, task.info, plan.config["env"]))
    listed(plan).save(run.path)
    facts = getattr(task.env, "facts", {})
    if facts:
        files.write_json_atomic(run.facts_json, {key: value for key, value in facts.items() if not callable(value)})
    if plan.mirror is not None:
        plan.mirror.push(*(name for name in ("facts.json", "packs.json", "run.json") if (run.path / name).is_file()))
    return plan, tasks
