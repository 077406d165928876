"""Rows of a whole pack handed to TensorBoard or Weights & Biases, one event folder or run per member."""

from collections.abc import Mapping, Sequence
import importlib
import os
from pathlib import Path
import re
from typing import Any, Protocol

import numpy as np

TITLES = {"wandb": "Weights & Biases", "mlflow": "MLflow"}  # extra, which has its library's name -> how it is called


def library(extra: str) -> Any:
    """The library of an extra.

    Raises:
      ImportError: it is not installed.
    """
    try:
        return importlib.import_module(extra)
    except ImportError as error:
        raise ImportError(f'{TITLES[extra]} is not installed; run: pip install "jaxdiff[{extra}]"') from error


class MemberLike(Protocol):
    """What a logger needs of a member; `runs.Member` has it."""

    @property
    def id(self) -> str:
        """Unique in the run."""

    @property
    def label(self) -> str:
        """The setting, without the seed."""

    @property
    def algorithm(self) -> str:
        """Name of the algorithm."""

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Dotted key -> value, where this member differs from the config."""

    @property
    def seed(self) -> int:
        """The seed."""


class TensorBoardFanout:
    """One TensorBoard event folder per member: DIR/<setting>/seed_<n>.

    Args:
      directory: under which the folders are made.
      members: L of them, in lane order.
      resume_step: the step a resumed run goes on from: TensorBoard then hides what an earlier session logged after it.

    Raises:
      OSError: more members than the process may open files; log fewer, or raise `ulimit -n`.
    """

    def __init__(
        self, directory: str | os.PathLike[str], members: Sequence[MemberLike], *, resume_step: int | None = None
    ) -> None:
        import tensorboardX

        purge = None if resume_step is None else resume_step + 1
        self._writers = [
            tensorboardX.SummaryWriter(logdir=str(Path(directory) / folder), purge_step=purge)
            for folder in _folders(members)
        ]

    def write(self, step: int, values: Mapping[str, np.ndarray], prefix: str = "") -> None:
        """Logs one row of every member.

        Args:
          step: updates applied so far.
          values: name -> array [L].
          prefix: put before each name with a slash, such as "train".

        Raises:
          ValueError: an array is not [L].
        """
        for name, column in columns_of(values, prefix, len(self._writers)).items():
            for writer, value in zip(self._writers, column, strict=True):
                writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is buffered and closes the files."""
        for writer in self._writers:
            writer.close()


class WandbFanout:
    """One Weights & Biases run per member, grouped by setting, all open in this one process.

    `WANDB_MODE` decides where rows go: online, offline, disabled or shared. Where it is not set they stay in the
    local folder `wandb/`, to be sent later with `wandb sync`: a run never stops to ask for a login.

    Args:
      project: the project's name.
      members: L of them, in lane order.
      config: the run's resolved config; each member's overrides and seed are laid over it.
      run_id: name of the whole run. When given, a resumed run continues the same W&B runs instead of making new ones;
        rows whose step W&B already has are ignored by it, and they are the same rows, so nothing is logged twice.

    Raises:
      ImportError: the extra is not installed.
      ValueError: WANDB_MODE asks for the server and nobody is logged in.
    """

    def __init__(
        self, project: str, members: Sequence[MemberLike], config: Mapping[str, Any], *, run_id: str | None = None
    ) -> None:
        wandb = library("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode in ("online", "shared") and not wandb.login(prompt=False, verify=False):
            raise ValueError(
                f"WANDB_MODE={mode} needs a login: run `wandb login`, or set WANDB_MODE=offline and `wandb sync` later."
            )
        self._runs = [
            wandb.init(
                project=project,
                id=None if run_id is None else slug(f"{run_id}-{member.id}"),
                resume=None if run_id is None else "allow",
                name=f"{member.label} seed={member.seed}",
                group=member.label,
                config={**config, **member.overrides, "algorithm": member.algorithm, "seed": member.seed},
                mode=mode,
                reinit="create_new",
            )
            for member in members
        ]

    def write(self, step: int, values: Mapping[str, np.ndarray], prefix: str = "") -> None:
        """Logs one row of every member; see `TensorBoardFanout.write`."""
        columns = columns_of(values, prefix, len(self._runs))
        for i, run in enumerate(self._runs):
            run.log({name: column[i] for name, column in columns.items()}, step=step)

    def close(self) -> None:
        """Ends all runs."""
        for run in self._runs:
            run.finish()


def columns_of(values: Mapping[str, np.ndarray], prefix: str, lanes: int) -> dict[str, list[float]]:
    """Name, with the prefix before it -> one number per member.

    Raises:
      ValueError: a metric of another shape than [L].
    """
    columns: dict[str, list[float]] = {}
    for name, value in values.items():
        if np.shape(value) != (lanes,):
            raise ValueError(f"metric {name!r} has shape {np.shape(value)}; one number per member is ({lanes},).")
        columns[f"{prefix}/{name}" if prefix else name] = np.asarray(value, np.float64).tolist()
    return columns


def _folders(members: Sequence[MemberLike]) -> list[str]:
    """One relative folder per member; the id is added where setting and seed do not tell two members apart."""
    folders = [f"{slug(member.label)}/seed_{member.seed}" for member in members]
    return [
        folder if folders.count(folder) == 1 else f"{folder}_{slug(member.id)}"
        for folder, member in zip(folders, members, strict=True)
    ]


def slug(text: str) -> str:
    """The text as a name of a file or run."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", text).strip("_.") or "_"
