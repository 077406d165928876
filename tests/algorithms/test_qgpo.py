"""QGPO against its equations in float64 numpy, and against a target density that is known in closed form.

Reference: Lu et al. 2023, arXiv:2304.12824, and the released code.
"""

from collections.abc import Callable
import copy
import dataclasses
import math
from typing import Any, NamedTuple

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import (
    coin_policy,
    constant_policy,
    last_layer,
    q_values,
    random_params,
    relu,
    scaled_critics,
    with_layer,
    zeros,
)
import pytest

from jaxdiff import diffusion
from jaxdiff.algorithms import qgpo
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.envs import probes
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
ONE_STEP = PolicyConfig(hidden=(16,), kind="x0", beta_max=20.0, num_levels=1, num_steps=1)
BATCH = 16
SUPPORT = 16
CONSTANT = 0.4


class Built(NamedTuple):
    algorithm: Algorithm
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    coins: TrainState  # support actions are 1 or -1, each with chance 1/2; f = 0


def hparams(**changes: float) -> qgpo.HParams:
    return jax.tree.map(np.float32, qgpo.HParams(**changes))


@pytest.fixture(scope="module")
def built() -> Built:
    config = qgpo.Config(ONE_STEP, critic_hidden=(16,), energy_hidden=(16,), num_candidates=SUPPORT)
    algorithm = qgpo.make(config, SPEC)
    shapes = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(shapes.params, seed) for seed in (0, 8))  # 8: its critics disagree
    coin = coin_policy(first["policy"])
    still = with_layer(first["energy"], last_layer(first["energy"]["params"]["Mlp_0"]), kernel=0.0, bias=0.0)
    params = {"policy": coin, "critic": scaled_critics(first["critic"], 5.0), "energy": still}
    targets = {"policy": coin, "critic": scaled_critics(second["critic"], 5.0), "energy": still}
    state = shapes.replace(params=params, target_params=targets, hparams=hparams())
    return Built(algorithm, jax.jit(algorithm.update), state)


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


def smaller_q(critic: Any, obs: Any, action: float) -> np.ndarray:
    return q_values(critic, obs, np.full((BATCH, 1), action), relu).min(axis=0)


def expected_loss(state: TrainState, batch: Transition, next_value: np.ndarray) -> tuple[float, float]:
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_value
    q = q_values(state.params["critic"], batch.obs, batch.action, relu)
    return float(((q - y) ** 2).mean()), float(y.mean())


def test_contrastive_loss_is_smallest_where_the_energy_is_beta_q_up_to_a_constant_per_state():
    q = np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 2.5]])  # [M, B], worked out by hand from here
    weight = np.exp(3.0 * q) / np.exp(3.0 * q).sum(axis=0)
    energy = np.array([[0.3, 0.1], [-0.7, 0.9], [0.2, -0.4]])
    share = np.exp(energy) / np.exp(energy).sum(axis=0)
    loss, gradient = jax.value_and_grad(lambda f: jnp.sum(qgpo.contrastive_loss(f, 3.0 * q)))(jnp.asarray(energy))
    assert float(loss) == pytest.approx(-(weight * np.log(share)).sum(), rel=1e-5)
    np.testing.assert_allclose(gradient, share - weight, atol=1e-6)

    best = jnp.asarray(3.0 * q + np.array([5.0, -1.0]))
    least, slope = jax.value_and_grad(lambda f: jnp.sum(qgpo.contrastive_loss(f, 3.0 * q)))(best)
    assert float(least) == pytest.approx(-(weight * np.log(weight)).sum(), rel=1e-4)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    assert not np.any(jax.grad(lambda w: jnp.sum(qgpo.contrastive_loss(energy, w)))(3.0 * q))


def test_critics_regress_on_the_value_of_the_averaged_behaviour_models_actions(built, batch):
    target = built.coins.target_params | {"policy": constant_policy(built.coins.params["policy"], CONSTANT)}
    state = built.coins.replace(target_params=target)
    _, metrics = built.update(jax.random.key(0), state, batch)
    loss, y = expected_loss(state, batch, smaller_q(state.target_params["critic"], batch.next_obs, CONSTANT))
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["target_mean"]) == pytest.approx(y, rel=1e-5)


