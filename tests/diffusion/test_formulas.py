"""Each solver against its published update, in float64 numpy with alpha_bar, and the identities between solvers."""

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    Level,
    ddim,
    ddpm,
    dpmpp,
    flow,
    from_betas,
    grid_levels,
    linear_betas,
    sample,
    vp,
)

X_T = np.random.default_rng(0).normal(size=(4, 2))
SHORT, LONG = from_betas(np.linspace(0.1, 0.8, 6)), from_betas(linear_betas(25))


def alpha_bars(schedule):
    """[K + 1] decreasing noise, 1 at the end, of the chain's own levels."""
    betas = -np.expm1(2.0 * np.diff(schedule.log_alphas))
    return np.concatenate([[1.0], np.cumprod(1.0 - betas)])[::-1]


def x0_hat(x, alpha_bar):
    return exact.posterior_mean(np, x, np.sqrt(alpha_bar), np.sqrt(1.0 - alpha_bar))


def ho_ddpm(schedule, noise, large=False):
    """Ho et al. 2020, eq. 6-7 and algorithm 2: beta_t, alpha_bar_t, posterior mean and variance."""
    x, bars = X_T, alpha_bars(schedule)
    for k, (here, there) in enumerate(zip(bars[:-1], bars[1:], strict=True)):
        beta = 1.0 - here / there
        mean = np.sqrt(there) * beta / (1 - here) * x0_hat(x, here)
        mean += np.sqrt(1 - beta) * (1 - there) / (1 - here) * x
        variance = beta if large else beta * (1 - there) / (1 - here)
        x = mean + (np.sqrt(variance) * noise[k] if there < 1.0 else 0.0)
    return x


def song_ddim(schedule, noise, eta):
    """Song et al. 2021, eq. 12 and 16."""
    x, bars = X_T, alpha_bars(schedule)
    for k, (here, there) in enumerate(zip(bars[:-1], bars[1:], strict=True)):
        x0 = x0_hat(x, here)
        eps = (x - np.sqrt(here) * x0) / np.sqrt(1 - here)
        sigma = eta * np.sqrt((1 - there) / (1 - here)) * np.sqrt(1 - here / there)
        x = np.sqrt(there) * x0 + np.sqrt(1 - there - sigma**2) * eps + sigma * noise[k]
    return x


def lu_dpmpp(schedule, order):
    """Lu et al. 2022b, algorithm 2: D = (1 + 1 / 2r) x0 - x0_previous / 2r, with r = h_previous / h."""
    x, bars, previous, h_previous = X_T, alpha_bars(schedule), None, None
    for here, there in zip(bars[:-1], bars[1:], strict=True):
        x0 = d = x0_hat(x, here)
        if there == 1.0:
            return x0
        h = 0.5 * (np.log(there / (1 - there)) - np.log(here / (1 - here)))
        if order == 2 and previous is not None:
            r = h_previous / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * previous
        x = np.sqrt((1 - there) / (1 - here)) * x - np.sqrt(there) * np.expm1(-h) * d
        previous, h_previous = x0, h
    raise AssertionError("the chain ends clean")


@pytest.mark.parametrize("schedule", [SHORT, LONG], ids=["unrolled", "scan"])
@pytest.mark.parametrize(
    ("build", "published"),
    [
        (ddpm, ho_ddpm),
        (lambda levels: ddpm(levels, variance="large"), lambda s, z: ho_ddpm(s, z, large=True)),
        (ddim, lambda s, z: song_ddim(s, z, 0.0)),
        (lambda levels: ddim(levels, eta=0.4), lambda s, z: song_ddim(s, z, 0.4)),
        (lambda levels: ddim(levels, eta=1.0), lambda s, z: song_ddim(s, z, 1.0)),
        (lambda levels: dpmpp(levels, order=1), lambda s, z: lu_dpmpp(s, 1)),
        (lambda levels: dpmpp(levels, order=2), lambda s, z: lu_dpmpp(s, 2)),
    ],
    ids=["ddpm", "ddpm_large", "ddim", "ddim_0.4", "ddim_1", "dpmpp_1", "dpmpp_2m"],
)
def test_a_chain_follows_its_published_update(schedule, build, published, given_noise, x64):
    levels = grid_levels(schedule, len(schedule.log_alphas) - 1)
    got = sample(exact.mixture, build(levels), jnp.asarray(X_T), jax.random.key(0))
    np.testing.assert_allclose(got, published(schedule, given_noise((30, 4, 2))), atol=1e-9)


def test_temperature_zero_walks_along_the_means(x64):
    cold = sample(exact.mixture, ddpm(grid_levels(SHORT, 6)), jnp.asarray(X_T), jax.random.key(0), temperature=0.0)
    np.testing.assert_allclose(cold, ho_ddpm(SHORT, np.zeros(6)), atol=1e-9)


def rows(table):
    return [np.asarray(leaf) for leaf in (table.anchor, table.slopes, table.noise, table.slope_x0, table.slope_x)]


@pytest.mark.parametrize("schedule", [vp(), LONG, flow()], ids=["vp", "betas", "flow"])
@pytest.mark.parametrize("t_end", [0.0, 0.02])
def test_ddim_with_eta_one_is_ddpm_row_by_row(schedule, t_end, x64):
    levels = grid_levels(schedule, 10, t_end)
    for one, other in zip(rows(ddim(levels, eta=1.0)), rows(ddpm(levels)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)
    assert ddim(levels, eta=1.0).noisy_rows == ddpm(levels).noisy_rows


@pytest.mark.parametrize("schedule", [vp(), LONG, flow()], ids=["vp", "betas", "flow"])
def test_ddim_without_noise_is_first_order_dpm_solver(schedule, x64):
    levels = grid_levels(schedule, 10)
    for one, other in zip(rows(ddim(levels)), rows(dpmpp(levels, order=1)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-13)


def test_ddim_on_the_straight_path_is_euler(x64):
    t, x = np.linspace(1.0, 0.0, 11), X_T
    for here, there in zip(t[:-1], t[1:], strict=True):
        x0 = exact.posterior_mean(np, x, 1.0 - here, here)
        x = x + (there - here) * (x - x0) / here  # u = eps - x0 = (x - x0) / t
    got = sample(exact.mixture, ddim(grid_levels(flow(), 10)), jnp.asarray(X_T))
    np.testing.assert_allclose(got, x, atol=1e-12)


def test_deterministic_solvers_do_not_see_the_schedule_beyond_the_snr(x64):
    """The same lambda grid, once variance preserving and once on the straight path, ends at the same sample."""
    lam = np.linspace(-3.0, 4.0, 9)
    preserving = exact.half_logsnr_levels(lam)
    straight = Level(preserving.t, -np.logaddexp(0.0, -lam), -np.logaddexp(0.0, lam))
    for build in (ddim, dpmpp):
        y = [
            sample(exact.mixture, build(levels), jnp.asarray(X_T) * levels.sigma[0]) / levels.alpha[-1]
            for levels in (preserving, straight)
        ]
        np.testing.assert_allclose(y[0], y[1], atol=1e-12)
