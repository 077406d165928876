"""Stretches of an episode for planners, cut inside jit by index: no window is ever copied into memory beforehand."""

from typing import NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.dataset import Dataset
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key

PADDINGS = ("none", "zeros")


class Segment(NamedTuple):
    """What a planner wants to be shown."""

    horizon: int  # H steps in a row
    longest: int  # no episode is longer: how far a return looks ahead
    padding: str = "none"  # one of PADDINGS
    discount_factor: float = 0.99  # of the return to go
    termination_penalty: float = 0.0  # added to the last reward of an episode that terminated, in the return only


@struct.dataclass
class Segments:
    """A batch of stretches; beyond its episode's end a padded one holds zeros in the units of the data."""

    obs: Array  # [B, H, O]
    action: Array  # [B, H, U]
    mask: Array  # [B, H] 1 for steps that were lived
    return_to_go: Array  # [B] discounted, from the first step to the end of its episode in the data


def check_padding(name: str) -> None:
    """Raises KeyError unless the name is one of PADDINGS."""
    if name not in PADDINGS:
        raise unknown_name("padding", name, PADDINGS)


def sample_segments(key: Key, dataset: Dataset, batch_size: int, segment: Segment) -> Segments:
    """Draws stretches uniformly among all that the padding rule allows, with replacement.

    none: stretches that lie within their episode, as Diffuser in mazes. zeros: any that start before their episode's
    last step and no later than longest - H - 1, filled up with zeros, as Diffuser in locomotion.

    return_to_go = sum_i discount_factor**i r_i over the rest of the episode, at most `longest` steps of it.

    Args:
      key: consumed.
      dataset: N transitions, one agent's.
      batch_size: B, static, at least 1.
      segment: static.

    Raises:
      ValueError: a size below 1 or an unknown padding. That some stretch fits is for `check_segment` to say: where
        none does, this would never return.

    Reference: Janner et al. 2022, arXiv:2205.09991, code.
    """
    if batch_size < 1 or segment.horizon < 1 or segment.longest < 1 or segment.padding not in PADDINGS:
        raise ValueError(f"batch_size={batch_size}, {segment}; sizes must be at least 1, padding one of {PADDINGS}.")
    episode = jnp.asarray(dataset.episode)
    start, last = _draw_starts(key, episode, batch_size, segment)
    steps = jnp.arange(segment.horizon)[None]
    index = jnp.minimum(start[:, None] + steps, last[:, None])
    lived = (start[:, None] + steps <= last[:, None]).astype(jnp.float32)
    t = dataset.transitions
    return Segments(
        obs=jnp.asarray(t.obs)[index] * lived[..., None],
        action=jnp.asarray(t.action)[index] * lived[..., None],
        mask=lived,
        return_to_go=_return_to_go(dataset, start, last, segment),
    )


def _draw_starts(key: Key, episode: Array, batch_size: int, segment: Segment) -> tuple[Array, Array]:
    """Start and last step of the episode [B]: drawn over all rows, and again where the rule forbids a start there."""

    def draw(key: Key) -> tuple[Array, Array, Array]:
        now = jax.random.randint(key, (batch_size,), 0, episode.shape[0])
        first = jnp.searchsorted(episode, episode[now], side="left")
        last = jnp.searchsorted(episode, episode[now], side="right") - 1
        return now, last, _allowed(now - first, last - first + 1, segment)

    def again(carry: tuple[Key, Array, Array, Array]) -> tuple[Key, Array, Array, Array]:
        key, start, last, found = carry
        key, key_draw = jax.random.split(key)
        new_start, new_last, allowed = draw(key_draw)
        return key, jnp.where(found, start, new_start), jnp.where(found, last, new_last), found | allowed

    nothing = jnp.zeros(batch_size, jnp.int32)
    carry = (key, nothing, nothing, jnp.zeros(batch_size, bool))
    _, start, last, _ = jax.lax.while_loop(lambda carry: ~carry[3].all(), again, carry)
    return start, last


def _allowed(place: Array, length: Array, segment: Segment) -> Array:
    """Whether a stretch may start `place` steps into an episode of `length` steps."""
    if segment.padding == "none":
        return place + segment.horizon <= length
    return (place < length - 1) & (place < max(segment.longest - segment.horizon, 1))


def _return_to_go(dataset: Dataset, start: Array, last: Array, segment: Segment) -> Array:
    ahead = start[:, None] + jnp.arange(segment.longest)[None]
    inside = ahead <= last[:, None]
    reward = jnp.where(inside, jnp.asarray(dataset.transitions.reward)[jnp.minimum(ahead, last[:, None])], 0.0)
    ended = 1.0 - jnp.asarray(dataset.transitions.discount)[last]
    penalty = jnp.where(ahead == last[:, None], segment.termination_penalty * ended[:, None], 0.0)
    factors = segment.discount_factor ** np.arange(segment.longest, dtype=np.float32)
    return jnp.sum((reward + penalty) * factors[None], axis=1)


def returns_to_go(dataset: Dataset, segment: Segment) -> Array:
    """[N] the return to go of every row, as `sample_segments` gives it, but to the episode's very end."""
    t, episode = dataset.transitions, jnp.asarray(dataset.episode)
    ends = jnp.append(episode[1:] != episode[:-1], True)
    reward = jnp.asarray(t.reward) + jnp.where(ends, segment.termination_penalty * (1.0 - jnp.asarray(t.discount)), 0.0)

    def back(after: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, end = row
        value = reward + segment.discount_factor * jnp.where(end, 0.0, after)
        return value, value

    return jax.lax.scan(back, jnp.zeros(()), (reward, ends), reverse=True)[1]


def check_segment(dataset: Dataset, segment: Segment) -> None:
    """Refuses data in which no stretch fits, before anything is traced.

    Raises:
      ValueError: every episode is shorter than the horizon (padding "none"), or than 2 steps ("zeros").
    """
    lengths = np.unique(np.asarray(dataset.episode), return_counts=True)[1]
    longest = int(lengths.max()) if len(lengths) else 0
    if segment.padding == "none" and longest < segment.horizon:
        raise ValueError(
            f"horizon={segment.horizon} and the longest episode in the data has {longest} steps; choose at "
            f"most {longest}, or padding='zeros' to fill the rest with zeros."
        )
    if longest < 2:
        raise ValueError(f"the longest episode in the data has {longest} steps; a planner needs at least 2.")
