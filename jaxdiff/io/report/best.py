"""The best setting as something to run: a command line, or a study where no flag can say it."""

from collections.abc import Mapping, Sequence
import shlex
from typing import Any

from jaxdiff.io.report.results import Setting, median_seed


def command(stamp: Mapping[str, Any], setting: Setting) -> list[str] | None:
    """`jaxdiff train` with the config and overrides of a study's command, those of a setting, its seed of median score.

    Args:
      stamp: run.json.
      setting: one with a score.

    Returns:
      Words of the command; None where the study's command names no config, or the setting's algorithm is not the
      config's own, which no flag can change.
    """
    given = stamp.get("command") or []
    words = shlex.split(given) if isinstance(given, str) else [str(word) for word in given]
    kept = _config_flags(words)
    config = stamp.get("config") or {}
    own = setting.overrides.get("algorithm", config.get("algorithm"))
    if not any(word.startswith("--config=") for word in kept) or own != config.get("algorithm"):
        return None
    values = {key: value for key, value in setting.overrides.items() if key != "algorithm"}
    values["seed"] = median_seed(setting).member.seed
    if any(value is None or isinstance(value, dict) for value in values.values()):
        return None
    kept = [word for word in kept if word.partition("=")[0].removeprefix("--config.") not in values]
    return ["jaxdiff", "train", *kept, *(f"--config.{key}={_written(value)}" for key, value in values.items())]


def study(setting: Setting) -> str:
    """A study of the setting's seeds alone, to be written into the config file."""
    seeds = [result.member.seed for result in setting.members]
    point = ", ".join(f"{key!r}: {value!r}" for key, value in setting.overrides.items())
    point = f"{{{point}{', ' if point else ''}'seed': seed}}"
    return f"def sweep_best():\n    for seed in {seeds!r}:\n        yield {point}"


def _config_flags(words: Sequence[str]) -> list[str]:
    """`--config` and `--config.KEY` of a command line, each as one word with its value."""
    kept = []
    for index, word in enumerate(words):
        name, equals, _ = word.partition("=")
        name = f"--{name.lstrip('-')}"
        if not word.startswith("-") or not (name == "--config" or name.startswith(("--config.", "--noconfig."))):
            continue
        value = word.partition("=")[2]
        follows = words[index + 1] if index + 1 < len(words) else "-"
        if not equals and not follows.startswith("-"):
            equals, value = "=", follows
        kept.append(f"{name}{equals}{value}")
    return kept


def _written(value: Any) -> str:
    """A value as its flag takes it: lists are the tuples they were before JSON."""
    return repr(tuple(value)) if isinstance(value, list) else str(value)
