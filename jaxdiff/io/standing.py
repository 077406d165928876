"""How a study stands, from its small files alone: what is finished, at work, failed or waiting, and how it goes.

Checkpoints, rollouts and metrics are not opened and JAX is not imported, so that a study of a thousand members is read
in a second, also while others work on it. Nothing is written.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from pathlib import Path
import time
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxdiff.io import files, packlist, tasks
from jaxdiff.io.folders import PackDir, RunDir
from jaxdiff.io.locks import is_held
from jaxdiff.io.runs import read_or_note, read_plan

State = Literal["finished", "running", "stopped", "failed", "waiting"]
STATES: tuple[State, ...] = ("finished", "running", "stopped", "failed", "waiting")
WINDOW = 20  # rows over which the speed is measured
QUIET_SECONDS = 600.0  # without a write, after which a pack that no process is seen to hold counts as stopped
QUIET_CHECKPOINTS = 3.0  # or as many checkpoints' time, where that is longer


@dataclasses.dataclass(frozen=True)
class PackStanding:
    """One pack."""

    id: str
    label: str  # of its first member
    members: int
    num_updates: int
    state: State
    step: int = 0  # updates applied, as far as written down
    speed: float | None = None  # member-updates per second over the last rows; None with fewer than two
    nonfinite: int = 0
    error: str | None = None  # of failed.json
    written: float | None = None  # when the newest file was, in seconds since 1970
    is_held: bool = False  # a process is seen to hold its lock
    problems: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()  # [L]
    newest: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)  # scores, returns [L]; NaN: none counts
    evaluated: int | None = None  # step of `newest`
    task: str = ""  # where the study has several, and the pack has begun; `labels` are then without it

    @property
    def done(self) -> int:
        """Member-updates applied."""
        return self.members * (self.num_updates if self.state == "finished" else min(self.step, self.num_updates))


class SettingStanding(NamedTuple):
    """The seeds of one setting that have an evaluation, none of them non-finite."""

    label: str
    mean: float  # over seeds, of each one's newest evaluation
    seeds: int
    step: int  # of the seed that is furthest behind
    is_finished: bool  # all these seeds are


@dataclasses.dataclass(frozen=True)
class Standing:
    """One study."""

    path: Path
    packs: tuple[PackStanding, ...]

    def count(self, state: State) -> int:
        """Packs in that state."""
        return sum(pack.state == state for pack in self.packs)

    @property
    def members(self) -> int:
        return sum(pack.members for pack in self.packs)

    @property
    def members_finished(self) -> int:
        return sum(pack.members for pack in self.packs if pack.state == "finished")

    @property
    def nonfinite(self) -> int:
        return sum(pack.nonfinite for pack in self.packs)

    @property
    def done(self) -> int:
        """Member-updates applied."""
        return sum(pack.done for pack in self.packs)

    @property
    def total(self) -> int:
        """Member-updates of the whole study."""
        return sum(pack.members * pack.num_updates for pack in self.packs)

    @property
    def speed(self) -> float | None:
        """Member-updates per second of all running packs together; None where none has told yet."""
        speeds = [pack.speed for pack in self.packs if pack.state == "running" and pack.speed is not None]
        return sum(speeds) if speeds else None

    @property
    def seconds_left(self) -> float | None:
        """Of the whole study, if it goes on at this speed; None where that is not known."""
        return None if self.speed is None else (self.total - self.done) / self.speed

    @property
    def written(self) -> float | None:
        """When the newest file was written, in seconds since 1970."""
        return max((pack.written for pack in self.packs if pack.written is not None), default=None)

    @property
    def quantity(self) -> Literal["scores", "returns"]:
        """What the evaluations are compared by: scores where every evaluated pack has them."""
        evaluated = [pack.newest for pack in self.packs if pack.newest]
        return "scores" if evaluated and all("scores" in newest for newest in evaluated) else "returns"

    def by_task(self) -> list["Standing"]:
        """The begun packs of each task, in the order of their packs; the standing itself where there is one task."""
        names = dict.fromkeys(pack.task for pack in self.packs if pack.task)
        packs = [tuple(pack for pack in self.packs if pack.task == name) for name in names]
        return [dataclasses.replace(self, packs=own) for own in packs] or [self]

    def is_done(self) -> bool:
        """Whether every pack has finished, and there is one."""
        return bool(self.packs) and all(pack.state == "finished" for pack in self.packs)

    def settings(self) -> list[SettingStanding]:
        """Settings by the mean over seeds of the newest evaluation, best first; those with none are left out."""
        found: dict[str, list[tuple[float, int, bool]]] = {}
        for pack in self.packs:
            for label, value in zip(pack.labels, pack.newest.get(self.quantity, ()), strict=False):
                if np.isfinite(value):
                    seed = (float(value), pack.evaluated or 0, pack.state == "finished")
                    found.setdefault(label, []).append(seed)
        settings = [
            SettingStanding(label, float(np.mean(values)), len(values), min(steps), all(finished))
            for label, (values, steps, finished) in ((name, zip(*seeds, strict=True)) for name, seeds in found.items())
        ]
        return sorted(settings, key=lambda setting: (-setting.mean, setting.label))


def read_standing(
    path: str | os.PathLike[str], before: Standing | None = None, *, now: float | None = None
) -> Standing:
    """Reads how the study in a folder stands.

    Args:
      path: a run folder.
      before: what was read earlier; its finished packs are not read again.
      now: seconds since 1970; default: the clock.

    Raises:
      ValueError: it is not a run folder, or its packs.json is damaged.
    """
    run, now = RunDir(path), time.time() if now is None else now
    if not run.run_json.is_file() and not run.packs_json.is_file():
        raise ValueError(f"{run.path} is not a run folder: it has no run.json; give the --workdir of a run.")
    listed = packlist.read_list(run.path) if run.packs_json.is_file() else None
    entries = {entry.id: entry for entry in listed.packs} if listed is not None else {}
    known = {pack.id: pack for pack in before.packs if pack.state == "finished"} if before is not None else {}
    ids = [*entries, *(pack_id for pack_id in run.list_packs() if pack_id not in entries)]
    naming = tasks.of_stamp(_stamp(run))
    packs = (known.get(pack_id) or _pack(run.pack(pack_id), entries.get(pack_id), now, naming) for pack_id in ids)
    return Standing(run.path, tuple(packs))


def _stamp(run: RunDir) -> dict[str, Any]:
    """run.json; nothing where it is missing or damaged, which is for others to say."""
    found: dict[str, Any] = read_or_note(run.run_json, files.read_json_object, []) or {}
    return found


def _pack(folder: PackDir, entry: packlist.ListedPack | None, now: float, naming: tasks.Naming) -> PackStanding:
    problems: list[str] = []
    plan = read_or_note(folder.pack_json, read_plan, problems) or {}
    done = read_or_note(folder.done, files.read_json_object, problems)
    failure = read_or_note(folder.failed, files.read_json_object, problems)
    train = read_or_note(folder.train, lambda at: files.read_npz(at, ("step", "wall_seconds", "alive")), problems) or {}
    table = read_or_note(folder.eval, lambda at: files.read_npz(at, ("step", "scores", "returns")), problems) or {}
    members = [member["id"] for member in plan.get("members", [])] or list(entry.members if entry else ())
    task, labels = _named(plan, naming)
    step = max((int(columns["step"][-1]) for columns in (train, table) if len(columns.get("step", ()))), default=0)
    per_update, speed = _pace(train, len(members))
    dead = _dead(done, train, members)
    written = {name: _mtime(getattr(folder, name)) for name in ("train", "eval", "done", "failed", "pack_json", "lock")}
    holds = done is None and is_held(folder.lock)
    state: State = "finished"
    if not folder.is_done():
        patience = _patience(plan.get("config", {}), per_update)
        state = _state(written, failure is not None or folder.failed.is_file(), holds, now, patience)
    return PackStanding(
        id=folder.id,
        label=str(plan["members"][0]["label"]) if labels else (entry.label if entry else folder.id),
        members=len(members),
        num_updates=int(plan.get("num_updates") or (entry.num_updates if entry else 0)),
        state=state,
        step=step,
        speed=speed if state == "running" else None,
        nonfinite=len(dead),
        error=str((failure or {}).get("error", "failed.json cannot be read")) if state == "failed" else None,
        written=max((at for at in written.values() if at is not None), default=None),
        is_held=holds,
        problems=tuple(problems),
        labels=labels,
        newest=_newest(table, [index for index, member in enumerate(members) if member in dead]),
        evaluated=int(table["step"][-1]) if len(table.get("step", ())) else None,
        task=task,
    )


def _named(plan: Mapping[str, Any], naming: tasks.Naming) -> tuple[str, tuple[str, ...]]:
    """The pack's task where the study has several, else nothing; its members' labels, then without the task."""
    members = plan.get("members", [])
    if not members or not naming.is_several:
        return "", tuple(str(member["label"]) for member in members)
    labels = (naming.setting(str(m["label"]), m["algorithm"], m["overrides"]) for m in members)
    return naming.task(plan.get("config", {}), members[0]["overrides"]), tuple(labels)


def _state(written: Mapping[str, float | None], has_failed: bool, is_held: bool, now: float, patience: float) -> State:
    """Of a pack without done.json. Locks of other machines may not be seen, so a recent write counts as well."""
    if is_held:
        return "running"
    signs = [at for name, at in written.items() if name != "failed" and at is not None]
    failed_at = written["failed"]
    if has_failed and (failed_at is None or failed_at >= max(signs, default=0.0)):
        return "failed"
    if not signs:
        return "waiting"
    return "running" if now - max(signs) <= patience else "stopped"


def _patience(config: Mapping[str, Any], seconds_per_update: float | None) -> float:
    """Seconds without a write that say nothing yet: rows reach the disk at checkpoints."""
    interval = config.get("checkpoint_interval")
    if seconds_per_update is None or not isinstance(interval, int | float):
        return QUIET_SECONDS
    return max(QUIET_SECONDS, QUIET_CHECKPOINTS * interval * seconds_per_update)


def _pace(train: Mapping[str, np.ndarray], members: int) -> tuple[float | None, float | None]:
    """Seconds per update and member-updates per second over the last rows."""
    steps, seconds = train.get("step", np.zeros(0)), train.get("wall_seconds", np.zeros(0))
    if len(steps) < 2 or len(seconds) != len(steps):
        return None, None
    first = max(len(steps) - WINDOW, 0)
    updates, spent = float(steps[-1] - steps[first]), float(seconds[-1] - seconds[first])
    if updates <= 0 or spent <= 0:
        return None, None
    return spent / updates, members * updates / spent


def _dead(done: Mapping[str, Any] | None, train: Mapping[str, np.ndarray], members: Sequence[str]) -> set[str]:
    """Ids of the members that went non-finite."""
    if done is not None:
        return {str(entry["member"]) for entry in done.get("nonfinite", [])}
    alive = train.get("alive")
    if alive is None or not len(alive):
        return set()
    return {member for member, is_alive in zip(members, alive[-1], strict=False) if not is_alive}


def _newest(table: Mapping[str, np.ndarray], dead: Sequence[int]) -> dict[str, np.ndarray]:
    """scores and returns of the newest evaluation, means over episodes [L], NaN where a member is dead."""
    found = {}
    for name in ("scores", "returns"):
        if len(table.get("step", ())) and name in table:
            values = table[name][-1].astype(np.float64).mean(axis=-1)
            values[[index for index in dead if index < len(values)]] = np.nan
            found[name] = values
    return found


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
