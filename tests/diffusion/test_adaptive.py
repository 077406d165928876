"""Adaptive steps against the probability-flow ODE solved by another library, in float64."""

import sys

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxdiff.diffusion import SCHEDULES, level_at
from jaxdiff.diffusion.likelihood import ode_log_likelihood_adaptive
from jaxdiff.diffusion.schedules import flow, time_at, vp
from jaxdiff.diffusion.solvers.adaptive import sample_adaptive

LOW, HIGH = -4.0, 3.0
Y_T = np.random.default_rng(0).normal(size=(4, 2)) * np.exp(-LOW)


def mixture(x, level):
    """The mixture's denoiser for a single sample [D]."""
    return exact.mixture(x[None], level)[0]


def ends(schedule):
    return {"t_min": float(time_at(schedule, HIGH)), "t_max": float(time_at(schedule, LOW))}


@pytest.fixture(scope="module")
def truth():
    """dy/dlambda = E[x0 | y] - y from lambda = -4 to 3, to 1e-11."""

    def velocity(lam, y):
        y = y.reshape(Y_T.shape)
        return (exact.posterior_mean(np, y, 1.0, np.exp(-lam)) - y).ravel()

    solved = solve_ivp(velocity, (LOW, HIGH), Y_T.ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
    return solved.y[:, -1].reshape(Y_T.shape)


@pytest.mark.parametrize("name", ["flow", "ve"])
def test_the_solution_is_the_ode_s_on_any_schedule(name, truth, x64):
    schedule = SCHEDULES[name]()
    noisy, clean = (level_at(schedule, ends(schedule)[t]) for t in ("t_max", "t_min"))
    solve = jax.jit(lambda x: sample_adaptive(mixture, schedule, x, rtol=1e-8, atol=1e-8, **ends(schedule)))
    got = solve(jnp.asarray(noisy.alpha * Y_T))
    assert got.num_calls.shape == (4,)
    np.testing.assert_allclose(got.x / clean.alpha, truth, atol=1e-6)


def test_tolerance_buys_accuracy_with_calls_that_are_counted(truth, x64):
    schedule, calls = vp(), []
    noisy, clean = (level_at(schedule, ends(schedule)[t]) for t in ("t_max", "t_min"))

    def note(lam):
        calls.append(float(lam))
        return np.asarray(lam)

    def counted(x, level):
        lam = jax.pure_callback(note, jax.ShapeDtypeStruct((), x.dtype), level.half_logsnr)
        return mixture(x, level) + 0.0 * lam

    @jax.jit
    def solve(x, tolerance):
        return sample_adaptive(counted, schedule, x, rtol=tolerance, atol=tolerance, **ends(schedule))

    errors, counts = [], []
    for tolerance in (1e-3, 1e-6):
        calls.clear()
        got = solve(jnp.asarray(noisy.alpha * Y_T[0]), tolerance)
        errors.append(np.abs(got.x / clean.alpha - truth[0]).max())
        counts.append(int(got.num_calls))
        assert counts[-1] == len(calls)
    assert errors[1] < 1e-4 < errors[0] < 0.1
    assert counts[0] < counts[1] < 250


def test_each_sample_takes_its_own_steps_and_becomes_nan_without_enough(truth, x64):
    schedule, max_steps = flow(), 16
    noisy, clean = (level_at(schedule, ends(schedule)[t]) for t in ("t_max", "t_min"))
    solve = jax.jit(lambda x: sample_adaptive(mixture, schedule, x, max_steps=max_steps, **ends(schedule)))
    got = solve(jnp.asarray(noisy.alpha * Y_T))
    steps = (np.asarray(got.num_calls) - 1) // 6
    arrived = np.isfinite(got.x).all(axis=1)
    assert len(set(steps[arrived])) > 1, "these samples should differ in difficulty"
    assert 0 < arrived.sum() < 4, "max_steps should be enough for some and too few for others"
    assert (steps[~arrived] == max_steps).all()
    assert np.isnan(got.x[~arrived]).all()
    np.testing.assert_allclose(got.x[arrived] / clean.alpha, truth[arrived], atol=1e-3)


def test_gradients_reach_the_start_and_the_constants_of_the_schedule(x64):
    """Of Gaussian data with mean 0 the ODE scales y by sqrt((v + rho_0**2) / (v + rho_T**2))."""
    x_T = jnp.asarray([1.3])

    def end(beta_max, x):
        return sample_adaptive(exact.gaussian(0.0, 0.3), vp(0.1, beta_max), x, rtol=1e-7, atol=1e-7, t_min=0.05).x[0]

    def truth(beta_max):
        noisy, clean = level_at(vp(0.1, beta_max), 1.0), level_at(vp(0.1, beta_max), 0.05)
        spread = (0.3 + (level.sigma / level.alpha) ** 2 for level in (clean, noisy))
        return clean.alpha / noisy.alpha * np.sqrt(np.divide(*spread))

    by_beta, by_x = jax.jit(jax.grad(end, argnums=(0, 1)))(12.0, x_T)
    np.testing.assert_allclose(by_x[0], truth(12.0), rtol=1e-5)
    np.testing.assert_allclose(by_beta, 1.3 * (truth(12.001) - truth(11.999)) / 0.002, rtol=1e-4)


def test_without_diffrax_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    for call in (sample_adaptive, ode_log_likelihood_adaptive):
        with pytest.raises(ImportError, match=r"pip install 'jaxdiff\[ode\]'"):
            call(mixture, vp(), jnp.zeros((1, 2)))


def test_ends_without_a_finite_lambda_and_wrong_shapes_are_refused():
    x = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match=r"log\(alpha/sigma\) = -inf .* t_max below 1"):
        sample_adaptive(mixture, flow(), x)
    with pytest.raises(ValueError, match="t_min above 0"):
        sample_adaptive(mixture, vp(), x, t_min=0.0)
    with pytest.raises(ValueError, match="the second greater"):
        sample_adaptive(mixture, vp(), x, t_min=0.9, t_max=0.5)
    with pytest.raises(ValueError, match=r"the denoiser returned shape \(1,\) for x of shape \(2,\)"):
        sample_adaptive(lambda x, level: x[:1], vp(), x)
