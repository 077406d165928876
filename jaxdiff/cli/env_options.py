"""`config.env_options`: options of an environment's factory that have no config key of their own."""

import ast
from collections.abc import Mapping
from typing import Any

from jaxdiff import envs
from jaxdiff.types import Env

LITERALS = {"true": "True", "false": "False", "none": "None", "null": "None"}  # in other languages -> in Python


def parse(text: str) -> dict[str, Any]:
    """Options out of "num_agents=4,grid_size=12".

    A value is a Python literal, which may have commas of its own in brackets, "matrix=[[8,-12],[-12,0]]"; anything else
    is a plain string, "matrix=monotone", and one that is no Python expression has to be quoted.

    Raises:
      ValueError: not of that form, a key given twice, or a literal as other languages write it (true, null).
    """
    if not text.strip():
        return {}
    wrong = f"config.env_options={text!r}"
    try:
        call = ast.parse(f"options({text})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"{wrong} is not KEY=VALUE,KEY=VALUE; write for example num_agents=4,grid_size=12, and quotes around a "
            "string that is no Python expression."
        ) from error
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{wrong} closes a bracket that it does not open; write for example num_agents=4.")
    if call.args:
        raise ValueError(f"{wrong}: {ast.unparse(call.args[0])!r} has no '='; write KEY=VALUE,KEY=VALUE.")
    options: dict[str, Any] = {}
    for keyword in call.keywords:
        value = ast.unparse(keyword.value)
        if keyword.arg is None:
            raise ValueError(f"{wrong}: '**{value}' has no '='; write KEY=VALUE,KEY=VALUE.")
        if keyword.arg in options:
            raise ValueError(f"{wrong} gives {keyword.arg!r} twice; give it once.")
        if value.lower() in LITERALS and value not in LITERALS.values():
            raise ValueError(f"{wrong}: {keyword.arg}={value} would be a text; write {LITERALS[value.lower()]}.")
        options[keyword.arg] = _value(keyword.value, f"options({text})")
    return options


def _value(node: ast.expr, source: str) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.get_source_segment(source, node)


def make(name: str, text: str, taken: Mapping[str, Any]) -> Env:
    """The environment of that name with its options.

    Args:
      name: of `envs.make`.
      text: `config.env_options`.
      taken: options that have a config key of their own, with their values.

    Raises:
      KeyError, ImportError: an unknown name, a missing extra.
      ValueError: see `parse`; an option in `taken`; one that the factory has not, or not with that value.
    """
    options = parse(text)
    for option in options:
        if option in taken:
            raise ValueError(
                f"config.env_options={text!r}: {option!r} of {name} is {_own_key(name, option)}; set it there and "
                "leave it out here."
            )
    has_options = name in {**envs.ENVS, **envs.CUSTOM_MAZES} or envs.is_jaxmarl(name)
    if not options or not has_options:
        return envs.make(name, **taken)
    try:
        return envs.make(name, **taken, **options)
    except (KeyError, TypeError, ValueError) as error:
        told = error.args[0] if isinstance(error, KeyError) and error.args else error  # str() would quote it
        raise ValueError(f"config.env_options={text!r}: {told}") from error


def make_host(name: str, text: str, num_envs: int) -> envs.HostEnv:
    """The environment of that name on the host, with its options.

    Args:
      name: of `envs.make_host`.
      text: `config.env_options`; a name of gymnasium's takes none.
      num_envs: copies.

    Raises:
      KeyError, ImportError: an unknown name, a missing extra.
      ValueError: see `parse`; an option that the environment refuses.
    """
    options = parse(text)
    if options and not name.startswith("pettingzoo-"):
        raise ValueError(
            f"config.env_options={text!r}: none is read by config.env={name}, which runs on the host; leave "
            "--config.env_options away."
        )
    return envs.make_host(name, num_envs, **options)


def _own_key(name: str, option: str) -> str:
    """Which config key an option is set by."""
    group = "vec" if name == "vec" else "mpe"
    return {"maze": "config.maze", "backend": "config.env_backend"}.get(option, f"config.{group}.{option}")
