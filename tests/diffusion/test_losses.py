import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    PARAMETERISATIONS,
    WEIGHTS,
    add_noise,
    denoiser,
    denoising_loss,
    discrete_times,
    flow,
    level_at,
    uniform_times,
    vp,
)

kinds = pytest.mark.parametrize("kind", PARAMETERISATIONS)
schedules = pytest.mark.parametrize("schedule", [vp(), flow()], ids=["vp", "flow"])
RANDOM = np.random.default_rng(0)
X0, EPS, GUESS = RANDOM.normal(size=(3, 5, 3))
T = np.array([0.05, 0.2, 0.5, 0.8, 0.9])


def network_guessing(kind, level):
    """A network of this kind whose x0_hat is GUESS wherever it is asked."""

    def network(x, t, cond):
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        eps = (x - alpha * GUESS) / sigma
        return {"x0": jnp.asarray(GUESS), "eps": eps, "v": alpha * eps - sigma * GUESS, "flow": eps - GUESS}[kind]

    return network


def loss(kind, level, weight):
    return denoising_loss(network_guessing(kind, level), kind, level, jnp.asarray(X0), jnp.asarray(EPS), weight=weight)


@kinds
@schedules
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_weighted_loss_does_not_depend_on_the_kind(kind, schedule, weight, x64):
    level = level_at(schedule, T)
    a, s = level.alpha, level.sigma
    factor = {
        "x0": np.ones(5),
        "eps": a**2 / s**2,
        "v": (a**2 + s**2) ** 2 / s**2,
        "flow": (a + s) ** 2 / s**2,
        "min_snr": np.minimum(a**2 / s**2, 5.0),
    }[weight]
    np.testing.assert_allclose(loss(kind, level, weight), factor * np.mean((X0 - GUESS) ** 2, axis=-1), rtol=1e-10)


@kinds
@schedules
def test_a_kind_s_own_weight_is_the_plain_error_of_its_output(kind, schedule, x64):
    level = level_at(schedule, T)
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    eps_guess = (alpha * X0 + sigma * EPS - alpha * GUESS) / sigma
    error = {
        "x0": X0 - GUESS,
        "eps": EPS - eps_guess,
        "v": (alpha * EPS - sigma * X0) - (alpha * eps_guess - sigma * GUESS),
        "flow": (EPS - X0) - (eps_guess - GUESS),
    }[kind]
    plain = np.mean(error**2, axis=-1)
    np.testing.assert_allclose(loss(kind, level, None), plain, rtol=1e-10)
    np.testing.assert_allclose(loss(kind, level, kind), plain, rtol=1e-10)
    np.testing.assert_allclose(loss("x0", level, kind), plain, rtol=1e-10)


def test_snr_plus_one_is_the_v_weight_where_variance_is_preserved(x64):
    level = level_at(vp(), T)
    np.testing.assert_allclose(WEIGHTS["v"](level), level.alpha**2 / level.sigma**2 + 1.0, rtol=1e-12)


@kinds
def test_the_own_weight_and_its_gradient_are_finite_at_the_clean_end(kind):
    level = level_at(vp(), jnp.zeros(5))
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)
    for weight in (None, kind, "x0", "min_snr"):
        value, gradient = jax.value_and_grad(
            lambda w, weight=weight: jnp.mean(
                denoising_loss(lambda x, t, cond: w * x, kind, level, x0, eps, weight=weight)
            )
        )(0.5)
        assert jnp.isfinite(value), weight
        assert jnp.isfinite(gradient), weight


def test_the_loss_is_the_error_of_the_denoiser(x64):
    """Two routes to |x0 - x0_hat|**2: through the loss, and through x_t and the denoiser."""
    level = level_at(vp(), T)
    x0, eps = jnp.asarray(X0), jnp.asarray(EPS)

    def network(x, t, cond):
        return jnp.tanh(x) * cond + t[:, None]

    cond = jnp.asarray(GUESS)
    x0_hat = denoiser(network, "eps", cond)(add_noise(level, x0, eps), level)
    expected = np.mean((X0 - np.asarray(x0_hat)) ** 2, axis=-1)
    np.testing.assert_allclose(denoising_loss(network, "eps", level, x0, eps, cond, weight="x0"), expected, rtol=1e-10)


def test_a_weight_may_be_a_function_and_data_may_have_more_axes(x64):
    level = level_at(vp(), T)
    x0, eps = RANDOM.normal(size=(2, 5, 4, 3))
    got = denoising_loss(
        lambda x, t, cond: jnp.zeros_like(x),
        "eps",
        level,
        jnp.asarray(x0),
        jnp.asarray(eps),
        weight=lambda level: level.t,
    )
    factor = (T * level.sigma**2 / level.alpha**2)[:, None]
    np.testing.assert_allclose(got, factor * np.mean(eps**2, axis=-1), rtol=1e-10)


def test_outputs_and_noise_that_would_broadcast_are_refused():
    level, x0 = level_at(vp(), jnp.asarray(T)), jnp.asarray(X0)
    with pytest.raises(ValueError, match=r"the network returned shape \(5, 1\)"):
        denoising_loss(lambda x, t, cond: x[:, :1], "eps", level, x0, x0)
    with pytest.raises(ValueError, match=r"eps has shape \(3,\) and x0 \(5, 3\)"):
        denoising_loss(lambda x, t, cond: x, "eps", level, x0, x0[0])


def test_unknown_names_are_answered_with_the_nearest():
    level, x0 = level_at(vp(), jnp.asarray(T)), jnp.asarray(X0)
    with pytest.raises(KeyError, match=r"unknown loss weight 'min_srn'; did you mean 'min_snr'\?"):
        denoising_loss(lambda x, t, cond: x, "eps", level, x0, x0, weight="min_srn")
    with pytest.raises(KeyError, match="unknown parameterisation 'score'; known: eps, flow, v, x0"):
        denoising_loss(lambda x, t, cond: x, "score", level, x0, x0)


def test_discrete_times_are_the_levels_of_a_chain():
    t = np.asarray(discrete_times(jax.random.key(0), (2000,), 5))
    values, counts = np.unique(t, return_counts=True)
    np.testing.assert_allclose(values, [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert (np.abs(counts - 400) < 5 * np.sqrt(2000 * 0.2 * 0.8)).all()
    with pytest.raises(ValueError, match="num_levels=0; a chain has at least 1 level"):
        discrete_times(jax.random.key(0), (2,), 0)


def test_uniform_times_stay_clear_of_the_clean_end():
    t = np.asarray(uniform_times(jax.random.key(0), (2000,), t_min=0.25))
    assert 0.25 <= t.min() < 0.26
    assert 0.99 < t.max() < 1.0
    np.testing.assert_allclose(t.mean(), 0.625, atol=5 * 0.75 / np.sqrt(12 * 2000))
