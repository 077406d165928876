"""The three tasks: who takes part, what they see, what they earn.

| task | learners | also | landmarks |
|---|---|---|---|
| spread | 3, radius 0.15, force 5 | | 3 that do not collide, in [-1, 1] |
| tag | 3 predators, radius 0.075, force 9, speed 1 | a prey, radius 0.05, force 16, speed 1.3 | 2 of radius 0.2 |
| world | 3 predators, as in tag | a prey, radius 0.045, as in tag | an obstacle of radius 0.2; 2 food, 2 forests |

Landmarks of tag and world lie in [-0.9, 0.9]. Food (radius 0.03) and forests (0.3) do not collide. Forces are
those of OMAR's version of the simulator, which multiplies by the acceleration twice: 3 * 3 and 4 * 4.

Reference: Pan et al. 2022, OMAR, arXiv:2111.11188; Lowe et al. 2017, arXiv:1706.02275.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.mpe.world import Bodies, MPEState
from jaxdiff.types import Array, Key

NUM_LEARNERS = 3
PREY = NUM_LEARNERS  # index of the prey among the agents
PREY_ACCELERATION = 4.0
NO_ACCELERATION = 5.0  # force of agents that have no acceleration of their own
NEAREST = 0.1  # spread: a landmark pays 1 / distance, and no more than at this one
COLLISION_COST = 5.0  # spread: for each other agent that one touches
DISTANCE_COST = 0.1  # tag and world: for each predator and unit of distance to the prey
EDGE = 0.9  # of the arena: beyond it the prey pays
FOOD_REWARD, FOOD_DISTANCE_COST = 2.0, 0.05  # world, the prey: for each food it touches, per distance to the nearest


@dataclasses.dataclass(frozen=True)
class Task:
    """Constants of a task, in the words of the table above."""

    radius: float
    acceleration: float | None
    max_speed: float  # inf: none
    prey_radius: float | None
    prey_max_speed: float
    landmark_radius: tuple[float, ...]
    landmark_collides: tuple[bool, ...]
    landmark_range: float
    forests: tuple[int, ...]  # which of the landmarks are
    touch_reward: float
    obs_dim: int
    prey_obs_dim: int  # 0: no prey
    food: tuple[int, ...] = ()  # which of the landmarks are
    edge_cost: float = 0.0  # how dear it is for the prey to leave the arena

    @property
    def num_agents(self) -> int:
        return NUM_LEARNERS + (self.prey_radius is not None)


TASKS: dict[str, Task] = {
    "spread": Task(
        radius=0.15,
        acceleration=None,
        max_speed=float("inf"),
        prey_radius=None,
        prey_max_speed=0.0,
        landmark_radius=(0.05,) * 3,
        landmark_collides=(False,) * 3,
        landmark_range=1.0,
        forests=(),
        touch_reward=0.0,
        obs_dim=18,
        prey_obs_dim=0,
    ),
    "tag": Task(
        radius=0.075,
        acceleration=3.0,
        max_speed=1.0,
        prey_radius=0.05,
        prey_max_speed=1.3,
        landmark_radius=(0.2,) * 2,
        landmark_collides=(True,) * 2,
        landmark_range=0.9,
        forests=(),
        touch_reward=10.0,
        obs_dim=16,
        prey_obs_dim=14,
        edge_cost=1.0,
    ),
    "world": Task(
        radius=0.075,
        acceleration=3.0,
        max_speed=1.0,
        prey_radius=0.045,
        prey_max_speed=1.3,
        landmark_radius=(0.2, 0.03, 0.03, 0.3, 0.3),
        landmark_collides=(True, False, False, False, False),
        landmark_range=0.9,
        forests=(3, 4),
        touch_reward=5.0,
        obs_dim=24,
        prey_obs_dim=22,
        food=(1, 2),
        edge_cost=2.0,
    ),
}


def bodies_of(task: Task, *, power: int, speed_scale: float, sensitivity_scale: float) -> Bodies:
    """The task's discs, with what `mpe` lets one change; power: how often the acceleration is multiplied in."""

    def newtons(acceleration: float | None) -> float:
        return NO_ACCELERATION if acceleration is None else acceleration**power

    # Without a limit the speed is what the force makes it: up to 2 per axis in spread.
    scale = sensitivity_scale * (speed_scale if np.isinf(task.max_speed) else 1.0)
    radius, forces = [task.radius] * NUM_LEARNERS, [newtons(task.acceleration) * scale] * NUM_LEARNERS
    max_speed = [task.max_speed * speed_scale] * NUM_LEARNERS
    if task.prey_radius is not None:
        radius.append(task.prey_radius)
        forces.append(newtons(PREY_ACCELERATION))
        max_speed.append(task.prey_max_speed)
    return Bodies(
        radius=(*radius, *task.landmark_radius),
        collides=(True,) * task.num_agents + task.landmark_collides,
        force=tuple(forces),
        max_speed=tuple(max_speed),
    )


def reset_state(key: Key, task: Task) -> MPEState:
    """Everybody at rest: agents uniform in [-1, 1]**2, landmarks in their own square. Key consumed."""
    places = jax.random.uniform(key, (task.num_agents + len(task.landmark_radius), 2), minval=-1.0, maxval=1.0)
    position, landmarks = places[: task.num_agents], task.landmark_range * places[task.num_agents :]
    return MPEState(position, jnp.zeros_like(position), landmarks, jnp.int32(0))


