"""Log-likelihoods along the probability-flow ODE against densities in closed form."""

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff.diffusion import SCHEDULES, level_at, vp
from jaxdiff.diffusion.likelihood import ode_log_likelihood, ode_log_likelihood_adaptive
from jaxdiff.diffusion.schedules import flow, time_at
from jaxdiff.diffusion.solvers.adaptive import sample_adaptive

MEAN, VARIANCE = 0.4, 0.3


def draw(count):
    """Points of the mixture, [count, 2]."""
    random = np.random.default_rng(0)
    component = random.choice(2, size=count, p=exact.WEIGHTS)
    return exact.MEANS[component] + np.sqrt(exact.VARIANCES[component]) * random.normal(size=(count, 2))


def gaussian_truth(x0, schedule, t_min, t_max, std=None):
    """log p and x_T of N(MEAN, VARIANCE): its ODE is linear, (y - MEAN) / sqrt(VARIANCE + rho**2) is constant."""
    noisy, clean = level_at(schedule, t_max), level_at(schedule, t_min)
    scale = np.sqrt((VARIANCE + np.exp(-2 * noisy.half_logsnr)) / (VARIANCE + np.exp(-2 * clean.half_logsnr)))
    x_T = noisy.alpha * (MEAN + scale * (x0 - MEAN))
    std = np.hypot(noisy.alpha, noisy.sigma) if std is None else std
    return np.sum(stats.norm.logpdf(x_T, 0.0, std) + np.log(noisy.alpha * scale), axis=-1), x_T


def test_a_mixture_s_log_density_within_a_hundredth_of_a_nat():
    """In float32 with the default grid; only t_min must be so small that its noise leaves the data their shape."""
    x0 = draw(64)
    t_min = float(time_at(vp(), 6.0))
    got = jax.jit(lambda x: ode_log_likelihood(exact.mixture, vp(), x, t_min=t_min))(jnp.asarray(x0, jnp.float32))
    assert got.log_prob.shape == got.num_calls.shape == (64,)
    np.testing.assert_allclose(got.log_prob, exact.log_density(x0), atol=0.01)


def test_what_is_not_exact_are_the_prior_and_the_noise_of_t_min(x64):
    """Against the mixture blurred at t_min and moved from its own density at x_T to the prior's."""
    x0, schedule = draw(64), vp()
    noisy, clean = level_at(schedule, 1.0), level_at(schedule, 1e-3)
    got = jax.jit(lambda x: ode_log_likelihood(exact.mixture, schedule, x, num_steps=128))(jnp.asarray(x0))
    moved = stats.norm.logpdf(got.x_T).sum(axis=-1) + 2.0 * noisy.log_alpha
    moved -= exact.log_density(np.asarray(got.x_T) / noisy.alpha, noisy.sigma / noisy.alpha)
    truth = exact.log_density(x0, clean.sigma / clean.alpha) + moved
    np.testing.assert_allclose(got.log_prob, truth, atol=2e-4)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_gaussian_s_log_density_on_every_schedule(name, x64):
    schedule = SCHEDULES[name]()
    x0, ends = np.random.default_rng(1).normal(size=(5, 3)), {"t_min": 0.02, "t_max": 0.98}
    std = 1.3 if name == "flow" else None
    denoise = exact.gaussian(MEAN, VARIANCE)
    got = ode_log_likelihood(denoise, schedule, jnp.asarray(x0), num_steps=100, prior_std=std, **ends)
    log_prob, x_T = gaussian_truth(x0, schedule, **ends, std=std)
    np.testing.assert_allclose(got.log_prob, log_prob, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got.x_T, x_T, rtol=1e-5, atol=1e-5)


def test_the_grid_converges_at_fourth_order(x64):
    x0 = np.random.default_rng(1).normal(size=(5, 3))
    truth = gaussian_truth(x0, vp(), 1e-3, 1.0)[0]
    errors = [
        np.abs(
            ode_log_likelihood(exact.gaussian(MEAN, VARIANCE), vp(), jnp.asarray(x0), num_steps=steps).log_prob - truth
        ).max()
        for steps in (32, 64, 128)
    ]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 4.0, atol=0.3)


def test_going_to_noise_and_back_by_adaptive_steps_returns_the_data(x64):
    x0, t_min = jnp.asarray(draw(3)), float(time_at(vp(), 6.0))
    settings = {"rtol": 1e-8, "atol": 1e-8, "t_min": t_min}

    def single(x, level):
        return exact.mixture(x[None], level)[0]

    there = jax.jit(lambda x: ode_log_likelihood_adaptive(single, vp(), x, **settings))(x0)
    grid = jax.jit(lambda x: ode_log_likelihood(exact.mixture, vp(), x, num_steps=400, t_min=t_min))(x0)
    np.testing.assert_allclose(there.x_T, grid.x_T, atol=1e-6)
    np.testing.assert_allclose(there.log_prob, grid.log_prob, atol=1e-5)
    np.testing.assert_allclose(there.log_prob, exact.log_density(np.asarray(x0)), atol=0.01)
    assert there.num_calls.shape == (3,)
    back = jax.jit(lambda x: sample_adaptive(single, vp(), x, **settings))(there.x_T)
    np.testing.assert_allclose(back.x / level_at(vp(), t_min).alpha, x0, atol=1e-5)


