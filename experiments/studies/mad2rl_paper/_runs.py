"""Runs of a method at points, one JSON file each: curves of all seeds for learned methods, episodes for heuristics."""

from collections.abc import Callable, Sequence
import dataclasses
import json
import logging
from pathlib import Path
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import sweep, train
from jaxdiff.io.files import write_json_atomic
from jaxdiff.multi import mad2rl
from jaxdiff.types import Algorithm, Env

from ._methods import (
    EVAL_SEED,
    LEARNED,
    METRICS,
    Point,
    Sizes,
    by_algorithm,
    by_heuristic,
    make_algorithm,
    make_env,
    make_episodes,
)

EXPLORING = 0.3  # share of the updates after which epsilon has arrived at its end, as the paper's presets have it
Record = dict[str, Any]

log = logging.getLogger("mad2rl_paper")


def path_of(out: Path, method: str, point: Point) -> Path:
    """The file of a method at a point."""
    return out / "runs" / f"{method}-{point}.json"


def load(out: Path, method: str, point: Point) -> Record | None:
    """A finished run, or None."""
    path = path_of(out, method, point)
    return json.loads(path.read_text()) if path.exists() else None


def sizes_of(method: str, sizes: Sizes) -> Record:
    """What a run's numbers depend on, as JSON has it: a heuristic's on its episodes alone."""
    if method not in LEARNED:
        return {"eval_episodes": sizes.eval_episodes}
    return json.loads(json.dumps(dataclasses.asdict(sizes)))


def run_missing(out: Path, method: str, points: Sequence[Point], sizes: Sizes, *, redo: bool, lanes: str) -> None:
    """Makes a method's runs that are not finished; points that differ in V alone train as lanes of one program.

    Raises:
      ValueError: a finished run was made with other sizes.
    """
    missing: dict[tuple[int, int], list[Point]] = {}
    for point in points:
        done, wanted = None if redo else load(out, method, point), sizes_of(method, sizes)
        if done is None:
            missing.setdefault((point.clients, point.servers), []).append(point)
        elif done["sizes"] != wanted:
            other = {k: done["sizes"].get(k) for k, value in wanted.items() if done["sizes"].get(k) != value}
            raise ValueError(
                f"{path_of(out, method, point)} was made with {other}; give these sizes, another --out, or --redo."
            )
    for group in missing.values():
        log.info("%s: %s", method, ", ".join(map(str, group)))
        start = time.perf_counter()
        found = learn(method, group, sizes, lanes) if method in LEARNED else measure(method, group, sizes)
        seconds = time.perf_counter() - start
        for point, record in zip(group, found, strict=True):
            head = {"method": method, "point": list(point), "sizes": sizes_of(method, sizes), "seconds": seconds}
            path_of(out, method, point).parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(path_of(out, method, point), {**head, "side_by_side": len(group), **record})


def measure(name: str, points: Sequence[Point], sizes: Sizes) -> list[Record]:
    """A heuristic's episodes: {"values": metric -> [M]} per point; V is traced, the rest of a point is not."""
    run = jax.jit(make_episodes(by_heuristic(name, points[0]), make_env(points[0]), sizes.eval_episodes))
    found = (run(jax.random.key(EVAL_SEED), jnp.float32(point.v), None) for point in points)
    return [{"values": {k: np.asarray(x, float).tolist() for k, x in metrics.items()}} for metrics in found]


def online_config(sizes: Sizes) -> train.OnlineConfig:
    """The loop's static choices."""
    return train.OnlineConfig(sizes.num_envs, sizes.updates_per_step, sizes.replay_capacity, sizes.warmup)


def fitting(mode: str, num_lanes: int) -> str:
    """The mode, or "vmap" where it wants whole shares of the lanes on every device and cannot have them."""
    return mode if sweep.lane_count(num_lanes, mode, jax.device_count()) == num_lanes else "vmap"


def start_lanes(
    algorithm: Algorithm, env: Env, sizes: Sizes, seeds: Sequence[int], vs: Sequence[float], num_updates: int
) -> train.Lane:
    """Lanes [L] before their first iteration, one per seed and V of the same place."""
    settings = {name: getattr(sizes, name) for name in ("lr", "target_rate", "reward_scale")}
    exploring = max(1.0, EXPLORING * num_updates)
    hparams = jax.tree.map(np.float32, mad2rl.HParams(**settings, epsilon_updates=exploring))

    def start(seed: jax.Array, v: jax.Array) -> train.Lane:
        return train.init_online_lane(algorithm, env, online_config(sizes), hparams.replace(lyapunov_weight=v), seed)

    # Runs once, and is mostly random numbers, which take LLVM longer to optimise than they would take.
    quickly = jax.jit(jax.vmap(start), compiler_options={"xla_backend_optimization_level": 0})
    return quickly(jnp.asarray(seeds, jnp.int32), jnp.asarray(vs, jnp.float32))


def evaluation(algorithm: Algorithm, env: Env, count: int) -> Callable[[train.Lane, jax.Array], dict[str, jax.Array]]:
    """(lane, seed of the episodes) -> means over episodes."""
    episodes = make_episodes(by_algorithm(algorithm), env, count)

    def evaluate(lane: train.Lane, seed: jax.Array) -> dict[str, jax.Array]:
        found = episodes(jax.random.key(seed), lane.state.hparams.lyapunov_weight, lane.state)
        return {name: jnp.mean(values) for name, values in found.items()}

    return evaluate


def learn(name: str, points: Sequence[Point], sizes: Sizes, mode: str) -> list[Record]:
    """Trains all seeds at all V side by side and measures them between.

    Returns:
      Per point {"trained": episodes before each measurement [T], "curves": metric -> [S, T], "alive": [S]}.
    """
    env = make_env(points[0])
    algorithm = make_algorithm(name, sizes, env)
    marks = [*range(0, sizes.episodes, sizes.eval_every), sizes.episodes]
    iterations = [mark * env.spec.max_episode_steps // sizes.num_envs for mark in marks]
    seeds = list(range(sizes.seeds)) * len(points)
    vs = [point.v for point in points for _ in range(sizes.seeds)]
    mode = fitting(mode, len(seeds))
    lanes = sweep.place(start_lanes(algorithm, env, sizes, seeds, vs, iterations[-1] * sizes.updates_per_step), mode)
    chunk = sweep.over_lanes(
        train.make_online_chunk(algorithm, env, sizes.batch_size, online_config(sizes)), mode, donate=True
    )
    evaluate = sweep.over_lanes(evaluation(algorithm, env, sizes.eval_episodes), mode)
    rows = []
    for mark, count in zip(marks, np.diff(iterations, prepend=0), strict=True):
        if count:
            lanes, _ = chunk(lanes, jnp.int32(count), None)
        rows.append(jax.tree.map(np.asarray, evaluate(lanes, jnp.uint32(EVAL_SEED))))
        log.info("  %d episodes, delays %s", mark, np.array2string(rows[-1]["delay"], precision=2))
    alive = np.asarray(lanes.alive).reshape(len(points), -1)
    curves = {k: np.stack([row[k] for row in rows], -1).astype(float).reshape(*alive.shape, -1) for k in METRICS}
    return [
        {"trained": marks, "alive": alive[p].tolist(), "curves": {k: x[p].tolist() for k, x in curves.items()}}
        for p in range(len(points))
    ]


def final(record: Record, metric: str) -> np.ndarray:
    """A number per seed that stayed finite, at the end of training; of a heuristic, per episode."""
    if "values" in record:
        return np.asarray(record["values"][metric])
    return np.asarray(record["curves"][metric])[np.asarray(record["alive"]), -1]
