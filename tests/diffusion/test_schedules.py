"""What holds for every schedule in the table; a new entry is tested without a new test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import SCHEDULES, cosine, flow, from_betas, level_at, logsnr, vp

names = pytest.mark.parametrize("name", SCHEDULES)
jitted_level_at = jax.jit(level_at)
GRID = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 200)])


def as_jax(schedule):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), schedule)


@names
def test_goes_from_clean_to_noise_within_bounds(name):
    level = level_at(SCHEDULES[name](), GRID)
    assert (level.alpha[0], level.sigma[0]) == (1.0, 0.0)
    assert ((level.alpha >= 0) & (level.alpha <= 1)).all()
    assert ((level.sigma >= 0) & (level.sigma <= 1)).all()
    assert level.sigma[-1] > 0.99
    if name != "flow":
        np.testing.assert_allclose(level.alpha**2 + level.sigma**2, 1.0, rtol=1e-12)


@names
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_logsnr_strictly_decreases(name, array):
    values = np.asarray(logsnr(SCHEDULES[name](), array(GRID[1:])))
    assert (values[1:] < values[:-1]).all()
    assert logsnr(SCHEDULES[name](), array(0.0)) == np.inf


@names
def test_float32_on_the_device_agrees_with_float64_on_the_host(name):
    t = GRID.astype(np.float32)
    host = level_at(SCHEDULES[name](), t.astype(np.float64))
    for device in (
        level_at(SCHEDULES[name](), jnp.asarray(t)),
        level_at(as_jax(SCHEDULES[name]()), jnp.asarray(t)),
        jitted_level_at(SCHEDULES[name](), t),
    ):
        assert host.log_sigma.dtype == np.float64
        assert device.log_sigma.dtype == jnp.float32
        np.testing.assert_allclose(device.alpha, host.alpha, rtol=3e-5)
        np.testing.assert_allclose(device.sigma, host.sigma, rtol=3e-6)


@names
def test_jit_equals_eager(name):
    schedule, t = as_jax(SCHEDULES[name]()), jnp.asarray(GRID, jnp.float32)
    for jitted, eager in zip(jitted_level_at(schedule, t), level_at(schedule, t), strict=True):
        np.testing.assert_allclose(jitted, eager, rtol=3e-5, atol=1e-6)


@names
def test_gradients_are_finite_from_end_to_end(name):
    schedule, t = as_jax(SCHEDULES[name]()), jnp.asarray(GRID, jnp.float32)

    def total(schedule, t):
        return sum(jnp.sum(x) for x in schedule.log_alpha_sigma(t))

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total, argnums=(0, 1)))(schedule, t)):
        assert jnp.isfinite(gradient).all()


@names
def test_vmap_over_the_constants_equals_a_loop(name):
    one = as_jax(SCHEDULES[name]())
    other = jax.tree.map(lambda leaf: 0.9 * leaf, one)
    t = jnp.linspace(0.05, 0.95, 7)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    batched = jax.jit(jax.vmap(level_at, in_axes=(0, None), axis_size=2))(stacked, t)
    for lane, schedule in enumerate((one, other)):
        np.testing.assert_allclose(
            batched.log_alpha[lane], jitted_level_at(schedule, t).log_alpha, rtol=1e-5, atol=1e-7
        )
        np.testing.assert_allclose(
            batched.log_sigma[lane], jitted_level_at(schedule, t).log_sigma, rtol=1e-5, atol=1e-7
        )


def test_gradient_of_vp_is_the_noise_rate(x64):
    """d log alpha / dt = -beta(t) / 2 with beta(t) = 0.1 + 19.9 t."""
    slope = jax.grad(lambda t: vp(0.1, 20.0).log_alpha_sigma(t)[0])(0.3)
    np.testing.assert_allclose(slope, -0.5 * (0.1 + 19.9 * 0.3), rtol=1e-12)


def test_cosine_equals_its_definition():
    t, c = np.linspace(0.0, 1.0, 11), 0.008
    expected = np.cos(0.5 * np.pi * (0.9 * t + c) / (1 + c)) / np.cos(0.5 * np.pi * c / (1 + c))
    np.testing.assert_allclose(level_at(cosine(c, 0.9), t).alpha, expected, rtol=1e-12)
    # DPM-Solver cuts the curve at 0.9946, where log(alpha / sigma) is about -4.8 (arXiv:2206.00927, appendix D.4).
    np.testing.assert_allclose(level_at(cosine(), 1.0).half_logsnr, -4.8, atol=0.05)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_the_whole_cosine_curve_ends_at_pure_noise(array):
    level = level_at(cosine(t_max=1.0), array(1.0))
    assert (level.alpha, level.sigma) == (0.0, 1.0)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_flow_is_a_straight_path(array):
    level = level_at(flow(), array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(level.alpha, [1.0, 0.75, 0.0], rtol=1e-6)
    np.testing.assert_allclose(level.sigma, [0.0, 0.25, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vp(beta_max=-5.0), "beta_max=-5.0; noise rates need beta_min >= 0, beta_max > 0"),
        (lambda: vp(beta_min=float("nan")), "beta_min=nan"),
        (lambda: cosine(offset=0.0), "offset=0.0; the cosine schedule needs offset > 0"),
        (lambda: cosine(t_max=1.1), r"t_max=1.1; allowed: \(0, 1\]"),
        (lambda: from_betas([0.1, 1.5]), r"betas range from 0.1 to 1.5; each must lie in \(0, 1\)"),
        (lambda: from_betas(jnp.array([0.1, 1.5])), "betas range from 0.1 to 1.5"),
        (lambda: from_betas([[0.1]]), r"betas has shape \(1, 1\)"),
        (lambda: from_betas([]), r"betas has shape \(0,\)"),
    ],
)
def test_constants_that_make_no_schedule_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
