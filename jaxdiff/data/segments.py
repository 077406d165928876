"""Stretches of an episode for planners, cut inside jit by index: no window is ever copied into memory beforehand."""

from typing import NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.dataset import Dataset, draw_rows
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key

PADDINGS = ("none", "repeat", "zeros")


class Segment(NamedTuple):
    """What a planner wants to be shown."""

    horizon: int  # H steps in a row
    longest: int  # no episode is longer: how far a return looks ahead
    padding: str = "none"  # one of PADDINGS
    discount_factor: float = 0.99  # of the return to go
    termination_penalty: float = 0.0  # added to the last reward of an episode that terminated, in the return only
    history: int = 0  # C steps before the first of the H, which come with it


@struct.dataclass
class Segments:
    """A batch of stretches of H steps, or of C + H with a history; see `sample_segments` for what pads them.

    With an axis of agents in the data, obs [B, H, A, O] and action [B, H, A, U].
    """

    obs: Array  # [B, H, O]
    action: Array  # [B, H, U]
    mask: Array  # [B, H] 1 for steps that were lived
    return_to_go: Array  # [B], or [B, A], discounted, from the first of the H steps to the end of its episode


def check_padding(name: str) -> None:
    """Raises KeyError unless the name is one of PADDINGS."""
    if name not in PADDINGS:
        raise unknown_name("padding", name, PADDINGS)


def sample_segments(key: Key, dataset: Dataset, batch_size: int, segment: Segment) -> Segments:
    """Draws stretches uniformly among all that the padding rule allows, with replacement.

    none: stretches that lie within their episode, as Diffuser in mazes. zeros: any that start before their episode's
    last step and no later than longest - H - 1, filled up with zeros, as Diffuser in locomotion. repeat: any that start
    before their episode's last step, filled up with that step's observation and action, as MADiff.

    A history is no part of the rule: where it reaches beyond the episode's start, the first step is repeated there, and
    the mask is 0. With `Dataset.draws` a start counts as often as its row stands there.

    return_to_go = sum_i discount_factor**i r_i over the rest of the episode, at most `longest` steps of it.

    Args:
      key: consumed.
      dataset: N transitions.
      batch_size: B, static, at least 1.
      segment: static.

    Raises:
      ValueError: a size below 1 or an unknown padding. That some stretch fits is for `check_segment` to say: where
        none does, this would never return.

    Reference: Janner et al. 2022, arXiv:2205.09991, code; Zhu et al. 2024 (MADiff), arXiv:2305.17330, code.
    """
    sizes = (batch_size, segment.horizon, segment.longest, segment.history + 1)
    if min(sizes) < 1 or segment.padding not in PADDINGS:
        raise ValueError(
            f"batch_size={batch_size}, {segment}; sizes must be at least 1, padding one of {PADDINGS}, "
            "history at least 0."
        )
    episode = jnp.asarray(dataset.episode)
    start, last = _draw_starts(key, dataset, batch_size, segment)
    wanted = start[:, None] + jnp.arange(-segment.history, segment.horizon)[None]
    index = jnp.minimum(wanted, last[:, None])
    lived = wanted <= last[:, None]
    if segment.history:
        first = jnp.searchsorted(episode, episode[start], side="left")
        index = jnp.maximum(index, first[:, None])
        lived &= wanted >= first[:, None]
    t = dataset.transitions

    def rows(x: Array) -> Array:
        found = jnp.asarray(x)[index]
        zero = (wanted > last[:, None]) & (segment.padding == "zeros")
        return jnp.where(zero.reshape(*zero.shape, *[1] * (found.ndim - 2)), 0.0, found)

    return Segments(
        obs=rows(t.obs),
        action=rows(t.action),
        mask=lived.astype(jnp.float32),
        return_to_go=_return_to_go(dataset, start, last, segment),
    )


def _draw_starts(key: Key, dataset: Dataset, batch_size: int, segment: Segment) -> tuple[Array, Array]:
    """Start and last step of the episode [B]: drawn over `draws`, and again where the rule forbids a start there."""
    episode = jnp.asarray(dataset.episode)

    def draw(key: Key) -> tuple[Array, Array, Array]:
        now = draw_rows(key, dataset, batch_size)
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
    if segment.padding == "repeat":
        return place < length - 1
    return (place < length - 1) & (place < max(segment.longest - segment.horizon, 1))


def _return_to_go(dataset: Dataset, start: Array, last: Array, segment: Segment) -> Array:
    ahead = start[:, None] + jnp.arange(segment.longest)[None]
    inside = ahead <= last[:, None]
    t = dataset.transitions
    reward = jnp.asarray(t.reward)[jnp.minimum(ahead, last[:, None])]  # [B, longest], or [B, longest, A]
    agents = [1] * (reward.ndim - 2)
    ended = jnp.expand_dims(1.0 - jnp.asarray(t.discount)[last], 1)
    final = (ahead == last[:, None]).reshape(*ahead.shape, *agents)
    penalty = jnp.where(final, segment.termination_penalty * ended, 0.0)
    reward = jnp.where(inside.reshape(*inside.shape, *agents), reward, 0.0)
    factors = segment.discount_factor ** np.arange(segment.longest, dtype=np.float32)
    return jnp.sum((reward + penalty) * factors.reshape(1, -1, *agents), axis=1)


def returns_to_go(dataset: Dataset, segment: Segment) -> Array:
    """[N] or [N, A] the return to go of every row, as `sample_segments` gives it, but to the episode's very end."""
    t, episode = dataset.transitions, jnp.asarray(dataset.episode)
    rewards = jnp.asarray(t.reward)
    ends = jnp.append(episode[1:] != episode[:-1], True)
    penalty = segment.termination_penalty * (1.0 - jnp.asarray(t.discount))
    rewards = rewards + jnp.where(ends.reshape(-1, *[1] * (rewards.ndim - 1)), penalty, 0.0)

    def back(after: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, end = row
        value = reward + segment.discount_factor * jnp.where(end, 0.0, after)
        return value, value

    return jax.lax.scan(back, jnp.zeros(rewards.shape[1:]), (rewards, ends), reverse=True)[1]


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
