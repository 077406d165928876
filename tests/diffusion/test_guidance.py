import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    PARAMETERISATIONS,
    SOLVERS,
    cfg,
    clip,
    ddim,
    denoiser,
    flow,
    grid_levels,
    inpaint,
    level_at,
    sample,
    value_gradient,
    vp,
)

RANDOM = np.random.default_rng(0)
X, COND = RANDOM.normal(size=(2, 5, 3)).astype(np.float32)
LEVEL = level_at(vp(), np.linspace(0.1, 0.9, 5))
NULL = np.zeros_like(COND)


def conditional(x, level, cond):
    return jnp.tanh(x + cond) * level.alpha[..., None]


def guided(guidance_scale, denoise=conditional):
    return cfg(denoise, jnp.asarray(COND), jnp.asarray(NULL), guidance_scale)(jnp.asarray(X), LEVEL)


def test_scale_one_is_conditional_and_zero_is_unconditional():
    level = jax.tree.map(jnp.asarray, LEVEL)
    np.testing.assert_array_equal(guided(1.0), conditional(X, level, COND).astype(np.float32))
    np.testing.assert_array_equal(guided(0.0), conditional(X, level, NULL).astype(np.float32))


@pytest.mark.parametrize("omega", [-0.5, 0.0, 0.7, 4.0])
def test_the_scale_is_one_more_than_ho_and_salimans_omega(omega, x64):
    """Their eq. 6: (1 + omega) eps(x, c) - omega eps(x), here on eps recovered from x0_hat."""

    def eps_of(x0):
        return (X - LEVEL.alpha[:, None] * np.asarray(x0)) / LEVEL.sigma[:, None]

    expected = (1 + omega) * eps_of(guided(1.0)) - omega * eps_of(guided(0.0))
    np.testing.assert_allclose(eps_of(guided(1.0 + omega)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_guiding_x0_is_guiding_the_network_s_output_for_every_kind(kind):
    def network(x, t, cond):
        return jnp.sin(x + cond)

    w, x, level = 2.5, jnp.asarray(X), jax.tree.map(jnp.asarray, LEVEL)
    by_x0 = guided(w, lambda x, level, cond: denoiser(network, kind, cond)(x, level))

    def guided_network(x, t, cond):
        return w * network(x, t, COND) + (1 - w) * network(x, t, NULL)

    np.testing.assert_allclose(by_x0, denoiser(guided_network, kind)(x, level), rtol=1e-4, atol=1e-4)


def test_the_scale_is_traced_swept_and_may_differ_by_example(trace_counter):
    swept = jax.jit(jax.vmap(trace_counter(guided)))
    scales = jnp.array([0.0, 1.0, 3.0])
    lanes = swept(scales)
    swept(scales + 1.0)
    assert trace_counter.count == 1
    for lane, scale in zip(lanes, scales, strict=True):
        np.testing.assert_allclose(lane, guided(float(scale)), atol=1e-5)
    mixed = guided(jnp.array([0.0, 1.0, 3.0, 3.0, 0.0]))
    np.testing.assert_allclose(mixed, np.stack([lanes[i][row] for row, i in enumerate((0, 1, 2, 2, 0))]), atol=1e-5)


def test_guidance_calls_the_network_once_with_both_branches():
    shapes = []

    def denoise(x, level, cond):
        shapes.append((x.shape, cond["obs"].shape, jnp.shape(level.t)))
        return x

    cond, null = {"obs": jnp.asarray(COND)}, {"obs": jnp.asarray(NULL)}
    cfg(denoise, cond, null, 1.5)(jnp.asarray(X), level_at(vp(), 0.5))
    assert shapes == [((2, 5, 3), (2, 5, 3), ())]


def test_clipping_stops_the_gradient_where_it_acts():
    x = jnp.array([-3.0, -0.5, 0.5, 3.0])
    value, gradient = jax.value_and_grad(lambda x: clip(lambda x, level: 2.0 * x)(x, LEVEL).sum())(x)
    assert value == 0.0
    np.testing.assert_array_equal(clip(lambda x, level: 2.0 * x, -4.0, 1.0)(x, LEVEL), [-4.0, -1.0, 1.0, 1.0])
    np.testing.assert_array_equal(clip(lambda x, level: 2.0 * x)(x, LEVEL), [-1.0, -1.0, 1.0, 1.0])
    np.testing.assert_array_equal(
        jax.grad(lambda x: clip(lambda x, level: 2.0 * x, -2.0, 2.0)(x, LEVEL).sum())(x), [0.0, 2.0, 2.0, 0.0]
    )
    np.testing.assert_array_equal(gradient[jnp.array([0, 3])], 0.0)


@pytest.mark.parametrize("name", SOLVERS)
def test_inpainted_entries_end_at_what_is_known(name):
    mask = jnp.array([True, False, True])
    denoise = inpaint(lambda x, level: jnp.tanh(x), mask[None], jnp.asarray(COND))
    for schedule in (vp(), flow()):
        x0 = sample(denoise, SOLVERS[name](grid_levels(schedule, 4)), jnp.asarray(X), jax.random.key(0))
        np.testing.assert_allclose(x0[:, mask], COND[:, mask], atol=1e-6)
        free = sample(
            lambda x, level: jnp.tanh(x), SOLVERS[name](grid_levels(schedule, 4)), jnp.asarray(X), jax.random.key(0)
        )
        np.testing.assert_allclose(x0[:, 1], free[:, 1], atol=1e-6)


def test_a_value_s_gradient_turns_the_posterior_mean_into_the_one_given_the_value(x64):
    """x0 ~ N(mu, v), y = x0 + N(0, r). With value = log p(y | x_t), the guided x0_hat must be E[x0 | x_t, y].

    Both are Gaussian: with m, c the mean and variance of x0 given x_t, E[x0 | x_t, y] = m + c (y - m) / (c + r).
    """
    mu, v, r, y = 0.3, 0.5, 0.2, np.array([1.5, -1.0, 0.4])
    x, a, s = X.astype(np.float64), LEVEL.alpha[:, None], LEVEL.sigma[:, None]
    m = mu + a * v / (a**2 * v + s**2) * (x - a * mu)
    c = v * s**2 / (a**2 * v + s**2)

    def mean(x, level):
        return mu + (level.alpha * v / (level.alpha**2 * v + level.sigma**2))[:, None] * (x - level.alpha[:, None] * mu)

    def log_likelihood(x, level):
        return jnp.sum(-0.5 * (y[None] - mean(x, level)) ** 2 / (c + r), axis=-1)

    for scale in (1.0, 0.0, jnp.array([0.0, 0.5, 1.0, 2.0, 3.0])):
        got = value_gradient(mean, log_likelihood, scale)(jnp.asarray(x), LEVEL)
        shift = np.broadcast_to(np.asarray(scale), 5)[:, None] * c * (y - m) / (c + r)
        np.testing.assert_allclose(got, m + shift, rtol=1e-9)


def test_value_guidance_is_off_where_nothing_is_seen_of_the_data():
    levels = grid_levels(flow(), 4)  # alpha = 0 at the start
    denoise = value_gradient(lambda x, level: jnp.tanh(x), lambda x, level: -jnp.sum(x**2, axis=-1), 0.1)
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), levels)
    np.testing.assert_allclose(denoise(jnp.asarray(X), start), np.tanh(X), rtol=1e-5)
    assert jnp.isfinite(sample(denoise, ddim(levels), jnp.asarray(X))).all()
