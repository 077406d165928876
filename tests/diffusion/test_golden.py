"""Against Hugging Face diffusers; tests/golden/README.md says how the file was made."""

from pathlib import Path

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import Level, ddim, ddpm, dpmpp, flow, level_at, sample

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "diffusers.npz", allow_pickle=False)
MIXTURE = {name: GOLDEN[name] for name in ("weights", "means", "variances")}


def denoise(x, level):
    return exact.posterior_mean(jnp, x, level.alpha, level.sigma, **MIXTURE)


jitted_sample = jax.jit(sample, static_argnums=0, static_argnames="unroll")


@pytest.mark.parametrize(
    ("case", "build"),
    [
        ("ddpm", ddpm),
        ("ddpm_large", lambda levels: ddpm(levels, variance="large")),
        ("ddim_0", ddim),
        ("ddim_half", lambda levels: ddim(levels, eta=0.5)),
        ("dpmpp_1", lambda levels: dpmpp(levels, order=1)),
        ("dpmpp_2m", dpmpp),
        ("dpmpp_2m_full", lambda levels: dpmpp(levels, lower_order_final=False)),
        ("flow", ddim),
    ],
)
@pytest.mark.parametrize("unroll", [True, False])
def test_samples_equal_those_of_diffusers(case, build, unroll, monkeypatch):
    x, sigma = GOLDEN[f"{case}/x"], np.append(GOLDEN[f"{case}/sigma"], 0.0)
    if case == "flow":
        levels = level_at(flow(), sigma)
    else:
        alpha = np.append(GOLDEN[f"{case}/alpha"], 1.0)
        with np.errstate(divide="ignore"):
            levels = Level(np.linspace(1.0, 0.0, len(alpha)), np.log(alpha), np.log(sigma))
    noise = jnp.asarray(GOLDEN["noise"], jnp.float32)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=None: noise[: shape[0]])
    got = jitted_sample(denoise, build(levels), jnp.asarray(x[0], jnp.float32), jax.random.key(0), unroll=unroll)
    np.testing.assert_allclose(got, x[-1], atol=5e-6 * np.abs(x).max())
