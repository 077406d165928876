"""`jaxdiff train`, `sweep` and `rerun`: a config and a study become packs, packs become a run folder and a report.

  jaxdiff train --config=diffusion_ql --config.dataset=hopper.hdf5 --config.env=gymnasium-Hopper-v5
  jaxdiff sweep --config=pointmaze --sweep=demo [--lanes=auto|vmap|map|shard|pmap] [--dry_run]
  jaxdiff rerun DIR [--workdir=NEW]

Run again with the same --workdir, a command goes on from the last checkpoint.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
import os
from pathlib import Path
from typing import Any

from absl import flags

from jaxdiff import sweep as sweeps
from jaxdiff.cli import config as configs
from jaxdiff.cli.overrides import from_json
from jaxdiff.cli.plan import MAX_LANES, Plan, make_plan
from jaxdiff.cli.pretrained import check_seeds, inherit
from jaxdiff.cli.study import product_of
from jaxdiff.io import files, stamp
from jaxdiff.io.runs import RunDir, read_plan


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
    known = stamp.read_stamp(folders[0])
    settings = dict(known["config"])
    points, lanes, max_lanes = (settings.pop(name) for name in ("points", "lanes", "max_lanes"))
    use_all_cores(lanes)
    use_compilation_cache()
    target = Path(flag_values.workdir or f"{str(folders[0]).rstrip('/')}-rerun")
    command, config = ["rerun", *argv], from_json(settings)
    plan = make_plan(command, config, known["study"], points, target, lanes, max_lanes=max_lanes)
    return execute(dataclasses.replace(plan, repeats=Path(folders[0])))


def _run_command(name: str, argv: list[str]) -> int:
    plan = plan_of(name, argv)
    return 0 if plan is None else execute(plan)


def plan_of(name: str, argv: list[str]) -> Plan | None:
    """The checked plan of a command line of `train` or `sweep`; None where --dry_run wanted it printed.

    Raises:
      KeyError, ValueError: an unknown name, key or flag, or a value out of range.
    """
    flag_values = flags.FlagValues()
    configs.define_flags(flag_values)
    flags.DEFINE_bool("tensorboard", False, "log every member to TensorBoard", flag_values=flag_values)
    flags.DEFINE_string("wandb_project", None, "log every member to this W&B project", flag_values=flag_values)
    flags.DEFINE_integer("max_lanes", MAX_LANES, "members of a pack, at most", lower_bound=1, flag_values=flag_values)
    parsed = configs.parse(argv, flag_values, __doc__ or "")
    known = configs.sweeps(parsed.config_path)
    if "algorithm" in parsed.overrides:
        raise ValueError(
            "config.algorithm cannot be overridden: its settings would be another algorithm's; choose a config of that "
            "algorithm with --config=NAME, or set 'algorithm' in a point of a sweep."
        )
    if name == "train" and parsed.sweep:
        raise ValueError("train runs one member; use `jaxdiff sweep` with --sweep.")
    if name == "sweep" and not parsed.sweep:
        raise ValueError(f"--sweep is missing; {parsed.config_path.name} has: {', '.join(known) or 'no sweeps'}.")
    points = product_of([known[study]() for study in parsed.sweep])
    config = inherit(parsed.config, parsed.overrides)
    workdir = parsed.workdir or default_workdir(parsed.config_path.stem, parsed.sweep)
    plan = make_plan([name, *argv], config, ",".join(parsed.sweep) or None, points, workdir, parsed.lanes,
                     max_lanes=flag_values.max_lanes, tensorboard=flag_values.tensorboard,
                     wandb_project=flag_values.wandb_project)  # fmt: skip
    check_seeds(plan.config, [member.seed for pack in plan.packs for member in pack.members])
    use_all_cores(parsed.lanes)
    use_compilation_cache()
    if parsed.dry_run:
        from jaxdiff.cli.dry_run import describe

        print(describe(plan))
        return None
    return plan


def default_workdir(config: str, study: Sequence[str]) -> Path:
    """runs/<config>[-<study>]-<time>, so that a run without --workdir never meets an older one."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / "-".join([config, *study, now])


