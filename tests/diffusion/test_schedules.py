"""What holds for every schedule in the table; a new entry is tested without a new test."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion.schedules import (
    SCHEDULES,
    append_clean,
    cosine,
    diffusion_squared,
    drift,
    edm,
    flow,
    from_betas,
    level_at,
    levels_at,
    logsnr,
    logsnr_linear,
    rates,
    shifted,
    sigma_levels,
    slopes,
    sub_vp,
    time_at,
    trig,
    ve,
    vp,
)

CASES = {
    **SCHEDULES,
    "shifted_flow": lambda: shifted(flow(), np.log(3.0)),
    "shifted_ve": lambda: shifted(ve(), 0.5),
}
names = pytest.mark.parametrize("name", CASES)
GRID = np.concatenate([[0.0], np.geomspace(1e-3, 1.0, 200)])
INSIDE = np.linspace(0.0153, 0.9831, 21)  # off the knots of the discrete schedules
KEEPS_VARIANCE = {"vp", "cosine", "trig", "logsnr_linear", "linear", "cosine_betas"}
NOT_CLEAN = {"ve", "logsnr_linear", "shifted_ve"}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OnlyLevels:
    """A user's schedule: nothing but what is required."""

    schedule: Any

    def log_alpha_sigma(self, t):
        return self.schedule.log_alpha_sigma(t)


def as_jax(schedule, dtype=jnp.float32):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), schedule)


def half_logsnr(schedule, t):
    return level_at(schedule, t).half_logsnr


@names
def test_goes_from_clean_to_noise_within_bounds(name):
    level = level_at(CASES[name](), GRID)
    if name in NOT_CLEAN:
        assert 0 < level.sigma[0] < 0.02
        assert level.alpha[0] > 0.999
    else:
        assert (level.alpha[0], level.sigma[0]) == (1.0, 0.0)
    assert ((level.alpha >= 0) & (level.alpha <= 1)).all()
    assert (level.sigma >= 0).all()
    assert level.sigma[-1] > 0.99
    if name in KEEPS_VARIANCE:
        np.testing.assert_allclose(level.alpha**2 + level.sigma**2, 1.0, rtol=1e-12)


@names
def test_logsnr_strictly_decreases(name):
    values = logsnr(CASES[name](), GRID)
    assert (values[1:] < values[:-1]).all()
    assert (values[0] == np.inf) == (name not in NOT_CLEAN)


def everything(schedule, t):
    """All that is computed from a schedule, as a dictionary of [*B]."""
    level = level_at(schedule, t)
    (f, log_sigma_rate), g2 = rates(schedule, t), diffusion_squared(schedule, t)
    back = time_at(schedule, level.half_logsnr)
    return {"alpha": level.alpha, "sigma": level.sigma, "f": f, "log_sigma_rate": log_sigma_rate, "g2": g2, "t": back}


@names
def test_float32_on_the_device_agrees_with_float64_on_the_host_and_one_trace_serves_all(name, trace_counter):
    jitted = jax.jit(trace_counter(everything))
    t = GRID.astype(np.float32)
    one = as_jax(CASES[name]())
    for schedule in (one, jax.tree.map(lambda leaf: 0.97 * leaf, one)):
        host = everything(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), schedule), t.astype(np.float64))
        device = jitted(schedule, t)
        for value in host.values():
            assert isinstance(value, np.ndarray)
            assert value.dtype == np.float64
        np.testing.assert_allclose(device["alpha"], host["alpha"], rtol=3e-5)
        np.testing.assert_allclose(device["sigma"], host["sigma"], rtol=6e-6)
        assert (device["sigma"][1:] > device["sigma"][:-1]).all()
        # Near t = 1 these are quotients of alpha, and half an ulp of t or of lambda is worth this much.
        middle = t < 0.99
        for of in ("f", "log_sigma_rate", "g2"):
            np.testing.assert_allclose(device[of][middle], host[of][middle], rtol=1e-3, atol=1e-5)
            np.testing.assert_array_equal(np.isinf(device[of]), np.isinf(host[of]))
        np.testing.assert_allclose(device["t"], t, rtol=3e-4, atol=2e-5)
    assert trace_counter.count == 1


