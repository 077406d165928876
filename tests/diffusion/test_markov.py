"""Samplers as chains of Gaussian steps: whose mean and spread they take, and what a whole chain's density is."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy_runner import follow
import pytest

from jaxdiff import diffusion
from jaxdiff.diffusion import SCHEDULES, SOLVERS, markov
from jaxdiff.diffusion.level import expand_to

BETAS = {"cosine_betas": diffusion.cosine_betas, "linear": diffusion.linear_betas}
MARKOV = ("ddpm", "ddpm_large", "ddim", "euler", "euler_ancestral", "dpm_solver_1", "dpmpp_1", "sde_dpmpp_1")
RANDOM = np.random.default_rng(0)


def table_of(name, schedule="vp", num_calls=5):
    return diffusion.make_table(name, SCHEDULES[schedule](), num_calls)


def bend(x, level):
    """Some denoiser; it reads both of its arguments."""
    return jnp.tanh(1.5 * x + expand_to(level.alpha - level.sigma, x))


@jax.jit
def walk(steps, x, noise, min_std=0.0):
    return markov.walk(bend, steps, x, noise, min_std)


def bend_numpy(x, alpha, sigma):
    return np.tanh(1.5 * x + alpha - sigma)


@pytest.mark.parametrize("betas", BETAS)
def test_on_training_levels_ddpm_takes_the_posterior_s_mean_and_deviation(x64, betas):
    """q(x_{i-1} | x_i, x0) of Ho et al. 2020, eq. 7, written with the betas."""
    num_steps = 30
    beta = BETAS[betas](num_steps)
    table = diffusion.make_table("ddpm", SCHEDULES[betas](num_steps=num_steps), num_steps)
    bar = np.concatenate([[1.0], np.cumprod(1.0 - beta)])
    x, noise = RANDOM.normal(size=(3, 2)), RANDOM.normal(size=(num_steps, 3, 2))
    states, means = walk(markov.gaussian_steps(table), jnp.asarray(x), jnp.asarray(noise))
    np.testing.assert_array_equal(states[0], x)
    for k, i in enumerate(range(num_steps, 0, -1)):
        x0_hat = bend_numpy(x, np.sqrt(bar[i]), np.sqrt(1.0 - bar[i]))
        mean = np.sqrt(bar[i - 1]) * beta[i - 1] / (1.0 - bar[i]) * x0_hat
        mean += np.sqrt(1.0 - beta[i - 1]) * (1.0 - bar[i - 1]) / (1.0 - bar[i]) * x
        x = mean + np.sqrt((1.0 - bar[i - 1]) / (1.0 - bar[i]) * beta[i - 1]) * noise[k]
        np.testing.assert_allclose(means[k], mean, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(states[k + 1], x, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("name", "num_calls"), [*((name, 5) for name in MARKOV), ("ddpm", 9)])  # 9: scanned
def test_a_walk_goes_where_the_table_leads(x64, name, num_calls):
    table = table_of(name, num_calls=num_calls)
    x, noise = RANDOM.normal(size=(4, 2)), RANDOM.normal(size=(num_calls, 4, 2))
    states, _ = walk(markov.gaussian_steps(table), jnp.asarray(x), jnp.asarray(noise))
    np.testing.assert_allclose(states, follow(table, bend_numpy, x, noise), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_without_noise_a_walk_is_the_sampler(name):
    table = table_of(name)
    x = jnp.asarray(RANDOM.normal(size=(4, 2)), jnp.float32)
    states, _ = walk(markov.gaussian_steps(table), x, jnp.zeros((5, 4, 2)))
    np.testing.assert_allclose(states[-1], diffusion.sample(bend, table, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in MARKOV])
def test_every_other_solver_is_refused_or_is_a_chain_too(x64, name):
    table = table_of(name, "cosine")
    x, noise = RANDOM.normal(size=(2, 2)), RANDOM.normal(size=(5, 2, 2))
    if table.base is not None or np.shape(table.slopes)[1] > 1:
        with pytest.raises(ValueError, match="inner stages, a history .*use ddpm, ddpm_large, ddim or euler"):
            markov.gaussian_steps(table)
        return
    states, _ = walk(markov.gaussian_steps(table), jnp.asarray(x), jnp.asarray(noise))
    np.testing.assert_allclose(states, follow(table, bend_numpy, x, noise), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "dpm_solver_3"])
def test_histories_and_inner_stages_are_refused(name):
    with pytest.raises(ValueError, match="not Gaussian given the last x alone"):
        markov.gaussian_steps(table_of(name))


def test_a_learned_variance_is_refused():
    table = diffusion.make_table("ddpm", SCHEDULES["vp"](), 5, variance="learned")
    with pytest.raises(ValueError, match="or a learned variance"):
        markov.gaussian_steps(table)


@pytest.mark.parametrize("std_shape", [(), (3,)])
def test_the_log_density_is_the_normal_one_of_each_number(x64, std_shape):
    x, mean = RANDOM.normal(size=(2, 3, 2))
    std = np.exp(RANDOM.normal(size=std_shape))
    variance = (std**2)[..., None] if std_shape else std**2
    wanted = np.log(np.exp(-((x - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))
    got = markov.step_log_prob(jnp.asarray(x), jnp.asarray(mean), jnp.asarray(std))
    np.testing.assert_allclose(got, wanted, rtol=1e-10)


@pytest.mark.parametrize("min_std", [0.0, 0.2, 5.0])
def test_no_step_draws_less_than_the_floor_and_none_less_than_it_would(min_std):
    table = table_of("ddpm", num_calls=6)
    states, means = walk(markov.gaussian_steps(table), jnp.zeros((1, 1)), jnp.ones((6, 1, 1)), min_std)
    drawn = np.asarray(states[1:] - means)[:, 0, 0]
    own = np.asarray(table.noise)
    assert own[-1] == 0.0  # the last step ends at clean data
    assert ((own > 0.2).any(), (own < 0.2).any()) == (True, True)
    np.testing.assert_allclose(drawn, np.maximum(own, min_std), rtol=1e-4, atol=1e-6)


def test_an_index_per_example_gives_each_its_own_step(x64):
    table = table_of("ddpm", num_calls=6)
    steps = markov.gaussian_steps(table)
    index, x = np.array([4, 0, 5, 4]), RANDOM.normal(size=(4, 2))
    got = markov.step_mean(bend, markov.take_steps(steps, jnp.asarray(index)), jnp.asarray(x))
    for row, k in enumerate(index):
        alpha, sigma = (float(np.asarray(leaf)[k]) for leaf in (table.level.alpha, table.level.sigma))
        wanted = table.anchor[k] * x[row] + table.slopes[k, 0] * bend_numpy(x[row], alpha, sigma)
        np.testing.assert_allclose(got[row], wanted, rtol=1e-10)
        alone = markov.step_mean(bend, markov.take_steps(steps, int(k)), jnp.asarray(x[row]))
        np.testing.assert_allclose(got[row], alone, rtol=1e-10)


def test_two_parts_of_a_chain_make_the_whole():
    steps = markov.gaussian_steps(table_of("ddpm"))
    x, noise = jnp.ones((2, 3)), jnp.asarray(RANDOM.normal(size=(5, 2, 3)), jnp.float32)
    whole, _ = walk(steps, x, noise, 0.1)
    first, _ = walk(markov.take_steps(steps, slice(None, -2)), x, noise[:3], 0.1)
    second, _ = walk(markov.take_steps(steps, slice(-2, None)), first[-1], noise[3:], 0.1)
    np.testing.assert_allclose(jnp.concatenate([first, second[1:]]), whole, rtol=1e-5, atol=1e-6)


def test_a_walk_of_no_steps_stays_where_it_is():
    steps = markov.take_steps(markov.gaussian_steps(table_of("ddpm")), slice(None, 0))
    states, means = walk(steps, jnp.ones((2, 3)), jnp.zeros((0, 2, 3)))
    np.testing.assert_array_equal(states, np.ones((1, 2, 3)))
    assert means.shape == (0, 2, 3)


def test_the_densities_of_a_linear_chain_multiply_to_that_of_one_gaussian(x64):
    """With x0_hat = 0.4 x + 0.3 the chain (x_1, .., x_N) given x_0 is affine in its noise: its covariance is exact."""
    table, floor, count = table_of("ddpm"), 0.15, 5
    steps = markov.gaussian_steps(table)
    x, noise = RANDOM.normal(size=(4, 1)), RANDOM.normal(size=(count, 4, 1))
    states, means = markov.walk(lambda x, level: 0.4 * x + 0.3, steps, jnp.asarray(x), jnp.asarray(noise), floor)
    std = jnp.maximum(steps.std, floor)
    got = jnp.sum(jax.vmap(markov.step_log_prob)(states[1:], means, std), axis=(0, 2))

    a, b, s = (np.asarray(v, np.float64) for v in (table.anchor, table.slopes[:, 0], table.noise))
    factor, shift, spread = a + 0.4 * b, 0.3 * b, np.maximum(s, floor)
    of_noise, mean = np.zeros((count + 1, count)), np.zeros((count + 1, 4))
    mean[0] = x[:, 0]
    for k in range(count):
        of_noise[k + 1] = factor[k] * of_noise[k]
        of_noise[k + 1, k] += spread[k]
        mean[k + 1] = factor[k] * mean[k] + shift[k]
    covariance = of_noise[1:] @ of_noise[1:].T
    error = np.asarray(states)[1:, :, 0] - mean[1:]
    squares = np.sum(error * np.linalg.solve(covariance, error), axis=0)
    wanted = -0.5 * (squares + np.linalg.slogdet(covariance)[1] + count * np.log(2.0 * np.pi))
    np.testing.assert_allclose(got, wanted, rtol=1e-8)