def use_all_cores(lanes: str) -> None:
    """On a CPU, makes one device per core, so that lanes can be spread over them. Only before JAX has started."""
    import jax

    if lanes in ("auto", "shard", "pmap"):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, in JAX_COMPILATION_CACHE_DIR or a folder of this machine's cache."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(configs.compilation_cache(os.environ)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def execute(plan: Plan) -> int:
    """Runs what is not done yet, writes the report, prints the table. Returns the exit code."""
    from jaxdiff.io import progress, report

    run = RunDir(plan.workdir)
    tasks = _first_task(plan, run)
    total = sum(len(p.members) * int(p.members[0].config["num_updates"]) for p in plan.packs)
    done, frozen = 0, 0
    with progress.Progress(total, sum(len(p.members) for p in plan.packs)) as bar:
        for pack in plan.packs:
            size, updates = len(pack.members), int(pack.members[0].config["num_updates"])
            if not run.pack(pack.id).is_done():

                def show(step: int, bad: int, note: str, base: int = done, lost: int = frozen, n: int = size) -> None:
                    bar.update(base + step * n, lost + bad, note)

                frozen += _run_pack(plan, run, pack, tasks, show)
            done += size * updates
            bar.update(done, frozen)
    path = report.build_report(run.path)
    print(report.summary(report.load_run(run.path)))
    print(f"\nreport: {path}")
    return 0


class _Tasks:
    """The task of the pack at hand; kept while the next pack wants the same data and environment."""

    def __init__(self) -> None:
        self.static: str | None = None
        self.task: Any = None

    def get(self, config: Mapping[str, Any]) -> Any:
        from jaxdiff.cli.task import make_task
        from jaxdiff.cli.warm_start import check_networks

        static = sweeps.content_hash({key: value for key, value in config.items() if key not in ("hparams", "seed")})
        if static != self.static:
            self.static, self.task = static, make_task(config)
            check_networks(config, self.task)
        return self.task


def _first_task(plan: Plan, run: RunDir) -> _Tasks:
    """Builds the first pack's task, the likeliest to fail, and only then writes the run folder's stamp."""
    stamp.check_directory(run.path)
    tasks = _Tasks()
    task = tasks.get(plan.packs[0].members[0].config)
    if plan.repeats is not None:
        _check_same_data(plan.repeats, task.info)
    config = {**plan.config, "points": plan.points, "lanes": plan.lanes, "max_lanes": plan.max_lanes}
    stamp.write_stamp(run.path, stamp.stamp(plan.command, config, plan.study, task.info, plan.config["env"]))
    facts = getattr(task.env, "facts", {})
    if facts:
        files.write_json_atomic(run.facts_json, {key: value for key, value in facts.items() if not callable(value)})
    return tasks


def _check_same_data(folder: Path, info: Any) -> None:
    """Raises ValueError unless the data are those of the run in `folder`."""
    known = stamp.read_stamp(folder)["dataset"]
    if info is None or known is None:  # online runs have none
        return
    there = known["sha256"]
    if info.sha256 != there:
        raise ValueError(
            f"dataset {info.path} has changed since {folder}: its content hashes to {info.sha256[:16]} now and to "
            f"{there[:16]} then; bring the old file back, or train anew with `jaxdiff sweep`."
        )


def _lanes_of(plan: Plan, pack: sweeps.Pack) -> str:
    """The plan's lane mode; a repeated pack keeps the one it had, since another may differ in the last bits."""
    known = None if plan.repeats is None else RunDir(plan.repeats).pack(pack.id).pack_json
    return read_plan(known)["lanes"] if known is not None and known.is_file() else plan.lanes


def _run_pack(plan: Plan, run: RunDir, pack: sweeps.Pack, tasks: _Tasks, show: Any) -> int:
    """Trains one pack; returns how many of its members went non-finite."""
    from jaxdiff.cli.pack import PackRun

    task = tasks.get(pack.members[0].config)
    work = PackRun(pack, task, run.pack(pack.id), _lanes_of(plan, pack))
    work.loggers = _loggers(plan, run, pack, work.step)
    try:
        work.run(show)
    finally:
        for logger in work.loggers:
            logger.close()
    return len(work.frozen_at)


def _loggers(plan: Plan, run: RunDir, pack: sweeps.Pack, step: int) -> list[Any]:
    from jaxdiff.io import loggers

    wanted: list[Any] = []
    if plan.tensorboard:
        wanted.append(loggers.TensorBoardFanout(run.path / "tb" / pack.id, pack.members, resume_step=step or None))
    if plan.wandb_project:
        wanted.append(loggers.WandbFanout(plan.wandb_project, pack.members, plan.config, run_id=run.path.name))
    return wanted
