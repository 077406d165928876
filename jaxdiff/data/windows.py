"""Windows of a dataset, drawn inside jit by index: a history of observations and a chunk of actions around a step."""

from typing import NamedTuple

from flax import struct
import jax.numpy as jnp

from jaxdiff.data.dataset import Dataset, draw_rows
from jaxdiff.types import Array, Key


class Window(NamedTuple):
    """What an algorithm wants to be shown, in numbers of steps."""

    history: int = 1  # h observations, `chunk` steps apart as they will be when acting, the newest last
    chunk: int = 1  # C actions


@struct.dataclass
class Windows:
    """A batch of windows; one that runs over its episode's end repeats the last action there.

    With an axis of agents in the data, obs [B, h, A, O] and action [B, C, A, U], and reward [B, C, A] and discount
    [B, A] where each has its own.
    """

    obs: Array  # [B, h, O] newest last; before the episode's start its first observation
    action: Array  # [B, C, U]
    reward: Array  # [B, C] 0 after the episode's end
    length: Array  # [B] int32 steps lived inside the window, 1 .. C
    discount: Array  # [B] of the last step lived
    next_obs: Array  # [B, h, O] newest last, after the last step lived


def sample_windows(key: Key, dataset: Dataset, batch_size: int, window: Window) -> Windows:
    """Draws windows whose first action is uniform over the dataset's `draws`, with replacement.

    Args:
      key: consumed.
      dataset: N transitions.
      batch_size: B, static, at least 1.
      window: h and C, static, each at least 1.

    Raises:
      ValueError: a size below 1, or no transition to draw from.
    """
    if batch_size < 1 or window.history < 1 or window.chunk < 1:
        raise ValueError(f"batch_size={batch_size}, {window}; each must be at least 1.")
    if dataset.num_transitions < 1:
        raise ValueError("the dataset holds 0 transitions, nothing can be drawn; load a file with at least 2 rows.")
    now = draw_rows(key, dataset, batch_size)
    episode = jnp.asarray(dataset.episode)
    first = jnp.searchsorted(episode, episode[now], side="left")
    last = jnp.searchsorted(episode, episode[now], side="right") - 1
    steps = jnp.arange(window.chunk)
    ahead = jnp.minimum(now[:, None] + steps[None], last[:, None])  # [B, C]
    lived = now[:, None] + steps[None] <= last[:, None]
    back = window.chunk * jnp.arange(window.history - 1, -1, -1)
    past = jnp.maximum(now[:, None] - back[None], first[:, None])  # [B, h]
    t = dataset.transitions
    obs = jnp.asarray(t.obs)[past]
    end = ahead[:, -1]
    reward = jnp.asarray(t.reward)[ahead]
    next_obs = jnp.concatenate([obs[:, 1:], jnp.asarray(t.next_obs)[end][:, None]], axis=1)
    return Windows(
        obs=obs,
        action=jnp.asarray(t.action)[ahead],
        reward=jnp.where(lived.reshape(*lived.shape, *[1] * (reward.ndim - 2)), reward, 0.0),
        length=jnp.sum(lived, axis=1, dtype=jnp.int32),
        discount=jnp.asarray(t.discount)[end],
        next_obs=next_obs,
    )
