"""OMAR: a deterministic policy drawn to the best action that a search of Q finds, over critics that are held down.

critic   y = r + gamma (1 - terminated) min_i Q_i'(s', pi'(s'))
         gap_i = log E_{a ~ mu} exp(Q_i(s, a) - log mu(a)) - Q_i(s, a_data)
         loss = sum_i E [(Q_i(s, a) - y)**2 + cql_weight gap_i]
         mu: cql_samples uniform actions and, if cql_policy_samples, as many of pi(s) and of pi(s') with noise [code]
search   a_n ~ clip N(m_k, std_k**2),  n = 1 .. cem_samples,  k = 0 .. cem_rounds - 1;  m_0 = 0,  std_0 = cem_std
         m_{k+1} = sum_n softmax_n(Q_1(s, a_n)) a_n,   std_{k+1}**2 = mean_n (a_n - m_{k+1})**2
         with cem_elites = e: mean and deviation (over e - 1) of the best e of this round and of the last best [code]
         a_hat: the best of the last round or pi(s), whichever has the larger Q_1
policy   loss = c E|pi(s) - a_hat|**2 / U - (1 - c) E Q_1(s, pi(s)) + action_penalty E|pi(s)|**2 / U,   c = omar_weight
         cem_rounds = 0: loss = -E Q_1(s, pi(s)) + action_penalty E|pi(s)|**2 / U, which is MA-CQL
acting   pi(s) = tanh m(s), without noise; both targets move with every update

This is the method of one agent, which sees nothing of the others: with an axis of agents around it, each has networks
of its own. The search gets no gradient, and the policy follows the critic that has just been updated [code].

Where the code differs: it adds up exp(Q - log mu) where the mean is taken here, so its gap is larger by a constant; it
takes the density of the policy's noisy actions where the logarithm belongs; its networks begin with batch
normalisation, for which `normalise_obs` stands here; the last layer of its policy starts within 0.003.

Reference: Pan, Huang, Ma and Xu 2022, arXiv:2111.11188; details that only the code shows are marked [code].
"""

from collections.abc import Callable
import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.critics import conservative_td_loss, make_critics, uniform_actions
from jaxdiff.algorithms.gaussian import make_deterministic_actor, normal_log_prob
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.steps import initial_state, learn, next_state
from jaxdiff.rl import select_candidate
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are those of the particle tasks [code]."""

    actor_hidden: tuple[int, ...] = (64, 64)
    actor_activation: str = "relu"
    actor_layer_norm: bool = False
    critic_hidden: tuple[int, ...] = (64, 64)
    critic_activation: str = "relu"
    critic_layer_norm: bool = False
    cql_samples: int = 10  # uniform actions in the penalty
    cql_policy_samples: int = 0  # actions of pi(s), and as many of pi(s'), in the penalty; 10 for HalfCheetah
    cem_rounds: int = 3  # of the search; 0: none, and the policy only climbs Q
    cem_samples: int = 10  # actions per round
    cem_elites: int = 0  # best actions that make the next round's mean; 0: all, by softmax of Q


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars; the defaults are those of the particle tasks [code]."""

    lr: float = 0.01  # Adam step size of the policy, > 0
    critic_lr: float = 0.01  # Adam step size of the critics, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 0.5  # largest global gradient norm of either network, > 0
    omar_weight: float = 0.9  # c in [0, 1], from imitating the search to climbing Q; tuned per dataset
    cql_weight: float = 5.0  # of the penalty, >= 0; tuned per dataset
    cql_noise: float = 0.2  # standard deviation of the policy's actions in the penalty, > 0
    cem_std: float = 2.0  # of the search's first round, > 0
    action_penalty: float = 1e-3  # of the square of the policy's action, >= 0
    discount_factor: float = 0.95  # gamma in [0, 1]
    polyak: float = 0.01  # share of the online networks in their targets per update, in (0, 1]


