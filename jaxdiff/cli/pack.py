"""One pack from its first update, or its last checkpoint, to its result files."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import envs, evaluate, sweep, train
from jaxdiff.cli.advice import warn
from jaxdiff.cli.loops import Loop, make_loop
from jaxdiff.cli.plan_table import plan_table
from jaxdiff.cli.settings import make_settings, setting
from jaxdiff.cli.task import Task
from jaxdiff.cli.warm_start import start_from
from jaxdiff.io import checkpoint, files, metrics, runs
from jaxdiff.types import PyTree

EVAL_STREAM = 2**32 - 1  # separates evaluation keys from those of the updates, whose index stays below 2**31
PROBE_SECONDS = 1.5


@dataclasses.dataclass
class Programs:
    """A pack's compiled functions under one lane mode, and its fresh lanes."""

    mode: str
    chunk: Callable[..., tuple[train.Lane, dict[str, jax.Array]]]
    lanes: train.Lane
    dataset: PyTree
    compile_seconds: float

    def run(self, num_updates: int) -> dict[str, jax.Array]:
        """Advances the lanes and returns metrics [L], finished."""
        self.lanes, metrics = self.chunk(self.lanes, jnp.int32(num_updates), self.dataset)
        jax.block_until_ready(self.lanes)
        return metrics


def fresh_lanes(task: Task, members: Sequence[sweep.Member], mode: str) -> train.Lane:
    """The members' lanes before their first update, stacked; the last one is repeated where the mode needs padding."""
    padded = sweep.lane_count(len(members), mode, jax.device_count())
    filled = [*members, *[members[-1]] * (padded - len(members))]
    hparams = sweep.stack([_as_float32(make_settings(member.config)[1]) for member in filled])
    seeds = np.asarray([member.seed for member in filled], np.int32)
    lanes = _kept(task, "init", lambda: jax.jit(jax.vmap(_loop(task, members).init)))(hparams, seeds)
    if task.algorithm.fit is not None and task.dataset is not None:
        of_one = task.algorithm.fit
        fit = _kept(task, "fit", lambda: jax.jit(jax.vmap(of_one, in_axes=(0, None))))
        lanes = lanes.replace(state=fit(lanes.state, task.dataset))  # type: ignore[attr-defined]
    lanes = start_from(lanes, members[0].config, [member.seed for member in filled])
    return sweep.place(lanes, mode)


def _loop(task: Task, members: Sequence[sweep.Member]) -> Loop:
    return make_loop(members[0].config, task.algorithm, task.env)


def _kept(task: Task, name: str, make: Callable[[], Any], mode: str = "") -> Any:
    """A compiled function of the task: its packs differ in numbers alone, so the first one's serves them all."""
    if (name, mode) not in task.kept:
        task.kept[name, mode] = make()
    return task.kept[name, mode]


def _as_float32(hparams: Any) -> Any:
    return jax.tree.map(np.float32, hparams)


def make_programs(task: Task, members: Sequence[sweep.Member], mode: str) -> Programs:
    """Compiles the update loop for a pack under one lane mode."""
    lanes = fresh_lanes(task, members, mode)
    dataset = sweep.replicate(task.dataset, mode)
    chunk = _kept(task, "chunk", lambda: sweep.over_lanes(_loop(task, members).chunk, mode, donate=True), mode)
    programs = Programs(mode, chunk, lanes, dataset, 0.0)
    start = time.perf_counter()
    programs.run(0)  # compiles, changes nothing: the number of updates is traced
    programs.compile_seconds = time.perf_counter() - start
    return programs


def seconds_per_update(programs: Programs) -> float:
    """Measured seconds in which every lane advances by one update; the programs' lanes are used up."""
    start = time.perf_counter()
    programs.run(2)
    first = (time.perf_counter() - start) / 2
    count = int(np.clip(PROBE_SECONDS / first, 1, 200))
    start = time.perf_counter()
    programs.run(count)
    return (time.perf_counter() - start) / count


def choose_programs(task: Task, members: Sequence[sweep.Member], lanes: str) -> tuple[Programs, dict[str, float]]:
    """Programs under the wanted mode, or for "auto" under the fastest of a short probe of the task's first pack.

    Returns:
      The programs with fresh lanes, and the seconds per update that each probed mode took (empty without a probe).
    """
    known = task.kept.get("mode", lanes) if lanes == "auto" and len(members) > 1 else lanes
    modes = sweep.candidate_modes(len(members), jax.device_count()) if known == "auto" else (known,)
    if len(modes) == 1:
        return make_programs(task, members, modes[0]), {}
    seconds, tried = {}, {}
    for mode in modes:
        tried[mode] = make_programs(task, members, mode)
        seconds[mode] = seconds_per_update(tried[mode])
    task.kept["mode"] = sweep.choose_mode(seconds)
    programs = tried[task.kept["mode"]]
    programs.compile_seconds = sum(p.compile_seconds for p in tried.values())
    programs.lanes = fresh_lanes(task, members, programs.mode)
    return programs, seconds


def evaluation_key(lane: train.Lane, step: PyTree) -> jax.Array:
    """Of the episodes in which a lane is evaluated at a step."""
    return jax.random.fold_in(jax.random.fold_in(lane.key, EVAL_STREAM), step)


