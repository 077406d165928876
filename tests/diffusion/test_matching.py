"""Flows against those of a Gaussian, whose flow map and curvature are known."""

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import Level, add_noise, ddim, ddpm, denoising_loss, flow, level_at, sample, uniform_grid
from jaxdiff.diffusion.level import expand_to
from jaxdiff.diffusion.matching import (
    mean_flow_loss,
    mean_flow_map,
    mean_flow_times,
    reflow_pairs,
    sample_flow_map,
    straightness,
)

MEAN, VARIANCE = 0.4, 0.3
RANDOM = np.random.default_rng(0)
X0, EPS = RANDOM.normal(size=(2, 5, 3))
R = np.array([0.0, 0.1, 0.4, 0.7, 0.3])
T = np.array([0.2, 0.6, 0.5, 1.0, 0.9])
XT = (1 - T)[:, None] * X0 + T[:, None] * EPS


def path(t, x):
    """Mean and standard deviation of x_t."""
    t = expand_to(t, x)
    return (1 - t) * MEAN, jnp.sqrt((1 - t) ** 2 * VARIANCE + t**2)


def exact_map(x, t, s):
    """Standardised x is constant along the ODE of a Gaussian."""
    (mean_t, std_t), (mean_s, std_s) = path(t, x), path(s, x)
    return mean_s + std_s / std_t * (x - mean_t)


def exact_average(x, r, t):
    return (x - exact_map(x, t, r)) / expand_to(jnp.asarray(t) - r, x)


def exact_velocity(x, t):
    """E[eps - x0 | x] in numpy, t [B]."""
    t = t[:, None]
    gain = ((1 - t) * VARIANCE, t) / ((1 - t) ** 2 * VARIANCE + t**2)
    return (gain[1] - gain[0]) * (x - (1 - t) * MEAN) - MEAN


def some_average(x, r, t, w=(0.7, -0.4, 0.3)):
    return jnp.tanh(w[0] * x + w[1] * expand_to(r, x) + w[2] * expand_to(t, x) ** 2)


def test_flow_matching_is_the_denoising_loss_of_kind_flow(x64):
    """Conditional flow matching, E|u(x_t, t) - (eps - x0)|**2 on the straight path, in numpy."""
    loss = denoising_loss(
        lambda x, t, cond: some_average(x, t, t), "flow", level_at(flow(), T), jnp.asarray(X0), jnp.asarray(EPS)
    )
    prediction = np.tanh(0.7 * XT - 0.4 * T[:, None] + 0.3 * T[:, None] ** 2)
    np.testing.assert_allclose(loss, np.mean((prediction - (EPS - X0)) ** 2, axis=-1), rtol=1e-10)

    same_times = mean_flow_loss(some_average, T, T, jnp.asarray(X0), jnp.asarray(EPS), power=0.0)
    np.testing.assert_allclose(same_times, loss, rtol=1e-10)


def test_the_exact_flow_map_hits_its_own_target(x64):
    velocity = exact_velocity(XT, T)
    arguments = (R, T, jnp.asarray(X0), jnp.asarray(EPS))
    loss = mean_flow_loss(exact_average, *arguments, velocity=jnp.asarray(velocity), power=0.0)
    np.testing.assert_allclose(loss, 0.0, atol=1e-24)
    # The marginal velocity is what is meant: with the examples' own the target scatters around it.
    assert (np.asarray(mean_flow_loss(exact_average, *arguments, power=0.0)) > 1e-3).all()


