"""The residual denoiser against its formula in float64, its released size, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
from plain_layers import dense, feed_forward, layer_norm, random_like
import pytest

from jaxdiff.networks import NETWORKS, LnResnetDenoiser
from jaxdiff.networks.resnet import FourierFeatures


@pytest.mark.parametrize("final_norm", [False, True])
def test_ln_resnet_equals_its_formula(x64, final_norm):
    network = LnResnetDenoiser(out=2, hidden=(6, 6), time_dim=4, activation="tanh", layer_norm=final_norm)
    rng = np.random.default_rng(0)
    x, t, cond = rng.standard_normal(2), 1.7, rng.standard_normal(3)
    params = random_like(jax.eval_shape(network.init, jax.random.key(0), x, t, cond), 1)
    p = params["params"]
    angle = 2 * np.pi * t * p["FourierFeatures_0"]["kernel"][0]
    time = dense(p["Dense_1"], np.tanh(dense(p["Dense_0"], np.concatenate([np.cos(angle), np.sin(angle)]))))
    stream = dense(p["Dense_2"], np.concatenate([x, cond, time]))
    for block in ("FeedForward_0", "FeedForward_1"):
        stream = stream + feed_forward(p[block], stream)
    if final_norm:
        stream = layer_norm(p["LayerNorm_0"], stream)
    wanted = dense(p["Dense_3"], np.tanh(stream))
    np.testing.assert_allclose(jax.jit(network.apply)(params, x, t, cond), wanted, rtol=1e-9)


def test_ln_resnet_has_idqls_released_size():
    """Fourier features of 64, time 128 -> 128, three blocks of 256 with 4 x 256 inside; walker2d has 17 and 6."""
    network = LnResnetDenoiser(out=6)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(6), jnp.zeros(()), jnp.zeros(17))
    time = 32 + (64 * 128 + 128) + (128 * 128 + 128)
    block = 2 * 256 + (256 * 1024 + 1024) + (1024 * 256 + 256)
    wanted = time + ((6 + 17 + 128) * 256 + 256) + 3 * block + (256 * 6 + 6)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == wanted


def test_learned_frequencies_start_with_a_deviation_of_a_fifth():
    frequency = FourierFeatures(4000).init(jax.random.key(0), jnp.zeros(()))["params"]["kernel"]
    np.testing.assert_allclose([jnp.mean(frequency), jnp.std(frequency)], [0.0, 0.2], atol=0.02)


@pytest.mark.parametrize("name", ["ln_resnet", "transformer"])
@pytest.mark.parametrize(("hidden", "offer"), [((256, 128), r"\(256, 256\)"), ((), r"\(256,\)")])
def test_a_residual_stream_of_several_widths_is_refused_before_tracing(name, hidden, offer):
    with pytest.raises(ValueError, match=rf"{name} has one residual block per number and one width .*{offer}"):
        NETWORKS[name](out=2, hidden=hidden)


def test_fourier_features_come_in_pairs():
    with pytest.raises(ValueError, match="time_dim=5; it must be even"):
        FourierFeatures(5).init(jax.random.key(0), jnp.zeros(()))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_refuses_times_that_would_broadcast_wrongly(name):
    with pytest.raises(ValueError, match=r"t has shape \(4,\); allowed for x of shape \(4, 4, 2\)"):
        jax.eval_shape(
            NETWORKS[name](out=2, hidden=(4,)).init,
            jax.random.key(0), jnp.zeros((4, 4, 2)), jnp.zeros(4), jnp.zeros((4, 4, 3)),
        )  # fmt: skip
