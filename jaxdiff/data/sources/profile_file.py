"""A network that may be cut in two, layer by layer, out of a TOML file: by shapes, or by numbers that were measured.

name = "mynet"

[[layer]]                    # by its shape: `offloading.make_profile` works out sizes and works
name = "conv1"
kind = "conv"                # conv, pool, fc or block
input = [32, 32, 3]          # height, width, channels; of fc one number
out = 16
kernel = 3                   # conv and pool; stride = 1 and pad = 0 unless given

[[layer]]                    # or as measured; a file has layers of one sort only
name = "head"
data_mb = 0.4                # what goes into the layer, in 1e6 bytes
work_gflop = 1.2
"""

from collections.abc import Mapping
import pathlib
import tomllib
from typing import Any

from jaxdiff.offloading import Layer, Profile, make_profile
from jaxdiff.offloading.profiles import KINDS
from jaxdiff.suggest import did_you_mean

MOST_BYTES = 2**20
WHOLE = {"out": True, "kernel": False, "stride": False, "pad": False}  # key -> whether it must be there
SHAPED = ("name", "kind", "input", *WHOLE, "free_in_lit")
MEASURED = ("name", "data_mb", "work_gflop")


def read(path: pathlib.Path, convention: str = "lit") -> Profile:
    """The file's network.

    Args:
      path: a TOML file as above.
      convention: how works are counted from shapes, see `make_profile`; measured ones are as they are.

    Raises:
      FileNotFoundError: no such file.
      KeyError: an unknown convention.
      ValueError: no TOML, or with its line; a layer, by its number and name, that lacks something, has what no layer
        has, or does not take what the one before puts out.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES >> 20} MB; a profile is a short text.")
    try:
        found = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: no TOML: {error}.") from None
    for key in found:
        if key not in ("name", "layer"):
            raise ValueError(f"{path}: unknown key {key!r}; {did_you_mean(key, ('name', 'layer'))}")
    name, rows = found.get("name"), found.get("layer")
    if not isinstance(name, str) or not name:
        raise ValueError(f'{path}: no name of the network; write name = "mynet" above the first [[layer]].')
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: no layers; write one [[layer]] for each place where the network may be cut.")
    measured = "data_mb" in rows[0] or "work_gflop" in rows[0]
    for index, row in enumerate(rows, start=1):
        _check(f"{path}: layer {index} {row.get('name', 'without a name')!r}", row, MEASURED if measured else SHAPED)
    try:
        if measured:
            return Profile(name, *(tuple(row[key] for row in rows) for key in MEASURED))
        return make_profile(name, [Layer(**{**row, "input": tuple(row["input"])}) for row in rows], convention)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check(where: str, row: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises unless the layer has the keys of its sort, of their types."""
    for key in row:
        if key not in known:
            other = " (a file has layers with shapes or with measured numbers, not both)" if key in MEASURED else ""
            raise ValueError(f"{where}: unknown key {key!r}{other}; {did_you_mean(key, known)}")
    needed = MEASURED if known is MEASURED else ("name", "kind", "input", *(key for key, must in WHOLE.items() if must))
    if missing := [key for key in needed if key not in row]:
        raise ValueError(f"{where}: no {', '.join(missing)}; it needs {', '.join(needed)}.")
    wrong = [key for key, value in row.items() if not _is_of_type(key, value)]
    if wrong:
        raise ValueError(
            f"{where}: {wrong[0]}={row[wrong[0]]!r}; name and kind are texts, input is a list of whole numbers, "
            f"{', '.join(WHOLE)} are whole numbers, data_mb and work_gflop numbers, free_in_lit true or false."
        )
    if row.get("kind", KINDS[0]) not in KINDS:
        raise ValueError(f"{where}: unknown kind {row['kind']!r}; {did_you_mean(row['kind'], KINDS)}")


def _is_of_type(key: str, value: Any) -> bool:
    if key in ("name", "kind"):
        return isinstance(value, str)
    if key == "free_in_lit":
        return isinstance(value, bool)
    if key == "input":
        return isinstance(value, list) and all(type(side) is int for side in value)
    return type(value) is int or (key not in WHOLE and type(value) is float)
