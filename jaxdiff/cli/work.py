"""`jaxdiff work DIR`: a worker trains the packs of a prepared study that are not finished.

  jaxdiff sweep --config=pointmaze --sweep=demo --workdir=DIR --prepare
  jaxdiff work DIR [--packs=ID,ID | --shard=I/N]
  jaxdiff work DIR --distributed [--coordinator=HOST:PORT --num_processes=N --process_id=I]

Any number of workers may run on one folder: each passes over packs that another one holds. Given again, the command
goes on from the last checkpoints, so that starting it again is all that a retry does.

Exit codes: 0 nothing is left to do here, 75 it was told to stop (SIGTERM, SIGUSR1) and has saved: give it again,
1 a pack failed, the others were still tried, 2 the request was wrong.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import datetime
import io
import platform
import sys
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from jaxdiff import sweep as sweeps
from jaxdiff.cli import config as configs
from jaxdiff.cli import hosts, places
from jaxdiff.cli.machine import use_all_cores, use_compilation_cache
from jaxdiff.cli.plan import AUTO, Plan, from_folder, known_lanes
from jaxdiff.cli.searching import read_search
from jaxdiff.cli.stopping import REQUEUE, StopRequest
from jaxdiff.cli.tasks import Tasks
from jaxdiff.io import files, packlist, progress, stamp
from jaxdiff.io.folders import PackDir, RunDir
from jaxdiff.io.locks import held
from jaxdiff.io.runs import read_plan

if TYPE_CHECKING:
    from jaxdiff.io.remote import Mirror

Show = Callable[[int, int, str], None]


def main(argv: list[str]) -> int:
    """`jaxdiff work DIR`."""
    flag_values = flags.FlagValues()
    flags.DEFINE_list("packs", [], "ids of packs, in this order; default: all", flag_values=flag_values)
    flags.DEFINE_string("shard", "0/1", "I/N: every N-th pack of the list from the I-th on", flag_values=flag_values)
    flags.DEFINE_bool("distributed", False, "one of several processes that train each pack together",
                      flag_values=flag_values)  # fmt: skip
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX cannot find it out",
                        flag_values=flag_values)  # fmt: skip
    flags.DEFINE_integer("num_processes", None, "how many there are", 1, flag_values=flag_values)
    flags.DEFINE_integer("process_id", None, "which one this is, from 0", 0, flag_values=flag_values)
    folders = configs.parse_flags(argv, flag_values, __doc__ or "")
    given = (flag_values.coordinator, flag_values.num_processes, flag_values.process_id)
    if any(value is not None for value in given) and not flag_values.distributed:
        raise ValueError("--coordinator, --num_processes and --process_id need --distributed.")
    if len(folders) != 1:
        raise ValueError(f"work takes one run folder, got {len(folders)}: jaxdiff work DIR")
    place = places.to_work(folders[0])
    plan = dataclasses.replace(from_folder(place.folder, ["work", *argv]), mirror=place.mirror)
    packs = packlist.pick(chosen(plan, flag_values.packs), read_shard(flag_values.shard))
    if flag_values.distributed:
        return _work_together(plan, packs, *given)
    use_all_cores(plan.lanes)
    use_compilation_cache()
    with StopRequest() as stop:
        return run_packs(plan, packs, Tasks(plan), stop).exit_code


def _work_together(
    plan: Plan, packs: Sequence[sweeps.Pack], coordinator: str | None, num_processes: int | None, process_id: int | None
) -> int:
    """One of several processes that walk the same packs in the same order; the first one takes locks and writes.

    Packs that failed before come last: a failure ends all processes, since some may wait for others for ever.
    """
    if plan.search:
        raise ValueError(f"--distributed cannot do --search={plan.search} yet; leave one of them out.")
    plan = dataclasses.replace(plan, lanes="shard" if plan.lanes == "auto" else plan.lanes)
    hosts.check_mode(plan.lanes, f"{plan.workdir} was prepared with --lanes={plan.lanes}")
    hosts.join(coordinator, num_processes, process_id)
    use_compilation_cache()
    try:
        has_failed = hosts.agreed([RunDir(plan.workdir).pack(pack.id).failed.is_file() for pack in packs])
        order = sorted(range(len(packs)), key=lambda i: bool(has_failed[i]))
        with StopRequest() as stop:
            return run_packs(plan, [packs[i] for i in order], Tasks(plan), hosts.any_of(stop)).exit_code
    finally:
        hosts.leave()


def chosen(plan: Plan, ids: Sequence[str]) -> list[sweeps.Pack]:
    """The plan's packs with these ids, all for none.

    Raises:
      KeyError: no such pack.
    """
    known = {pack.id: pack for pack in plan.packs}
    unknown = [name for name in ids if name not in known]
    if unknown:
        raise KeyError(f"{plan.workdir} has no pack {unknown[0]!r}; its packs.json lists {len(known)}.")
    return [known[name] for name in ids] if ids else list(plan.packs)


def read_shard(text: str) -> tuple[int, int]:
    """(index, count) of "I/N".

    Raises:
      ValueError: it is not two whole numbers.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise ValueError(f"--shard={text!r} must be I/N, for example --shard=0/4 of four workers.")
    return int(index), int(count)


