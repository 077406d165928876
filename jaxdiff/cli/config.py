"""The flags of a config: `--config=NAME --config.hparams.lr=1e-3 --sweep=lr,seed`.

`--config` takes a path, or the name of a config that ships with the package; see `config_files`.

Every key is checked against the locked config before anything is traced, and an override is kept as it was given so
that it can be written beside the results.
"""

from collections.abc import Iterable, Sequence
import copy
import dataclasses
from pathlib import Path
import re
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxdiff.cli import config_files
from jaxdiff.cli.overrides import check_keys, parent
from jaxdiff.suggest import did_you_mean

LANES = ("auto", "vmap", "map", "shard", "pmap", "data")

_CONFIG_HELP = """  --config: path of a config file, or a shipped name ({names}); NAME:arg is passed on to get_config
  --config.KEY: a new value for one key of the config, for example --config.hparams.lr=1e-3"""


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A command line that was checked."""

    config: ConfigDict  # locked, overrides applied
    config_name: str  # the value of --config as given, "name" or "path.py:arg"
    config_path: Path
    overrides: dict[str, Any]  # dotted key -> parsed value, in the order of the command line
    sweep: tuple[str, ...]  # names in sweeps(config_path)
    workdir: str | None  # a path or a URL, see `places`
    dry_run: bool
    lanes: str  # one of LANES
    flags: flags.FlagValues  # whatever else the command defined


def define_flags(flag_values: flags.FlagValues) -> None:
    """Define what every training command shares; `parse` adds `--config` and its keys."""
    flags.DEFINE_list("sweep", [], "names of sweep_<name> functions of the config, or *; several give their product",
                      flag_values=flag_values)  # fmt: skip
    flags.DEFINE_string("workdir", None, "run folder to write, or to go on with", flag_values=flag_values)
    flags.DEFINE_bool("dry_run", False, "print the plan and what it needs, train nothing", flag_values=flag_values)
    flags.DEFINE_enum("lanes", "auto", LANES, "how the members of a pack run side by side", flag_values=flag_values)


def load(flag_value: str, overrides: Iterable[tuple[str, str]] = ()) -> ConfigDict:
    """The config that `--config=flag_value --config.KEY=VALUE ...` gives, locked.

    Args:
      flag_value: a path or shipped name, optionally with `:arg`.
      overrides: pairs of dotted key and text, as on the command line.

    Raises:
      KeyError: unknown config name or key.
      ValueError: a text that is not of the key's type, or a config file without a usable get_config.
    """
    argv = [f"--config={flag_value}", *(f"--config.{key}={text}" for key, text in overrides)]
    flag_values = flags.FlagValues()
    define_flags(flag_values)
    return parse(argv, flag_values).config


def parse(argv: Sequence[str], flag_values: flags.FlagValues, usage: str = "") -> Parsed:
    """Parse a training command's arguments.

    Args:
      argv: arguments after the command's name.
      flag_values: fresh, with `define_flags` and the command's own flags defined on it; it is filled here.
      usage: printed above the flags for `--help`, normally the command's docstring.

    Raises:
      KeyError: unknown config, config key, or sweep name.
      ValueError: `--config` missing, a value of the wrong type, an unknown flag, a positional argument.
      SystemExit: after printing the help.
    """
    if _wants_help(argv):
        _print_help(flag_values, usage, _CONFIG_HELP.format(names=", ".join(config_files.shipped()) or "none"))
    flag_value, rest = _take_config(argv)
    path, argument = config_files.resolve(flag_value)
    config = config_files.get_config(path, argument)
    check_keys(config, rest)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=flag_values, sys_argv=["jaxdiff", *rest])
    except (config_flags.FlagOrderError, config_flags.UnsupportedOperationError) as error:
        raise ValueError(str(error)) from None
    positional = parse_flags(rest, flag_values)
    if positional:
        raise ValueError(f"unexpected argument {positional[0]!r}; flags start with --, for example --config=NAME.")
    if flag_values.workdir == "":
        raise ValueError("--workdir is empty; give the folder to write, or leave the flag out for a new one in runs/.")
    known = config_files.sweeps(path)
    names = tuple(known) if "*" in flag_values.sweep else tuple(flag_values.sweep)
    for name in names:
        if name not in known:
            raise KeyError(f"unknown sweep {name!r} in {path.name}; {did_you_mean(name, known)}")
    return Parsed(
        config=flag_values.config,
        config_name=flag_value,
        config_path=path,
        overrides=dict(config_flags.get_override_values(flag_values["config"])),
        sweep=names,
        workdir=flag_values.workdir,
        dry_run=flag_values.dry_run,
        lanes=flag_values.lanes,
        flags=flag_values,
    )


def parse_flags(
    argv: Sequence[str], flag_values: flags.FlagValues, usage: str = "", *, known_only: bool = False
) -> list[str]:
    """Parse the flags of a command without a config; flags and positional arguments may be mixed.

    Args:
      argv: arguments after the command's name.
      flag_values: with the command's own flags defined on it; it is filled here.
      usage: printed above the flags for `--help`.
      known_only: leave unknown flags among what is returned, for another command.

    Returns:
      The positional arguments.

    Raises:
      ValueError: an unknown flag (the nearest one is named) or a value of the wrong type.
      SystemExit: after printing the help.
    """
    if _wants_help(argv):
        _print_help(flag_values, usage)
    flag_values.set_gnu_getopt(True)
    try:
        positional: list[str] = flag_values(["jaxdiff", *argv], known_only=known_only)[1:]
    except flags.IllegalFlagValueError as error:
        raise ValueError(_wrong_type(str(error), flag_values)) from None
    except flags.Error as error:
        raise ValueError(str(error)) from None
    return positional


def parse_overrides(config: ConfigDict, texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Overrides given as text, each parsed as what its key holds in the config, which stays as it is.

    Args:
      config: whose keys and types count.
      texts: pairs of dotted key and text, as on the command line.

    Raises:
      KeyError: unknown key.
      ValueError: a text that is not of the key's type, or a key that names a group.
    """
    argv = [f"--config.{key}={text}" for key, text in texts]
    check_keys(config, argv)
    flag_values = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", copy.deepcopy(config), flag_values=flag_values, sys_argv=["jaxdiff", *argv]
    )
    parse_flags(argv, flag_values)
    return dict(config_flags.get_override_values(flag_values["config"]))


