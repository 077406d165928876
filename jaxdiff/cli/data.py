"""`jaxdiff data list|make|info|import`: the datasets this package makes, and files that others made.

  jaxdiff data list                                     what can be made, what is on disk, what is public
  jaxdiff data make NAME [--seed --steps --noise --out] make a dataset from a seed, the same bytes every time
  jaxdiff data info FILE                                check a file and describe it
  jaxdiff data import FILE --out=NEW.hdf5               check a file and store it as D4RL-schema HDF5, with a card

Files go to $JAXDIFF_DATA, by default ~/.cache/jaxdiff/data.
"""

from collections.abc import Callable, Mapping
import contextlib
import functools
import os
import pathlib
import sys
import time

from absl import flags
import jax
import numpy as np

from jaxdiff.data import card as cards
from jaxdiff.data import catalog, reference, sources, waypoint, writer
from jaxdiff.data.columns import time_limits
from jaxdiff.suggest import did_you_mean


def main(argv: list[str]) -> int:
    """Runs one subcommand; argv starts with its name. Returns the exit code; a wrong request raises."""
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(__doc__)
        return 0
    if argv[0] not in COMMANDS:
        raise KeyError(f"unknown command 'data {argv[0]}'; {did_you_mean(argv[0], COMMANDS)}")
    return COMMANDS[argv[0]](argv)


def ensure(name_or_path: str | os.PathLike[str]) -> pathlib.Path:
    """Path of a dataset that exists: a missing one of `catalog.GENERATED` is made first, with its usual arguments.

    Raises:
      KeyError: an unknown name.
      FileNotFoundError: a path without a file.
    """
    path = catalog.resolve(name_or_path)
    name = os.fspath(name_or_path)
    if name in catalog.GENERATED and not path.exists():
        print(f"making {name} at {path} ...", file=sys.stderr)
        make(name, path)
    sources.require_file(path)
    return path


def make(
    name: str,
    path: pathlib.Path,
    *,
    seed: int = catalog.SEED,
    num_steps: int = catalog.NUM_STEPS,
    noise: float = catalog.NOISE,
) -> cards.Card:
    """Makes the dataset `name` at `path`, with its card. The work is done on the CPU, so that a GPU changes nothing.

    Raises:
      KeyError: not a name in `catalog.GENERATED`.
      ValueError: an argument out of range (see `waypoint.generate`).
    """
    from jaxdiff.envs import pointmaze

    if name not in catalog.GENERATED:
        raise KeyError(f"unknown dataset {name!r}; {did_you_mean(name, catalog.GENERATED)}")
    made = catalog.GENERATED[name]
    env = pointmaze.pointmaze(made.size, dense=made.dense)
    layout, goal = tuple(env.facts["layout"]), env.facts["goal"]
    maze = waypoint.Maze(layout, (goal[0], goal[1]), env.spec.max_episode_steps, made.dense)
    with _on_cpu():
        key = jax.random.key(seed, impl="threefry2x32")
        columns = waypoint.generate(key, maze, _physics(layout), num_steps=num_steps, noise=noise)
    origin = cards.Origin(
        name=name,
        generator="waypoint controller walking between random cells of the maze; rewards are those of the fixed goal",
        licence=catalog.LICENCE,
        env=env.spec.name,
        arguments={"num_steps": num_steps, "noise": noise, "max_episode_steps": env.spec.max_episode_steps},
        seed=seed,
        reference_scores=env.spec.reference_scores,
    )
    return writer.write(path, columns, origin)


@functools.cache
def _physics(layout: tuple[str, ...]) -> waypoint.Physics:
    """One function object per maze, so that making a dataset again does not compile again."""
    from jaxdiff.envs import pointmaze

    return functools.partial(pointmaze.physics_step, walls=pointmaze.walls_of(layout))


def _list(argv: list[str]) -> int:
    _parse(flags.FlagValues(), argv, positional="")
    root = catalog.data_root()
    print(f"made here, from a seed (jaxdiff data make NAME), in {root}:")
    for name in catalog.GENERATED:
        mark = "on disk" if catalog.dataset_path(name).exists() else ""
        print(f"  {name:24} {mark}")
    usual = {catalog.dataset_path(name).name for name in catalog.GENERATED}
    others = sorted(path for path in root.glob("*.hdf5") if path.name not in usual) if root.is_dir() else []
    if others:
        print("\nalso on disk:")
    for path in others:
        print(f"  {path.stem}")
    print("\npublic, fetched by you and read by path:")
    for public in catalog.PUBLISHED:
        print(f"  {public.name:9} {public.page}\n            {public.reading}; licence: {public.licence}")
    print("\nD4RL files (observation/action dimensions; rows):")
    for task, facts in catalog.D4RL_FACTS.items():
        print(f"  {task:12} {facts}")
    return 0


def _make(argv: list[str]) -> int:
    fv = flags.FlagValues()
    flags.DEFINE_integer("seed", catalog.SEED, "seed of the generator", lower_bound=0, flag_values=fv)
    flags.DEFINE_integer("steps", catalog.NUM_STEPS, "rows to make", lower_bound=2, flag_values=fv)
    flags.DEFINE_float("noise", catalog.NOISE, "standard deviation of action noise", lower_bound=0.0, flag_values=fv)
    flags.DEFINE_string("out", None, "file to write; default: a name in $JAXDIFF_DATA", flag_values=fv)
    name = _parse(fv, argv, positional="NAME")
    if name is None:
        return 0
    path = catalog.dataset_path(name, seed=fv.seed, num_steps=fv.steps, noise=fv.noise)
    path = pathlib.Path(fv.out).expanduser() if fv.out else path
    _check_out(path)
    start = time.perf_counter()
    card = make(name, path, seed=fv.seed, num_steps=fv.steps, noise=fv.noise)
    print(f"{path}: {card.num_rows} rows in {time.perf_counter() - start:.1f} s, sha256 {card.sha256[:16]}")
    return 0


