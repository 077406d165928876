"""IDQL: implicit critics, and a diffusion policy that only imitates; what is good is selected while acting.

policy  loss = E |eps - eps_theta(alpha a + sigma eps, t, s)|**2
value   loss = E |expectile - 1(u < 0)| u**2,  u = min_i Q_i'(s, a) - V(s)
critic  y = r + gamma (1 - terminated) V(s');   loss = sum_i E (Q_i(s, a) - y)**2
acting  num_candidates samples of the averaged policy, of which `select` takes one:
  best     the one with the largest min_i Q_i'
  weights  with probability in proportion to expectile where Q >= V, 1 - expectile elsewhere: the policy that V implies
  softmax  with probability softmax(min_i Q_i' / selection_temperature)

Policy and critics never meet while learning, so the number of candidates and the way to select can be changed on
trained weights (`jaxdiff eval DIR --set model.num_candidates=128`), and the code's order (policy, value, critic) gives
what any order with V before Q gives.

From the code alone: the averaged policy and the target critics act, and the noise of a sampling step has the variance
beta (`ddpm_large`). Different here from the code: the loss is a mean and not a sum over an action's numbers, a factor
that Adam divides out; sampling clips the clean prediction in every step, or the noisy action, as there, with
`policy.clip="sample"` (the presets `paper` and `code`); critics and policy share batches and step together, where the
code's critics take 256 of 512 transitions and step half as often.

Reference: Hansen-Estruch et al. 2023, arXiv:2304.10573; softmax: Chen et al. 2023, arXiv:2209.14548 (SfBC).
Details that only the released code shows are marked [code].
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.implicit import CriticConfig, CriticHParams, advance, make_implicit_critics
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.algorithms.steps import learn
from jaxdiff.rl import draw_candidate, expectile_policy_weight, select_candidate
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition

SELECT = ("best", "weights", "softmax")


@dataclasses.dataclass(frozen=True)
class Config(CriticConfig):
    """Static choices: those of the critics, the policy's, and how it acts."""

    policy: PolicyConfig = PolicyConfig(sampler="ddpm_large")
    num_candidates: int = 64  # [code] actions drawn per observation when acting; 128 and, in mazes, 32 in the paper
    select: str = "best"  # one of SELECT
    act_with_ema: bool = True  # [code] the averaged policy draws the candidates
    rank_with_target: bool = True  # [code] the target critics rank them


@struct.dataclass
class HParams(CriticHParams):
    """Traced hyperparameters, float32 scalars: those of the critics, and the policy's."""

    lr: float = 3e-4  # Adam step size of the policy, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay of lr to 0; 0: constant. The whole run in the paper
    ema_rate: float = 0.001  # share of the new policy in the average per update, in (0, 1]
    selection_temperature: float = 1.0  # of the softmax over candidates, in units of Q, > 0
    act_temperature: float = 1.0  # scale of the noise injected while acting, >= 0


def _check(config: Config) -> None:
    if config.num_candidates < 1:
        raise ValueError(f"num_candidates={config.num_candidates}; it must be at least 1 (1: imitation alone acts).")
    if config.select not in SELECT:
        raise unknown_name("select", config.select, SELECT)


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      ValueError: num_candidates below 1, and what `make_policy` raises.
      KeyError: unknown select or activation, and what `make_policy` raises.
    """
    _check(config)
    implicit = make_implicit_critics(config, spec)
    policy = make_policy(config.policy, spec)

    def init(key: Key, hparams: HParams) -> TrainState:
        return implicit.init(key, hparams, policy.init)

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        h = state.hparams

        def policy_loss(params: PyTree) -> tuple[Array, Metrics]:
            loss = jnp.mean(policy.loss(key, params, batch.obs, batch.action))
            return loss, {"bc_loss": loss}

        actor = learn(state, "policy", policy_loss, cosine_decay(h.lr, state.step, h.lr_decay_steps))
        value = implicit.learn_value(state, batch)
        critic = implicit.learn_critic(state, value.params, batch)
        return advance(state, h.ema_rate, policy=actor, critic=critic, value=value)

    def choose(key: Key, state: TrainState, obs: Array, candidates: Array) -> Array:
        """obs [N, *B, O], candidates [N, *B, U] -> action [*B, U]."""
        critic = (state.target_params if config.rank_with_target else state.params)["critic"]
        q = implicit.q(critic, obs, candidates)
        if config.select == "softmax":
            return draw_candidate(key, candidates, q, state.hparams.selection_temperature)
        if config.select == "weights":
            advantage = q - implicit.v(state.params["value"], obs)
            weight = expectile_policy_weight(advantage, state.hparams.expectile)
            return draw_candidate(key, candidates, jnp.log(weight), 1.0)
        return select_candidate(candidates, jnp.argmax(q, axis=0))

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        key_sample, key_select = jax.random.split(key)
        actor = (state.target_params if config.act_with_ema else state.params)["policy"]
        many = jnp.broadcast_to(obs, (config.num_candidates, *obs.shape))
        candidates = policy.sample(key_sample, actor, many, state.hparams.act_temperature)
        return jnp.expand_dims(choose(key_select, state, many, candidates), -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
