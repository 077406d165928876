"""The two forms of Diffuser's guided step, against numpy: a quadratic value, a linear denoiser, noise left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    Level,
    ddim,
    ddpm,
    dpmpp,
    flow,
    grid_levels,
    guide_before,
    heun,
    keep_known,
    level_at,
    mean_gradient,
    resample,
    rows,
    sample,
    vp,
)

TIMES = np.array([0.9, 0.7, 0.4, 0.2, 0.0])
X_T = np.random.default_rng(0).normal(size=(2, 3))
GOAL, CURVATURE = np.array([1.0, -0.5, 2.0]), np.array([1.0, 0.5, 2.0])
KEY, SCALE = jax.random.key(0), 0.7
schedules = pytest.mark.parametrize("schedule", [vp(), flow()], ids=["vp", "flow"])


def denoise(x, level):
    return 0.2 + 0.5 * x


def value(x, level):
    """-(x - t goal)' Q (x - t goal) / 2: it depends on the level."""
    return -0.5 * jnp.sum(CURVATURE[None] * jnp.square(x - level.t * GOAL[None]), axis=-1)


def gradient(x, t):
    return -CURVATURE * (x - t * GOAL)


def ddpm_steps(schedule):
    """(t, a, b, s**2) of x' = a x + b x0_hat + s z at every step, from the posterior of x' given x and x0."""
    steps = []
    for t, next_t in zip(TIMES[:-1], TIMES[1:], strict=True):
        level, after = level_at(schedule, np.array(t)), level_at(schedule, np.array(next_t))
        between = level.alpha / after.alpha
        forward = level.sigma**2 - between**2 * after.sigma**2
        steps.append(
            (
                t,
                between * after.sigma**2 / level.sigma**2,
                after.alpha * forward / level.sigma**2,
                forward * after.sigma**2 / level.sigma**2,
            )
        )
    return steps


def run(table, guided=denoise, **options):
    return sample(guided, table, jnp.asarray(X_T), KEY, temperature=0.0, **options)


@schedules
@pytest.mark.parametrize(("num_steps", "stop_below"), [(1, 0), (2, 0), (2, 3)])
def test_guidance_before_the_call_moves_x_by_the_variance_of_the_step(schedule, num_steps, stop_below, x64):
    x, steps = X_T, ddpm_steps(schedule)
    for k, (t, a, b, variance) in enumerate(steps):
        for _ in range(num_steps):
            if len(steps) - 1 - k >= stop_below:
                x = x + SCALE * variance * gradient(x, t)
        x = a * x + b * (0.2 + 0.5 * x)
    table = ddpm(level_at(schedule, TIMES))
    hook = guide_before(value, table, SCALE, num_steps=num_steps, stop_below=stop_below)
    np.testing.assert_allclose(run(table, project=hook), x, rtol=1e-9)


@schedules
def test_the_mean_s_gradient_is_taken_at_the_mean_and_moves_it_by_the_variance(schedule, x64):
    x = X_T
    for t, a, b, variance in ddpm_steps(schedule):
        mean = a * x + b * (0.2 + 0.5 * x)
        x = mean + SCALE * variance * gradient(mean, t)
    table = ddpm(level_at(schedule, TIMES))
    np.testing.assert_allclose(run(table, mean_gradient(denoise, value, table, SCALE)), x, rtol=1e-9)


def test_a_hook_of_known_values_is_applied_around_every_move(x64):
    """Coupled entries: what the value's gradient moves must not see a known entry that has moved."""
    mask, known = np.array([True, False, False]), np.array([0.5, 0.0, 0.0])

    def coupled(x, level):
        return -0.5 * jnp.sum(jnp.square(x - jnp.roll(x, 1, axis=-1)), axis=-1)

    x, steps = X_T, ddpm_steps(vp())
    for _, a, b, variance in steps:
        x = np.where(mask, known, x)
        for _ in range(2):
            pull = 2.0 * x - np.roll(x, 1, axis=-1) - np.roll(x, -1, axis=-1)
            x = np.where(mask, known, x - SCALE * variance * pull)
        x = a * x + b * (0.2 + 0.5 * x)
    table = ddpm(level_at(vp(), TIMES))
    hook = guide_before(coupled, table, SCALE, project=keep_known(mask, jnp.asarray(known)))
    np.testing.assert_allclose(run(table, project=hook), np.where(mask, known, x), rtol=1e-9)


