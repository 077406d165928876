"""What a pack records of a planner: plans at the starts of the episodes that its last evaluation recorded."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdiff.cli.task import Task
from jaxdiff.evaluate import make_planning
from jaxdiff.io.report.plans import stage_indices
from jaxdiff.types import Key, TrainState


def plan_table(task: Task, config: Mapping[str, Any], lanes: Sequence[tuple[Key, TrainState]]) -> dict[str, np.ndarray]:
    """The plans of R recorded episodes of each lane; nothing where the algorithm plans none or nothing is recorded.

    The best plan, a few stages of its denoising and all values, lane after lane, so that no more than one lane's whole
    denoising is in memory.

    Args:
      task: whose algorithm plans.
      config: eval_episodes, and record_episodes R.
      lanes: L pairs of the evaluation's key and the state.

    Returns:
      obs [L, R, H, O], action [L, R, H, U], value [L, R, N], path [L, R, J, H, O], calls [J] and, where the task has
      another goal in every episode, goal [L, R, G]; as `io.report.plans` reads them.
    """
    episodes = int(config["eval_episodes"])
    count = min(int(config["record_episodes"]), episodes)
    if task.algorithm.plan is None or count < 1:
        return {}
    planning = make_planning(task.algorithm, task.env, episodes, num_planned=count)
    rows: list[dict[str, np.ndarray]] = []
    calls: list[int] = []
    for key, state in lanes:
        obs, plans = planning(key, state)
        calls = stage_indices(plans.path.shape[0] - 1)
        row = {
            "obs": plans.obs[:, 0],
            "action": plans.action[:, 0],
            "value": plans.value,
            "path": plans.path[np.array(calls)].swapaxes(0, 1),
        }
        if task.spec.goal_dim:
            row["goal"] = obs[:, -task.spec.goal_dim :]
        rows.append(jax.tree.map(np.asarray, row))
    table = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**table, "calls": np.array(calls)}
