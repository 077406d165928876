"""A study of several tasks taken apart: the results of each task as if it were a study of its own."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jaxdiff.io import tasks
from jaxdiff.io.report.results import Results, collect
from jaxdiff.io.runs import Member, Pack, Run


def by_task(run: Run) -> dict[str, Results]:
    """Task -> its results, in the order of the study's points; nothing where the study has one task.

    Labels are without the words of the task, so that a setting has one on all tasks; overrides are whole. Packs that
    never started belong to no task. A task of which nothing has started is there too, without settings.
    """
    naming = naming_of(run)
    if not naming.is_several:
        return {}
    packs: dict[str, list[Pack]] = {task: [] for task in naming.planned}
    for pack in run.packs:
        if pack.members:
            packs.setdefault(naming.task(pack.config, pack.members[0].overrides), []).append(_named(pack, naming))
    # Packs from before a study had several tasks say nothing of their data; run.json and facts.json are of the first.
    stamp = {**run.stamp, "task_keys": [*naming.keys, *(key for keys in naming.bound.values() for key in keys)]}
    first = dataclasses.replace(run, stamp=stamp)
    bare = dataclasses.replace(run, stamp={**stamp, "dataset": None}, facts={})
    return {
        task: collect(_of_task(first if task == naming.planned[0] else bare, task, own)) for task, own in packs.items()
    }


def naming_of(run: Run) -> tasks.Naming:
    """How the run's tasks are told apart."""
    return tasks.of_stamp(run.stamp, [member.overrides for pack in run.packs for member in pack.members])


def data_of(results: Results) -> list[Mapping[str, Any]]:
    """The datasets that packs of a task say they learned from, each content once."""
    found = [pack.dataset for pack in results.run.packs if pack.dataset is not None]
    return list({str(dataset.get("sha256")): dataset for dataset in found}.values())


def _named(pack: Pack, naming: tasks.Naming) -> Pack:
    def renamed(member: Member) -> Member:
        label = naming.setting(member.label, member.algorithm, member.overrides)
        return dataclasses.replace(member, label=label)

    return dataclasses.replace(pack, members=tuple(map(renamed, pack.members)))


def _of_task(run: Run, task: str, packs: list[Pack]) -> Run:
    """The run with these packs alone; what they say of their data and environment comes first."""
    dataset = next((pack.dataset for pack in packs if pack.dataset is not None), run.stamp.get("dataset"))
    env = packs[0].config.get("env") if packs else None
    facts = next((pack.facts for pack in packs if pack.facts), run.facts)
    stamp = {**run.stamp, "dataset": dataset, "env": env, "task": task}
    return Run(run.dir, stamp, facts, tuple(packs))
