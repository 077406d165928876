"""A point mass in a walled maze, in closed form: D4RL's maze2d without MuJoCo.

A ball of radius 0.1 is pushed by a force in the plane. Each step is one Euler step of 0.01 s; then the ball is
moved out of the walls it touches. Coordinates are D4RL's: row i of a layout is x = i, column j is y = j, the goal sits
at the integer coordinates of its cell, and the wall of cell (i, j) fills [i - 0.7, i + 0.3] x [j - 0.7, j + 0.3].

**The contact is an approximation.** In free space a step equals MuJoCo's to rounding error. At a wall MuJoCo solves a
soft contact (the ball sinks in a little and bounces back over some steps); here the wall is hard: no penetration, no
bounce, no friction. Measured against MuJoCo over 40 episodes of 300 uniform random actions in the U maze: one step from
the same state is equal in 90 % of steps, and differs by 2.8e-3 in position and 0.24 in velocity at the 99th percentile,
by 0.023 and 4.4 at worst; 300 steps with the same actions end 0.11 apart (median; 75th percentile 0.22). The medium
maze gives 0.13 and 0.24. Resting points: pushed with full force, MuJoCo's ball stops at i + 0.1966 and i - 0.5966, this
one at i + 0.2 and i - 0.6.

Reference: Fu et al. 2020, D4RL, arXiv:2004.07219; constants of the model file in the d4rl package (pointmaze).
"""

from collections.abc import Sequence

from flax import struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.envs.layouts import LAYOUTS, Cell, goal_of, parse_layout, walls_of, with_goal
from jaxdiff.types import Array, Env, Key, Spec, TimeStep

DT = 0.01  # seconds per step
MAX_SPEED = 5.0  # per axis, applied to the velocity a step starts from
FORCE = 100.0  # newtons at action 1 (the actuators' gear)
DAMPING = 1.0  # newton seconds per metre
MASS = 4000.0 * np.pi * 0.1**3 / 3.0  # a ball of radius 0.1 and density 1000: 4.18879 kg
RADIUS = 0.1
WALL_LOW, WALL_HIGH = -0.7, 0.3  # the wall of cell i fills [i + WALL_LOW, i + WALL_HIGH]
GOAL_RADIUS = 0.5

MAX_EPISODE_STEPS = {"open": 150, "umaze": 300, "medium": 600, "large": 800}

# (random, expert) returns, d4rl/infos.py: maze2d-{umaze,medium,large}[-dense]-v1; the open room exists only as v0.
REFERENCE_SCORES: dict[tuple[str, bool], tuple[float, float]] = {
    ("open", False): (0.01, 20.66),
    ("umaze", False): (23.85, 161.86),
    ("medium", False): (13.13, 277.39),
    ("large", False): (6.7, 273.99),
    ("open", True): (11.17817, 27.166538620695782),
    ("umaze", True): (68.537689, 193.66285642381482),
    ("medium", True): (44.264742, 297.4552547777125),
    ("large", True): (30.569041, 303.4857382709002),
}


@struct.dataclass
class MazeState:
    """The ball and the clock."""

    position: Array  # [2]
    velocity: Array  # [2]
    time: Array  # [] int32, steps since reset


@struct.dataclass
class MultiMazeState(MazeState):
    """Beside them, the goal of this episode."""

    target: Array  # [2]


