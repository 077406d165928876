"""DoF as a planner: diffusion of all agents' future observations, factorised over agents, and inverse dynamics.

concat      every agent's rows are denoised from its own, by one network for all: the losses add up
wconcat     as concat; noises and predictions are scaled by w_i, learned with mean 1, so losses count w_i**2
attention   agents attend to one another inside the network, as in MADiff, and execution must be centralised

Under the first two a plan of the team is a product of plans of its agents, so each executes its own and nothing changes
with what others observe. All else is `madiff`: the return as a condition that is dropped per agent, guidance, the
observations a plan begins with, the inverse dynamics.

In the released code one network stands for all agents too, its weighted concat scales predictions but not noises, and
guidance starts from a branch that is conditional in three draws of four; here both weigh alike and the null branch is
null. Networks of the agents' own are `decision_diffuser` with agents=independent.

Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL, from its abstract and code.
"""

import dataclasses

from jaxdiff.algorithms.acting import ActConfig
from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.multi import madiff
from jaxdiff.rl import ensure_decentralised
from jaxdiff.types import Algorithm, Spec

HParams = madiff.HParams


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; those that `madiff` has mean what they mean there."""

    planner: PlannerConfig = PlannerConfig(
        "agent_unet", width=128, mults=(1, 4, 8), horizon=24, kind="eps", num_levels=200, num_steps=200, clip=True
    )
    act: ActConfig = ActConfig(control="inverse")
    noise_factor: str = "concat"  # f, one of rl.NOISE_FACTORS
    execution: str = "decentralised"  # or "centralised", which attention needs
    history: int = 1
    shared_inverse: bool = True
    inverse_hidden: tuple[int, ...] = (256, 256)
    normaliser: str = "quantile"
    padding: str = "repeat"
    discount_factor: float = 0.99
    ema_period: int = 10


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task with agents.

    Raises:
      KeyError: an unknown factor or execution.
      ValueError: a factor that cannot be executed so, or is none of noise, and what `madiff.make` raises.
    """
    ensure_decentralised(config.noise_factor, config.execution)
    kept = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    factor = kept.pop("noise_factor")
    # Without attention everyone's rows may be given: an agent's plan has no path to the others'.
    kept["execution"] = "centralised"
    return madiff.make(madiff.Config(attention=factor == "attention", weighted=factor == "wconcat", **kept), spec)
