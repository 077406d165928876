"""`jaxdiff data list|make|info|import|fetch`: the datasets this package makes, and files that others made.

  jaxdiff data list                              what can be made, what is on disk, what is public
  jaxdiff data make NAME [--quality --seed ...]  make a dataset from a seed (docs/data.md: what repeats)
  jaxdiff data make pointmaze-custom --maze=ROWS --out=FILE     in a maze of your own (docs/mazes.md)
  jaxdiff data make mpe-tag-medium --prey=FILE   against the prey in a file of OMAR's (docs/mpe.md)
  jaxdiff data info FILE                         check a file or folder and describe it
  jaxdiff data import FILE --out=NEW.hdf5        check it and store it as D4RL-schema HDF5, with a card
  jaxdiff data fetch NAME|URL [--sha256=HASH]    download a public file; a broken download goes on where it stopped

Files go to $JAXDIFF_DATA, by default ~/.cache/jaxdiff/data; formats that are read: D4RL HDF5, Minari HDF5, OGBench
.npz, any .npz with the arrays of a D4RL file, and folders of data with agents: .npy of OMAR and MADiff, OG-MARL's
vaults (docs/data.md).
"""

from collections.abc import Callable, Mapping
import pathlib
import sys
import time

from absl import flags
import numpy as np

from jaxdiff import envs
from jaxdiff.cli.make_data import check_meaning, make
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, download, reference, sources, writer
from jaxdiff.data.columns import content_sha256, first_agents, time_limits
from jaxdiff.io import files
from jaxdiff.suggest import did_you_mean, unknown_name

LARGEST_SEED = 2**31 - 1


def main(argv: list[str]) -> int:
    """Runs one subcommand; argv starts with its name. Returns the exit code; a wrong request raises."""
    if not argv or argv[0] in ("help", "--help", "-h"):
        print(__doc__)
        return 0
    if argv[0] not in COMMANDS:
        raise KeyError(f"unknown command 'data {argv[0]}'; {did_you_mean(argv[0], COMMANDS)}")
    return COMMANDS[argv[0]](argv)


def _list(argv: list[str]) -> int:
    _parse(flags.FlagValues(), argv, positional="")
    root = catalog.data_root()
    print(f"made here, from a seed (jaxdiff data make NAME), in {root}:")
    for name, made in catalog.GENERATED.items():
        mark = "on disk" if catalog.dataset_path(name).exists() else ""
        about = "minutes, once per behaviour" if isinstance(made, catalog.Trained) else "seconds"
        print(f"  {name:34} {about:28} {mark}".rstrip())
    for name in catalog.CUSTOM:
        print(f"  {name:34} seconds; with --maze=ROWS --out=FILE")
    usual = {catalog.dataset_path(name).name for name in catalog.GENERATED}
    others = sorted(path for path in root.glob("*.hdf5") if path.name not in usual) if root.is_dir() else []
    if others:
        print("\nalso on disk:")
    for path in others:
        print(f"  {path.stem}")
    print("\npublic families:")
    for public in catalog.PUBLISHED:
        print(f"  {public.name:9} {public.page}\n            {public.reading}; licence: {public.licence}")
    print("\npublic files (jaxdiff data fetch NAME; the download tells its bytes and sha256):")
    for name, file in catalog.PUBLIC_FILES.items():
        print(f"  {name:34} {file.size:20} {file.url}")
    return 0


