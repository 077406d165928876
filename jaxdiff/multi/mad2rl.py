"""MAD2RL: agents whose values of actions come out of a diffusion chain, and a mixer of them into the team's value.

chain    x_M ~ N(0, I);   x_{m-1} = (x_m - beta_m eps_m / sqrt(1 - abar_m)) / sqrt(alpha_m) + sqrt(btilde_m) z,
         eps_m = network(x_m, m, o_i);   beta_m those of the variance-preserving schedule, btilde_1 = 0
value    q_i = softmax(x_0), a number per action;   Q_tot = mixer(q_1[a_1] .. q_A[a_A]; s),   s all observations
target   y = r + gamma (1 - terminated) Q_tot'(max_a q_1'(o_1', a) .. ; s'), over the actions that are allowed in o_i'
loss     mean (y - Q_tot)**2 / 2, for chains and mixer at once, through all M steps of the chain
acting   the allowed action with the largest mean of q_i over `act_chains` chains
learning one chain, and a uniformly drawn allowed action with probability epsilon

Nothing is noised and no noise is predicted: the chain is a recurrent network with noise inside, which learns from the
temporal difference alone. Its numbers have no bounds, so predictions are not clipped. Two consequences:

* A softmax sums to 1, so every agent's best value lies between 1/n and 1, whatever the task pays: how much a state is
  worth is known to the mixer alone, and "vdn" and "own", which have none, need utility="logits".
* The best action of a noisy chain is noise, too: x_M comes out 1 / sqrt(abar_M) times as large, 12 times with the
  defaults, unless the network has learned to take it away. Averaging the values of several chains helps.

What is forbidden gets the value -1e9 after the softmax, as the paper has it, so the others' values do not depend on
the mask. It is read off the end of each observation (`Spec.mask_dim`), and networks do not see it. Where nothing is
allowed, everything is, as in the task.

From the paper: the chain, M = 7, three layers of 256, Adam at 5e-4, gamma 0.99, target rate 1e-3, the linear mixer
(mixer="linear", see `networks.QmixMixer`) with 2 x 64 units. Ours, where it says nothing: beta from 0.1 to 10, Mish,
the time embedding, exploration, the scale of rewards, gradient clipping, networks of an agent's own. The default mixer
is QMIX's, monotone, without which greedy agents need not be a greedy team. agent="mlp" has one MLP instead of a chain:
the paper's P-QMIX.

Reference: Liu et al. 2025, IEEE Transactions on Mobile Computing 24(3), arXiv:2406.06986; QMIX: arXiv:1803.11485.
"""

from collections.abc import Callable, Iterable
import dataclasses

import chex
from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff import diffusion
from jaxdiff.algorithms.steps import initial_state, learn, next_state
from jaxdiff.envs import discrete
from jaxdiff.envs.discrete import decode_onehot, encode_onehot
from jaxdiff.multi.batches import with_own_rewards
from jaxdiff.multi.mixing import make_mixing
from jaxdiff.multi.teams import noise_keys, team_size, together, with_id
from jaxdiff.networks import BIASES, Mlp, MlpDenoiser
from jaxdiff.rl import td_target
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition

FORBIDDEN = -1e9  # the value of an action that is not allowed
AGENTS = ("chain", "mlp")
UTILITIES: dict[str, Callable[[Array], Array]] = {"softmax": jax.nn.softmax, "logits": lambda x: x}
REWARDS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda r: r,
    "symlog": lambda r: jnp.sign(r) * jnp.log1p(jnp.abs(r)),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    agent: str = "chain"  # what values come out of, one of AGENTS
    utility: str = "softmax"  # how they come out, one of UTILITIES
    hidden: tuple[int, ...] = (256, 256, 256)
    activation: str = "mish"
    time_dim: int = 16
    num_steps: int = 7  # M, network calls per chain
    mixer: str = "qmix"  # one of mixing.MIXINGS
    mixer_width: int = 32
    mixer_hidden: tuple[int, ...] = (64, 64)
    share_params: bool = False  # one network for all agents, told which by a one-hot id
    act_chains: int = 1  # chains whose values are averaged when acting; an MLP has no noise to average
    beta_min: float = 0.1
    beta_max: float = 10.0
    rewards: str = "linear"  # what is learned of scaled rewards, one of REWARDS; symlog: sign(r) log(1 + |r|)


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 5e-4  # Adam step size, > 0
    max_grad_norm: float = 10.0  # largest global gradient norm, > 0
    discount_factor: float = 0.99  # gamma in [0, 1]
    target_rate: float = 1e-3  # share of the networks in their targets per update, in (0, 1]
    epsilon_start: float = 1.0  # chance of a random action before the first update
    epsilon_end: float = 0.05  # and from the last update of the decay on
    epsilon_updates: float = 9000.0  # updates that epsilon takes from start to end, on a straight line
    reward_scale: float = 1e-3  # multiplies rewards, before `Config.rewards`
    lyapunov_weight: float = 10.0  # V of tasks that trade queues for delay (vec): read by the task alone


