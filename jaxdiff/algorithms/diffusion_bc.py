"""Diffusion behaviour cloning: a diffusion model of the data's actions given the observation, and nothing else.

loss = E |eps - eps_theta(alpha a + sigma eps, t, s)|**2,   acting draws one sample.

Reference: Wang et al. 2023, arXiv:2208.06193 (Diffusion-QL with eta = 0, "Diffusion BC"); Pearce et al. 2023,
arXiv:2301.10677.
"""

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp
import optax

from jaxdiff.algorithms.contracts import check_batch, check_obs
from jaxdiff.algorithms.optimiser import adam, apply_gradients, cosine_decay
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.rl import polyak
from jaxdiff.types import Algorithm, Array, Key, Metrics, PyTree, Spec, TrainState, Transition


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices."""

    policy: PolicyConfig = PolicyConfig()
    act_with_ema: bool = True  # act with the averaged weights


@struct.dataclass
class HParams:
    """Traced hyperparameters, float32 scalars."""

    lr: float = 3e-4  # Adam step size, > 0
    lr_decay_steps: float = 0.0  # updates of a cosine decay to 0; 0: constant
    max_grad_norm: float = 10.0  # largest global gradient norm, > 0
    ema_rate: float = 0.005  # share of the new weights in the average per update, in (0, 1]
    act_temperature: float = 1.0  # scale of the noise injected while acting, >= 0


def make(config: Config, spec: Spec) -> Algorithm:
    """Builds the algorithm for a task. Raises what `make_policy` raises."""
    policy = make_policy(config.policy, spec)

    def init(key: Key, hparams: HParams) -> TrainState:
        params = {"policy": policy.init(key)}
        opt_state = adam(hparams.lr, hparams.max_grad_norm).init(params)
        target = jax.tree.map(jnp.copy, params)  # donated later: no buffer may stand twice in a state
        return TrainState(jnp.zeros((), jnp.int32), params, target, opt_state, hparams)

    def update(key: Key, state: TrainState, batch: Transition) -> tuple[TrainState, Metrics]:
        check_batch(batch, spec)
        h = state.hparams

        def loss_fn(params: PyTree) -> Array:
            return jnp.mean(policy.loss(key, params["policy"], batch.obs, batch.action))

        loss, gradients = jax.value_and_grad(loss_fn)(state.params)
        optimiser = adam(cosine_decay(h.lr, state.step, h.lr_decay_steps), h.max_grad_norm)
        params, opt_state = apply_gradients(optimiser, gradients, state.opt_state, state.params)
        target = polyak(params, state.target_params, h.ema_rate)
        metrics = {"bc_loss": loss, "policy_grad_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, target, opt_state, h), metrics

    def act(key: Key, state: TrainState, obs: Array, memory: PyTree) -> tuple[Array, PyTree]:
        check_obs(obs, spec)
        params = state.target_params if config.act_with_ema else state.params
        action = policy.sample(key, params["policy"], obs, state.hparams.act_temperature)
        return jnp.expand_dims(action, -2), memory

    return Algorithm(init, update, act, lambda batch_shape: ())
