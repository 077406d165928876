"""CQL(H): soft actor-critic whose critics are held down wherever the data have no action.

critic   y = r + gamma (1 - terminated) min_i Q_i'(s', a'),  a' ~ pi(s');   no entropy in the backup [code]
         gap_i = log E_{a ~ mu} exp(Q_i(s, a) - log mu(a)) - Q_i(s, a_data)
         loss = sum_i E [(Q_i(s, a) - y)**2 + m penalty_weight (gap_i - penalty_gap)]
         mu: num_actions uniform actions, as many of pi(s), and as many of pi(s') that are valued at s [code]
policy   loss = E [entropy_weight log pi(a|s) - min_i Q_i(s, a)],  a ~ pi(s), a tanh of a Gaussian
entropy  log entropy_weight descends  -log entropy_weight (log pi(a|s) + target),  target = -U: learned as in SAC [code]
m        the Lagrange multiplier descends  -m penalty_weight mean_i (gap_i - penalty_gap); it starts at 1, and with
         penalty_lr = 0 stays there, which is CQL with a fixed weight
acting   one draw of pi, its standard deviation times act_temperature; 0, with which the code scores, is its middle

All gradients are taken at the networks the update began with, but for entropy_weight, which moves first [code].
Until q_start the policy maximises log pi(a_data|s) in place of Q [code].

Where paper and code differ: the squared error has a factor 1/2 in the paper (eq. 4) and none in the code, as here. The
paper's mu has no actions of s'. The paper averages exp(Q - log mu) over the N actions, as here; the code adds them up,
so that its gap is larger by log N (3.4 at N = 30): a threshold tau of the code is penalty_gap = tau - 3.4. Left out:
the variant CQL(rho) and the max-Q backup.

Reference: Kumar, Zhou, Tucker and Levine 2020, arXiv:2006.04779, eq. 4 and appendix F; SAC: Haarnoja et al. 2018,
arXiv:1812.05905; details that only the released code shows are marked [code].
"""

from collections.abc import Callable
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.critics import make_critics, td_loss, uniform_actions, value_gaps
from jaxdiff.algorithms.gaussian import make_squashed_actor
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.steps import Learned, initial_state, learn, next_state
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition

