"""A study ready to run: checked members cut into packs, and what a run needs besides."""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxdiff import sweep as sweeps
from jaxdiff.cli.study import make_members

MAX_LANES = 64


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study ready to run."""

    command: list[str]
    config: dict[str, Any]  # before the study's points
    study: str | None
    points: list[dict[str, Any]]
    packs: list[sweeps.Pack]
    workdir: Path
    lanes: str
    max_lanes: int = MAX_LANES
    tensorboard: bool = False
    wandb_project: str | None = None
    repeats: Path | None = None  # the run folder that this plan repeats


def make_plan(
    command: Sequence[str],
    config: ConfigDict,
    study: str | None,
    points: Sequence[Mapping[str, Any]],
    workdir: Path,
    lanes: str,
    *,
    max_lanes: int = MAX_LANES,
    tensorboard: bool = False,
    wandb_project: str | None = None,
) -> Plan:
    """Checks every member and cuts the study into packs; reads and writes nothing."""
    members = make_members(config, points)
    packs = [pack for group in sweeps.group_members(members) for pack in sweeps.split_packs(group, max_lanes)]
    plain = [dict(point) for point in points]
    line = ["jaxdiff", *command]
    return Plan(line, config.to_dict(), study, plain, packs, workdir, lanes, max_lanes, tensorboard, wandb_project)
