"""What Diffusion-QL is around its policy: imitation plus a learned Q climbed through the policy's own samples.

critic   y = r + gamma (1 - terminated) min_i Q_i'(s', a'),  a' ~ target policy;   loss = sum_i E (Q_i(s, a) - y)**2
         max_q_backup: y = r + gamma (1 - terminated) min_i max_n Q_i'(s', a'_n),  n = 1 .. num_backup_candidates
         cql_samples: loss + cql_weight sum_i E [log E_{a ~ uniform} exp(Q_i(s, a) - log mu(a)) - Q_i(s, a_data)]
policy   loss = its own + q_weight L_q,   L_q = -E Q_i(s, a0) / E|Q_j(s, a0)|,  a0 ~ policy, i != j
acting   num_candidates samples of the policy, one drawn with probability softmax(min_i Q_i' / selection_temperature)

Shared by all whose policy can be sampled with gradients through its chain.

Reference: Wang, Hunt and Zhou 2023, arXiv:2208.06193; details that only its code shows are marked [code].
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.critics import conservative_td_loss, make_critics, sampled_value, td_loss, uniform_actions
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.algorithms.steps import initial_state, learn, next_state
from jaxdiff.rl import draw_candidate, normalised_q_loss, td_target
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    policy: PolicyConfig = PolicyConfig()
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    critic_activation: str = "mish"
    critic_layer_norm: bool = False
    critic_bias: str = "zeros"  # where the critics' biases start, one of BIASES; "torch" in the code
    max_q_backup: bool = False  # the best of several next actions, for sparse rewards (antmaze but umaze)
    num_backup_candidates: int = 10  # next actions per transition of max_q_backup
    num_candidates: int = 50  # [code] actions drawn per observation when acting
    ema_period: int = 5  # [code] updates between two moves of the target policy
    act_with_ema: bool = False  # [code] the online policy acts, the target critic selects
    cross_normaliser: bool = True  # [code] Q_1's loss is divided by |Q_2| and the reverse


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 3e-4  # Adam step size of the policy, > 0
    critic_lr: float = 3e-4  # Adam step size of the critics, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant (the paper's decay hardly acts)
    max_grad_norm: float = 9.0  # largest global gradient norm of either network, > 0 (9: hopper-medium)
    q_weight: float = 1.0  # eta, weight of the Q term; 0 is behaviour cloning
    q_start: float = 0.0  # the policy only imitates before this update, while the critic learns
    discount_factor: float = 0.99  # gamma in [0, 1]
    polyak: float = 0.005  # share of the online critic in its target per update, in (0, 1]
    ema_rate: float = 0.005  # share of the online policy in its target per move, in (0, 1]
    ema_start: float = 1000.0  # [code] the target policy stays at its initial weights before this update
    selection_temperature: float = 1.0  # of softmax(Q) over the candidates, in units of Q, > 0
    act_temperature: float = 1.0  # scale of the noise injected while acting, >= 0


class ChainPolicy(NamedTuple):
    """What differs between the methods.

    init(key) -> params
    loss(key, params, state, obs [B, O], action [B, U]) -> (how badly it imitates, metrics)
    sample(key, params, obs [*B, O], temperature) -> action [*B, U] in [-1, 1], with gradients through its chain
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[Key, PyTree, TrainState, Array, Array], tuple[Array, Metrics]]
    sample: Callable[..., Array]


def _check(config: Config) -> None:
    for name in ("num_candidates", "num_backup_candidates", "ema_period"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}; it must be at least 1.")


def climb(
    key: Key,
    state: TrainState,
    batch: Transition,
    critic_loss: Callable[[PyTree, Key, TrainState, Transition], tuple[Array, Metrics]],
    policy_loss: Callable[[PyTree, PyTree, Key, TrainState, Transition], tuple[Array, Metrics]],
    ema_period: int,
) -> tuple[TrainState, Metrics]:
    """One update of "critic" and then of "policy", which climbs the critic that has just been updated [code].

    Args:
      key: consumed.
      state: before it; hyperparameters as `HParams`.
      batch: transitions.
      critic_loss: (params, key, state, batch) -> (loss, metrics).
      policy_loss: (params, the new critic's, key, state, batch) -> (loss, metrics).
      ema_period: updates between two moves of the target policy.
    """
    h = state.hparams
    key_critic, key_policy = jax.random.split(key)
    rate, critic_rate = (cosine_decay(lr, state.step, h.lr_decay_steps) for lr in (h.lr, h.critic_lr))
    critic = learn(state, "critic", lambda params: critic_loss(params, key_critic, state, batch), critic_rate)
    actor = learn(state, "policy", lambda params: policy_loss(params, critic.params, key_policy, state, batch), rate)
    moves = (state.step >= h.ema_start) & (state.step % ema_period == 0)
    rates = {"policy": jnp.where(moves, h.ema_rate, 0.0), "critic": h.polyak}
    return next_state(state, {"policy": actor, "critic": critic}, rates)


