"""IQL's update against its equations in float64 numpy, and on the bandit; the critics are those of its siblings.

Reference: Kostrikov, Nair and Levine 2022, arXiv:2110.06169, equations 5-7, and the released code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import last_layer, mlp, q_values, random_params, relu, scaled_critics, with_layer, zeros
import pytest
from scipy import stats

from jaxdiff.algorithms import iql
from jaxdiff.envs import probes
from jaxdiff.types import Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
BATCH = 64
SIZES = {"actor_hidden": (16,), "critic_hidden": (16,)}


def hparams(**changes: float) -> iql.HParams:
    return jax.tree.map(np.float32, iql.HParams(**{"awr_temperature": 1.5, **changes}))


def v_values(params: Any, obs: np.ndarray) -> np.ndarray:
    return mlp(params["params"]["Mlp_0"], np.asarray(obs, np.float64), relu)[..., 0]


class Case(NamedTuple):
    """One update, from weights that are all different, with steps large enough to tell old weights from new."""

    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    before: TrainState
    after: TrainState
    metrics: dict[str, jax.Array]
    batch: Transition

    @property
    def advantage(self) -> np.ndarray:
        """min Q' - V with the value after its step."""
        return self.target_q - v_values(self.after.params["value"], self.batch.obs)

    @property
    def target_q(self) -> np.ndarray:
        target = self.before.target_params["critic"]
        return q_values(target, self.batch.obs, self.batch.action, relu).min(axis=0)

    def log_prob(self) -> np.ndarray:
        policy = self.before.params["policy"]
        mean = np.tanh(mlp(policy["mean"]["params"], np.asarray(self.batch.obs, np.float64), relu))
        return stats.norm.logpdf(self.batch.action, mean, np.exp(policy["log_std"])).sum(axis=-1)

    def step(self, **changes: float) -> tuple[TrainState, dict[str, jax.Array]]:
        state = self.before.replace(hparams=self.before.hparams.replace(**jax.tree.map(np.float32, changes)))
        return self.update(jax.random.key(0), state, self.batch)


@pytest.fixture(scope="module")
def case() -> Case:
    algorithm = iql.make(iql.Config(**SIZES), SPEC)
    h = hparams(value_lr=0.2, critic_lr=0.2, expectile=0.8, discount_factor=0.9, polyak=0.25)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), h))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    critic = scaled_critics(second["critic"], 4.0)
    # Above V on some of the batch and below it on the rest.
    targets = {**second, "critic": with_layer(critic, last_layer(critic["params"]["Mlp_0"]), bias=1.0)}
    before = state.replace(params=first, target_params=targets, hparams=h)
    rng = np.random.default_rng(0)
    batch = Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
    )
    update = jax.jit(algorithm.update)
    return Case(update, before, *update(jax.random.key(0), before, batch), batch)


def gradient(case: Case, part: str) -> Any:
    """The gradient of the first update: Adam's first moment is a tenth of it."""
    return jax.tree.map(lambda m: 10.0 * np.asarray(m, np.float64), optax.tree.get(case.after.opt_state[part], "mu"))


def bias_gradient(case: Case, part: str) -> np.ndarray:
    layers = gradient(case, part)["params"]["Mlp_0"]
    return layers[last_layer(layers)]["bias"]


def test_value_regresses_on_the_expectile_of_the_smaller_target_q(case):
    u = case.target_q - v_values(case.before.params["value"], case.batch.obs)
    weight = np.where(u < 0, 0.2, 0.8)
    assert 0 < (u < 0).sum() < BATCH
    assert float(case.metrics["value_loss"]) == pytest.approx((weight * u**2).mean(), rel=1e-5)
    np.testing.assert_allclose(bias_gradient(case, "value")[0], -2.0 * (weight * u).mean(), rtol=1e-4)


def test_critic_bootstraps_from_the_new_value_and_not_after_a_termination(case):
    reward, discount = (np.asarray(x, np.float64) for x in (case.batch.reward, case.batch.discount))
    old, new = (
        reward + 0.9 * discount * v_values(state.params["value"], case.batch.next_obs)
        for state in (case.before, case.after)
    )
    assert abs(old.mean() - new.mean()) > 1e-2
    assert float(case.metrics["target_mean"]) == pytest.approx(new.mean(), rel=1e-4)
    error = q_values(case.before.params["critic"], case.batch.obs, case.batch.action, relu) - new
    assert float(case.metrics["critic_loss"]) == pytest.approx((error**2).mean(axis=1).sum(), rel=1e-4)
    np.testing.assert_allclose(bias_gradient(case, "critic")[:, 0], 2.0 * error.mean(axis=1), rtol=1e-3, atol=1e-5)


