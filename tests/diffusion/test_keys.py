"""Where a chain's noise comes from."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.diffusion import ddpm, grid_levels, sample, vp

X_T = jnp.zeros((4000, 1))
TABLE = ddpm(grid_levels(vp(), 2, t_end=0.05))


@jax.jit
def draw(key, temperature=1.0):
    return sample(lambda x, level: 0.5 * x, TABLE, X_T, key, temperature=temperature)


def test_a_key_decides_the_noise_and_the_temperature_scales_it():
    first, again, other = draw(jax.random.key(0)), draw(jax.random.key(0)), draw(jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first[:, 0], other[:, 0])[0, 1]) < 5 / np.sqrt(4000)
    np.testing.assert_allclose(draw(jax.random.key(0), 0.5), 0.5 * first, atol=1e-6)  # linear, and x_T = 0
    np.testing.assert_array_equal(draw(jax.random.key(0), 0.0), X_T)


def test_noise_is_standard_normal_and_fresh_in_every_row():
    """Two rows add up: variance (a_1 + b_1 / 2)**2 s_0**2 + s_1**2."""
    a, b, s = (np.asarray(leaf, np.float64) for leaf in (TABLE.anchor, TABLE.slopes[:, 0], TABLE.noise))
    expected = (a[1] + 0.5 * b[1]) ** 2 * s[0] ** 2 + s[1] ** 2
    got = np.asarray(draw(jax.random.key(2)), np.float64)
    np.testing.assert_allclose(got.var(), expected, rtol=5 * np.sqrt(2 / 4000))
    np.testing.assert_allclose(got.mean(), 0.0, atol=5 * np.sqrt(expected / 4000))


def test_a_traced_schedule_draws_the_same_noise_as_a_plain_one():
    """Its table cannot know that it ends clean and draws one row more, of which the factor is zero."""

    def chain(beta_max):
        table = ddpm(grid_levels(vp(0.1, beta_max), 2))
        return sample(lambda x, level: 0.5 * x, table, X_T, jax.random.key(0))

    np.testing.assert_allclose(jax.jit(chain)(20.0), chain(20.0), atol=1e-6)
