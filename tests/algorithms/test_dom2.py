"""DOM2's sampler and update against their equations in float64 numpy, on policies that are constants.

Reference: Li et al. 2023, arXiv:2307.01472; the steps of DPM-Solver: Lu et al. 2022, arXiv:2206.00927, eq. 3.7.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import constant_policy, q_values, random_params, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import diffusion_ql, dom2
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.types import Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
POLICY = PolicyConfig(hidden=(16,), kind="x0", num_levels=2, num_steps=2)
BATCH = 16
MANY = 1000  # uniform actions, so that the penalty is close to its integral
GRID = (np.arange(400) + 0.5) / 200.0 - 1.0  # midpoints of [-1, 1]
ONLINE, TARGET = np.array([0.3]), np.array([-0.6])  # what the two policies do


class Built(NamedTuple):
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def build(module: Any, **changes: Any) -> Built:
    algorithm = module.make(dom2.Config(policy=POLICY, critic_hidden=(16,), **changes), SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 8))
    params = {"policy": constant_policy(first["policy"], ONLINE), "critic": scaled_critics(first["critic"], 4.0)}
    target = {"policy": constant_policy(first["policy"], TARGET), "critic": scaled_critics(second["critic"], 4.0)}
    return Built(jax.jit(algorithm.update), state.replace(params=params, target_params=target, hparams=hparams()))


def hparams(**changes: float) -> dom2.HParams:
    return jax.tree.map(np.float32, dom2.HParams(**{"max_grad_norm": 1e9, **changes}))


@pytest.fixture(scope="module")
def built() -> Built:
    return build(dom2, cql_samples=MANY)


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


def everywhere(action: np.ndarray | float) -> np.ndarray:
    return np.full((BATCH, 1), action)


def test_its_table_is_the_ratio_form_of_the_first_order_dpm_solver(x64):
    table = make_policy(dom2.Config().policy, SPEC).table
    t = np.linspace(1.0, 1e-3, 6)
    log_alpha = -(20.0 - 0.1) * t**2 / 4.0 - 0.1 * t / 2.0
    alpha, sigma = np.exp(log_alpha), np.sqrt(1.0 - np.exp(2.0 * log_alpha))
    h = np.diff(log_alpha - np.log(sigma))
    np.testing.assert_allclose(table.anchor, alpha[1:] / alpha[:-1], rtol=1e-9)
    np.testing.assert_allclose(table.slopes[:, 0], -sigma[1:] * np.expm1(h), rtol=1e-9)
    np.testing.assert_allclose(table.slope_x, 1.0 / sigma[:-1], rtol=1e-9)  # the slope is eps: (x - alpha x0) / sigma
    np.testing.assert_allclose(table.slope_x0, -alpha[:-1] / sigma[:-1], rtol=1e-9)
    np.testing.assert_array_equal(table.noise, 0.0)


def test_critics_descend_diffusion_qls_loss_plus_the_weighted_gap(built, batch):
    state = built.start.replace(hparams=hparams(cql_weight=3.0))
    _, metrics = built.update(jax.random.key(0), state, batch)
    next_q = q_values(state.target_params["critic"], batch.next_obs, everywhere(TARGET)).min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.95 * np.asarray(batch.discount, np.float64) * next_q
    q_data = q_values(state.params["critic"], batch.obs, batch.action)
    q = np.stack([q_values(state.params["critic"], batch.obs, everywhere(a)) for a in GRID])
    gap = np.log(np.exp(q).sum(axis=0) * (2.0 / len(GRID))) - q_data
    assert abs(gap.mean()) > 0.1
    assert float(metrics["cql_gap"]) == pytest.approx(gap.mean(), abs=0.01)
    wanted = (((q_data - y) ** 2).mean(axis=1) + 3.0 * gap.mean(axis=1)).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(wanted, abs=0.06)


def test_the_penalty_lowers_values_off_the_data_and_raises_those_of_the_data(built, batch):
    ended = dataclasses.replace(batch, discount=jnp.zeros(BATCH), reward=jnp.zeros(BATCH))
    state = built.start.replace(hparams=hparams(cql_weight=1e4, critic_lr=1e-2))
    after, first = built.update(jax.random.key(0), state, ended)
    _, second = built.update(jax.random.key(0), after, ended)
    assert float(second["cql_gap"]) < float(first["cql_gap"]) - 0.01


def test_policy_imitates_and_climbs_by_the_magnitude_of_the_same_critic(built, batch):
    state = built.start.replace(hparams=hparams(q_weight=1.7))
    after, metrics = built.update(jax.random.key(0), state, batch)
    q = q_values(after.params["critic"], batch.obs, everywhere(ONLINE))
    terms = [float(one.mean() / np.abs(one).mean()) for one in q]
    found = (float(metrics["bc_loss"]) - float(metrics["policy_loss"])) / 1.7
    assert min(abs(found - term) for term in terms) < 1e-4
    crossed = [float(q[i].mean() / np.abs(q[1 - i]).mean()) for i in (0, 1)]
    assert min(abs(a - b) for a in terms for b in crossed) > 1e-2


def test_without_uniform_actions_its_program_is_diffusion_qls(batch):
    """The same operations in the same order, and so the same random numbers."""
    config = dom2.Config(policy=POLICY, critic_hidden=(16,), cql_samples=0)
    programs = []
    for module, conservative in ((dom2, 0), (diffusion_ql, 0), (dom2, 5)):
        algorithm = module.make(dataclasses.replace(config, cql_samples=conservative), SPEC)
        state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
        programs.append(str(jax.make_jaxpr(algorithm.update)(jax.random.key(0), state, batch)))
    assert programs[0] == programs[1] != programs[2]


def test_a_penalty_with_less_than_no_action_is_refused():
    with pytest.raises(ValueError, match="cql_samples=-1.*at least 0"):
        dom2.make(dom2.Config(cql_samples=-1), SPEC)
