"""Keys of a config: whether they exist, what type they want, and a config with other values in them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
import copy
import re
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.suggest import did_you_mean


class Overrider:
    """A copy of a config in which the same keys are set again and again, for members that share them."""

    def __init__(self, config: ConfigDict, keys: Collection[str]):
        """Copies the config; the original stays as it is.

        Raises:
          KeyError: unknown key.
          ValueError: a key that names a group.
        """
        self._copy = copy.deepcopy(config)
        for key in keys:
            check_key(self._copy, key)
        self._places = {key: parent(self._copy, key) for key in keys}
        self._types = {key: group.get_type(leaf) for key, (group, leaf) in self._places.items()}

    def apply(self, values: Mapping[str, Any]) -> ConfigDict:
        """The config with new values for all of the keys; it changes at the next call.

        An int is taken for a float and a list for a tuple; nothing else is converted.

        Raises:
          ValueError: a value of the wrong type.
        """
        for key, value in values.items():
            group, leaf = self._places[key]
            wanted = self._types[key]
            if wanted is type(None):  # what was None has taken the type of the value before
                with group.ignore_type():
                    group[leaf] = _coerce(key, value, wanted)
            else:
                group[leaf] = _coerce(key, value, wanted)
        return self._copy


def apply_overrides(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """A copy of the config with new values, for a member of a study; the original stays as it is.

    Raises:
      KeyError: unknown key.
      ValueError: a value of the wrong type, or a key that names a group; see `Overrider.apply`.
    """
    return Overrider(config, overrides).apply(overrides)


def from_json(values: Mapping[str, Any]) -> ConfigDict:
    """The config that a run folder's JSON holds, locked; lists are the tuples they were."""
    return ConfigDict(_tuples(values)).lock()


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _leaves(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def check_keys(config: ConfigDict, argv: Sequence[str]) -> None:
    """Raise unless every `--config.KEY` of a command line names a value that can be overridden; see `check_key`."""
    for argument in argv:
        match = re.match(r"--?(no)?config\.([^=]+)", argument)
        if match is None:
            continue
        key = match.group(2)
        check_key(config, key)
        group, leaf = parent(config, key)
        if group.get_type(leaf) is type(None):
            raise ValueError(f"config key {key!r} is None; give it a type there with config_dict.placeholder(type).")


def check_key(config: ConfigDict, key: str) -> None:
    """Raise unless `key` is a dotted path to a value.

    Raises:
      KeyError: no such key.
      ValueError: the key names a group.
    """
    known = list(_leaves(config))
    if key in known:
        return
    inside = [leaf for leaf in known if leaf.startswith(f"{key}.")]
    if inside:
        raise ValueError(f"config key {key!r} is a group; set one of its keys: {', '.join(inside)}.")
    same_name = [leaf for leaf in known if leaf.rpartition(".")[2] == key.rpartition(".")[2]]
    if same_name:
        raise KeyError(f"unknown config key {key!r}; did you mean {same_name[0]!r}?")
    raise KeyError(f"unknown config key {key!r}; {did_you_mean(key, known)}")


def parent(config: ConfigDict, key: str) -> tuple[ConfigDict, str]:
    """The group that holds a dotted key, and the key's name in it."""
    *groups, leaf = key.split(".")
    for name in groups:
        config = config[name]
    return config, leaf


def _coerce(key: str, value: Any, wanted: type) -> Any:
    value = value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value
    if wanted is type(None) or (type(value) is wanted):
        return value
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is tuple and isinstance(value, list):
        return tuple(value)
    raise ValueError(f"config key {key!r} wants {wanted.__name__}, got {value!r} ({type(value).__name__}).")
