"""Environment steps per second, and what uniform actions earn meanwhile.

  python -m experiments.studies.env_speed [--envs=mpe-spread,mpe-tag,mpe-world] [--batches=1,64,4096] [--rounds=5]
                                          [--prey=FILE] [--seed=1]

A program resets E environments and takes them to their time limit under uniform actions, in one dispatch; a step is one
of one environment, with all its agents. A rate is the median over rounds, compiling excluded; returns are the mean over
all episodes of the largest batch, with its standard error. --prey is a file of OMAR's, for the tasks that have a prey.
Wants an idle machine.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
import statistics
import time
from typing import Any, NoReturn

import jax
import numpy as np

from jaxdiff import envs
from jaxdiff.cli import preys
from jaxdiff.evaluate import make_rollout
from jaxdiff.types import Algorithm, Array, Env, Key

SHORTEST = 0.2  # seconds of a measurement, about


def make_program(env: Env, batch: int) -> Callable[[Key], Array]:
    """key -> returns [E] under uniform actions, the mean over agents where there are some."""
    spec = env.spec
    shape = (batch, 1, spec.action_dim) if spec.num_agents is None else (batch, 1, spec.num_agents, spec.action_dim)

    def act(key: Key, state: Any, obs: Array, memory: Any) -> tuple[Array, Any]:
        del state, obs
        return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0), memory

    def unused(*_: Any) -> NoReturn:
        raise NotImplementedError("uniform actions are not learned")

    uniform = Algorithm(unused, unused, act, lambda batch_shape: ())
    rollout = make_rollout(uniform, env._replace(bind=None), batch)  # no lane has numbers of its own here
    return jax.jit(lambda key: rollout(key, None).returns)  # type: ignore[arg-type]


def measure(env: Env, batch: int, rounds: int, seed: int) -> tuple[float, np.ndarray]:
    """Steps per second, and the returns of all episodes that were played for it."""
    play, key, found = make_program(env, batch), jax.random.key(seed), []
    jax.block_until_ready(play(key))
    start = time.perf_counter()
    jax.block_until_ready(play(key))
    count = max(1, int(SHORTEST / (time.perf_counter() - start)))
    rates = []
    for k in range(rounds):
        keys = list(jax.random.split(jax.random.fold_in(key, k), count))
        start = time.perf_counter()
        played = jax.block_until_ready([play(one) for one in keys])
        rates.append(count * batch * env.spec.max_episode_steps / (time.perf_counter() - start))
        found.append(np.concatenate(played))
    return statistics.median(rates), np.concatenate(found)


def make(name: str, prey: Path | None) -> Env:
    """The task; against a network of OMAR's where a file of it is given and the task has a prey."""
    return envs.make(name) if prey is None or name == "mpe-spread" else envs.make(name, prey=preys.of_file(prey))


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envs", default="mpe-spread,mpe-tag,mpe-world", help="separated by commas")
    parser.add_argument("--batches", default="1,64,4096", help="environments side by side, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prey", type=Path, help="a file of OMAR's prey; it fits one task")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args()
    batches = [int(batch) for batch in flags.batches.split(",")]
    print(f"| steps per second | {' | '.join(f'{batch:,}' for batch in batches)} | return | episodes |")
    print("|:--|" + "--:|" * (len(batches) + 2))
    for name in flags.envs.split(","):
        env = make(name, flags.prey)
        found = [measure(env, batch, flags.rounds, flags.seed) for batch in batches]
        returns = found[-1][1]
        error = returns.std(ddof=1) / np.sqrt(len(returns))
        cells = [f"{rate:.3g}" for rate, _ in found]
        print(f"| `{env.spec.name}` | {' | '.join(cells)} | {returns.mean():.2f} +- {error:.2f} | {len(returns):,} |")


if __name__ == "__main__":
    main()
