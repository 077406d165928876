"""The bounds against Gaussians, whose divergences, entropies and optimal denoisers have closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdiff.diffusion import Level, add_noise, level_at, vp
from jaxdiff.diffusion.level import expand_to
from jaxdiff.diffusion.likelihood import (
    bits_per_dim,
    continuous_elbo,
    continuous_elbo_estimate,
    discrete_elbo,
    discrete_elbo_estimate,
    gaussian_decoder,
    prior_kl,
    quantised_decoder,
    step_kl,
)
from jaxdiff.diffusion.schedules import SCHEDULES, flow, logsnr_linear, time_at

MEAN, VARIANCE = 0.4, 0.3
# For an affine denoiser every term is quadratic in (x0, eps), so these four points take expectations exactly.
SIGNS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
X0, EPS = MEAN + np.sqrt(VARIANCE) * SIGNS[:, :1], SIGNS[:, 1:]
RANDOM = np.random.default_rng(3)


def optimal(mean=MEAN, variance=VARIANCE):
    """E[x0 | x_t] of N(mean, variance), at a level [] or one per example."""

    def denoise(x, level):
        alpha, sigma = expand_to(level.alpha, x), expand_to(level.sigma, x)
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)

    return denoise


def entropy(variance=VARIANCE):
    return 0.5 * np.log(2.0 * np.pi * np.e * variance)


def chain(num_steps, low=-6.0, high=6.0):
    """Variance-preserving levels, uniform in log(alpha / sigma)."""
    lam = np.linspace(low, high, num_steps + 1)
    log_alpha, log_sigma = -0.5 * np.logaddexp(0.0, -2.0 * lam), -0.5 * np.logaddexp(0.0, 2.0 * lam)
    return Level(np.linspace(1.0, 0.0, num_steps + 1), log_alpha, log_sigma)


def at(levels, k):
    return Level(*(leaf[k] for leaf in levels))


def marginal_kl(level, mean=MEAN, variance=VARIANCE, std=1.0):
    """KL(q(z_T) || p(z_T)): what even the exact reverse chain loses."""
    spread = (level.alpha**2 * variance + level.sigma**2) / std**2
    return 0.5 * (spread + (level.alpha * mean / std) ** 2 - 1.0 - np.log(spread))


@pytest.fixture
def four_points(monkeypatch):
    """Noise that is EPS in every draw, for data X0."""
    eps = jnp.asarray(EPS)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.broadcast_to(eps, shape))


def run(bound, *model, x0=X0, seed=0, **options):
    """bound(*model, x0, key, **options) in one compilation instead of one per operation."""
    return jax.jit(lambda x0, key: bound(*model, x0, key, **options))(jnp.asarray(x0), jax.random.key(seed))


def expected(elbo):
    return float(np.mean(elbo.bound))


# Terms


@pytest.mark.parametrize("variance", ["small", "large", 0.3, "learned"])
def test_a_step_is_the_divergence_of_two_gaussians(variance, x64):
    """Both transitions in DDPM's own form, mean (a_ts sigma_s**2 x + alpha_s v x0) / sigma_t**2."""
    start, end = level_at(vp(), 0.7), level_at(vp(), 0.4)
    x0, eps, guess = RANDOM.normal(size=(3, 5, 3))
    share = RANDOM.uniform(size=(5, 3))

    def denoise(x, level):
        return (jnp.asarray(guess), jnp.asarray(share)) if variance == "learned" else jnp.asarray(guess)

    a_ts = start.alpha / end.alpha
    v = start.sigma**2 - a_ts**2 * end.sigma**2
    x_t = start.alpha * x0 + start.sigma * eps
    means = [(a_ts * end.sigma**2 * x_t + end.alpha * v * x) / start.sigma**2 for x in (x0, guess)]
    small, large = v * end.sigma**2 / start.sigma**2, v
    f = {"small": 0.0, "large": 1.0, "learned": share}.get(variance, variance)
    model = large**f * small ** (1.0 - f) * np.ones_like(x0)
    truth = 0.5 * np.sum((small + (means[0] - means[1]) ** 2) / model - 1.0 + np.log(model / small), axis=-1)
    got = step_kl(denoise, start, end, jnp.asarray(x0), jnp.asarray(eps), variance=variance)
    np.testing.assert_allclose(got, truth, rtol=1e-10)


