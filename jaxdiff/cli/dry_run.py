"""`--dry_run`: what a study would take, from its shapes and from a few updates and environment steps that are measured.

The workdir is neither read nor written. A dataset that can be generated is generated, as training would.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import time
from typing import Any

import jax

from jaxdiff import envs, sweep
from jaxdiff.cli.memory import device_bytes, member_bytes, num_bytes, workspace
from jaxdiff.cli.plan import Plan, known_lanes
from jaxdiff.cli.programs import choose_programs, fresh_lanes, make_evaluation, seconds_per_update
from jaxdiff.cli.task import Task, make_task
from jaxdiff.cli.width import in_words, measured
from jaxdiff.io.packlist import Width
from jaxdiff.io.report.tables import duration
from jaxdiff.types import PyTree

PROBE_STEPS = 10  # environment steps of the evaluation that is measured


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one group, members that share a program, would take."""

    packs: tuple[sweep.Pack, ...]
    task: Task
    mode: str
    probe: Mapping[str, float]  # mode -> seconds per update of all lanes of the first pack; empty without a choice
    compile_seconds: float  # of one pack: every probed update loop and the evaluation
    update_seconds: float  # of one update of all lanes of the first pack
    evaluation_seconds: float  # of one evaluation of the first pack
    state_bytes: int  # of one member
    workspace_bytes: int | None  # of the first pack's program beyond its state; None where the backend does not say
    width: Width | None = None  # where it was measured

    @property
    def num_members(self) -> int:
        return sum(len(pack.members) for pack in self.packs)

    @property
    def config(self) -> Mapping[str, Any]:
        """Of the first member."""
        return self.packs[0].members[0].config

    @property
    def num_evaluations(self) -> int:
        """Per member: at every interval and after the last update."""
        return math.ceil(int(self.config["num_updates"]) / int(self.config["eval_interval"]))

    @property
    def shapes(self) -> int:
        """Update loops to compile: packs of one size share theirs."""
        return len({len(pack.members) for pack in self.packs})

    @property
    def training_seconds(self) -> float:
        """All packs, each taken to cost as much per member as the first."""
        return self._weight * int(self.config["num_updates"]) * self.update_seconds

    @property
    def evaluating_seconds(self) -> float:
        return self._weight * self.num_evaluations * self.evaluation_seconds

    @property
    def compiling_seconds(self) -> float:
        return self.shapes * self.compile_seconds

    @property
    def total_seconds(self) -> float:
        return self.training_seconds + self.evaluating_seconds + self.compiling_seconds

    def seconds_of_a_worker(self, workers: int) -> float:
        """What one of several workers has to do: its share of the packs, rounded up to whole ones, and all compiles."""
        share = math.ceil(len(self.packs) / workers) / len(self.packs)
        return share * (self.training_seconds + self.evaluating_seconds) + self.compiling_seconds

    @property
    def pack_bytes(self) -> int:
        """The first pack's state and workspace."""
        return self.state_bytes * len(self.packs[0].members) + (self.workspace_bytes or 0)

    @property
    def peak_bytes(self) -> int:
        """The first pack's state and workspace, and the data."""
        return self.pack_bytes + num_bytes(self.task.dataset)

    @property
    def _weight(self) -> float:
        return self.num_members / len(self.packs[0].members)


def describe(plan: Plan) -> str:
    """The plan, group by group, and its totals, as text for a terminal. Compiles and measures one pack per group."""
    plan = measured(plan, make_task)
    groups = [
        estimate(packs, known_lanes(plan, packs[0]), plan.widths.get(sweep.group_id(packs[0].members[0])))
        for packs in packs_by_group(plan.packs)
    ]
    members = _count(sum(len(pack.members) for pack in plan.packs), "member")
    cut = f"{_count(len(groups), 'group')} that share a program, {_count(len(plan.packs), 'pack')}"
    lines = [
        f"dry run: nothing is trained and nothing is written to {plan.workdir}",
        f"{plan.study or 'no study'}: {members}, {cut}, on {jax.device_count()} x {jax.devices()[0].device_kind}",
    ]
    for number, group in enumerate(groups, 1):
        lines += ["", f"group {number}: {', '.join(_labels(group))}", *_details(group)]
    lines += [
        "",
        *_totals(groups, plan.workers),
        f"memory: {_size(max(group.peak_bytes for group in groups))} at most at a time{_room()}",
    ]
    return "\n".join(lines)


def packs_by_group(packs: Sequence[sweep.Pack]) -> list[tuple[sweep.Pack, ...]]:
    """Packs that differ only in traced numbers, the widest of each group first."""
    groups: dict[str, list[sweep.Pack]] = {}
    for pack in packs:
        groups.setdefault(sweep.group_id(pack.members[0]), []).append(pack)
    return [tuple(sorted(group, key=lambda pack: -len(pack.members))) for group in groups.values()]


