"""QGPO: a diffusion model of the data's actions, led to exp(beta Q) times their density by a learned energy.

support  a_1 .. a_M ~ behaviour model at s and at s', without gradient
policy   loss = E |eps - eps_theta|**2, the behaviour model alone; no value enters it
critic   y = r + gamma (1 - terminated) sum_j softmax_j(beta_Q Q'(s', a'_j)) Q'(s', a'_j),  Q' = min_i Q_i'
         loss = mean_i E (Q_i(s, a) - y)**2
energy   loss = -E sum_j softmax_j(beta Q'(s, a_j)) log softmax_j(f(s, alpha a_j + sigma eps_j, t)),  one t per state
acting   one sample under the score  grad log mu_t + guidance_scale grad f

At the optimum f = log E[exp(beta Q(s, a)) | a_t] up to a constant, so at guidance_scale = 1 the samples have density
mu(a|s) exp(beta Q(s, a)) / Z, where regression would teach f the mean of beta Q instead. That is exact for M -> inf:
the weights are normalised over the M actions, in the paper's code too, which for few of them flattens f a little. Only
acting reads guidance_scale, so a trained state can be evaluated at any.

Where this differs from the paper: it pre-trains the behaviour model and then stores M actions for every state of the
dataset. Here all three networks learn in one update, from support actions drawn anew with the behaviour model's running
average: no table of the dataset's size and no second program, at the price of one chain of 2 M B samples per update.
`q_start` restores the order: until then the behaviour model learns alone, and it goes on learning after. The energy is
f = a_t . g(s, a_t, t), which is any smooth function but for the constant that the loss leaves free; the paper's network
keeps that constant. The behaviour network is an MLP, not the paper's U-Net of dense layers, and x0-predictions are
clipped to [-1, 1].

Reference: Lu, Chen, Chen, Su, Li and Zhu 2023, arXiv:2304.12824; details that only its code shows are marked [code].
"""

from collections.abc import Callable
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import optax

from jaxdiff import diffusion
from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.critics import make_critics
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.algorithms.process import make_schedule
from jaxdiff.algorithms.steps import Learned, initial_state, learn, next_state
from jaxdiff.networks import MlpDenoiser
from jaxdiff.rl import polyak, soft_backup, td_target
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition

BEHAVIOUR = PolicyConfig(beta_max=20.0, num_levels=0, sampler="dpmpp_2m", t_end=1e-3, num_steps=15)


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    policy: PolicyConfig = BEHAVIOUR  # the behaviour model; continuous time and the vp schedule, as in the paper
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # [code]
    critic_activation: str = "relu"  # [code]
    critic_layer_norm: bool = False
    energy_hidden: tuple[int, ...] = (256, 256, 256, 256)  # [code]
    energy_activation: str = "silu"  # [code]
    num_candidates: int = 16  # M, support actions per state; 32 in antmaze [code]
    act_with_ema: bool = True  # act with averaged weights; the paper, whose behaviour model is finished, has none


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 1e-4  # Adam step size of the behaviour model, > 0
    critic_lr: float = 3e-4  # Adam step size of the critics, > 0
    energy_lr: float = 3e-4  # Adam step size of the energy, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 1e9  # largest global gradient norm of any network, > 0; the paper clips none
    q_start: float = 0.0  # critic and energy stay as they are before this update
    inverse_temperature: float = 3.0  # beta, how greedy the policy is at guidance_scale = 1; in 1 / units of Q, >= 0
    backup_inverse_temperature: float = 1.0  # beta_Q, how greedy the backup is; >= 0, 20 in antmaze
    guidance_scale: float = 1.0  # s, of the energy's gradient while acting; 1 is exact, 0 the behaviour model
    discount_factor: float = 0.99  # gamma in [0, 1]
    polyak: float = 0.005  # share of the online critic in its target per update, in (0, 1]
    ema_rate: float = 0.005  # share of the new behaviour model in its average per update, in (0, 1]
    act_temperature: float = 1.0  # scale of the noise injected while acting; none is by the default sampler


def contrastive_loss(energy: Array, log_weight: Array) -> Array:
    """-sum_j softmax_j(log_weight) log softmax_j(energy): how badly the energies rank the support.

    Smallest, and equal to the entropy of the weights, where energy = log_weight + constant.

    Args:
      energy: [M, *B] f of the noised support actions.
      log_weight: [M, *B] beta Q of the clean ones; no gradient goes into it.

    Returns:
      [*B].

    Reference: Lu et al. 2023, arXiv:2304.12824, contrastive energy prediction.
    """
    weight = jax.nn.softmax(jax.lax.stop_gradient(log_weight), axis=0)
    return -jnp.sum(weight * jax.nn.log_softmax(energy, axis=0), axis=0)


def _networks(state: TrainState) -> tuple[dict[str, PyTree], ...]:
    return state.params, state.opt_state, state.target_params


