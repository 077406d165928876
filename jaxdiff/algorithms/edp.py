"""EDP: a diffusion policy improved at one network call per update, whatever the number of its noise levels.

The imitation loss noises a data action, a_t = alpha a + sigma eps, and asks the network once. The same answer gives an
action (action approximation), and the guides act on it instead of on a sample of the whole chain:

    a0_hat = clip((a_t - sigma eps_theta(a_t, t, s)) / alpha, -1, 1)
    policy   loss = bc_weight E |eps - eps_theta|**2 + q_weight L_guide
    td3      L = -E Q_i(s, a0_hat) / E|Q_i(s, a0_hat)|, i by one coin per update
    crr      L = -E min(exp(awr_temperature A), 20) log N(a; a0_hat, 1),  A = min_i Q_i(s, a) - mean_n min_i Q_i(s, a_n)
    iql      L = -E min(exp(awr_temperature A), 100) log N(a; a0_hat, 1),  A = min_i Q_i'(s, a) - V(s)
    critic   y = r + gamma (1 - terminated) min_i Q_i'(s', a'),  a' ~ target policy, by the whole sampler; iql: V(s')
             loss = sum_i E (Q_i(s, a) - y)**2
    acting   num_candidates samples, one drawn with probability softmax(min_i Q_i / selection_temperature)

Online policy and online critics act [code]. Order: critic and policy from the same weights for td3 and crr (so the
guide sees the critics before their step), V, policy, critic for iql [code]. The paper's text, as far as we know it,
leaves open which critic normalises td3 and how old the critics are: both are the code's here, and Diffusion-QL's with
`cross_normaliser` and `updated_critic`. Left out: the code's learned standard deviation in place of 1, its clipping of
data actions at 0.999 and of each critic's gradient by itself, and kernels drawn from lecun_normal. The code clips the
noise prediction by the level of the floored index, here x0_hat is clipped at the level itself; and networks here have
Diffusion-QL's time embedding, [sin, cos] with frequencies over half - 1.

Reference: Kang et al. 2023, arXiv:2305.20081; details that only its code shows are marked [code].
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.critics import make_critics, make_value, sampled_value, td_loss
from jaxdiff.algorithms.implicit import make_implicit_critics
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.algorithms.steps import Learned, initial_state, learn, next_state
from jaxdiff.rl import awr_weight, draw_candidate, normalised_q_loss
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition

MAX_WEIGHT = {"crr": 20.0, "iql": 100.0}  # [code] largest weight of an action
GUIDES = ("td3", *MAX_WEIGHT)
VALUE_ACTIONS = ("policy", "gaussian")

POLICY = PolicyConfig(schedule="linear", num_levels=1000, sampler="dpm_solver_3", num_steps=15, t_end=1e-3)


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    policy: PolicyConfig = POLICY
    guide: str = "td3"  # one of GUIDES
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    critic_activation: str = "mish"
    critic_layer_norm: bool = False
    max_q_backup: bool = False  # td3, crr: the best of several next actions, for sparse rewards
    num_backup_candidates: int = 10  # next actions per transition of max_q_backup
    cross_normaliser: bool = False  # td3: Q_1's loss is divided by |Q_2| and the reverse, as in Diffusion-QL
    updated_critic: bool = False  # td3, crr: the guide sees the critics after their step, as in Diffusion-QL
    value_actions: str = "policy"  # crr, one of VALUE_ACTIONS: a_n by the whole sampler, or from N(a0_hat, 1) [code]
    num_value_actions: int = 10  # [code] crr: actions whose values are averaged
    num_candidates: int = 10  # actions drawn per observation when acting; 50 in the code
    ema_period: int = 5  # [code] updates between two moves of the target policy
    act_with_ema: bool = False  # [code] the online policy acts


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 3e-4  # Adam step size of the policy, > 0
    critic_lr: float = 3e-4  # Adam step size of the critics, > 0, never decayed
    value_lr: float = 3e-4  # iql: Adam step size of V, > 0, never decayed
    lr_decay_steps: float = 0.0  # updates of a cosine decay of lr to 0; 0: constant
    max_grad_norm: float = 5.0  # largest global gradient norm of any network, > 0 (5: locomotion)
    bc_weight: float = 1.0  # weight of imitation
    q_weight: float = 1.0  # weight of the guide; 0 is behaviour cloning. 2 for td3 in the code
    q_start: float = 0.0  # the policy only imitates before this update, while the critics learn
    awr_temperature: float = 3.0  # iql, crr: factor on the advantage; 3 for iql, 1 for crr
    expectile: float = 0.7  # iql: of Q that V regresses on, in (0, 1)
    discount_factor: float = 0.99  # gamma in [0, 1]
    polyak: float = 0.005  # share of the online critics in their targets per update, in (0, 1]
    ema_rate: float = 0.005  # share of the online policy in its target per move, in (0, 1]
    ema_start: float = 1000.0  # [code] the target policy stays at its initial weights before this update
    selection_temperature: float = 1.0  # of softmax(Q) over the candidates, in units of Q, > 0
    act_temperature: float = 1.0  # scale of the noise injected while acting, >= 0; nothing for ODE samplers


def _check(config: Config) -> None:
    for name, known in (("guide", GUIDES), ("value_actions", VALUE_ACTIONS)):
        if getattr(config, name) not in known:
            raise unknown_name(name, getattr(config, name), known)
    for name in ("num_candidates", "num_backup_candidates", "num_value_actions", "ema_period"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}; it must be at least 1.")


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      KeyError: an unknown guide or value_actions, and what `make_policy` raises.
      ValueError: a count below 1, and what `make_policy` raises.
    """
    _check(config)
    policy = make_policy(config.policy, spec)
    sizes = (config.critic_hidden, config.critic_activation, config.critic_layer_norm)
    critics, value_function = make_critics(spec, *sizes), make_value(spec, *sizes)
    implicit = make_implicit_critics(config, spec)  # type: ignore[arg-type]  # has its fields, with other defaults
    num_backup = config.num_backup_candidates if config.max_q_backup else 1

    def init(key: Key, hparams: HParams) -> TrainState:
        key_policy, key_critic, key_value = jax.random.split(key, 3)
        params = {"policy": policy.init(key_policy), "critic": critics.init(key_critic)}
        if config.guide == "iql":
            params["value"] = value_function.init(key_value)
        return initial_state(params, hparams)

    def learn_critic(key: Key, state: TrainState, batch: Transition) -> Learned:
        def sample(obs: Array) -> Array:
            return policy.sample(key, state.target_params["policy"], obs)

        next_value = sampled_value(critics, state.target_params["critic"], sample, batch.next_obs, num_backup)

        def loss_fn(params: PyTree) -> tuple[Array, Metrics]:
            return td_loss(critics, params, batch, next_value, state.hparams.discount_factor)

        return learn(state, "critic", loss_fn, state.hparams.critic_lr)

    def climb(key: Key, critic: PyTree, obs: Array, x0_hat: Array) -> tuple[Array, Metrics]:
        q = critics.q(critic, obs, x0_hat)
        coin = jax.random.bernoulli(key).astype(jnp.int32)  # one per update, not per example
        loss = normalised_q_loss(q[coin], q[1 - coin] if config.cross_normaliser else q[coin])
        return loss, {"q_policy": jnp.mean(q)}

    def value_of_policy(key: Key, critic: PyTree, params: PyTree, x0_hat: Array, obs: Array) -> Array:
        many = jnp.broadcast_to(obs, (config.num_value_actions, *obs.shape))
        if config.value_actions == "policy":
            action = policy.sample(key, params, many)
        else:
            action = x0_hat[None] + jax.random.normal(key, (*many.shape[:-1], spec.action_dim))  # not clipped [code]
        return jnp.mean(implicit.q(critic, many, action), axis=0)

    def regress(advantage: Array, temperature: Array, x0_hat: Array, action: Array) -> tuple[Array, Metrics]:
        weight = jax.lax.stop_gradient(awr_weight(advantage, temperature, MAX_WEIGHT[config.guide]))
        log_prob = -0.5 * jnp.sum(jnp.square(action - x0_hat), axis=-1)  # up to a constant
        return -jnp.mean(weight * log_prob), {"weight_mean": jnp.mean(weight)}

    def policy_loss(
        params: PyTree, critic: PyTree, value: PyTree, key: Key, state: TrainState, batch: Transition
    ) -> tuple[Array, Metrics]:
        h, obs, action = state.hparams, batch.obs, batch.action
        key_bc, key_guide = jax.random.split(key)
        error, x0_hat = policy.imitate(key_bc, params, obs, action)
        if config.guide == "td3":
            guide, metrics = climb(key_guide, critic, obs, x0_hat)
        else:
            if config.guide == "crr":
                # No gradient through what the action is compared with, so none through the sampler either.
                middle = value_of_policy(key_guide, critic, *jax.lax.stop_gradient((params, x0_hat)), obs)
            else:
                middle = implicit.v(value, obs)
            advantage = implicit.q(critic, obs, action) - middle
            guide, metrics = regress(advantage, h.awr_temperature, x0_hat, action)
        bc_loss = jnp.mean(error)
        loss = h.bc_weight * bc_loss + jnp.where(state.step >= h.q_start, h.q_weight, 0.0) * guide
        return loss, {"policy_loss": loss, "bc_loss": bc_loss, "guide_loss": guide, **metrics}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        h = state.hparams
        key_critic, key_policy = jax.random.split(key)
        learned = {}
        if config.guide == "iql":
            learned["value"] = implicit.learn_value(state, batch)
            new_value = learned["value"].params
            learned["critic"] = implicit.learn_critic(state, new_value, batch)
            critic = state.target_params["critic"]
        else:
            new_value = None
            learned["critic"] = learn_critic(key_critic, state, batch)
            critic = learned["critic"].params if config.updated_critic else state.params["critic"]
        learned["policy"] = learn(
            state,
            "policy",
            lambda params: policy_loss(params, critic, new_value, key_policy, state, batch),
            cosine_decay(h.lr, state.step, h.lr_decay_steps),
        )

        moves = (state.step >= h.ema_start) & ((state.step + 1) % config.ema_period == 0)
        rates = {"policy": jnp.where(moves, h.ema_rate, 0.0), "critic": h.polyak, "value": h.polyak}
        return next_state(state, learned, rates)

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        key_sample, key_select = jax.random.split(key)
        actor = (state.target_params if config.act_with_ema else state.params)["policy"]
        many = jnp.broadcast_to(obs, (config.num_candidates, *obs.shape))
        candidates = policy.sample(key_sample, actor, many, state.hparams.act_temperature)
        q = implicit.q(state.params["critic"], many, candidates)
        action = draw_candidate(key_select, candidates, q, state.hparams.selection_temperature)
        return jnp.expand_dims(action, -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