def test_the_exact_flow_map_is_stationary_on_average_over_the_data(x64):
    """The mean gradient over (x0, eps), by Gauss-Hermite quadrature, towards any change of u."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    x0, eps = (grid.reshape(-1, 1) for grid in np.meshgrid(MEAN + np.sqrt(VARIANCE) * nodes, nodes))
    share = np.outer(weights, weights).ravel() / weights.sum() ** 2
    r, t = np.full(len(x0), 0.2), np.full(len(x0), 0.7)

    def objective(w):
        def changed(x, r, t):
            return exact_average(x, r, t) + w[0] + w[1] * x + w[2] * t[:, None]

        return jnp.sum(share * mean_flow_loss(changed, r, t, jnp.asarray(x0), jnp.asarray(eps), power=0.0))

    gradient = jax.jit(jax.grad(objective))
    np.testing.assert_allclose(gradient(jnp.zeros(3)), 0.0, atol=1e-12)
    assert (np.abs(gradient(jnp.full(3, 0.1))) > 1e-3).all()


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_loss_and_gradient_are_the_formulas(power, x64):
    x0, eps, w = jnp.asarray(X0), jnp.asarray(EPS), jnp.array([0.7, -0.4, 0.3])

    def loss(w):
        return mean_flow_loss(lambda x, r, t: some_average(x, r, t, w), R, T, x0, eps, power=power, c=0.01)

    def u(x, t):
        return np.tanh(0.7 * x - 0.4 * R[:, None] + 0.3 * t[:, None] ** 2)

    h, v = 1e-5, EPS - X0
    change = (u(XT + h * v, T + h) - u(XT - h * v, T - h)) / (2 * h)
    target = v - (T - R)[:, None] * change
    error = np.mean((u(XT, T) - target) ** 2, axis=-1)
    np.testing.assert_allclose(loss(w), error / (error + 0.01) ** power, rtol=1e-8)

    def regression(w):  # to a fixed target with a fixed weight
        square = jnp.mean((some_average(jnp.asarray(XT), R, T, w) - target) ** 2, axis=-1)
        return jnp.sum(square / (error + 0.01) ** power)

    np.testing.assert_allclose(jax.grad(lambda w: jnp.sum(loss(w)))(w), jax.grad(regression)(w), rtol=1e-7)


def test_times_are_ordered_and_mostly_equal(monkeypatch):
    """A quarter of the pairs differ; both are sigmoids of the normal draws."""
    pair, u = RANDOM.normal(size=(2, 8)), np.linspace(0.0, 0.99, 8)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.asarray(pair.reshape(shape)))
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.asarray(u.reshape(shape)))
    r, t = mean_flow_times(jax.random.key(0), (4, 2))
    both = 1 / (1 + np.exp(0.4 - pair))
    np.testing.assert_allclose(t.ravel(), both.max(0), rtol=1e-6)
    np.testing.assert_allclose(r.ravel(), np.where(u < 0.25, both.min(0), both.max(0)), rtol=1e-6)
    assert (r < t).sum() == 2


@pytest.mark.parametrize("steps", [3, 18])
def test_any_number_of_jumps_of_the_exact_map_ends_in_the_same_place(steps, x64):
    x_T = jnp.asarray(EPS)
    expected = MEAN + np.sqrt(VARIANCE) * EPS  # at t = 1 the mean is 0 and the deviation 1
    times = uniform_grid(steps)
    np.testing.assert_allclose(sample_flow_map(exact_map, x_T, times), expected, rtol=1e-10)
    np.testing.assert_allclose(sample_flow_map(mean_flow_map(exact_average), x_T, times), expected, rtol=1e-10)
    np.testing.assert_allclose(sample_flow_map(exact_map, x_T), expected, rtol=1e-12)  # one step by default


def test_jumps_use_the_times_they_are_given_without_compiling_again(trace_counter):
    x = jnp.asarray(EPS, jnp.float32)
    compiled = jax.jit(trace_counter(lambda times: sample_flow_map(mean_flow_map(some_average), x, times)))
    for times in ([1.0, 0.5, 0.0], [0.9, 0.2, 0.1]):
        by_hand = x
        for t, s in zip(times[:-1], times[1:], strict=True):
            by_hand = by_hand - (t - s) * jnp.tanh(0.7 * by_hand - 0.4 * s + 0.3 * t**2)
        np.testing.assert_allclose(compiled(jnp.array(times)), by_hand, rtol=1e-4, atol=1e-6)
    assert trace_counter.count == 1


def gaussian(x, level):
    return exact.gaussian(MEAN, VARIANCE)(x, level)


def test_reflow_couples_each_noise_with_where_the_ode_takes_it(x64):
    errors = []
    for steps in (50, 100):
        x0, eps = reflow_pairs(gaussian, ddim(level_at(flow(), uniform_grid(steps))), jnp.asarray(EPS))
        np.testing.assert_array_equal(eps, EPS)
        errors.append(np.abs(x0 - (MEAN + np.sqrt(VARIANCE) * EPS)).max())
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=0.1)  # DDIM is of order 1
    assert errors[1] < 0.02

    # A chain that starts at sigma = 9 starts at 9 eps.
    table = ddim(Level(np.array([1.0, 0.0]), np.zeros(2), np.array([np.log(9.0), -np.inf])))
    x0, _ = reflow_pairs(gaussian, table, jnp.asarray(EPS))
    np.testing.assert_allclose(x0, sample(gaussian, table, jnp.asarray(9.0 * EPS)), rtol=1e-12)
    np.testing.assert_allclose(x0, MEAN + VARIANCE / (VARIANCE + 81.0) * (9.0 * EPS - MEAN), rtol=1e-10)

    slope = jax.grad(lambda w: jnp.sum(reflow_pairs(lambda x, level: w * x, table, w * jnp.asarray(EPS))[0]))(1.0)
    assert slope == 0.0
    with pytest.raises(ValueError, match="reflow needs a deterministic one"):
        reflow_pairs(gaussian, ddpm(level_at(flow(), uniform_grid(3, 0.1))), jnp.asarray(EPS))


def test_straightness_of_the_gaussian_s_flow_is_its_integral(x64):
    """x_t = mean_t + std_t z: the velocity's deviation from its mean is z times that of d std / dt."""
    t = np.linspace(0, 1, 20_001)
    slope = (t - (1 - t) * VARIANCE) / np.sqrt((1 - t) ** 2 * VARIANCE + t**2)
    curvature = np.trapezoid((slope - (1 - np.sqrt(VARIANCE))) ** 2, t)
    expected = np.mean(EPS**2, axis=-1) * curvature
    errors = [straightness(gaussian, uniform_grid(steps), jnp.asarray(EPS)) / expected - 1 for steps in (100, 200)]
    np.testing.assert_allclose(errors[0] / errors[1], 2.0, rtol=0.1)
    assert np.abs(errors[1]).max() < 0.02


