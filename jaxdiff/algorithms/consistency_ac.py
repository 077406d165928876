"""Consistency-AC: Diffusion-QL with a consistency model for a policy, which needs two network calls and no schedule.

model    f(x, sigma, s) = c_skip(sigma) x + c_out(sigma) F,  f(x, 0.002, s) = x: noise level to action in one call
policy   loss = E w |f(a + sigma_{n+1} z) - f_target(a + sigma_n z)|**2 + q_weight L_q,
         w = 100 / (sigma_{n+1} - sigma_n)
         L_q = -E Q_i(s, a0) / E|Q_j(s, a0)|,  a0 ~ policy, i != j
critic   y = r + gamma (1 - terminated) min_i Q_i'(s', a'),  a' ~ target policy;   loss = sum_i E (Q_i(s, a) - y)**2
sample   a <- f(80 z, 80);  a <- f(a + sigma z, sigma) for the rest of num_steps levels, evenly from 80 down to 2 [code]
acting   num_candidates samples of the policy, one drawn with probability softmax(min_i Q_i' / selection_temperature)

The policy learns without a teacher: f_target is f with averaged weights. Its pairs of neighbouring levels come from
Karras' grid (rho = 7, 0.002 to 80), n uniform, of N levels; N grows from 2 to 150 as in consistency training,
N(k) = ceil(sqrt(k / K (150**2 - 2**2) + 2**2) - 1) + 1, and starts anew every K = curriculum_steps updates, since the
code counts k within each stretch between two evaluations [code].

Paper and code: the weight is the paper's k / |sigma_{n+1} - sigma_n|; the code lists it per task and then applies it
everywhere. The grid to sample at has 2 as its last level [code]; at 0.002 the model is the identity and a call is lost.
`normalise_target` divides the critic's target by its deviation over the batch, as the code does on some tasks.
Different here: the network's input is scaled by 1 / sqrt(sigma**2 + 0.25), which the code leaves out; noise is put back
with sigma instead of sqrt(sigma**2 - 0.002**2), the same to six digits.

Reference: Ding and Jin 2023, arXiv:2309.16984; Song et al. 2023, arXiv:2303.01469, algorithms 1 and 3. Details only the
code shows are marked [code].
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import diffusion
from jaxdiff.algorithms import chain_q
from jaxdiff.algorithms.chain_q import ChainPolicy, make_chain_q
from jaxdiff.algorithms.policy import PolicyConfig, make_network, make_policy
from jaxdiff.algorithms.process import make_schedule
from jaxdiff.diffusion.consistency import PairWeight, noise_ratio
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0  # of training; SIGMA_MIN is where `PARAMETERISATIONS["consistency"]` is the identity
FIRST_LEVELS, LAST_LEVELS = 2, 150  # levels at the curriculum's start and end
PAIR_WEIGHTS: dict[str, PairWeight | None] = {
    "step": lambda start, end: 100.0 * diffusion.step_weight(start, end),
    "none": None,
}


@dataclasses.dataclass(frozen=True)
class Config(chain_q.Config):
    """Static choices: Diffusion-QL's, and those of a consistency model."""

    policy: PolicyConfig = PolicyConfig(  # t_end: the last level to sample at, sigma = 80 t = 2 [code]
        schedule="edm", kind="consistency", num_levels=0, sampler="consistency", num_steps=2, t_end=0.025
    )
    pair_weight: str = "step"  # of the consistency loss, one of PAIR_WEIGHTS
    normalise_target: bool = False  # divide the critic's target by its standard deviation


@struct.dataclass
class HParams(chain_q.HParams):
    """Traced hyperparameters, float32 scalars: Diffusion-QL's, and the curriculum's."""

    curriculum_steps: float = 50_000.0  # [code] updates over which the grid grows before it starts anew


