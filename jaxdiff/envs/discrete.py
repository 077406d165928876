"""Discrete actions as numbers in [-1, 1], which is all that a diffusion policy makes.

    scores   n numbers; the task takes the largest among the allowed actions: the convention of `Spec.num_actions`
    bits     ceil(log2 n) numbers whose signs spell the action in binary, the highest bit first: `bits(env)`

Encoded actions are -1 and 1 in both, so data and samples have one range. Bits are fewer numbers, but two actions that
differ in one bit are neighbours whatever they do, and codes from n on mean no action at all.
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.types import Array, Env, Key, PyTree, TimeStep


def encode_onehot(index: Array | np.ndarray, num_actions: int) -> Array:
    """Scores [*B, n] float32 of actions [*B] in 0 .. n - 1: 1 at the action, -1 elsewhere."""
    return 2.0 * jax.nn.one_hot(index, num_actions, dtype=jnp.float32) - 1.0


def allowed(mask: Array) -> Array:
    """Where a mask [*B, n] is positive; where it is so nowhere, everywhere."""
    positive = mask > 0
    return positive | ~positive.any(axis=-1, keepdims=True)


def decode_onehot(scores: Array, mask: Array | None = None) -> Array:
    """The allowed action with the largest score, the lowest of equal ones.

    Args:
      scores: [*B, n].
      mask: [*B, n], allowed where positive; None: all are. Where nothing is allowed, everything is.

    Returns:
      [*B] int32.
    """
    if mask is not None:
        scores = jnp.where(allowed(mask), scores, -jnp.inf)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)


def num_bits(num_actions: int) -> int:
    """k = ceil(log2 n).

    Raises:
      ValueError: n < 2, which leaves nothing to choose.
    """
    if num_actions < 2:
        raise ValueError(f"num_actions={num_actions} leaves nothing to choose; bits need at least 2 actions.")
    return (num_actions - 1).bit_length()


def encode_bits(index: Array | np.ndarray, num_actions: int) -> Array:
    """Bits [*B, k] float32 of actions [*B] in 0 .. n - 1, the highest first: 1 for a set bit, -1 for another."""
    return jnp.asarray(_codes(num_actions))[jnp.asarray(index)]


def decode_bits(bits: Array, num_actions: int, mask: Array | None = None) -> Array:
    """The allowed action whose code differs in the fewest signs, the lowest of equally near ones.

    Args:
      bits: [*B, k]; a positive number is a set bit.
      num_actions: n.
      mask: [*B, n], allowed where positive; None: all are. Where nothing is allowed, everything is.

    Returns:
      [*B] int32 in 0 .. n - 1.
    """
    signs = jnp.where(bits > 0, 1.0, -1.0)
    # k - 2 (differing signs): an argmax takes the first, hence the lowest, of equal ones.
    agreement = jnp.einsum("...k,nk->...n", signs, jnp.asarray(_codes(num_actions)))
    return decode_onehot(agreement, mask)


@struct.dataclass
class BitsState:
    """The task's state, and which actions it allows now: a step needs it, and obs is not at hand then."""

    env_state: PyTree
    mask: Array  # [*A, n]


def bits(env: Env) -> Env:
    """The same task with actions of k = ceil(log2 n) numbers whose signs are the bits of the action's index.

    A code that is out of range or not allowed becomes the nearest allowed action (`decode_bits`).

    Args:
      env: a discrete task, with agents or without.

    Returns:
      Env named NAME-bits, with action_dim k and num_actions None, since actions are no scores any more; obs, its mask
      and the scores to compare with are the task's own.

    Raises:
      ValueError: the task is not discrete.
    """
    spec, count = env.spec, env.spec.num_actions
    if count is None:
        raise ValueError(f"{spec.name}: its actions are continuous; bits spell those of a discrete task.")

    def mask_of(obs: Array) -> Array:
        return obs[..., -count:] if spec.mask_dim else jnp.ones((*obs.shape[:-1], count), obs.dtype)

    def reset(key: Key) -> tuple[BitsState, Array]:
        env_state, obs = env.reset(key)
        return BitsState(env_state, mask_of(obs)), obs

    def step(state: BitsState, action: Array) -> tuple[BitsState, TimeStep]:
        index = decode_bits(action, count, state.mask)
        env_state, timestep = env.step(state.env_state, encode_onehot(index, count))
        return BitsState(env_state, mask_of(timestep.obs)), timestep

    renamed = dataclasses.replace(spec, name=f"{spec.name}-bits", action_dim=num_bits(count), num_actions=None)
    inner = env.bind
    bind = None if inner is None else lambda hparams: bits(inner(hparams))
    return env._replace(reset=reset, step=step, spec=renamed, bind=bind)


def _codes(num_actions: int) -> np.ndarray:
    """[n, k] float32, -1 and 1."""
    shifts = np.arange(num_bits(num_actions))[::-1]
    return (2.0 * (np.arange(num_actions)[:, None] >> shifts & 1) - 1.0).astype(np.float32)
