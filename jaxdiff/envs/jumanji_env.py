"""Jumanji's grid worlds for teams: robots in a warehouse, foragers, wires to lay, cleaners in a maze.

| name | agents | actions | pays |
|---|---|---|---|
| jumanji-rware | 4 | stay, forward, left, right, load or unload | the team 1 for a delivered shelf |
| jumanji-lbf | 2 | stay, up, down, left, right, load | each its share of the food's level, 1 in all |
| jumanji-connector | 10 | stay, up, right, down, left | each 1 for its connection, -0.03 while it has none |
| jumanji-cleaner | 3 | up, right, down, left | the team 1 for a cleaned tile, -0.5 a step |

All are discrete (`Spec.num_actions`), and the mask of what is allowed is the end of every observation
(`Spec.mask_dim`). An action that the mask forbids is never taken: a cleaner cannot walk into a wall, which would end
the episode. Robots of rware can still collide.

Jumanji's own clock is stopped and the Env's is used: two of the four call the end of their clock a termination, after
which nothing would be bootstrapped.
"""

from collections.abc import Callable, Iterator
import contextlib
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.envs.discrete import decode_onehot
from jaxdiff.types import Array, Env, Key, PyTree, Spec, TimeStep

NO_LIMIT = 2**30  # steps: jumanji's clock, which never rings

Observe = Callable[[Any], Array]  # jumanji's observation -> [A, O - n]


@struct.dataclass
class JumanjiState:
    """Jumanji's own state, what it allows now, and the clock."""

    inner: PyTree
    mask: Array  # [A, n] bool
    time: Array  # [] int32, steps since reset


def rware(
    *,
    num_agents: int = 4,
    shelf_rows: int = 2,
    shelf_columns: int = 3,
    column_height: int = 8,
    sensor_range: int = 1,
    max_episode_steps: int = 500,
) -> Env:
    """jumanji-rware: robots bring requested shelves to the goals; a collision terminates.

    Twice as many shelves are requested at a time as there are robots, the "easy" setting. An observation is jumanji's:
    the own row, column, load, direction [4], whether this is a highway, and what the sensors see of the cells around.

    Args:
      num_agents: A, at least 1.
      shelf_rows: clusters of shelves from top to bottom.
      shelf_columns: and from left to right, an odd number.
      column_height: cells of a cluster from top to bottom.
      sensor_range: how many cells the sensors reach.
      max_episode_steps: at least 1.

    Raises:
      ValueError: a number out of range.
    """
    from_jumanji = _import("robot_warehouse")

    def simulator() -> Any:
        warehouse = from_jumanji.generator.RandomGenerator(
            shelf_rows, shelf_columns, column_height, num_agents, sensor_range, request_queue_size=2 * num_agents
        )
        if warehouse.not_in_queue_size < 0:
            raise ValueError(
                f"jumanji-rware: {len(warehouse.shelf_ids)} shelves are too few to request {2 * num_agents} at a time "
                f"of num_agents={num_agents}; take fewer agents or a larger warehouse."
            )
        return from_jumanji.RobotWarehouse(warehouse, time_limit=NO_LIMIT)

    return _adapt("rware", simulator, lambda seen: seen.agents_view, num_agents, max_episode_steps)


def lbf(
    *,
    num_agents: int = 2,
    num_food: int = 2,
    grid_size: int = 8,
    fov: int | None = None,
    force_coop: bool = True,
    max_episode_steps: int = 100,
) -> Env:
    """jumanji-lbf: food can be loaded by agents beside it whose levels add up to its own; terminates when all is eaten.

    An observation is (row, column, level) of all food, of oneself and of the others, (-1, -1, 0) where out of sight.

    Args:
      num_agents: A, at least 1.
      num_food: pieces of food.
      grid_size: at least 5, and large enough for the food.
      fov: cells one sees to each side; None: all.
      force_coop: food needs all agents together.
      max_episode_steps: at least 1.

    Raises:
      ValueError: a number out of range.
    """
    from_jumanji = _import("lbf")

    def simulator() -> Any:
        field = from_jumanji.generator.RandomGenerator(
            grid_size, num_agents, num_food, fov=grid_size if fov is None else fov, force_coop=force_coop
        )
        return from_jumanji.LevelBasedForaging(field, time_limit=NO_LIMIT)

    return _adapt("lbf", simulator, lambda seen: seen.agents_view, num_agents, max_episode_steps)


def connector(*, num_agents: int = 10, grid_size: int = 10, max_episode_steps: int = 50) -> Env:
    """jumanji-connector: every agent draws a wire to its target and crosses none; terminates when nobody can go on.

    An observation is six grids of 0 and 1, row by row: the own wire, head and target, then all others' wires, heads and
    targets. Whose a foreign target is, is left out.

    Args:
      num_agents: A, at least 1.
      grid_size: cells per side.
      max_episode_steps: at least 1.

    Raises:
      ValueError: a number out of range.
    """
    from_jumanji = _import("connector")

    def simulator() -> Any:
        board = from_jumanji.generator.RandomWalkGenerator(grid_size, num_agents)
        return from_jumanji.Connector(board, time_limit=NO_LIMIT)

    return _adapt("connector", simulator, _wires(num_agents), num_agents, max_episode_steps)


