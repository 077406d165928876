import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    PARAMETERISATIONS,
    Level,
    cosine,
    cosine_betas,
    ddim,
    denoiser,
    eps_of,
    flow,
    from_betas,
    grid_levels,
    level_at,
    on_schedule,
    sample,
    score_of,
    variance_denoiser,
    ve,
    vp,
)

kinds = pytest.mark.parametrize("kind", PARAMETERISATIONS)
RANDOM = np.random.default_rng(0)
X0 = RANDOM.normal(size=(5, 3))
T = np.array([0.02, 0.2, 0.5, 0.8, 0.97])


def network_of(kind, denoise, schedule):
    """A perfectly trained network of this kind: fed c_in x, it gives the F that stands for the exact x0_hat."""
    param = PARAMETERISATIONS[kind]

    def network(scaled, t, cond):
        level = level_at(schedule, t)
        x = scaled / param.scaling(level).c_in
        x0 = denoise(x, level)
        return param.target(level, x0, (x - level.alpha * x0) / level.sigma)

    return network


@kinds
def test_every_kind_draws_the_same_samples(kind, x64):
    schedule = vp()
    table = ddim(grid_levels(schedule, 8))
    x_T = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2)))
    expected = sample(exact.mixture, table, x_T)
    denoise = denoiser(network_of(kind, exact.mixture, schedule), kind, c_noise=lambda level: level.t)
    np.testing.assert_allclose(sample(denoise, table, x_T), expected, atol=1e-8)


@kinds
def test_where_there_is_no_noise_the_data_is_what_is_seen(kind, x64):
    """At sigma = 0 every kind but x0 must return x_t whatever the network says."""
    level = level_at(vp(), jnp.zeros(5))
    x0_hat = denoiser(lambda x, t, cond: 7.0 * jnp.ones_like(x), kind)(jnp.asarray(X0), level)
    np.testing.assert_allclose(x0_hat, np.full_like(X0, 7.0) if kind == "x0" else X0)


@pytest.mark.parametrize("kind", [kind for kind in PARAMETERISATIONS if kind not in ("eps", "score")])
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


def test_a_kind_brings_its_own_noise_input_unless_one_is_given():
    level = jax.tree.map(jnp.asarray, level_at(vp(), T))
    seen = []

    def network(x, t, cond):
        seen.append(t)
        return x

    for kind, c_noise in (("edm", None), ("edm", lambda level: level.t), ("v", None)):
        denoiser(network, kind, c_noise=c_noise)(jnp.asarray(X0, jnp.float32), level)
    np.testing.assert_allclose(seen[0], -level.half_logsnr / 4, rtol=1e-5)
    np.testing.assert_allclose(seen[1:], [T, T], rtol=1e-6)


def test_noise_and_score_follow_from_the_denoiser(x64):
    """N(mu, v) noised is N(alpha mu, alpha**2 v + sigma**2), whose score is known."""
    mu, v = 0.3, 0.5
    level = level_at(vp(), 0.4)
    expected = -(X0 - level.alpha * mu) / (level.alpha**2 * v + level.sigma**2)
    denoise = exact.gaussian(mu, v)
    np.testing.assert_allclose(score_of(denoise)(jnp.asarray(X0), level), expected, rtol=1e-10)
    np.testing.assert_allclose(eps_of(denoise)(jnp.asarray(X0), level), -level.sigma * expected, rtol=1e-10)


