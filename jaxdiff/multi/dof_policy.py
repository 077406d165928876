"""DoF as a policy: diffusion of joint actions factorised over agents, which climbs a factorised value.

critic   y = r + gamma (1 - terminated) min_e V_e'(o', a'),  a' ~ target policies;   loss = sum_e E |V_e(o, a) - y|**2,
         V the agents' own values, their sum, a monotone mixture, or one central value (`team_value`)
policy   loss = sum_i w_i**2 E |target_i - F_i(x_i, t, o_i)|**2 + q_weight A L_q,
         L_q = -E V_e(o, a0) / E|V_f(o, a0)|,  a0 ~ all policies, with gradients through their chains, e != f
acting   num_candidates samples per agent, one drawn with probability softmax(min_e Q_i,e' / selection_temperature)

So with noise_factor="concat" and value_factor="own" it is Diffusion-QL for each agent; what is the team's is the value.
In the released code the policy gets no gradient of Q, so its results are of behaviour cloning; here it does, as the
paper says, and its loss is balanced as in Diffusion-QL. `noise_factor="attention"` is a joint policy, and then
execution must be centralised.

Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL, from its abstract and code.
"""

import dataclasses

import chex
from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.chain_q import climb
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.algorithms.steps import initial_state
from jaxdiff.multi.batches import with_own_rewards
from jaxdiff.multi.team_policy import make_team_policy
from jaxdiff.multi.team_value import CriticConfig, make_team_value
from jaxdiff.multi.teams import team_size
from jaxdiff.rl import draw_candidate, ensure_decentralised, normalised_q_loss, td_target
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    policy: PolicyConfig = PolicyConfig(bias="torch")
    critic: CriticConfig = CriticConfig()
    noise_factor: str = "concat"  # f, one of rl.NOISE_FACTORS
    value_factor: str = "own"  # h of values, one of team_value.VALUE_FACTORS
    execution: str = "decentralised"  # or "centralised", which attention needs
    share_params: bool = False  # one policy and one pair of critics for all agents, told which by a one-hot id
    shared_noise: bool = False  # agents draw the same noise while acting
    num_candidates: int = 1  # actions drawn per agent when acting
    ema_period: int = 5  # updates between two moves of the target policies [code]
    act_with_ema: bool = True


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 3e-4  # Adam step size of the policies, > 0
    critic_lr: float = 3e-4  # Adam step size of the critics, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 10.0  # largest global gradient norm of policies or critics, > 0
    q_weight: float = 0.5  # eta [code], weight of the Q term; 0 is behaviour cloning
    q_start: float = 0.0  # the policies only imitate before this update, while the critics learn
    discount_factor: float = 0.99  # gamma in [0, 1]
    polyak: float = 0.005  # share of the online critics in their targets per update, in (0, 1]
    ema_rate: float = 0.005  # share of the online policies in their targets per move, in (0, 1]
    ema_start: float = 1000.0  # the target policies stay at their initial weights before this update
    selection_temperature: float = 1.0  # of softmax(Q) over the candidates, in units of Q, > 0
    act_temperature: float = 1.0  # scale of the noise injected while acting, >= 0


def check(config: Config, spec: Spec) -> None:
    """Refuses settings that exclude one another, and tasks without agents.

    Raises:
      KeyError: an unknown factor or execution.
      ValueError: a factor that cannot be executed so, or a number out of range.
    """
    team_size(spec)
    ensure_decentralised(config.noise_factor, config.execution)
    for name in ("num_candidates", "ema_period"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}; it must be at least 1.")
    if config.value_factor == "central" and config.num_candidates > 1:
        raise ValueError(
            f"value_factor='central' and num_candidates={config.num_candidates}; agents have no values of their own to "
            "choose by: give 1 candidate, or another value_factor."
        )


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task with agents.

    Raises:
      KeyError, ValueError: see `check`, `make_team_policy` and `make_team_value`.
    """
    check(config, spec)
    policy = make_team_policy(
        config.noise_factor,
        config.policy,
        spec,
        share_params=config.share_params,
        shared_noise=config.shared_noise,
    )
    value = make_team_value(config.value_factor, config.critic, spec, share_params=config.share_params)
    num_agents = team_size(spec)

    def init(key: Key, hparams: HParams) -> TrainState:
        key_policy, key_critic = jax.random.split(key)
        return initial_state({"policy": policy.init(key_policy), "critic": value.init(key_critic)}, hparams)

    def critic_loss(params: PyTree, key: Key, state: TrainState, batch: Transition) -> tuple[Array, Metrics]:
        next_action = policy.sample(key, state.target_params["policy"], batch.next_obs)
        after = jnp.min(value.total(state.target_params["critic"], batch.next_obs, next_action), axis=0)
        reward, discount = value.rewards(batch.reward), value.rewards(batch.discount)
        target = td_target(reward, discount, after, state.hparams.discount_factor)  # [B, V]
        q = value.total(params, batch.obs, batch.action)
        loss = jnp.sum(jnp.mean(jnp.square(q - target[None]), axis=1))
        return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_mean": jnp.mean(target)}

    def policy_loss(
        params: PyTree, critic: PyTree, key: Key, state: TrainState, batch: Transition
    ) -> tuple[Array, Metrics]:
        key_own, key_sample, key_coin = jax.random.split(key, 3)
        each = jnp.mean(policy.loss(key_own, params, batch.obs, batch.action), axis=0)
        own = jnp.sum(jnp.square(policy.weights(params)) * each)
        q = value.total(critic, batch.obs, policy.sample(key_sample, params, batch.obs))
        coin = jax.random.bernoulli(key_coin).astype(jnp.int32)
        q_loss = num_agents * jnp.mean(jax.vmap(normalised_q_loss, -1)(q[coin], q[1 - coin]))
        q_weight = jnp.where(state.step >= state.hparams.q_start, state.hparams.q_weight, 0.0)
        loss = own + q_weight * q_loss
        return loss, {"policy_loss": loss, "bc_loss": own, "q_policy": jnp.mean(q)}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        chex.assert_shape([batch.obs, batch.next_obs], (None, num_agents, spec.obs_dim))
        own = with_own_rewards(batch, num_agents)
        return climb(key, state, own, critic_loss, policy_loss, config.ema_period)

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        chex.assert_axis_dimension(obs, -1, spec.obs_dim)
        key_sample, key_select = jax.random.split(key)
        actor = (state.target_params if config.act_with_ema else state.params)["policy"]
        if config.num_candidates == 1:
            action = policy.sample(key_sample, actor, obs, state.hparams.act_temperature)
            return jnp.expand_dims(action, -3), memory
        many = jnp.broadcast_to(obs, (config.num_candidates, *obs.shape))
        candidates = policy.sample(key_sample, actor, many, state.hparams.act_temperature)
        q = jnp.min(value.own(state.target_params["critic"], many, candidates), axis=0)  # [N, *B, A]
        action = draw_candidate(key_select, candidates, q, state.hparams.selection_temperature)
        return jnp.expand_dims(action, -3), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