def test_prior_and_decoder_are_gaussian(x64):
    x0, guess = RANDOM.normal(size=(2, 5, 3))
    level = Level(*(np.asarray(leaf) for leaf in (0.3, np.log(0.8), np.log(1.7))))
    for std in (0.9, None):
        c = np.hypot(0.8, 1.7) if std is None else std
        truth = 0.5 * np.sum(((0.8 * x0) ** 2 + 1.7**2) / c**2 - 1.0 - 2.0 * np.log(1.7 / c), axis=-1)
        np.testing.assert_allclose(prior_kl(level, jnp.asarray(x0), std), truth, rtol=1e-12)
    nll = -stats.norm.logpdf(x0, guess, 1.7 / 0.8).sum(axis=-1)
    np.testing.assert_allclose(gaussian_decoder(jnp.asarray(x0), jnp.asarray(guess), level), nll, rtol=1e-12)
    # On a variance-preserving level the formula with a unit prior: (a**2 |x|**2 + d s**2 - d - 2 d log s) / 2.
    a, s = level_at(vp(), 0.9).alpha, level_at(vp(), 0.9).sigma
    unit = 0.5 * (a**2 * np.sum(x0**2, axis=-1) + 3 * s**2 - 3 - 6 * np.log(s))
    np.testing.assert_allclose(prior_kl(level_at(vp(), 0.9), jnp.asarray(x0)), unit, rtol=1e-10)


def test_the_quantised_decoder_is_a_distribution_over_the_values(x64):
    decode, level = quantised_decoder(5, -1.0, 1.0), Level(0.1, np.log(0.9), np.log(0.3))
    values, std = np.linspace(-1.0, 1.0, 5), 0.3 / 0.9
    guesses, x0 = np.array([[-1.3], [0.1], [0.9]]), np.tile(values, (3, 1))[..., None]
    nats = jax.jit(lambda x, m: decode(x, m, level))(x0, (guesses + 0.0 * values)[..., None])
    edges = np.array([-np.inf, -0.75, -0.25, 0.25, 0.75, np.inf])
    np.testing.assert_allclose(np.exp(-nats), np.diff(stats.norm.cdf(edges, guesses, std)), rtol=1e-9, atol=1e-12)
    sharp = Level(0.0, 0.0, np.log(1e-3))
    far = jax.value_and_grad(lambda m: decode(jnp.asarray([1.0, 0.0, -1.0]), m, sharp))
    value, slope = jax.jit(far)(jnp.full(3, -1.0))
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_a_byte_costs_its_bin_of_the_density_and_guessing_it_eight_bits(x64):
    assert bits_per_dim(3 * np.log(256.0), 3) == pytest.approx(8.0, rel=1e-12)
    wide = Level(1.0, 0.0, np.log(1e4))
    inner = jax.jit(lambda x: quantised_decoder()(x, jnp.zeros((1, 1)), wide))(jnp.full((1, 1), 1.0 / 255.0))
    density = stats.norm.pdf(0.0, 0.0, 1e4) * 2.0 / 255.0
    np.testing.assert_allclose(inner, -np.log(density), rtol=1e-6)


# Bounds


@pytest.mark.parametrize("num_steps", [1, 3, 20])
def test_with_the_best_variance_three_terms_sum_to_the_entropy(num_steps, x64, four_points):
    """The reverse chain of Gaussian data is Gaussian: only prior and decoder keep the bound from the entropy."""
    levels = chain(num_steps)
    start, end = at(levels, slice(None, -1)), at(levels, slice(1, None))
    v = start.sigma**2 * -np.expm1(2.0 * (start.half_logsnr - end.half_logsnr))
    small = v * end.sigma**2 / start.sigma**2
    rho2 = np.exp(-2.0 * start.half_logsnr)
    best = small + (end.alpha * v / start.sigma**2) ** 2 * VARIANCE * rho2 / (VARIANCE + rho2)
    share = np.log(best / small) / np.log(v / small)
    elbo = run(discrete_elbo, optimal(), levels, variance=share)
    assert elbo.diffusion.shape == (4, num_steps)
    assert abs(expected(elbo) - entropy()) < 1e-5
    np.testing.assert_allclose(expected(elbo), entropy() + marginal_kl(at(levels, 0)), rtol=1e-9)


