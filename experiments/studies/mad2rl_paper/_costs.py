"""Seconds per decision of one environment, and environment steps and updates per second by lanes."""

from collections.abc import Callable
import dataclasses
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import sweep, train
from jaxdiff.envs.vec import make_system
from jaxdiff.offloading.heuristics import HEURISTICS
from jaxdiff.types import Env

from ._methods import LEARNED, Point, Sizes, make_algorithm, make_env
from ._runs import fitting, online_config, start_lanes

REPEATS = 40  # decisions that are timed, after two that are not
ROUNDS = 3  # of a throughput, of which the median counts
SMALL_REPLAY = 2000  # transitions of a lane: 64 lanes have to fit

Rates = dict[str, float]


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {"device": jax.devices()[0].device_kind, "platform": jax.default_backend(), "cores": os.cpu_count()}


def decision_seconds(method: str, point: Point, sizes: Sizes, repeats: int = REPEATS) -> list[float]:
    """Times of single decisions of all clients, compiled and waited for; the slot is known, nothing is carried out."""
    env = make_env(point)
    env_state, obs = jax.jit(env.reset)(jax.random.key(0))
    decide: Callable[..., Any]
    known: tuple[Any, ...]  # arguments and no constants, which could be folded
    if method in LEARNED:
        algorithm = make_algorithm(method, sizes, env)
        known = sweep.lane_of(start_lanes(algorithm, env, _small(sizes), [0], [point.v], 1).state, 0), obs[None]
        decide = jax.jit(lambda key, state, obs: algorithm.act(key, state, obs, algorithm.init_memory((1,)))[0])
    else:
        system = make_system(num_clients=point.clients, num_servers=point.servers, constants={"v": point.v})
        known = (env_state.slot,)
        decide = jax.jit(lambda key, slot: HEURISTICS[method](key, system, slot))
    keys = list(jax.random.split(jax.random.key(1), repeats + 2))
    return [_seconds(lambda key=key: decide(key, *known)) for key in keys][2:]


def throughput(method: str, point: Point, sizes: Sizes, num_lanes: int, seconds: float, mode: str) -> Rates:
    """The whole loop (acting, remembering, learning) with so many lanes: steps and updates of all lanes per second."""
    env, sizes, mode = make_env(point), _small(sizes), fitting(mode, num_lanes)
    algorithm = make_algorithm(method, sizes, env)
    lanes = start_lanes(algorithm, env, sizes, range(num_lanes), [point.v] * num_lanes, 1000)
    lanes = sweep.place(lanes, mode)
    chunk = sweep.over_lanes(train.make_online_chunk(algorithm, env, sizes.batch_size, online_config(sizes)), mode)
    per_second = _rate(lambda count: chunk(lanes, jnp.int32(count), None), seconds)
    return {
        "env_steps": num_lanes * sizes.num_envs * per_second,
        "updates": num_lanes * sizes.updates_per_step * per_second,
    }


def simulator_rate(point: Point, num_envs: int, seconds: float) -> Rates:
    """The task alone, random actions, so many environments side by side."""
    env: Env = make_env(point)
    shape = (num_envs, point.clients, env.spec.action_dim)

    @jax.jit
    def run(count: jax.Array) -> Any:
        def step(k: jax.Array, states: Any) -> Any:
            action = jax.random.uniform(jax.random.fold_in(jax.random.key(1), k), shape, minval=-1.0, maxval=1.0)
            return jax.vmap(env.step)(states, action)[0]

        start = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), num_envs))[0]
        return jax.lax.fori_loop(0, count, step, start)

    return {"env_steps": num_envs * _rate(lambda count: run(jnp.int32(count)), seconds)}


def _rate(run: Callable[[int], Any], seconds: float) -> float:
    """Iterations per second: median over rounds of about so many seconds."""
    _seconds(lambda: run(1))
    count = max(1, int(4 * seconds / max(_seconds(lambda: run(4)), 1e-6)))
    return float(count / np.median([_seconds(lambda: run(count)) for _ in range(ROUNDS)]))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _small(sizes: Sizes) -> Sizes:
    """A buffer that fits many times, and learning from the first iteration on."""
    return dataclasses.replace(sizes, replay_capacity=min(sizes.replay_capacity, SMALL_REPLAY), warmup=0)
