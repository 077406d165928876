"""What holds for every solver in the registry; a new entry is tested without a new test.

All of them run through one compiled program, by `align`, which is itself one of the claims.
"""

import functools

import exact
import jax
import jax.numpy as jnp
import numpy as np
from numpy_runner import follow
import pytest

from jaxdiff.diffusion import (
    SCHEDULES,
    SOLVERS,
    align,
    cfg,
    clip,
    ddim,
    ddpm,
    dpmpp,
    flow,
    grid_levels,
    level_at,
    make_table,
    sample,
    stack,
    uniform_grid,
    vp,
)

solvers = pytest.mark.parametrize("name", SOLVERS)
pytestmark = pytest.mark.usefixtures("given_noise")
CALLS = 5
X_T = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
KEY = jax.random.key(0)
NAMES = list(SOLVERS)
# Exact only as the steps shrink: they follow time, where even a point mass has a curved path.
IN_TIME = {"reverse_sde", "predictor_corrector", "pf_euler", "pf_heun"}
# These divide by alpha or by lambda's distance, and refuse to start where alpha = 0.
NEED_SIGNAL = {
    *("dpm_solver_1", "dpm_solver_2", "dpm_solver_3", "dpm_solver_2m", "dpm_solver_3m"),
    *("dpmpp_2s", "dpmpp_3s", "dpmpp_2s_ancestral", "heun", "reverse_sde", "predictor_corrector"),
}
jitted_sample = jax.jit(sample, static_argnums=0, static_argnames=("grad_steps", "unroll", "remat"))


def curved(x, level):
    """Any denoiser will do here; accuracy is tested elsewhere."""
    return jnp.tanh(x / (level.alpha + level.sigma))


def curved_numpy(x, alpha, sigma):
    return np.tanh(x / (alpha + sigma))


def run(table, x_T=X_T, key=KEY, denoise=curved, **options):
    return jitted_sample(denoise, table, jnp.asarray(x_T), key, **options)


@functools.cache
def make(name, schedule="vp", num_calls=CALLS):
    return make_table(name, SCHEDULES[schedule](), num_calls)


@functools.cache
def aligned():
    return dict(zip(NAMES, align([make(name) for name in NAMES]), strict=True))


@solvers
def test_every_way_to_run_a_table_equals_numpy(name, given_noise):
    """Unrolled, scanned and recomputed, in one program for all solvers; and eagerly as the table was built."""
    table = make(name)
    expected = follow(table, curved_numpy, X_T.astype(np.float64), given_noise((table.noisy_rows, *X_T.shape)))[-1]
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(sample(curved, table, jnp.asarray(X_T), KEY), expected, rtol=1e-4, atol=2e-5)
    for options in ({"unroll": True}, {"unroll": False}, {"unroll": False, "remat": True}):
        np.testing.assert_allclose(run(aligned()[name], **options), expected, rtol=1e-4, atol=2e-5)


@solvers
def test_data_without_variance_is_found_exactly(name):
    """For a point mass every posterior is the point itself."""

    def point(x, alpha, sigma):
        return np.full_like(x, 0.7)

    if name in IN_TIME:
        errors = [np.abs(follow(make(name, "vp", calls), point, X_T)[-1] - 0.7).max() for calls in (25, 101)]
        assert errors[1] < 0.6 * errors[0]
    else:
        np.testing.assert_allclose(follow(make(name), point, X_T)[-1], 0.7, atol=1e-5)


@solvers
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_are_finite_on_every_schedule_or_refused_with_a_reason(name, schedule):
    for calls in (5, 7):
        if schedule in ("flow", "trig") and name in NEED_SIGNAL:
            with pytest.raises(ValueError, match="alpha = 0"):
                make(name, schedule, calls)
        else:
            table = make(name, schedule, calls)
            assert table.num_calls == calls
            # The levels may hold -inf, which is what a clean end is.
            for leaf in jax.tree.leaves(
                (table.slope_x, table.slope_x0, table.anchor, table.slopes, table.noise, table.base)
            ):
                assert jnp.isfinite(leaf).all()


