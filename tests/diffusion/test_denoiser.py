import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    PARAMETERISATIONS,
    SCHEDULES,
    Level,
    add_noise,
    ddim,
    denoiser,
    flow,
    grid_levels,
    level_at,
    sample,
    vp,
)

kinds = pytest.mark.parametrize("kind", PARAMETERISATIONS)
RANDOM = np.random.default_rng(0)
X0, EPS = RANDOM.normal(size=(2, 5, 3))
T = np.array([0.02, 0.2, 0.5, 0.8, 0.97])


@kinds
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_target_as_output_gives_the_data_back(kind, schedule, x64):
    level = level_at(SCHEDULES[schedule](), T)
    x_t = level.alpha[:, None] * X0 + level.sigma[:, None] * EPS  # Ho et al. 2020, eq. 4, in numpy
    np.testing.assert_allclose(add_noise(level, jnp.asarray(X0), jnp.asarray(EPS)), x_t, rtol=1e-12)
    target = PARAMETERISATIONS[kind].target(level, jnp.asarray(X0), jnp.asarray(EPS))
    np.testing.assert_allclose(denoiser(lambda x, t, cond: target, kind)(jnp.asarray(x_t), level), X0, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("x0", lambda a, s, x0, eps: x0),
        ("eps", lambda a, s, x0, eps: eps),
        ("v", lambda a, s, x0, eps: a * eps - s * x0),
        ("flow", lambda a, s, x0, eps: eps - x0),
    ],
)
def test_targets_are_the_published_ones(kind, formula, x64):
    level = level_at(vp(), T)
    target = PARAMETERISATIONS[kind].target(level, jnp.asarray(X0), jnp.asarray(EPS))
    np.testing.assert_allclose(target, formula(level.alpha[:, None], level.sigma[:, None], X0, EPS), rtol=1e-12)


def network_of(kind, denoise, schedule):
    """The network that a perfectly trained model of this kind would be: x0_hat inverted for F."""

    def network(x, t, cond):
        level = level_at(schedule, t)
        x0 = denoise(x, level)
        eps = (x - level.alpha * x0) / level.sigma
        return {"x0": x0, "eps": eps, "v": level.alpha * eps - level.sigma * x0, "flow": eps - x0}[kind]

    return network


@kinds
def test_every_kind_draws_the_same_samples(kind, x64):
    schedule = vp()
    table = ddim(grid_levels(schedule, 8))
    x_T = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
    expected = sample(exact.mixture, table, x_T)
    network = network_of(kind, exact.mixture, schedule)
    np.testing.assert_allclose(sample(denoiser(network, kind), table, x_T), expected, atol=1e-8)


@kinds
def test_where_there_is_no_noise_the_data_is_what_is_seen(kind, x64):
    """At sigma = 0 every kind but x0 must return x_t whatever the network says."""
    level = level_at(vp(), jnp.zeros(5))
    x0_hat = denoiser(lambda x, t, cond: 7.0 * jnp.ones_like(x), kind)(jnp.asarray(X0), level)
    np.testing.assert_allclose(x0_hat, np.full_like(X0, 7.0) if kind == "x0" else X0)


@pytest.mark.parametrize("kind", ["x0", "v", "flow"])
def test_pure_noise_is_no_division_by_zero(kind):
    level = level_at(flow(), jnp.ones(5))
    x0_hat, gradient = jax.value_and_grad(lambda x: denoiser(lambda x, t, cond: x, kind)(x, level).sum())(
        jnp.asarray(X0)
    )
    assert jnp.isfinite(x0_hat)
    assert jnp.isfinite(gradient).all()


def test_the_network_sees_the_noise_input_and_the_condition():
    level = level_at(vp(), jnp.asarray(T, jnp.float32))
    seen = {}

    def network(x, t, cond):
        seen.update(t=t, cond=cond)
        return x

    denoiser(network, "x0", "condition", c_noise=lambda level: 10.0 * level.t - 1.0)(
        jnp.asarray(X0, jnp.float32), level
    )
    np.testing.assert_allclose(seen["t"], 10.0 * T - 1.0, rtol=1e-5)
    assert seen["cond"] == "condition"


def test_half_precision_data_keeps_exact_coefficients():
    """bfloat16 has 8 bits: 1 / alpha = 12.4 and the step index 998.5 would both be rounded."""
    level = level_at(vp(0.1, 10.0), jnp.float32(0.999))
    seen = []

    def network(x, t, cond):
        seen.append(t)
        return jnp.zeros_like(x)

    denoise = denoiser(network, "eps", c_noise=lambda level: 1000 * level.t - 0.5)
    x0_hat = denoise(jnp.ones((2, 3), jnp.bfloat16), level)
    np.testing.assert_allclose(x0_hat, 1.0 / level.alpha, rtol=1e-6)
    np.testing.assert_allclose(seen[0], 998.5, rtol=1e-6)


def test_an_output_that_would_broadcast_is_refused():
    level = Level(*(jnp.asarray(leaf) for leaf in level_at(vp(), 0.5)))
    with pytest.raises(ValueError, match=r"the network returned shape \(5, 1\) for x of shape \(5, 3\)"):
        denoiser(lambda x, t, cond: x[:, :1], "eps")(jnp.asarray(X0), level)


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"unknown parameterisation 'esp'; did you mean 'eps'\? known: eps, flow, v, x0"):
        denoiser(lambda x, t, cond: x, "esp")