def test_noise_and_score_are_zero_with_finite_gradients_where_there_is_no_noise():
    clean = jax.tree.map(jnp.asarray, level_at(vp(), np.array([0.0, 0.5])))
    x = jnp.asarray(X0[:2], jnp.float32)
    for derive in (eps_of, score_of):
        derived = derive(lambda x, level: jnp.sin(x))
        np.testing.assert_array_equal(derived(x, clean)[0], 0.0)
        slopes = jax.jit(
            jax.grad(
                lambda x, b, f=derived: f(x, level_at(vp(b), jnp.array([0.0, 0.5]))).sum(),
                argnums=(0, 1),
            )
        )(x, 0.1)
        assert all(jnp.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("schedule", [vp(), cosine(), ve()], ids=["vp", "cosine", "ve"])
def test_a_denoiser_works_on_a_schedule_it_was_not_trained_on(schedule, x64):
    """The exact denoiser of any schedule is the same function of (x, alpha, sigma), so a move must not show."""
    seen = []

    def trained(x, level):
        seen.append(level)
        return exact.gaussian(0.3, 0.5)(x, level)

    for t in (0.1, 0.4, 0.6, 0.9):
        for level in (level_at(flow(), t), level_at(flow(), jnp.asarray(t))):
            moved = on_schedule(trained, schedule)(jnp.asarray(X0), level)
            np.testing.assert_allclose(moved, exact.gaussian(0.3, 0.5)(X0, level), rtol=1e-7)
            own = level_at(schedule, seen[-1].t)
            np.testing.assert_allclose([seen[-1].alpha, seen[-1].sigma], [own.alpha, own.sigma], rtol=1e-12)


def test_noise_beyond_the_trained_schedule_is_shown_as_its_end():
    def trained(x, level):
        return jnp.stack([x[:, 0], jnp.full(5, level.t)], axis=1)

    x, moved = jnp.asarray(X0, jnp.float32), on_schedule(trained, vp())
    for t, scale in ((0.0, 1.0), (1.0, level_at(vp(), 1.0).sigma)):
        level = level_at(flow(), jnp.asarray(t))
        x0_hat, gradient = jax.jit(jax.value_and_grad(lambda x, f=moved, level=level: f(x, level)[0, 0]))(x)
        np.testing.assert_allclose(x0_hat, scale * X0[0, 0], rtol=1e-6)
        np.testing.assert_allclose(gradient[0, 0], scale, rtol=1e-6)
        np.testing.assert_allclose(moved(x, level)[:, 1], t)


def test_a_network_may_also_say_how_much_noise_to_draw(x64):
    level = level_at(vp(), T)
    out, spread = np.cos(X0), np.array([-1.0, 0.0, 1.0])
    x0_hat, fraction = variance_denoiser(
        lambda x, t, cond: jnp.concatenate([jnp.cos(x), jnp.broadcast_to(cond, x.shape)], axis=-1),
        "eps",
        jnp.asarray(spread)[None],
    )(jnp.asarray(X0), level)
    np.testing.assert_allclose(x0_hat, (X0 - level.sigma[:, None] * out) / level.alpha[:, None], rtol=1e-10)
    np.testing.assert_array_equal(fraction, np.broadcast_to([0.0, 0.5, 1.0], (5, 3)))
    with pytest.raises(ValueError, match=r"of shape \(5, 3\); the last axis must be 2 times as long"):
        variance_denoiser(lambda x, t, cond: x, "eps")(jnp.asarray(X0), level)


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


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_largest_ratio_of_a_published_chain_keeps_its_digits(dtype):
    """The last of 200 cosine levels has sigma / alpha = 4059; data may be of 16 bits, the conversion is not."""
    betas = cosine_betas(200)
    alpha_bar = np.prod(1.0 - betas)
    level = level_at(from_betas(betas), jnp.float32(1.0))
    x = jnp.asarray([[1.0, 0.0]], dtype)
    x0_hat = denoiser(lambda x, t, cond: jnp.asarray([[0.0, 1.0]], dtype), "eps")(x, level)
    assert x0_hat.dtype == jnp.float32
    np.testing.assert_allclose(x0_hat[0], [np.sqrt(1 / alpha_bar), -np.sqrt(1 / alpha_bar - 1)], rtol=1e-5)


def test_an_output_that_would_broadcast_is_refused():
    level = Level(*(jnp.asarray(leaf) for leaf in level_at(vp(), 0.5)))
    with pytest.raises(ValueError, match=r"the network returned shape \(5, 1\) for x of shape \(5, 3\)"):
        denoiser(lambda x, t, cond: x[:, :1], "eps")(jnp.asarray(X0), level)


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(KeyError, match=r"unknown parameterisation 'esp'; did you mean 'eps'\? known: consistency,"):
        denoiser(lambda x, t, cond: x, "esp")