def test_the_discrete_bound_falls_to_the_entropy_as_one_over_the_steps(x64, four_points):
    excess = {
        variance: [
            expected(run(discrete_elbo, optimal(), chain(steps), variance=variance)) - entropy()
            for steps in (10, 100, 1000)
        ]
        for variance in ("small", "large")
    }
    for falling in excess.values():
        assert falling[0] > falling[1] > falling[2] > 0.0
        assert falling[2] < 0.06
        np.testing.assert_allclose(falling[1] / falling[2], 10.0, rtol=0.1)


def test_each_variance_is_best_for_one_kind_of_data(x64, four_points):
    """Ho et al. 2020, section 3.2: large for N(0, 1) and then exact, small for a single point."""

    def bound(data, variance):
        x0 = data[0] + np.sqrt(data[1]) * SIGNS[:, :1]
        return expected(run(discrete_elbo, optimal(*data), chain(5), x0=x0, variance=variance))

    np.testing.assert_allclose(bound((0.0, 1.0), "large"), entropy(1.0), atol=1e-9)
    assert bound((0.0, 1.0), "small") > entropy(1.0) + 0.1
    assert bound((0.4, 1e-6), "large") > bound((0.4, 1e-6), "small") + 0.1


@pytest.mark.parametrize("name", ["vp", "flow", "edm"])
def test_the_continuous_bound_is_the_entropy_on_any_schedule(name, x64, four_points):
    schedule = SCHEDULES[name]()
    ends = {"t_min": float(time_at(schedule, 6.0)), "t_max": float(time_at(schedule, -4.0))}
    got = run(continuous_elbo, optimal(), schedule, **ends)
    first = level_at(schedule, ends["t_max"])
    lost = marginal_kl(first, std=np.hypot(first.alpha, first.sigma))
    assert got.diffusion.shape == (4, 32)
    np.testing.assert_allclose(expected(got), entropy() + lost, atol=1e-9)
    assert abs(expected(got) - entropy()) < 1e-4


def test_the_continuous_bound_of_a_wide_schedule_is_the_entropy(x64, four_points):
    got = run(continuous_elbo, optimal(), logsnr_linear(6.0, -6.0), t_min=0.0)
    assert abs(expected(got) - entropy()) < 1e-5


def test_the_continuous_term_is_half_the_slope_of_gamma_times_the_error(x64, monkeypatch):
    """The other form, over t: 1/2 E[gamma'(t) |eps - eps_hat|**2] with gamma = -log(alpha**2 / sigma**2)."""
    eps = RANDOM.normal(size=(2, 3))
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.asarray(eps, dtype))
    schedule, x0 = vp(), RANDOM.normal(size=(2, 3))
    got = run(continuous_elbo, optimal(), schedule, x0=x0, t_min=0.01, num_points=64)

    def gamma(t):
        return -2.0 * level_at(schedule, t).half_logsnr

    nodes, weights = np.polynomial.legendre.leggauss(400)
    t = 0.01 + 0.99 * 0.5 * (1.0 + nodes)
    slope = (gamma(t + 1e-6) - gamma(t - 1e-6)) / 2e-6
    level = level_at(schedule, t)
    x_t = level.alpha[:, None, None] * x0 + level.sigma[:, None, None] * eps
    alpha, sigma = level.alpha[:, None, None], level.sigma[:, None, None]
    x0_hat = MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x_t - alpha * MEAN)
    error = np.sum((eps - (x_t - alpha * x0_hat) / sigma) ** 2, axis=-1)
    truth = 0.5 * 0.99 * np.sum((0.5 * weights * slope)[:, None] * error, axis=0)
    np.testing.assert_allclose(np.sum(got.diffusion, axis=-1), truth, rtol=1e-6)