def _check(config: Config) -> None:
    if config.num_candidates < 2:
        raise ValueError(f"num_candidates={config.num_candidates}; a contrast needs at least 2 support actions.")


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      ValueError: num_candidates below 2, and what `make_policy` raises.
    """
    _check(config)
    policy, schedule = make_policy(config.policy, spec), make_schedule(config.policy)
    critics = make_critics(spec, config.critic_hidden, config.critic_activation, config.critic_layer_norm)
    field = MlpDenoiser(spec.action_dim, config.energy_hidden, time_dim=32, activation=config.energy_activation)

    def energy(params: PyTree, x: Array, level: diffusion.Level, obs: Array) -> Array:
        """f(s, a_t, t) = a_t . g(s, a_t, t): [*B]."""
        t = jnp.broadcast_to(1000.0 * jnp.asarray(level.t, x.dtype), x.shape[:-1])
        return jnp.sum(x * field.apply(params, x, t, obs), axis=-1)  # type: ignore[arg-type]

    def smaller_q(params: PyTree, obs: Array, action: Array) -> Array:
        return jnp.min(critics.q(params, obs, action), axis=0)

    def init(key: Key, hparams: HParams) -> TrainState:
        key_policy, key_critic, key_energy = jax.random.split(key, 3)
        action, obs = jnp.zeros((spec.action_dim,)), jnp.zeros((spec.obs_dim,))
        params = {
            "policy": policy.init(key_policy),
            "critic": critics.init(key_critic),
            "energy": field.init(key_energy, action, jnp.zeros(()), obs),
        }
        return initial_state(params, hparams)

    def critic_loss(params: PyTree, support: Array, state: TrainState, batch: Transition) -> tuple[Array, Metrics]:
        h = state.hparams
        next_obs = jnp.broadcast_to(batch.next_obs, (*support.shape[:-1], spec.obs_dim))
        next_q = smaller_q(state.target_params["critic"], next_obs, support)
        next_value = soft_backup(next_q, h.backup_inverse_temperature)
        target = td_target(batch.reward, batch.discount, next_value, h.discount_factor)
        q = critics.q(params, batch.obs, batch.action)
        loss = jnp.mean(jnp.square(q - target[None]))
        return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_mean": jnp.mean(target)}

    def energy_loss(
        params: PyTree, critic: PyTree, key: Key, support: Array, h: HParams, obs: Array
    ) -> tuple[Array, Metrics]:
        key_time, key_noise = jax.random.split(key)
        many = jnp.broadcast_to(obs, (*support.shape[:-1], spec.obs_dim))
        q = smaller_q(critic, many, support)
        # One t for all support actions of a state: their energies are compared at the same noise level only.
        level = diffusion.level_at(schedule, diffusion.uniform_times(key_time, obs.shape[:-1]))
        level = jax.tree.map(lambda one: jnp.broadcast_to(one, q.shape), level)
        noised = diffusion.add_noise(level, support, jax.random.normal(key_noise, support.shape))
        loss = jnp.mean(contrastive_loss(energy(params, noised, level, many), h.inverse_temperature * q))
        spread = jnp.mean(jnp.std(q, axis=0))
        return loss, {"energy_loss": loss, "q_policy": jnp.mean(q), "q_support_std": spread}

    def draw_support(key: Key, params: PyTree, batch: Transition) -> tuple[Array, Array]:
        """[M, B, U] at s and at s', in one chain."""
        obs = jnp.concatenate([batch.obs, batch.next_obs])
        many = jnp.broadcast_to(obs, (config.num_candidates, *obs.shape))
        here, there = jnp.split(jax.lax.stop_gradient(policy.sample(key, params, many)), 2, axis=1)
        return here, there

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        h = state.hparams
        key_policy, key_support, key_energy = jax.random.split(key, 3)
        support, next_support = draw_support(key_support, state.target_params["policy"], batch)

        def policy_loss(params: PyTree) -> tuple[Array, Metrics]:
            loss = jnp.mean(policy.loss(key_policy, params, batch.obs, batch.action))
            return loss, {"bc_loss": loss}

        def step(name: str, loss: Callable[[PyTree], tuple[Array, Metrics]], lr: Array) -> Learned:
            return learn(state, name, loss, cosine_decay(lr, state.step, h.lr_decay_steps))

        actor = step("policy", policy_loss, h.lr)
        critic = step("critic", lambda params: critic_loss(params, next_support, state, batch), h.critic_lr)
        target_critic = polyak(critic.params, state.target_params["critic"], h.polyak)
        # The energy is taught by the target critics that have just moved [code].
        guidance = step(
            "energy", lambda params: energy_loss(params, target_critic, key_energy, support, h, batch.obs), h.energy_lr
        )
        rates = {"policy": h.ema_rate, "critic": h.polyak, "energy": h.ema_rate}
        after, metrics = next_state(state, {"policy": actor, "critic": critic, "energy": guidance}, rates)
        learns = state.step >= h.q_start
        for now, before in zip(_networks(after), _networks(state), strict=True):
            for name in ("critic", "energy"):
                now[name] = optax.tree.where(learns, now[name], before[name])
        return after, metrics

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        params, h = state.target_params if config.act_with_ema else state.params, state.hparams

        def guide(denoise: diffusion.Denoiser) -> diffusion.Denoiser:
            return diffusion.value_gradient(
                denoise, lambda x, level: energy(params["energy"], x, level, obs), h.guidance_scale
            )

        action = policy.sample(key, params["policy"], obs, h.act_temperature, guide)
        return jnp.expand_dims(action, -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