def test_a_part_of_a_chain_is_guided_as_the_whole_chain_is(x64):
    table = ddpm(level_at(vp(), TIMES))
    hook = guide_before(value, table, SCALE, stop_below=2)
    head = sample(denoise, rows(table, 0, 2), jnp.asarray(X_T), KEY, temperature=0.0, project=hook)
    # The hook acts on the last state of a part, so the rest starts from it without acting again: nothing is left to do
    # below row 2, where it has stopped.
    rest = sample(denoise, rows(table, 2, 4), head, KEY, temperature=0.0)
    np.testing.assert_allclose(rest, run(table, project=hook), rtol=1e-9)


def test_scales_and_the_stop_are_traced_and_swept(trace_counter):
    table = ddpm(grid_levels(vp(), 4))

    def both(scale, stop):
        hook = guide_before(value, table, scale, stop_below=stop)
        x0 = sample(denoise, table, jnp.asarray(X_T, jnp.float32), KEY, project=hook)
        return x0, sample(mean_gradient(denoise, value, table, scale), table, jnp.asarray(X_T, jnp.float32), KEY)

    swept = jax.jit(jax.vmap(trace_counter(both)))
    before, mean = swept(jnp.array([0.0, 0.5, 0.5]), jnp.array([0, 0, 4]))
    swept(jnp.array([1.0, 2.0, 3.0]), jnp.array([0, 1, 4]))
    assert trace_counter.count == 1
    np.testing.assert_array_equal(before[0], before[2])  # no scale, or no step
    assert np.abs(before[1] - before[0]).min() > 1e-3
    assert np.abs(mean[1] - mean[0]).min() > 1e-3
    np.testing.assert_array_equal(mean[1], mean[2])


def test_samplers_without_one_known_variance_are_refused():
    levels = grid_levels(vp(), 4)
    deterministic, learned = ddim(levels), ddpm(levels, variance="learned")
    upwards = resample(ddpm(levels), jump=1, repeats=2)
    for table in (deterministic, learned, heun(levels, vp()), upwards):
        with pytest.raises(ValueError, match=r"needs a sampler that draws noise of a known variance"):
            guide_before(value, table)
    for table in (dpmpp(levels, order=2), learned, heun(levels, vp())):
        with pytest.raises(ValueError, match=r"needs a sampler whose every row is"):
            mean_gradient(denoise, value, table)
    for options in ({"num_steps": 0}, {"stop_below": -1}):
        with pytest.raises(ValueError, match=r"num_steps=\d and stop_below=-?\d; allowed: at least 1, and at least 0"):
            guide_before(value, ddpm(levels), **options)


def test_a_chain_that_keeps_noise_at_its_end_is_not_moved_there():
    levels = grid_levels(vp(), 3, t_end=0.1)
    hook = guide_before(value, ddpm(levels), 1.0)
    x = jnp.asarray(X_T, jnp.float32)
    ends = [Level(*(jnp.asarray(leaf[k], jnp.float32) for leaf in levels)) for k in range(4)]
    moved = [float(jnp.abs(hook(x, level, x) - x).max()) for level in ends]
    assert moved[3] == 0.0
    assert min(moved[:3]) > 0.0


def test_a_value_without_a_gradient_at_the_clean_end_does_no_harm():
    table = ddpm(grid_levels(vp(), 3))
    hook = guide_before(lambda x, level: value(x, level) / jnp.exp(level.log_sigma), table, 0.1)
    assert jnp.isfinite(sample(denoise, table, jnp.asarray(X_T, jnp.float32), KEY, project=hook)).all()
