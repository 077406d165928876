"""TD3+BC's update against its equations in float64 numpy, with policies that are constants.

Reference: Fujimoto and Gu 2021, arXiv:2106.06860, equation 5, and the released code.
"""

from collections.abc import Callable
import copy
import dataclasses
from typing import Any, NamedTuple

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import q_values, random_params, relu, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import td3_bc
from jaxdiff.envs import probes
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
BATCH = 16
ONLINE, TARGET = 0.3, -0.8  # what the two policies do


class Built(NamedTuple):
    algorithm: Algorithm
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> td3_bc.HParams:
    return jax.tree.map(np.float32, td3_bc.HParams(**changes))


def constant_actor(params: Any, action: float) -> Any:
    layers = params["params"]
    last = {"kernel": np.zeros_like(layers["Dense_1"]["kernel"]), "bias": np.full(1, np.arctanh(action), np.float32)}
    return {"params": {**layers, "Dense_1": last}}


@pytest.fixture(scope="module")
def built() -> Built:
    algorithm = td3_bc.make(td3_bc.Config(actor_hidden=(8,), critic_hidden=(16,), policy_period=3), SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    params = {"policy": constant_actor(first["policy"], ONLINE), "critic": scaled_critics(first["critic"], 5.0)}
    target = {"policy": constant_actor(first["policy"], TARGET), "critic": scaled_critics(second["critic"], 5.0)}
    return Built(algorithm, jax.jit(algorithm.update), state.replace(params=params, target_params=target))


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 1)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
    )


def everywhere(action: float) -> np.ndarray:
    return np.full((BATCH, 1), action)


def target_of(state: TrainState, batch: Transition, next_action: float) -> np.ndarray:
    next_q = q_values(state.target_params["critic"], batch.next_obs, everywhere(next_action), relu).min(axis=0)
    return np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q


def test_without_noise_critics_regress_on_the_smaller_target_value_of_the_target_policy(built, batch):
    state = built.start.replace(hparams=hparams(policy_noise=0.0))
    _, metrics = built.update(jax.random.key(0), state, batch)
    y = target_of(state, batch, TARGET)
    q = q_values(state.params["critic"], batch.obs, batch.action, relu)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-5)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-5)


@pytest.mark.parametrize(("policy_noise", "noise_clip"), [(0.2, 0.5), (1e6, 0.5), (0.4, 0.15), (1e6, 0.0)])
def test_target_action_has_clipped_noise_and_is_clipped(built, batch, policy_noise, noise_clip):
    state = built.start.replace(hparams=hparams(policy_noise=policy_noise, noise_clip=noise_clip))
    keys = jax.random.split(jax.random.key(0), 2000)
    found = jax.jit(jax.vmap(lambda key: built.algorithm.update(key, state, batch)[1]["target_mean"]))(keys)
    quantile = (np.arange(400) + 0.5) / 400
    noise = np.clip(policy_noise * np.asarray(jax.scipy.stats.norm.ppf(quantile), np.float64), -noise_clip, noise_clip)
    actions = np.clip(TARGET + noise, -1.0, 1.0)
    wanted = np.mean([target_of(state, batch, action).mean() for action in actions])
    error = 5.0 * float(np.std(found)) / np.sqrt(len(keys)) + 2e-5
    assert float(np.mean(found)) == pytest.approx(wanted, abs=error)


def policy_gradient(state: TrainState) -> float:
    return 10.0 * float(optax.tree.get(state.opt_state["policy"], "mu")["params"]["Dense_1"]["bias"][0])


def test_policy_climbs_the_updated_first_critic_by_its_own_magnitude_and_regresses_on_the_data(built, batch):
    state = built.start.replace(hparams=hparams(q_weight=1.7, critic_lr=0.1))
    after, metrics = built.update(jax.random.key(0), state, batch)

    def losses(critic: Any, which: int) -> np.ndarray:
        """[3] at the action, and a little less and more."""
        actions, data = (ONLINE, ONLINE - 1e-4, ONLINE + 1e-4), np.asarray(batch.action, np.float64)
        q = [q_values(critic, batch.obs, everywhere(a), relu)[which] for a in actions]
        imitation = [((a - data) ** 2).mean() for a in actions]
        return np.array([b - 1.7 * one.mean() / np.abs(q[0]).mean() for b, one in zip(imitation, q, strict=True)])

    def slope(critic: Any, which: int) -> float:
        value = losses(critic, which)
        return float((value[2] - value[1]) / 2e-4 * (1.0 - ONLINE**2))

    wanted = slope(after.params["critic"], 0)
    for other in (slope(state.params["critic"], 0), slope(after.params["critic"], 1)):
        assert abs(other - wanted) > 0.02
    assert float(metrics["policy_loss"]) == pytest.approx(losses(after.params["critic"], 0)[0], rel=1e-4)
    assert policy_gradient(after) == pytest.approx(wanted, rel=2e-3)


def test_between_policy_updates_the_policy_its_moments_and_all_targets_keep_every_bit(built, batch):
    state = built.start.replace(hparams=hparams())
    history = [state]
    for k in range(4):
        history.append(built.update(jax.random.key(k), history[-1], batch)[0])

    def same(a: Any, b: Any) -> bool:
        return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    for k, (old, new) in enumerate(zip(history[:-1], history[1:], strict=True)):
        rests = k % 3 != 0
        assert same(old.params["policy"], new.params["policy"]) == rests
        assert same(old.opt_state["policy"], new.opt_state["policy"]) == rests
        assert same(old.target_params["policy"], new.target_params["policy"]) == rests
        assert same(old.target_params["critic"], new.target_params["critic"]) == rests
        assert not same(old.params["critic"], new.params["critic"])
    assert int(optax.tree.get(history[-1].opt_state["policy"], "count")) == 2


@pytest.fixture(scope="module")
def bandit() -> CornerBandit:
    config = td3_bc.Config(actor_hidden=(32, 32), critic_hidden=(64, 64))
    # All observations are 0, so of the actor only the last bias learns, by the rate itself at most per update.
    return CornerBandit(td3_bc, config, lr=1e-2, critic_lr=3e-3)


@pytest.mark.parametrize("q_weight", [1.0, 3.0, 5.0])
def test_where_data_are_everywhere_it_stands_where_both_pulls_are_equal(bandit, q_weight):
    """Uniform actions and Q = 5 + c . a: the slopes a of imitation and q_weight c / Q agree at a = k c.

    k (5 + |c|**2 k) = q_weight
    """
    c = np.array([1.0, -0.5])
    action = np.random.default_rng(0).uniform(-1, 1, size=bandit.dataset.transitions.action.shape).astype(np.float32)
    rows = dataclasses.replace(bandit.dataset.transitions, action=action, reward=(5.0 + action @ c).astype(np.float32))
    uniform = copy.copy(bandit)
    uniform.dataset = dataclasses.replace(bandit.dataset, transitions=rows)
    k = (np.sqrt(25.0 + 4.0 * 1.25 * q_weight) - 5.0) / 2.5
    found = uniform.actions(uniform.learn(1500, q_weight=q_weight), count=1)[0]
    np.testing.assert_allclose(found, k * c, atol=0.06)


def test_finds_the_best_corner_of_the_bandit(bandit):
    share = near_corners(bandit.actions(bandit.learn(1000)), radius=0.2)
    assert share[probes.CORNER_REWARDS.argmax()] > 0.9


def test_make_refuses_a_period_below_one():
    with pytest.raises(ValueError, match="policy_period=0.*at least 1"):
        td3_bc.make(td3_bc.Config(policy_period=0), SPEC)
