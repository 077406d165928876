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
    max_lanes: int = MAX_LANES
    tensorboard: bool = False
    wandb_project: str | None = None
    repeats: Path | None = None  # the run folder that this plan repeats
    is_only_prepared: bool = False  # other processes train it
    mirror: "Mirror | None" = None  # where `workdir` is the local copy of a folder elsewhere


def make_plan(
    command: Sequence[str],
    config: ConfigDict,
    study: str | None,
    points: Sequence[Mapping[str, Any]],
    workdir: Path,
    lanes: str,
    *,
    max_lanes: int = MAX_LANES,
    tensorboard: bool = False,
    wandb_project: str | None = None,
) -> Plan:
    """Checks every member and cuts the study into packs; reads and writes nothing."""
    members = make_members(config, points, study)
    packs = cut(members, max_lanes)
    plain = [dict(point) for point in points]
    line = ["jaxdiff", *command]
    return Plan(line, config.to_dict(), study, plain, packs, workdir, lanes, max_lanes, tensorboard, wandb_project)


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
    return dataclasses.replace(plan, packs=packs + cut(fresh, plan.max_lanes))


def cut(members: Iterable[sweeps.Member], max_lanes: int) -> list[sweeps.Pack]:
    """Members as packs: grouped by program, then at most `max_lanes` of them side by side."""
    return [pack for group in sweeps.group_members(members) for pack in sweeps.split_packs(group, max_lanes)]


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
    return packlist.PackList(tuple(packs), plan.tensorboard, plan.wandb_project)


def from_folder(folder: Path, command: Sequence[str]) -> Plan:
    """The plan of a run folder, from its run.json and packs.json.

    Raises:
      ValueError: it is not a run folder, one of the two is damaged, or they do not fit together.
    """
    known = stamp.read_stamp(folder)
    settings = dict(known["config"])
    points, lanes, max_lanes = (settings.pop(name) for name in ("points", "lanes", "max_lanes"))
    plan = make_plan(command, from_json(settings), known["study"], points, folder, lanes, max_lanes=max_lanes)
    found = packlist.read_list(folder)
    if found is None:
        return plan
    return dataclasses.replace(as_in_folder(plan), tensorboard=found.tensorboard, wandb_project=found.wandb_project)


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} member{'s' * (len(names) != 1)}"
