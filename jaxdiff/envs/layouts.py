"""Mazes as text: named ones, the check of a written-out one, and where its walls and its goal are."""

from collections.abc import Sequence
import re

import numpy as np

from jaxdiff.suggest import unknown_name

LAYOUTS: dict[str, tuple[str, ...]] = {
    "open": (
        "#######",
        "#OOOOO#",
        "#OOGOO#",
        "#OOOOO#",
        "#######",
    ),
    "umaze": (
        "#####",
        "#GOO#",
        "###O#",
        "#OOO#",
        "#####",
    ),
    "medium": (
        "########",
        "#OO##OO#",
        "#OO#OOO#",
        "##OOO###",
        "#OO#OOO#",
        "#O#OO#O#",
        "#OOO#OG#",
        "########",
    ),
    "large": (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OGO#",
        "############",
    ),
}

Cell = tuple[int, int]  # (row, column), which is also the position (x, y)


def parse_layout(layout: str | Sequence[str]) -> tuple[str, ...]:
    """The rows of a named or a written-out maze, checked.

    Args:
      layout: a name in LAYOUTS, a sequence of rows, or rows in one string parted by newlines or backslashes.

    Returns:
      Rows of equal length over `#`, `O`, `G`, with a border of `#`, at most one `G`, and a way between any two cells.

    Raises:
      KeyError: a string without `#` that names no layout.
      ValueError: the maze is malformed; the message says where.
    """
    if isinstance(layout, str) and "#" not in layout:
        if layout not in LAYOUTS:
            raise unknown_name("maze layout", layout, LAYOUTS)
        return LAYOUTS[layout]
    rows = tuple(re.split(r"[\n\\]", layout.strip())) if isinstance(layout, str) else tuple(layout)
    rows = tuple(row.strip() for row in rows)
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"maze rows have lengths {[len(row) for row in rows]}; all rows must be equally long")
    for i, row in enumerate(rows):
        for j, character in enumerate(row):
            if character not in "#OG":
                raise ValueError(f"unknown character {character!r} at row {i}, column {j}; use '#', 'O' and 'G'")
            is_border = i in (0, len(rows) - 1) or j in (0, len(row) - 1)
            if is_border and character != "#":
                raise ValueError(f"the maze is not closed: {character!r} on the border at row {i}, column {j}; use '#'")
    goals = sum(row.count("G") for row in rows)
    if goals > 1:
        raise ValueError(f"the maze has {goals} goals; mark exactly one free cell with 'G'")
    _check_connected(rows)
    return rows


def free_cells(rows: Sequence[str]) -> list[Cell]:
    """The cells that are not wall, row by row."""
    return [(i, j) for i, row in enumerate(rows) for j, character in enumerate(row) if character != "#"]


def walls_of(layout: str | Sequence[str]) -> np.ndarray:
    """Where the walls are: [rows, columns] bool, True for `#`. Raises as `parse_layout` does."""
    return np.array([[character == "#" for character in row] for row in parse_layout(layout)])


def goal_of(layout: str | Sequence[str]) -> Cell:
    """The goal's cell (i, j), which is also its position (x, y).

    Raises:
      ValueError: as `parse_layout`, or no goal.
    """
    rows = parse_layout(layout)
    goals = [(i, row.index("G")) for i, row in enumerate(rows) if "G" in row]
    if not goals:
        raise ValueError("the maze has 0 goals; mark exactly one free cell with 'G', or say goal=(row, column)")
    return goals[0]


def with_goal(rows: tuple[str, ...], goal: Cell) -> tuple[str, ...]:
    """The checked maze with its goal in another cell.

    Raises:
      ValueError: the cell is a wall or outside; the nearest free ones are named.
    """
    free = free_cells(rows)
    if tuple(goal) not in free:
        distance = {cell: abs(cell[0] - goal[0]) + abs(cell[1] - goal[1]) for cell in free}
        nearest = [cell for cell in free if distance[cell] == min(distance.values())]
        inside = 0 <= goal[0] < len(rows) and 0 <= goal[1] < len(rows[0])
        what = "a wall" if inside else f"outside the maze of {len(rows)} rows and {len(rows[0])} columns"
        raise ValueError(f"goal cell {tuple(goal)} is {what}; the nearest free cells are {nearest}")
    bare = [row.replace("G", "O") for row in rows]
    i, j = goal
    bare[i] = f"{bare[i][:j]}G{bare[i][j + 1 :]}"
    return tuple(bare)


def _check_connected(rows: tuple[str, ...]) -> None:
    """Raises ValueError where there is no free cell, or one that the first cannot reach over edges."""
    free = free_cells(rows)
    if not free:
        raise ValueError("the maze has no free cell; mark free cells with 'O' and the goal with 'G'")
    reached = [free[0]]
    for i, j in reached:  # grows while it is read
        near = ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
        reached.extend(cell for cell in near if cell in free and cell not in reached)
    beyond = [cell for cell in free if cell not in reached]
    if beyond:
        raise ValueError(
            f"free cell {beyond[0]} cannot be reached from {free[0]}; open a wall between them, or fill it with '#'"
        )
