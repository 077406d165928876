"""The task of the pack at hand, kept while the next pack shares its program, and that its data are still the same."""

from collections.abc import Mapping
import contextlib
from typing import Any

from jaxdiff import sweep as sweeps
from jaxdiff.cli.plan import Plan
from jaxdiff.io import stamp
from jaxdiff.io.folders import RunDir
from jaxdiff.io.runs import read_plan
from jaxdiff.io.tasks import NAMERS


class Tasks:
    """The task of the pack at hand; kept while the next pack shares its program."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.program = plan, ""
        self.task: Any = None

    def get(self, config: Mapping[str, Any]) -> Any:
        """The task of a pack's config.

        Raises:
          ValueError: its data are not those that the study was prepared or first trained with, and as `make_task`.
        """
        from jaxdiff.cli.task import make_task
        from jaxdiff.cli.warm_start import check_networks

        program = sweeps.program_hash(config)
        if program != self.program:
            self.program, self.task = "", None  # the old one's memory is needed
            task = make_task(config)
            check_networks(config, task)
            for folder in (self.plan.repeats, self.plan.workdir):
                if folder is not None and RunDir(folder).run_json.is_file():
                    check_same_data(stamp.read_stamp(folder), task.info, str(folder))
                    check_same_data(self._described(config, RunDir(folder)), task.info, str(folder))
            self.program, self.task = program, task
        return self.task

    def _described(self, config: Mapping[str, Any], run: RunDir) -> Mapping[str, Any]:
        """What a pack that has begun says of the same dataset, in a study of several tasks."""
        for pack in self.plan.packs:
            first, path = pack.members[0], run.pack(pack.id).pack_json
            if first.config["dataset"] == config["dataset"] and any(key in first.overrides for key in NAMERS):
                with contextlib.suppress(FileNotFoundError, ValueError):  # not begun; damaged, which others will say
                    return {"dataset": read_plan(path).get("dataset")}
        return {"dataset": None}


def facts_of(task: Any) -> dict[str, Any]:
    """What the environment of a task says of itself that can be written down."""
    facts: Mapping[str, Any] = getattr(task.env, "facts", {})
    return {key: value for key, value in facts.items() if not callable(value)}


def check_same_data(known: Mapping[str, Any], info: Any, folder: str) -> None:
    """Raises ValueError unless the data are those that run.json or pack.json of a folder names, where it names them."""
    there = known["dataset"]
    if info is None or there is None or there["name"] != info.name:  # online, or another of the study's datasets
        return
    if info.sha256 != there["sha256"]:
        raise ValueError(
            f"dataset {info.path} has changed since {folder}: its content hashes to {info.sha256[:16]} now and to "
            f"{there['sha256'][:16]} then; bring the old file back, or train anew with `jaxdiff sweep`."
        )