@dataclasses.dataclass
class Outcome:
    """What came of some packs."""

    finished: int = 0
    passed: int = 0  # held by somebody else
    failed: dict[str, Exception] = dataclasses.field(default_factory=dict)  # pack id -> error
    is_stopped: bool = False

    @property
    def exit_code(self) -> int:
        """0, 1 or 75, as `jaxdiff work` gives it."""
        return REQUEUE if self.is_stopped else int(bool(self.failed))


def run_packs(plan: Plan, packs: Sequence[sweeps.Pack], tasks: Tasks, stop: Callable[[], bool]) -> Outcome:
    """Trains the packs that are not finished, one after another. A pack that fails does not keep the others back."""
    _check_libraries(plan)
    run, outcome = RunDir(plan.workdir), Outcome()
    total = sum(len(pack.members) * _updates(pack) for pack in packs)
    done, frozen = 0, 0
    shown = None if hosts.is_first() else io.StringIO()
    with progress.Progress(total, sum(len(pack.members) for pack in packs), stream=shown) as bar:
        for pack in packs:
            size = len(pack.members)

            def show(step: int, bad: int, note: str, base: int = done, lost: int = frozen, n: int = size) -> None:
                bar.update(base + step * n, lost + bad, note)

            with _taken(plan, run.pack(pack.id), outcome) as is_ours:
                if is_ours:
                    frozen += _try_pack(plan, pack, tasks, show, stop, outcome)
            if outcome.failed and hosts.are_many():
                break
            if outcome.is_stopped or (stop() and pack is not packs[-1]):
                outcome.is_stopped = True
                break
            done += size * _updates(pack)
            bar.update(done, frozen)
    return outcome


@contextlib.contextmanager
def _taken(plan: Plan, folder: PackDir, outcome: Outcome) -> Iterator[bool]:
    """Whether the pack is ours to train: it is not finished, and nobody else is at it."""
    if hosts.agreed(folder.is_done()):
        yield False
        return
    with held(folder.lock) if hosts.is_first() else contextlib.nullcontext(True) as is_free:
        is_ours = bool(hosts.agreed(is_free))
        outcome.passed += not is_ours
        if is_ours and plan.mirror is not None:
            _pull(plan.mirror, folder.id)
        yield is_ours and not hosts.agreed(folder.is_done())


def _pull(mirror: "Mirror", pack_id: str) -> None:
    """Brings a pack here; of many processes with disks of their own, all go on from what the first one has."""
    if hosts.is_first():
        mirror.pull_pack(pack_id)
        if hosts.are_many():
            mirror.push_pack(pack_id)  # its copy may be ahead
    hosts.agreed(True)  # only now the others
    if not hosts.is_first():
        mirror.pull_pack(pack_id)