def observe(task: Task, state: MPEState) -> Array:
    """What the learners see, [3, O].

    velocity 2, position 2, landmarks - position 2 K, other agents - position 2 (M - 1) in the order of agents, then
    spread: 4 zeros, for words that nobody says; tag: the prey's velocity 2; world: that, and for each forest 1 or -1,
    inside or not.
    """
    rows = np.arange(NUM_LEARNERS)
    seen = _around(state, rows)
    if task.prey_radius is None:
        return jnp.concatenate([seen, jnp.zeros((NUM_LEARNERS, 4), seen.dtype)], axis=1)
    prey_velocity = jnp.broadcast_to(state.velocity[PREY], (NUM_LEARNERS, 2))
    return jnp.concatenate([seen, prey_velocity, _in_forests(task, state, rows)], axis=1)


def observe_prey(task: Task, state: MPEState) -> Array:
    """What the prey sees, [14] or [22]: as the learners, without the prey's velocity."""
    rows = np.array([PREY])
    return jnp.concatenate([_around(state, rows), _in_forests(task, state, rows)], axis=1)[0]


def reward(task: Task, state: MPEState) -> Array:
    """What the learners earn in the state after a step, [3].

    spread: r_i = sum_landmarks min(1 / distance of the nearest agent, 10) - 5 (other agents that i overlaps)
    tag, world: r = -0.1 sum_predators distance to the prey + 10 (tag) or 5 (world) for each that overlaps it, the same
      for everyone
    """
    learners = state.position[:NUM_LEARNERS]
    if task.prey_radius is None:
        nearest = _distances(learners, state.landmarks).min(axis=0)
        paid = jnp.sum(1.0 / jnp.maximum(nearest, NEAREST))
        other = ~np.eye(NUM_LEARNERS, dtype=bool)
        touched = (_distances(learners, learners) < 2.0 * task.radius) & other
        return paid - COLLISION_COST * touched.sum(axis=1)
    distance = _distances(learners, state.position[PREY:])[:, 0]
    touching = distance < task.radius + task.prey_radius
    team = task.touch_reward * touching.sum() - DISTANCE_COST * distance.sum()
    return jnp.broadcast_to(team, (NUM_LEARNERS,))


def prey_reward(task: Task, state: MPEState) -> Array:
    """What the prey earns in the state after a step, []; as in the original tasks, where it learns too.

    r = -c (predators that overlap it) - w sum_axes edge(|p|),  c = 10 and w = 1 in tag, 5 and 2 in world,
    edge(x) = 0 below 0.9, 10 (x - 0.9) below 1, then min(exp(2 x - 2), 10);
    world: + 2 for each food that it overlaps - 0.05 the distance to the nearest

    Reference: Lowe et al. 2017, arXiv:1706.02275, the tasks of its code.
    """
    assert task.prey_radius is not None
    here = state.position[PREY:]
    touching = _distances(state.position[:NUM_LEARNERS], here)[:, 0] < task.radius + task.prey_radius
    x = jnp.abs(here[0])
    beyond = jnp.minimum(jnp.exp(2.0 * x - 2.0), 10.0)
    edge = jnp.where(x < 1.0, 10.0 * jnp.maximum(x - EDGE, 0.0), beyond)
    earned = -task.touch_reward * touching.sum() - task.edge_cost * edge.sum()
    if not task.food:
        return earned
    distance = _distances(here, state.landmarks[np.array(task.food)])[0]
    reach = task.prey_radius + np.array([task.landmark_radius[k] for k in task.food])
    eaten = (distance < jnp.asarray(reach, distance.dtype)).sum()
    return earned + FOOD_REWARD * eaten - FOOD_DISTANCE_COST * distance.min()


def _around(state: MPEState, rows: np.ndarray) -> Array:
    """Velocity, position, and where landmarks and the other agents are from there, [R, 4 + 2 K + 2 (M - 1)]."""
    num_agents = state.position.shape[0]
    others = np.array([[j for j in range(num_agents) if j != i] for i in rows])
    position = state.position[rows]
    to_landmarks = state.landmarks[None] - position[:, None]
    to_others = state.position[others] - position[:, None]
    away = [to_landmarks.reshape(len(rows), -1), to_others.reshape(len(rows), -1)]
    return jnp.concatenate([state.velocity[rows], position, *away], axis=1)


def _in_forests(task: Task, state: MPEState, rows: np.ndarray) -> Array:
    """[R, forests] 1 where the agent overlaps the forest, else -1."""
    radius = np.array([task.prey_radius if i == PREY else task.radius for i in rows])
    reach = radius[:, None] + np.array([task.landmark_radius[k] for k in task.forests])[None, :]
    position = state.position[rows]
    inside = _distances(position, state.landmarks[np.array(task.forests, int)]) < jnp.asarray(reach, position.dtype)
    return jnp.where(inside, 1.0, -1.0).astype(position.dtype)


def _distances(a: Array, b: Array) -> Array:
    """[n, 2], [m, 2] -> [n, m]."""
    return jnp.sqrt(jnp.sum((a[:, None] - b[None]) ** 2, axis=-1))
