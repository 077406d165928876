"""Whose plans to look at: the algorithms that plan, and one member of a run folder."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any, NamedTuple

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.io import tasks
from jaxdiff.io.report.by_task import by_task
from jaxdiff.io.report.results import Setting, collect, median_seed
from jaxdiff.io.runs import Run
from jaxdiff.suggest import did_you_mean
from jaxdiff.types import Spec

PLANE = Spec("plane", obs_dim=4, action_dim=2, max_episode_steps=100)  # any task will do to ask an algorithm


class Chosen(NamedTuple):
    """A member of a run."""

    plan: Mapping[str, Any]  # its pack.json
    lane: int  # its place in the pack
    member: Mapping[str, Any]  # its entry there


@functools.cache
def planners() -> tuple[str, ...]:
    """Names of the algorithms that have `plan`."""
    made = {name: module.make(module.Config(), PLANE) for name, module in ALGORITHMS.items()}
    return tuple(name for name, algorithm in made.items() if algorithm.plan is not None)


def check_planner(name: str) -> None:
    """Raises ValueError unless the algorithm plans."""
    if name not in planners():
        raise ValueError(f"{name} plans nothing; planners: {', '.join(planners())}.")


def of_task(plans: Sequence[dict[str, Any]], stamp: Mapping[str, Any], wanted: str | None) -> list[dict[str, Any]]:
    """The packs of one of a study's tasks; all of them where none is wanted.

    Args:
      plans: pack.json files.
      stamp: run.json.
      wanted: the name of a task as the report has it, or its environment alone where that is enough.

    Raises:
      KeyError: there is no such task, or several of this environment.
    """
    named = tasks_of(plans, stamp)
    if wanted is None:
        return list(plans)
    known = list(dict.fromkeys(named.values()))
    found = [task for task in known if task == wanted] or [task for task in known if task.split(" ")[0] == wanted]
    if len(found) != 1:
        raise KeyError(f"--task={wanted} is not one task of this study; it has: {'; '.join(known)}.")
    return [plan for plan in plans if named[plan["id"]] == found[0]]


def tasks_of(plans: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]) -> dict[str, str]:
    """Pack id -> the name of its task, in the order of the study's points."""
    naming = tasks.of_stamp(stamp, [member["overrides"] for plan in plans for member in plan["members"]])
    named = {plan["id"]: naming.task(plan["config"], plan["members"][0]["overrides"]) for plan in plans}
    order = {task: index for index, task in enumerate(naming.planned)}
    return dict(sorted(named.items(), key=lambda item: order.get(item[1], len(order))))


def choose_member(run: Run, plans: Sequence[Mapping[str, Any]], wanted: str | None) -> Chosen:
    """The member that is asked for; by default the seed of median score of the best setting that plans.

    Args:
      run: the run folder, for the scores.
      plans: its pack.json files.
      wanted: an id, an index into all members, or a label, of which the seed of median score is taken.

    Raises:
      KeyError: there is no such member.
      ValueError: the member's algorithm plans nothing, or no member's does; or the packs are of several tasks, whose
        scores do not say which member is best.
    """
    everyone = [Chosen(plan, i, member) for plan in plans for i, member in enumerate(plan["members"])]
    by_id = {chosen.member["id"]: chosen for chosen in everyone}
    labels = list(dict.fromkeys(chosen.member["label"] for chosen in everyone))
    settings = collect(run).settings
    if wanted is None:
        planning = [chosen for chosen in everyone if chosen.member["algorithm"] in planners()]
        if not planning:
            check_planner(everyone[0].member["algorithm"])
        settings = _settings_of_task(run, plans, settings)
        best = next((s for s in settings if s.algorithm in planners() and s.counted), None)
        return planning[0] if best is None else by_id[median_seed(best).member.id]
    if wanted in by_id:
        chosen = by_id[wanted]
    elif wanted.isdecimal() and int(wanted) < len(everyone):
        chosen = everyone[int(wanted)]
    elif wanted in labels:
        chosen = by_id[
            _of_label(settings, wanted) or next(c.member["id"] for c in everyone if c.member["label"] == wanted)
        ]
    else:
        raise KeyError(
            f"--member={wanted} is no id of {run.dir.path}, no index in 0 .. {len(everyone) - 1} and no label; "
            f"{did_you_mean(wanted, labels)}"
        )
    check_planner(chosen.member["algorithm"])
    return chosen


def _settings_of_task(
    run: Run, plans: Sequence[Mapping[str, Any]], settings: tuple[Setting, ...]
) -> tuple[Setting, ...]:
    """The settings of the only task that the packs are of; all where the study has one."""
    found = by_task(run)
    if not found:
        return settings
    names = list(dict.fromkeys(tasks_of(plans, run.stamp).values()))
    if len(names) > 1:
        raise ValueError(
            f"{run.dir.path} has several tasks, and their scores do not say whose member is the best; choose with "
            f"--task=NAME or --member=ID: {'; '.join(names)}."
        )
    return found[names[0]].settings


def _of_label(settings: Sequence[Setting], label: str) -> str | None:
    found = next(setting for setting in settings if setting.label == label)
    return median_seed(found).member.id if found.counted else None
