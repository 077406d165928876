"""How many plans per second the same network makes in JAX and in PyTorch.

  python -m experiments.studies.plan_speed [--rounds=5] [--batches=1,64] [--compile] [--out=FILE.md]

Needs PyTorch: pip install 'jaxdiff[bench]'. The network is the U-Net of Diffuser's released umaze config: transitions
of 6 numbers, width 32, multiples 1, 4, 8, horizon 128, kernel 5. The first and the last observation are known. Plans
are drawn by the chain of the paper, 64 calls of DDPM, and by 10 calls of DPM-Solver++ (2M). In JAX each is one compiled
program; in PyTorch it is what one writes there: eager modules and a Python loop, no gradients (`plan_speed_torch`).
With --compile the same loops are timed once more around `torch.compile`, which wants a C++ compiler.

First the weights go from one to the other, and both must say the same: one call of the network to 1e-4, and plans from
the same x_T, DDPM's with its noise left out, to 1e-3. Then every round times every program once, for about --seconds,
in one process and with equally many threads; odd rounds turn the order round. Compiling is excluded, and printed. What
other samplers and networks make of it in JAX is a table of its own, since they draw other plans.

Wants an idle machine. PyTorch's threads wait for one another after every operation, so where another process holds one
of two cores, a call took 700 ms in place of 10, and the ratio says nothing; --threads=1 depends far less on others. The
load before is printed, and so is every program whose rounds lie apart.
"""

import argparse
from collections.abc import Callable
import dataclasses
import math
import os
from pathlib import Path
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import diffusion
from jaxdiff.algorithms.planner import Known, PlannerConfig, make_planner
from jaxdiff.types import Array, PyTree

OBS_DIM, ACTION_DIM = 4, 2
DIM = ACTION_DIM + OBS_DIM  # of a step: action, then observation
FORWARD_LIMIT, PLAN_LIMIT = 1e-4, 1e-3
STEADY = 1.3  # most over least of the rounds of a program that nothing disturbed

UNET = PlannerConfig(
    width=32, mults=(1, 4, 8), kernel_size=5, bias="torch", horizon=128, num_levels=64, num_steps=64, clip=True
)
FAST = dataclasses.replace(UNET, sampler="dpmpp_2m", num_steps=10)
CASES = {"DDPM, 64 calls": UNET, "DPM-Solver++ (2M), 10 calls": FAST}
OTHERS = {
    "another sampler: DPM-Solver++ (2M), 5 calls": dataclasses.replace(FAST, num_steps=5),
    "another network: tokens of 4 steps; DDPM, 64 calls": dataclasses.replace(UNET, patch=4),
    "another network: tokens of 4 steps; DPM-Solver++ (2M), 10 calls": dataclasses.replace(FAST, patch=4),
}
JAX, TORCH, COMPILED = "JAX", "PyTorch", "PyTorch, torch.compile"


class Name(NamedTuple):
    """What is timed."""

    case: str
    batch: int
    side: str


class Program(NamedTuple):
    """A sampler of plans: draw(seed, temperature, and in PyTorch x_T) -> [B, H, D] on the host."""

    draw: Callable[..., np.ndarray]
    compile_seconds: float = 0.0


