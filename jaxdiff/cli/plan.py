"""A study ready to run: checked members cut into packs, and what a run needs besides."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from jaxdiff import sweep as sweeps
from jaxdiff.cli.overrides import from_json
from jaxdiff.cli.study import make_members
from jaxdiff.io import packlist, stamp

if TYPE_CHECKING:
    from jaxdiff.io.remote import Mirror

MAX_LANES = 64
AUTO = "auto"  # of --max_lanes: by measuring; of --lanes: the fastest mode


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study ready to run."""

    command: list[str]
    config: dict[str, Any]  # before the study's points
    study: str | None
    points: list[dict[str, Any]]
    packs: list[sweeps.Pack]
    workdir: Path
    lanes: str
    max_lanes: int | str = MAX_LANES  # or AUTO
    tensorboard: bool = False
    wandb_project: str | None = None
    workers: int = 1  # that will share the study
    widths: Mapping[str, packlist.Width] = dataclasses.field(default_factory=dict)  # group -> what was measured
    search: str = ""  # see `searching`
    num_listed: int = 0  # packs that the folder has already: the first ones, which stay as they are
    repeats: Path | None = None  # the run folder that this plan repeats
    is_only_prepared: bool = False  # other processes train it
    mirror: "Mirror | None" = None  # where `workdir` is the local copy of a folder elsewhere
    mlflow_experiment: str | None = None


def make_plan(
    command: Sequence[str],
    config: ConfigDict,
    study: str | None,
    points: Sequence[Mapping[str, Any]],
    workdir: Path,
    lanes: str,
    *,
    max_lanes: int | str = MAX_LANES,
    tensorboard: bool = False,
    wandb_project: str | None = None,
    workers: int = 1,
) -> Plan:
    """Checks every member and cuts the study into packs; reads and writes nothing."""
    members = make_members(config, points, study)
    packs = cut(members, max_lanes, {}, workers)
    plain = [dict(point) for point in points]
    line = ["jaxdiff", *command]
    resolved = config.to_dict()
    return Plan(line, resolved, study, plain, packs, workdir, lanes, max_lanes, tensorboard, wandb_project, workers)


def as_in_folder(plan: Plan) -> Plan:
    """The plan as its run folder goes on: packs that are listed there stay as they are, new members get new packs.

    Raises:
      ValueError: the folder lists members that the plan has not: it holds another study, or a wider one.
    """
    known = packlist.read_list(plan.workdir)
    if known is None:
        return plan
    members = {member.id: member for pack in plan.packs for member in pack.members}
    packs = []
    for listed in known.packs:
        lost = [name for name in listed.members if name not in members]
        if lost:
            raise ValueError(
                f"{plan.workdir} holds another run: its pack {listed.id} ({listed.label}) has {_count(lost)} that this "
                "command has not. A study goes on with the points it had, and may get more: add yours to them, or use "
                "another --workdir."
            )
        packs.append(sweeps.Pack(listed.id, tuple(members[name] for name in listed.members)))
    there = {name for listed in known.packs for name in listed.members}
    fresh = [member for member in members.values() if member.id not in there]
    new = cut(fresh, plan.max_lanes, known.widths, plan.workers)
    return dataclasses.replace(plan, packs=packs + new, widths=known.widths, num_listed=len(packs))


def cut(
    members: Iterable[sweeps.Member], max_lanes: int | str, widths: Mapping[str, packlist.Width], workers: int
) -> list[sweeps.Pack]:
    """Members as packs: grouped by program, then at most so many of them side by side.

    Args:
      members: of any groups.
      max_lanes: members of a pack, at most; with AUTO the group's own width, `MAX_LANES` where it has none.
      widths: group -> its width.
      workers: each of them gets a pack of every group that has enough members.
    """
    packs = []
    for group in sweeps.group_members(members):
        known = widths.get(sweeps.group_id(group[0])) if max_lanes == AUTO else None
        width = known.width if known is not None else MAX_LANES if isinstance(max_lanes, str) else max_lanes
        packs += sweeps.split_packs(group, min(width, widest_for(len(group), workers)))
    return packs


def widest_for(num_members: int, workers: int) -> int:
    """The size of even packs that are as few as can be, and still as many as the workers or as the members.

    ceil(num_members / n), n = ceil(num_members / w), w = max {w: ceil(num_members / w) >= min(workers, num_members)}
    """
    widest = num_members if workers == 1 else max(-(-num_members // (workers - 1)) - 1, 1)
    return -(-num_members // -(-num_members // widest))


def fresh_groups(plan: Plan) -> list[tuple[sweeps.Member, ...]]:
    """The members that the folder has not listed yet, by group."""
    return sweeps.group_members(member for pack in plan.packs[plan.num_listed :] for member in pack.members)


def read_max_lanes(text: str) -> int | str:
    """The value of --max_lanes.

    Raises:
      ValueError: neither auto nor a positive whole number.
    """
    if text != AUTO and not (text.isdecimal() and int(text) >= 1):
        raise ValueError(f"--max_lanes={text!r} must be a whole number from 1 on, or auto to measure what is best.")
    return text if text == AUTO else int(text)


def known_lanes(plan: Plan, pack: sweeps.Pack) -> str:
    """The plan's lane mode or, where that is auto, the one that was measured for the pack's group."""
    known = plan.widths.get(sweeps.group_id(pack.members[0]))
    return known.mode if plan.lanes == AUTO and known is not None and len(pack.members) > 1 else plan.lanes


def listed(plan: Plan) -> packlist.PackList:
    """The plan's packs as packs.json has them."""
    packs = [
        packlist.ListedPack(
            id=pack.id,
            members=tuple(member.id for member in pack.members),
            num_updates=int(pack.members[0].config["num_updates"]),
            label=pack.members[0].label,
            group=sweeps.group_id(pack.members[0]),
        )
        for pack in plan.packs
    ]
    return packlist.PackList(tuple(packs), plan.tensorboard, plan.wandb_project, plan.widths, plan.mlflow_experiment)


def from_stamp(folder: Path, command: Sequence[str]) -> Plan:
    """The plan of a run folder's run.json, cut into packs anew.

    Raises:
      ValueError: it is not a run folder, or run.json is damaged.
    """
    known = stamp.read_stamp(folder)
    settings = dict(known["config"])
    points, lanes, max_lanes = (settings.pop(name) for name in ("points", "lanes", "max_lanes"))
    search = settings.pop("search", "")
    plan = make_plan(command, from_json(settings), known["study"], points, folder, lanes, max_lanes=max_lanes)
    return dataclasses.replace(plan, search=search)


def from_folder(folder: Path, command: Sequence[str]) -> Plan:
    """The plan of a run folder with the packs that its packs.json lists.

    Raises:
      ValueError: as `from_stamp`, or packs.json is damaged or lists other members.
    """
    plan, found = from_stamp(folder, command), packlist.read_list(folder)
    if found is None:
        return plan
    logged = {name: getattr(found, name) for name in ("tensorboard", "wandb_project", "mlflow_experiment")}
    return dataclasses.replace(as_in_folder(plan), **logged)


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} member{'s' * (len(names) != 1)}"
