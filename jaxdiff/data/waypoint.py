"""Maze data from a controller that walks between random cells, with rewards of a fixed goal it knows nothing about.

So the behaviour is diverse and poor at the task: imitating it scores low, stitching its pieces by their value scores
high. The recipe is that of D4RL's maze2d (Fu et al. 2020, arXiv:2004.07219, appendix), on whatever physics is given.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.columns import Columns
from jaxdiff.types import Array, Key

Physics = Callable[[Array, Array, Array], tuple[Array, Array]]  # (position [2], velocity [2], action [2]) -> next two

GAIN = 10.0  # action per unit of distance to the waypoint; the gain on velocity is 1
NEAR = 0.1  # a target closer than this is reached, and so is a waypoint unless the maze says otherwise
START_SPREAD = 0.1  # a start or target lies within this of its cell's index, on each axis
START_SPEED = 0.1  # standard deviation of the first velocity
GOAL_RADIUS = 0.5  # of the sparse reward


@dataclasses.dataclass(frozen=True)
class Maze:
    """A task on a grid. Cell (i, j) is the square around the point (i, j); x counts rows, y columns."""

    layout: tuple[str, ...]  # one string per row, "#" is a wall, anything else is free
    goal: tuple[float, float] | None  # what rewards are about; None: nothing is rewarded, unless `multi`
    max_episode_steps: int
    dense: bool
    multi: bool = False  # the goal is the walker's own target, rewarded and told in every row
    landmarks: tuple[tuple[int, int], ...] = ()  # free cells that half of the targets are drawn from, if there are any
    both_ways: bool = False  # of equally long ways, every other target is come to by the mirrored one
    passing: float = NEAR  # a waypoint closer than this is passed: the more, the faster and rounder the walk


class _World(NamedTuple):
    """Where one can be, how to get on, and where to go."""

    free: Array  # [F, 2] cells
    route: Array  # [F, F] int32, see `plan`
    choices: Array  # [C] int32, rows of `free` that starts and targets are drawn from
    passing: float  # squared


class _Walk(NamedTuple):
    """State of one controller."""

    position: Array  # [2]
    velocity: Array  # [2]
    waypoint: Array  # [2]
    waypoint_cell: Array  # [] int32
    target: Array  # [2]
    target_cell: Array  # [] int32


class _Draws(NamedTuple):
    """The chance of an episode, drawn at once: each generator call in the program costs a second of compilation."""

    noise: Array  # [H, 2] N(0, 1), added to the action
    cell: Array  # [H] int32, the next target's, should one be needed after this step
    offset: Array  # [H, 2] in +-START_SPREAD, of that target from its cell
    waypoint_offset: Array  # [H, 2] in [-jitter, 0]


def generate(
    key: Key, maze: Maze, physics: Physics, *, num_steps: int, noise: float = 0.5, jitter: float = 0.2
) -> Columns:
    """Walks ceil(num_steps / max_episode_steps) episodes side by side and lays them end to end.

    action = clip(clip(10 (waypoint - x) - v, -1, 1) + noise N(0, 1), -1, 1)
    reward = 1[|x' - goal| <= 0.5] sparse, exp(-|x' - goal|) dense, at the position x' after the step
    An episode starts in a random free cell, nearly at rest; waypoints are the cells of a shortest path to a random
    target; on reaching the target another is drawn. Every episode lasts max_episode_steps; none terminates.

    With `maze.multi` the goal is the target, and the row at which it is reached is followed by one that has another.
    So next_obs is given beside obs: the same goal as in its row, (x', y', vx', vy', gx, gy), and never that of the row
    after. Several rows in a batch (chunks of actions, returns) see goals change as they did in the walk.

    Args:
      key: consumed.
      maze: grid, goal and episode length.
      physics: one step of one particle, jit-able; compiled once per function object.
      num_steps: N rows, at least 2; the last episode is cut there.
      noise: standard deviation of action noise, >= 0.
      jitter: each waypoint but the last lies at its cell's index less U(0, jitter) per axis; 0 to 0.5.

    Returns:
      Columns of N rows: obs [N, 4] = (x, y, vx, vy), action [N, 2]; extras "infos/goal" [N, 2] is the controller's
      target. With `maze.multi` obs [N, 6] has it too, and next_obs is not None.

    Raises:
      ValueError: an argument out of range, no free cell, a free cell that others cannot reach, a landmark in a wall.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} must be at least 2; 200000 is usual.")
    if noise < 0 or not 0 <= jitter <= 0.5:
        raise ValueError(f"noise={noise}, jitter={jitter}: noise must be >= 0 and jitter in [0, 0.5].")
    free, route = plan(maze.layout)
    if maze.both_ways:
        route[::2] = plan(maze.layout, mirrored=True)[1][::2]
    horizon = maze.max_episode_steps
    num_episodes = -(-num_steps // horizon)
    keys = jax.random.split(key, num_episodes)
    choices = jnp.asarray(_choices(free, maze.landmarks))
    world = _World(jnp.asarray(free, jnp.float32), jnp.asarray(route), choices, maze.passing**2)
    walked = _episodes(keys, world, noise, jitter, physics, horizon)
    obs, action, after, target = (np.asarray(x).reshape(-1, x.shape[-1])[:num_steps] for x in walked)
    truncated = np.arange(1, num_steps + 1) % horizon == 0
    truncated[-1] = True
    goal = target if maze.multi else maze.goal
    reward = np.zeros(num_steps, np.float32) if goal is None else maze_reward(after[:, :2], goal, dense=maze.dense)
    return Columns(
        obs=np.concatenate([obs, target], axis=1) if maze.multi else obs,
        action=action,
        reward=reward,
        terminated=np.zeros(num_steps, bool),
        truncated=truncated,
        next_obs=np.concatenate([after, target], axis=1) if maze.multi else None,
        extras={"infos/goal": target},
    )


def maze_reward(position: np.ndarray, goal: tuple[float, float] | np.ndarray, *, dense: bool) -> np.ndarray:
    """[N] float32 rewards of positions [N, 2]: exp(-distance) if dense, else 1 within 0.5 of the goal [2] or [N, 2]."""
    distance = np.linalg.norm(position - np.broadcast_to(np.asarray(goal, np.float32), position.shape), axis=-1)
    return np.exp(-distance).astype(np.float32) if dense else (distance <= GOAL_RADIUS).astype(np.float32)


def plan(layout: tuple[str, ...], *, mirrored: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Shortest paths between all free cells, over edges.

    Args:
      layout: one string per row.
      mirrored: which of several equally long paths: the neighbours of a cell are tried in the opposite order.

    Returns:
      free: [F, 2] int32, the free cells.
      route: [F, F] int32, route[target, cell] is the cell after `cell` on a shortest path to `target`.

    Raises:
      ValueError: no free cell, or two that no path joins.
    """
    cells = [(i, j) for i, row in enumerate(layout) for j, mark in enumerate(row) if mark != "#"]
    if not cells:
        raise ValueError(f"layout={layout} has no free cell; mark walls with '#' and free cells with 'O'.")
    number = {cell: k for k, cell in enumerate(cells)}
    route = np.full((len(cells), len(cells)), -1, np.int32)
    for target in range(len(cells)):
        route[target, target] = target
        frontier = [target]
        for cell in frontier:  # grows while it is read: breadth first
            i, j = cells[cell]
            around = ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
            for near in reversed(around) if mirrored else around:
                if near in number and route[target, number[near]] < 0:
                    route[target, number[near]] = cell
                    frontier.append(number[near])
    if (route < 0).any():
        target, cell = np.argwhere(route < 0)[0]
        raise ValueError(f"layout: no path from cell {cells[cell]} to {cells[target]}; open a wall between.")
    return np.asarray(cells, np.int32), route


def _choices(free: np.ndarray, landmarks: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Rows of `free` to draw targets from, uniformly: each once, and landmarks again until they are about half."""
    number = {(int(i), int(j)): k for k, (i, j) in enumerate(free)}
    for cell in landmarks:
        if cell not in number:
            raise ValueError(f"landmark {cell} is not a free cell; choose among {sorted(number)}.")
    again = [number[cell] for cell in landmarks] * (len(free) // max(1, len(landmarks)))
    return np.asarray([*range(len(free)), *again], np.int32)


@functools.partial(jax.jit, static_argnames=("physics", "horizon"))
@functools.partial(jax.vmap, in_axes=(0, None, None, None, None, None))
def _episodes(
    key: Key, world: _World, noise: Array, jitter: Array, physics: Physics, horizon: int
) -> tuple[Array, Array, Array, Array]:
    """One episode: obs [H, 4], action [H, 2], obs after each step [H, 4], target [H, 2]."""
    free, route = world.free, world.route
    draws = _draw(key, horizon + 2, world.choices, jitter)
    target, start, rest = (jax.tree.map(lambda x, rows=rows: x[rows], draws) for rows in (0, 1, slice(2, None)))

    def step(walk: _Walk, draw: _Draws) -> tuple[_Walk, tuple[Array, Array, Array, Array]]:
        steer = jnp.clip(GAIN * (walk.waypoint - walk.position) - walk.velocity, -1.0, 1.0)
        action = jnp.clip(steer + noise * draw.noise, -1.0, 1.0)
        position, velocity = physics(walk.position, walk.velocity, action)
        before, after = jnp.concatenate([walk.position, walk.velocity]), jnp.concatenate([position, velocity])
        row = (before, action, after, walk.target)
        return _aim(walk._replace(position=position, velocity=velocity), draw, world), row

    return jax.lax.scan(step, _start(start, target, free, route), rest)[1]


def _start(start: _Draws, first: _Draws, free: Array, route: Array) -> _Walk:
    """Nearly at rest in the cell that `start` drew, on the way to the target that `first` drew."""
    waypoint_cell = route[first.cell, start.cell]
    target = free[first.cell] + first.offset
    return _Walk(
        position=free[start.cell] + start.offset,
        velocity=START_SPEED * start.noise,
        waypoint=jnp.where(waypoint_cell == first.cell, target, free[waypoint_cell] + first.waypoint_offset),
        waypoint_cell=waypoint_cell,
        target=target,
        target_cell=first.cell,
    )


def _aim(walk: _Walk, draw: _Draws, world: _World) -> _Walk:
    """Takes another target once the target is reached, and moves on to the next cell once the waypoint is."""
    free, route = world.free, world.route
    reached = _squared_distance(walk.position, walk.target) < NEAR**2
    passed = reached | (_squared_distance(walk.position, walk.waypoint) < world.passing)
    target_cell = jnp.where(reached, draw.cell, walk.target_cell)
    target = jnp.where(reached, free[draw.cell] + draw.offset, walk.target)
    cell = jnp.where(passed, route[target_cell, walk.waypoint_cell], walk.waypoint_cell)
    waypoint = jnp.where(cell == target_cell, target, free[cell] + draw.waypoint_offset)
    return walk._replace(
        waypoint=jnp.where(passed, waypoint, walk.waypoint),
        waypoint_cell=cell,
        target=target,
        target_cell=target_cell,
    )


def _draw(key: Key, num_rows: int, choices: Array, jitter: Array) -> _Draws:
    key_normal, key_uniform = jax.random.split(key)
    uniform = jax.random.uniform(key_uniform, (num_rows, 5))
    return _Draws(
        noise=jax.random.normal(key_normal, (num_rows, 2)),
        cell=choices[jnp.minimum((uniform[:, 0] * len(choices)).astype(jnp.int32), len(choices) - 1)],
        offset=START_SPREAD * (2.0 * uniform[:, 1:3] - 1.0),
        waypoint_offset=-jitter * uniform[:, 3:5],
    )


def _squared_distance(a: Array, b: Array) -> Array:
    return jnp.sum((a - b) ** 2)
