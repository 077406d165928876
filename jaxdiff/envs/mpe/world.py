"""Discs pushed about in a plane: one 0.1 s step of the multi-agent particle environments.

Every body is a disc of mass 1. Those that move (agents) come first, those that do not (landmarks) after them; there are
no walls. Where bodies collide they repel each other by a force that grows with the overlap, so they sink in a little.

Reference: Lowe et al. 2017, arXiv:1706.02275, whose simulator this is in closed form; constants of its core.
"""

import dataclasses

from flax import struct
import jax.numpy as jnp
import numpy as np

from jaxdiff.types import Array

DT = 0.1  # seconds per step
DAMPING = 0.25  # share of the velocity that a step takes away
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3  # over which the force sets in, as a softplus does


@struct.dataclass
class MPEState:
    """Where everybody is, and the clock. The prey, where there is one, is the last of the M agents."""

    position: Array  # [M, 2]
    velocity: Array  # [M, 2]
    landmarks: Array  # [K, 2], at rest
    time: Array  # [] int32, steps since reset


@dataclasses.dataclass(frozen=True)
class Bodies:
    """What does not change: M agents, then K landmarks."""

    radius: tuple[float, ...]  # [M + K]
    collides: tuple[bool, ...]  # [M + K]
    force: tuple[float, ...]  # [M] at action 1
    max_speed: tuple[float, ...]  # [M], inf where there is none

    def __post_init__(self) -> None:
        if len(self.radius) != len(self.collides) or len(self.force) != len(self.max_speed):
            raise ValueError(f"{self}: one radius and one collides for each body, one force and speed for each agent.")


def physics_step(
    position: Array, velocity: Array, landmarks: Array, action: Array, bodies: Bodies
) -> tuple[Array, Array]:
    """One step of all agents; unbatched, any float dtype.

    v' = 0.75 v + 0.1 (force a + contact),  v' = v' max_speed / |v'| where |v'| > max_speed,  x' = x + 0.1 v'

    Args:
      position: [M, 2].
      velocity: [M, 2].
      landmarks: [K, 2].
      action: [M, 2], clipped to [-1, 1].
      bodies: radii, forces and limits.

    Returns:
      (position [M, 2], velocity [M, 2]) after the step.
    """
    push = jnp.asarray(np.array(bodies.force)[:, None], action.dtype) * jnp.clip(action, -1.0, 1.0)
    push = push + contact(position, landmarks, bodies)
    velocity = (1.0 - DAMPING) * velocity + DT * push
    speed = jnp.sqrt(jnp.sum(velocity**2, axis=-1, keepdims=True))
    limit = jnp.asarray(np.array(bodies.max_speed)[:, None], velocity.dtype)
    velocity = jnp.where(speed > limit, velocity * (limit / jnp.where(speed > limit, speed, 1.0)), velocity)
    return position + DT * velocity, velocity


def contact(position: Array, landmarks: Array, bodies: Bodies) -> Array:
    """Forces [M, 2] of collisions on the agents.

    f_a = sum_b 100 (x_a - x_b) / d * m log(1 + exp((r_a + r_b - d) / m)),  d = |x_a - x_b|,  m = 0.001

    over the other bodies b that collide, if a does. Two bodies in one point do not push each other.
    """
    num_agents = len(bodies.force)
    radius, collides = np.array(bodies.radius), np.array(bodies.collides)
    pairs = collides[:num_agents, None] & collides[None, :] & ~np.eye(num_agents, len(radius), dtype=bool)
    touching = radius[:num_agents, None] + radius[None, :]
    # Bodies that no agent can touch are left out of the arithmetic.
    seen = np.flatnonzero(pairs.any(axis=0))
    others = jnp.concatenate([position, landmarks])[seen]
    apart = position[:, None] - others[None]  # [M, S, 2]
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1))
    overlap = jnp.asarray(touching[:, seen], distance.dtype) - distance
    depth = CONTACT_MARGIN * jnp.logaddexp(0.0, overlap / CONTACT_MARGIN)
    acts = pairs[:, seen] & (distance > 0.0)
    strength = jnp.where(acts, CONTACT_FORCE * depth / jnp.where(distance > 0.0, distance, 1.0), 0.0)
    return jnp.sum(strength[..., None] * apart, axis=1)