@solvers
def test_the_schedule_s_constants_may_be_traced(name):
    """Tables that jax builds from traced numbers are those that numpy builds from plain ones."""
    traced = jax.jit(lambda beta_max: make_table(name, vp(0.1, beta_max), CALLS, t_end=0.01))
    if name in ("heun", "pf_heun", "dpmpp_2s_ancestral"):
        pytest.raises(ValueError, traced, 10.0).match("choose 4 or 6")
        return
    plain = make_table(name, vp(0.1, 10.0), CALLS, t_end=0.01)
    for got, expected in zip(jax.tree.leaves(traced(10.0)), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-5)


def test_one_compilation_serves_every_solver_and_sweeps_eta_guidance_and_temperature(trace_counter):
    """At least ten solvers of equal network calls, vmapped over solver, eta and guidance weight in one call."""
    weights, etas, temperatures = jnp.array([0.0, 1.0, 3.0]), jnp.array([0.0, 0.4]), jnp.array([0.5, 1.0])

    def conditional(x, level, cond):
        return jnp.tanh(x + cond)

    @trace_counter
    def draw(table, eta, weight, temperature):
        denoise = cfg(conditional, jnp.full(X_T.shape, 0.5), jnp.zeros(X_T.shape), weight)
        family = align([ddim(grid_levels(vp(), CALLS), eta=eta), table])[0]
        swept = sample(denoise, table, jnp.asarray(X_T), KEY, temperature=temperature)
        return swept, sample(denoise, family, jnp.asarray(X_T), KEY, temperature=temperature)

    over_weights = jax.vmap(draw, in_axes=(None, None, 0, None))
    over_etas = jax.vmap(over_weights, in_axes=(None, 0, None, 0))
    sweep = jax.jit(jax.vmap(over_etas, in_axes=(0, None, None, None)))
    tables = stack([make(name) for name in NAMES])
    assert len(NAMES) >= 10
    swept, family = sweep(tables, etas, weights, temperatures)
    assert swept.shape == family.shape == (len(NAMES), 2, 3, *X_T.shape)
    assert trace_counter.count == 1
    for lane, name in enumerate(NAMES):
        denoise = cfg(conditional, jnp.full(X_T.shape, 0.5), jnp.zeros(X_T.shape), 3.0)
        np.testing.assert_allclose(swept[lane, 1, 2], sample(denoise, make(name), jnp.asarray(X_T), KEY), atol=3e-5)
    np.testing.assert_allclose(family[0, 0], swept[NAMES.index("ddim"), 0], atol=3e-6)
    sweep(tables, etas / 2, weights + 1, temperatures)
    assert trace_counter.count == 1


def test_every_schedule_and_grid_of_a_length_shares_a_program(trace_counter):
    jitted = jax.jit(trace_counter(lambda table, key: sample(curved, table, jnp.asarray(X_T), key)))
    drawn = [jitted(ddpm(grid_levels(s, CALLS)), KEY) for s in (vp(), vp(0.1, 10.0), SCHEDULES["cosine"]())]
    assert trace_counter.count == 1
    assert np.abs(np.diff(np.stack(drawn), axis=0)).max(axis=(1, 2)).min() > 1e-3


@solvers
def test_gradients_are_finite(name):
    """By the start and by every coefficient of the table, to sigma = 0."""

    def total(x_T, table):
        return jnp.sum(sample(curved, table, x_T, KEY, unroll=False) ** 2)

    by_x, by_table = gradient_of(total)(jnp.asarray(X_T), aligned()[name])
    assert jnp.isfinite(by_x).all()
    assert jnp.abs(by_x).max() > 0 or name == "consistency"  # whose last step forgets all but the noise before it
    by_coefficient = (by_table.anchor, by_table.slopes, by_table.noise, by_table.slope_x, by_table.slope_x0)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(by_coefficient))


_GRADIENTS: dict[str, object] = {}


