"""A pack's compiled programs: fresh lanes, the update loop under a lane mode or the fastest one, the evaluation."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any

import jax
import numpy as np

from jaxdiff import envs, evaluate, sweep, train
from jaxdiff.cli import hosts
from jaxdiff.cli.loops import Loop, make_loop
from jaxdiff.cli.settings import make_settings
from jaxdiff.cli.task import Task
from jaxdiff.cli.warm_start import start_from
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
        self.lanes, metrics = self.chunk(self.lanes, np.int32(num_updates), self.dataset)
        jax.block_until_ready(self.lanes)
        return metrics


def fresh_lanes(task: Task, members: Sequence[sweep.Member], mode: str) -> train.Lane:
    """The members' lanes before their first update, stacked; the last one is repeated where the mode needs padding."""
    padded = sweep.lane_count(len(members), mode, jax.device_count())
    filled = [*members, *[members[-1]] * (padded - len(members))]
    hparams = sweep.stack([_as_float32(make_settings(member.config)[1]) for member in filled])
    seeds = np.asarray([member.seed for member in filled], np.int32)
    where = sweep.lane_sharding(mode) if hosts.are_many() else None  # all devices, or this process's first
    init = _kept(task, "init", lambda: jax.jit(jax.vmap(_loop(task, members).init), out_shardings=where))
    lanes = init(hparams, seeds)
    if task.algorithm.fit is not None and task.dataset is not None:
        of_one = task.algorithm.fit
        fit = _kept(task, "fit", lambda: jax.jit(jax.vmap(of_one, in_axes=(0, None))))
        lanes = lanes.replace(state=fit(lanes.state, _dataset(task, mode)))  # type: ignore[attr-defined]
    lanes = start_from(lanes, members[0].config, [member.seed for member in filled])
    return sweep.place(lanes, mode)


def _loop(task: Task, members: Sequence[sweep.Member], mode: str = "vmap") -> Loop:
    return make_loop(members[0].config, task.algorithm, task.env, mode)


def _dataset(task: Task, mode: str) -> PyTree:
    """The task's data where the mode's programs want them."""
    if not hosts.are_many():
        return sweep.replicate(task.dataset, mode)
    return _kept(task, "dataset", lambda: sweep.replicate(task.dataset, mode), mode)


def _kept(task: Task, name: str, make: Callable[[], Any], mode: str = "") -> Any:
    """A compiled function of the task: its packs differ in numbers alone, so the first one's serves them all."""
    if (name, mode) not in task.kept:
        task.kept[name, mode] = make()
    return task.kept[name, mode]


def _as_float32(hparams: Any) -> Any:
    return jax.tree.map(np.float32, hparams)


def make_programs(task: Task, members: Sequence[sweep.Member], mode: str) -> Programs:
    """Compiles the update loop for a pack under one lane mode."""
    loop = _loop(task, members, mode)  # what it refuses is refused before anything is compiled
    lanes = fresh_lanes(task, members, mode)
    dataset = _dataset(task, mode)
    chunk = _kept(task, "chunk", lambda: sweep.over_lanes(loop.chunk, mode, donate=True), mode)
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
        if hosts.are_many():
            raise ValueError(
                f"{task.spec.name} is simulated on the host, where several processes would each run all lanes; train "
                "without --distributed, each process on packs of its own."
            )
        host = evaluate.make_host_rollout(task.algorithm, task.env, episodes, num_recorded=recorded)

        def on_host(lanes: train.Lane, step: int) -> evaluate.Evaluation:
            singles = [sweep.lane_of(lanes, i) for i in range(lanes.alive.shape[0])]
            return sweep.stack([host(evaluation_key(lane, step), lane.state) for lane in singles])  # type: ignore[no-any-return]

        return on_host
    rollout = evaluate.make_rollout(task.algorithm, task.env, episodes, num_recorded=recorded)

    def one(lane: train.Lane, step: jax.Array) -> evaluate.Evaluation:
        return rollout(evaluation_key(lane, step), lane.state)

    compiled = _kept(task, f"evaluation of {episodes}, {recorded}", lambda: sweep.over_lanes(one, mode), mode)
    return lambda lanes, step: compiled(lanes, np.uint32(step))
