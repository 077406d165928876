"""run.json: what made a run, so that it can be made again."""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
from importlib import metadata
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

import jax

from jaxdiff.io import files
from jaxdiff.io.folders import RunDir

PACKAGES = ("jaxdiff", "jax", "jaxlib", "flax", "optax", "numpy")
# What may differ when the same run goes on: on another day, machine or version. Kept for every resume.
SESSION = ("created", "command", "versions", "git_commit", "git_dirty", "device_kind", "device_count", "xla_flags")
# What may not: another value is another run.
IDENTITY = ("config", "study", "env", "dataset.sha256")
# What grows when a study is widened; whether what was there is still there, is for the list of packs to say.
GROWS = ("points", "max_lanes", "study")


def stamp(
    command: Sequence[str], config: Mapping[str, Any] | Any, study: str | None, dataset: Any, env: str | None
) -> dict[str, Any]:
    """Collects the content of run.json.

    Args:
      command: the command line, as a list.
      config: the resolved config: a mapping, or a `ConfigDict`.
      study: name of the study in the config file; None for a single run.
      dataset: the data set's facts: a dataclass, a mapping, or None.
      env: the environment's name.

    Returns:
      Plain values only: command, config, study, env, dataset, versions, git_commit and git_dirty (of the current
      folder, tracked files only; None outside a repository), device_kind, device_count, xla_flags and created (UTC).
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return {
        "command": list(command),
        "config": _plain_dict(config),
        "study": study,
        "env": env,
        "dataset": None if dataset is None else _plain_dict(dataset),
        "versions": versions,
        "git_commit": commit,
        "git_dirty": None if changes is None else bool(changes),
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_stamp(directory: str | os.PathLike[str], stamp: Mapping[str, Any]) -> None:
    """Writes run.json into a fresh run folder, or notes in the one that is there that the run was resumed.

    Each resume adds an entry to `resumed`: date, command, versions, git state and devices of that session. Where the
    study has other points now, these replace those that were there; the caller has checked that none is lost.

    Raises:
      ValueError: the folder holds another run: its config, study, env or data differ. Nothing was written.
      OSError: see `files.write_atomic`.
    """
    path = RunDir(directory).run_json
    if not path.exists():
        files.write_json_atomic(path, stamp)
        return
    known = read_stamp(directory)
    differences = [found for found in _differences(known, stamp) if found[0] not in GROWS]
    if differences:
        raise ValueError(_refusal(Path(directory), differences))
    session = {name: stamp[name] for name in SESSION if name in stamp}
    now = {name: stamp[name] for name in ("config", "study") if name in stamp}
    files.write_json_atomic(path, {**known, **now, "resumed": [*known.get("resumed", []), session]})


def check_directory(directory: str | os.PathLike[str]) -> None:
    """Tells, before anything is computed, whether a run can be written there; hidden files do not count.

    Raises:
      ValueError: the folder has files in it and is not a run.
      OSError: it cannot be written, or is a file.
    """
    directory = Path(directory)
    files.check_writable(directory, "choose another --workdir")
    if directory.is_dir() and not RunDir(directory).run_json.is_file():
        found = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
        if found:
            raise ValueError(
                f"{directory} is not a run folder and not empty: it has {', '.join(found[:3])}"
                f"{f' and {len(found) - 3} more' if len(found) > 3 else ''}; give a new or an empty --workdir."
            )


def read_stamp(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads run.json.

    Raises:
      ValueError: there is none, or it is damaged.
    """
    path = RunDir(directory).run_json
    if not path.is_file():
        raise ValueError(f"{directory} is not a run folder: it has no {path.name}.")
    return files.read_json_object(path, ("config", "study", "env", "dataset", "created"))


def _differences(known: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(dotted key, value on disk, value now) for each part of the identity that differs, as JSON text."""
    there, here = _identity(known), _identity(new)
    return [
        (key, there.get(key, "not set"), here.get(key, "not set"))
        for key in [*here, *(key for key in there if key not in here)]
        if there.get(key) != here.get(key)
    ]


def _identity(stamp: Mapping[str, Any]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name in IDENTITY:
        value: Any = stamp
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        _flatten("" if name == "config" else name, value, flat)
    return flat


def _flatten(prefix: str, value: Any, out: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            _flatten(f"{prefix}.{name}" if prefix else str(name), inner, out)
    else:
        # JSON text, since a tuple comes back from disk as a list and NaN does not equal itself.
        out[prefix] = " ".join(files.encode_json(value).split())


def _refusal(directory: Path, differences: list[tuple[str, str, str]]) -> str:
    shown = "; ".join(f"{key} is {there} there, {here} here" for key, there, here in differences[:3])
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return (
        f"{directory} holds another run: {shown}{more}. "
        f"Use another --workdir, or repeat that run with: jaxdiff rerun {directory}"
    )


def _plain_dict(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "to_dict"):  # ml_collections.ConfigDict
        return dict(value.to_dict())
    return {str(name): _plain_dict(inner) if isinstance(inner, Mapping) else inner for name, inner in value.items()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed: the commit says more
        return None


def _git(*arguments: str) -> str | None:
    """Output of a git command in the current folder; None without git, outside a repository or on any failure."""
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
