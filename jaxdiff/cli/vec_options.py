"""What a config says of the task `vec`, with its files read."""

from collections.abc import Mapping
import pathlib
from typing import Any

from jaxdiff.cli.settings import VEC_OPTIONS, setting
from jaxdiff.data.sources import profile_file, trace_file
from jaxdiff.offloading import ARCHITECTURES, Profile, System
from jaxdiff.suggest import unknown_name


def vec_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `envs.vec.vec`.

    `vec.profiles` is names of networks and files of them, joined by "+"; what has a suffix or a slash is a file.

    Raises:
      KeyError: an unknown network or convention.
      FileNotFoundError: no such file.
      ValueError: a bad file, or a V in `vec.v` beside the one in the hyperparameters.
    """
    options = {**VEC_OPTIONS, **setting(config, "vec")}
    if "lyapunov_weight" in config["hparams"] and options["v"] != VEC_OPTIONS["v"]:
        raise ValueError(
            f"config.vec.v={options['v']} has no use with {config['algorithm']}, whose lanes bring their own; set "
            "hparams.lyapunov_weight instead, which can also be swept."
        )
    names = [name.strip() for name in options["profiles"].split("+")]
    options["profiles"] = tuple(_profile(name, options["convention"]) for name in names)
    options["clients_per_type"] = tuple(options["clients_per_type"]) or None
    options["trace"] = _trace(options) if options["trace"] else None
    return options


def _profile(name: str, convention: str) -> str | Profile:
    if name in ARCHITECTURES:
        return name
    path = pathlib.Path(name).expanduser()
    if path.suffix or len(path.parts) > 1:
        return profile_file.read(path, convention)
    raise unknown_name("network (a file has a suffix, mynet.toml)", name, ARCHITECTURES)


def _trace(options: Mapping[str, Any]) -> Any:
    path = pathlib.Path(options["trace"]).expanduser()
    coverage = options["coverage"] if options["trace_origin"] == "rsu" else None
    return trace_file.read(path, slot_seconds=System.slot_seconds, coverage=coverage).positions
