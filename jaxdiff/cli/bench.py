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
import dataclasses
import math
import re
import statistics
import sys
import tempfile
import time
from typing import Any, NoReturn

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import data, sweep
from jaxdiff.cli import config as configs
from jaxdiff.cli.flops import matrix_flops, matrix_peak
from jaxdiff.cli.machine import use_all_cores
from jaxdiff.cli.programs import Programs, make_programs
from jaxdiff.cli.task import Task, make_algorithm
from jaxdiff.io import files, stamp
from jaxdiff.types import Env, Spec, Transition

SPEC = Spec("bench", obs_dim=17, action_dim=6, max_episode_steps=1000)
NUM_TRANSITIONS = 100_000
BASELINE = (1, "vmap")
PRECISION = "jax_default_matmul_precision"  # of float32 products: on some devices fewer bits by default
HEADS = (
    "lanes", "mode", "member-updates/s", "spread", "vs 1 vmap lane", "GFLOP/s", "of peak",
    "compile s", "cached s", "auto",
)  # fmt: skip


@dataclasses.dataclass
class Row:
    """One number of lanes under one mode."""

    lanes: int
    mode: str
    cache: str  # folder of this row's compilation cache
    programs: Programs
    cold_seconds: float  # to compile with an empty cache
    cached_seconds: float  # to trace and load from a filled one
    updates: int = 0  # per measurement
    seconds: list[float] = dataclasses.field(default_factory=list)  # of each measurement

    @property
    def rate(self) -> float:
        """Median member-updates per second."""
        return self.lanes * self.updates / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest - fastest) / median of the measurements."""
        return (max(self.seconds) - min(self.seconds)) / statistics.median(self.seconds)


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
    result = summarise(rows, flops, max(peak, matrix_peak()))
    print(markdown(result, config, flag_values.config))
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
    return wanted if BASELINE in wanted else [BASELINE, *wanted]


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


def summarise(rows: Sequence[Row], flops: Mapping[str, Any], peak: float) -> dict[str, Any]:
    """Every number of the table as plain values."""
    baseline = next(row.rate for row in rows if (row.lanes, row.mode) == BASELINE)
    chosen = chosen_modes(rows)
    # Devices of a CPU share its cores, so the peak of one is the peak of all.
    devices = 1 if jax.default_backend() == "cpu" else jax.device_count()
    table = []
    for row in rows:
        used = devices if row.mode in ("shard", "pmap") else 1
        operations = row.rate * flops["update"]
        table.append(
            {
                "lanes": row.lanes,
                "mode": row.mode,
                "member_updates_per_second": row.rate,
                "spread": row.spread,
                "relative": row.rate / baseline,
                "flops_per_second": operations,
                "fraction_of_peak": operations / (peak * used),
                "compile_seconds_cold": row.cold_seconds,
                "compile_seconds_cached": row.cached_seconds,
                "auto": chosen.get(row.lanes) == row.mode,
                "updates_per_measurement": row.updates,
                "seconds": row.seconds,
            }
        )
    return {
        "rows": table,
        "flops_per_update": dict(flops),
        "peak_flops_per_second": peak,
        "matmul_precision": getattr(jax.config, PRECISION) or "default",
        "shortest_measurement_seconds": min(min(row.seconds) for row in rows),
    }


def chosen_modes(rows: Sequence[Row]) -> dict[int, str]:
    """Lanes -> the mode that `--lanes=auto` picks by these measurements, among the modes it would try."""
    seconds: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.mode in sweep.candidate_modes(row.lanes, jax.device_count()):
            seconds.setdefault(row.lanes, {})[row.mode] = row.lanes / row.rate
    return {lanes: sweep.choose_mode(timed) for lanes, timed in seconds.items()}


def markdown(result: Mapping[str, Any], config: Mapping[str, Any], name: str) -> str:
    """The table and what it takes to read it."""
    flops, rows = result["flops_per_update"], result["rows"]
    sizes = f"observations of {SPEC.obs_dim}, actions of {SPEC.action_dim} numbers"
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}"
    xla = "says nothing" if flops["xla"] is None else f"says {flops['xla'] / 1e9:.3g}, elementwise work included"
    wall = f"at least {result['shortest_measurement_seconds']:.2f} s each"
    lines = [
        f"{name}: {config['algorithm']}, batch {config['batch_size']}, {sizes}; {device}",
        f"one update: {flops['update'] / 1e9:.3g} GFLOP in matrix products, from its trace; XLA's cost analysis {xla}",
        f"largest float32 matrix product of one device: {result['peak_flops_per_second'] / 1e9:.0f} GFLOP/s",
        f"median of {len(rows[0]['seconds'])} interleaved measurements, {wall}; spread is slowest minus fastest",
        "",
        f"| {' | '.join(HEADS)} |",
        "|--:|:--|--:|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for row in rows:
        cells = [
            str(row["lanes"]),
            row["mode"],
            f"{row['member_updates_per_second']:.1f}",
            f"{row['spread']:.0%}",
            f"{row['relative']:.2f}",
            f"{row['flops_per_second'] / 1e9:.1f}",
            f"{row['fraction_of_peak']:.1%}",
            f"{row['compile_seconds_cold']:.1f}",
            f"{row['compile_seconds_cached']:.1f}",
            "picked" if row["auto"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