def pointmaze(
    layout: str | Sequence[str] = "umaze",
    *,
    dense: bool = False,
    multi: bool = False,
    goal: Cell | None = None,
    max_episode_steps: int | None = None,
) -> Env:
    """The maze task: stay within 0.5 of the goal for as much of the episode as possible.

    obs = (x, y, vx, vy), with `multi` (x, y, vx, vy, gx, gy)
    reward = 1[|p - goal| <= 0.5], or exp(-|p - goal|) when dense, p being the position after the step
    An episode never terminates; it is truncated after `max_episode_steps`. A reset draws a free cell (the goal's
    included) uniformly, then p = cell + U(-0.1, 0.1) and v = 0.1 N(0, 1), per axis. With `multi` it draws the goal in
    the same way as p, which D4RL does when it is told no target, and Diffuser calls Multi2D.

    Args:
      layout: a name in LAYOUTS, or a maze: rows as a tuple, or one string with rows parted by newlines or
        backslashes. `#` is wall, `O` free, `G` the goal (free); the border must be wall.
      dense: the reward, see above.
      multi: another goal in every episode, told in the observation; a `G` is then a free cell like others.
      goal: its cell (i, j), in the place of the layout's `G`, which may then be absent. Not with `multi`.
      max_episode_steps: default 150, 300, 600, 800 for open, umaze, medium, large; 300 for another maze.

    Returns:
      Env with obs [4] or [6], action [2]. `spec.goal` is the observation at rest on the goal; with `multi` it is None
      and `spec.goal_dim` 2. Reference scores are D4RL's, and None for a maze, a goal or a clock that is not D4RL's;
      with `multi` they are those of the maze's fixed goal, since D4RL and Diffuser score those tasks so: such a score
      compares methods, and 100 is not what an expert reaches.
      `facts` holds layout, walls (list of [i, j]), goal [x, y] or None, wall_box (offsets of a wall's edges from its
      cell index), radius and goal_radius, all plain lists and floats.

    Raises:
      KeyError: unknown layout name.
      ValueError: a maze with ragged rows, an unknown character, an open border, a cell that others cannot reach, or
        not exactly one goal; a goal inside a wall, or beside `multi`.

    Reference: Fu et al. 2020, arXiv:2004.07219; Janner et al. 2022, arXiv:2205.09991, table 1 for Multi2D.
    """
    rows, spot = _rows_and_goal(layout, multi, goal)
    spec = _spec(rows, spot, dense, multi, max_episode_steps)
    walls = walls_of(rows)
    cells = np.argwhere(~walls).astype(np.float32)
    fixed = np.array(spot or (0, 0), np.float32)  # with multi the state has the goal

    def draw(key_cell: Key, key_offset: Key) -> Array:
        cell = jax.random.choice(key_cell, jnp.asarray(cells))
        return cell + jax.random.uniform(key_offset, (2,), minval=-0.1, maxval=0.1)

    def observe(state: MazeState) -> Array:
        seen = [state.position, state.velocity]
        return jnp.concatenate([*seen, state.target] if isinstance(state, MultiMazeState) else seen)

    def reset(key: Key) -> tuple[MazeState, Array]:
        key_cell, key_position, key_velocity = jax.random.split(key, 3)
        ball = {
            "position": draw(key_cell, key_position),
            "velocity": 0.1 * jax.random.normal(key_velocity, (2,)),
            "time": jnp.int32(0),
        }
        state = MazeState(**ball)
        if multi:
            state = MultiMazeState(**ball, target=draw(*jax.random.split(jax.random.fold_in(key, 1))))
        return state, observe(state)

    def step(state: MazeState, action: Array) -> tuple[MazeState, TimeStep]:
        position, velocity = physics_step(state.position, state.velocity, action, walls)
        time = state.time + 1
        distance = jnp.linalg.norm(position - (state.target if isinstance(state, MultiMazeState) else fixed))
        reward = jnp.exp(-distance) if dense else (distance <= GOAL_RADIUS).astype(jnp.float32)
        state = state.replace(position=position, velocity=velocity, time=time)  # type: ignore[attr-defined]
        ended = TimeStep(observe(state), reward, terminated=jnp.array(False), truncated=time >= spec.max_episode_steps)
        return state, ended

    return Env(reset, step, spec, _facts(rows, walls, spot))


def custom(
    maze: str | Sequence[str] = "", *, dense: bool = False, multi: bool = False, max_episode_steps: int | None = None
) -> Env:
    """`pointmaze` for a maze that must be written out: what the names `pointmaze-custom...` stand for.

    Raises:
      ValueError: no maze, or see `pointmaze`.
    """
    if not maze or isinstance(maze, str) and "#" not in maze:
        raise ValueError(
            f"maze={maze!r}: pointmaze-custom needs a maze, rows of '#', 'O' and 'G' parted by backslashes, as "
            r"'#####\#GOO#\#####'; named mazes are environments of their own"
        )
    return pointmaze(maze, dense=dense, multi=multi, max_episode_steps=max_episode_steps)


def _rows_and_goal(layout: str | Sequence[str], multi: bool, goal: Cell | None) -> tuple[tuple[str, ...], Cell | None]:
    """The checked maze, and the cell of the goal that never changes if there is one."""
    rows = parse_layout(layout)
    if multi and goal is not None:
        raise ValueError(f"goal={goal} has no use with multi=True, where every episode draws its own; leave it out")
    if goal is not None:
        rows = with_goal(rows, goal)
    return rows, None if multi else goal_of(rows)