@pytest.mark.parametrize("num_probes", [1, 4])
def test_random_probes_are_unbiased_with_a_variance_of_one_over_their_number(num_probes):
    """x0_hat = A y: the trace is constant, v . A v has variance sum_{i<j} (A_ij + A_ji)**2, and probes stay drawn."""
    random = np.random.default_rng(2)
    matrix = 0.2 * random.normal(size=(3, 3))
    x0 = jnp.asarray(random.normal(size=3), jnp.float32)

    def denoise(x, level):
        return jnp.asarray(matrix, jnp.float32) @ x / level.alpha

    def log_prob(key, probes):
        return ode_log_likelihood(denoise, vp(), x0, key, num_steps=2, num_probes=probes).log_prob

    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: log_prob(key, num_probes)))(keys), np.float64)
    span = level_at(vp(), 1e-3).half_logsnr - level_at(vp(), 1.0).half_logsnr
    pairs = np.triu(matrix + matrix.T, k=1)
    variance = span**2 * np.sum(pairs**2) / num_probes
    assert abs(drawn.mean() - float(log_prob(None, 0))) < 4.0 * np.sqrt(variance / 4000)
    np.testing.assert_allclose(drawn.var(), variance, rtol=0.1)


def test_probes_are_exact_for_a_diagonal_derivative_and_the_default_above_32_dimensions(x64):
    """Rademacher probes: v_i**2 = 1. Also what shows that the exact trace is one."""
    x0 = np.random.default_rng(3).normal(size=(2, 33))
    denoise = exact.gaussian(MEAN, VARIANCE)
    by_default = ode_log_likelihood(denoise, vp(), jnp.asarray(x0), jax.random.key(0), num_steps=3)
    precise = ode_log_likelihood(denoise, vp(), jnp.asarray(x0), num_steps=3, num_probes=0)
    np.testing.assert_allclose(by_default.log_prob, precise.log_prob, rtol=1e-10)
    with pytest.raises(ValueError, match=r"num_probes=8 are random; pass key=, or num_probes=0"):
        ode_log_likelihood(denoise, vp(), jnp.asarray(x0))
    with pytest.raises(ValueError, match="num_probes=2 are random"):
        ode_log_likelihood(denoise, vp(), jnp.asarray(x0[:, :2]), num_probes=2)


def test_conditioning_of_a_batch_may_be_bound_and_one_example_is_a_row(x64):
    random = np.random.default_rng(4)
    cond, x0 = jnp.asarray(random.normal(size=(3, 2))), jnp.asarray(random.normal(size=(3, 2)))

    def bound_to(cond):
        return lambda x, level: jnp.tanh(x + cond) + 0.1 * x[..., ::-1] ** 2 / (1.0 + x**2)

    together = ode_log_likelihood(bound_to(cond), vp(), x0, num_steps=8)
    alone = ode_log_likelihood(bound_to(cond[1]), vp(), x0[1], num_steps=8)
    assert together.num_calls.tolist() == [32, 32, 32]
    np.testing.assert_allclose(together.log_prob[1], alone.log_prob, rtol=1e-10)
    np.testing.assert_allclose(together.x_T[1], alone.x_T, rtol=1e-10)


def test_one_program_serves_other_schedules_by_vmap_and_has_gradients(trace_counter, x64):
    x0 = jnp.asarray(np.random.default_rng(5).normal(size=(2, 1)))

    def total(beta_max):
        return jnp.sum(ode_log_likelihood(exact.gaussian(MEAN, VARIANCE), vp(0.1, beta_max), x0, num_steps=50).log_prob)

    betas = jnp.asarray([8.0, 12.0, 20.0])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(trace_counter(total))))(betas)
    assert trace_counter.count == 1

    def truth(beta_max):
        return gaussian_truth(np.asarray(x0), vp(0.1, beta_max), 1e-3, 1.0)[0].sum()

    np.testing.assert_allclose(values, [truth(float(b)) for b in betas], atol=1e-3)
    numeric = [(truth(float(b) + 1e-4) - truth(float(b) - 1e-4)) / 2e-4 for b in betas]
    np.testing.assert_allclose(slopes, numeric, rtol=1e-2, atol=1e-4)


def test_what_has_no_likelihood_is_refused():
    denoise, x0 = exact.gaussian(MEAN, VARIANCE), jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"x0 has shape \(2, 3, 4\).* flatten a plan"):
        ode_log_likelihood(denoise, vp(), jnp.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="num_steps=0"):
        ode_log_likelihood(denoise, vp(), x0, num_steps=0)
    with pytest.raises(ValueError, match="num_probes=-1; allowed: 0"):
        ode_log_likelihood(denoise, vp(), x0, num_probes=-1)
    with pytest.raises(ValueError, match="t_max below 1"):
        ode_log_likelihood(denoise, flow(), x0)
    with pytest.raises(ValueError, match=r"the denoiser returned shape \(2, 1\) for x of shape \(2, 3\)"):
        ode_log_likelihood(lambda x, level: x[:, :1], vp(), x0)
