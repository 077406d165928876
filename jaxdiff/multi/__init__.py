"""Agents: wrappers that bring any method to tasks with agents, and methods that are made for them.

METHODS are modules as those of `algorithms.ALGORITHMS`, whose `make(config, spec)` wants a task with agents.
"""

from collections.abc import Mapping
from types import ModuleType

from jaxdiff.multi import dof_planner, dof_policy, mac_flow, mad2rl, madiff
from jaxdiff.multi.wrappers import WRAPPERS, independent, joint, shared, wrapped

METHODS: Mapping[str, ModuleType] = {
    "dof_planner": dof_planner,
    "dof_policy": dof_policy,
    "mac_flow": mac_flow,
    "mad2rl": mad2rl,
    "madiff": madiff,
}

__all__ = ["METHODS", "WRAPPERS", "independent", "joint", "shared", "wrapped"]
