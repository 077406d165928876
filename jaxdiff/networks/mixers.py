"""Mixers: the value of a team out of its agents' values, q [*B, A] and state [*B, S] -> [*B]."""

from collections.abc import Callable
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxdiff.networks.mlp import Mlp
from jaxdiff.types import Array


class VdnMixer(nn.Module):
    """Q_tot = sum_i q_i, without parameters.

    Reference: Sunehag et al. 2018, arXiv:1706.05296.
    """

    @nn.compact
    def __call__(self, q: Array, state: Array) -> Array:
        del state
        return jnp.sum(q, axis=-1)


class QmixMixer(nn.Module):
    """Q_tot = w_2 f(W_1 q + b_1) + b_2, all four given by MLPs of the state.

    monotone       |W_1|, |w_2| and f = ELU: no agent's value ever lowers the team's, so each may maximise its own
    not monotone   W_1, w_2 as they are and f(z) = z: linear in q, with slopes of either sign, for which greedy agents
                   need not be a greedy team

    q [*B, A], state [*B, S] -> [*B]. The parameters depend on A and S. `hidden` is that of the four MLPs (ReLU), and
    `width` the length of b_1.

    Raises:
      ValueError: width < 1, or leading axes of q and state that differ.

    Reference: Rashid et al. 2018, arXiv:1803.11485, section 4; without absolute values: as printed for MAD2RL (IEEE
    Transactions on Mobile Computing), whose 2 x 64 units are the default of `hidden`.
    """

    width: int = 32
    hidden: tuple[int, ...] = (64, 64)
    monotone: bool = True

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width={self.width}; a mixer needs at least 1 hidden number, usually 32.")
        super().__post_init__()

    @nn.compact
    def __call__(self, q: Array, state: Array) -> Array:
        if q.shape[:-1] != state.shape[:-1]:
            raise ValueError(
                f"q has shape {q.shape} and state {state.shape}; they must be [*B, A] and [*B, S] with one *B."
            )
        sizes = (q.shape[-1] * self.width, self.width, self.width, 1)
        first, first_bias, second, bias = (Mlp(self.hidden, size, "relu")(state) for size in sizes)
        first = first.reshape(*q.shape, self.width)
        if self.monotone:
            first, second = jnp.abs(first), jnp.abs(second)
        hidden = jnp.einsum("...a,...aw->...w", q, first) + first_bias
        hidden = jax.nn.elu(hidden) if self.monotone else hidden
        return jnp.sum(second * hidden, axis=-1) + jnp.squeeze(bias, -1)


def _without_options(**options: Any) -> nn.Module:
    del options
    return VdnMixer()


# All take width and hidden, and use those that concern them.
MIXERS: dict[str, Callable[..., nn.Module]] = {
    "linear": functools.partial(QmixMixer, monotone=False),
    "qmix": QmixMixer,
    "vdn": _without_options,
}
