"""How a team's diffusion is put together from its agents' (DoF): what each factor of the noise permits.

concat      eps_tot = [eps_1; ..; eps_A]              |eps_tot - prediction|**2 is the sum of the agents' own losses
wconcat     eps_tot = [w_1 eps_1; ..; w_A eps_A]      the same with w_i**2, for noises and predictions alike
attention   an agent's noise is a mean over all agents'

Under the first two a model is a product over agents, and cannot say that they must agree on one of several joint modes.
A monotone mixture is for values: one of noises is not Gaussian.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax

from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array

EXECUTIONS = ("centralised", "decentralised")


class Factor(NamedTuple):
    """Whether every agent can act alone under it, and why not."""

    decentralised: bool
    reason: str = ""


NOISE_FACTORS: Mapping[str, Factor] = {
    "attention": Factor(False, "an agent's noise is then a mean over all agents' and says nothing without the others'"),
    "concat": Factor(True),
    "wconcat": Factor(True),
}
OF_VALUES = ("qmix",)  # the paper's factors that put values together, and no noises


def check_noise_factor(name: str) -> None:
    """Refuses what cannot put noises together.

    Raises:
      KeyError: unknown.
      ValueError: a factor of values.
    """
    if name in OF_VALUES:
        raise ValueError(
            f"noise_factor={name!r} is a factor of values: a mixture of noises that is not linear is not Gaussian. "
            f"Choose one of {_names(True)}, or {_names(False)} with execution='centralised'."
        )
    if name not in NOISE_FACTORS:
        raise unknown_name("noise_factor", name, NOISE_FACTORS)


def ensure_decentralised(name: str, execution: str) -> None:
    """Refuses an execution that a factor of noise does not permit, and what is none.

    Args:
      name: one of NOISE_FACTORS.
      execution: "decentralised", where agents act on their own, or "centralised".

    Raises:
      KeyError: unknown factor or execution.
      ValueError: decentralised, and the factor needs what other agents know; see also `check_noise_factor`.

    Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL.
    """
    check_noise_factor(name)
    if execution not in EXECUTIONS:
        raise unknown_name("execution", execution, EXECUTIONS)
    if execution == "decentralised" and not NOISE_FACTORS[name].decentralised:
        raise ValueError(
            f"noise_factor={name!r} cannot be executed decentralised: {NOISE_FACTORS[name].reason}; choose one of "
            f"{_names(True)}, or execution='centralised'."
        )


def agent_weights(logits: Array) -> Array:
    """w = A softmax(logits): [A] -> [A] positive numbers of mean 1, all 1 where the logits are equal.

    What a weighted concat learns. A loss of noise alone is smaller for smaller weights: their sum is fixed so that they
    cannot all vanish, but they still drift to the agents whose noise is easiest to predict.
    """
    return logits.shape[-1] * jax.nn.softmax(logits)


def _names(decentralised: bool) -> str:
    """Factors under which agents can act alone, or the others."""
    return ", ".join(name for name, factor in NOISE_FACTORS.items() if factor.decentralised == decentralised)