def _check(config: Config) -> None:
    if config.cql_samples < 1 or config.cql_policy_samples < 0:
        raise ValueError(
            f"cql_samples={config.cql_samples} and cql_policy_samples={config.cql_policy_samples}; allowed: at least 1 "
            "and at least 0. For critics without a penalty set hparams.cql_weight = 0."
        )
    if config.cem_rounds < 0 or config.cem_samples < 1:
        raise ValueError(
            f"cem_rounds={config.cem_rounds} and cem_samples={config.cem_samples}; allowed: at least 0 (no search) "
            "and at least 1."
        )
    if config.cem_elites and not 2 <= config.cem_elites <= config.cem_samples:
        raise ValueError(
            f"cem_elites={config.cem_elites}; allowed: 0 (softmax of Q), or 2 to cem_samples={config.cem_samples}."
        )


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task.

    Raises:
      ValueError: counts of actions or rounds out of range.
      KeyError: unknown activation.
    """
    _check(config)
    actor = make_deterministic_actor(spec, config.actor_hidden, config.actor_activation, config.actor_layer_norm)
    critics = make_critics(spec, config.critic_hidden, config.critic_activation, config.critic_layer_norm)

    def init(key: Key, hparams: HParams) -> TrainState:
        key_policy, key_critic = jax.random.split(key)
        params = {"policy": actor.init(key_policy), "critic": critics.init(key_critic)}
        return initial_state(params, hparams)

    def draw_proposals(key: Key, policy: PyTree, h: HParams, batch: Transition) -> tuple[Array, Array]:
        """Actions [N, B, U] of mu with their log mu [N, B]."""
        key_uniform, key_noise = jax.random.split(key)
        uniform, flat = uniform_actions(key_uniform, config.cql_samples, batch.action)
        if not config.cql_policy_samples:
            return uniform, flat
        centres = jnp.stack([actor.action(policy, batch.obs), actor.action(policy, batch.next_obs)])
        noisy = noisy_actions(key_noise, centres, config.cql_policy_samples, h.cql_noise)
        action, log_density = (jax.lax.collapse(part, 0, 2) for part in noisy)
        return jnp.concatenate([uniform, action]), jnp.concatenate([flat, log_density])

    def wanted_action(key: Key, critic: PyTree, h: HParams, obs: Array, action: Array) -> Array:
        """a_hat [B, U] for the policy's actions [B, U]."""
        first = jax.tree.map(lambda leaf: leaf[:1], critic)  # Q_1 alone

        def value(candidates: Array) -> Array:
            return critics.q(first, jnp.broadcast_to(obs, (candidates.shape[0], *obs.shape)), candidates)[0]

        found = cross_entropy_search(
            key,
            value,
            action.shape,
            rounds=config.cem_rounds,
            num_samples=config.cem_samples,
            num_elites=config.cem_elites,
            std=h.cem_std,
        )
        pair = jnp.stack([action, found])  # of equals the policy's own
        return jax.lax.stop_gradient(select_candidate(pair, jnp.argmax(value(pair), axis=0)))

    def policy_loss(params: PyTree, key: Key, critic: PyTree, h: HParams, obs: Array) -> tuple[Array, Metrics]:
        action = actor.action(params, obs)
        q = jnp.mean(critics.q(critic, obs, action)[0])
        penalty = h.action_penalty * jnp.mean(jnp.square(action))
        if not config.cem_rounds:
            return penalty - q, {"policy_loss": penalty - q, "q_policy": q}
        search_loss = jnp.mean(jnp.square(action - wanted_action(key, critic, h, obs, action)))
        loss = h.omar_weight * search_loss - (1.0 - h.omar_weight) * q + penalty
        return loss, {"policy_loss": loss, "search_loss": search_loss, "q_policy": q}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        h = state.hparams
        key_proposals, key_search = jax.random.split(key)
        proposals = draw_proposals(key_proposals, state.params["policy"], h, batch)
        next_action = actor.action(state.target_params["policy"], batch.next_obs)
        next_value = jnp.min(critics.q(state.target_params["critic"], batch.next_obs, next_action), axis=0)
        rate, critic_rate = (cosine_decay(lr, state.step, h.lr_decay_steps) for lr in (h.lr, h.critic_lr))

        def critic_loss(params: PyTree) -> tuple[Array, Metrics]:
            return conservative_td_loss(
                critics, params, batch, next_value, h.discount_factor, proposals, cql_weight=h.cql_weight
            )

        critic = learn(state, "critic", critic_loss, critic_rate)
        policy = learn(
            state, "policy", lambda params: policy_loss(params, key_search, critic.params, h, batch.obs), rate
        )
        return next_state(state, {"policy": policy, "critic": critic}, {"policy": h.polyak, "critic": h.polyak})

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        del key  # nothing is drawn
        check_obs(obs, spec)
        return jnp.expand_dims(actor.action(state.params["policy"], obs), -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())


def noisy_actions(key: Key, centre: Array, num_actions: int, std: Array | float) -> tuple[Array, Array]:
    """Actions [N, *B, U] around centre [*B, U] clipped to [-1, 1], and their log density [N, *B] before clipping."""
    noise = std * jax.random.normal(key, (num_actions, *centre.shape))
    log_density = normal_log_prob(noise, jnp.zeros_like(noise), jnp.log(std))
    return jnp.clip(centre[None] + noise, -1.0, 1.0), log_density


def cross_entropy_search(
    key: Key,
    value: Callable[[Array], Array],
    shape: tuple[int, ...],
    *,
    rounds: int,
    num_samples: int,
    num_elites: int,
    std: Array | float,
) -> Array:
    """The best action that a cross-entropy search from N(0, std**2) has in hand after its last round.

    Args:
      key: consumed.
      value: actions [N, *B, U] -> what to maximise [N, *B].
      shape: of the result, [*B, U].
      rounds: at least 1; one after the other in the program.
      num_samples: N, actions per round.
      num_elites: as `Config.cem_elites`; these stay in hand from round to round.
      std: of the first round; may be traced.

    Returns:
      Actions [*B, U] in [-1, 1].
    """
    mean, spread = jnp.zeros(shape), jnp.full(shape, std)
    kept: tuple[Array, ...] = ()
    for noise in jax.random.normal(key, (rounds, num_samples, *shape)):
        action = jnp.concatenate([jnp.clip(mean[None] + spread[None] * noise, -1.0, 1.0), *kept])
        q = value(action)
        if num_elites:
            index = jnp.moveaxis(jax.lax.top_k(jnp.moveaxis(q, 0, -1), num_elites)[1], -1, 0)
            kept = (jnp.take_along_axis(action, index[..., None], axis=0),)
        mean, spread = refit(action, q, kept)
    return select_candidate(action, jnp.argmax(q, axis=0))


def refit(action: Array, q: Array, elites: tuple[Array, ...] = ()) -> tuple[Array, Array]:
    """Mean and standard deviation of the next round, [*B, U] each.

    Args:
      action: [N, *B, U].
      q: [N, *B].
      elites: none, for the mean by softmax of q and the plain deviation around it; or one array [M, *B, U], whose mean
        and deviation (over M - 1) are taken.
    """
    if elites:
        return jnp.mean(elites[0], axis=0), jnp.std(elites[0], axis=0, ddof=1)
    mean = jnp.sum(jax.nn.softmax(q, axis=0)[..., None] * action, axis=0)
    return mean, jnp.sqrt(jnp.mean(jnp.square(action - mean[None]), axis=0))