def test_greedy_backup_is_the_best_support_action_by_the_smaller_critic(built, batch):
    state = built.coins.replace(hparams=hparams(backup_inverse_temperature=1e4))
    _, metrics = built.update(jax.random.key(0), state, batch)  # 16 coins are all alike once in 2**15 states
    critic = state.target_params["critic"]
    pair_q = [q_values(critic, batch.next_obs, np.full((BATCH, 1), a), relu) for a in (-1.0, 1.0)]
    loss, _ = expected_loss(state, batch, np.maximum(pair_q[0].min(axis=0), pair_q[1].min(axis=0)))
    other, _ = expected_loss(state, batch, np.maximum(*pair_q).min(axis=0))
    assert abs(other - loss) > 1e-2 * loss
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-5)


def test_backup_grows_from_the_mean_to_the_best_with_its_inverse_temperature(built, batch):
    def target_mean(value: float) -> float:
        state = built.coins.replace(hparams=hparams(backup_inverse_temperature=value))
        return float(built.update(jax.random.key(0), state, batch)[1]["target_mean"])

    found = [target_mean(value) for value in (0.0, 0.3, 1.0, 20.0)]
    assert (np.diff(found) > 1e-3).all()


def test_energy_is_taught_the_softmax_of_beta_q_of_the_moved_target_critics(built, batch):
    """With f = a_t b at b = 0 the gradient in b is the mean of sum_j (1/M - w_j)(alpha a_j + sigma eps_j).

    With n of M coins at 1 and e = exp(beta (Q'(1) - Q'(-1))) the sum is, but for the noise,
    alpha [(2 n / M - 1) - (n e - (M - n)) / (n e + M - n)], and n is binomial.
    """
    beta = 0.7
    h = hparams(inverse_temperature=beta, polyak=1.0, critic_lr=0.1)
    state, keys = built.coins.replace(hparams=h), jax.random.split(jax.random.key(0), 4000)

    def gradient(key: jax.Array) -> tuple[Any, Any]:
        after, _ = built.algorithm.update(key, state, batch)
        layers = optax.tree.get(after.opt_state["energy"], "mu")["params"]["Mlp_0"]
        return 10.0 * layers[last_layer(layers)]["bias"][0], after.target_params["critic"]

    found, critics = jax.jit(jax.vmap(gradient))(keys)
    critic = jax.tree.map(lambda leaf: leaf[0], critics)  # how it moves depends little on the coins
    t = np.linspace(1e-3, 1.0, 20_001)
    alpha = np.exp(-0.25 * t**2 * 19.9 - 0.5 * t * 0.1).mean()

    def expected(critic: Any) -> float:
        e = np.exp(beta * (smaller_q(critic, batch.obs, 1.0) - smaller_q(critic, batch.obs, -1.0)))[:, None]
        n = np.arange(SUPPORT + 1)
        chance = np.array([math.comb(SUPPORT, k) for k in n]) / 2.0**SUPPORT
        each = (2 * n / SUPPORT - 1) - (n * e - (SUPPORT - n)) / (n * e + SUPPORT - n)
        return float(alpha * (each @ chance).mean())

    error = 5.0 * float(np.std(found)) / np.sqrt(len(keys))
    assert abs(expected(critic) - expected(state.target_params["critic"])) > 2 * error
    assert float(np.mean(found)) == pytest.approx(expected(critic), abs=error)


def test_support_actions_of_a_state_share_one_noise_level(built, batch, monkeypatch):
    def noised() -> Any:
        seen: list[tuple[Any, Any]] = []

        def record(level: diffusion.Level, x0: Any, eps: Any) -> Any:
            seen.append((level.t, eps))
            return plain(level, x0, eps)

        monkeypatch.setattr(diffusion, "add_noise", record)
        built.algorithm.update(jax.random.key(0), built.coins, batch)
        (once,) = seen
        return once

    plain = diffusion.add_noise
    t, eps = map(np.asarray, jax.jit(noised)())
    assert t.shape == (SUPPORT, BATCH)
    np.testing.assert_array_equal(t, np.broadcast_to(t[0], t.shape))
    assert len(np.unique(t[0])) == BATCH
    assert len(np.unique(eps)) == SUPPORT * BATCH


