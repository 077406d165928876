"""The U-Net over the horizon and the value of noisy trajectories: formulas in float64, published sizes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
from plain_convolutions import (
    conv,
    conv_block,
    conv_transpose,
    linear_attention,
    mish,
    residual_block,
    token_features,
)
from plain_layers import dense, random_like
import pytest

from jaxdiff.networks import TemporalUnet, TrajectoryValue, check_horizon
from jaxdiff.networks.temporal_unet import LinearAttention, down, up

KEY = jax.random.key(0)


def random_params(network, *arguments):
    return random_like(jax.eval_shape(network.init, KEY, *arguments), 1)


def size(network, *arguments):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(network.init, KEY, *arguments)))


def test_unet_with_attention_conditions_and_a_level_per_token_equals_its_formula(x64):
    """Two levels of 8 and 16 channels; the first condition is kept by half, the second dropped."""
    network = TemporalUnet(out=2, width=8, mults=(1, 2), kernel_size=3, attention=True, cond_sizes=(2, 1))
    rng = np.random.default_rng(0)
    x, t, values, keep = rng.standard_normal((4, 3)), np.arange(4.0) ** 2, rng.standard_normal(3), np.array([0.5, 0.0])
    params = random_params(network, x, t, (values, keep))
    p = params["params"]

    def blocks(x, features, first, attention):
        for k in (first, first + 1):
            x = residual_block(p[f"ResidualBlock_{k}"], x, features)
        return linear_attention(p[f"LinearAttention_{attention}"], x)

    fine = token_features(p["TokenFeatures_0"], t, 8, [(values[:2], 0.5), (values[2:], 0.0)])
    coarse = np.stack([(fine[0] + fine[1]) / 2, (fine[2] + fine[3]) / 2])
    z = conv(p["Conv_0"], blocks(x, fine, 0, 0), stride=2)
    z = kept = blocks(z, coarse, 2, 1)
    z = linear_attention(p["LinearAttention_2"], residual_block(p["ResidualBlock_4"], z, coarse))
    z = residual_block(p["ResidualBlock_5"], z, coarse)
    z = blocks(np.concatenate([z, kept], axis=1), coarse, 6, 3)
    z = conv_block(p["ConvBlock_0"], conv_transpose(p["ConvTranspose_0"], z))
    wanted = dense(p["Dense_0"], z)
    np.testing.assert_allclose(jax.jit(network.apply)(params, x, t, (values, keep)), wanted, rtol=1e-8, atol=1e-10)


def test_plain_unet_of_three_levels_equals_its_formula(x64):
    network = TemporalUnet(out=3, width=8, mults=(1, 1, 2))
    x, t = np.random.default_rng(2).standard_normal((4, 3)), np.array(1.7)
    params = random_params(network, x, t, None)
    p = params["params"]
    features = token_features(p["TokenFeatures_0"], t[None], 8)
    block = iter(range(12))

    def twice(x):
        for _ in range(2):
            x = residual_block(p[f"ResidualBlock_{next(block)}"], x, features)
        return x

    z = conv(p["Conv_0"], twice(x), stride=2)
    middle = twice(z)
    z = kept = twice(conv(p["Conv_1"], middle, stride=2))
    z = twice(z)
    z = conv_transpose(p["ConvTranspose_0"], twice(np.concatenate([z, kept], axis=1)))
    z = conv_transpose(p["ConvTranspose_1"], twice(np.concatenate([z, middle], axis=1)))
    wanted = dense(p["Dense_0"], conv_block(p["ConvBlock_0"], z))
    assert not list(block)
    np.testing.assert_allclose(jax.jit(network.apply)(params, x, t, None), wanted, rtol=1e-8, atol=1e-10)


def test_value_equals_its_formula_at_an_odd_horizon(x64):
    """5 tokens become 3, 2 and 1; the channels 8, then 4 and 2, which are normalised as one group."""
    network = TrajectoryValue(width=8, mults=(1,), kernel_size=3)
    x, t = np.random.default_rng(1).standard_normal((5, 3)), np.array(2.5)
    params = random_params(network, x, t)
    p = params["params"]
    features = token_features(p["TokenFeatures_0"], t[None], 8)
    z = residual_block(p["ResidualBlock_1"], residual_block(p["ResidualBlock_0"], x, features), features)
    z = conv(p["Conv_0"], z, stride=2)
    for k in (2, 3):
        z = conv(p[f"Conv_{k - 1}"], residual_block(p[f"ResidualBlock_{k}"], z, features, groups=1), stride=2)
    assert z.shape == (1, 2)
    hidden = mish(dense(p["Dense_0"], np.concatenate([z.reshape(-1), features[0]])))
    np.testing.assert_allclose(jax.jit(network.apply)(params, x, t), dense(p["Dense_1"], hidden)[0], rtol=1e-8)


@pytest.mark.parametrize("horizon", [1, 6])
def test_doubling_puts_every_weight_where_pytorch_does(x64, horizon):
    layer, x = up(3), np.random.default_rng(0).standard_normal((1, horizon, 3))
    params = random_params(layer, x)
    np.testing.assert_allclose(layer.apply(params, x)[0], conv_transpose(params["params"], x[0]), rtol=1e-10)


@pytest.mark.parametrize("horizon", [1, 5, 6])
def test_halving_reads_the_even_tokens_and_their_neighbours(x64, horizon):
    layer, x = down(3), np.random.default_rng(0).standard_normal((1, horizon, 3))
    params = random_params(layer, x)
    wanted = conv(params["params"], x[0], stride=2)
    assert len(wanted) == (horizon + 1) // 2
    np.testing.assert_allclose(layer.apply(params, x)[0], wanted, rtol=1e-10)


def test_linear_attention_equals_its_formula(x64):
    x = np.random.default_rng(0).standard_normal((2, 5, 8))
    params = random_params(LinearAttention(), x)
    wanted = [linear_attention(params["params"], one) for one in x]
    np.testing.assert_allclose(jax.jit(LinearAttention().apply)(params, x), wanted, rtol=1e-9)


def convolution(inputs, outputs, kernel):
    return inputs * outputs * kernel + outputs


def residual(inputs, outputs, time):
    """Two convolutions of 5 with a scale and a shift per channel, the features' layer, and a skip if sizes differ."""
    blocks = convolution(inputs, outputs, 5) + convolution(outputs, outputs, 5) + 2 * 2 * outputs
    return blocks + convolution(time, outputs, 1) + (convolution(inputs, outputs, 1) if inputs != outputs else 0)


