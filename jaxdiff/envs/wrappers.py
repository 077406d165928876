"""Env -> Env."""

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.types import Array, Env, Key, PyTree, TimeStep


@struct.dataclass
class AutoResetState:
    """A running environment, the key of its next reset, and what the last step really led to."""

    env_state: PyTree
    key: Key  # [] typed
    next_obs: Array  # [O], the observation the last step produced, before any reset: what a target bootstraps from


def auto_reset(env: Env) -> Env:
    """The environment that starts its next episode by itself.

    When a step ends the episode (terminated or truncated), the state is replaced by that of a fresh reset and the
    returned `obs` is the fresh one, the one to act on next. Reward and both flags are those of the step that ended.
    The episode's last observation is not lost: after every step `state.next_obs` is the obs that step produced, equal
    to the returned obs except where the episode ended. A transition is therefore
    (obs, action, reward, discount = 1 - terminated, next_obs = state.next_obs).

    A reset is computed at every step and selected where needed, as lanes under vmap must; it draws a new key each time.

    Args:
      env: any Env; its reset and step must return states of one structure.

    Returns:
      Env with the same spec and facts whose state is an AutoResetState.
    """

    def reset(key: Key) -> tuple[AutoResetState, Array]:
        key_now, key_later = jax.random.split(key)
        env_state, obs = env.reset(key_now)
        return AutoResetState(env_state=env_state, key=key_later, next_obs=obs), obs

    def step(state: AutoResetState, action: Array) -> tuple[AutoResetState, TimeStep]:
        key_now, key_later = jax.random.split(state.key)
        stepped = env.step(state.env_state, action)
        fresh = env.reset(key_now)
        ended = stepped[1].terminated | stepped[1].truncated
        env_state, obs = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, (stepped[0], stepped[1].obs))
        return AutoResetState(env_state=env_state, key=key_later, next_obs=stepped[1].obs), stepped[1]._replace(obs=obs)

    inner = env.bind
    bind = None if inner is None else lambda hparams: auto_reset(inner(hparams))
    return env._replace(reset=reset, step=step, bind=bind)