def cleaner(*, num_agents: int = 3, grid_size: int = 10, max_episode_steps: int = 100) -> Env:
    """jumanji-cleaner: walk over every tile of a maze; terminates when all are clean.

    An observation is four grids, row by row: dirty tiles, walls, where oneself is, how many others are there.

    Args:
      num_agents: A, at least 1; all start in the upper left corner.
      grid_size: cells per side, at least 3.
      max_episode_steps: at least 1.

    Raises:
      ValueError: a number out of range.
    """
    from_jumanji = _import("cleaner")
    if grid_size < 3:
        raise ValueError(f"grid_size={grid_size} must be at least 3: a smaller maze has nothing to clean.")

    def simulator() -> Any:
        maze = from_jumanji.generator.RandomGenerator(grid_size, grid_size, num_agents)
        return from_jumanji.Cleaner(maze, time_limit=NO_LIMIT)

    return _adapt("cleaner", simulator, _tiles, num_agents, max_episode_steps)


def _wires(num_agents: int) -> Observe:
    """Connector's one grid as every agent sees it: cells are 0, or 3 id + 1 (wire), + 2 (head), + 3 (target)."""

    def observe(seen: Any) -> Array:
        grid = seen.grid.ravel()
        owner, kind = (grid - 1) // 3, (grid - 1) % 3
        kinds = (kind == jnp.arange(3)[:, None]) & (grid > 0)  # [3, cells]
        own = kinds & (owner == jnp.arange(num_agents)[:, None, None])  # [A, 3, cells]
        return jnp.concatenate([own, kinds & ~own], axis=1).reshape(num_agents, -1)

    return observe


def _tiles(seen: Any) -> Array:
    """Cleaner's one grid (0 dirty, 2 wall) and everyone's place as every agent sees them."""
    dirty, wall = seen.grid.ravel() == 0, seen.grid.ravel() == 2
    row, column = seen.agents_locations[:, 0], seen.agents_locations[:, 1]
    here = jax.nn.one_hot(row * seen.grid.shape[1] + column, seen.grid.size)  # [A, cells]
    common = jnp.broadcast_to(jnp.stack([dirty, wall]), (len(here), 2, seen.grid.size))
    return jnp.concatenate([common, jnp.stack([here, here.sum(axis=0) - here], axis=1)], axis=1).reshape(len(here), -1)


def _adapt(
    task: str, make_simulator: Callable[[], Any], observe: Observe, num_agents: int, max_episode_steps: int
) -> Env:
    """An Env of a jumanji environment whose clock is stopped."""
    if num_agents < 1 or max_episode_steps < 1:
        raise ValueError(f"num_agents={num_agents}, max_episode_steps={max_episode_steps}; both must be at least 1.")
    try:
        with _quiet():
            simulator = make_simulator()
    except AssertionError as error:
        raise ValueError(f"jumanji-{task}: {error}") from error
    num_actions = int(simulator.action_spec.num_values[0])

    def seen_by_all(timestep: Any) -> Array:
        seen, mask = observe(timestep.observation), timestep.observation.action_mask
        return jnp.concatenate([seen.astype(jnp.float32), mask.astype(jnp.float32)], axis=-1)

    def reset(key: Key) -> tuple[JumanjiState, Array]:
        with _quiet():
            inner, timestep = simulator.reset(key)
            return JumanjiState(inner, timestep.observation.action_mask, jnp.int32(0)), seen_by_all(timestep)

    def step(state: JumanjiState, action: Array) -> tuple[JumanjiState, TimeStep]:
        with _quiet():
            inner, timestep = simulator.step(state.inner, decode_onehot(action, state.mask))
            obs = seen_by_all(timestep)
        time = state.time + 1
        terminated = timestep.last()
        truncated = (time >= max_episode_steps) & ~terminated
        reward = jnp.broadcast_to(timestep.reward, (num_agents,)).astype(jnp.float32)
        return JumanjiState(inner, timestep.observation.action_mask, time), TimeStep(obs, reward, terminated, truncated)

    spec = Spec(
        name=f"jumanji-{task}",
        obs_dim=jax.eval_shape(reset, jax.random.key(0))[1].shape[-1],
        action_dim=num_actions,
        max_episode_steps=max_episode_steps,
        num_agents=num_agents,
        num_actions=num_actions,
        mask_dim=num_actions,
    )
    return Env(reset, step, spec)


def _import(package: str) -> Any:
    """A family of jumanji's, with its generators; imported here since that takes seconds."""
    import importlib

    with _quiet():
        family = importlib.import_module(f"jumanji.environments.routing.{package}")
        importlib.import_module(f"jumanji.environments.routing.{package}.generator")
    return family


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Jumanji needs rank promotion."""
    with jax.numpy_rank_promotion("allow"):
        yield
