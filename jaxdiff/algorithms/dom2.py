"""DOM2: Diffusion-QL with critics that are held down, whose policy is drawn by a first-order DPM-Solver in few steps.

critic   y = r + gamma (1 - terminated) min_i Q_i'(s', a'),  a' ~ target policy
         gap_i = log E_{a ~ uniform} exp(Q_i(s, a) - log mu) - Q_i(s, a_data)
         loss = sum_i E [(Q_i(s, a) - y)**2 + cql_weight gap_i]
policy   loss = E |eps - eps_theta(alpha a + sigma eps, t, s)|**2 - q_weight E Q_i(s, a0) / E|Q_i(s, a0)|,  a0 ~ policy
sample   b <- (alpha'/alpha) b - sigma' (exp(h) - 1) eps_theta(b, t, s),  h = log(alpha'/sigma') - log(alpha/sigma),
         from b ~ N(0, I) at t = 1 to t = 0.001;  log alpha(t) = -(20 - 0.1) t**2 / 4 - 0.1 t / 2
acting   one sample of the averaged policy

This is the method of one agent, which sees nothing of the others: with an axis of agents around it, each has networks
of its own. All but the penalty, the sampler and the defaults is `chain_q`.

Of the paper we know its equations through reviews and later papers, and there is no released code. Ours are: the number
of steps, the widths and every hyperparameter (`experiments/dom2.py` says where each is from), that the averaged policy
acts, and that every prediction of the clean action is kept in [-1, 1] where the paper clips the sample alone. The
published policy learns from episodes of high return several times; how often an episode is drawn is the dataset's
affair.

Reference: Li, Pan and Huang 2023, arXiv:2307.01472; the penalty: Kumar et al. 2020, arXiv:2006.04779, eq. 4.
"""

import dataclasses

from flax import struct
import jax.numpy as jnp

from jaxdiff.algorithms import chain_q
from jaxdiff.algorithms.chain_q import ChainPolicy, make_chain_q
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState


@dataclasses.dataclass(frozen=True)
class Config(chain_q.Config):
    """Static choices: Diffusion-QL's, and the penalty's."""

    policy: PolicyConfig = PolicyConfig(beta_max=20.0, num_levels=0, sampler="dpm_solver_1", t_end=1e-3)
    num_candidates: int = 1
    ema_period: int = 1
    act_with_ema: bool = True
    cross_normaliser: bool = False
    cql_samples: int = 10  # uniform actions in the penalty; 0: no penalty


@struct.dataclass
class HParams(chain_q.HParams):
    """Traced hyperparameters, float32 scalars: Diffusion-QL's, and the penalty's."""

    q_weight: float = 0.5  # eta, weight of the Q term; 0 is behaviour cloning
    discount_factor: float = 0.95  # gamma in [0, 1]
    polyak: float = 0.01  # share of the online critic in its target per update, in (0, 1]
    ema_start: float = 0.0  # the target policy stays at its initial weights before this update
    cql_weight: float = 5.0  # zeta, of the penalty, >= 0; tuned per dataset


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      ValueError: what `make_chain_q` and `make_policy` raise.
    """
    policy = make_policy(config.policy, spec)

    def loss(key: Key, params: PyTree, state: TrainState, obs: Array, action: Array) -> tuple[Array, Metrics]:
        del state
        return jnp.mean(policy.loss(key, params, obs, action)), {}

    chain = ChainPolicy(policy.init, loss, policy.sample)
    return make_chain_q(chain, config, spec, cql_samples=config.cql_samples)
