"""One pack from its first update, or its last checkpoint, to its result files."""

from collections.abc import Callable, Sequence
import time
from typing import Any

import jax
import numpy as np

from jaxdiff import evaluate, sweep, train
from jaxdiff.cli import hosts
from jaxdiff.cli.advice import warn
from jaxdiff.cli.plan_table import plan_table
from jaxdiff.cli.programs import choose_programs, evaluation_key, make_evaluation
from jaxdiff.cli.settings import setting
from jaxdiff.cli.task import Task
from jaxdiff.io import checkpoint, files, metrics, runs


class Stopped(Exception):
    """The run was told to stop, and what it had is saved."""


class PackRun:
    """Trains one pack, resuming where its files end.

    Order of writing at a checkpoint: metric tables first, then the state. A kill between the two leaves rows that the
    checkpoint does not know; they are dropped on resume and come again, bit for bit.
    """

    def __init__(self, pack: sweep.Pack, task: Task, folder: runs.PackDir, lanes: str, loggers: Sequence[Any] = ()):
        self.pack, self.task, self.folder, self.loggers = pack, task, folder, loggers
        self.config = pack.members[0].config
        self.num_updates = int(self.config["num_updates"])
        self.train_table, self.eval_table = metrics.MetricTable(), metrics.MetricTable()
        self.checkpoints = checkpoint.Checkpoints(folder.checkpoints)
        self.step, self.started, self.spent = 0, time.perf_counter(), 0.0
        self.frozen_at: dict[int, int] = {}
        self.score: float | None = None  # mean over the pack, where this step has been evaluated
        self.on_checkpoint: Callable[[int], None] = lambda step: None  # called once a checkpoint is being written
        is_begun = bool(hosts.agreed(self.checkpoints.latest_step() is not None))
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

    def run(
        self, report: Callable[[int, int, str], None], is_told_to_stop: Callable[[], bool] = lambda: False
    ) -> None:
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
        alive = self._members(self.programs.lanes.alive)
        lost = [int(i) for i in np.flatnonzero(~alive) if int(i) not in self.frozen_at]
        if lost:
            steps = self._members(self.programs.lanes.state.step)
            self.frozen_at.update({i: int(steps[i]) for i in lost})
        row = {name: self._members(value) for name, value in averages.items()}
        self.train_table.append(self.step, self.wall_seconds, {"alive": alive, **row})
        for logger in self.loggers:
            logger.write(self.step, row, "train")

    def _members(self, values: Any) -> np.ndarray:
        """[L, ...] on the host without the padding lanes."""
        return np.asarray(hosts.gather(values))[: len(self.pack.members)]

    def _evaluate(self) -> str:
        result = jax.tree.map(self._members, self.evaluation(self.programs.lanes, self.step))
        row = {"returns": result.returns, "lengths": result.lengths}
        scores = evaluate.normalised_scores(result.returns, self.task.spec)
        if scores is not None:
            row["scores"] = scores
        self.eval_table.append(self.step, self.wall_seconds, row)
        if result.recorded.obs.shape[1] and hosts.is_first():
            kept = {name: getattr(result.recorded, name) for name in ("obs", "action", "mask")}
            files.write_npz_atomic(self.folder.rollouts, kept)
        shown = row.get("scores", row["returns"])
        self.score = float(shown.mean())
        for logger in self.loggers:
            logger.write(self.step, {name: value.mean(axis=1) for name, value in row.items()}, "eval")
        return f"best {'score' if scores is not None else 'return'} {shown.mean(axis=1).max():.1f}"

    def _checkpoint(self) -> None:
        """Tables and lanes to disk. Lanes that only fill up devices are left out: another machine has other ones."""
        count, lanes = len(self.pack.members), hosts.gather(self.programs.lanes)
        if not hosts.is_first():
            return
        self._save_tables()
        metadata = {
            "wall_seconds": self.wall_seconds,
            "frozen_at": {str(k): v for k, v in self.frozen_at.items()},
            "num_lanes": count,
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
        files.write_json_atomic(self.folder.pack_json, plan)

    def _resume(self) -> None:
        """Every process reads the checkpoint that the first one found whole."""
        first = hosts.is_first()
        lanes = self._read(None) if first else None
        self.step = int(hosts.agreed(self.checkpoints.latest_step() or 0))
        lanes = lanes if first else self._read(self.step)
        self.programs.lanes = sweep.place(lanes, self.programs.mode)
        metadata = self.checkpoints.metadata(self.step)
        self.spent, self.frozen_at = metadata["wall_seconds"], {int(k): v for k, v in metadata["frozen_at"].items()}
        if first:
            self.train_table = metrics.MetricTable.load(self.folder.train)
            self.eval_table = metrics.MetricTable.load(self.folder.eval)
        for table in (self.train_table, self.eval_table):
            table.truncate_after(self.step)

    def _read(self, step: int | None) -> train.Lane:
        """The lanes of a checkpoint, the newest for None, with as many as the program has."""
        known = self.checkpoints.latest_step() if step is None else step
        wanted = self.programs.lanes.alive.shape[0]
        count = wanted if known is None else self.checkpoints.metadata(known).get("num_lanes", wanted)
        if count == wanted and not hosts.are_many():
            return self.checkpoints.restore(self.programs.lanes, step)  # type: ignore[no-any-return]
        lanes = self.checkpoints.restore(_on_host(self.programs.lanes, count), step)
        index = np.minimum(np.arange(wanted), len(self.pack.members) - 1)
        return jax.tree.map(lambda leaf: leaf[index], lanes)  # type: ignore[no-any-return]

    def _record_plans(self) -> None:
        """What a planner planned at the starts of the episodes in rollouts.npz."""
        if self.task.algorithm.plan is None:
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
            "member_updates_per_second": self.num_updates * len(self.pack.members) / seconds,
            "nonfinite": [{"member": self.pack.members[i].id, "step": s} for i, s in sorted(self.frozen_at.items())],
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
