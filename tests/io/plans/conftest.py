"""Made-up plans in a made-up maze: no planner, no JAX."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxdiff.io.plans import Episode, Planned
from jaxdiff.io.report.plans import Plan

LAYOUT = ["########", "#OOOOOO#", "#OO##OO#", "#OOOOOO#", "########"]
FACTS = {
    "layout": LAYOUT,
    "wall_box": [-0.7, 0.3],
    "regions": [
        {"name": "west gate", "low": [1.3, 0.3], "high": [2.3, 2.3]},
        {"name": "east gate", "low": [1.3, 4.3], "high": [2.3, 6.3]},
    ],
    "avoided": ["east gate"],
}


def make_planned(
    *,
    episodes: int = 2,
    candidates: int = 5,
    horizon: int = 32,
    calls: int = 20,
    dim: int = 4,
    facts: dict[str, Any] = FACTS,
    goal: tuple[float, ...] | None = (3.0, 6.0),
    name: str = "",
) -> Planned:
    """Plans from the left to the right; values fall from 100 by 10 a rank."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(episodes):
        best = np.linspace(1.0, 3.0, horizon)[:, None] * np.ones(dim)
        noise = generator.standard_normal((calls + 1, horizon, dim))
        stages = best + np.linspace(1, 0, calls + 1)[:, None, None] * 2 * noise
        bends = generator.standard_normal((candidates, 1, dim)) * np.sin(np.linspace(0, 3, horizon))[:, None]
        bends[0] = 0
        executed = best[np.repeat(np.arange(horizon), 2)] + 0.05 * generator.standard_normal((2 * horizon, dim))
        values = 100.0 - 10.0 * np.arange(candidates)
        spot = None if goal is None else np.array(goal)
        plan = Plan(best + 0.3 * bends, values, stages, tuple(range(calls + 1)), executed, spot)
        made.append(Episode(plan, 12.5, 2 * horizon, 34.5))
    return Planned(
        f"task{name}", {"Member": f"setting{name}", "Left out": None}, f"plan {name}", "As drawn.", facts, made
    )


@pytest.fixture
def planned() -> Callable[..., Planned]:
    return make_planned