def embedding(inputs, width):
    return convolution(inputs, width, 1) + convolution(width, 4 * width, 1) + convolution(4 * width, width, 1)


def test_unet_has_the_size_of_diffusers_for_maze2d_umaze():
    """2 actions and 4 observations, width 32, resolutions (1, 4, 8), written out layer by layer."""
    wanted = convolution(32, 128, 1) + convolution(128, 32, 1)
    wanted += residual(6, 32, 32) + residual(32, 32, 32) + convolution(32, 32, 3)
    wanted += residual(32, 128, 32) + residual(128, 128, 32) + convolution(128, 128, 3)
    wanted += residual(128, 256, 32) + residual(256, 256, 32)
    wanted += 2 * residual(256, 256, 32)
    wanted += residual(512, 128, 32) + residual(128, 128, 32) + convolution(128, 128, 4)
    wanted += residual(256, 32, 32) + residual(32, 32, 32) + convolution(32, 32, 4)
    wanted += convolution(32, 32, 5) + 2 * 32 + convolution(32, 6, 1)
    network = TemporalUnet(out=6, mults=(1, 4, 8))
    assert size(network, jnp.zeros((128, 6)), jnp.zeros(()), None) == wanted


def test_unet_has_the_size_of_diffusers_for_hopper():
    """3 actions and 11 observations, width 32, resolutions (1, 2, 4, 8)."""
    wanted = convolution(32, 128, 1) + convolution(128, 32, 1)
    for inputs, outputs in ((14, 32), (32, 64), (64, 128), (128, 256)):
        wanted += residual(inputs, outputs, 32) + residual(outputs, outputs, 32)
    wanted += 2 * residual(256, 256, 32)
    for inputs, outputs in ((256, 128), (128, 64), (64, 32)):
        wanted += residual(2 * inputs, outputs, 32) + residual(outputs, outputs, 32)
    for channels in (32, 64, 128):
        wanted += convolution(channels, channels, 3) + convolution(channels, channels, 4)
    wanted += convolution(32, 32, 5) + 2 * 32 + convolution(32, 14, 1)
    network = TemporalUnet(out=14)
    assert size(network, jnp.zeros((32, 14)), jnp.zeros(()), None) == wanted


def test_unet_has_the_size_of_decision_diffusers_for_hopper():
    """11 observations, width 128, resolutions (1, 4, 8), and a return embedded by 1 -> 128 -> 512 -> 128."""
    wanted = convolution(128, 512, 1) + convolution(512, 128, 1) + embedding(1, 128)
    for inputs, outputs in ((11, 128), (128, 512), (512, 1024), (1024, 1024)):
        wanted += residual(inputs, outputs, 256) + residual(outputs, outputs, 256)
    for inputs, outputs in ((1024, 512), (512, 128)):
        wanted += residual(2 * inputs, outputs, 256) + residual(outputs, outputs, 256)
    for channels in (128, 512):
        wanted += convolution(channels, channels, 3) + convolution(channels, channels, 4)
    wanted += convolution(128, 128, 5) + 2 * 128 + convolution(128, 11, 1)
    network = TemporalUnet(out=11, width=128, mults=(1, 4, 8), cond_sizes=(1,))
    assert size(network, jnp.zeros((100, 11)), jnp.zeros(()), (jnp.zeros(1), jnp.zeros(1))) == wanted


