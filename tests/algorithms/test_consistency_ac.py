"""Consistency-AC against its losses in float64 numpy, and on the bandit.

A model whose network predicts x0 and answers a constant is that constant at every level, so the distance between two
levels is the distance of two constants. The curriculum starts with one pair of levels, which makes its weight known.

Reference: Ding and Jin 2023, arXiv:2309.16984, and the released code.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any, NamedTuple

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import constant_policy, last_layer, q_values, random_params, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import consistency_ac
from jaxdiff.algorithms.consistency_ac import make_consistency_policy, num_levels_at
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.types import Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
POLICY = dataclasses.replace(consistency_ac.Config().policy, hidden=(16,))
ONLINE = np.array([0.3, -0.5])
TARGET = np.array([-0.2, 0.6])
BATCH = 16
FIRST_WEIGHT = 100.0 / (80.0 - 0.002)  # of the only pair of two levels


class Built(NamedTuple):
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> consistency_ac.HParams:
    return jax.tree.map(np.float32, consistency_ac.HParams(max_grad_norm=1e9, **changes))


def build(**changes: Any) -> Built:
    policy = dataclasses.replace(POLICY, kind="x0")
    algorithm = consistency_ac.make(consistency_ac.Config(policy=policy, critic_hidden=(16,), **changes), SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    params = {"policy": constant_policy(first["policy"], ONLINE), "critic": scaled_critics(first["critic"], 5.0)}
    targets = {"policy": constant_policy(first["policy"], TARGET), "critic": scaled_critics(second["critic"], 5.0)}
    start = state.replace(params=params, target_params=targets, hparams=hparams())
    return Built(jax.jit(algorithm.update), start)


@pytest.fixture(scope="module")
def paper() -> Built:
    return build()


@pytest.fixture(scope="module")
def other() -> Built:
    """Every static switch of the update the other way."""
    return build(pair_weight="none", normalise_target=True)


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


def run(built: Built, batch: Transition, key: int = 0, **changes: float) -> tuple[TrainState, dict[str, Any]]:
    return built.update(jax.random.key(key), built.start.replace(hparams=hparams(**changes)), batch)


def everywhere(action: np.ndarray) -> np.ndarray:
    return np.broadcast_to(action, (BATCH, 2))


def targets_of(built: Built, batch: Transition) -> np.ndarray:
    next_q = q_values(built.start.target_params["critic"], batch.next_obs, everywhere(TARGET)).min(axis=0)
    return np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q


def last_bias_gradient(state: TrainState) -> np.ndarray:
    layers = optax.tree.get(state.opt_state["policy"], "mu")["params"]["Mlp_0"]
    return 10.0 * np.asarray(layers[last_layer(layers)]["bias"], np.float64)


def test_critic_regresses_on_the_smaller_target_value_of_the_target_policys_action(paper, batch):
    _, metrics = run(paper, batch)
    y = targets_of(paper, batch)
    q = q_values(paper.start.params["critic"], batch.obs, batch.action)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-4)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-4)


def test_target_can_be_divided_by_its_deviation(other, batch):
    _, metrics = run(other, batch)
    y = targets_of(other, batch)
    q = q_values(other.start.params["critic"], batch.obs, batch.action)
    scaled = y / y.std(ddof=1)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - scaled) ** 2).mean(axis=1).sum(), rel=1e-4)


@pytest.mark.parametrize("which", ["step", "none"])
def test_consistency_loss_is_the_weighted_distance_to_the_averaged_model(paper, other, batch, which):
    built, weight = (paper, FIRST_WEIGHT) if which == "step" else (other, 1.0)
    state, metrics = run(built, batch, q_weight=0.0)
    assert float(metrics["num_levels"]) == 2.0
    assert float(metrics["bc_loss"]) == pytest.approx(weight * ((ONLINE - TARGET) ** 2).mean(), rel=1e-4)
    assert float(metrics["policy_loss"]) == float(metrics["bc_loss"])
    # 2 / U = 1, and all of it is the online model's.
    np.testing.assert_allclose(last_bias_gradient(state), weight * (ONLINE - TARGET), rtol=1e-4)


def test_policy_climbs_one_updated_critic_over_the_size_of_the_other(paper, batch):
    found = []
    for k in range(12):
        state, metrics = run(paper, batch, key=k, q_weight=1.7, critic_lr=0.3)
        q = q_values(state.params["critic"], batch.obs, everywhere(ONLINE)).mean(axis=1)
        size = np.abs(q_values(state.params["critic"], batch.obs, everywhere(ONLINE))).mean(axis=1)
        crossed = np.array([-q[0] / size[1], -q[1] / size[0]])
        distance = np.abs(float(metrics["policy_loss"] - metrics["bc_loss"]) / 1.7 - crossed)
        assert distance.min() < 1e-4
        assert abs(-q[0] / size[0] - crossed).min() > 1e-2  # its own size would be another number
        found.append(distance.argmin())
    assert set(found) == {0, 1}


def test_curriculum_is_that_of_consistency_training_and_starts_anew():
    period = 50_000.0
    for step in (0, 1, 7, 100, 1_234, 10_001, 25_000, 49_999):
        root = math.sqrt(step / period * (150**2 - 2**2) + 2**2) - 1.0
        if abs(root - round(root)) > 1e-3 or step == 0:
            wanted = math.ceil(root) + 1
            for turn in (0, 1, 3):
                found = int(num_levels_at(jnp.int32(step + turn * period), jnp.float32(period)))
                assert abs(found - wanted) <= (turn > 0)  # a float32 of a large step may round across an edge
    assert int(num_levels_at(jnp.int32(50_000), jnp.float32(period))) == 2


class Model(NamedTuple):
    """The paper's own parameterisation, with random weights."""

    policy: Any
    params: Any
    target: Any
    obs: np.ndarray
    action: np.ndarray