def _info(argv: list[str]) -> int:
    fv = flags.FlagValues()
    _define_reading(fv)
    given = _parse(fv, argv, positional="FILE")
    if given is None:
        return 0
    path = catalog.resolve(given)
    columns = sources.load_columns(path, fv.format)
    _, info = sources.load(path, fv.format, max_episode_steps=fv.max_episode_steps)
    truncated = time_limits(columns, str(path), fv.max_episode_steps)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    for name, array in columns.named().items():
        print(f"  {name:18} {str(array.shape):18} {array.dtype.name:8} {_describe_values(array)}")
    agents = f", {info.num_agents} agents" if info.num_agents else ""
    print(f"transitions        {info.num_transitions}{agents}, in {info.num_episodes} episodes")
    print(f"ends               {int(columns.terminated.sum())} terminations, {int(truncated.sum())} time limits")
    if info.return_mean is not None:
        print(f"return             {info.return_mean:.2f} +- {info.return_std:.2f} (one deviation) over whole episodes")
    if info.reference_scores and info.return_mean is not None:
        score = reference.normalised_score(info.return_mean, info.reference_scores)
        print(f"normalised return  {score:.1f} (0 random: {info.reference_scores[0]}, 100: {info.reference_scores[1]})")
    print(f"sha256             {cards.file_sha256(path)} (file)\n                   {info.sha256} (content)")
    card = cards.read_card(path)
    if card is None:
        print("card               none; `jaxdiff data import` writes one")
        return 0
    print(f"card               {card.name}, env {card.env}, seed {card.seed}, {dict(card.arguments)}")
    print(f"                   {card.generator}; licence: {card.licence}")
    return 0


def _import(argv: list[str]) -> int:
    fv = flags.FlagValues()
    _define_reading(fv)
    flags.DEFINE_string("out", None, "file to write, .hdf5", flag_values=fv)
    flags.DEFINE_float("action_limit", 1.0, "actions are divided by this, to lie in [-1, 1]", 1e-6, flag_values=fv)
    flags.DEFINE_string("name", None, "name of the dataset; default: that of the new file", flag_values=fv)
    flags.DEFINE_string("env", None, "name of the jaxdiff environment that the data's task is", flag_values=fv)
    flags.DEFINE_string("licence", "unknown", "licence of the data, for the card", flag_values=fv)
    given = _parse(fv, argv, positional="FILE")
    if given is None:
        return 0
    if not fv.out:
        raise ValueError("data import: no --out; say where to write, as --out=NEW.hdf5")
    path, out = catalog.resolve(given), pathlib.Path(fv.out).expanduser()
    columns = sources.load_columns(path, fv.format, action_limit=fv.action_limit)
    if fv.action_limit == 1.0:  # otherwise the rows are not those a card was written for
        cards.verify(path, columns)
    _check_out(out)
    name = fv.name or out.stem
    arguments = {"sha256": cards.file_sha256(path), "action_limit": fv.action_limit}
    origin = cards.Origin(
        name=name,
        generator=f"imported from {path.name}",
        licence=fv.licence,
        env=fv.env,
        arguments=arguments,
        reference_scores=reference.reference_scores(name) or reference.reference_scores(path.stem),
    )
    card = writer.write(out, columns, origin, max_episode_steps=fv.max_episode_steps)
    print(f"{out}: {card.num_rows} rows, {card.num_transitions} transitions, sha256 {card.sha256[:16]}")
    return 0


COMMANDS: Mapping[str, Callable[[list[str]], int]] = {"list": _list, "make": _make, "info": _info, "import": _import}


def _define_reading(fv: flags.FlagValues) -> None:
    flags.DEFINE_string("format", None, f"{', '.join(sources.SOURCES)}; default: tell by the file", flag_values=fv)
    flags.DEFINE_integer(
        "max_episode_steps", None, "time limit of the task, for files without timeouts", 1, flag_values=fv
    )


def _parse(fv: flags.FlagValues, argv: list[str], *, positional: str) -> str | None:
    """Parses flags, and the one positional argument if any; None after printing help, or where none is wanted."""
    usage = f"jaxdiff data {argv[0]} {positional}".rstrip()
    if {"--help", "-h"} & set(argv):
        print(f"usage: {usage} [flags]\n{fv.get_help()}")
        return None
    rest = fv(argv)[1:]
    if len(rest) != bool(positional):
        raise ValueError(f"data {argv[0]}: got {rest or 'no argument'}; usage: {usage} [--flag=value ...]")
    return rest[0] if rest else None


def _check_out(path: pathlib.Path) -> None:
    """Raises ValueError where writing would replace a file that has no card, and so was not written by us."""
    writer.require_hdf5_name(path)
    if path.exists() and cards.read_card(path) is None:
        raise ValueError(f"{path}: exists and was not written by jaxdiff; choose another --out or move it away.")


def _describe_values(array: np.ndarray) -> str:
    if array.dtype == bool:
        return f"{int(array.sum())} true"
    return f"min {array.min():.3f}, mean {array.mean(dtype=np.float64):.3f}, max {array.max():.3f}"


def _on_cpu() -> contextlib.AbstractContextManager[object]:
    """The CPU as default device, where this process has one (JAX_PLATFORMS may leave it out)."""
    try:
        return jax.default_device(jax.devices("cpu")[0])
    except RuntimeError:
        return contextlib.nullcontext()