def _take_config(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Split `--config=X` or `--config X` from the rest, wherever it stands; the last one counts."""
    value, rest, arguments = None, [], list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument in ("--config", "-config") and arguments:
            value = arguments.pop(0)
        elif re.match(r"--?config=", argument):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    if not value:
        raise ValueError(
            f"--config is missing: give a file or one of: {', '.join(config_files.shipped()) or 'none shipped'}."
        )
    return value, rest


def _wrong_type(message: str, flag_values: flags.FlagValues) -> str:
    """The message about a config key in our words; other messages as absl wrote them."""
    match = re.match(r"flag --config\.([^=]+)=(.*?): ", message, flags=re.DOTALL)
    if match is None:
        return message
    key, text = match.groups()
    config: Any = flag_values["config"].value
    group, leaf = parent(config, key)
    return f"config key {key!r} wants {group.get_type(leaf).__name__}, got {text!r}."


def _wants_help(argv: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help", "-help") for argument in argv)


def _print_help(flag_values: flags.FlagValues, usage: str, config_help: str = "") -> None:
    parts = [usage.strip(), "flags:", config_help]
    for name in sorted(flag_values):
        flag = flag_values[name]
        default = f"; default {flag.default_as_str}" if flag.default else ""
        parts.append(f"  --{name}: {flag.help}{default}")
    print("\n".join(part for part in parts if part))
    raise SystemExit(0)
