"""A run folder read back, finished or not: see `folders` for where each file lies."""

from collections.abc import Callable, Iterable
import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdiff.io import files
from jaxdiff.io.folders import PackDir, RunDir

PLAN = ("id", "lanes", "config", "members")  # what every pack.json has


@dataclasses.dataclass(frozen=True)
class Member:
    """One setting and seed. Members with equal `label` are seeds of one setting."""

    id: str
    label: str
    algorithm: str
    overrides: dict[str, Any]
    seed: int


@dataclasses.dataclass(frozen=True)
class Pack:
    """What is on disk of one pack. A file that is not there is None; one that cannot be read is named in `problems`."""

    id: str
    dir: PackDir
    lanes: str | None  # vmap, map, shard or pmap; None when pack.json is missing
    config: dict[str, Any]
    num_updates: int
    members: tuple[Member, ...]  # L of them, in lane order
    train: dict[str, np.ndarray] | None  # step [T], wall_seconds [T], alive [T, L], metrics [T, L]
    eval: dict[str, np.ndarray] | None  # step [T], wall_seconds [T], returns, scores, lengths [T, L, M]
    rollouts: dict[str, np.ndarray] | None  # obs [L, R, H, O], action, mask [L, R, H]
    done: dict[str, Any] | None
    problems: tuple[str, ...] = ()
    plans: dict[str, np.ndarray] | None = None  # of a planner, see `report.plans`: obs, action, value, path, calls
    # Where a study has several tasks: of the pack's own; run.json and facts.json are of the first one.
    dataset: dict[str, Any] | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def status(self) -> Literal["finished", "started", "not started"]:
        """`finished` has done.json, `started` has rows, `not started` has neither."""
        if self.done is not None:
            return "finished"
        rows = [len(table["step"]) for table in (self.train, self.eval) if table is not None]
        return "started" if any(rows) else "not started"

    @property
    def last_step(self) -> int:
        """Updates applied as far as the files know; 0 when nothing was logged."""
        if self.done is not None and "num_updates" in self.done:
            return int(self.done["num_updates"])
        tables = [table for table in (self.train, self.eval) if table is not None]
        return max((int(table["step"][-1]) for table in tables if len(table["step"])), default=0)

    def nonfinite(self) -> dict[str, int]:
        """Member id -> step at which it was found non-finite: as done.json says, else from the `alive` column."""
        if self.done is not None:
            return {entry["member"]: int(entry["step"]) for entry in self.done.get("nonfinite", [])}
        if self.train is None or "alive" not in self.train:
            return {}
        alive, step = self.train["alive"].astype(bool), self.train["step"]
        dead = {i: np.flatnonzero(~alive[:, i]) for i in range(min(alive.shape[1], len(self.members)))}
        return {self.members[i].id: int(step[rows[0]]) for i, rows in dead.items() if len(rows)}

    def stopped(self) -> dict[str, int]:
        """Member id -> step at which a search took it out: as done.json says, else from what it has no numbers for."""
        if self.done is not None:
            return {entry["member"]: int(entry["step"]) for entry in self.done.get("stopped", [])}
        if self.eval is None or not len(self.eval["step"]) or "returns" not in self.eval:
            return {}
        has, failed = np.isfinite(self.eval["returns"]).all(axis=-1), self.nonfinite()
        gone = [i for i, member in enumerate(self.members) if not has[-1, i] and has[0, i] and member.id not in failed]
        return {self.members[i].id: int(self.eval["step"][np.flatnonzero(has[:, i])[-1]]) for i in gone}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder read into memory."""

    dir: RunDir
    stamp: dict[str, Any]  # run.json
    facts: dict[str, Any]  # facts.json, empty when there is none
    packs: tuple[Pack, ...]
    problems: tuple[str, ...] = ()


def load_run(path: str | os.PathLike[str]) -> Run:
    """Reads a run folder, finished or not.

    What is missing or cut short (a pack that never started, one that died before its first evaluation) is None in its
    `Pack` and, if damaged, named in `problems`; it never stops the rest from being read.

    Raises:
      ValueError: there is no readable run.json: this is not a run folder.
    """
    run_dir = RunDir(path)
    if not run_dir.run_json.is_file():
        raise ValueError(f"{run_dir.path} is not a run folder: it has no run.json; give the --workdir of a run.")
    problems: list[str] = []
    stamp = files.read_json_object(run_dir.run_json)
    facts = read_or_note(run_dir.facts_json, files.read_json, problems) or {}
    packs = tuple(_load_pack(run_dir.pack(pack_id)) for pack_id in run_dir.list_packs())
    return Run(run_dir, stamp, facts, packs, tuple(problems))


def read_plan(path: Path, config_keys: Iterable[str] = ()) -> dict[str, Any]:
    """Reads a pack.json: id, lanes, config, members, num_updates and more.

    Raises:
      FileNotFoundError: the pack never started.
      ValueError: it is damaged, or lacks what every pack.json has, or one of `config_keys` in its config.
    """
    plan = files.read_json_object(path, PLAN)
    config, members = plan["config"], plan["members"]
    if not isinstance(config, dict) or not isinstance(members, list) or not members:
        raise ValueError(f"{path} needs a config and at least one member: it was edited; restore a copy.")
    _require(config, config_keys, f"{path}: its config")
    for member in members:
        _require(member, (field.name for field in dataclasses.fields(Member)), f"{path}: a member")
    return plan


def _require(value: Any, keys: Iterable[str], what: str) -> None:
    missing = [key for key in keys if not isinstance(value, dict) or key not in value]
    if missing:
        raise ValueError(f"{what} has no {', '.join(map(repr, missing))}: it was edited; restore a copy.")


def _load_pack(pack_dir: PackDir) -> Pack:
    problems: list[str] = []
    plan = read_or_note(pack_dir.pack_json, read_plan, problems)
    if plan is None and not problems:
        problems.append("pack.json is missing: the pack never started")
    plan = plan or {}
    return Pack(
        id=pack_dir.id,
        dir=pack_dir,
        lanes=plan.get("lanes"),
        config=plan.get("config", {}),
        num_updates=int(plan.get("num_updates", 0)),
        members=tuple(_member(entry) for entry in plan.get("members", [])),
        train=_table(pack_dir.train, problems),
        eval=_table(pack_dir.eval, problems),
        rollouts=read_or_note(pack_dir.rollouts, files.read_npz, problems),
        done=read_or_note(pack_dir.done, files.read_json, problems),
        plans=read_or_note(pack_dir.plans, files.read_npz, problems),
        dataset=plan.get("dataset"),
        facts=plan.get("facts") or {},
        problems=tuple(problems),
    )


def _member(entry: dict[str, Any]) -> Member:
    return Member(**{field.name: entry[field.name] for field in dataclasses.fields(Member)})


def _table(path: Path, problems: list[str]) -> dict[str, np.ndarray] | None:
    table = read_or_note(path, files.read_npz, problems)
    if table is not None and "step" not in table:
        problems.append(f"{path.name} has no column 'step'")
        return None
    return table


def read_or_note(path: Path, read: Callable[[Path], Any], problems: list[str]) -> Any:
    """What `read` makes of the file; None when it is not there, or, with a line in `problems`, when it is damaged."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        problems.append(f"{path.name}: {error}")
        return None
