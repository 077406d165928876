"""Agents: wrappers that bring any method to tasks with agents, and methods that are made for them.

METHODS are modules as those of `algorithms.ALGORITHMS`, whose `make(config, spec)` wants a task with agents.
"""

from collections.abc import Mapping
from types import ModuleType

from jaxdiff.multi.wrappers import WRAPPERS, independent, joint, shared, wrapped

METHODS: Mapping[str, ModuleType] = {}

__all__ = ["METHODS", "WRAPPERS", "independent", "joint", "shared", "wrapped"]
