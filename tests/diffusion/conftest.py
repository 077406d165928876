from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def given_noise(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, ...]], np.ndarray]:
    """`jax.random.normal` gives known numbers, so that a chain can be followed, and costs no compile time.

    The fixture is the function shape [K, ...] -> noise; fewer rows are a prefix of more rows.
    """

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(7).normal(size=shape)

    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.asarray(noise(shape), dtype))
    return noise