def gradient_of(total):
    """One compiled gradient for all solvers: their totals are the same function."""
    return _GRADIENTS.setdefault("total", jax.jit(jax.grad(total, argnums=(0, 1), allow_int=True)))


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m"])
def test_gradients_by_a_learned_schedule_are_right(name, x64):
    x_T, width = jnp.asarray(X_T.astype(np.float64)), 1e-4

    def total(beta_max):
        table = make_table(name, vp(0.1, beta_max), CALLS)
        return jnp.sum(sample(curved, table, x_T, KEY, unroll=False) ** 2)

    both = jax.jit(jax.value_and_grad(total))
    (above, _), (below, _), (_, by_beta) = (both(15.0 + shift) for shift in (width, -width, 0.0))
    np.testing.assert_allclose(by_beta, (above - below) / (2 * width), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m", "dpm_solver_3", "unipc_2"])
@pytest.mark.parametrize("options", [{"unroll": True}, {"unroll": False, "remat": True}])
def test_grad_steps_cuts_the_gradient_of_all_calls_but_the_last(name, options):
    """One weight per network call tells which calls a gradient went through."""
    table = make(name)
    times = table.level.t[:-1]

    def total(weight, grad_steps):
        def denoise(x, level):
            return jnp.sum(jnp.where(times == level.t, weight, 0.0)) * curved(x, level)

        return jnp.sum(sample(denoise, table, jnp.asarray(X_T), KEY, grad_steps=grad_steps, **options))

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    weight = jnp.ones(CALLS)
    whole = gradient(weight, None)
    assert (np.abs(whole) > 1e-5).all()
    for grad_steps in (1, 2):
        kept = np.arange(CALLS) >= CALLS - grad_steps
        got = gradient(weight, grad_steps)
        np.testing.assert_array_equal(got[~kept], 0.0)
        np.testing.assert_allclose(got[-1], whole[-1], rtol=1e-4, atol=1e-6)


def test_the_state_keeps_float32_and_the_result_the_type_of_the_start():
    for unroll in (True, False):
        half = run(make("ddpm"), X_T.astype(jnp.bfloat16), unroll=unroll)
        assert half.dtype == jnp.bfloat16
        full = run(make("ddpm"), X_T.astype(jnp.bfloat16).astype(np.float32), unroll=unroll)
        np.testing.assert_allclose(half.astype(np.float32), full, rtol=2**-8, atol=1e-6)


def test_clipping_inside_a_chain_keeps_the_sample_in_bounds():
    x0 = run(make("ddpm"), denoise=clip(lambda x, level: 5.0 * x, -1.0, 1.0))
    assert (jnp.abs(x0) <= 1.0).all()


def test_the_gradient_by_eta_is_finite_at_both_ends_and_right_between(x64):
    levels = grid_levels(vp(), CALLS)

    def total(eta):
        return jnp.sum(run(ddim(levels, eta=eta), X_T.astype(np.float64)) ** 2)

    at_zero, between, at_one = jax.jit(jax.vmap(jax.grad(total)))(jnp.array([0.0, 0.5, 1.0]))
    assert jnp.isfinite(at_zero)
    assert jnp.isfinite(at_one)
    below, above = jax.jit(jax.vmap(total))(jnp.array([0.5 - 1e-5, 0.5 + 1e-5]))
    np.testing.assert_allclose(between, (above - below) / 2e-5, rtol=1e-6)


def test_a_long_chain_draws_its_noise_row_by_row_and_alike_in_both_loops():
    table = ddpm(grid_levels(vp(), 120))
    unrolled, scanned = (sample(curved, table, jnp.asarray(X_T[:1]), KEY, unroll=unroll) for unroll in (True, False))
    np.testing.assert_allclose(unrolled, scanned, atol=1e-5)


def test_short_chains_are_written_out_long_ones_scanned_and_calls_recomputed_where_asked():
    def program(num_calls, **options):
        table = ddpm(grid_levels(vp(), num_calls))
        return str(jax.make_jaxpr(lambda x: sample(curved, table, x, KEY, **options))(jnp.asarray(X_T)))

    assert "scan[" not in program(16)
    assert "scan[" in program(17)
    assert "scan[" not in program(17, unroll=True)
    assert "remat" not in program(17)
    assert "remat" in program(17, remat=True)


def test_a_step_that_ends_clean_draws_no_noise_and_one_that_stops_short_does():
    assert make("ddpm").noisy_rows == CALLS - 1
    assert make("ddpm_large").noise[-1] == 0.0
    assert make_table("ddpm", vp(), CALLS, t_end=0.01).noisy_rows == CALLS
    assert make("ddim").noisy_rows == 0
    assert ddpm(grid_levels(vp(), CALLS), variance="large", noisy_end=True).noise[-1] > 0.0


LEVELS = grid_levels(vp(), 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: run(ddpm(LEVELS), key=None), "this sampler draws noise in 3 of its 4 steps; pass key="),
        (lambda: run(ddpm(LEVELS), grad_steps=0), "grad_steps=0; allowed: 1 to 4"),
        (lambda: run(ddpm(LEVELS), grad_steps=5), "grad_steps=5; allowed: 1 to 4"),
        (lambda: run(stack([ddpm(LEVELS), ddim(LEVELS)])), r"rows have shape \(2, 4\); use jax.vmap"),
        (lambda: ddpm(LEVELS, variance="medium"), "variance='medium'; allowed: 'small' .* 'large'"),
        (lambda: ddpm(LEVELS, variance=1.5), "variance=1.5; allowed"),
        (lambda: dpmpp(LEVELS, order=4), "order=4; allowed: 1, 2, 3"),
        (lambda: dpmpp(level_at(vp(), np.array([1.0, 0.5, 0.0])), order=3), "order=3 needs a grid of at least 3 steps"),
        (lambda: dpmpp(LEVELS, rate=-1.0), "rate=-1.0; the rate of the SDE is >= 0"),
        (lambda: dpmpp(LEVELS, rate=1.0, predict="eps"), "rate=1.0 with predict='eps'"),
        (lambda: dpmpp(LEVELS, third="half"), "third='half'; allowed: 'exact', 'published'"),
        (lambda: ddim(LEVELS, eta=1.5), "eta=1.5; allowed: 0 .* to 1"),
        (lambda: ddim(LEVELS, noise=2.0), "noise=2.0; each step's lies between 0 and the sigma"),
        (lambda: uniform_grid(0), "num_steps=0; a sampler needs at least 1 step"),
        (lambda: uniform_grid(5, t_end=1.0), r"t_end=1.0; the grid ends in \[0, 1\)"),
        (lambda: uniform_grid(5, t_end=-0.1), "t_end=-0.1"),
        (lambda: ddpm(level_at(vp(), np.linspace(0.1, 1.0, 4))), "levels must lose noise in every step"),
        (lambda: dpmpp(level_at(vp(), jnp.array([1.0, 0.5, 0.5]))), "levels must lose noise in every step"),
        (lambda: ddpm(level_at(vp(), 0.5)), r"levels have shape \(\); a sampler needs one axis of at least two"),
        (lambda: make_table("heun", vp(), 4), "num_calls=4; this solver makes two calls per step.* choose 3"),
        (lambda: make_table("predictor_corrector", vp(), 4), "num_calls=4; .* choose an odd one"),
        (lambda: make_table("ddim", vp(), 0), "num_calls=0; a sampler makes at least 1"),
        (lambda: make_table("dpm_solver_3", vp(), 2), "order=3 needs a grid of at least 3"),
        (lambda: make_table("heun", flow(), 5), "heun divides by alpha, and the grid starts at alpha = 0"),
        (lambda: stack([ddpm(LEVELS), ddpm(grid_levels(vp(), 3))]), r"\[4, 3\] network calls"),
    ],
)
def test_what_cannot_run_is_refused_before_tracing(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_solver_is_named_with_a_near_one():
    with pytest.raises(KeyError, match="unknown sampler 'ddmp'; did you mean 'ddpm'"):
        make_table("ddmp", vp(), 5)


def test_a_deterministic_table_needs_no_key():
    np.testing.assert_array_equal(run(make("ddim"), key=None), run(make("ddim")))


def test_a_learned_variance_goes_from_small_to_large_as_the_network_says(given_noise):
    levels = grid_levels(vp(), 4)
    table = ddpm(levels, variance="learned")
    for fraction, fixed in ((0.0, "small"), (1.0, "large"), (0.3, 0.3)):
        learned = sample(
            lambda x, level, f=fraction: (curved(x, level), jnp.full_like(x, f)), table, jnp.asarray(X_T), KEY
        )
        expected = sample(curved, ddpm(levels, variance=fixed), jnp.asarray(X_T), KEY)
        np.testing.assert_allclose(learned, expected, atol=1e-5)


def test_a_mixture_is_sampled_with_its_weights_by_a_table_of_inner_stages():
    """The end to end check that needs no formula of ours: the share of samples near each mode."""
    x_T = np.random.default_rng(5).normal(size=(4000, 2))
    drawn = follow(make("dpm_solver_3", "vp", 31), lambda x, a, s: exact.posterior_mean(np, x, a, s), x_T)[-1]
    nearest = np.argmin(np.linalg.norm(drawn[:, None] - exact.MEANS, axis=-1), axis=1)
    np.testing.assert_allclose(np.bincount(nearest) / 4000, exact.WEIGHTS, atol=0.03)
