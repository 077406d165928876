"""DPPO: a trained diffusion policy goes on learning by PPO, each of its denoising steps an action of its own.

A decision at s is a chain x_K, ..., x_0 of Gaussian steps pi(x_{k-1} | x_k, s), and x_0 acts. The first calls are the
frozen pretrained policy's; the last K' (`num_finetuned`) are learnt:

policy  loss = -E min(rho A', clip(rho, 1 - c_k, 1 + c_k) A'),   rho = pi(x_{k-1} | x_k, s) / pi_old(x_{k-1} | x_k, s)
        A' = denoising_discount**(k - 1) A(s, x_0),  A by generalised advantages, normalised in each minibatch
        c_k = clip_base + (clip - clip_base) (exp(3 u) - 1) / (exp(3) - 1),   u = (K' - k) / (K' - 1)
value   loss = E (V(s) - A - V_old(s))**2 / 2; it sees observations only, not the chain
std     every step draws with at least min_std, for exploration and so that ratios stay bounded; acting does not

Rewards are divided by the running deviation of their discounted sums, which start anew with each rollout. Where the
clock ends an episode the value of its last observation is counted and the advantage's trace is cut; the released code
counts the next episode's first observation there and lets the trace run on.

Reference: Ren et al. 2024, arXiv:2409.00588, section 4; details that only its code shows are marked [code].
"""

import dataclasses
from typing import Any, NamedTuple

import chex
from flax import struct
import jax
import jax.numpy as jnp

from jaxdiff.algorithms.contracts import check_obs
from jaxdiff.algorithms.critics import make_value
from jaxdiff.algorithms.optimiser import cosine_decay, descend
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.algorithms.steps import initial_state
from jaxdiff.diffusion import markov
from jaxdiff.rl import (
    clipped_surrogate,
    generalised_advantage,
    init_moments,
    kl_estimate,
    running_returns,
    update_moments,
)
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Rollout, Spec, TrainState

CLIP_RATE = 3.0  # [code] of the exponential between clip_base and clip
LOG_PROB = (-5.0, 2.0)  # [code] log densities of single numbers are kept in this range
RATIOS = ("mean", "sum")
MAX_REWARD = 10.0  # [code] scaled rewards are kept in [-10, 10]


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices. The paper's policy in gym has 20 steps, of which the last 10 are fine-tuned."""

    policy: PolicyConfig = PolicyConfig()
    num_finetuned: int = 0  # K', the last calls of the chain that learn; 0: all
    value_hidden: tuple[int, ...] = (256, 256, 256)
    value_activation: str = "mish"
    num_epochs: int = 5  # passes over a rollout's denoising steps
    minibatch_size: int = 50_000  # denoising steps per gradient step, cut to what a rollout has
    ratio: str = "mean"  # [code] rho from the mean of the log densities over an action's numbers; "sum": the density's


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 1e-4  # Adam step size of the policy, > 0
    value_lr: float = 1e-3  # Adam step size of the value, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay of lr to 0; 0: constant
    max_grad_norm: float = 1e9  # largest global gradient norm of either network, > 0
    discount_factor: float = 0.99  # gamma in [0, 1], per decision
    gae_lambda: float = 0.95  # lambda in [0, 1]
    denoising_discount: float = 0.99  # in (0, 1]; below 1 the noisy steps learn less
    clip: float = 0.01  # largest change of rho in the last, cleanest step, > 0
    clip_base: float = 0.01  # the same in the noisiest step that learns, > 0
    min_std: float = 0.1  # least standard deviation of a learning step, > 0
    noise_clip: float = 3.0  # [code] no step draws more than so many deviations, > 0
    target_kl: float = 1.0  # the rest of an update is dropped once a minibatch exceeds it, in nats of `ratio`
    policy_start: float = 0.0  # the value learns alone before this update
    act_temperature: float = 1.0  # scale of the noise injected while acting, >= 0


class Record(NamedTuple):
    """What a decision's learning steps did."""

    chain: Array  # [*B, K' + 1, U] where they started and ended
    log_prob: Array  # [*B, K'] of the policy that decided


class Samples(NamedTuple):
    """A rollout without its order: N decisions."""

    obs: Array  # [N, O]
    record: Record  # [N, ...]
    advantage: Array  # [N]
    value_target: Array  # [N]


