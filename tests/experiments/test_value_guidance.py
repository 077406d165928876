"""The study of value guidance: its closed forms against other ones, and the orders that theory promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.value_guidance import (
    Model,
    cov_errors,
    double_integrator,
    errors_of,
    order,
    sampled_means,
    tilted,
)
from jaxdiff import diffusion

PROBLEM = double_integrator(2)
W = (0.01, 0.02, 1.0)
CALLS = (64, 128)
EXACT, PLAIN, BEFORE = ("exact", "score_gain"), ("regression", "score_gain"), ("regression", "guide_before")
TWICE, STEPS, NOISY = ("exact", "guide_before twice, w / 2"), ("exact", "mean_gradient"), ("noisy", "score_gain")
DPS, DPS_COV = ("J(x0_hat)", "dps"), ("J(x0_hat) and P", "dps")


@pytest.fixture(scope="module")
def means():
    """(value, form) -> [len(CALLS), len(W), n]."""
    names = (EXACT, PLAIN, BEFORE, TWICE, STEPS, NOISY, DPS, DPS_COV)
    with jax.enable_x64(True):
        found = [sampled_means(PROBLEM, K, W, names, jax.jit) for K in CALLS]
    return {name: np.stack([by_name[name] for by_name in found]) for name in names}


def test_the_optimal_plan_is_the_linear_quadratic_regulator_s():
    """Riccati's recursion, with a known start; the prior adds u**2 / 2 to w times the cost of every action."""
    horizon, w, dt = 6, 1.7, 0.3
    step, push = np.array([[1.0, dt], [0.0, 1.0]]), np.array([[0.0], [dt]])
    state_cost, action_cost = w * np.diag([1.0, 0.1]), 1.0 + w * 0.1
    to_go, gains = state_cost, []  # of the last state; the last action changes none of them
    for _ in range(horizon - 1):
        gain = np.linalg.solve(action_cost + push.T @ to_go @ push, push.T @ to_go @ step)
        to_go = state_cost + step.T @ to_go @ (step - push @ gain)
        gains.insert(0, gain)
    state, plan = np.array([-1.0, 0.5]), []
    for gain in (*gains, np.zeros((1, 2))):
        action = -gain @ state
        plan += [*state, *action]
        state = step @ state + push @ action
    mean, cov = tilted(double_integrator(horizon, start_std=0.0), w)
    np.testing.assert_allclose(mean, plan, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(cov[:2, :2], 0.0, atol=1e-12)


def test_the_exact_value_is_the_log_of_a_mean_over_the_posterior(x64):
    """By quadrature, for plans of one number: the change of log E[exp(w J(x0)) | x_t] from one x_t to another."""
    problem = type(PROBLEM)(np.array([0.3]), np.array([[0.8]]), np.array([1.0]), np.array([[1.5]]))
    model, level, w = Model(problem), diffusion.level_at(diffusion.vp(), np.array(0.4)), 2.0
    x0 = np.linspace(-12.0, 12.0, 4001)
    logs = {"exact": [], "regression": []}
    points = (-0.7, 1.1)
    for x in points:
        weight = np.exp(-((x0 - 0.3) ** 2) / 1.6 - (x - level.alpha * x0) ** 2 / (2.0 * level.sigma**2))
        gain = -0.75 * (x0 - 1.0) ** 2
        logs["exact"].append(np.log(np.sum(weight * np.exp(w * gain)) / np.sum(weight)))
        logs["regression"].append(np.sum(weight * gain) / np.sum(weight))
    for name, found in logs.items():
        value, _ = model.values(jnp.asarray(w))[name]
        got = [float(value(jnp.asarray([x]), level)) for x in points]
        np.testing.assert_allclose(got[1] - got[0], found[1] - found[0], rtol=1e-8)


def test_the_exact_value_gives_the_exact_mean_and_the_covariance_as_steps_shrink(means):
    assert errors_of(PROBLEM, means[EXACT], W).max() < 1e-9
    off = cov_errors(PROBLEM, CALLS)
    assert off[-1] < 0.1
    assert 0.7 < order([1 / K for K in CALLS], off) < 1.1


def test_guidance_by_the_variance_of_a_step_is_exact_as_steps_shrink(means):
    for name in (TWICE, STEPS):
        errors = errors_of(PROBLEM, means[name], W)[:, 2]
        assert 0.6 < order([1 / K for K in CALLS], errors) < 1.1


def test_the_regression_value_is_wrong_in_second_order_and_the_noisy_return_in_first(means):
    assert abs(order(W[:2], errors_of(PROBLEM, means[PLAIN][-1], W)[:2] * W[:2]) - 2.0) < 0.2
    limit = 2.0 * means[BEFORE][-1] - means[BEFORE][-2]  # without the first order in 1 / K, which is linear in w
    assert errors_of(PROBLEM, limit, W)[2] > 0.01
    assert abs(order(W[:2], errors_of(PROBLEM, means[NOISY][-1], W)[:2] * W[:2]) - 1.0) < 0.2


def test_posterior_sampling_is_the_regression_value_and_with_the_covariance_the_exact_one(means):
    np.testing.assert_allclose(means[DPS], means[PLAIN], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(means[DPS_COV], means[EXACT], rtol=1e-9, atol=1e-12)
