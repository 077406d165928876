import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    ddim,
    ddpm,
    dpmpp,
    flow,
    grid_levels,
    heun,
    hold_known,
    inpaint,
    keep_known,
    level_at,
    renoise_known,
    sample,
    unipc,
    vp,
)

RANDOM = np.random.default_rng(0)
X, KNOWN, NOISE = RANDOM.normal(size=(3, 5, 3)).astype(np.float32)
MASK = np.array([True, False, True])
KEY = jax.random.key(0)


def denoise(x, level):
    return jnp.tanh(x)


@pytest.mark.parametrize("make", [ddpm, ddim, dpmpp, unipc])
def test_inpainted_entries_end_at_what_is_known_and_the_others_where_they_would(make):
    for schedule in (vp(), flow()):
        table = make(grid_levels(schedule, 4))
        x0 = sample(inpaint(denoise, MASK[None], KNOWN), table, jnp.asarray(X), KEY)
        np.testing.assert_allclose(x0[:, MASK], KNOWN[:, MASK], atol=1e-6)
        free = sample(denoise, table, jnp.asarray(X), KEY)
        np.testing.assert_allclose(x0[:, 1], free[:, 1], atol=1e-6)


def mixing(x, level):
    """A denoiser whose entries see one another."""
    return jnp.tanh(x + 0.5 * jnp.roll(x, 1, axis=-1)) * level.alpha


@pytest.mark.parametrize("make", [ddpm, ddim, dpmpp])
def test_held_entries_move_the_others_as_the_hook_does(make):
    table = make(grid_levels(vp(), 4))
    x0 = sample(hold_known(mixing, MASK, KNOWN), table, jnp.asarray(X), KEY, project=keep_known(MASK, KNOWN))
    hooked = sample(mixing, table, jnp.asarray(X), KEY, project=keep_known(MASK, KNOWN))
    np.testing.assert_allclose(x0, hooked, atol=1e-6)  # the same noise, drawn beside a hook or not
    if not table.noisy_rows:
        held = sample(hold_known(mixing, MASK, KNOWN), table, jnp.asarray(X))
        np.testing.assert_allclose(held, hooked, atol=1e-5)
        assert np.abs(held - sample(inpaint(mixing, MASK, KNOWN), table, jnp.asarray(X)))[:, 1].max() > 0.01


def test_held_entries_are_shown_to_every_inner_stage():
    seen = []

    def watching(x, level):
        seen.append(x)
        return mixing(x, level)

    table = heun(grid_levels(vp(), 3), vp())
    x0 = sample(hold_known(watching, MASK, KNOWN), table, jnp.asarray(X))
    assert len(seen) == table.num_calls == 5
    for x in (*seen, x0):
        np.testing.assert_allclose(x[:, MASK], KNOWN[:, MASK], atol=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_hooks_write_known_values_and_nothing_else(t):
    level = level_at(flow(), t)
    noised = level.alpha * KNOWN + level.sigma * NOISE
    for hook, expected in ((keep_known, KNOWN), (renoise_known, noised)):
        x = hook(MASK, KNOWN)(jnp.asarray(X), level, jnp.asarray(NOISE))
        np.testing.assert_allclose(x, np.where(MASK, expected, X), rtol=1e-6)
        one = hook(np.array(True), KNOWN[0])(jnp.asarray(X), level, jnp.asarray(NOISE))
        noised_once = level.alpha * KNOWN[0] + level.sigma * NOISE[1]
        np.testing.assert_allclose(one[1], KNOWN[0] if hook is keep_known else noised_once, rtol=1e-6)


@pytest.mark.parametrize("hook", [keep_known, renoise_known])
def test_a_chain_under_a_hook_shows_the_network_what_is_known(hook):
    """At every call the masked entries are the known values at the call's level: their mean over many noises is."""
    seen = []
    known = jnp.broadcast_to(jnp.asarray([0.5, jnp.nan, -2.0]), (4000, 3))  # what is not known is never read

    def watching(x, level):
        seen.append((level, x))
        return jnp.tanh(x)

    levels = grid_levels(vp(), 4)
    x0 = sample(watching, ddpm(levels), jax.random.normal(KEY, (4000, 3)), KEY, project=hook(MASK, known))
    np.testing.assert_allclose(x0[:, MASK], known[:, MASK], atol=1e-6)
    assert jnp.isfinite(x0).all()
    for level, x in seen:
        alpha, sigma = (1.0, 0.0) if hook is keep_known else (level.alpha, level.sigma)
        for column in (0, 2):
            assert abs(x[:, column].mean() - alpha * known[0, column]) < 5 * sigma / np.sqrt(4000) + 1e-6
            np.testing.assert_allclose(x[:, column].std(), sigma, rtol=5 / np.sqrt(2 * 4000), atol=1e-6)


def test_known_values_are_traced_and_swept(trace_counter):
    table, mask = ddim(grid_levels(vp(), 3)), jnp.asarray(MASK)

    def run(known):
        return sample(denoise, table, jnp.asarray(X), KEY, project=renoise_known(mask, known))

    swept = jax.jit(jax.vmap(trace_counter(run)))
    lanes = swept(jnp.stack([KNOWN, 2 * KNOWN]))
    swept(jnp.stack([KNOWN, NOISE]))
    assert trace_counter.count == 1
    np.testing.assert_allclose(lanes[1], run(jnp.asarray(2 * KNOWN)), rtol=1e-5, atol=1e-6)


def test_masks_and_values_that_do_not_fit_are_refused_with_both_shapes():
    x, level = jnp.asarray(X), level_at(vp(), 0.5)
    for call in (
        lambda mask, known: inpaint(denoise, mask, known)(x, level),
        lambda mask, known: hold_known(denoise, mask, known)(x, level),
        lambda mask, known: keep_known(mask, known)(x, level, x),
        lambda mask, known: renoise_known(mask, known)(x, level, x),
    ):
        with pytest.raises(ValueError, match=r"mask has shape \(5,\) and x \(5, 3\); it must broadcast to that"):
            call(np.ones(5, bool), KNOWN)
        with pytest.raises(ValueError, match=r"known has shape \(2, 5, 3\) and x \(5, 3\)"):
            call(MASK, np.zeros((2, 5, 3)))
        with pytest.raises(ValueError, match="mask has dtype float32; give booleans"):
            call(np.ones(3, np.float32), KNOWN)