def _check(config: Config) -> int:
    """K'. Raises ValueError for numbers and names out of range."""
    for name in ("num_epochs", "minibatch_size"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}; it must be at least 1.")
    calls = config.policy.num_steps
    if not 0 <= config.num_finetuned <= calls:
        raise ValueError(f"num_finetuned={config.num_finetuned}; allowed: 0 (all) to num_steps={calls}.")
    if config.policy.clip != "prediction":
        raise ValueError(f"clip={config.policy.clip!r} leaves no Gaussian steps; use clip='prediction'.")
    if config.ratio not in RATIOS:
        raise ValueError(f"ratio={config.ratio!r}; allowed: {', '.join(RATIOS)}.")
    return config.num_finetuned or calls


def clip_of(index: Array, count: int, hparams: HParams) -> Array:
    """c_k of the learning step at index 0 (noisiest) to count - 1 (cleanest): [*B] -> [*B]."""
    if count == 1:
        return jnp.broadcast_to(hparams.clip, index.shape)
    share = jnp.expm1(CLIP_RATE * index / (count - 1)) / jnp.expm1(CLIP_RATE)
    return hparams.clip_base + (hparams.clip - hparams.clip_base) * share


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task; its update takes a `Rollout`.

    Raises:
      ValueError: counts out of range, a sampler whose steps are not Gaussian, and what `make_policy` raises.
    """
    count = _check(config)
    policy, value = make_policy(config.policy, spec), make_value(spec, config.value_hidden, config.value_activation)
    steps = markov.gaussian_steps(policy.table)
    frozen, learnt = (markov.take_steps(steps, s) for s in (slice(None, -count), slice(-count, None)))

    def init(key: Key, hparams: Any) -> TrainState:
        key_policy, key_value = jax.random.split(key)
        state = initial_state({"policy": policy.init(key_policy), "value": value.init(key_value)}, hparams)
        return state.replace(opt_state={**state.opt_state, "reward": init_moments()})  # type: ignore[attr-defined,no-any-return]

    def walk(key: Key, state: TrainState, obs: Array, scale: Array, min_std: Array | float) -> tuple[Array, Array]:
        """States and means of the learning steps, steps first, after the frozen ones."""
        key_start, key_frozen, key_learnt = jax.random.split(key, 3)
        limit = state.hparams.noise_clip
        x = policy.start(key_start, obs.shape[:-1])

        def noise(key: Key, rows: int) -> Array:
            return scale * jnp.clip(jax.random.normal(key, (rows, *x.shape)), -limit, limit)

        before = policy.denoiser(state.target_params["policy"], obs)
        rows = config.policy.num_steps - count
        x = markov.walk(before, frozen, x, noise(key_frozen, rows), min_std)[0][-1]
        now = policy.denoiser(state.params["policy"], obs)
        return markov.walk(now, learnt, x, noise(key_learnt, count), min_std)

    def density(x_next: Array, mean: Array, std: Array) -> Array:
        log_prob = jnp.clip(markov.step_log_prob(x_next, mean, std), *LOG_PROB)
        return jnp.mean(log_prob, axis=-1) if config.ratio == "mean" else jnp.sum(log_prob, axis=-1)

    def decide(key: Key, state: TrainState, obs: Array) -> tuple[Array, Record]:
        check_obs(obs, spec)
        least = state.hparams.min_std
        chain, means = walk(key, state, obs, jnp.ones(()), least)
        std = jnp.maximum(learnt.std, least)
        log_prob = jax.vmap(density)(chain[1:], means, std)
        action = jnp.expand_dims(jnp.clip(chain[-1], -1.0, 1.0), -2)
        return action, Record(jnp.moveaxis(chain, 0, -2), jnp.moveaxis(log_prob, 0, -1))

    def policy_loss(params: PyTree, hparams: HParams, samples: Samples, index: Array) -> tuple[Array, Metrics]:
        """Of one denoising step per decision: index [B] says which."""
        before, after = (
            jnp.take_along_axis(samples.record.chain, (index + k)[:, None, None], axis=1)[:, 0] for k in (0, 1)
        )
        step = markov.take_steps(learnt, index)
        mean = markov.step_mean(policy.denoiser(params, samples.obs), step, before)
        old = jnp.take_along_axis(samples.record.log_prob, index[:, None], axis=1)[:, 0]
        log_ratio = density(after, mean, jnp.maximum(step.std, hparams.min_std)) - old
        spread = jnp.std(samples.advantage, ddof=1)
        advantage = (samples.advantage - jnp.mean(samples.advantage)) / (spread + 1e-8)
        advantage *= hparams.denoising_discount ** (count - 1 - index).astype(jnp.float32)
        clip = clip_of(index, count, hparams)
        loss = jnp.mean(clipped_surrogate(log_ratio, advantage, clip))
        metrics = {
            "policy_loss": loss,
            "kl": jnp.mean(kl_estimate(log_ratio)),
            "clip_fraction": jnp.mean((jnp.abs(jnp.expm1(log_ratio)) > clip).astype(jnp.float32)),
        }
        return loss, metrics

    def value_loss(params: PyTree, samples: Samples) -> tuple[Array, Metrics]:
        loss = 0.5 * jnp.mean(jnp.square(value.v(params, samples.obs) - samples.value_target))
        return loss, {"value_loss": loss}

    def prepare(state: TrainState, rollout: Rollout) -> tuple[Samples, PyTree, Metrics]:
        batch, h = rollout.batch, state.hparams
        spread = update_moments(
            state.opt_state["reward"], running_returns(batch.reward, rollout.ended, h.discount_factor).ravel()
        )
        reward = jnp.clip(batch.reward / jnp.sqrt(spread.var + 1e-8), -MAX_REWARD, MAX_REWARD)
        now, after = (value.v(state.params["value"], obs) for obs in (batch.obs, batch.next_obs))
        advantage = generalised_advantage(
            reward, batch.discount, rollout.ended, now, after, h.discount_factor, h.gae_lambda
        )
        samples = Samples(batch.obs, rollout.record, advantage, advantage + now)
        error = jnp.var(samples.value_target - now) / jnp.maximum(jnp.var(samples.value_target), 1e-8)
        metrics = {"reward_mean": jnp.mean(batch.reward), "explained_variance": 1.0 - error}
        return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), samples), spread, metrics

    def update(key: Key, state: TrainState, batch: Rollout) -> tuple[TrainState, Metrics]:
        check_rollout(batch, spec)
        h = state.hparams
        samples, spread, about = prepare(state, batch)
        total = samples.advantage.shape[0] * count
        size = min(config.minibatch_size, total)
        rounds = total // size  # [code] the rest of a pass is left out
        lr = cosine_decay(h.lr, state.step, h.lr_decay_steps)
        learns = state.step >= h.policy_start

        def one(carry: PyTree, rows: Array) -> tuple[PyTree, Metrics]:
            nets, going = carry
            picked = jax.tree.map(lambda x: x[rows // count], samples)
            *actor, m1, n1 = descend(
                lambda p: policy_loss(p, h, picked, rows % count), *nets["policy"], lr=lr, max_grad_norm=h.max_grad_norm
            )
            *critic, m2, n2 = descend(
                lambda p: value_loss(p, picked), *nets["value"], lr=h.value_lr, max_grad_norm=h.max_grad_norm
            )
            # A policy that waits for its value keeps its Adam's count, too: its averages are still empty.
            new = {"policy": (going & learns, actor), "value": (going, critic)}
            kept = {
                name: jax.tree.map(lambda a, b, moves=moves: jnp.where(moves, a, b), tuple(after), nets[name])
                for name, (moves, after) in new.items()
            }
            metrics = {**m1, **m2, "policy_grad_norm": n1, "value_grad_norm": n2, "used": going.astype(jnp.float32)}
            return (kept, going & (m1["kl"] <= h.target_kl)), metrics

        keys = jax.random.split(key, config.num_epochs)
        orders = jax.vmap(lambda k: jax.random.permutation(k, total)[: rounds * size])(keys)
        start = {name: (part, state.opt_state[name]) for name, part in state.params.items()}
        (nets, _), metrics = jax.lax.scan(one, (start, jnp.ones((), bool)), orders.reshape(-1, size))
        used = metrics.pop("used")
        means = {name: jnp.sum(used * v) / jnp.sum(used) for name, v in metrics.items()}
        params, opt_state = ({name: net[i] for name, net in nets.items()} for i in (0, 1))
        new = TrainState(state.step + 1, params, state.target_params, {**opt_state, "reward": spread}, h)
        return new, {**means, **about, "used_share": jnp.mean(used)}

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        states, _ = walk(key, state, obs, state.hparams.act_temperature, 0.0)
        return jnp.expand_dims(jnp.clip(states[-1], -1.0, 1.0), -2), memory

    return Algorithm(init, update, act, lambda batch_shape: (), decide=decide)


def check_rollout(rollout: Rollout, spec: Spec) -> None:
    """obs, next_obs [T, E, O], action [T, E, U], reward, discount, ended [T, E], all of one T and E.

    Raises:
      AssertionError: another shape; the message has the one found.
    """
    batch = rollout.batch
    chex.assert_shape([batch.obs, batch.next_obs], (None, None, spec.obs_dim))
    chex.assert_shape(batch.action, (None, None, spec.action_dim))
    chex.assert_rank([batch.reward, batch.discount, rollout.ended], 2)
    chex.assert_equal_shape_prefix([batch.obs, batch.next_obs, batch.reward, batch.discount, rollout.ended], 2)