def test_values_and_energy_wait_for_q_start_with_their_optimisers(built, batch):
    state = built.coins.replace(hparams=hparams(q_start=5.0))
    waiting, _ = built.update(jax.random.key(0), state, batch)
    begun, _ = built.update(jax.random.key(0), state.replace(step=jnp.int32(5)), batch)
    for name in ("critic", "energy"):
        for part in ("params", "opt_state", "target_params"):
            old, same, new = (getattr(s, part)[name] for s in (state, waiting, begun))
            assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (old, same)), strict=True))
            assert not all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (old, new)), strict=True))
    first = [s.params["policy"]["params"]["Mlp_0"]["Dense_0"]["kernel"] for s in (state, waiting)]
    assert np.any(first[0] != first[1])


def test_make_refuses_a_single_support_action():
    with pytest.raises(ValueError, match="num_candidates=1; .*at least 2"):
        qgpo.make(qgpo.Config(num_candidates=1), SPEC)


@pytest.fixture(scope="module")
def bandit() -> CornerBandit:
    policy = PolicyConfig(
        hidden=(32, 32),
        kind="v",
        beta_max=20.0,
        num_levels=0,
        sampler="dpmpp_2m",
        spacing="logsnr",
        t_end=1e-2,
        num_steps=6,
    )
    config = qgpo.Config(policy, critic_hidden=(32, 32), energy_hidden=(32, 32), num_candidates=8)
    rates = {"lr": 3e-3, "critic_lr": 3e-3, "energy_lr": 1e-2, "polyak": 0.05, "ema_rate": 0.02}
    return CornerBandit(qgpo, config, **rates, inverse_temperature=1.0, lr_decay_steps=800.0)


def at_scale(state: TrainState, scale: float) -> TrainState:
    return state.replace(hparams=state.hparams.replace(guidance_scale=np.float32(scale)))


def test_finds_the_best_corner_of_the_bandit_and_imitates_at_scale_0(bandit):
    state = bandit.learn(800)
    guided = near_corners(bandit.actions(at_scale(state, 6.0)), radius=0.2)
    assert guided.argmax() == probes.CORNER_REWARDS.argmax()
    assert guided.max() > 0.9
    unguided = bandit.actions(at_scale(state, 0.0))
    quadrants = (np.sign(unguided)[:, None] == np.sign(probes.CORNERS)).all(axis=-1).mean(axis=0)
    assert quadrants.min() > 0.15


def test_guided_samples_have_density_mu_exp_scale_beta_q(bandit):
    """mu = N(m, s**2) and Q = c a_0 give N(m + scale beta c s**2, s**2) in a_0, and mu in a_1.

    One training serves all scales. Eight support actions per state flatten the energy by some percent.
    """
    mean, std, slope, beta = np.array([-0.3, 0.1]), np.array([0.2, 0.25]), 2.0, 1.0
    action = (mean + std * np.random.default_rng(0).standard_normal((4000, 2))).clip(-1, 1).astype(np.float32)
    rows = dataclasses.replace(bandit.dataset.transitions, action=action, reward=slope * action[:, 0])
    gaussian = copy.copy(bandit)
    gaussian.dataset = dataclasses.replace(bandit.dataset, transitions=rows)
    state = gaussian.learn(800, inverse_temperature=beta)
    for scale in (0.0, 1.0, 3.0):
        samples = gaussian.actions(at_scale(state, scale))
        wanted = mean + np.array([scale * beta * slope * std[0] ** 2, 0.0])
        np.testing.assert_allclose(samples.mean(axis=0), wanted, atol=0.04)
        np.testing.assert_allclose(samples.std(axis=0), std, atol=0.04)
