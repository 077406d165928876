"""How a team's diffusion is put together from its agents' (DoF): what each factor of the noise permits.

concat      eps_tot = [eps_1; ..; eps_A]              |eps_tot - prediction|**2 is the sum of the agents' own losses
wconcat     eps_tot = [w_1 eps_1; ..; w_A eps_A]      the same with w_i**2, for noises and predictions alike
attention   an agent's noise is a mean over all agents'
qmix        a monotone mixture of all

Under the first two a model is a product over agents, and cannot say that they must agree on one of several joint modes.
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
    "qmix": Factor(False, "a mixture that is not linear is not Gaussian, and mixing needs the noises of all agents"),
    "wconcat": Factor(True),
}


def ensure_decentralised(name: str, execution: str) -> None:
    """Refuses an execution that a factor does not permit.

    Args:
      name: one of NOISE_FACTORS.
      execution: "decentralised", where agents act on their own, or "centralised".

    Raises:
      KeyError: unknown factor or execution.
      ValueError: decentralised, and the factor needs what other agents know.

    Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL.
    """
    if name not in NOISE_FACTORS:
        raise unknown_name("factor", name, NOISE_FACTORS)
    if execution not in EXECUTIONS:
        raise unknown_name("execution", execution, EXECUTIONS)
    if execution == "decentralised" and not NOISE_FACTORS[name].decentralised:
        allowed = ", ".join(sorted(key for key, factor in NOISE_FACTORS.items() if factor.decentralised))
        raise ValueError(
            f"factor={name!r} cannot be executed decentralised: {NOISE_FACTORS[name].reason}; choose one of {allowed}, "
            "or execution='centralised'."
        )


def agent_weights(logits: Array) -> Array:
    """w = A softmax(logits): [A] -> [A] positive numbers of mean 1, all 1 where the logits are equal.

    What a weighted concat learns. A loss of noise alone is smaller for smaller weights: their sum is fixed so that they
    cannot all vanish, but they still drift to the agents whose noise is easiest to predict.
    """
    return logits.shape[-1] * jax.nn.softmax(logits)