def _make(argv: list[str]) -> int:
    fv, usual = flags.FlagValues(), catalog.Arguments()
    flags.DEFINE_string(
        "quality", None, f"of a maze {'|'.join(catalog.MAZE_QUALITIES)}; of brax {'|'.join(catalog.QUALITIES)}; "
        f"of mpe {'|'.join(catalog.SCRIPTED_QUALITIES)}; of a game see docs/games.md", flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer("seed", usual.seed, "seed of the rows", 0, LARGEST_SEED, flag_values=fv)
    flags.DEFINE_integer("steps", usual.num_steps, "rows to make", lower_bound=2, flag_values=fv)
    flags.DEFINE_float(
        "noise", None, "mazes: deviation of action noise; mpe: chance of a uniform action", 0.0, flag_values=fv
    )
    flags.DEFINE_string(
        "maze", usual.maze, r"pointmaze-custom: rows of #, O, G parted by backslashes, '#####\#GOO#\#####'",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_string("prey", usual.prey, "mpe-tag, mpe-world: file of OMAR's prey", flag_values=fv)
    flags.DEFINE_string(
        "backend", usual.backend, "brax physics: spring, positional, generalized, mjx; spring learns on a CPU",
        flag_values=fv,
    )  # fmt: skip
    flags.DEFINE_integer(
        "behaviour_seed", usual.behaviour_seed, "seed of PPO's training", 0, LARGEST_SEED, flag_values=fv
    )
    flags.DEFINE_integer("train_steps", usual.train_steps, "PPO's environment steps", 1, flag_values=fv)
    flags.DEFINE_string(
        "behaviour", None, "trained weights to use, .npz; default: kept in $JAXDIFF_DATA", flag_values=fv
    )
    flags.DEFINE_string("out", None, "file to write; default: a name in $JAXDIFF_DATA", flag_values=fv)
    given = _parse(fv, argv, positional="NAME")
    if given is None:
        return 0
    name = catalog.with_quality(given, fv.quality)
    given_numbers = (fv.seed, fv.steps, fv.noise, fv.backend, fv.behaviour_seed, fv.train_steps)
    arguments = catalog.Arguments(*given_numbers, maze=fv.maze, prey=fv.prey)
    weights = pathlib.Path(fv.behaviour).expanduser() if fv.behaviour else None
    if name in catalog.CUSTOM and not fv.out:
        raise ValueError(f"data make: {name} needs --out=FILE.hdf5, since its usual name would tell no maze.")
    if fv.prey:  # whose file is read for the usual name
        check_meaning(name, arguments, weights)
    path = pathlib.Path(fv.out).expanduser() if fv.out else catalog.dataset_path(name, arguments=arguments)
    if fv.behaviour and not fv.out:
        raise ValueError("data make: --behaviour needs --out, since the usual name tells another behaviour.")
    _check_out(path)
    start = time.perf_counter()
    card = make(name, path, arguments, behaviour_file=weights)
    score = "" if card.normalised_score is None else f", normalised score {card.normalised_score:.1f}"
    print(f"{path}: {card.num_rows} rows in {time.perf_counter() - start:.1f} s{score}, sha256 {card.sha256[:16]}")
    return 0


def _fetch(argv: list[str]) -> int:
    fv = flags.FlagValues()
    flags.DEFINE_string(
        "sha256", None, "hash the file must have; default: none is checked, it is shown", flag_values=fv
    )
    flags.DEFINE_string("out", None, "file to write; default: its own name in $JAXDIFF_DATA/public", flag_values=fv)
    given = _parse(fv, argv, positional="NAME|URL")
    if given is None:
        return 0
    if "://" not in given and given not in catalog.PUBLIC_FILES:
        raise KeyError(f"unknown public file {given!r}; {did_you_mean(given, catalog.PUBLIC_FILES)}")
    url = catalog.PUBLIC_FILES[given].url if given in catalog.PUBLIC_FILES else given
    own = url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    path = pathlib.Path(fv.out).expanduser() if fv.out else catalog.data_root() / "public" / own
    found = download.download(url, path, sha256=fv.sha256, report=_Progress())
    print(f"{path}: {path.stat().st_size} bytes, sha256 {found}{'' if fv.sha256 else ' (not compared)'}")
    return 0


class _Progress:
    """Bytes on stderr, at most once in five seconds."""

    def __init__(self) -> None:
        self.next = time.monotonic() + 5.0

    def __call__(self, done: int, total: int | None) -> None:
        if time.monotonic() >= self.next:
            self.next = time.monotonic() + 5.0
            whole = "" if total is None else f" of {total / 1e6:.1f}"
            print(f"  {done / 1e6:.1f}{whole} MB", file=sys.stderr, flush=True)


def _info(argv: list[str]) -> int:
    fv = flags.FlagValues()
    _define_reading(fv)
    given = _parse(fv, argv, positional="FILE")
    if given is None:
        return 0
    path = catalog.resolve(given)
    columns = sources.load_columns(path, fv.format, reading=_reading(fv))
    _, info = sources.cut(columns, path, fv.format, max_episode_steps=fv.max_episode_steps)
    truncated = time_limits(columns, str(path), fv.max_episode_steps)
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
    print(f"{path} ({size / 1e6:.1f} MB)")
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
    if path.is_dir():
        print(f"sha256             {info.sha256} (content)")
        print(f"card               none, it is a folder; `jaxdiff data import` writes {info.name}.hdf5 with one")
        return 0
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
    flags.DEFINE_integer("agents", None, "keep the first so many agents; default: all", 1, flag_values=fv)
    flags.DEFINE_string("name", None, "name of the dataset; default: that of the new file", flag_values=fv)
    flags.DEFINE_string("env", None, "name of the jaxdiff environment that the data's task is", flag_values=fv)
    flags.DEFINE_string("licence", "unknown", "licence of the data, for the card", flag_values=fv)
    given = _parse(fv, argv, positional="FILE")
    if given is None:
        return 0
    if not fv.out:
        raise ValueError("data import: no --out; say where to write, as --out=NEW.hdf5")
    if fv.env is not None and fv.env not in (known := [*envs.ENVS, *envs.CUSTOM_MAZES, *envs.HOST_ENVS]):
        raise unknown_name("environment", fv.env, known)
    path, out = catalog.resolve(given), pathlib.Path(fv.out).expanduser()
    columns = sources.load_columns(path, fv.format, action_limit=fv.action_limit, reading=_reading(fv))
    arguments = {"action_limit": fv.action_limit}
    if path.is_dir():
        card = None
        options = ("max_episode_steps", "num_actions", "pad")
        arguments |= {"content_sha256": content_sha256(columns), **{key: fv[key].value for key in options}}
    else:
        # With another limit the rows are not those of its card.
        card = cards.verify(path, columns) if fv.action_limit == 1.0 else None
        arguments |= {"sha256": cards.file_sha256(path)}
    if fv.agents is not None:
        columns, arguments["agents"] = first_agents(columns, fv.agents, str(path)), fv.agents
    _check_out(out)
    name, given_name = fv.name or out.stem, sources.name_of(path, fv.format)
    origin = cards.Origin(
        name=name,
        generator=f"imported from {given_name if path.is_dir() else path.name}",
        licence=fv.licence,
        env=fv.env,
        arguments=arguments,
        reference_scores=sources.published_scores(name, columns) or sources.published_scores(given_name, columns),
        true_next_observations=sources.has_true_next_observations(path, fv.format, card),
    )
    written = writer.write(out, columns, origin, max_episode_steps=fv.max_episode_steps, source=str(path))
    print(f"{out}: {written.num_rows} rows, {written.num_transitions} transitions, sha256 {written.sha256[:16]}")
    return 0


COMMANDS: Mapping[str, Callable[[list[str]], int]] = {
    "list": _list,
    "make": _make,
    "info": _info,
    "import": _import,
    "fetch": _fetch,
}


def _define_reading(fv: flags.FlagValues) -> None:
    known = ", ".join([*sources.SOURCES, *sources.FOLDERS])
    flags.DEFINE_string("format", None, f"{known}; default: tell by the file or folder", flag_values=fv)
    flags.DEFINE_integer(
        "max_episode_steps", None, "time limit of the task, for files without timeouts", 1, flag_values=fv
    )
    flags.DEFINE_integer(
        "num_actions", None, "folders: how many discrete actions; default: as the data show", 1, flag_values=fv
    )
    flags.DEFINE_bool("pad", False, "folders: fill narrower agents' observations up with zeros", flag_values=fv)


def _reading(fv: flags.FlagValues) -> sources.Reading:
    return sources.Reading(fv.max_episode_steps, fv.num_actions, fv.pad)


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
    """Raises, before any work, where `path` cannot be written or writing would replace a file that is not ours.

    Raises:
      ValueError: not named as HDF5, or a file without a card: it was not written by us.
      OSError: its folder cannot be written.
    """
    writer.require_hdf5_name(path)
    files.check_writable(path.parent, "choose another --out")
    if path.exists() and cards.read_card(path) is None:
        raise ValueError(f"{path}: exists and was not written by jaxdiff; choose another --out or move it away.")


def _describe_values(array: np.ndarray) -> str:
    if array.dtype == bool:
        return f"{int(array.sum())} true"
    return f"min {array.min():.3f}, mean {array.mean(dtype=np.float64):.3f}, max {array.max():.3f}"