def test_a_chain_sums_its_steps_with_fresh_noise(x64, given_noise):
    """Also for data with more axes, and at levels that are not uniform."""
    levels, x0 = level_at(vp(), np.array([0.9, 0.5, 0.2, 0.05])), RANDOM.normal(size=(2, 4, 3))
    eps = given_noise(x0.shape)
    got = run(discrete_elbo, optimal(), levels, x0=x0, variance="large")
    steps = [
        step_kl(optimal(), at(levels, k), at(levels, k + 1), jnp.asarray(x0), jnp.asarray(eps), variance="large")
        for k in range(3)
    ]
    np.testing.assert_allclose(got.diffusion, np.stack(steps, axis=-1), rtol=1e-10)
    last = at(levels, 3)
    x0_hat = optimal()(add_noise(last, jnp.asarray(x0), jnp.asarray(eps)), last)
    np.testing.assert_allclose(got.reconstruction, gaussian_decoder(jnp.asarray(x0), x0_hat, last), rtol=1e-10)
    np.testing.assert_allclose(got.prior, prior_kl(at(levels, 0), jnp.asarray(x0)), rtol=1e-10)
    total = got.reconstruction + np.sum(steps, axis=0) + got.prior
    np.testing.assert_allclose(got.bound, total, rtol=1e-10)


def test_a_learned_share_that_is_constant_is_a_given_one(x64, four_points):
    def denoise(x, level):
        return optimal()(x, level), jnp.full_like(x, 0.3)

    learned, given = (run(discrete_elbo, f, chain(3), variance=v) for f, v in ((denoise, "learned"), (optimal(), 0.3)))
    for one, other in zip(learned, given, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_noise_is_drawn_anew_for_every_step_and_example():
    seen = []

    def watch(x, level):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), x)
        return jnp.zeros_like(x)

    run(discrete_elbo, watch, chain(3), x0=np.zeros((4, 2)))
    jax.effects_barrier()
    assert len(seen) == 4
    assert len({round(float(v), 5) for v in np.ravel(seen)}) == 4 * 4 * 2


# Estimates