def _check(config: Config, spec: Spec) -> None:
    team_size(spec)
    if spec.num_actions is None:
        raise ValueError(
            f"{spec.name} has continuous actions, and mad2rl compares the values of a finite number of them; choose a "
            "discrete task (vec, jumanji-*, game-payoff) or another method, such as dof_policy."
        )
    known: dict[str, tuple[str, Iterable[str]]] = {
        "agent": (config.agent, AGENTS),
        "utility": (config.utility, UTILITIES),
        "rewards": (config.rewards, REWARDS),
    }
    for field, (value, registry) in known.items():
        if value not in registry:
            raise unknown_name(field, value, registry)
    for name in ("num_steps", "act_chains"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}; it must be at least 1.")
    if not 0.0 <= config.beta_min <= config.beta_max or config.beta_max <= 0.0:
        raise ValueError(
            f"beta_min={config.beta_min}, beta_max={config.beta_max}; noise rates must be 0 <= beta_min <= beta_max, "
            "and beta_max positive: usually 0.1 and 10."
        )


def make_agent(config: Config, obs_dim: int, num_actions: int) -> tuple[Callable[..., PyTree], Callable[..., Array]]:
    """One agent's values of its actions.

    Args:
      config: of its network.
      obs_dim: O', of an observation without its mask.
      num_actions: n.

    Returns:
      init(key) -> params
      values(key, params, obs [*B, O']) -> [*B, n], before any mask
    """
    utility = UTILITIES[config.utility]
    if config.agent == "mlp":
        plain = Mlp(config.hidden, num_actions, config.activation)

        def answer(key: Key, params: PyTree, obs: Array) -> Array:
            del key
            return utility(plain.apply(params, obs))  # type: ignore[arg-type]

        return lambda key: plain.init(key, jnp.zeros(obs_dim)), answer

    network = MlpDenoiser(num_actions, config.hidden, config.time_dim, config.activation)
    table = diffusion.make_table("ddpm", diffusion.vp(config.beta_min, config.beta_max), config.num_steps)

    def init(key: Key) -> PyTree:
        return network.init(key, jnp.zeros(num_actions), jnp.zeros(()), jnp.zeros(obs_dim))

    def values(key: Key, params: PyTree, obs: Array) -> Array:
        def call(x: Array, m: Array, cond: Array) -> Array:
            return network.apply(params, x, m, cond)  # type: ignore[return-value]

        key_start, key_chain = jax.random.split(key)
        start = jax.random.normal(key_start, (*obs.shape[:-1], num_actions))
        denoise = diffusion.denoiser(call, "eps", obs, c_noise=lambda level: config.num_steps * level.t)
        return utility(diffusion.sample(denoise, table, start, key_chain))

    return init, values


def _with_biases(init: Callable[[Key], PyTree]) -> Callable[[Key], PyTree]:
    """Biases as PyTorch draws them. From zero, a state of zeros would give a mixer the slopes |0|, without gradient."""
    return lambda key: BIASES["torch"](jax.random.fold_in(key, 1), init(key))


def epsilon(step: Array, hparams: HParams) -> Array:
    """Chance of a random action after `step` [] updates."""
    fraction = jnp.minimum(step / jnp.maximum(hparams.epsilon_updates, 1.0), 1.0)
    return hparams.epsilon_start + (hparams.epsilon_end - hparams.epsilon_start) * fraction


