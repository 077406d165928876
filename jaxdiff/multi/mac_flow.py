"""MAC-Flow: a flow that imitates the whole team, and one-step policies, one per agent, that stay near it and climb Q.

flow      L_flow = E |v_theta(x_t, t, o) - (eps - a)|**2,   x_t = (1 - t) a + t eps,  all agents' o and a side by side
students  L_distill = E |mu(o, z) - Euler(v_theta)(o, z)|**2,   mu(o, z)_i = mu_i(o_i, z_i),  z ~ N(0, I),
          no gradient into the flow
policy    loss = L_flow + bc_weight L_distill + q_weight L_q,   L_q = -E Q_tot(o, a) [/ E|Q_tot(o, a)|],
          a = clip mu(o, z), the same z
critic    Q_tot = sum_i Q_i(o_i, a_i), or the mean;   y = mean_i r_i + gamma (1 - terminated) Q_tot'(o', a')
          loss = mean_e E (Q_tot,e(o, a) - y)**2 over two critics e; Q_tot' is their mean, or their minimum;
          a' = clip mu(o', z')
acting    clip mu_i(o_i, z_i): one call of one network, which sees what one agent sees

Agents choose for themselves: of two teams that see the same but for one agent's observation, the others do the same.
The largest Q_tot is where each Q_i is largest (IGM, by addition). What the flow knows of choices that must be made
together, the students cannot hold on to while their z_i are independent: their actions are, given the observations.
`shared_noise` gives every agent all of z, as a seed that all have agreed upon beforehand would: then mu_i(o_i, z) can
follow the flow's joint action from the same z, as far as o_i tells what the others see.

From the paper's description: the joint flow as a teacher, distillation with the same noise into one-step policies per
agent, a factorised critic, ten Euler steps. From a later comparison that trained it: 4 x 512, Adam at 3e-4, batch 64,
gamma 0.995, polyak 0.005, bc_weight 3. Ours: addition as the factorisation, Q scaled by its size, the aggregate, the
online students' next actions, both gradients at the parameters before the update (as FQL, `algorithms.fql`), networks
of an agent's own or of all with its number (`share_params`), and `shared_noise`. Actions of discrete tasks are scores
like any other; the task applies its mask.

Reference: Lee, Lee and Zhang 2025, arXiv:2511.05005; FQL: Park, Li and Levine 2025, arXiv:2502.02538.
"""

from collections.abc import Callable
import dataclasses

import chex
from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.actor_critic import AGGREGATES, FLOW
from jaxdiff.algorithms.critics import make_critics
from jaxdiff.algorithms.one_step import make_flow
from jaxdiff.algorithms.optimiser import cosine_decay
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.algorithms.steps import initial_state, learn, next_state
from jaxdiff.multi.batches import with_own_rewards
from jaxdiff.multi.teams import as_one, noise_keys, per_agent, team_size, together
from jaxdiff.networks import Mlp
from jaxdiff.rl import normalised_q_loss, td_target
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition

TEAM_VALUES: dict[str, Callable[[Array], Array]] = {  # [E, *B, A] -> [E, *B], what agents' values make together
    "sum": lambda q: jnp.sum(q, axis=-1),
    "mean": lambda q: jnp.mean(q, axis=-1),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the students have the flow's width, depth and activation."""

    policy: PolicyConfig = FLOW
    critic_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_activation: str = "gelu"
    critic_layer_norm: bool = True
    mixer: str = "sum"  # how agents' values make the team's, one of TEAM_VALUES
    aggregate: str = "mean"  # of the two critics in the target, one of AGGREGATES
    normalise_q: bool = True  # divide the policy's Q by its mean magnitude
    share_params: bool = False  # one student and one pair of critics for all agents, told which by a one-hot id
    shared_noise: bool = False  # every student sees all agents' z


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 3e-4  # Adam step size of flow and students, > 0
    critic_lr: float = 3e-4  # Adam step size of the critics, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 1e9  # largest global gradient norm of policy or critics, > 0
    bc_weight: float = 3.0  # how close the students stay to the flow
    q_weight: float = 1.0  # weight of the Q term; 0 only imitates
    discount_factor: float = 0.995  # gamma in [0, 1]
    polyak: float = 0.005  # share of the online critics in their targets per update, in (0, 1]
    act_temperature: float = 1.0  # scale of the noise an action is made of; 0: one action per observation


def _check(config: Config) -> None:
    known = {"mixer": (config.mixer, TEAM_VALUES), "aggregate": (config.aggregate, AGGREGATES)}
    for field, (value, registry) in known.items():
        if value not in registry:
            raise unknown_name(field, value, registry)


def _check_batch(batch: Transition, spec: Spec) -> None:
    """obs, next_obs [B, A, O], action [B, A, U], reward, discount [B, A].

    Raises:
      AssertionError: another shape; the message has the one found.
    """
    chex.assert_shape([batch.obs, batch.next_obs], (None, spec.num_agents, spec.obs_dim))
    chex.assert_shape(batch.action, (None, spec.num_agents, spec.action_dim))
    chex.assert_shape([batch.reward, batch.discount], (None, spec.num_agents))
    chex.assert_equal_shape_prefix([batch.obs, batch.action, batch.reward, batch.discount, batch.next_obs], 1)


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task with agents.

    Raises:
      KeyError: unknown mixer or aggregate, and what `make_policy` raises.
      ValueError: a task without agents, a sampler that draws noise, and what `make_policy` raises.
    """
    _check(config)
    num_agents, noise_dim = team_size(spec), spec.action_dim
    flow = make_flow(config.policy, as_one(spec))
    team_value, aggregate = TEAM_VALUES[config.mixer], AGGREGATES[config.aggregate]

    def student(obs_dim: int) -> tuple[Callable[[Key], PyTree], Callable[[PyTree, Array, Array], Array]]:
        network = Mlp(config.policy.hidden, spec.action_dim, config.policy.activation, config.policy.layer_norm)
        width = obs_dim + noise_dim * (num_agents if config.shared_noise else 1)

        def apply(params: PyTree, obs: Array, noise: Array) -> Array:
            return network.apply(params, jnp.concatenate([noise, obs], axis=-1))  # type: ignore[return-value]

        return lambda key: network.init(key, jnp.zeros((width,))), apply

    def critic(obs_dim: int) -> tuple[Callable[[Key], PyTree], Callable[[PyTree, Array, Array], Array]]:
        one = dataclasses.replace(spec, obs_dim=obs_dim)
        critics = make_critics(one, config.critic_hidden, config.critic_activation, config.critic_layer_norm)
        return critics.init, critics.q

    students = per_agent(student, spec, share_params=config.share_params, out_axis=-2)
    critics = per_agent(critic, spec, share_params=config.share_params, out_axis=-1)

    def draw_noise(key: Key, batch_shape: tuple[int, ...]) -> Array:
        """z [*B, A, U]: agent i's numbers depend on the key and on i alone."""
        keys = noise_keys(key, num_agents)
        return jax.vmap(lambda own: jax.random.normal(own, (*batch_shape, noise_dim)), out_axes=-2)(keys)

    def answer(params: PyTree, obs: Array, noise: Array) -> Array:
        if config.shared_noise:
            noise = jnp.broadcast_to(together(noise)[..., None, :], (*obs.shape[:-1], num_agents * noise_dim))
        return students.apply(params, obs, noise)

    def init(key: Key, hparams: HParams) -> TrainState:
        key_flow, key_students, key_critic = jax.random.split(key, 3)
        policy = {"flow": flow.init(key_flow), "students": students.init(key_students)}
        return initial_state({"policy": policy, "critic": critics.init(key_critic)}, hparams)

    def critic_loss(params: PyTree, key: Key, state: TrainState, batch: Transition) -> tuple[Array, Metrics]:
        noise = draw_noise(key, batch.next_obs.shape[:-2])
        next_action = jnp.clip(answer(state.params["policy"]["students"], batch.next_obs, noise), -1.0, 1.0)
        next_q = aggregate(team_value(critics.apply(state.target_params["critic"], batch.next_obs, next_action)))
        reward, discount = jnp.mean(batch.reward, axis=-1), jnp.mean(batch.discount, axis=-1)
        target = td_target(reward, discount, next_q, state.hparams.discount_factor)
        q = team_value(critics.apply(params, batch.obs, batch.action))
        loss = jnp.mean(jnp.square(q - target[None]))
        return loss, {"critic_loss": loss, "q_mean": jnp.mean(q), "target_mean": jnp.mean(target)}

    def policy_loss(params: PyTree, key: Key, state: TrainState, batch: Transition) -> tuple[Array, Metrics]:
        key_flow, key_noise = jax.random.split(key)
        team_obs = together(batch.obs)
        flow_loss = jnp.mean(flow.loss(key_flow, params["flow"], team_obs, together(batch.action)))
        noise = draw_noise(key_noise, batch.obs.shape[:-2])
        wanted = flow.action(state.params["policy"]["flow"], team_obs, together(noise))
        found = answer(params["students"], batch.obs, noise)
        distill_loss = jnp.mean(jnp.square(together(found) - wanted))
        q = jnp.mean(team_value(critics.apply(state.params["critic"], batch.obs, jnp.clip(found, -1.0, 1.0))), axis=0)
        q_loss = normalised_q_loss(q, q) if config.normalise_q else -jnp.mean(q)
        loss = flow_loss + state.hparams.bc_weight * distill_loss + state.hparams.q_weight * q_loss
        metrics = {"bc_loss": flow_loss, "distill_loss": distill_loss, "q_policy": jnp.mean(q)}
        return loss, {"policy_loss": loss, **metrics}

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        batch = with_own_rewards(batch, num_agents)
        _check_batch(batch, spec)
        h = state.hparams
        key_critic, key_policy = jax.random.split(key)
        rate, critic_rate = (cosine_decay(lr, state.step, h.lr_decay_steps) for lr in (h.lr, h.critic_lr))
        learned = {
            "critic": learn(state, "critic", lambda p: critic_loss(p, key_critic, state, batch), critic_rate),
            "policy": learn(state, "policy", lambda p: policy_loss(p, key_policy, state, batch), rate),
        }
        return next_state(state, learned, dict.fromkeys(learned, h.polyak))  # only the critics' target is read

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        chex.assert_shape(obs, (..., num_agents, spec.obs_dim))
        noise = state.hparams.act_temperature * draw_noise(key, obs.shape[:-2])
        action = jnp.clip(answer(state.params["policy"]["students"], obs, noise), -1.0, 1.0)
        return jnp.expand_dims(action, -3), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