def make_evaluation(
    task: Task, config: Mapping[str, Any], mode: str
) -> Callable[[train.Lane, int], evaluate.Evaluation]:
    """(lanes, step) -> Evaluation [L, ...]. Members that share a seed face the same episodes."""
    episodes = int(config["eval_episodes"])
    recorded = min(int(config["record_episodes"]), episodes)

    if isinstance(task.env, envs.HostEnv):
        host = evaluate.make_host_rollout(task.algorithm, task.env, episodes, num_recorded=recorded)

        def on_host(lanes: train.Lane, step: int) -> evaluate.Evaluation:
            singles = [sweep.lane_of(lanes, i) for i in range(lanes.alive.shape[0])]
            return sweep.stack([host(evaluation_key(lane, step), lane.state) for lane in singles])  # type: ignore[no-any-return]

        return on_host
    rollout = evaluate.make_rollout(task.algorithm, task.env, episodes, num_recorded=recorded)

    def one(lane: train.Lane, step: jax.Array) -> evaluate.Evaluation:
        return rollout(evaluation_key(lane, step), lane.state)

    compiled = _kept(task, f"evaluation of {episodes}, {recorded}", lambda: sweep.over_lanes(one, mode), mode)
    return lambda lanes, step: compiled(lanes, jnp.uint32(step))


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
        lanes = self._mode_on_disk() or lanes
        self.programs, self.probe = choose_programs(task, pack.members, lanes)
        self.evaluation = make_evaluation(task, self.config, self.programs.mode)
        if self.checkpoints.latest_step() is None:
            self._write_plan()
        else:
            self._resume()
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
        for i in np.flatnonzero(~alive):
            self.frozen_at.setdefault(int(i), self._frozen_step(int(i)))
        row = {name: self._members(value) for name, value in averages.items()}
        self.train_table.append(self.step, self.wall_seconds, {"alive": alive, **row})
        for logger in self.loggers:
            logger.write(self.step, row, "train")

    def _frozen_step(self, i: int) -> int:
        return int(np.asarray(self.programs.lanes.state.step)[i])

    def _members(self, values: Any) -> np.ndarray:
        """[L, ...] on the host without the padding lanes."""
        return np.asarray(values)[: len(self.pack.members)]

    def _evaluate(self) -> str:
        result = jax.tree.map(self._members, self.evaluation(self.programs.lanes, self.step))
        row = {"returns": result.returns, "lengths": result.lengths}
        scores = evaluate.normalised_scores(result.returns, self.task.spec)
        if scores is not None:
            row["scores"] = scores
        self.eval_table.append(self.step, self.wall_seconds, row)
        if result.recorded.obs.shape[1]:
            kept = {name: getattr(result.recorded, name) for name in ("obs", "action", "mask")}
            files.write_npz_atomic(self.folder.rollouts, kept)
        shown = row.get("scores", row["returns"])
        self.score = float(shown.mean())
        for logger in self.loggers:
            logger.write(self.step, {name: value.mean(axis=1) for name, value in row.items()}, "eval")
        return f"best {'score' if scores is not None else 'return'} {shown.mean(axis=1).max():.1f}"

    def _checkpoint(self) -> None:
        self._save_tables()
        metadata = {"wall_seconds": self.wall_seconds, "frozen_at": {str(k): v for k, v in self.frozen_at.items()}}
        self.checkpoints.save(self.step, self.programs.lanes, self.score, metadata)

    def _save_tables(self) -> None:
        self.train_table.save(self.folder.train)
        self.eval_table.save(self.folder.eval)

    def _mode_on_disk(self) -> str | None:
        """A resumed pack keeps its lane mode, since another one may differ in the last bits."""
        return runs.read_plan(self.folder.pack_json)["lanes"] if self.checkpoints.latest_step() is not None else None

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
        self.programs.lanes = sweep.place(self.checkpoints.restore(self.programs.lanes), self.programs.mode)
        self.step = self.checkpoints.latest_step() or 0
        metadata = self.checkpoints.metadata(self.step)
        self.spent, self.frozen_at = metadata["wall_seconds"], {int(k): v for k, v in metadata["frozen_at"].items()}
        self.train_table = metrics.MetricTable.load(self.folder.train)
        self.eval_table = metrics.MetricTable.load(self.folder.eval)
        for table in (self.train_table, self.eval_table):
            table.truncate_after(self.step)

    def _record_plans(self) -> None:
        """What a planner planned at the starts of the episodes in rollouts.npz."""
        lanes = [sweep.lane_of(self.programs.lanes, i) for i in range(len(self.pack.members))]
        asked = [(evaluation_key(lane, self.step), lane.state) for lane in lanes]
        table = plan_table(self.task, self.config, asked)
        if table:
            files.write_npz_atomic(self.folder.plans, table)

    def _finish(self) -> None:
        self._record_plans()
        self.checkpoints.close()
        seconds = self.wall_seconds
        result = {
            "wall_seconds": seconds,
            "compile_seconds": self.programs.compile_seconds,
            "num_updates": self.num_updates,
            "member_updates_per_second": self.num_updates * len(self.pack.members) / seconds,
            "nonfinite": [{"member": self.pack.members[i].id, "step": s} for i, s in sorted(self.frozen_at.items())],
        }
        files.write_json_atomic(self.folder.done, result)
