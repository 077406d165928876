"""One pack from its first update, or its last checkpoint, to its result files."""

from collections.abc import Callable
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from jaxdiff import adaptive, evaluate, sweep, train
from jaxdiff.cli import hosts
from jaxdiff.cli.advice import warn
from jaxdiff.cli.plan_table import plan_table
from jaxdiff.cli.programs import choose_programs, evaluation_key, make_evaluation
from jaxdiff.cli.searching import Population, Search, evolved, settings_of
from jaxdiff.cli.settings import setting
from jaxdiff.cli.task import Task
from jaxdiff.cli.tasks import facts_of
from jaxdiff.io import checkpoint, files, metrics, runs
from jaxdiff.io.folders import PackDir
from jaxdiff.io.tasks import NAMERS


class Stopped(Exception):
    """The run was told to stop, and what it had is saved."""


class PackRun:
    """Trains one pack, resuming where its files end.

    Order of writing at a checkpoint: metric tables first, then the state. A kill between the two leaves rows that the
    checkpoint does not know; they are dropped on resume and come again, bit for bit.
    """

    def __init__(
        self, pack: sweep.Pack, task: Task, folder: PackDir, lanes: str, *, search: Search | None = None
    ) -> None:
        self.pack, self.task, self.folder, self.search = pack, task, folder, search
        self.loggers: list[Any] = []
        self.config = pack.members[0].config
        self.num_updates = int(self.config["num_updates"])
        self.train_table, self.eval_table = metrics.MetricTable(), metrics.MetricTable()
        self.checkpoints = checkpoint.Checkpoints(folder.checkpoints)
        self.step, self.started, self.spent = 0, time.perf_counter(), 0.0
        self.frozen_at: dict[int, int] = {}
        self.active = np.arange(len(pack.members))  # [M] the members that are trained, in the order of their lanes
        self.stopped_at: dict[int, int] = {}  # the others, which a search took out: member -> step
        self.member_updates = 0
        self.score: float | None = None  # mean over the pack, where this step has been evaluated
        self.on_checkpoint: Callable[[int], None] = lambda step: None  # called once a checkpoint is being written
        is_begun = bool(hosts.agreed(self.checkpoints.newest_whole() is not None))
        self.programs, self.probe = choose_programs(task, pack.members, self._mode(lanes, is_begun))
        self.evaluation = make_evaluation(task, self.config, self.programs.mode)
        if is_begun:
            self._resume()
        elif hosts.is_first():
            self._write_plan()
        warn(self.programs.lanes, [member.config for member in pack.members])

    @property
    def wall_seconds(self) -> float:
        return self.spent + time.perf_counter() - self.started

    def run(self, report: Callable[[int, int, str], None], is_told_to_stop: Callable[[], bool] = lambda: False) -> None:
        """Trains to the end.

        Args:
          report: called with (step, number of non-finite members, note) after every chunk.
          is_told_to_stop: asked after every chunk.

        Raises:
          Stopped: it was told to stop; the last checkpoint is of this very step.
        """
        if self.step == 0 and setting(self.config, "init_from"):
            self._evaluate()  # what it starts from is part of the answer
        while self.step < self.num_updates:
            self._advance()
            last = self.step >= self.num_updates
            note = self._evaluate() if last or self.step % int(self.config["eval_interval"]) == 0 else ""
            stop = not last and is_told_to_stop()
            if last or stop or self.step % int(self.config["checkpoint_interval"]) == 0:
                self._checkpoint()
                self.on_checkpoint(self.step)
            report(self.step, len(self.frozen_at), note)
            if stop:
                self.checkpoints.close()
                raise Stopped(f"pack {self.pack.id} stopped and saved at update {self.step} of {self.num_updates}")
        self._finish()

    def _advance(self) -> None:
        due = [int(self.config[name]) for name in ("chunk", "eval_interval", "checkpoint_interval")]
        count = min([self.num_updates - self.step, *(every - self.step % every for every in due)])
        averages = self.programs.run(count)
        self.step, self.score = self.step + count, None
        self.member_updates += count * len(self.active)
        alive = self._members(self.programs.lanes.alive)
        alive[list(self.stopped_at)] = True
        lost = [int(i) for i in np.flatnonzero(~alive) if int(i) not in self.frozen_at]
        if lost:
            steps = self._members(self.programs.lanes.state.step)
            self.frozen_at.update({i: int(steps[i]) for i in lost})
        row = {name: self._members(value) for name, value in averages.items()}
        if isinstance(self.search, Population):
            row |= {f"hparams.{k}": self._members(getattr(self.programs.lanes.state.hparams, k))
                    for k, _ in self.search.ranges}  # fmt: skip
        self.train_table.append(self.step, self.wall_seconds, {"alive": alive, **row})
        for logger in self.loggers:
            logger.write(self.step, row, "train")

    def _members(self, values: Any, missing: float = np.nan) -> np.ndarray:
        """[L, ...] on the host without padding lanes; members that were stopped have NaN, or 0 in whole numbers."""
        found = np.asarray(hosts.gather(values))[: len(self.active)]
        whole = np.full(
            (len(self.pack.members), *found.shape[1:]), missing if found.dtype.kind == "f" else 0, found.dtype
        )
        whole[self.active] = found
        return whole

    def _evaluate(self) -> str:
        evaluation = self.evaluation(self.programs.lanes, self.step)
        row = {name: self._members(getattr(evaluation, name)) for name in ("returns", "lengths")}
        scores = evaluate.normalised_scores(row["returns"], self.task.spec)
        if scores is not None:
            row["scores"] = scores
        recorded = {k: self._members(getattr(evaluation.recorded, k), 0.0) for k in ("obs", "action", "mask")}
        shown = row.get("scores", row["returns"])
        self.score = float(shown[self.active].mean())
        if self.search is not None:
            row |= self._search(shown.mean(axis=1))
        self.eval_table.append(self.step, self.wall_seconds, row)
        if recorded["obs"].shape[1] and hosts.is_first():
            files.write_npz_atomic(self.folder.rollouts, recorded)
        for logger in self.loggers:
            means = {name: value.mean(axis=1) for name, value in row.items() if value.ndim > 1}
            logger.write(self.step, means, "eval")
        return f"best {'score' if scores is not None else 'return'} {np.nanmax(shown.mean(axis=1)):.1f}"

    def _search(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """What the search makes of the members' scores [L]; its columns of the evaluation's row."""
        if isinstance(self.search, Population):
            parents = np.arange(len(self.active))
            if 0 < self.step < self.num_updates:
                lanes = jax.tree.map(lambda leaf: leaf[: len(self.active)], self.programs.lanes)
                lanes, parents = evolved(self.search, lanes, scores, self.pack.members, self.step)
                self._use(lanes, np.arange(len(self.active)))
                self.frozen_at = {i: step for i, step in self.frozen_at.items() if parents[i] == i}
            return {"parent": parents}
        assert self.search is not None
        measured = np.where(self._members(self.programs.lanes.alive)[self.active], scores[self.active], np.nan)
        kept = self.search.kept(self.step, self.config, settings_of(self.pack.members), self.active, measured)
        if kept is not None:
            self.stopped_at.update({int(i): self.step for i in np.delete(self.active, kept)})
            self.active = self.active[kept]
            self._use(self.programs.lanes, kept)
        return {}

    def _use(self, lanes: train.Lane, indices: np.ndarray) -> None:
        """These lanes are the program's from now on; the last is repeated where the mode needs padding."""
        wanted = sweep.lane_count(len(indices), self.programs.mode, jax.device_count())
        padded = indices[np.minimum(np.arange(wanted), len(indices) - 1)]
        self.programs.lanes = sweep.place(adaptive.compact(lanes, padded), self.programs.mode)

    def _checkpoint(self) -> None:
        """Tables and lanes to disk. Lanes that only fill up devices are left out: another machine has other ones."""
        count, lanes = len(self.active), hosts.gather(self.programs.lanes)
        if not hosts.is_first():
            return
        self._save_tables()
        metadata = {
            "wall_seconds": self.wall_seconds,
            "frozen_at": {str(k): v for k, v in self.frozen_at.items()},
            "num_lanes": count,
            "active": self.active.tolist(),
            "stopped_at": {str(k): v for k, v in self.stopped_at.items()},
            "member_updates": self.member_updates,
        }
        if lanes.alive.shape[0] > count:
            lanes = jax.tree.map(lambda leaf: leaf[:count], lanes)
        self.checkpoints.save(self.step, lanes, self.score, metadata)

    def _save_tables(self) -> None:
        self.train_table.save(self.folder.train)
        self.eval_table.save(self.folder.eval)

    def _mode(self, wanted: str, is_begun: bool) -> str:
        """A resumed pack keeps its lane mode, since another one may differ in the last bits."""
        mode = str(runs.read_plan(self.folder.pack_json)["lanes"]) if is_begun else wanted
        if hosts.are_many():
            hosts.check_mode(mode, f"pack {self.pack.id} was begun with lanes={mode}" if is_begun else f"lanes={mode}")
        return mode

    def _write_plan(self) -> None:
        fields = ("id", "label", "algorithm", "overrides", "seed")
        members = [{name: getattr(member, name) for name in fields} for member in self.pack.members]
        plan = {
            "id": self.pack.id,
            "lanes": self.programs.mode,
            "probe_seconds_per_update": self.probe,
            "num_updates": self.num_updates,
            "config": self.config,
            "members": [{**row, "config": m.config} for row, m in zip(members, self.pack.members, strict=True)],
            "obs_statistics": None if self.task.statistics is None else [s.tolist() for s in self.task.statistics],
        }
        if any(key in NAMERS for member in self.pack.members for key in member.overrides):
            # The study may have other tasks, and run.json describes the first one alone.
            info = self.task.info
            plan |= {"dataset": None if info is None else dataclasses.asdict(info), "facts": facts_of(self.task)}
        files.write_json_atomic(self.folder.pack_json, plan)

    def _resume(self) -> None:
        """Every process reads the checkpoint that the first one found whole."""
        self.step = int(hosts.agreed(self.checkpoints.latest_step() or 0))
        self.programs.lanes = sweep.place(self._read(self.step), self.programs.mode)
        metadata = self.checkpoints.metadata(self.step)
        self.spent, self.frozen_at = metadata["wall_seconds"], {int(k): v for k, v in metadata["frozen_at"].items()}
        self.stopped_at = {int(k): v for k, v in metadata.get("stopped_at", {}).items()}
        self.active = np.asarray(metadata.get("active", self.active), int)
        self.member_updates = metadata.get("member_updates", self.step * len(self.active))
        if hosts.is_first():
            self.train_table = metrics.MetricTable.load(self.folder.train)
            self.eval_table = metrics.MetricTable.load(self.folder.eval)
        for table in (self.train_table, self.eval_table):
            table.truncate_after(self.step)

    def _read(self, step: int) -> train.Lane:
        """The lanes of a checkpoint, padded as the mode needs it."""
        metadata, fresh = self.checkpoints.metadata(step), self.programs.lanes
        left = len(metadata.get("active", self.pack.members))
        wanted = sweep.lane_count(left, self.programs.mode, jax.device_count())
        count = metadata.get("num_lanes", wanted)
        if count == wanted == fresh.alive.shape[0] and not hosts.are_many():
            return self.checkpoints.restore(fresh, step)  # type: ignore[no-any-return]
        lanes = self.checkpoints.restore(_on_host(fresh, count), step)
        index = np.minimum(np.arange(wanted), left - 1)
        return adaptive.compact(lanes, index)  # type: ignore[no-any-return]

    def _record_plans(self) -> None:
        """What a planner planned at the starts of the episodes in rollouts.npz."""
        if self.task.algorithm.plan is None or self.stopped_at:
            return
        stacked = hosts.gather(self.programs.lanes)
        if hosts.is_first():
            lanes = [sweep.lane_of(stacked, i) for i in range(len(self.pack.members))]
            table = plan_table(self.task, self.config, [(evaluation_key(x, self.step), x.state) for x in lanes])
            if table:
                files.write_npz_atomic(self.folder.plans, table)

    def _finish(self) -> None:
        self._record_plans()
        self.checkpoints.close()
        if not hosts.is_first():
            return
        seconds = self.wall_seconds
        result = {
            "wall_seconds": seconds,
            "compile_seconds": self.programs.compile_seconds,
            "num_updates": self.num_updates,
            "member_updates": self.member_updates,
            "member_updates_per_second": self.member_updates / seconds,
            "nonfinite": [{"member": self.pack.members[i].id, "step": s} for i, s in sorted(self.frozen_at.items())],
            "stopped": [{"member": self.pack.members[i].id, "step": s} for i, s in sorted(self.stopped_at.items())],
        }
        files.write_json_atomic(self.folder.done, result)


def _on_host(lanes: train.Lane, count: int) -> train.Lane:
    """What a checkpoint of so many lanes holds, without its numbers, to be read into the host's memory."""

    def like(leaf: jax.Array) -> Any:
        shape = (count, *leaf.shape[1:])
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.ShapeDtypeStruct(shape, leaf.dtype)
        return np.broadcast_to(np.zeros((), leaf.dtype), shape)

    return jax.tree.map(like, lanes)  # type: ignore[no-any-return]
