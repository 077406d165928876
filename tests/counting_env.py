"""An environment whose every number can be told on paper: it counts, and ends by its task or by its clock."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.types import Env, Spec, TimeStep

SPEC = Spec("count", obs_dim=3, action_dim=3, max_episode_steps=4)


@struct.dataclass
class Count:
    time: Any
    start: Any


def counting() -> Env:
    """Observes (start, steps so far, sum of the last action); ends after 4 steps, by its clock where start > 0.5."""

    def observe(state: Count, action: Any) -> Any:
        return jnp.stack([state.start, state.time.astype(jnp.float32), jnp.sum(action)])

    def reset(key: Any) -> Any:
        state = Count(jnp.zeros((), jnp.int32), jax.random.uniform(key))
        return state, observe(state, jnp.zeros(3))

    def step(state: Count, action: Any) -> Any:
        state = Count(state.time + 1, state.start)
        ended = state.time >= 4
        reward = state.start + state.time
        return state, TimeStep(
            observe(state, action), reward, ended & (state.start <= 0.5), ended & (state.start > 0.5)
        )

    return Env(reset, step, SPEC)
