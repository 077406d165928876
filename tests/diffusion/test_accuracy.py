"""Exact moments and convergence orders, without Monte Carlo and in float64."""

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxdiff.diffusion import SOLVERS, ddpm, dpmpp, grid_levels, sample, vp

MEAN, VARIANCE = 0.4, 0.3
ORDERS = {"ddpm": 1.0, "ddpm_large": 1.0, "ddim": 1.0, "dpmpp_1": 1.0, "dpmpp_2m": 2.0}


def final_moments(table, levels, denoise, monkeypatch, data=(MEAN, VARIANCE)):
    """Mean and variance of what a solver makes of Gaussian data, exactly.

    The denoiser is affine, so the sample is x0 = A x_T + sum_k C_k z_k + B. A batch of unit vectors, fed as x_T and as
    the noise of each step, reads the coefficients off the real `sample`.
    """
    steps = len(levels.t) - 1
    inputs = np.concatenate([np.zeros((1, 1 + steps)), np.eye(1 + steps)])  # zero, then one unit vector per source
    noise = jnp.asarray(inputs[:, 1:].T[..., None])  # [K, 2 + K, 1]
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=None: noise[: shape[0]])
    x0 = sample(denoise, table, jnp.asarray(inputs[:, :1]), jax.random.key(0), unroll=False)
    offset, gains = x0[0, 0], x0[1:, 0] - x0[0, 0]
    alpha, sigma = levels.alpha[0], levels.sigma[0]
    mean = offset + gains[0] * alpha * data[0]
    variance = gains[0] ** 2 * (alpha**2 * data[1] + sigma**2) + np.sum(gains[1:] ** 2)
    return float(mean), float(variance)


@pytest.mark.parametrize("name", SOLVERS)
def test_moments_of_gaussian_data_converge_to_the_data_s(name, x64, monkeypatch):
    def error(steps):
        levels = grid_levels(vp(), steps)
        moments = final_moments(SOLVERS[name](levels), levels, exact.gaussian(MEAN, VARIANCE), monkeypatch)
        return np.subtract(moments, (MEAN, VARIANCE))

    coarse, fine = error(100), error(200)
    assert np.abs(fine).max() < 0.02
    # Means of some chains are exact; the variance never is.
    assert np.log2(np.abs(coarse[1] / fine[1])) > 0.8
    assert abs(fine[0]) <= max(abs(coarse[0]) / 1.7, 1e-9)
    if name in ORDERS:
        np.testing.assert_allclose(np.log2(np.abs(coarse[1] / fine[1])), ORDERS[name], atol=0.25)


@pytest.mark.parametrize(("variance", "data"), [("large", (0.0, 1.0)), ("small", (0.4, 0.0))])
def test_each_variance_of_ddpm_is_exact_for_one_kind_of_data(variance, data, x64, monkeypatch):
    """Ho et al. 2020, section 3.2: beta is optimal for data N(0, 1), the posterior variance for a single point."""
    levels = grid_levels(vp(), 7, t_end=0.1)
    moments = final_moments(ddpm(levels, variance=variance), levels, exact.gaussian(*data), monkeypatch, data)
    alpha, sigma = levels.alpha[-1], levels.sigma[-1]
    np.testing.assert_allclose(moments, (alpha * data[0], alpha**2 * data[1] + sigma**2), atol=1e-12)


@pytest.mark.parametrize(
    ("build", "order"),
    [
        (SOLVERS["ddim"], 1.0),
        (SOLVERS["dpmpp_1"], 1.0),
        (SOLVERS["dpmpp_2m"], 2.0),
        (lambda levels: dpmpp(levels, order=2, lower_order_final=False), 2.0),
    ],
    ids=["ddim", "dpmpp_1", "dpmpp_2m", "dpmpp_2m_full"],
)
def test_deterministic_solvers_converge_at_their_order(build, order, x64):
    """Against the probability-flow ODE dy/dlambda = E[x0 | y] - y, y = x / alpha, solved to 1e-11."""
    first, last = -4.0, 3.0
    start = exact.half_logsnr_levels(np.array([first, last]))
    x_T = np.random.default_rng(0).normal(size=(4, 2)) * start.sigma[0]

    def velocity(lam, y):
        y = y.reshape(x_T.shape)
        return (exact.posterior_mean(np, y, 1.0, np.exp(-lam)) - y).ravel()

    y_T = (x_T / start.alpha[0]).ravel()
    truth = solve_ivp(velocity, (first, last), y_T, method="DOP853", rtol=1e-11, atol=1e-12).y[:, -1]

    def error(steps):
        levels = exact.half_logsnr_levels(np.linspace(first, last, steps + 1))
        y = sample(exact.mixture, build(levels), jnp.asarray(x_T), unroll=False) / levels.alpha[-1]
        return np.sqrt(np.mean((np.asarray(y).ravel() - truth) ** 2))

    errors = [error(steps) for steps in (96, 192, 384)]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), order, atol=0.15)