def test_policy_is_weighted_by_the_new_value_and_the_old_targets(case):
    weight = np.minimum(np.exp(1.5 * case.advantage), 100.0)
    assert float(case.metrics["weight_mean"]) == pytest.approx(weight.mean(), rel=1e-4)
    assert float(case.metrics["policy_loss"]) == pytest.approx(-(weight * case.log_prob()).mean(), rel=1e-4)
    # Other readings of the order are far away: the old value, and targets or critics that have moved.
    obs, action = case.batch.obs, case.batch.action
    moved = q_values(case.after.target_params["critic"], obs, action, relu).min(axis=0)
    online = q_values(case.after.params["critic"], obs, action, relu).min(axis=0)
    new, old = (v_values(state.params["value"], obs) for state in (case.after, case.before))
    for wrong in (case.target_q - old, moved - new, online - new):
        other = np.minimum(np.exp(1.5 * wrong), 100.0).mean()
        assert abs(other - weight.mean()) > 1e-2 * weight.mean()


def test_policys_gradient_is_that_of_a_weighted_likelihood(case):
    """Of log std: -E w (z**2 - 1); no gradient comes through the weights."""
    weight = np.minimum(np.exp(1.5 * case.advantage), 100.0)
    policy = case.before.params["policy"]
    mean = np.tanh(mlp(policy["mean"]["params"], np.asarray(case.batch.obs, np.float64), relu))
    z = (np.asarray(case.batch.action, np.float64) - mean) / np.exp(policy["log_std"])
    wanted = -(weight[:, None] * (z**2 - 1.0)).mean(axis=0)
    np.testing.assert_allclose(gradient(case, "policy")["log_std"], wanted, rtol=1e-3, atol=1e-5)


def test_weights_stop_at_their_maximum(case):
    _, metrics = case.step(awr_temperature=1e4, max_weight=7.0)
    assert float(metrics["weight_mean"]) == pytest.approx(7.0 * (case.advantage > 0).mean(), rel=1e-4)


def test_without_temperature_the_policy_imitates_everything_alike(case):
    _, metrics = case.step(awr_temperature=0.0)
    assert float(metrics["weight_mean"]) == pytest.approx(1.0)
    assert float(metrics["policy_loss"]) == pytest.approx(-case.log_prob().mean(), rel=1e-5)


def test_target_critics_follow_the_new_critics(case):
    trees = (case.before.target_params, case.after.params, case.after.target_params)
    old, online, new = (jax.tree.leaves(tree["critic"]) for tree in trees)
    for a, b, c in zip(old, online, new, strict=True):
        np.testing.assert_allclose(c, 0.75 * np.asarray(a) + 0.25 * np.asarray(b), atol=1e-6)


def test_rate_of_the_policy_alone_decays(case):
    """At the end of the cosine the policy stands still and the critics go on."""
    late = case.before.replace(
        step=jnp.int32(50), hparams=case.before.hparams.replace(lr_decay_steps=np.float32(50.0), lr=np.float32(0.1))
    )
    after, _ = case.update(jax.random.key(0), late, case.batch)
    for name, still in (("policy", True), ("critic", False), ("value", False)):
        pairs = zip(jax.tree.leaves(after.params[name]), jax.tree.leaves(late.params[name]), strict=True)
        assert all(np.allclose(a, b, atol=1e-8) for a, b in pairs) is still


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("hparams", "lr", 3e-4),
        ("hparams", "critic_lr", 3e-4),
        ("hparams", "value_lr", 3e-4),
        ("hparams", "discount_factor", 0.99),
        ("hparams", "polyak", 0.005),
        ("hparams", "expectile", 0.7),
        ("hparams", "awr_temperature", 3.0),
        ("hparams", "max_weight", 100.0),
        ("config", "actor_hidden", (256, 256)),
        ("config", "actor_activation", "relu"),
        ("config", "critic_hidden", (256, 256)),
        ("config", "critic_activation", "relu"),
    ],
)
def test_defaults_are_the_papers(group, name, value):
    assert getattr({"hparams": iql.HParams(), "config": iql.Config()}[group], name) == value


def test_iql_finds_the_best_corner_and_its_value_the_expectile():
    """A Gaussian has one mode: with a weight on the best corner alone, it is there and as narrow as the corner.

    V solves 0.9 (5 - V) = 0.1 (3 V - 0 - 1.5 - 3) over the four mean rewards: 4.125.
    """
    smooth = {"actor_activation": "mish", "critic_activation": "mish"}  # relu is flat where obs and biases are 0
    config = iql.Config(actor_hidden=(64,), critic_hidden=(64, 64), **smooth)
    bandit = CornerBandit(iql, config, lr=3e-3, critic_lr=3e-3, value_lr=3e-3, polyak=0.05, expectile=0.9)
    state = bandit.learn(1200, awr_temperature=5.0)
    assert probes.CORNER_REWARDS.argmax() == 3
    assert near_corners(bandit.actions(state), radius=0.2)[3] > 0.9
    v = mlp(state.params["value"]["params"]["Mlp_0"], np.zeros((1, 1)))
    assert v.item() == pytest.approx(4.125, abs=0.3)  # 3.5 at 0.8, 4.5 at 0.95