@names
def test_gradients_are_finite_from_end_to_end(name):
    def total(schedule, t):
        level = level_at(schedule, t)
        values = level.log_alpha, level.log_sigma, time_at(schedule, level.half_logsnr)
        return sum(jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0)) for x in values)

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(as_jax(CASES[name]()), jnp.asarray(GRID, jnp.float32))
    assert jax.tree.all(jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), gradients))


@names
def test_vmap_over_the_constants_equals_a_loop(name):
    one = as_jax(CASES[name]())
    other = jax.tree.map(lambda leaf: 0.9 * leaf, one)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)
    swept = jax.jit(jax.vmap(everything, in_axes=(0, None), axis_size=2))(stacked, INSIDE.astype(np.float32))
    for lane, schedule in enumerate((one, other)):
        host = everything(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), schedule), INSIDE)
        for of, value in swept.items():
            np.testing.assert_allclose(value[lane], host[of], rtol=1e-3, atol=1e-5)


@names
def test_inverse_takes_every_level_back_to_its_time(name):
    schedule = CASES[name]()
    np.testing.assert_allclose(time_at(schedule, half_logsnr(schedule, GRID)), GRID, rtol=1e-12, atol=1e-15)
    assert time_at(schedule, np.inf) == 0.0


@names
def test_without_a_formula_bisection_finds_the_same_time(name):
    schedule = CASES[name]()
    found = time_at(OnlyLevels(schedule), half_logsnr(schedule, INSIDE))
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, INSIDE, rtol=1e-12)


def test_bisection_has_the_derivatives_of_the_formula(x64):
    schedule = as_jax(sub_vp(), float)

    @jax.jit
    def slopes_of(lam):
        with_formula = jax.grad(time_at, argnums=(0, 1))(schedule, lam)
        without = jax.grad(lambda s, lam: time_at(OnlyLevels(s), lam), argnums=(0, 1))(schedule, lam)
        return with_formula, without

    wanted, found = slopes_of(1.5)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
        assert abs(other) > 1e-4