def test_a_point_and_a_reflowed_gaussian_have_straight_paths(x64):
    def reflowed(x, level):  # x_t = (1 - t) (MEAN + std eps) + t eps tells eps, and so x0
        eps = (x - (1 - level.t) * MEAN) / ((1 - level.t) * np.sqrt(VARIANCE) + level.t)
        return MEAN + np.sqrt(VARIANCE) * eps

    for steps in (1, 18):
        for denoise in (reflowed, lambda x, level: jnp.full_like(x, MEAN)):
            curved = straightness(denoise, uniform_grid(steps), jnp.asarray(EPS))
            assert curved.shape == (5,)
            np.testing.assert_allclose(curved, 0.0, atol=1e-20)
    assert (straightness(gaussian, uniform_grid(5), jnp.asarray(EPS)) > 1e-4).all()


def test_losses_compile_and_have_finite_gradients_at_both_ends():
    r, t = jnp.array([0.0, 0.0, 1.0, 0.3, 0.3]), jnp.array([0.0, 1.0, 1.0, 0.3, 0.9])
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)

    def losses(w, r, t, x0, eps):
        return mean_flow_loss(lambda x, r, t: some_average(x, r, t, w), r, t, x0, eps)

    w = jnp.array([0.7, -0.4, 0.3])
    whole = losses(w, r, t, x0, eps)
    value, gradient = jax.jit(jax.value_and_grad(lambda *given: jnp.sum(losses(*given))))(w, r, t, x0, eps)
    np.testing.assert_allclose(value, whole.sum(), rtol=1e-5)
    assert jnp.isfinite(gradient).all()
    one_by_one = jax.vmap(losses, in_axes=(None, 0, 0, 0, 0))(w, r, t, x0, eps)
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-5)

    at_target = jax.grad(lambda w: jnp.sum(mean_flow_loss(lambda x, r, t: w * (eps - x0), t, t, x0, eps)))(1.0)
    assert at_target == 0.0


def test_impossible_requests_are_refused():
    x = jnp.ones((5, 3))
    with pytest.raises(ValueError, match=r"eps has shape \(3,\) and x0 \(5, 3\)"):
        mean_flow_loss(some_average, R, T, x, x[0], velocity=x)
    with pytest.raises(ValueError, match=r"velocity has shape \(5, 1\)"):
        mean_flow_loss(some_average, R, T, x, x, velocity=x[:, :1])
    with pytest.raises(ValueError, match=r"the model returned shape \(5, 1\)"):
        mean_flow_loss(lambda x, r, t: x[:, :1], R, T, x, x)
    for times in ([1.0], [0.0, 1.0], [1.0, -0.1], [2.0, 0.0]):
        with pytest.raises(ValueError, match="decreasing, within"):
            sample_flow_map(exact_map, x, times)
    with pytest.raises(ValueError, match="decreasing, within"):
        straightness(gaussian, np.array([1.0, 1.0, 0.0]), x)


def test_the_path_is_the_flow_schedule_s(x64):
    """The samplers' convention: t = 0 is data, so the velocity at x_t is d/dt of `add_noise`."""
    h = 1e-6
    ends = [add_noise(level_at(flow(), 0.5 + side), jnp.asarray(X0), jnp.asarray(EPS)) for side in (-h, h)]
    np.testing.assert_allclose((ends[1] - ends[0]) / (2 * h), EPS - X0, rtol=1e-6)
