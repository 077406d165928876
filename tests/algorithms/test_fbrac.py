"""FBRAC against its losses in float64 numpy, and on the bandit. What it shares with FQL is tested in `test_fql`.

A network that predicts x0 and answers a constant makes every action that constant; one whose velocity is a constant u
makes it clip(z - u), and its Q gradient then has a closed form under a critic that is linear in the action.

Reference: the baseline of Park, Li and Levine 2025, arXiv:2502.02538.
"""

import dataclasses
import inspect
from typing import Any

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import constant_policy, last_layer, q_values, random_params, scaled_critics, with_layer, zeros
import pytest

from jaxdiff.algorithms import actor_critic, fbrac, fql
from jaxdiff.algorithms.actor_critic import FLOW
from jaxdiff.types import Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
POLICY = dataclasses.replace(FLOW, hidden=(16,), activation="mish", num_steps=4)
ANSWER = np.array([0.3, -0.5])
SLOPE = np.array([0.7, -0.2])  # dQ/da of the linear critics
BATCH = 64


def hparams(**changes: float) -> fbrac.HParams:
    return jax.tree.map(np.float32, fbrac.HParams(**changes))


def linear_critics(critics: Any) -> Any:
    """For one hidden layer of ReLU: Q(s, a) = SLOPE . a + constant where |a| < 100."""
    layers = critics["params"]["Mlp_0"]
    first = np.zeros_like(layers["Dense_0"]["kernel"])  # [E, O + U, hidden]
    last = np.zeros_like(layers["Dense_1"]["kernel"])
    for u in range(2):
        first[:, 3 + u, u], last[:, u, 0] = 1.0, SLOPE[u]
    critics = with_layer(critics, "Dense_0", kernel=first, bias=100.0)
    return with_layer(critics, "Dense_1", kernel=last, bias=0.0)


def start_of(algorithm: Any, answer: np.ndarray) -> TrainState:
    """Online policy and target policy differ; so do all critics."""
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    params = {"policy": constant_policy(first["policy"], answer), "critic": scaled_critics(first["critic"], 5.0)}
    return state.replace(params=params, target_params=second, hparams=hparams())


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
    )


def last_bias_gradient(state: TrainState) -> np.ndarray:
    """Of the policy's first update: Adam's first moment is a tenth of it."""
    layers = optax.tree.get(state.opt_state["policy"], "mu")["params"]["Mlp_0"]
    return 10.0 * np.asarray(layers[last_layer(layers)]["bias"], np.float64)


def test_losses_are_the_published_ones_at_the_online_flows_actions(batch):
    """With x0-predictions the imitation loss is |answer - action|**2."""
    small = {"critic_hidden": (16,), "critic_activation": "mish", "critic_layer_norm": False}
    config = fbrac.Config(policy=dataclasses.replace(POLICY, kind="x0"), **small)
    algorithm = fbrac.make(config, SPEC)
    start = start_of(algorithm, ANSWER).replace(hparams=hparams(bc_weight=7.0, q_weight=3.0))
    state, metrics = jax.jit(algorithm.update)(jax.random.key(0), start, batch)

    everywhere = np.broadcast_to(ANSWER, (BATCH, 2))
    next_q = q_values(start.target_params["critic"], batch.next_obs, everywhere).mean(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q
    q = q_values(start.params["critic"], batch.obs, batch.action)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-4)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(), rel=1e-4)

    imitation = ((ANSWER - np.asarray(batch.action, np.float64)) ** 2).mean()
    climbed = q_values(start.params["critic"], batch.obs, everywhere).mean()
    assert float(metrics["bc_loss"]) == pytest.approx(imitation, rel=1e-4)
    assert float(metrics["policy_loss"]) == pytest.approx(7.0 * imitation - 3.0 * climbed, rel=1e-4)

    h = 1e-5
    rise = np.array([
        (q_values(start.params["critic"], batch.obs, everywhere + h * axis)
         - q_values(start.params["critic"], batch.obs, everywhere - h * axis)).mean() / (2 * h)
        for axis in np.eye(2)
    ])  # fmt: skip
    wanted = 7.0 * (ANSWER - np.asarray(batch.action, np.float64)).mean(axis=0) - 3.0 * rise
    np.testing.assert_allclose(last_bias_gradient(state), wanted, rtol=1e-3)


@pytest.fixture(scope="module")
def climbing(batch: Transition) -> dict[int, np.ndarray]:
    """Gradient of a constant velocity under a linear Q alone, through all four steps of the chain and the last one."""
    found = {}
    for grad_steps in (0, 1):
        small = {"critic_hidden": (16,), "critic_activation": "relu", "critic_layer_norm": False}
        config = fbrac.Config(policy=dataclasses.replace(POLICY, grad_steps=grad_steps), **small)
        algorithm = fbrac.make(config, SPEC)
        start = start_of(algorithm, np.zeros(2))
        start = start.replace(
            params={**start.params, "critic": linear_critics(start.params["critic"])}, hparams=hparams(bc_weight=0.0)
        )
        found[grad_steps] = last_bias_gradient(jax.jit(algorithm.update)(jax.random.key(0), start, batch)[0])
    return found


def test_q_is_differentiated_through_every_step_of_the_flow(climbing):
    """a0 = z - u: -dQ/du = slope wherever z is inside; for |z| < 1 that is 0.68 of a normal's draws."""
    inside = climbing[0] / SLOPE
    np.testing.assert_allclose(inside * BATCH, np.round(inside * BATCH), atol=2e-3)
    assert np.abs(inside - 0.683).max() < 0.2


def test_grad_steps_keeps_the_last_steps_only(climbing):
    """Each of the four steps adds a quarter of the velocity."""
    np.testing.assert_allclose(climbing[1], climbing[0] / 4.0, rtol=1e-3)


def test_all_but_the_actor_is_fqls():
    """One function makes both algorithms, from one set of hyperparameters and static choices."""
    assert fbrac.HParams is fql.HParams is actor_critic.HParams
    assert (
        dataclasses.asdict(fbrac.Config())
        == dataclasses.asdict(fql.Config())
        == dataclasses.asdict(actor_critic.Config())
    )
    for module in (fbrac, fql):
        assert module.make_actor_critic is actor_critic.make_actor_critic
        assert "TrainState(" not in inspect.getsource(module)


def test_a_sampler_that_draws_noise_is_refused():
    with pytest.raises(ValueError, match="sampler='euler_ancestral' draws noise"):
        fbrac.make(fbrac.Config(policy=dataclasses.replace(FLOW, sampler="euler_ancestral")), SPEC)


def test_flow_finds_the_best_corner():
    policy = dataclasses.replace(FLOW, hidden=(64, 64), activation="relu", num_steps=5)
    config = fbrac.Config(policy=policy, critic_hidden=(64, 64), critic_activation="relu", critic_layer_norm=False)
    rates = {"lr": 3e-3, "critic_lr": 3e-3, "polyak": 0.05, "lr_decay_steps": 1000.0}
    bandit = CornerBandit(fbrac, config, **rates, bc_weight=1.0)
    assert near_corners(bandit.actions(bandit.learn(1000)), 0.2)[3] > 0.9
