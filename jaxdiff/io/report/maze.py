"""Rollouts drawn in a maze, seen from above."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from jaxdiff.io.report import svg
from jaxdiff.io.report.curves import Look
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import MemberResult, Results, Setting

MAX_PANELS = 4
MAX_EPISODES = 8
MAX_POINTS = 200  # of one path
CELL = 40.0  # pixels
WALL_BOX = (-0.7, 0.3)  # a wall's edges from its cell's index, where facts.json does not say: D4RL's maze2d


@dataclasses.dataclass(frozen=True)
class Maze:
    """What of facts.json is drawn. Coordinates are the observation's: x counts rows downwards, y columns rightwards."""

    walls: tuple[tuple[int, int], ...]  # (row, column)
    wall_box: tuple[float, float]
    goal: tuple[float, float] | None
    goal_radius: float

    def pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Position on the drawing."""
        top, left = (min(cell[axis] for cell in self.walls) + self.wall_box[0] for axis in (0, 1))
        return (float(point[1]) - left) * CELL, (float(point[0]) - top) * CELL

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in pixels."""
        rows, columns = (max(c[axis] for c in self.walls) - min(c[axis] for c in self.walls) + 1 for axis in (0, 1))
        return columns * CELL, rows * CELL


def read_maze(facts: Mapping[str, Any]) -> Maze | None:
    """The maze in facts.json, from `walls` or from the `#` of a `layout` of rows; None where there is neither."""
    walls = [(int(row), int(column)) for row, column in facts.get("walls") or []]
    rows = facts.get("layout") or []
    if not walls and all(isinstance(row, str) for row in rows):
        walls = [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == "#"]
    if not walls:
        return None
    box, goal = facts.get("wall_box") or WALL_BOX, facts.get("goal")
    spot = (float(goal[0]), float(goal[1])) if goal is not None and len(goal) == 2 else None
    return Maze(tuple(walls), (float(box[0]), float(box[1])), spot, float(facts.get("goal_radius") or 0.0))


def panels(results: Results, looks: Mapping[str, Look]) -> list[Markup]:
    """The best setting of each algorithm, its seed of median score, a few episodes; nothing without walls or rollouts.

    A position is the first two numbers of an observation.
    """
    maze = read_maze(results.run.facts)
    if maze is None:
        return []
    drawn = []
    for setting in _best_of_each(results.settings):
        chosen = _median_seed(setting)
        paths = _paths(results, chosen)
        if paths:
            picture = _picture(maze, paths, setting.label, looks[setting.label].class_)
            words = f"{setting.label}, seed {chosen.member.seed}, {len(paths)} episodes"
            drawn.append(tag("figure", picture, tag("figcaption", words)))
    return drawn[:MAX_PANELS]


def _best_of_each(settings: Sequence[Setting]) -> list[Setting]:
    best: dict[str, Setting] = {}
    for setting in settings:  # ranked
        if setting.last is not None:
            best.setdefault(setting.algorithm, setting)
    return list(best.values())


def _median_seed(setting: Setting) -> MemberResult:
    """The seed in the middle: neither the luckiest nor the worst is what the reader should see."""
    ranked = sorted(setting.counted, key=lambda result: float(result.values[-1]))
    return ranked[(len(ranked) - 1) // 2]


def _paths(results: Results, chosen: MemberResult) -> list[np.ndarray]:
    pack = next(pack for pack in results.run.packs if pack.id == chosen.pack)
    lane = next(i for i, member in enumerate(pack.members) if member.id == chosen.member.id)
    if pack.rollouts is None or pack.rollouts["obs"].shape[-1] < 2:
        return []
    obs, mask = pack.rollouts["obs"][lane], pack.rollouts["mask"][lane].astype(bool)
    paths = [episode[kept][:, :2].astype(np.float64) for episode, kept in zip(obs, mask, strict=True)]
    return [path for path in paths if len(path) > 1 and np.isfinite(path).all()][:MAX_EPISODES]


def _picture(maze: Maze, paths: Sequence[np.ndarray], label: str, class_: str) -> Markup:
    width, height = maze.size
    parts = [tag("rect", class_="floor", width=width, height=height)]
    for row, column in maze.walls:
        x, y = maze.pixel((row + maze.wall_box[0], column + maze.wall_box[0]))
        side = (maze.wall_box[1] - maze.wall_box[0]) * CELL
        parts.append(tag("rect", class_="wall", x=x, y=y, width=side, height=side))
    if maze.goal is not None:
        x, y = maze.pixel(maze.goal)
        parts.append(tag("circle", class_="reach", cx=x, cy=y, r=maze.goal_radius * CELL))
    for path in paths:
        points = [maze.pixel(point) for point in path[:: max(1, len(path) // MAX_POINTS)]] + [maze.pixel(path[-1])]
        marks = [
            tag("path", class_="move", d=svg.path(points), fill="none"),
            tag("circle", class_="start", cx=points[0][0], cy=points[0][1], r=4.5),
            tag("circle", class_="dot", cx=points[-1][0], cy=points[-1][1], r=4.0),
        ]
        parts.append(tag("g", *marks, class_=class_))
    if maze.goal is not None:
        parts.append(tag("path", class_="goal", d=_star(*maze.pixel(maze.goal), 11.0)))
    return svg.drawing((width, height), *parts, label=f"Paths of {label} in the maze", class_="maze")


def _star(x: float, y: float, radius: float) -> str:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, 0.45 * radius, radius)
    return svg.path(zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)) + "Z"