@pytest.mark.parametrize(
    ("horizon", "mults", "left"), [(32, (1, 2, 4, 8), 1), (4, (1, 2, 8), 1), (128, (1, 4, 8), 4), (100, (1, 8), 7)]
)
def test_value_has_diffusers_size_at_the_length_its_convolutions_leave(horizon, mults, left):
    wanted, inputs = convolution(32, 128, 1) + convolution(128, 32, 1), 14
    for outputs in (32 * mult for mult in mults):
        wanted += residual(inputs, outputs, 32) + residual(outputs, outputs, 32) + convolution(outputs, outputs, 3)
        inputs = outputs
    wanted += residual(256, 128, 32) + convolution(128, 128, 3) + residual(128, 64, 32) + convolution(64, 64, 3)
    flat = 64 * left
    wanted += convolution(flat + 32, flat // 2, 1) + convolution(flat // 2, 1, 1)
    assert size(TrajectoryValue(mults=mults), jnp.zeros((horizon, 14)), jnp.zeros(())) == wanted


def test_values_of_a_batch_do_not_depend_on_one_another():
    network = TrajectoryValue(width=8, mults=(1,), kernel_size=3)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, 3, 4, 2)).astype(np.float32), rng.uniform(0, 9, (2, 3)).astype(np.float32)
    params = random_params(network, x, t)
    apply = jax.jit(network.apply)
    values = apply(params, x, t)
    assert values.shape == (2, 3)
    other = np.concatenate([x[:1, ::-1], 5 * x[1:] + 1])  # the first row in another order beside new neighbours
    changed = apply(params, other, np.concatenate([t[:1, ::-1], t[1:] + 1]))
    np.testing.assert_allclose(changed[0, ::-1], values[0], rtol=1e-4, atol=1e-5)
    assert np.abs(changed[1] - values[1]).min() > 1e-3


@pytest.mark.parametrize(
    ("horizon", "mults", "message"),
    [
        (30, (1, 2, 4, 8), r"horizon=30 must be a multiple of 8 \(three halvings of the U-Net\); try 24 or 32\."),
        (5, (1, 2), r"horizon=5 must be a multiple of 2 \(one halving of the U-Net\); try 4 or 6\."),
        (3, (1, 4, 8), r"horizon=3 must be a multiple of 4 \(two halvings of the U-Net\); try 4\."),
        (0, (1,), r"horizon=0 must be a multiple of 1 \(no halvings of the U-Net\); try 1\."),
    ],
)
def test_a_horizon_that_cannot_be_halved_is_refused_with_its_neighbours(horizon, mults, message):
    with pytest.raises(ValueError, match=message):
        check_horizon(horizon, mults)


def test_the_network_refuses_a_horizon_that_its_config_did_not_check():
    check_horizon(384, (1, 4, 8))
    with pytest.raises(ValueError, match="horizon=6 must be a multiple of 4"):
        jax.eval_shape(TemporalUnet(out=2, width=8, mults=(1, 1, 1)).init, KEY, jnp.zeros((6, 2)), jnp.zeros(()), None)


@pytest.mark.parametrize("network", [lambda **sizes: TemporalUnet(out=2, **sizes), TrajectoryValue])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 12}, "width=12; it must be a multiple of 8"),
        ({"width": 0}, "width=0; it must be a multiple of 8"),
        ({"mults": ()}, r"mults=\(\); give at least one number"),
        ({"mults": (1, 0)}, r"mults=\(1, 0\); give at least one number, each at least 1"),
        ({"kernel_size": 4}, "kernel_size=4; it must be odd"),
    ],
)
def test_sizes_without_a_network_are_refused_before_tracing(network, sizes, message):
    with pytest.raises(ValueError, match=message):
        network(**sizes)


def test_a_value_refuses_a_level_per_token():
    with pytest.raises(ValueError, match=r"t has shape \(2, 4\); allowed for the value .*\(2, 4, 3\): \(\) or \(2,\)"):
        jax.eval_shape(TrajectoryValue(width=8, mults=(1,)).init, KEY, jnp.zeros((2, 4, 3)), jnp.zeros((2, 4)))
