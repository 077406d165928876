"""A denoising that can be played: one picture whose plan is replaced stage by stage by a few lines of JavaScript.

Without JavaScript it stays hidden; the stages side by side say the same.
"""

import numpy as np

from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.maze import Maze, picture, thin
from jaxdiff.io.report.plans import MAX_WAYPOINTS, PLAN, Plan, after, stage_indices

MAX_FRAMES = 65


def player(maze: Maze, plan: Plan, label: str) -> Markup:
    """The picture, its button and its slider."""
    kept = stage_indices(len(plan.calls) - 1, MAX_FRAMES)
    frames = ";".join(_frame(maze, plan.stages[j]) for j in kept)
    moving = tag("g", tag("path", class_="thread", d=""), tag("path", class_="beads", d=""), class_=PLAN)
    start = maze.pixel(plan.best[0])
    ring = tag("g", tag("circle", class_="start", cx=start[0], cy=start[1], r=4.5), class_=PLAN)
    goal = maze.goal if plan.goal is None else plan.goal[:2].tolist()
    last = len(kept) - 1
    bar = [
        tag("button", "Play", type="button", data_play=""),
        tag("input", type="range", min=0, max=last, value=last, aria_label=label),
        tag("output", after(plan.calls, kept[-1]), aria_live="off"),
    ]
    return tag(
        "figure",
        picture(maze, moving, ring, goal=goal, label=label),
        tag("figcaption", *bar),
        class_="player",
        data_frames=frames,
        data_calls=",".join(str(plan.calls[j]) for j in kept),
        hidden="",
    )


def _frame(maze: Maze, path: np.ndarray) -> str:
    """'x,y x,y ..' in pixels."""
    points = maze.pixels(thin(path[:, :2], MAX_WAYPOINTS))
    return " ".join(f"{_short(x)},{_short(y)}" for x, y in points)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
