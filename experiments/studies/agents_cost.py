"""What agents cost: seconds per update for A agents, as a ratio to one, by how parameters and attention are arranged.

  python -m experiments.studies.agents_cost [--agents=1,2,4,8,16,32] [--rounds=5] [--batch_size=64] [--out=FILE.md]

Programs are of `diffusion_bc`, independent and shared, and of `madiff` with and without attention between agents, at
fixed widths; observations have 18 numbers and actions 2 whatever A is. Each round times every program once, in one
process, in an order that turns round; a ratio is the median over rounds of seconds(A) / seconds(1) within a round.
Compiling is excluded. Wants an idle machine.
"""

import argparse
from collections.abc import Callable
import dataclasses
from pathlib import Path
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.algorithms import diffusion_bc
from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.data import Segments
from jaxdiff.multi import independent, madiff, shared
from jaxdiff.types import Algorithm, Spec, Transition

OBS_DIM, ACTION_DIM, HORIZON = 18, 2, 8
SECONDS = 0.5  # of each program in each round, about
POLICY = diffusion_bc.Config(policy=PolicyConfig(hidden=(256, 256)))
PLANNER = madiff.Config(
    planner=PlannerConfig("agent_unet", width=32, mults=(1, 2), horizon=HORIZON, num_levels=20, num_steps=10),
    normaliser="limits",
)
KINDS: dict[str, Callable[[Spec], Algorithm]] = {
    "diffusion_bc, independent": lambda spec: independent(diffusion_bc.make, POLICY, spec),
    "diffusion_bc, shared": lambda spec: shared(diffusion_bc.make, POLICY, spec),
    "madiff, attention": lambda spec: madiff.make(PLANNER, spec),
    "madiff, no attention": lambda spec: madiff.make(dataclasses.replace(PLANNER, attention=False), spec),
}


def batch_of(kind: str, num_agents: int, size: int) -> Any:
    """A random batch."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.uniform(-1, 1, size=shape), jnp.float32)

    if kind.startswith("madiff"):
        obs, action = draw(size, HORIZON, num_agents, OBS_DIM), draw(size, HORIZON, num_agents, ACTION_DIM)
        return Segments(obs, action, jnp.ones((size, HORIZON)), draw(size, num_agents))
    obs, after = draw(size, num_agents, OBS_DIM), draw(size, num_agents, OBS_DIM)
    action, reward = draw(size, num_agents, ACTION_DIM), draw(size, num_agents)
    return Transition(obs, action, reward, jnp.ones((size, num_agents)), after)


def make_program(kind: str, num_agents: int, size: int) -> Callable[[int], float]:
    """count -> seconds that as many updates take in one dispatch."""
    spec = Spec("cost", OBS_DIM, ACTION_DIM, max_episode_steps=25, num_agents=num_agents)
    algorithm, batch = KINDS[kind](spec), batch_of(kind, num_agents, size)
    module = madiff if kind.startswith("madiff") else diffusion_bc
    state = jax.jit(algorithm.init)(jax.random.key(0), jax.tree.map(np.float32, module.HParams()))

    @jax.jit
    def run(state: Any, count: jax.Array) -> Any:
        def one(k: Any, state: Any) -> Any:
            return algorithm.update(jax.random.fold_in(jax.random.key(1), k), state, batch)[0]

        return jax.lax.fori_loop(0, count, one, state)

    def seconds(count: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(state, jnp.int32(count)))
        return time.perf_counter() - start

    seconds(1)
    return seconds


def measure(agents: list[int], rounds: int, size: int) -> dict[tuple[str, int], list[float]]:
    """Seconds per update of every program in every round."""
    programs = {(kind, a): make_program(kind, a, size) for kind in KINDS for a in agents}
    counts = {name: max(1, int(SECONDS / (program(2) / 2))) for name, program in programs.items()}
    found: dict[tuple[str, int], list[float]] = {name: [] for name in programs}
    for k in range(rounds):
        for name in list(programs)[:: 1 if k % 2 == 0 else -1]:
            found[name].append(programs[name](counts[name]) / counts[name])
    return found


def table(found: dict[tuple[str, int], list[float]], agents: list[int]) -> str:
    """Milliseconds for the first number of agents, and ratios to it."""
    first = agents[0]
    lines = [f"| | ms, A = {first} | {' | '.join(f'A = {a}' for a in agents[1:])} |", "|:--|" + "--:|" * len(agents)]
    for kind in KINDS:
        base = found[kind, first]
        ratios = [statistics.median(t / b for t, b in zip(found[kind, a], base, strict=True)) for a in agents[1:]]
        cells = [f"{1e3 * statistics.median(base):.2f}", *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--agents", default="1,2,4,8,16,32", help="the first is what the others are divided by")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    agents = [int(a) for a in flags.agents.split(",")]
    text = table(measure(agents, flags.rounds, flags.batch_size), agents)
    print(text)
    if flags.out:
        flags.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
