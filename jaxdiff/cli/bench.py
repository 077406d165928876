"""`jaxdiff bench`: updates per second of a sweep, for each number of lanes and each way of running them.

  jaxdiff bench [--lanes=1,2,4,8,16] [--modes=vmap,map,shard,pmap] [--config=diffusion_ql:paper] [--out=FILE.json]
                [--updates=N] [--seconds=2] [--repeats=3] [--config.KEY=VALUE ...]

One member-update is one gradient update of one member. Data are noise from a seed, of the size of D4RL's halfcheetah
(observations of 17 numbers, actions of 6), since speed does not depend on what they say. A measurement is one dispatch
of as many updates as take --seconds; each round measures every row once, so that a machine that slows down slows all
rows; a row is the median of its rounds, relative to one vmapped lane of the same run. Compile times are those of the
update loop, tracing included, with empty caches in memory: cold with an empty compilation cache on disk too, cached
with that one filled. `auto` marks the mode that `--lanes=auto` would take by these numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import math
import re
import sys
import tempfile
import time
from typing import Any, NoReturn

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import data, sweep
from jaxdiff.cli import bench_table
from jaxdiff.cli import config as configs
from jaxdiff.cli.bench_table import Row
from jaxdiff.cli.flops import matrix_flops, matrix_peak
from jaxdiff.cli.machine import use_all_cores
from jaxdiff.cli.programs import Programs, make_programs
from jaxdiff.cli.task import Task, make_algorithm
from jaxdiff.io import files, stamp
from jaxdiff.types import Env, Spec, Transition

SPEC = Spec("bench", obs_dim=17, action_dim=6, max_episode_steps=1000)
NUM_TRANSITIONS = 100_000


def main(argv: list[str]) -> int:
    """Measures, prints a markdown table and, with --out, writes every number. Returns the exit code.

    Raises:
      KeyError, ValueError: an unknown config, key, mode or flag, or a number out of range.
    """
    flag_values = flags.FlagValues()
    flags.DEFINE_list("lanes", ["1", "2", "4", "8", "16"], "numbers of lanes", flag_values=flag_values)
    flags.DEFINE_list("modes", [m for m in sweep.MODES if m != "data"], "ways to run them", flag_values=flag_values)
    flags.DEFINE_integer("updates", 0, "per measurement; 0: as many as take --seconds", 0, flag_values=flag_values)
    flags.DEFINE_float("seconds", 2.0, "shortest measurement", 0.0, flag_values=flag_values)
    flags.DEFINE_integer("repeats", 3, "measurements of each row", 1, flag_values=flag_values)
    flags.DEFINE_string("config", "diffusion_ql:paper", "config to take the algorithm from", flag_values=flag_values)
    flags.DEFINE_string("out", None, "JSON file to write", flag_values=flag_values)
    overrides, rest = _split_overrides(argv)
    positional = configs.parse_flags(rest, flag_values, __doc__ or "")
    if positional:
        raise ValueError(f"unexpected argument {positional[0]!r}; bench takes flags only, see jaxdiff bench --help.")
    wanted = rows_wanted(flag_values.lanes, flag_values.modes)
    config = configs.load(flag_values.config, overrides).to_dict()
    use_all_cores("shard" if {"shard", "pmap", "data"} & {mode for _, mode in wanted} else "vmap")
    task = make_task(config)
    peak = matrix_peak()
    update = _one_update(task, config)
    flops = {"update": matrix_flops(task.algorithm.update, *update), "xla": _xla_flops(task.algorithm.update, *update)}
    with tempfile.TemporaryDirectory(prefix="jaxdiff-bench-") as folder:
        rows = [compile_row(task, config, *row, f"{folder}/{k}") for k, row in enumerate(wanted)]
        measure(rows, flag_values.updates, flag_values.seconds, flag_values.repeats)
    result = bench_table.summarise(rows, flops, max(peak, matrix_peak()))
    print(bench_table.markdown(result, config, flag_values.config, SPEC))
    if flag_values.out:
        here = stamp.stamp(["jaxdiff", "bench", *argv], config, None, None, None)
        files.write_json_atomic(flag_values.out, {**here, **result})
        print(f"\nwritten to {flag_values.out}")
    return 0


def rows_wanted(lanes: Sequence[str], modes: Sequence[str]) -> list[tuple[int, str]]:
    """(lanes, mode) of every row, the one that the others are relative to first if it is not among them.

    Raises:
      ValueError: lanes that are not positive whole numbers, or an unknown mode.
    """
    for mode in modes:
        if mode not in sweep.MODES:
            raise ValueError(f"--modes has {mode!r}; allowed: {', '.join(sweep.MODES)}.")
    for count in lanes:
        if not count.isdecimal() or int(count) < 1:
            raise ValueError(f"--lanes has {count!r}; give whole numbers from 1, for example --lanes=1,4,16.")
    wanted = [(int(count), mode) for count in lanes for mode in modes]
    return wanted if bench_table.BASELINE in wanted else [bench_table.BASELINE, *wanted]


def _split_overrides(argv: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """`--config.KEY=VALUE` pairs, and the other arguments."""
    matches = [(argument, re.match(r"--?config\.([^=]+)=(.*)", argument, re.DOTALL)) for argument in argv]
    return [(m.group(1), m.group(2)) for _, m in matches if m], [argument for argument, m in matches if not m]


def make_task(config: Mapping[str, Any]) -> Task:
    """The config's algorithm on noise of the size of a halfcheetah; the task cannot be acted in."""

    def unused(*_: Any) -> NoReturn:
        raise NotImplementedError("the benchmark has no environment")

    generator = np.random.default_rng(0)
    obs, next_obs = generator.standard_normal((2, NUM_TRANSITIONS, SPEC.obs_dim)).astype(np.float32)
    action = generator.uniform(-1, 1, (NUM_TRANSITIONS, SPEC.action_dim)).astype(np.float32)
    reward = generator.standard_normal(NUM_TRANSITIONS).astype(np.float32)
    transitions = Transition(obs, action, reward, np.ones_like(reward), next_obs)  # type: ignore[arg-type]
    dataset = data.Dataset(transitions, np.arange(NUM_TRANSITIONS, dtype=np.int32) // 1000)  # type: ignore[arg-type]
    algorithm = make_algorithm(config, SPEC, None)
    return Task(algorithm, Env(unused, unused, SPEC), jax.device_put(dataset), None, None)


@contextlib.contextmanager
def compilation_cache(folder: str) -> Iterator[None]:
    """Keeps every compiled program in `folder`, in place of the process's own cache."""
    from jax.experimental.compilation_cache import compilation_cache as cache

    wanted = {
        "jax_compilation_cache_dir": folder,
        "jax_enable_compilation_cache": True,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
        _configure(wanted)
        cache.reset_cache()
        yield
    finally:
        _configure(before)
        cache.reset_cache()


def _configure(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        jax.config.update(name, value)


def compile_row(task: Task, config: Mapping[str, Any], lanes: int, mode: str, folder: str) -> Row:
    """Compiles a row's update loop twice: with an empty cache in `folder`, and with what that left there."""
    _say(f"compiling {lanes} lanes, {mode}")
    members = [sweep.make_member({**config, "seed": seed}, {"seed": seed}) for seed in range(lanes)]
    with compilation_cache(folder):
        jax.clear_caches()
        programs = make_programs(task, members, mode)
        cold = programs.compile_seconds
        jax.clear_caches()
        start = time.perf_counter()
        programs.run(0)
        return Row(lanes, mode, folder, programs, cold, time.perf_counter() - start)


def measure(rows: Sequence[Row], updates: int, seconds: float, repeats: int) -> None:
    """Fills in the rows' measurements, in rounds over all rows.

    Args:
      rows: compiled.
      updates: per measurement; 0: as many as take `seconds`, found by growing the number until a run takes as long.
      seconds: of the shortest measurement.
      repeats: rounds.
    """
    for row in rows:
        _say(f"warming up {row.lanes} lanes, {row.mode}")
        with compilation_cache(row.cache):
            row.programs.run(1)  # its program was dropped from memory while the others compiled
        row.updates = updates or _enough(row.programs, seconds)
    for k in range(repeats):
        _say(f"round {k + 1} of {repeats}")
        for row in rows:
            row.seconds.append(_timed(row.programs, row.updates))


def _enough(programs: Programs, seconds: float) -> int:
    count = 1
    while (took := _timed(programs, count)) < seconds:
        count = min(100 * count, max(2 * count, math.ceil(1.1 * count * seconds / took)))
    return count


def _timed(programs: Programs, updates: int) -> float:
    start = time.perf_counter()
    programs.run(updates)
    return time.perf_counter() - start


def _one_update(task: Task, config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Shapes of (key, state, batch)."""
    from jaxdiff.cli.settings import make_settings

    key = jax.eval_shape(lambda: jax.random.key(0))
    hparams = jax.tree.map(lambda _: jax.ShapeDtypeStruct((), jnp.float32), make_settings(config)[1])
    state = jax.eval_shape(task.algorithm.init, key, hparams)
    batch = jax.eval_shape(lambda k: data.sample_batch(k, task.dataset, int(config["batch_size"])), key)  # type: ignore[arg-type]
    return key, state, batch


def _xla_flops(update: Any, *args: Any) -> float | None:
    """What XLA's cost analysis says of one update; None where the backend has none. It counts a loop's body once."""
    _say("asking XLA for the cost of one update")
    found = (jax.jit(update).lower(*args).compile().cost_analysis() or {}).get("flops")
    return None if found is None or found <= 0 else float(found)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)
