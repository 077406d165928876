"""Parts of chains, and the states on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    add_noise,
    ddim,
    ddpm,
    dpmpp,
    grid_levels,
    heun,
    keep_known,
    rows,
    sample,
    sample_path,
    vp,
)

LEVELS = grid_levels(vp(), 5)
X_T = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
KEY = jax.random.key(0)
HOOK = keep_known(np.array([True, False]), jnp.asarray([0.5, 0.0]))


def curved(x, level):
    return jnp.tanh(x / (level.alpha + level.sigma))


@pytest.mark.parametrize("middle", [1, 3])
def test_the_parts_of_a_chain_make_the_whole(middle):
    table = ddim(LEVELS)
    half = sample(curved, rows(table, 0, middle), X_T)
    np.testing.assert_allclose(
        sample(curved, rows(table, middle, 5), half), sample(curved, table, X_T), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("first", "last", "noisy"), [(0, 5, 4), (0, 3, 3), (2, 5, 2), (4, 5, 0), (1, 2, 1)])
def test_a_part_has_its_levels_and_draws_where_the_chain_does(first, last, noisy):
    table = ddpm(LEVELS)
    part = rows(table, first, last)
    assert (part.num_calls, part.noisy_rows) == (last - first, noisy)
    np.testing.assert_allclose(part.level.t, LEVELS.t[first : last + 1])
    np.testing.assert_array_equal(part.noise > 0, np.arange(first, last) < 4)
    own = ddpm(type(LEVELS)(*(leaf[first : last + 1] for leaf in LEVELS)))  # the same builder on that part of the grid
    for got, expected in zip(jax.tree.leaves(part), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert own.noisy_rows == part.noisy_rows


def test_a_warm_start_stays_near_where_it_started():
    """From little noise a chain of a perfect denoiser of one point ends at it; so does the last part alone."""
    plan = jnp.asarray([0.3, -0.6])
    rest = rows(ddpm(LEVELS), 4, 5)
    start = jax.tree.map(lambda leaf: leaf[0], rest.level)
    x = add_noise(start, jnp.broadcast_to(plan, X_T.shape), X_T)
    np.testing.assert_allclose(sample(lambda x, level: 0.0 * x + plan[None], rest, x), plan[None] + 0.0 * x, rtol=1e-6)


def test_parts_that_do_not_stand_alone_are_refused():
    for table in (dpmpp(LEVELS, order=2), heun(LEVELS, vp())):
        with pytest.raises(ValueError, match=r"inner stages or remembers earlier calls.*: ddpm, ddpm_large, ddim"):
            rows(table, 0, 2)
    for first, last in ((2, 2), (-1, 2), (0, 6)):
        with pytest.raises(ValueError, match=rf"first={first} and last={last}; allowed: 0 <= first < last <= 5"):
            rows(ddpm(LEVELS), first, last)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), ddpm(LEVELS))
    with pytest.raises(ValueError, match=r"shape \(2, 5\); use jax.vmap"):
        rows(stacked, 0, 2)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (ddpm, {}),
        (ddpm, {"project": HOOK}),
        (ddpm, {"grad_steps": 2}),
        (lambda levels: dpmpp(levels, order=2), {}),
        (lambda levels: heun(levels, vp()), {}),
    ],
    ids=["plain", "hook", "cut", "memory", "stages"],
)
def test_a_path_is_what_the_network_sees_and_then_the_sample(make, options):
    table, seen = make(LEVELS), []

    def watching(x, level):
        seen.append(x)
        return curved(x, level)

    x0, path = sample_path(watching, table, X_T, KEY, **options)
    assert path.shape == (table.num_calls + 1, *X_T.shape)
    np.testing.assert_array_equal(path, [*seen, x0])
    np.testing.assert_array_equal(x0, sample(curved, table, X_T, KEY, **options))
    scanned, states = sample_path(curved, table, X_T, KEY, unroll=False, **options)
    np.testing.assert_allclose(states, path, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(states[-1], scanned)


def test_the_gradient_of_a_path_stops_where_it_is_cut():
    def gradient(k):
        def entry(w):
            _, path = sample_path(lambda x, level: w * jnp.tanh(x), ddim(LEVELS), X_T, grad_steps=2)
            return path[k].sum()

        return jax.grad(entry)(0.5)

    assert gradient(3) == 0.0
    assert gradient(4) != 0.0