def allowed(obs: Array, spec: Spec) -> Array:
    """Which actions an observation [*B, O] allows: [*B, n] bool, all of them where it allows none or has no mask."""
    if not spec.mask_dim:
        return jnp.ones((*obs.shape[:-1], spec.action_dim), bool)
    return discrete.allowed(obs[..., -spec.mask_dim :])


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a discrete task with agents.

    Raises:
      KeyError: unknown agent, utility, rewards, mixer or activation.
      ValueError: a task without agents or with continuous actions, or a number out of range.
    """
    _check(config, spec)
    num_agents, num_actions, seen_dim = team_size(spec), spec.action_dim, spec.obs_dim - spec.mask_dim
    init_agent, agent_values = make_agent(config, seen_dim + num_agents * config.share_params, num_actions)
    mixing = make_mixing(
        config.mixer, num_agents, num_agents * seen_dim, width=config.mixer_width, hidden=config.mixer_hidden
    )

    def init(key: Key, hparams: HParams) -> TrainState:
        key_own, key_mixer = jax.random.split(key)
        drawn = _with_biases(init_agent)
        own = drawn(key_own) if config.share_params else jax.vmap(drawn)(jax.random.split(key_own, num_agents))
        return initial_state({"value": {"own": own, "mixer": _with_biases(mixing.init)(key_mixer)}}, hparams)

    def values(key: Key, params: PyTree, obs: Array) -> Array:
        """[*B, A, n], before the mask; an agent's depend on its own observation, on its number and on the key."""
        seen = obs[..., :seen_dim]
        seen = with_id(seen) if config.share_params else seen
        each = jax.vmap(agent_values, (0, None if config.share_params else 0, -2), -2)
        return each(noise_keys(key, num_agents), params["own"], seen)

    def team_value(params: PyTree, q: Array, obs: Array) -> Array:
        return mixing.mix(params["mixer"], q, together(obs[..., :seen_dim]))

    def loss(params: PyTree, key: Key, state: TrainState, batch: Transition) -> tuple[Array, Metrics]:
        key_now, key_next = jax.random.split(key)
        h, target = state.hparams, state.target_params["value"]
        after = jnp.where(allowed(batch.next_obs, spec), values(key_next, target, batch.next_obs), FORBIDDEN)
        next_value = team_value(target, jnp.max(after, axis=-1), batch.next_obs)
        reward = REWARDS[config.rewards](h.reward_scale * mixing.rewards(batch.reward))
        discount = mixing.rewards(batch.discount)
        y = td_target(reward, discount, next_value, h.discount_factor)
        # Scores are not the action yet: the task takes the best of those that are allowed.
        chosen = decode_onehot(batch.action, allowed(batch.obs, spec))
        q = jnp.take_along_axis(values(key_now, params, batch.obs), chosen[..., None], axis=-1)[..., 0]
        total = team_value(params, q, batch.obs)
        error = 0.5 * jnp.mean(jnp.sum(jnp.square(y - total), axis=-1))
        metrics = {"q_mean": jnp.mean(total), "target_mean": jnp.mean(y), "utility_mean": jnp.mean(q)}
        return error, {"value_loss": error, **metrics, "epsilon": epsilon(state.step, h)}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        batch = with_own_rewards(batch, num_agents)
        chex.assert_shape([batch.obs, batch.next_obs], (None, num_agents, spec.obs_dim))
        learned = {"value": learn(state, "value", lambda params: loss(params, key, state, batch), state.hparams.lr)}
        return next_state(state, learned, {"value": state.hparams.target_rate})

    def greedy(key: Key, state: TrainState, obs: Array, num_chains: int) -> Array:
        """[*B, A] int32."""
        chex.assert_shape(obs, (..., num_agents, spec.obs_dim))
        keys = jax.random.split(key, num_chains)
        several = jax.vmap(lambda own: values(own, state.params["value"], obs))(keys)
        return jnp.argmax(jnp.where(allowed(obs, spec), jnp.mean(several, axis=0), FORBIDDEN), axis=-1)

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        return encode_onehot(greedy(key, state, obs, config.act_chains), num_actions)[..., None, :, :], memory

    def explore(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        key_best, key_any, key_coin = jax.random.split(key, 3)
        best = greedy(key_best, state, obs, 1)
        scores = jax.random.uniform(key_any, (*best.shape, num_actions))
        coin = jax.random.bernoulli(key_coin, epsilon(state.step, state.hparams), best.shape)
        chosen = jnp.where(coin, decode_onehot(scores, allowed(obs, spec)), best)
        return encode_onehot(chosen, num_actions)[..., None, :, :], memory

    return Algorithm(init, update, act, lambda batch_shape: (), explore=explore)
