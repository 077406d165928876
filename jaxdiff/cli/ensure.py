"""Where a named dataset lies, made first where it can be made and is missing."""

import os
import pathlib
import sys

from jaxdiff.cli.make_data import make
from jaxdiff.data import catalog, sources


def ensure(name_or_path: str | os.PathLike[str]) -> pathlib.Path:
    """Path of a dataset that exists: a missing one of `catalog.GENERATED` is made first, with its usual arguments.

    Raises:
      KeyError: an unknown name.
      FileNotFoundError: a path with nothing there.
      ValueError: a folder that is no dataset.
    """
    path = catalog.resolve(name_or_path)
    name = os.fspath(name_or_path)
    if name in catalog.GENERATED and not path.exists():
        print(f"making {name} at {path} ...", file=sys.stderr)
        make(name, path)
    sources.require_data(path)
    return path


def ensure_all(names: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Paths of a dataset, or of several joined by "+", "medium.hdf5+expert.hdf5"; each as `ensure` gives it.

    A "+" in the name of something that exists is part of its name.

    Raises:
      ValueError: a "+" with nothing on one side; the rest as `ensure` does.
    """
    text = os.fspath(names)
    if "+" not in text or pathlib.Path(text).expanduser().exists():
        return [ensure(text)]
    parts = [part.strip() for part in text.split("+")]
    if not all(parts):
        raise ValueError(f"dataset {text!r}: a name is missing beside a '+'; join names or paths, as A+B.")
    return [ensure(part) for part in parts]
