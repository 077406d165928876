"""How a team's diffusion is put together from its agents' (DoF): f of noises, h of samples, and what each permits.

x holds one row of numbers per agent, [*B, A, D]. The second argument is what a factor needs beside it: nothing,
weights, or a mixer.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array

EXECUTIONS = ("centralised", "decentralised")


class Factor(NamedTuple):
    """A factor function and whether every agent can act alone under it."""

    apply: Callable[[Array, Any], Array]  # (x [*B, A, D], what it needs) -> x_tot
    decentralised: bool
    reason: str = ""  # why it cannot be decentralised


def concat(x: Array, how: None = None) -> Array:
    """x_tot = [x_1; ...; x_A]: [*B, A, D] -> [*B, A D]."""
    del how
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def weighted_concat(x: Array, weights: Array) -> Array:
    """x_tot = [w_1 x_1; ...; w_A x_A]: x [*B, A, D], weights [A] -> [*B, A D].

    Meant for noises and predictions alike. Weights that scale the prediction alone, as in the released code, only ask
    the network for outputs 1 / w_i as large.
    """
    return concat(x * weights.reshape((1,) * (x.ndim - 2) + (-1, 1)))


def attended(x: Array, weights: Array) -> Array:
    """x_tot = [y_1; ...; y_A] with y_i = sum_j w_ij x_j: x [*B, A, D], weights [A, A] -> [*B, A D]."""
    return concat(jnp.einsum("ij,...jd->...id", weights, x))


def summed(x: Array, how: None = None) -> Array:
    """x_tot = sum_i x_i, as VDN does with values: [*B, A, D] -> [*B, D]."""
    del how
    return jnp.sum(x, axis=-2)


def mixed(x: Array, mixer: Callable[[Array], Array]) -> Array:
    """x_tot = mixer(x_1, ..., x_A), number by number: x [*B, A, D], mixer [*B, D, A] -> [*B, D], gives [*B, D]."""
    return mixer(jnp.moveaxis(x, -2, -1))


# f, of noises, predictions and noised samples alike.
NOISE_FACTORS: dict[str, Factor] = {
    "attention": Factor(
        attended, False, "an agent's noise is then a mean over all agents' and says nothing without the others'"
    ),
    "concat": Factor(concat, True),
    "qmix": Factor(
        mixed, False, "a mixture that is not linear is not Gaussian, and mixing needs the noises of all agents"
    ),
    "wconcat": Factor(weighted_concat, True),
}

# h, of what comes out at the end: actions or, for vdn and qmix, values, of which each agent maximises its own.
DATA_FACTORS: dict[str, Factor] = {
    "concat": Factor(concat, True),
    "qmix": Factor(mixed, True),
    "vdn": Factor(summed, True),
    "wconcat": Factor(weighted_concat, True),
}


def ensure_decentralised(name: str, execution: str, factors: Mapping[str, Factor] = NOISE_FACTORS) -> None:
    """Refuses an execution that a factor does not permit.

    Args:
      name: of one of the factors.
      execution: "decentralised", where agents act on their own, or "centralised".
      factors: NOISE_FACTORS or DATA_FACTORS.

    Raises:
      KeyError: unknown factor or execution.
      ValueError: decentralised, and the factor needs what other agents know.

    Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL.
    """
    if name not in factors:
        raise unknown_name("factor", name, factors)
    if execution not in EXECUTIONS:
        raise unknown_name("execution", execution, EXECUTIONS)
    if execution == "decentralised" and not factors[name].decentralised:
        allowed = ", ".join(sorted(key for key, factor in factors.items() if factor.decentralised))
        raise ValueError(
            f"factor={name!r} cannot be executed decentralised: {factors[name].reason}; choose one of {allowed}, or "
            "execution='centralised'."
        )


def agent_weights(logits: Array) -> Array:
    """w = A softmax(logits): [A] -> [A] positive numbers of mean 1, all 1 where the logits are equal.

    What `weighted_concat` may learn. A loss of noise alone is smaller for smaller weights: their sum is fixed so that
    they cannot all vanish, but they still drift to the agents whose noise is easiest to predict.
    """
    return logits.shape[-1] * jax.nn.softmax(logits)


def factored_loss(factor: Factor, noise: Array, prediction: Array, how: Any = None) -> Array:
    """|f(noise) - f(prediction)|**2: noise and prediction [*B, A, D] -> [*B].

    For `concat` it is the sum of the agents' own losses and for `weighted_concat` sum_i w_i**2 of them: the model is
    then a product over agents, and cannot say that they must agree on one of several joint modes.
    """
    error = factor.apply(noise, how) - factor.apply(prediction, how)
    return jnp.sum(jnp.square(error), axis=-1)
