"""Two agents on either side of a bridge that carries one, each with its goal on the other side.

    1.##..     0, 1 starts are (1, 2) and (1, 3), in the middle row; G0 = (2, 5), G1 = (0, 0)
    ..01..
    ..##.0

Rows and columns count from the upper left; # is a wall. One must give way, and there are two orders to cross in.
"""

from collections.abc import Sequence

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.discrete import decode_onehot
from jaxdiff.types import Array, Env, Key, Spec, TimeStep

LAYOUT = ("..##..", "......", "..##..")
STARTS = ((1, 2), (1, 3))
GOALS = ((2, 5), (0, 0))
MOVES = ((0, 0), (-1, 0), (1, 0), (0, 1), (0, -1))  # stay, up, down, right, left
MAX_EPISODE_STEPS = 50
# The return of uniform actions and the best, both exact by dynamic programming (tests/envs/test_bridge.py).
REFERENCE_SCORES = (-17.5586, -1.2355)


@struct.dataclass
class BridgeState:
    """Where the agents are, and the clock. An agent on its goal is done."""

    position: Array  # [2, 2] int32, (row, column) of each agent
    time: Array  # [] int32


def bridge(*, max_episode_steps: int = MAX_EPISODE_STEPS) -> Env:
    """game-bridge: cross, both, as soon as you can.

    reward = -0.1 mean over agents of the distance to the own goal after the move; 0 on the last step

    Terminates when both are at their goals; see `move` for the rules. The best return is -1.2355, after 8 moves.

    Args:
      max_episode_steps: at least 1; the clock truncates.

    Returns:
      Env with obs [2, 8], for both agents (row, column) of agent 0, its goal, agent 1 and its goal, and action [2, 5]
      of scores for MOVES. Nothing is masked: a move that cannot be made is a stay.

    Raises:
      ValueError: max_episode_steps < 1.
    """
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1; {MAX_EPISODE_STEPS} is usual.")
    spec = Spec(
        "game-bridge",
        obs_dim=8,
        action_dim=len(MOVES),
        max_episode_steps=max_episode_steps,
        num_agents=2,
        reference_scores=REFERENCE_SCORES if max_episode_steps == MAX_EPISODE_STEPS else None,
        num_actions=len(MOVES),
    )

    def reset(key: Key) -> tuple[BridgeState, Array]:
        del key
        state = BridgeState(jnp.array(STARTS, jnp.int32), jnp.int32(0))
        return state, _observe(state)

    def step(state: BridgeState, action: Array) -> tuple[BridgeState, TimeStep]:
        state = BridgeState(move(state.position, decode_onehot(action)), state.time + 1)
        distance = jnp.linalg.norm((state.position - jnp.array(GOALS)).astype(jnp.float32), axis=-1)
        terminated = (distance == 0).all()
        truncated = (state.time >= max_episode_steps) & ~terminated
        reward = jnp.where(terminated | truncated, 0.0, -0.1 * distance.mean())
        return state, TimeStep(_observe(state), jnp.full(2, reward), terminated, truncated)

    facts = {"layout": list(LAYOUT), "starts": STARTS, "goals": GOALS}
    return Env(reset, step, spec, facts)


def move(position: Array, action: Array) -> Array:
    """Where the two agents are after a joint move.

    A move off the grid or into a wall is a stay, and so is every move of an agent that is done. Then, agent 0 first:
      both want each other's cell    both stay, unless agent 0 would be at its goal: then both move
      both want the same cell        agent 0 moves, agent 1 stays
      a cell whose owner stays       the mover stays, unless the cell is its goal or its owner is done
      a cell whose owner leaves      the mover follows

    Args:
      position: [2, 2] int32, (row, column).
      action: [2] int32, rows of MOVES.

    Returns:
      [2, 2] int32.
    """
    goals = jnp.array(GOALS)
    done = (position == goals).all(axis=-1)
    wanted = position + jnp.array(MOVES)[action]
    legal = _is_free(wanted) & ~done
    target = jnp.where(legal[:, None], wanted, position)
    moving = (target != position).any(axis=-1)
    at_goal = (target == goals).all(axis=-1)
    same = (target[0] == target[1]).all()
    into = jnp.stack([(target[0] == position[1]).all(), (target[1] == position[0]).all()]) & ~done[::-1]
    swap = moving.all() & into.all()
    stopped = into & ~moving[::-1] & ~at_goal  # the other's cell, and the other does not leave it
    stays_0 = jnp.where(swap, ~at_goal[0], stopped[0])
    stays_1 = jnp.where(swap, ~at_goal[0], stopped[1] | (same & moving.all()))
    return jnp.where(jnp.stack([stays_0, stays_1])[:, None], position, target)


def transitions() -> tuple[np.ndarray, np.ndarray, int]:
    """The whole game as a graph, for searches: state = 18 cell_0 + cell_1 with cell = 6 row + column.

    Returns:
      (next state [324, 25] by joint action 5 a_0 + a_1, how many agents are on their way [324], the start).
    """
    width = len(LAYOUT[0])
    cells = np.stack(np.divmod(np.arange(len(LAYOUT) * width), width), axis=-1)
    first, second = np.divmod(np.arange(len(cells) ** 2), len(cells))
    position = np.stack([cells[first], cells[second]], axis=1).astype(np.int32)
    action = np.stack(np.divmod(np.arange(len(MOVES) ** 2), len(MOVES)), axis=-1).astype(np.int32)
    every = jax.jit(jax.vmap(jax.vmap(move, (None, 0)), (0, None)))(position, action)
    following = _number(np.asarray(every))
    waiting = (position != np.array(GOALS)).any(axis=-1).sum(axis=-1)
    return following, waiting, int(_number(STARTS))


def _number(position: np.ndarray | Sequence[Sequence[int]]) -> np.ndarray:
    """[*B, 2, 2] -> [*B], see `transitions`."""
    cell = np.asarray(position) @ np.array([len(LAYOUT[0]), 1])
    return cell @ np.array([len(LAYOUT) * len(LAYOUT[0]), 1])


def _is_free(cell: Array) -> Array:
    """Whether cells [2, 2] are on the grid and no walls: [2] bool."""
    free = np.pad(np.array([[mark == "." for mark in row] for row in LAYOUT]), 1)
    return jnp.asarray(free)[cell[:, 0] + 1, cell[:, 1] + 1]


def _observe(state: BridgeState) -> Array:
    seen = jnp.stack([state.position, jnp.array(GOALS, jnp.int32)], axis=1).astype(jnp.float32)
    return jnp.tile(seen.reshape(1, 8), (2, 1))
