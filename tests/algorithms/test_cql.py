"""CQL's update against its equations: integrals over actions by quadrature, densities by hand, in float64 numpy.

Reference: Kumar et al. 2020, arXiv:2006.04779, equation 4 and appendix F, and the released code.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import mlp, q_values, random_params, relu, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import cql
from jaxdiff.envs import probes
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
BATCH = 16
MANY = 1000  # actions of each kind, so that the penalty is close to its integral
GRID = (np.arange(400) + 0.5) / 200.0 - 1.0  # midpoints of [-1, 1]


class Built(NamedTuple):
    algorithm: Algorithm
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> cql.HParams:
    return jax.tree.map(np.float32, cql.HParams(**changes))


@pytest.fixture(scope="module")
def built() -> Built:
    algorithm = cql.make(cql.Config(actor_hidden=(8,), critic_hidden=(16,), num_actions=MANY), SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 8))  # 8: its critics disagree
    scalars = {"log_multiplier": np.float32(0.5), "log_entropy_weight": np.float32(0.2)}
    start = state.replace(
        params=first | {"critic": scaled_critics(first["critic"], 4.0)} | scalars,
        target_params=second | {"critic": scaled_critics(second["critic"], 4.0)},
    )
    return Built(algorithm, jax.jit(algorithm.update), start)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(2.0 * rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 1)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(2.0 * rng.normal(size=(BATCH, 3)), jnp.float32),
    )


def narrow(state: TrainState, action: float) -> TrainState:
    """The policy almost a constant: its standard deviation before tanh is exp(-5)."""
    layers = state.params["policy"]["params"]
    last = {"kernel": np.zeros_like(layers["Dense_1"]["kernel"]), "bias": np.float32([np.arctanh(action), -9.0])}
    return state.replace(params=state.params | {"policy": {"params": {**layers, "Dense_1": last}}})


def everywhere(action: float) -> np.ndarray:
    return np.full((BATCH, 1), action)


def gap_by_quadrature(critic: Any, batch: Transition) -> np.ndarray:
    """[E, B] log of the integral of exp Q over actions, less Q of the data."""
    q = np.stack([q_values(critic, batch.obs, everywhere(a), relu) for a in GRID])
    return np.log(np.exp(q).sum(axis=0) * (2.0 / len(GRID))) - q_values(critic, batch.obs, batch.action, relu)


def moment(state: TrainState, name: str) -> Any:
    """The gradient of the first update: Adam's first moment is a tenth of it."""
    return jax.tree.map(lambda m: 10.0 * np.asarray(m, np.float64), optax.tree.get(state.opt_state[name], "mu"))


def test_backup_is_the_smaller_target_value_of_the_policys_action_without_its_entropy(built, batch):
    state = narrow(built.start.replace(hparams=hparams()), -0.4)
    _, metrics = built.update(jax.random.key(0), state, batch)
    next_q = q_values(state.target_params["critic"], batch.next_obs, everywhere(-0.4), relu)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q.min(axis=0)
    q = q_values(state.params["critic"], batch.obs, batch.action, relu)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), abs=5e-3)  # its entropy alone would be -3.8
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-2)


def test_gap_is_the_log_integral_of_exp_q_whatever_the_proposals(built, batch):
    """Each third of mu is weighted by its own density: the actions of s' by the policy's at s', though valued at s."""
    _, metrics = built.update(jax.random.key(0), built.start.replace(hparams=hparams()), batch)
    wanted = gap_by_quadrature(built.start.params["critic"], batch)
    assert np.abs(wanted).max() > 0.5
    assert float(metrics["penalty_gap"]) == pytest.approx(wanted.mean(), abs=0.01)


