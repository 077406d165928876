"""Behaviours that nobody trained: a ladder from random actions to near the optimum, to make data with.

| behaviour | task | what it does |
|---|---|---|
| assignment | spread | shares the landmarks out once, at the start, so that the distances add up to the least |
| fixed | spread | agent i goes to landmark i |
| nearest | spread | each goes to the landmark that is nearest now, whatever the others do |
| lead_chase | tag, world | runs to where the prey will be in 0.2 s |
| chase | tag, world | runs to where the prey is |

Behaviours see the whole state. `with_noise` replaces a share of their actions by uniform ones.
"""

from collections.abc import Callable
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from jaxdiff.envs.mpe.tasks import NUM_LEARNERS, PREY
from jaxdiff.envs.mpe.world import MPEState
from jaxdiff.types import Array, Key, PyTree

SPREAD_GAIN, SPREAD_DAMPING = 10.0, 2.0  # action per unit of distance, and of speed
CHASE_GAIN = 5.0
LEAD = 0.2  # seconds
ORDERS = np.array(list(itertools.permutations(range(NUM_LEARNERS))), np.int32)  # [6, 3] landmark of each agent


class Behaviour(NamedTuple):
    """A joint policy of the learners as two pure functions; unbatched.

    init(env_state) -> memory, at an episode's start
    act(key, memory, env_state) -> (action [3, 2] in [-1, 1], memory)
    """

    init: Callable[[MPEState], PyTree]
    act: Callable[[Key, PyTree, MPEState], tuple[Array, PyTree]]


def least_assignment(position: Array, landmarks: Array) -> Array:
    """Which landmark [3] int32 each agent goes to: of the 6 ways, the one whose distances add up to the least.

    Args:
      position: [3, 2].
      landmarks: [3, 2].
    """
    distance = jnp.sqrt(jnp.sum((position[:, None] - landmarks[None]) ** 2, axis=-1))
    total = distance[jnp.arange(NUM_LEARNERS, dtype=jnp.int32), ORDERS].sum(axis=1)  # [6]
    return jnp.asarray(ORDERS)[jnp.argmin(total)]


def with_noise(behaviour: Behaviour, epsilon: ArrayLike) -> Behaviour:
    """The behaviour, each agent's action replaced by a uniform one with chance epsilon at each step.

    Args:
      behaviour: see there.
      epsilon: in [0, 1], a scalar that may be traced.
    """

    def act(key: Key, memory: PyTree, state: MPEState) -> tuple[Array, PyTree]:
        key_own, key_noise = jax.random.split(key)
        action, memory = behaviour.act(key_own, memory, state)
        drawn = jax.random.uniform(key_noise, (NUM_LEARNERS, 3), action.dtype)  # at once, since compiling it is slow
        return jnp.where(drawn[:, :1] < epsilon, 2.0 * drawn[:, 1:] - 1.0, action), memory

    return behaviour._replace(act=act)


def _go(state: MPEState, goal: Array) -> Array:
    """u = clip(10 (landmark - p) - 2 v, -1, 1), each towards its goal [3]; [3, 2]."""
    towards = state.landmarks[goal] - state.position
    return jnp.clip(SPREAD_GAIN * towards - SPREAD_DAMPING * state.velocity, -1.0, 1.0)


def _keep(key: Key, goal: Array, state: MPEState) -> tuple[Array, Array]:
    del key
    return _go(state, goal), goal


def _nearest(state: MPEState) -> Array:
    """Landmark [3] int32 that is nearest to each."""
    square = jnp.sum((state.position[:, None] - state.landmarks[None]) ** 2, axis=-1)
    return jnp.argmin(square, axis=1).astype(jnp.int32)


def _go_to_nearest(key: Key, goal: Array, state: MPEState) -> tuple[Array, Array]:
    del key, goal
    goal = _nearest(state)
    return _go(state, goal), goal


def _chase(lead: float) -> Behaviour:
    """u = clip(5 (p_prey + lead v_prey - p), -1, 1)."""

    def act(key: Key, memory: PyTree, state: MPEState) -> tuple[Array, PyTree]:
        del key
        aim = state.position[PREY] + lead * state.velocity[PREY]
        return jnp.clip(CHASE_GAIN * (aim[None] - state.position[:NUM_LEARNERS]), -1.0, 1.0), memory

    return Behaviour(lambda state: (), act)


BEHAVIOURS: dict[str, Behaviour] = {
    "assignment": Behaviour(lambda state: least_assignment(state.position, state.landmarks), _keep),
    "fixed": Behaviour(lambda state: jnp.arange(NUM_LEARNERS, dtype=jnp.int32), _keep),
    "nearest": Behaviour(_nearest, _go_to_nearest),
    "lead_chase": _chase(LEAD),
    "chase": _chase(0.0),
}
BEHAVIOURS_OF: dict[str, tuple[str, ...]] = {  # by task, the best first
    "spread": ("assignment", "fixed", "nearest"),
    "tag": ("lead_chase", "chase"),
    "world": ("lead_chase", "chase"),
}