def test_random_steps_are_stratified_over_samples_and_batch(x64, monkeypatch):
    """T equal examples, or T samples of one, visit each of T steps once: the estimates' mean is the sum."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.full(shape, 0.7, dtype))
    levels, x0 = chain(8), np.full((8, 1), 0.9)
    steps = run(discrete_elbo, optimal(), levels, x0=x0[:1]).diffusion[0]
    single = run(discrete_elbo_estimate, optimal(), levels, x0=x0, seed=5).diffusion
    assert single.shape == (8, 1)
    np.testing.assert_allclose(np.sort(single[:, 0]), np.sort(8.0 * steps), rtol=1e-9)
    several = run(discrete_elbo_estimate, optimal(), levels, x0=x0[:1], seed=5, num_samples=8).diffusion
    np.testing.assert_allclose(several[0], steps, rtol=1e-9)


def test_the_continuous_estimate_is_unbiased(x64, monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.full(shape, 0.7, dtype))
    x0 = np.full((500, 1), 0.9)
    exact = run(continuous_elbo, optimal(), vp(), x0=x0[:1]).diffusion.sum()
    got = run(continuous_elbo_estimate, optimal(), vp(), x0=x0, seed=1, num_samples=4)
    assert got.diffusion.shape == (500, 4)
    # 500 examples share a lattice of 4 * 500 points: a rectangle rule with an error of about 1 / 2000.
    np.testing.assert_allclose(np.mean(got.diffusion.sum(axis=-1)), exact, rtol=2e-3)


# Transforms and refusals


def test_bounds_agree_under_jit_vmap_and_for_other_constants(trace_counter):
    x0 = jnp.asarray(RANDOM.normal(size=(3, 2)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)

    def bound(key, beta_max):
        return continuous_elbo(optimal(), vp(0.1, beta_max), x0, key, num_points=3).bound

    jitted = jax.jit(trace_counter(bound))
    once, other = (jitted(key, beta) for key, beta in zip(keys, jnp.asarray([10.0, 20.0]), strict=True))
    assert trace_counter.count == 1
    # A constant that is a plain number goes through float64.
    np.testing.assert_allclose(once, jax.jit(lambda key: bound(key, 10.0))(keys[0]), rtol=2e-4)
    mapped = jax.jit(jax.vmap(jax.value_and_grad(lambda b, key: jnp.sum(bound(key, b)))))(
        jnp.asarray([10.0, 20.0]), keys
    )
    np.testing.assert_allclose(mapped[0], [np.sum(once), np.sum(other)], rtol=1e-5)
    assert np.isfinite(mapped[1]).all()


def test_the_bound_of_mapped_terms_sums_the_right_axis():
    x0, keys = jnp.ones((3, 2)), jax.random.split(jax.random.key(0), 2)
    mapped = jax.jit(jax.vmap(lambda key: discrete_elbo(optimal(), chain(4), x0, key)))(keys)
    assert mapped.diffusion.shape == (2, 3, 4)
    assert mapped.bound.shape == (2, 3)
    alone = jax.jit(lambda key: discrete_elbo(optimal(), chain(4), x0, key))(keys[1])
    np.testing.assert_allclose(mapped.bound[1], alone.bound, rtol=1e-5)


def test_half_precision_data_are_bounded_in_float32():
    got = run(discrete_elbo, optimal(), chain(2), x0=jnp.ones((2, 1), jnp.bfloat16))
    assert {leaf.dtype for leaf in got} == {jnp.dtype("float32")}
    assert np.isfinite(got.bound).all()


def test_what_cannot_be_bounded_is_refused():
    x0, key = jnp.zeros((2, 3)), jax.random.key(0)
    clean = level_at(vp(), np.array([1.0, 0.5, 0.0]))
    with pytest.raises(ValueError, match="levels end at clean data.* leave the last level out"):
        discrete_elbo(optimal(), clean, x0, key)
    with pytest.raises(ValueError, match="levels have shape"):
        discrete_elbo(optimal(), at(chain(3), 0), x0, key)
    with pytest.raises(KeyError, match="unknown variance 'larg'; did you mean 'large'"):
        discrete_elbo(optimal(), chain(3), x0, key, variance="larg")
    with pytest.raises(ValueError, match=r"variance has shape \(2,\); give one number per step, \(3,\)"):
        discrete_elbo(optimal(), chain(3), x0, key, variance=np.zeros(2))
    with pytest.raises(ValueError, match=r"the denoiser returned shape \(2, 1\) for x of shape \(2, 3\)"):
        discrete_elbo(lambda x, level: x[:, :1], chain(3), x0, key)
    with pytest.raises(ValueError, match="a pair goes with variance='learned'"):
        discrete_elbo(lambda x, level: (x, x), chain(3), x0, key)
    with pytest.raises(ValueError, match="'learned' the denoiser returns"):
        discrete_elbo(optimal(), chain(3), x0, key, variance="learned")
    with pytest.raises(ValueError, match="num_samples=0"):
        discrete_elbo_estimate(optimal(), chain(3), x0, key, num_samples=0)
    with pytest.raises(ValueError, match="num_points=0"):
        continuous_elbo(optimal(), vp(), x0, key, num_points=0)
    with pytest.raises(ValueError, match="t_max below 1"):
        continuous_elbo(optimal(), flow(), x0, key)
    with pytest.raises(ValueError, match=r"eps has shape \(3,\) and x0 \(2, 3\)"):
        step_kl(optimal(), at(chain(1), 0), at(chain(1), 1), x0, x0[0])
    with pytest.raises(ValueError, match="prior_std=0.0"):
        prior_kl(at(chain(1), 0), x0, 0.0)
    with pytest.raises(ValueError, match="num_values=1"):
        quantised_decoder(1)
    with pytest.raises(ValueError, match="dim=0"):
        bits_per_dim(1.0, 0)