class ConsistencyPolicy(NamedTuple):
    """Pure functions of the model's parameters.

    init(key) -> params
    loss(key, params, target_params, num_levels, obs [B, O], action [B, U]) -> [B]
    sample(key, params, obs [*B, O], temperature) -> action [*B, U] in [-1, 1]
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, PyTree, Array, Array, Array], Array]
    sample: Callable[..., Array]


def num_levels_at(step: Array, curriculum_steps: Array) -> Array:
    """Levels of the training grid, N(k) above with k = step mod curriculum_steps; int32, 2 to 150."""
    fraction = jnp.mod(step / jnp.maximum(curriculum_steps, 1.0), 1.0)
    square = fraction * (LAST_LEVELS**2 - FIRST_LEVELS**2) + FIRST_LEVELS**2
    return jnp.clip(jnp.ceil(jnp.sqrt(square) - 1.0).astype(jnp.int32) + 1, FIRST_LEVELS, LAST_LEVELS)


def make_consistency_policy(config: Config, spec: Spec) -> ConsistencyPolicy:
    """The model, its loss and its chain.

    Raises:
      KeyError, ValueError: what `make_policy` raises.
      ValueError: a schedule that ends at pure noise.
    """
    init = make_policy(config.policy, spec).init  # checks every name and number
    bind, schedule = make_network(config.policy, spec).bind, make_schedule(config.policy)
    reach = float(noise_ratio(diffusion.level_at(schedule, 1.0)))
    if not np.isfinite(reach):
        raise ValueError(
            f"schedule={config.policy.schedule!r} ends at pure noise; Karras' grid needs a finite sigma / alpha at "
            "t = 1. Use 'edm' or 'vp'."
        )
    sigma_max = min(SIGMA_MAX, reach * (1.0 - 1e-6))  # within reach, after rounding too
    table = diffusion.make_table(
        config.policy.sampler,
        schedule,
        config.policy.num_steps,
        t_end=config.policy.t_end,
        spacing=config.policy.spacing,
        grid={"final": "zero"},  # the model's last answer is the action, however noisy its last level
    )

    def model(params: PyTree, obs: Array) -> diffusion.Denoiser:
        return diffusion.denoiser(bind(params), config.policy.kind, obs, c_noise=noise_ratio)

    def loss(key: Key, params: PyTree, target: PyTree, num_levels: Array, obs: Array, action: Array) -> Array:
        key_index, key_noise = jax.random.split(key)
        sigmas = diffusion.ict_sigmas(num_levels, size=LAST_LEVELS, sigma_min=SIGMA_MIN, sigma_max=sigma_max)
        index = jax.random.randint(key_index, action.shape[:-1], 0, num_levels - 1)
        start, end = diffusion.neighbours(diffusion.levels_at(schedule, -jnp.log(sigmas)), index)
        return diffusion.consistency_training_loss(
            model(params, obs),
            model(target, obs),
            start,
            end,
            action,
            jax.random.normal(key_noise, action.shape),
            metric="l2",
            weight=PAIR_WEIGHTS[config.pair_weight],
        )

    def sample(key: Key, params: PyTree, obs: Array, temperature: Any = 1.0) -> Array:
        key_start, key_chain = jax.random.split(key)
        x_T = diffusion.initial_noise(key_start, table, (*obs.shape[:-1], spec.action_dim))
        grad_steps = config.policy.grad_steps or None
        x0 = diffusion.sample(model(params, obs), table, x_T, key_chain, temperature=temperature, grad_steps=grad_steps)
        return jnp.clip(x0, -1.0, 1.0)  # only here [code]

    return ConsistencyPolicy(init, loss, sample)


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      KeyError: unknown pair_weight, and what `make_policy` raises.
      ValueError: a count below 1, a schedule that ends at pure noise, and what `make_policy` raises.
    """
    if config.pair_weight not in PAIR_WEIGHTS:
        raise unknown_name("pair_weight", config.pair_weight, PAIR_WEIGHTS)
    policy = make_consistency_policy(config, spec)

    def loss(key: Key, params: PyTree, state: TrainState, obs: Array, action: Array) -> tuple[Array, Metrics]:
        num_levels = num_levels_at(state.step, state.hparams.curriculum_steps)
        errors = policy.loss(key, params, state.target_params["policy"], num_levels, obs, action)
        return jnp.mean(errors), {"num_levels": num_levels.astype(jnp.float32)}

    chain = ChainPolicy(policy.init, loss, policy.sample)
    return make_chain_q(chain, config, spec, normalise_target=config.normalise_target)