def make_chain_q(
    policy: ChainPolicy, config: Config, spec: Spec, *, normalise_target: bool = False, cql_samples: int = 0
) -> Algorithm:
    """The algorithm around a policy.

    Args:
      policy: see `ChainPolicy`.
      config: the method's own, or one that inherits from it.
      spec: the task.
      normalise_target: divide the critic's target by its standard deviation over the batch.
      cql_samples: uniform actions per transition in a penalty on the critics, whose weight is `cql_weight` of the
        method's hyperparameters; 0: no penalty, and none of its random numbers.

    Raises:
      ValueError: num_candidates, num_backup_candidates or ema_period below 1, or cql_samples below 0.
    """
    _check(config)
    if cql_samples < 0:
        raise ValueError(f"cql_samples={cql_samples}; it must be at least 0 (no penalty), usually 10.")
    critics = make_critics(
        spec, config.critic_hidden, config.critic_activation, config.critic_layer_norm, bias=config.critic_bias
    )
    num_backup = config.num_backup_candidates if config.max_q_backup else 1

    def init(key: Key, hparams: Any) -> TrainState:
        key_policy, key_critic = jax.random.split(key)
        params = {"policy": policy.init(key_policy), "critic": critics.init(key_critic)}
        return initial_state(params, hparams)

    def critic_loss(params: PyTree, key: Key, state: TrainState, batch: Transition) -> tuple[Array, Metrics]:
        if cql_samples:
            key, key_penalty = jax.random.split(key)

        def sample(obs: Array) -> Array:
            return policy.sample(key, state.target_params["policy"], obs)

        factor = state.hparams.discount_factor
        next_value = sampled_value(critics, state.target_params["critic"], sample, batch.next_obs, num_backup)
        if normalise_target:  # y / std(y): both of its terms
            y = td_target(batch.reward, batch.discount, next_value, factor)
            scale = 1.0 / (jnp.std(y, ddof=1) + 1e-6)
            batch, next_value = dataclasses.replace(batch, reward=scale * batch.reward), scale * next_value
        if cql_samples:
            proposals, weight = uniform_actions(key_penalty, cql_samples, batch.action), state.hparams.cql_weight
            return conservative_td_loss(critics, params, batch, next_value, factor, proposals, cql_weight=weight)
        return td_loss(critics, params, batch, next_value, factor)

    def policy_loss(
        params: PyTree, critic: PyTree, key: Key, state: TrainState, batch: Transition
    ) -> tuple[Array, Metrics]:
        key_own, key_sample, key_coin = jax.random.split(key, 3)
        own, metrics = policy.loss(key_own, params, state, batch.obs, batch.action)
        q = critics.q(critic, batch.obs, policy.sample(key_sample, params, batch.obs))
        coin = jax.random.bernoulli(key_coin).astype(jnp.int32)  # one per update, not per example
        q_loss = normalised_q_loss(q[coin], q[1 - coin] if config.cross_normaliser else q[coin])
        q_weight = jnp.where(state.step >= state.hparams.q_start, state.hparams.q_weight, 0.0)
        loss = own + q_weight * q_loss
        return loss, {"policy_loss": loss, "bc_loss": own, "q_policy": jnp.mean(q), **metrics}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        return climb(key, state, batch, critic_loss, policy_loss, config.ema_period)

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        key_sample, key_select = jax.random.split(key)
        actor = (state.target_params if config.act_with_ema else state.params)["policy"]
        many = jnp.broadcast_to(obs, (config.num_candidates, *obs.shape))
        candidates = policy.sample(key_sample, actor, many, state.hparams.act_temperature)
        q = jnp.min(critics.q(state.target_params["critic"], many, candidates), axis=0)  # [N, *B]
        action = draw_candidate(key_select, candidates, q, state.hparams.selection_temperature)
        return jnp.expand_dims(action, -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
