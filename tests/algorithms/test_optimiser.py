"""The optimiser that is rebuilt inside `update` from traced numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.optimiser import adam, apply_gradients, cosine_decay


@pytest.mark.parametrize("step", [0, 1, 250, 500, 999, 1000, 5000])
def test_cosine_decay_is_half_a_cosine_and_stays_at_zero(step):
    wanted = 0.3 * 0.5 * (1.0 + np.cos(np.pi * min(step / 1000, 1.0)))
    assert float(cosine_decay(0.3, jnp.int32(step), 1000.0)) == pytest.approx(wanted, abs=1e-7)


def test_zero_decay_steps_is_a_constant_rate():
    assert [float(cosine_decay(jnp.float32(0.25), jnp.int32(step), 0.0)) for step in (0, 10**6)] == [0.25, 0.25]


def plain_adam(gradients: list[np.ndarray], lr: float, max_norm: float) -> np.ndarray:
    """Kingma and Ba 2015, algorithm 1, after scaling each gradient down to the norm; from zero."""
    x, m, v = np.zeros_like(gradients[0]), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        g = g * min(1.0, max_norm / np.sqrt((g**2).sum()))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        x = x - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


@pytest.mark.parametrize("max_norm", [1.0, np.inf])
def test_adam_clips_the_norm_of_the_whole_gradient_and_takes_traced_arguments(max_norm):
    rng = np.random.default_rng(0)
    gradients = [scale * rng.normal(size=5) for scale in (10.0, 0.1, 3.0)]

    @jax.jit
    def step(params, state, gradient, lr, norm):
        return apply_gradients(adam(lr, norm), gradient, state, params)

    params = {"a": jnp.zeros(2), "b": jnp.zeros(3)}
    state = adam(0.5, max_norm).init(params)
    for g in gradients:
        gradient = {"a": jnp.asarray(g[:2], jnp.float32), "b": jnp.asarray(g[2:], jnp.float32)}
        params, state = step(params, state, gradient, 0.5, max_norm)
    found = np.concatenate([params["a"], params["b"]])
    np.testing.assert_allclose(found, plain_adam(gradients, 0.5, max_norm), rtol=1e-4)
    assert step._cache_size() == 1