MAX_MULTIPLIER = 1e6  # [code]


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    actor_hidden: tuple[int, ...] = (256, 256, 256)  # [code]
    actor_activation: str = "relu"
    actor_layer_norm: bool = False
    critic_hidden: tuple[int, ...] = (256, 256, 256)  # [code]
    critic_activation: str = "relu"
    critic_layer_norm: bool = False
    num_actions: int = 10  # of each kind in the penalty


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 3e-5  # Adam step size of the policy and of the entropy's weight, > 0; 1e-4 in the code's readme
    critic_lr: float = 3e-4  # Adam step size of the critics, > 0
    penalty_lr: float = 3e-4  # Adam step size of the multiplier's logarithm; 0: a fixed penalty
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 1e9  # largest global gradient norm of any network, > 0; the paper clips none
    penalty_weight: float = 1.0  # alpha, >= 0; 5 or 10 where it is fixed [code, readme]
    penalty_gap: float = 6.6  # tau, how far values may rise off the data, in units of Q; tau = 10 of the code
    target_entropy: float = -1.0  # of the policy per action number, in nats
    q_start: float = 0.0  # the policy only imitates before this update; 40 000 in the code
    discount_factor: float = 0.99  # gamma in [0, 1]
    polyak: float = 0.005  # share of the online critic in its target per update, in (0, 1]
    act_temperature: float = 1.0  # factor on the policy's std while acting, >= 0; 0 where the code scores


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      ValueError: num_actions below 1.
      KeyError: unknown activation.
    """
    if config.num_actions < 1:
        raise ValueError(f"num_actions={config.num_actions}; the penalty needs at least 1 of each kind, usually 10.")
    actor = make_squashed_actor(spec, config.actor_hidden, config.actor_activation, config.actor_layer_norm)
    critics = make_critics(spec, config.critic_hidden, config.critic_activation, config.critic_layer_norm)

    def init(key: Key, hparams: HParams) -> TrainState:
        key_policy, key_critic = jax.random.split(key)
        params = {
            "policy": actor.init(key_policy),
            "critic": critics.init(key_critic),
            "log_entropy_weight": jnp.zeros(()),
            "log_multiplier": jnp.zeros(()),
        }
        return initial_state(params, hparams)

    def draw_proposals(key: Key, policy: PyTree, batch: Transition) -> tuple[Array, Array]:
        """Actions [3 N, B, U] of mu with their log mu [3 N, B], a third of each kind."""
        key_uniform, key_here, key_there = jax.random.split(key, 3)
        uniform, flat = uniform_actions(key_uniform, config.num_actions, batch.action)
        many = (config.num_actions, *batch.obs.shape)
        here, log_here = actor.draw(key_here, policy, jnp.broadcast_to(batch.obs, many))
        there, log_there = actor.draw(key_there, policy, jnp.broadcast_to(batch.next_obs, many))
        return jnp.concatenate([uniform, here, there]), jnp.concatenate([flat, log_here, log_there])

    def penalty(log_multiplier: Array, gap: Array, h: HParams) -> Array:
        """[E] what is added to each critic's loss."""
        multiplier = jnp.clip(jnp.exp(log_multiplier), 0.0, MAX_MULTIPLIER)
        return multiplier * h.penalty_weight * (jnp.mean(gap, axis=-1) - h.penalty_gap)

    def critic_loss(
        params: PyTree, key: Key, proposals: tuple[Array, Array], state: TrainState, batch: Transition
    ) -> tuple[Array, Metrics]:
        next_action, _ = actor.draw(key, state.params["policy"], batch.next_obs)
        next_q = jnp.min(critics.q(state.target_params["critic"], batch.next_obs, next_action), axis=0)
        loss, metrics = td_loss(critics, params, batch, next_q, state.hparams.discount_factor)
        gap = value_gaps(critics, params, batch, proposals)
        loss += jnp.sum(penalty(state.params["log_multiplier"], gap, state.hparams))
        return loss, metrics | {"penalty_gap": jnp.mean(gap)}

    def policy_loss(
        params: PyTree, log_entropy_weight: Array, key: Key, state: TrainState, batch: Transition
    ) -> tuple[Array, Metrics]:
        action, log_prob = actor.draw(key, params, batch.obs)
        q = jnp.min(critics.q(state.params["critic"], batch.obs, action), axis=0)
        imitates = state.step < state.hparams.q_start
        merit = jnp.where(imitates, actor.log_prob(params, batch.obs, batch.action), q)
        loss = jnp.mean(jnp.exp(log_entropy_weight) * log_prob - merit)
        return loss, {"policy_loss": loss, "q_policy": jnp.mean(q), "entropy": -jnp.mean(log_prob)}

    def entropy_loss(log_entropy_weight: Array, key: Key, state: TrainState, obs: Array) -> tuple[Array, Metrics]:
        _, log_prob = actor.draw(key, state.params["policy"], obs)
        excess = jnp.mean(jax.lax.stop_gradient(log_prob)) + spec.action_dim * state.hparams.target_entropy
        return -log_entropy_weight * excess, {"entropy_weight": jnp.exp(log_entropy_weight)}

    def multiplier_loss(log_multiplier: Array, gap: Array, h: HParams) -> tuple[Array, Metrics]:
        return -jnp.mean(penalty(log_multiplier, gap, h)), {"multiplier": jnp.exp(log_multiplier)}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        h = state.hparams
        key_policy, key_next, key_proposals = jax.random.split(key, 3)
        proposals = draw_proposals(key_proposals, state.params["policy"], batch)
        gap = jax.lax.stop_gradient(value_gaps(critics, state.params["critic"], batch, proposals))

        def step(name: str, loss: Callable[[PyTree], tuple[Array, Metrics]], lr: Array) -> Learned:
            return learn(state, name, loss, cosine_decay(lr, state.step, h.lr_decay_steps))

        # The entropy's weight moves first, seeing the same actions as the policy [code].
        weight = step("log_entropy_weight", lambda x: entropy_loss(x, key_policy, state, batch.obs), h.lr)
        learned = {
            "log_entropy_weight": weight,
            "policy": step("policy", lambda x: policy_loss(x, weight.params, key_policy, state, batch), h.lr),
            "critic": step("critic", lambda x: critic_loss(x, key_next, proposals, state, batch), h.critic_lr),
            "log_multiplier": step("log_multiplier", lambda x: multiplier_loss(x, gap, h), h.penalty_lr),
        }
        return next_state(state, learned, dict.fromkeys(learned, h.polyak))  # only the critics' target is read

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        action = actor.sample(key, state.params["policy"], obs, state.hparams.act_temperature)
        return jnp.expand_dims(action, -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