@names
def test_rates_are_the_derivatives_and_g2_follows_from_them(name, x64):
    schedule = CASES[name]()
    t = np.concatenate([[0.0], INSIDE, [1.0]])
    by_formula, by_jvp = slopes(schedule, t), jax.jit(slopes)(OnlyLevels(schedule), t)
    for one, other in zip(by_formula, by_jvp, strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_allclose(one[1:-1], other[1:-1], rtol=1e-9, atol=1e-12)
        # At a clean end, where log sigma has no slope, the fallback answers for a moment later.
        np.testing.assert_allclose(one[0], other[0], rtol=2e-3, atol=2e-4 * abs(one[9]))
    width = 1e-6
    above, below = (level_at(schedule, INSIDE + shift) for shift in (width, -width))
    d_alpha, d_sigma, d_lam = ((a - b) / (2 * width) for a, b in (
        (above.log_alpha, below.log_alpha),
        (above.log_sigma, below.log_sigma),
        (above.half_logsnr, below.half_logsnr),
    ))  # fmt: skip
    for one, other in zip(rates(schedule, INSIDE), (d_alpha, d_sigma), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(drift(schedule, INSIDE), d_alpha, rtol=1e-6, atol=1e-8)
    g2 = diffusion_squared(schedule, t)
    np.testing.assert_allclose(g2[1:-1], -2.0 * level_at(schedule, INSIDE).sigma ** 2 * d_lam, rtol=1e-6)
    assert 0 <= g2[0] < np.inf
    np.testing.assert_allclose(g2[0], diffusion_squared(schedule, 1e-9), rtol=1e-4, atol=1e-4)


BETA = 0.1 + 19.9 * INSIDE
VP_ALPHA = np.exp(-0.05 * INSIDE - 0.25 * 19.9 * INSIDE**2)
LAMBDA = 5.0 - 10.0 * INSIDE
DEFINITIONS = {  # alpha, sigma, g**2 as published
    "vp": (VP_ALPHA, np.sqrt(1 - VP_ALPHA**2), BETA),
    "sub_vp": (VP_ALPHA, 1 - VP_ALPHA**2, BETA * (1 - VP_ALPHA**4)),
    "trig": (np.cos(np.pi * INSIDE / 2), np.sin(np.pi * INSIDE / 2), np.pi * np.tan(np.pi * INSIDE / 2)),
    "logsnr_linear": (
        np.sqrt(1 / (1 + np.exp(-2 * LAMBDA))),
        np.sqrt(1 / (1 + np.exp(2 * LAMBDA))),
        20.0 / (1 + np.exp(2 * LAMBDA)),
    ),
    "ve": (np.ones(21), 0.01 * 5000**INSIDE, (0.01 * 5000**INSIDE) ** 2 * 2 * np.log(5000)),
    "edm": (np.ones(21), 80 * INSIDE, 2 * 80**2 * INSIDE),
    "flow": (1 - INSIDE, INSIDE, 2 * INSIDE / (1 - INSIDE)),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_equals_the_published_definition(name):
    alpha, sigma, g2 = DEFINITIONS[name]
    level = level_at(SCHEDULES[name](), INSIDE)
    np.testing.assert_allclose(level.alpha, alpha, rtol=1e-11)
    np.testing.assert_allclose(level.sigma, sigma, rtol=1e-11)
    np.testing.assert_allclose(diffusion_squared(SCHEDULES[name](), INSIDE), g2, rtol=1e-11)


def test_cosine_equals_its_definition():
    t, c = np.linspace(0.0, 1.0, 11), 0.008
    expected = np.cos(0.5 * np.pi * (0.9 * t + c) / (1 + c)) / np.cos(0.5 * np.pi * c / (1 + c))
    np.testing.assert_allclose(level_at(cosine(c, 0.9), t).alpha, expected, rtol=1e-12)
    # DPM-Solver cuts the curve at 0.9946, where log(alpha / sigma) is about -4.8 (arXiv:2206.00927, appendix D.4).
    np.testing.assert_allclose(level_at(cosine(), 1.0).half_logsnr, -4.8, atol=0.05)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("schedule", [cosine(t_max=1.0), trig(), flow()])
def test_a_whole_path_ends_at_pure_noise_and_finds_its_way_back(schedule, array):
    level = level_at(schedule, array(1.0))
    assert (level.alpha, level.sigma) == (0.0, 1.0)
    assert time_at(schedule, level.half_logsnr) == 1.0
    np.testing.assert_allclose(rates(schedule, array(1.0))[0], -np.inf)


@pytest.mark.parametrize("kappa", [0.25, 1.0, 3.0])
def test_shift_of_the_straight_path_is_that_of_flow_matching(kappa):
    wanted = kappa * GRID / (1 + (kappa - 1) * GRID)
    np.testing.assert_allclose(level_at(shifted(flow(), np.log(kappa)), GRID).sigma, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("log_shift", [-0.7, 0.7])
def test_shift_lowers_the_half_logsnr_by_a_constant_and_shifts_add_up(name, log_shift):
    schedule = SCHEDULES[name]()
    moved = shifted(schedule, log_shift)
    np.testing.assert_allclose(half_logsnr(moved, INSIDE), half_logsnr(schedule, INSIDE) - log_shift, rtol=1e-11)
    back = level_at(shifted(moved, -log_shift), INSIDE)
    np.testing.assert_allclose(back.log_alpha, level_at(schedule, INSIDE).log_alpha, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_levels_by_their_logsnr_and_by_their_noise(array):
    lam = np.array([-3.5, 0.0, 3.0, np.inf])
    for schedule in (vp(), ve(), OnlyLevels(flow())):
        level = levels_at(schedule, array(lam))
        np.testing.assert_allclose(level.half_logsnr, lam, rtol=2e-5, atol=2e-5)
        assert (level.t[-1], level.log_alpha[-1]) == (0.0, 0.0)
        np.testing.assert_allclose(level.t[:-1], time_at(schedule, lam[:-1]), rtol=2e-5)
    level = sigma_levels(array([8.0, 2.0, 0.0]))
    np.testing.assert_allclose(level.t, [1.0, 0.25, 0.0])
    np.testing.assert_allclose(level.sigma, [8.0, 2.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(level.alpha, 1.0)


def test_the_clean_level_is_appended_on_the_host_and_in_a_trace():
    level = level_at(ve(), np.array([1.0, 0.0]))
    for longer in (append_clean(level), jax.jit(append_clean)(level)):
        np.testing.assert_allclose(longer.t, [1.0, 0.0, 0.0])
        np.testing.assert_allclose(longer.sigma, [50.0, 0.01, 0.0], rtol=1e-6)
        np.testing.assert_allclose(longer.alpha, 1.0)
    assert append_clean(level).log_sigma.dtype == np.float64
    gradient = jax.jit(jax.grad(lambda rho: jnp.sum(append_clean(sigma_levels(rho)).sigma)))(jnp.array([2.0, 1.0, 0.0]))
    np.testing.assert_allclose(gradient, [1.0, 1.0, 0.0])


def test_learned_ends_have_their_gradients(x64):
    """lambda(t) = top + t (bottom - top): each end weighs as far as t is from the other."""
    by_top, by_bottom = jax.grad(lambda a, b: half_logsnr(logsnr_linear(a, b), 0.25), argnums=(0, 1))(4.0, -6.0)
    np.testing.assert_allclose([by_top, by_bottom], [0.75, 0.25], rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vp(beta_max=-5.0), "beta_max=-5.0; noise rates need beta_min >= 0, beta_max > 0"),
        (lambda: vp(beta_min=float("nan")), "beta_min=nan"),
        (lambda: sub_vp(beta_min=-1.0), "beta_min=-1.0"),
        (lambda: cosine(offset=0.0), "offset=0.0; the cosine schedule needs offset > 0"),
        (lambda: cosine(t_max=1.1), r"t_max=1.1; allowed: \(0, 1\]"),
        (lambda: logsnr_linear(-5.0, 5.0), "half_logsnr_max=-5.0 and half_logsnr_min=5.0; give finite ends"),
        (lambda: ve(1.0, 0.5), "sigma_min=1.0 and sigma_max=0.5; allowed: 0 < sigma_min < sigma_max"),
        (lambda: edm(sigma_min=0.0), "sigma_min=0.0 and sigma_max=80.0"),
        (lambda: from_betas([0.1, 1.5]), r"betas range from 0.1 to 1.5; each must lie in \(0, 1\)"),
        (lambda: from_betas(jnp.array([0.1, 1.5])), "betas range from 0.1 to 1.5"),
        (lambda: from_betas([[0.1]]), r"betas has shape \(1, 1\)"),
        (lambda: from_betas([]), r"betas has shape \(0,\)"),
        (lambda: SCHEDULES["linear"](5), "num_steps=5 would end at 4, .* use num_steps > 20"),
        (lambda: levels_at(vp(0.1, 10.0), [-3.0, 1.0]), r"from -3 to 1; this schedule reaches -2.522 \(t = 1\) to inf"),
        (lambda: levels_at(ve(), 5.0), r"this schedule reaches -3.912 \(t = 1\) to 4.605 \(t = 0\)"),
        (lambda: sigma_levels([1.0, -1.0]), "ratios sigma / alpha are finite and >= 0"),
    ],
)
def test_constants_that_make_no_schedule_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
