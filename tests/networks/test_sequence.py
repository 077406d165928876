"""Networks over a history: their formulas in float64, their order, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
from plain_layers import attention, dense, feed_forward, layer_norm, random_like, sigmoid, sines
import pytest

from jaxdiff.networks import NETWORKS, SEQUENCE_NETWORKS, LstmDenoiser, TransformerDenoiser
from jaxdiff.networks.sequence import num_heads, split_history

HISTORY, OBS, ACTION = 3, 2, 2
T = 1.7
sequences = pytest.mark.parametrize("name", SEQUENCE_NETWORKS)


def small(name, **options):
    return NETWORKS[name](out=ACTION, **{"hidden": (8, 8), "time_dim": 4, "history": HISTORY, **options})


def with_params(network, history=HISTORY, seed=1):
    """(function of (x [D], observations [h, O]), its parameters), all of them random."""
    x, cond = np.zeros(ACTION), np.zeros(history * OBS)
    params = random_like(jax.eval_shape(network.init, jax.random.key(0), x, T, cond), seed)
    return lambda params, x, obs: network.apply(params, x, T, obs.reshape(-1)), params


def inputs(seed=0, history=HISTORY):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(ACTION), rng.standard_normal((history, OBS))


def embedded_time(p):
    return dense(p["Dense_1"], np.tanh(dense(p["Dense_0"], sines(T, 4))))


@pytest.mark.parametrize("layer_norm_on", [False, True])
def test_lstm_denoiser_is_an_mlp_on_the_last_output_of_the_recurrence(x64, layer_norm_on):
    network = small("lstm", hidden=(5, 7), activation="tanh", layer_norm=layer_norm_on)
    apply, params = with_params(network)
    x, obs = inputs()
    p = params["params"]
    cell, output = p["Lstm_0"]["start"]
    for seen in obs:
        z = dense(p["Lstm_0"]["Dense_0"], seen) + output @ p["Lstm_0"]["recurrent_kernel"]
        i, f, g, o = z.reshape(4, 5)
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
        output = sigmoid(o) * np.tanh(cell)
    mlp = p["MlpDenoiser_0"]
    layer = np.concatenate([x, embedded_time(mlp), output])
    for k in range(2):
        layer = dense(mlp["Mlp_0"][f"Dense_{k}"], layer)
        layer = np.tanh(layer_norm(mlp["Mlp_0"][f"LayerNorm_{k}"], layer) if layer_norm_on else layer)
    wanted = dense(mlp["Mlp_0"]["Dense_2"], layer)
    np.testing.assert_allclose(jax.jit(apply)(params, x, obs), wanted, rtol=1e-9)


@pytest.mark.parametrize("final_norm", [False, True])
def test_transformer_denoiser_equals_its_formula(x64, final_norm):
    width = 128  # two heads
    network = small("transformer", hidden=(width, width), activation="tanh", layer_norm=final_norm)
    apply, params = with_params(network)
    params = jax.tree.map(lambda leaf: leaf / 8, params)  # keeps the softmax away from one token
    x, obs = inputs()
    p = params["params"]
    assert p["MultiHeadDotProductAttention_0"]["query"]["kernel"].shape == (width, 2, 64)
    action = dense(p["Dense_3"], np.concatenate([x, embedded_time(p)]))
    stream = np.concatenate([dense(p["Dense_2"], obs) + p["position"], action[None]])
    for k in range(2):
        stream = stream + attention(p[f"MultiHeadDotProductAttention_{k}"], layer_norm(p[f"LayerNorm_{k}"], stream))
        stream = stream + feed_forward(p[f"FeedForward_{k}"], stream)
    answer = layer_norm(p["LayerNorm_2"], stream[-1]) if final_norm else stream[-1]
    wanted = dense(p["Dense_4"], answer)
    np.testing.assert_allclose(jax.jit(apply)(params, x, obs), wanted, rtol=1e-9)


def test_parameters_are_counted_by_the_formulas():
    """h = 4 observations of 17 numbers, actions of 6, width 256; the history costs the transformer 256 numbers each."""

    def size(network):
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(6), jnp.zeros(()), jnp.zeros(4 * 17))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    time = (16 * 32 + 32) + (32 * 16 + 16)
    mlp = (6 + 16 + 256) * 256 + 256 + 2 * (256 * 256 + 256) + (256 * 6 + 6)
    lstm = (17 + 256) * 4 * 256 + 4 * 256 + 2 * 256
    assert size(LstmDenoiser(out=6, history=4)) == time + mlp + lstm
    block = 2 * 2 * 256 + 4 * 256**2 + (256 * 1024 + 1024) + (1024 * 256 + 256)
    tokens = (17 * 256 + 256) + 4 * 256 + ((6 + 16) * 256 + 256)
    assert size(TransformerDenoiser(out=6, history=4)) == time + tokens + 3 * block + (256 * 6 + 6)


@sequences
def test_gradient_reaches_every_number_of_every_observation_and_order_matters(name):
    apply, params = with_params(small(name, hidden=(8,)))
    x, obs = inputs()
    both = jax.jit(lambda obs: (apply(params, x, obs), jax.jacrev(apply, 2)(params, x, obs)))
    value, slope = both(obs)
    assert slope.shape == (ACTION, HISTORY, OBS)
    assert np.abs(slope).min() > 1e-5
    assert np.abs(both(obs[[1, 0, 2]])[0] - value).max() > 1e-3


def test_without_positions_the_transformer_reads_a_set():
    apply, params = with_params(small("transformer"))
    params["params"]["position"] = np.zeros_like(params["params"]["position"])
    x, obs = inputs()
    apply = jax.jit(apply)
    value = apply(params, x, obs)
    np.testing.assert_allclose(apply(params, x, obs[[2, 0, 1]]), value, rtol=1e-4, atol=1e-5)
    assert np.abs(apply(params, x, obs[[0, 0, 1]]) - value).max() > 1e-3


def test_an_lstm_that_forgets_at_once_reads_the_newest_observation_alone():
    """Recurrence cut and forget gate shut: only the last step is left, so the history is read oldest first."""
    apply, params = with_params(small("lstm"))
    cell = params["params"]["Lstm_0"]
    cell["recurrent_kernel"] = np.zeros_like(cell["recurrent_kernel"])
    cell["Dense_0"]["kernel"][:, 8:16] = 0.0
    cell["Dense_0"]["bias"][8:16] = -100.0
    x, obs = inputs()
    apply = jax.jit(apply)
    other = np.concatenate([inputs(seed=5)[1][:2], obs[2:]])
    np.testing.assert_allclose(apply(params, x, other), apply(params, x, obs), rtol=1e-6)
    assert np.abs(apply(params, x, obs[::-1]) - apply(params, x, obs)).max() > 1e-3


def test_a_history_is_cut_oldest_first():
    cond = jnp.arange(12.0).reshape(2, 6)
    np.testing.assert_array_equal(split_history(cond, 3)[1], [[6, 7], [8, 9], [10, 11]])
    with pytest.raises(ValueError, match="cond has 6 numbers, which are not history=4 observations"):
        split_history(cond, 4)


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (96, 1), (128, 2), (200, 2), (256, 4), (320, 5), (67 * 4, 4)])
def test_heads_have_64_numbers_or_more_and_divide_the_width(width, heads):
    assert num_heads(width) == heads


@sequences
def test_sizes_below_one_are_refused_before_tracing(name):
    with pytest.raises(ValueError, match="history=0; it must be at least 1"):
        small(name, history=0)
    with pytest.raises(ValueError, match=r"hidden=\(\)"):
        small(name, hidden=())
