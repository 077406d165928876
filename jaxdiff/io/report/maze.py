"""Mazes seen from above, and rollouts drawn in them."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from jaxdiff.io.report import svg
from jaxdiff.io.report.looks import Look
from jaxdiff.io.report.markup import Markup, tag
from jaxdiff.io.report.results import MemberResult, Results, best_of_each, median_seed

MAX_PANELS = 4
MAX_EPISODES = 8
MAX_POINTS = 200  # of one path
CELL = 40.0  # pixels
WALL_BOX = (-0.7, 0.3)  # a wall's edges from its cell's index, where facts.json does not say: D4RL's maze2d


@dataclasses.dataclass(frozen=True)
class Box:
    """A named region of the task."""

    name: str
    low: tuple[float, float]
    high: tuple[float, float]
    avoided: bool = False  # the task ends where it is entered


@dataclasses.dataclass(frozen=True)
class Maze:
    """What of facts.json is drawn. Coordinates are the observation's: x counts rows downwards, y columns rightwards."""

    walls: tuple[tuple[int, int], ...]  # (row, column)
    wall_box: tuple[float, float]
    goal: tuple[float, float] | None
    goal_radius: float
    boxes: tuple[Box, ...] = ()

    @functools.cached_property
    def corner(self) -> tuple[float, float]:
        """Position of the drawing's upper left corner."""
        row, column = (min(cell[axis] for cell in self.walls) + self.wall_box[0] for axis in (0, 1))
        return row, column

    def pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Place on the drawing of a position."""
        return (float(point[1]) - self.corner[1]) * CELL, (float(point[0]) - self.corner[0]) * CELL

    def pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        """Places of positions [T, 2]; those far outside are moved to a picture's width from the edge."""
        width, height = self.size
        x = np.clip((points[:, 1] - self.corner[1]) * CELL, -width, 2 * width)
        y = np.clip((points[:, 0] - self.corner[0]) * CELL, -height, 2 * height)
        return list(zip(x.tolist(), y.tolist(), strict=True))

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
    radius = float(facts.get("goal_radius") or 0.0)
    return Maze(tuple(walls), (float(box[0]), float(box[1])), spot, radius, _boxes(facts))


def _boxes(facts: Mapping[str, Any]) -> tuple[Box, ...]:
    found = []
    for region in facts.get("regions") or []:
        low, high = list(region.get("low") or []), list(region.get("high") or [])
        if len(low) == len(high) == 2:
            name = str(region.get("name"))
            avoided = name in (facts.get("avoided") or [])
            found.append(Box(name, (float(low[0]), float(low[1])), (float(high[0]), float(high[1])), avoided))
    return tuple(found)


def panels(results: Results, looks: Mapping[str, Look]) -> list[Markup]:
    """The best setting of each algorithm, its seed of median score, a few episodes; nothing without walls or rollouts.

    A position is the first two numbers of an observation.
    """
    maze = read_maze(results.run.facts)
    if maze is None:
        return []
    drawn = []
    for setting in best_of_each(results.settings):
        chosen = median_seed(setting)
        paths = _paths(results, chosen)
        if paths:
            picture = _picture(maze, paths, setting.label, looks[setting.label].class_)
            words = f"{setting.label}, seed {chosen.member.seed}, {len(paths)} episode" + "s" * (len(paths) != 1)
            drawn.append(tag("figure", picture, tag("figcaption", words)))
    return drawn[:MAX_PANELS]


def _paths(results: Results, chosen: MemberResult) -> list[np.ndarray]:
    pack = next(pack for pack in results.run.packs if pack.id == chosen.pack)
    lane = next(i for i, member in enumerate(pack.members) if member.id == chosen.member.id)
    if pack.rollouts is None or pack.rollouts["obs"].shape[-1] < 2:
        return []
    obs, mask = pack.rollouts["obs"][lane], pack.rollouts["mask"][lane].astype(bool)
    paths = [episode[kept][:, :2].astype(np.float64) for episode, kept in zip(obs, mask, strict=True)]
    return [path for path in paths if len(path) > 1 and np.isfinite(path).all()][:MAX_EPISODES]


def _picture(maze: Maze, paths: Sequence[np.ndarray], label: str, class_: str) -> Markup:
    parts = [tag("g", *walk(maze, path), class_=class_) for path in paths]
    return picture(maze, *parts, goal=maze.goal, label=f"Paths of {label} in the maze")


def walk(maze: Maze, path: np.ndarray, *, class_: str = "move") -> list[Markup]:
    """A path [T, 2] with a ring at its start and a dot at its end."""
    points = maze.pixels(thin(path, MAX_POINTS))
    return [
        tag("path", class_=class_, d=svg.path(points), fill="none"),
        tag("circle", class_="start", cx=points[0][0], cy=points[0][1], r=4.5),
        tag("circle", class_="dot", cx=points[-1][0], cy=points[-1][1], r=4.0),
    ]


def thin(points: np.ndarray, count: int) -> np.ndarray:
    """At most about `count` of the points [T, ...], evenly spread, both ends among them."""
    if len(points) <= count:
        return points
    kept: np.ndarray = points[np.unique(np.linspace(0, len(points) - 1, count).round().astype(int))]
    return kept


def picture(maze: Maze, *parts: Markup, goal: Sequence[float] | None, label: str, names: bool = True) -> Markup:
    """The maze with its walls, its regions and a goal, and `parts` between the ground and the goal's star.

    Args:
      maze: what to draw.
      *parts: in pixels of the maze.
      goal: position; None: there is none.
      label: for readers who do not see it.
      names: write the regions' names into their boxes; in small pictures they could not be read.
    """
    width, height = maze.size
    side = (maze.wall_box[1] - maze.wall_box[0]) * CELL
    corners = (maze.pixel((row + maze.wall_box[0], column + maze.wall_box[0])) for row, column in maze.walls)
    walls = "".join(f"M{x:g} {y:g}h{side:g}v{side:g}h{-side:g}z" for x, y in corners)
    ground = [tag("rect", class_="floor", width=width, height=height), tag("path", class_="wall", d=walls)]
    ground += [_region(maze, box, names) for box in maze.boxes]
    if goal is not None:
        x, y = maze.pixel(goal)
        ground.append(tag("circle", class_="reach", cx=x, cy=y, r=maze.goal_radius * CELL))
    star = [] if goal is None else [tag("path", class_="goal", d=_star(*maze.pixel(goal), 11.0))]
    return svg.drawing((width, height), *ground, *parts, *star, label=label, class_="maze")


def _region(maze: Maze, box: Box, named: bool) -> Markup:
    (left, top), (right, bottom) = maze.pixel(box.low), maze.pixel(box.high)
    edge = tag("rect", x=left, y=top, width=right - left, height=bottom - top, rx=3)
    x, y = (left + right) / 2, (top + bottom) / 2 + 4.5
    words = tag("text", box.name, x=x, y=y, text_anchor="middle") if named else tag("title", box.name)
    return tag("g", edge, words, class_="region bad" if box.avoided else "region")


def _star(x: float, y: float, radius: float) -> str:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2, 0.45 * radius, radius)
    return svg.path(zip(x + radii * np.cos(angles), y + radii * np.sin(angles), strict=True)) + "Z"