@pytest.fixture(scope="module")
def model() -> Model:
    policy = make_consistency_policy(consistency_ac.Config(policy=POLICY), SPEC)
    shapes = jax.eval_shape(policy.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(BATCH, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, size=(BATCH, 2)).astype(np.float32)
    return Model(policy, random_params(shapes, 0), random_params(shapes, 1), obs, action)


def test_no_gradient_goes_into_the_averaged_model_though_it_has_a_say(model):
    @jax.jit
    def value_and_gradient(target: Any) -> Any:
        def loss(target: Any) -> jax.Array:
            args = (jax.random.key(0), model.params, target, jnp.int32(150), model.obs, model.action)
            return jnp.mean(model.policy.loss(*args))

        return jax.value_and_grad(loss)(target)

    first, gradient = value_and_gradient(model.target)
    second, _ = value_and_gradient(model.params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
    assert abs(float(first) - float(second)) > 1e-3


def test_with_two_levels_the_target_is_the_action_itself(model):
    """At 0.002 the model is the identity: the averaged weights have no say, and a constant pulls to the data."""
    loss = jax.jit(lambda params, target: model.policy.loss(
        jax.random.key(0), params, target, jnp.int32(2), model.obs, model.action
    ))  # fmt: skip
    params = constant_policy(model.params, ONLINE)
    np.testing.assert_array_equal(loss(params, model.target), loss(params, model.params))
    # f(x, 80) = 0.5 * 79.998 / sqrt(80**2 + 0.25) F, but for a share of x of 4e-5: |x| is about 80.
    wanted = FIRST_WEIGHT * ((0.5 * ONLINE - model.action) ** 2).mean(axis=-1)
    np.testing.assert_allclose(loss(params, model.target), wanted, atol=0.04)


def test_sampling_calls_the_model_at_80_and_at_2(model):
    """Without noise in between, a constant F gives f(f(80 z, 80), 2), whose parts are known but for 0.003 z."""
    params = constant_policy(model.params, ONLINE)
    sample = jax.jit(lambda temperature: model.policy.sample(jax.random.key(0), params, model.obs, temperature))

    def coefficients(sigma: float) -> tuple[float, float]:
        return 0.25 / ((sigma - 0.002) ** 2 + 0.25), 0.5 * (sigma - 0.002) / math.sqrt(sigma**2 + 0.25)

    first = coefficients(80.0)[1] * ONLINE
    skip, out = coefficients(2.0)
    np.testing.assert_allclose(sample(0.0), everywhere(skip * first + out * ONLINE), atol=skip * 0.003 * 5)
    # With it, the second call sees noise of deviation 2.
    assert np.asarray(sample(1.0) - sample(0.0)).std() == pytest.approx(2.0 * skip, rel=0.35)


def test_a_schedule_that_ends_at_pure_noise_is_refused():
    policy = PolicyConfig(schedule="flow", kind="flow", num_levels=0, sampler="consistency", num_steps=2)
    with pytest.raises(ValueError, match="schedule='flow' ends at pure noise.*'edm'"):
        consistency_ac.make(consistency_ac.Config(policy=policy), SPEC)


def test_unknown_names_and_counts_below_one_are_refused():
    with pytest.raises(KeyError, match="unknown pair_weight 'stpe'.*did you mean 'step'"):
        consistency_ac.make(consistency_ac.Config(pair_weight="stpe"), SPEC)
    for name in ("num_candidates", "num_backup_candidates", "ema_period"):
        with pytest.raises(ValueError, match=f"{name}=0; it must be at least 1"):
            consistency_ac.make(dataclasses.replace(consistency_ac.Config(), **{name: 0}), SPEC)


def test_two_calls_find_the_best_corner():
    policy = dataclasses.replace(POLICY, hidden=(64, 64), activation="relu")
    config = consistency_ac.Config(
        policy=policy, critic_hidden=(64, 64), critic_activation="relu", num_candidates=10, ema_period=1
    )
    rates = {"lr": 3e-3, "critic_lr": 3e-3, "polyak": 0.05, "ema_rate": 0.05, "ema_start": 0.0}
    bandit = CornerBandit(consistency_ac, config, q_weight=10.0, curriculum_steps=1000.0, **rates)
    assert near_corners(bandit.actions(bandit.learn(1000)), 0.2)[3] > 0.9