def test_critics_descend_error_plus_weighted_gap(built, batch):
    ended = dataclasses.replace(batch, discount=jnp.zeros(BATCH))
    state = built.start.replace(hparams=hparams(penalty_weight=3.0, penalty_gap=1e3))
    after, _ = built.update(jax.random.key(0), state, ended)
    layers = state.params["critic"]["params"]["Mlp_0"]["Dense_0"]
    error = q_values(state.params["critic"], batch.obs, batch.action, relu) - np.asarray(batch.reward, np.float64)
    found = moment(after, "critic")["params"]["Mlp_0"]["Dense_1"]
    for i in range(2):
        first = {"Dense_0": jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], layers)}

        def hidden(action: np.ndarray, first: Any = first) -> np.ndarray:
            return relu(mlp(first, np.concatenate([np.asarray(batch.obs, np.float64), action], axis=-1)))

        q = np.stack([q_values(state.params["critic"], batch.obs, everywhere(a), relu)[i] for a in GRID])
        weight = np.exp(q) / np.exp(q).sum(axis=0)
        above = sum(w[:, None] * hidden(everywhere(a)) for w, a in zip(weight, GRID, strict=True))
        data = hidden(np.asarray(batch.action, np.float64))
        wanted = (2.0 * error[i][:, None] * data + 3.0 * np.exp(0.5) * (above - data)).mean(axis=0)
        np.testing.assert_allclose(found["kernel"][i, :, 0], wanted, atol=0.02 * np.abs(wanted).max() + 0.01)
        assert found["bias"][i, 0] == pytest.approx(2.0 * error[i].mean(), abs=1e-4)  # a constant moves no gap


@pytest.mark.parametrize("penalty_gap", [-2.0, 5.0])
def test_multiplier_grows_while_the_gap_is_above_its_bound(built, batch, penalty_gap):
    state = built.start.replace(hparams=hparams(penalty_gap=penalty_gap, penalty_weight=2.0, penalty_lr=0.01))
    after, metrics = built.update(jax.random.key(0), state, batch)
    excess = float(metrics["penalty_gap"]) - penalty_gap
    assert moment(after, "log_multiplier") == pytest.approx(-2.0 * np.exp(0.5) * excess, rel=1e-4)
    assert np.sign(after.params["log_multiplier"] - 0.5) == np.sign(excess)


def test_multiplier_is_fixed_at_rate_0(built, batch):
    state = built.start.replace(hparams=hparams(penalty_lr=0.0))
    after, _ = built.update(jax.random.key(0), state, batch)
    assert float(after.params["log_multiplier"]) == 0.5


def test_entropy_weight_descends_the_excess_over_the_target(built, batch):
    state = built.start.replace(hparams=hparams(target_entropy=-1.5))
    after, metrics = built.update(jax.random.key(0), state, batch)
    assert moment(after, "log_entropy_weight") == pytest.approx(float(metrics["entropy"]) + 1.5, rel=1e-4)


def test_policy_climbs_the_old_critics_with_the_new_entropy_weight(built, batch):
    state = narrow(built.start.replace(hparams=hparams(lr=0.1, critic_lr=0.1)), 0.6)
    after, metrics = built.update(jax.random.key(0), state, batch)
    q, other = (q_values(s.params["critic"], batch.obs, everywhere(0.6), relu).min(axis=0) for s in (state, after))
    weight = float(np.exp(after.params["log_entropy_weight"]))
    assert abs(weight - np.exp(0.2)) > 0.05
    assert abs(q.mean() - other.mean()) > 0.05
    assert float(metrics["q_policy"]) == pytest.approx(q.mean(), abs=0.01)
    wanted = -weight * float(metrics["entropy"]) - float(metrics["q_policy"])
    assert float(metrics["policy_loss"]) == pytest.approx(wanted, rel=1e-4)


def test_before_q_start_the_policy_maximises_the_likelihood_of_the_data(built, batch):
    state = built.start.replace(hparams=hparams(q_start=5.0, lr=1e-9))
    _, metrics = built.update(jax.random.key(0), state, batch)
    mean, log_std = np.split(mlp(state.params["policy"]["params"], np.asarray(batch.obs, np.float64), relu), 2, axis=-1)
    action = np.asarray(batch.action, np.float64)
    z = (np.arctanh(action) - mean) / np.exp(log_std)
    log_prob = -0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)
    wanted = -np.exp(0.2) * float(metrics["entropy"]) - log_prob.mean()
    assert float(metrics["policy_loss"]) == pytest.approx(wanted, rel=1e-4)


def test_finds_the_best_corner_of_the_bandit():
    # All observations are 0, where a layer of relu without bias is dead.
    config = cql.Config(actor_hidden=(32, 32), actor_activation="mish", critic_hidden=(64, 64), num_actions=4)
    bandit = CornerBandit(cql, config, lr=3e-3, critic_lr=3e-3, penalty_lr=0.0)
    share = near_corners(bandit.actions(bandit.learn(700)), radius=0.2)
    assert share[probes.CORNER_REWARDS.argmax()] > 0.9


def test_make_refuses_a_penalty_without_actions():
    with pytest.raises(ValueError, match="num_actions=0.*at least 1"):
        cql.make(cql.Config(num_actions=0), SPEC)