def _spec(rows: tuple[str, ...], goal: Cell | None, dense: bool, multi: bool, max_episode_steps: int | None) -> Spec:
    known = next((name for name, known_rows in LAYOUTS.items() if known_rows == rows), None)
    steps = MAX_EPISODE_STEPS.get(known or "", 300) if max_episode_steps is None else max_episode_steps
    if steps < 1:
        raise ValueError(f"max_episode_steps={steps} must be at least 1")
    is_d4rl = known is not None and steps == MAX_EPISODE_STEPS[known]
    return Spec(
        name=f"pointmaze-{known or 'custom'}" + ("-multi" if multi else "") + ("-dense" if dense else ""),
        obs_dim=6 if multi else 4,
        action_dim=2,
        max_episode_steps=steps,
        reference_scores=REFERENCE_SCORES[known, dense] if known and is_d4rl else None,
        goal=None if goal is None else (float(goal[0]), float(goal[1]), 0.0, 0.0),
        goal_dim=2 if multi else 0,
    )


def physics_step(position: Array, velocity: Array, action: Array, walls: ArrayLike) -> tuple[Array, Array]:
    """One 0.01 s step of the ball, contacts included; unbatched, any float dtype.

    v' = clip(v, +-5) + dt (100 clip(a, +-1) - v) / (m + dt),   x' = x + dt v',   then `resolve_contact`.

    A step covers at most 0.0523 per axis, less than the radius even along the diagonal, so a ball that starts outside
    the walls never gets its centre into one.

    Args:
      position: [2], outside every wall by at least the radius.
      velocity: [2].
      action: [2], clipped to [-1, 1].
      walls: [rows, columns] bool, from `walls_of`.

    Returns:
      (position [2], velocity [2]) after the step.
    """
    velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
    force = FORCE * jnp.clip(action, -1.0, 1.0)
    velocity = velocity + DT * (force - DAMPING * velocity) / (MASS + DT * DAMPING)
    return resolve_contact(position + DT * velocity, velocity, walls)


def resolve_contact(position: Array, velocity: Array, walls: ArrayLike) -> tuple[Array, Array]:
    """Move the ball out of the walls along the nearest normals and drop the velocity into them.

    Only three cells can touch the ball, since its centre is in a free cell and its diameter is a fifth of a cell: the
    neighbours across the nearest face in x, the nearest in y, and the corner between. The two faces clamp one
    coordinate each; the corner counts only where both face neighbours are free, and pushes radially.

    Args:
      position: [2], the centre in a free cell.
      velocity: [2].
      walls: [rows, columns] bool.

    Returns:
      (position [2], velocity [2]), the ball outside every wall and no velocity component into a touched one.
    """
    walls = jnp.asarray(walls)
    cell = jnp.floor(position - WALL_LOW)
    low, high = cell + WALL_LOW, cell + WALL_HIGH
    side = jnp.where(position - low >= 0.5, 1, -1)
    corner = jnp.where(side > 0, high, low)
    index = cell.astype(jnp.int32)
    beyond = index + side
    rows = jnp.stack([beyond[0], index[0], beyond[0]])
    columns = jnp.stack([index[1], beyond[1], beyond[1]])
    blocked = walls.at[rows, columns].get(mode="clip")  # across the x face, across the y face, across the corner

    gap = (corner - position) * side  # [2] distance from the centre to the nearest face, per axis
    touches = blocked[:2] & (gap < RADIUS)
    position = jnp.where(touches, corner - side * RADIUS, position)
    velocity = jnp.where(touches & (velocity * side > 0), 0.0, velocity)

    away = position - corner
    distance = jnp.maximum(jnp.sqrt(jnp.sum(away**2)), 1e-6)
    normal = away / distance
    touches_corner = blocked[2] & ~blocked[0] & ~blocked[1] & (distance < RADIUS)
    inward = jnp.minimum(jnp.sum(velocity * normal), 0.0)
    position = jnp.where(touches_corner, corner + RADIUS * normal, position)
    velocity = jnp.where(touches_corner, velocity - inward * normal, velocity)
    return position, velocity


def _facts(rows: tuple[str, ...], walls: np.ndarray, goal: Cell | None) -> dict[str, object]:
    return {
        "layout": list(rows),
        "walls": np.argwhere(walls).tolist(),
        "goal": None if goal is None else [float(goal[0]), float(goal[1])],
        "wall_box": [WALL_LOW, WALL_HIGH],
        "radius": RADIUS,
        "goal_radius": GOAL_RADIUS,
    }
