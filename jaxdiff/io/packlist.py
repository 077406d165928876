"""packs.json: the packs of a study in the order in which workers take them, and what all workers log to.

The list is the whole agreement between those who plan a study, those who schedule it and those who train it. It only
grows: a study that is widened keeps its packs and gets new ones behind them. Widths that were measured for its groups
stay with it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any

from jaxdiff.io import files
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import read_plan

ENTRY = ("id", "members", "num_updates", "label", "group")


@dataclasses.dataclass(frozen=True)
class ListedPack:
    """One line of the list."""

    id: str
    members: tuple[str, ...]  # member ids, in lane order
    num_updates: int
    label: str  # of the first member, for people
    group: str  # packs of one group share their programs


@dataclasses.dataclass(frozen=True)
class Width:
    """How many members of a group a pack should have, and what was measured to say so."""

    width: int
    mode: str  # lane mode, the best one at this width
    curve: Mapping[int, float]  # width -> member-updates per second
    bytes_per_member: int | None  # state and workspace at this width; None where nothing could be measured
    limit: int | None  # bytes of the device that it was measured on; None where it does not say


@dataclasses.dataclass(frozen=True)
class PackList:
    """packs.json."""

    packs: tuple[ListedPack, ...]
    tensorboard: bool = False
    wandb_project: str | None = None
    widths: Mapping[str, Width] = dataclasses.field(default_factory=dict)  # group -> its width, where measured
    mlflow_experiment: str | None = None

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes packs.json, atomically."""
        files.write_json_atomic(RunDir(directory).packs_json, dataclasses.asdict(self))


def read_list(directory: str | os.PathLike[str]) -> PackList | None:
    """Reads packs.json; None where there is none. A folder from before it existed: its packs by name.

    Raises:
      ValueError: the file is damaged.
    """
    run = RunDir(directory)
    if not run.packs_json.is_file():
        packs = _from_folders(run)
        return PackList(packs) if packs else None
    value = files.read_json_object(run.packs_json, ("packs",))
    packs = tuple(_entry(entry, run) for entry in value["packs"])
    widths = {group: _width(entry, run) for group, entry in value.get("widths", {}).items()}
    logged = (bool(value.get("tensorboard", False)), value.get("wandb_project"))
    return PackList(packs, *logged, widths, value.get("mlflow_experiment"))


def pick(packs: Sequence[Any], shard: tuple[int, int]) -> list[Any]:
    """Every count-th pack from the index-th on: index, count = shard. All shards together are the whole list.

    Raises:
      ValueError: not 0 <= index < count.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {index}/{count}: the first number must be 0 to {count - 1}, the second at least 1.")
    return list(packs[index::count])


def _entry(value: Any, run: RunDir) -> ListedPack:
    missing = [key for key in ENTRY if not isinstance(value, dict) or key not in value]
    if missing:
        raise ValueError(f"{run.packs_json}: a pack has no {missing[0]!r}: it was edited; restore a copy.")
    return ListedPack(**{key: value[key] for key in ENTRY} | {"members": tuple(value["members"])})


def _width(value: Any, run: RunDir) -> Width:
    missing = [field.name for field in dataclasses.fields(Width) if field.name not in value]
    if missing:
        raise ValueError(f"{run.packs_json}: a width has no {missing[0]!r}: it was edited; restore a copy.")
    curve = {int(width): float(rate) for width, rate in value["curve"].items()}  # JSON's keys are text
    return Width(**{**value, "curve": curve})


def _from_folders(run: RunDir) -> tuple[ListedPack, ...]:
    plans = [read_plan(run.pack(name).pack_json) for name in run.list_packs() if run.pack(name).pack_json.is_file()]
    return tuple(
        ListedPack(
            id=plan["id"],
            members=tuple(member["id"] for member in plan["members"]),
            num_updates=int(plan.get("num_updates", 0)),
            label=plan["members"][0]["label"],
            group="",
        )
        for plan in plans
    )
