"""Config files: where they lie, what `get_config` gives, and the studies and spaces that they define.

A config file defines `get_config()`, or `get_config(arg)` for `--config=NAME:arg`, that returns a
`ml_collections.ConfigDict`, and any number of studies: `sweep_<name>()` yields flat dotted dicts such as
`{"hparams.lr": 1e-3, "seed": 2}`, or `sweep(add)` calls `add(**{"hparams.lr": 1e-3})`. `space_<name>()` is a space to
draw from.
"""

from collections.abc import Callable, Iterable, Mapping
import importlib.util
import inspect
from pathlib import Path
import re
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import jaxdiff
from jaxdiff.suggest import did_you_mean

SweepFunction = Callable[[], Iterable[Mapping[str, Any]]]


def shipped() -> dict[str, Path]:
    """The configs that come with jaxdiff: name -> path. In a checkout they lie in the top folder `experiments`."""
    package = Path(jaxdiff.__file__).resolve().parent
    folders = (package / "experiments", package.parent / "experiments")
    folder = next((f for f in folders if f.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def resolve(flag_value: str) -> tuple[Path, str | None]:
    """The file and the argument that a `--config` value means; a file of that name wins over a shipped config.

    Raises:
      KeyError: neither a file nor a shipped name.
    """
    name, colon, argument = flag_value.partition(":")
    if Path(name).is_file():
        return Path(name).resolve(), argument if colon else None
    known = shipped()
    if name.removesuffix(".py") not in known:
        raise KeyError(f"config {name!r} is neither a file nor a shipped config; {did_you_mean(name, known)}")
    return known[name.removesuffix(".py")], argument if colon else None


def get_config(path: Path, argument: str | None) -> ConfigDict:
    """What the file's get_config returns, locked.

    Raises:
      ValueError: it has none, one that does not take the argument, or one that returns something else.
    """
    function = getattr(_load_module(path), "get_config", None)
    if function is None:
        raise ValueError(f"config {str(path)!r} has no get_config(); add one that returns a ConfigDict.")
    arguments = [] if argument is None else [argument]
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        given = "no argument" if argument is None else f"the argument {argument!r}"
        raise ValueError(f"get_config{inspect.signature(function)} of {path.name} cannot take {given}.") from None
    config = function(*arguments)
    if not isinstance(config, ConfigDict):
        raise ValueError(f"get_config() of {path.name} returned {type(config).__name__}; it must return a ConfigDict.")
    return config.lock()


def sweeps(config_path: Path) -> dict[str, SweepFunction]:
    """The studies of a config file by name, in the order they are written.

    `sweep_<name>` is the study of that name, and `sweep` the one named sweep. A function without parameters returns or
    yields points. One with a parameter is called with `add`, and each `add(**{key: value})` is a point.

    Raises:
      ValueError: a function with more parameters, or both a `sweep` and a `sweep_sweep`.
    """
    module = _load_module(config_path)
    written = [key for key, value in vars(module).items() if re.fullmatch("sweep(_.+)?", key) and callable(value)]
    if {"sweep", "sweep_sweep"} <= set(written):
        raise ValueError(f"{config_path.name} has sweep() and sweep_sweep(), both named sweep; rename one of them.")
    return {key.removeprefix("sweep_"): _without_parameters(getattr(module, key), key) for key in written}


def spaces(config_path: Path) -> dict[str, Callable[[], Any]]:
    """The spaces of a config file by name: `space_<name>()` returns what `points.sobol` draws from."""
    module = _load_module(config_path)
    return {key.removeprefix("space_"): value for key, value in vars(module).items() if key.startswith("space_")}


def _without_parameters(function: Callable[..., Any], name: str) -> SweepFunction:
    """The function itself, or one that collects what it adds."""
    needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if not needed:
        return function
    if len(needed) > 1:
        raise ValueError(f"{name}{inspect.signature(function)} wants {len(needed)} arguments; it may have one, add.")

    def collected() -> list[Mapping[str, Any]]:
        points: list[Mapping[str, Any]] = []

        def add(**point: Any) -> None:
            points.append(point)

        function(add)
        return points

    return collected


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jaxdiff_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"config {str(path)!r} is not a Python file; its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