def _try_pack(
    plan: Plan, pack: sweeps.Pack, tasks: Tasks, show: Show, stop: Callable[[], bool], outcome: Outcome
) -> int:
    """Trains one pack and notes what came of it; returns how many of its members went non-finite."""
    from jaxdiff.cli.pack import Stopped

    folder = RunDir(plan.workdir).pack(pack.id)
    try:
        lost = _train(plan, pack, tasks, show, stop)
    except Stopped as stopped:
        if hosts.is_first():
            print(f"jaxdiff: {stopped}; the same command goes on from there", file=sys.stderr)
        outcome.is_stopped = True
        return 0
    except Exception as error:
        if len(plan.packs) == 1:
            raise
        logging.exception("pack %s (%s) failed", pack.id, pack.members[0].label)
        outcome.failed[pack.id] = error
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        with contextlib.suppress(OSError):  # the disk may be what failed; of many, whoever failed says so
            files.write_json_atomic(folder.failed, {"error": line, "time": now, "host": platform.node()})
            if plan.mirror is not None and hosts.is_first():
                plan.mirror.push_pack(pack.id)
        return 0
    outcome.finished += 1
    return lost


def _train(plan: Plan, pack: sweeps.Pack, tasks: Tasks, show: Show, stop: Callable[[], bool]) -> int:
    from jaxdiff.cli.pack import PackRun, Stopped
    from jaxdiff.io.uploads import Uploads

    run = RunDir(plan.workdir)
    task, search = tasks.get(pack.members[0].config), read_search(plan.search)
    work = PackRun(pack, task, run.pack(pack.id), lanes_of(plan, pack), search=search)
    work.loggers = _loggers(plan, run, pack, work.step) if hosts.is_first() else []
    stopped: Stopped | None = None
    with contextlib.ExitStack() as stack:
        for logger in work.loggers:
            stack.callback(logger.close)
        mirror = plan.mirror if hosts.is_first() else None
        uploads = None if mirror is None else stack.enter_context(Uploads(mirror, pack.id))
        if uploads is not None:
            work.on_checkpoint = uploads.after
        try:
            work.run(show, stop)
            if hosts.is_first():
                run.pack(pack.id).failed.unlink(missing_ok=True)
        except Stopped as told:
            stopped = told
        if uploads is not None:
            uploads.finish()
    if stopped is not None:
        raise stopped
    return len(work.frozen_at)


def lanes_of(plan: Plan, pack: sweeps.Pack) -> str:
    """How the pack's lanes run: as the repeated pack's did, or as was measured or chosen for its group here.

    Another mode may differ in the last bits, so what one worker's probe found holds for all.
    """
    if plan.repeats is not None:
        known = RunDir(plan.repeats).pack(pack.id).pack_json
        if known.is_file():
            return str(read_plan(known)["lanes"])
    lanes = known_lanes(plan, pack)
    if lanes != AUTO:
        return lanes
    group, run = sweeps.group_id(pack.members[0]), RunDir(plan.workdir)
    for other in plan.packs:
        path = run.pack(other.id).pack_json
        if path.is_file() and len(other.members) > 1 and sweeps.group_id(other.members[0]) == group:
            return str(read_plan(path)["lanes"])
    return plan.lanes


def _check_libraries(plan: Plan) -> None:
    """Raises ImportError before anything is compiled for rows that could not be logged."""
    from jaxdiff.io import loggers

    if hosts.is_first():
        for extra, where in (("wandb", plan.wandb_project), ("mlflow", plan.mlflow_experiment)):
            if where:
                loggers.library(extra)


def _loggers(plan: Plan, run: RunDir, pack: sweeps.Pack, step: int) -> list[Any]:
    from jaxdiff.io import loggers
    from jaxdiff.io.mlflow_rows import MlflowFanout

    wanted: list[Any] = []
    if plan.tensorboard:
        wanted.append(loggers.TensorBoardFanout(run.path / "tb" / pack.id, pack.members, resume_step=step or None))
    if plan.wandb_project:
        wanted.append(loggers.WandbFanout(plan.wandb_project, pack.members, plan.config, run_id=run.path.name))
    if plan.mlflow_experiment:
        # A folder of the same name that is made anew is another run, and its rows are not those that MLflow has.
        run_id = f"{run.path.name}-{stamp.read_stamp(run.path)['created']}"
        wanted.append(MlflowFanout(plan.mlflow_experiment, pack.members, run_id=run_id))
    return wanted


def _updates(pack: sweeps.Pack) -> int:
    return int(pack.members[0].config["num_updates"])