def import_torch_side() -> Any:
    """The module `plan_speed_torch`.

    Raises:
      ImportError: there is no PyTorch; the message is the line that installs it.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError("pip install 'jaxdiff[bench]'") from error
    from experiments.studies import plan_speed_torch

    return plan_speed_torch


def init_params(config: PlannerConfig, seed: int = 0) -> PyTree:
    """Parameters near those that training starts with: kernels in PyTorch's range, no scale quite 1, no bias 0.

    A chain of calls of an untrained network multiplies rounding; with a last kernel of a quarter the size it does so
    little enough that two float32 programs can be compared, and takes the same time.
    """
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:
            values = 0.05 * rng.normal(size=leaf.shape) + float(path[-1].key == "scale")
        else:
            bound = math.prod(leaf.shape[:-1]) ** -0.5
            values = rng.uniform(-bound, bound, leaf.shape)
        return values.astype(np.float32)

    shapes = jax.eval_shape(make_planner(config, DIM).init, jax.random.key(0))
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    params["params"]["Dense_0"]["kernel"] *= 0.25
    return jax.device_put(params)


def known_ends(batch: int) -> np.ndarray:
    """First and last observations [B, 2, O] in [-1, 1]."""
    return np.random.default_rng(0).uniform(-1.0, 1.0, (batch, 2, OBS_DIM)).astype(np.float32)


def held(ends: np.ndarray, horizon: int) -> Known:
    """The observations of the first and of the last of H steps, as entries of a plan [B, H, D]."""
    mask, values = np.zeros((horizon, DIM), bool), np.zeros((len(ends), horizon, DIM), np.float32)
    mask[[0, -1], ACTION_DIM:] = True
    values[:, [0, -1], ACTION_DIM:] = ends
    return Known(jnp.asarray(mask), jnp.asarray(values))


def jax_program(config: PlannerConfig, params: PyTree, ends: np.ndarray, jit: Callable[..., Any] = jax.jit) -> Program:
    """Our planner, compiled for one batch."""
    planner = make_planner(config, DIM)

    @jit
    def plan(params: PyTree, known: Known, key: Array, temperature: Array) -> Array:
        denoise = planner.bind(params, None)
        return planner.draw(
            key, lambda x, level: denoise(x, level, None), known, (len(ends),), temperature=temperature
        ).x

    arguments = params, held(ends, config.horizon)
    start = time.perf_counter()
    compiled = plan.lower(*arguments, jax.random.key(0), jnp.float32(1.0)).compile()
    seconds = time.perf_counter() - start

    def draw(seed: int, temperature: float = 1.0) -> np.ndarray:
        return np.asarray(compiled(*arguments, jax.random.key(seed), jnp.float32(temperature)))

    return Program(draw, seconds)


def first_noise(config: PlannerConfig, seed: int, batch: int) -> np.ndarray:
    """x_T [B, H, D] of the plans that our program draws from this seed."""
    key_start, _ = jax.random.split(jax.random.key(seed))
    std = make_planner(config, DIM).process.prior_std
    return np.array(std * jax.random.normal(key_start, (batch, config.horizon, DIM)))


def forward_difference(config: PlannerConfig, params: PyTree, theirs: Any, batch: int = 4) -> float:
    """Largest difference between our network and `theirs`, a `Side`, at levels from the least to the most noise."""
    planner = make_planner(dataclasses.replace(config, clip=False), DIM)
    x = np.random.default_rng(1).normal(size=(batch, config.horizon, DIM)).astype(np.float32)
    level = diffusion.level_at(planner.process.schedule, np.linspace(1.0 / config.num_levels, 1.0, batch))
    ours = jax.jit(lambda params, x: planner.bind(params, None)(x, level, None))(params, x)
    return float(np.abs(np.asarray(ours) - theirs.forward(x, planner.process.c_noise(level))).max())


def plan_difference(config: PlannerConfig, ours: Program, theirs: Program, batch: int) -> float:
    """Largest difference between the plans of both from one x_T, no noise injected on the way."""
    seed = 1
    x_T = first_noise(config, seed, batch)
    return float(np.abs(ours.draw(seed, 0.0) - theirs.draw(seed, 0.0, x_T)).max())


def check(what: str, difference: float, limit: float) -> str:
    """A line, printed at once, that says how much two results differ.

    Raises:
      RuntimeError: too much to be the same computation.
    """
    if not difference < limit:
        raise RuntimeError(f"{what} differs by {difference:.1e}, and only below {limit:g} are both the same network.")
    line = f"* {what} differs by at most {difference:.1e} (allowed: {limit:g})"
    print(line, flush=True)
    return line


def time_programs(draws: dict[Name, Callable[[int], Any]], rounds: int, seconds: float) -> dict[Name, list[float]]:
    """Plans per second in each round."""

    def taken(name: Name, count: int) -> float:
        start = time.perf_counter()
        for seed in range(count):
            draws[name](seed)
        return time.perf_counter() - start

    counts = dict.fromkeys(draws, 1)
    for name in draws:
        if taken(name, 1) < seconds:  # the first run may be a slow one
            counts[name] = max(1, round(seconds / taken(name, 1)))
    rates: dict[Name, list[float]] = {name: [] for name in draws}
    for k in range(rounds):
        for name in list(draws) if k % 2 == 0 else reversed(draws):
            rates[name].append(name.batch * counts[name] / taken(name, counts[name]))
    return rates


def spread(values: list[float]) -> str:
    """Median, least and most in three digits, as two cells of a table."""
    middle, low, high = (f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f}" for value in summary(values))
    return f"{middle} | {low} to {high}"


def summary(values: list[float]) -> tuple[float, float, float]:
    """Median, least, most."""
    return statistics.median(values), min(values), max(values)


def over(rates: dict[Name, list[float]], name: Name, base: Name) -> list[float]:
    """Ratios of two programs, round by round."""
    return [a / b for a, b in zip(rates[name], rates[base], strict=True)]


def comparison(rates: dict[Name, list[float]], side: str = TORCH) -> str:
    """The table of the cases that both sides draw."""
    lines = [
        f"| sampler | batch | JAX plans/s | least to most | {side} plans/s | least to most | JAX / {side} | by round |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for theirs in (name for name in rates if name.side == side):
        ours = theirs._replace(side=JAX)
        cells = spread(rates[ours]), spread(rates[theirs]), spread(over(rates, ours, theirs))
        lines.append(f"| {theirs.case} | {theirs.batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def others(rates: dict[Name, list[float]]) -> str:
    """The table of what is no comparison: JAX alone, over its own first case."""
    base = next(iter(CASES))
    lines = [
        f"| not the same plans | batch | JAX plans/s | least to most | over JAX, {base} | by round |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for name in (name for name in rates if name.case in OTHERS):
        cells = spread(rates[name]), spread(over(rates, name, name._replace(case=base)))
        lines.append(f"| {name.case} | {name.batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def disturbed(rates: dict[Name, list[float]]) -> str:
    """A line that names the programs whose rounds lie too far apart to be quoted."""
    apart = [", ".join(map(str, name)) for name, found in rates.items() if max(found) > STEADY * min(found)]
    what = f"rounds lie more than {STEADY:g} times apart"
    return f"DISTURBED, do not quote ({what}): {'; '.join(apart)}." if apart else f"Of no program the {what}."


def build(batches: list[int], torch_side: Any, threads: int, compiled: bool) -> tuple[dict[Name, Program], list[str]]:
    """Every program, and lines that say that both sides compute the same.

    Raises:
      RuntimeError: they do not.
    """
    params = init_params(UNET)
    theirs = torch_side.Side(UNET, params, threads, "cpu" if jax.default_backend() == "cpu" else "cuda")
    told = [check("one call of the network", forward_difference(UNET, params, theirs), FORWARD_LIMIT)]
    sides = {TORCH: theirs.net} | ({COMPILED: theirs.compiled()} if compiled else {})
    programs = {}
    for batch in batches:
        ends = known_ends(batch)
        for case, config in CASES.items():
            ours = programs[Name(case, batch, JAX)] = jax_program(config, params, ends)
            for side, net in sides.items():
                program = programs[Name(case, batch, side)] = Program(theirs.sampler(config, ends, net))
                difference = plan_difference(config, ours, program, batch)
                told.append(check(f"{case}, batch {batch}, {side}: a plan", difference, PLAN_LIMIT))
        for case, config in OTHERS.items():
            own = params if config.patch == 1 else init_params(config)
            programs[Name(case, batch, JAX)] = jax_program(config, own, ends)
    return programs, told


def main() -> None:
    """Measures, prints two markdown tables and, with --out, writes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="1,64", help="plans drawn at once, separated by commas")
    parser.add_argument("--seconds", type=float, default=2.0, help="that each program takes in a round, at least once")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of either side, on a CPU")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument("--out", type=Path, help="markdown file to write")
    flags = parser.parse_args()
    torch_side, load = import_torch_side(), os.getloadavg()[0]
    os.environ["PJRT_NPROC"] = str(flags.threads)  # read when JAX makes its CPU device
    jax.config.update("jax_default_matmul_precision", "float32")
    batches = [int(text) for text in flags.batches.split(",")]
    programs, told = build(batches, torch_side, flags.threads, flags.compile)
    rates = time_programs({name: program.draw for name, program in programs.items()}, flags.rounds, flags.seconds)
    seconds = {name: program.compile_seconds for name, program in programs.items() if name.side == JAX}
    machine = f"{os.cpu_count()} cores, {flags.threads} threads for either side, {jax.devices()[0].device_kind}"
    versions = f"jax {jax.__version__}, torch {torch_side.torch.__version__}"
    tables = [
        f"{machine}; {versions}; {flags.rounds} rounds; load before {load:.1f}.",
        disturbed(rates),
        comparison(rates),
        *([comparison(rates, COMPILED)] if flags.compile else []),
        others(rates),
        f"JAX compiled each program in {min(seconds.values()):.0f} to {max(seconds.values()):.0f} s.",
    ]
    print("\n" + "\n\n".join(tables))
    if flags.out:
        flags.out.write_text("\n\n".join([*tables, "\n".join(told)]) + "\n")


if __name__ == "__main__":
    main()