def estimate(packs: Sequence[sweep.Pack], lanes: str, width: Width | None = None) -> Estimate:
    """Measures the first of a group's packs.

    Args:
      packs: of one group, the widest first.
      lanes: the lane mode, or auto.
      width: the group's, where it was measured.

    Raises:
      ValueError, KeyError, FileNotFoundError, ImportError: whatever is wrong with the config, as in training.
    """
    members = packs[0].members
    task = make_task(members[0].config)
    programs, probe = choose_programs(task, members, lanes)
    workspace_bytes = workspace(programs)
    update_seconds = probe[programs.mode] if probe else seconds_per_update(programs)
    compile_seconds, evaluation_seconds = _evaluation_seconds(task, members, programs.mode)
    if isinstance(task.env, envs.HostEnv):
        task.env.close()
    return Estimate(
        packs=tuple(packs),
        task=task,
        mode=programs.mode,
        probe=probe,
        compile_seconds=programs.compile_seconds + compile_seconds,
        update_seconds=update_seconds,
        evaluation_seconds=evaluation_seconds,
        state_bytes=member_bytes(task, members[0]),
        workspace_bytes=workspace_bytes,
        width=width,
    )


def _evaluation_seconds(task: Task, members: Sequence[sweep.Member], mode: str) -> tuple[float, float]:
    """Seconds to compile an evaluation and to run it to the task's time limit, scaled up from a few steps of it."""
    limit = task.spec.max_episode_steps
    steps = min(PROBE_STEPS, limit)
    spec = dataclasses.replace(task.spec, max_episode_steps=steps)
    if isinstance(task.env, envs.HostEnv):
        task.env.spec = spec
        probed, repeat = members[:1], len(members)  # the host steps one member after another
    else:
        task = dataclasses.replace(task, env=task.env._replace(spec=spec))
        probed, repeat = members, 1
    evaluation = make_evaluation(task, members[0].config, mode)
    lanes = fresh_lanes(task, probed, mode)
    first, second = (_seconds(evaluation, lanes, step) for step in (0, 1))
    return max(first - second, 0.0), second * repeat * limit / steps


def _seconds(evaluation: Any, lanes: PyTree, step: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(evaluation(lanes, step).returns)
    return time.perf_counter() - start


def _totals(groups: Sequence[Estimate], workers: int) -> list[str]:
    seconds = sum(group.total_seconds for group in groups)
    loops = _count(sum(group.shapes for group in groups), "update loop")
    hours = f"{seconds * jax.device_count() / 3600:.2g} device-hours"
    total = f"total: {loops} to compile, about {duration(seconds)}, {hours}; checkpoints and report come on top"
    if workers == 1:
        return [total]
    share = duration(sum(group.seconds_of_a_worker(workers) for group in groups))
    return [total, f"{workers} workers like this one: about {share}, each compiling what it trains"]


def _details(group: Estimate) -> list[str]:
    config, dataset, info = group.config, group.task.dataset, group.task.info
    name = config["dataset"] if info is None else info.name
    rows = 0 if dataset is None else dataset.num_transitions
    probed = ", ".join(f"{mode} {1000 * seconds:.2f} ms" for mode, seconds in group.probe.items())
    workspace = "not told by this backend" if group.workspace_bytes is None else _size(group.workspace_bytes)
    speed = f"{len(group.packs[0].members) / group.update_seconds:,.0f} member-updates/s"
    loops = f"{_count(group.shapes, 'update loop')}, {duration(group.compile_seconds)} each"
    times = f"{_count(group.num_evaluations, 'time')}, {int(config['eval_episodes'])} episodes per member"
    sizes = " + ".join(str(len(pack.members)) for pack in group.packs)
    each = f"{duration(group.training_seconds / group.num_members)} per member"
    together = f"{_size(-(-group.pack_bytes // len(group.packs[0].members)))} per member with both"
    saved = f"a checkpoint every {duration(int(config['checkpoint_interval']) * group.update_seconds)}"
    training = f"{duration(group.training_seconds)} at {speed}, {each}; {saved}"
    early = "; less where episodes end early" if isinstance(group.task.env, envs.HostEnv) else ""
    return [
        f"  members   {group.num_members} in {_count(len(group.packs), 'pack')} of {sizes}",
        f"  task      {config['env']}; data {name}, {rows:,} transitions, {_size(num_bytes(dataset))}",
        f"  lanes     {group.mode}" + (f"; probe, per update of a pack: {probed}" if probed else ""),
        *([] if group.width is None else [f"  width     {in_words(group.width)}"]),
        f"  memory    {_size(group.state_bytes)} of state per member; workspace of a pack {workspace}; {together}",
        f"  compile   {loops} with probe and evaluation; less where the compilation cache has them",
        f"  train     {int(config['num_updates']):,} updates: {training}",
        f"  evaluate  {times}: {duration(group.evaluating_seconds)}, from a few environment steps{early}",
    ]


def _labels(group: Estimate) -> list[str]:
    labels = list(dict.fromkeys(member.label for pack in group.packs for member in pack.members))
    return labels if len(labels) <= 4 else [*labels[:3], f"and {len(labels) - 3} more settings"]


def _room() -> str:
    """How much the device has, where it says."""
    limit = device_bytes()
    where = "this machine has to spare" if jax.devices()[0].platform == "cpu" else "each device gives JAX"
    return "" if limit is None else f" of the {_size(limit)} that {where}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(number: int) -> str:
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
