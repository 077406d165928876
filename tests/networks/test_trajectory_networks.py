"""Denoisers of trajectories: what all of them promise, and the formulas of those without convolutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plain_convolutions import mish, token_features
from plain_layers import attention, dense, layer_norm, random_like, sigmoid, sines
import pytest

from jaxdiff.networks import TRAJECTORY_NETWORKS, Dit, TrajectoryLstm, TrajectoryTransformer

KEY = jax.random.key(0)
HORIZON, DIM = 4, 3
SIZES = (2, 1)  # of two conditions
networks = pytest.mark.parametrize("name", TRAJECTORY_NETWORKS)


def small(name, **options):
    defaults = {"width": 8, "mults": (1, 2), "depth": 1, "kernel_size": 5, "attention": False, "cond_sizes": SIZES}
    return TRAJECTORY_NETWORKS[name](out=DIM, **{**defaults, **options})


def inputs(batch, seed=0, per_token=True, horizon=HORIZON):
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((*batch, horizon, DIM)), rng.uniform(0, 9, (*batch, horizon) if per_token else batch)
    return x, t, (rng.standard_normal((*batch, 3)), rng.uniform(0.5, 1.5, (*batch, 2)))


def random_params(network, *arguments, seed=1):
    return random_like(jax.eval_shape(network.init, KEY, *arguments), seed)


@functools.cache
def program(name):
    """(compiled apply, parameters small enough that no softmax chooses one token), shared by tests in float64."""
    network = small(name)
    params = random_params(network, *inputs((2, 3)))
    return jax.jit(network.apply), jax.tree.map(lambda leaf: leaf / 2, params)


def close(a, b):
    return np.allclose(a, b, rtol=1e-8, atol=1e-8)


@networks
def test_every_network_keeps_the_leading_axes_and_has_parameters_for_any_horizon(name):
    network = small(name)
    params = jax.eval_shape(network.init, KEY, *inputs(()))
    for batch, horizon, per_token in (((), 8, True), ((2, 0), 6, False)):
        arguments = inputs(batch, per_token=per_token, horizon=horizon)
        assert jax.eval_shape(network.apply, params, *arguments).shape == (*batch, horizon, DIM)


@networks
def test_every_network_does_without_conditions(name):
    network, x = small(name, cond_sizes=()), jnp.zeros((2, HORIZON, DIM))
    assert jax.eval_shape(network.init_with_output, KEY, x, 0.5, None)[0].shape == x.shape


@networks
def test_every_network_treats_each_example_by_itself(x64, name):
    apply, params = program(name)
    old, new = inputs((2, 3)), inputs((2, 3), seed=5)
    first = apply(params, *old)
    # the first row backwards beside new neighbours
    second = apply(params, *jax.tree.map(lambda a, b: np.concatenate([a[:1, ::-1], b[1:]]), old, new))
    assert second.shape == (2, 3, HORIZON, DIM)
    assert close(second[0, ::-1], first[0])
    assert np.abs(second[1] - first[1]).max() > 1e-3


@networks
def test_a_condition_that_is_not_kept_tells_nothing(x64, name):
    apply, params = program(name)
    x, t, (values, keep) = inputs((2, 3))
    first = apply(params, x, t, (values, keep))
    for group, columns in ((0, slice(0, 2)), (1, slice(2, 3))):
        changed, dropped = values.copy(), keep.copy()
        changed[..., columns] += 1.0
        dropped[..., group] = 0.0
        assert not close(apply(params, x, t, (changed, keep)), first)
        without = apply(params, x, t, (values, dropped))
        assert close(apply(params, x, t, (changed, dropped)), without)
        assert not close(without, first)


@networks
def test_one_level_for_all_tokens_is_the_same_level_for_each(x64, name):
    apply, params = program(name)
    x, t, cond = inputs((2, 3), per_token=False)
    each = np.repeat(t[..., None], HORIZON, axis=-1)
    wanted = apply(params, x, each, cond)
    np.testing.assert_allclose(apply(params, x, t, cond), wanted, rtol=1e-9, atol=1e-9)
    each[..., 1] += 1.0
    assert not close(apply(params, x, each, cond), wanted)


@networks
def test_every_token_is_read_for_every_answer_and_order_matters(x64, name):
    apply, params = program(name)
    x, t, cond = inputs((2, 3))
    t[:] = 1.0
    answer = apply(params, x, t, cond)
    for token in range(HORIZON):
        moved = x.copy()
        moved[..., token, :] += 0.5
        assert np.abs(apply(params, moved, t, cond) - answer).max(axis=(0, 1, 3)).min() > 1e-4
    assert np.abs(apply(params, x[..., ::-1, :], t, cond)[..., ::-1, :] - answer).max() > 1e-3


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def plain_norm(x):
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)


def told(params, arguments, width=8):
    _, t, (values, keep) = arguments
    return token_features(params["TokenFeatures_0"], t, width, [(values[:2], keep[0]), (values[2:], keep[1])])


def test_dit_equals_its_formula(x64):
    network, arguments = Dit(out=2, width=8, depth=2, cond_sizes=SIZES), inputs(())
    params = random_params(network, *arguments)
    p = params["params"]
    features = told(p, arguments)
    active = features * sigmoid(features)
    z = dense(p["Dense_0"], arguments[0]) + np.stack([sines(h, 8) for h in range(HORIZON)])
    for k in range(2):
        block = p[f"DitBlock_{k}"]
        a_1, b_1, g_1, a_2, b_2, g_2 = np.split(dense(block["Modulation_0"]["Dense_0"], active), 6, axis=1)
        z = z + g_1 * attention(block["MultiHeadDotProductAttention_0"], (1 + a_1) * plain_norm(z) + b_1)
        hidden = gelu(dense(block["Dense_0"], (1 + a_2) * plain_norm(z) + b_2))
        z = z + g_2 * dense(block["Dense_1"], hidden)
    a, b = np.split(dense(p["Modulation_0"]["Dense_0"], active), 2, axis=1)
    wanted = dense(p["Dense_1"], (1 + a) * plain_norm(z) + b)
    np.testing.assert_allclose(jax.jit(network.apply)(params, *arguments), wanted, rtol=1e-8)


def test_trajectory_transformer_equals_its_formula(x64):
    network, arguments = TrajectoryTransformer(out=2, width=8, depth=2, cond_sizes=SIZES), inputs(())
    params = random_params(network, *arguments)
    p = params["params"]
    z = dense(p["Dense_1"], arguments[0]) + dense(p["Dense_0"], told(p, arguments))
    z = z + np.stack([sines(h, 8) for h in range(HORIZON)])
    for k in range(2):
        z = z + attention(p[f"MultiHeadDotProductAttention_{k}"], layer_norm(p[f"LayerNorm_{k}"], z))
        block = p[f"FeedForward_{k}"]
        z = z + dense(block["Dense_1"], mish(dense(block["Dense_0"], layer_norm(block["LayerNorm_0"], z))))
    wanted = dense(p["Dense_2"], layer_norm(p["LayerNorm_2"], z))
    np.testing.assert_allclose(jax.jit(network.apply)(params, *arguments), wanted, rtol=1e-8)


def recurrence(params, tokens):
    cell, output = params["start"]
    outputs = []
    for token in tokens:
        i, f, g, o = np.split(dense(params["Dense_0"], token) + output @ params["recurrent_kernel"], 4)
        cell = sigmoid(f + 1) * cell + sigmoid(i) * np.tanh(g)
        output = sigmoid(o) * np.tanh(cell)
        outputs.append(output)
    return np.stack(outputs)


def test_trajectory_lstm_reads_from_both_ends(x64):
    network, arguments = TrajectoryLstm(out=2, width=8, depth=2, cond_sizes=SIZES), inputs(())
    params = random_params(network, *arguments)
    p = params["params"]
    z = np.concatenate([arguments[0], told(p, arguments)], axis=1)
    for k in (0, 2):
        backward = recurrence(p[f"LstmOutputs_{k + 1}"], z[::-1])[::-1]
        z = np.concatenate([recurrence(p[f"LstmOutputs_{k}"], z), backward], axis=1)
    np.testing.assert_allclose(jax.jit(network.apply)(params, *arguments), dense(p["Dense_0"], z), rtol=1e-8)


def test_a_new_dit_starts_with_its_modulations_and_its_last_layer_at_zero():
    def layers(key):
        p = Dit(out=2, width=8, depth=1).init(key, np.ones((HORIZON, DIM)), 3.0, None)["params"]
        return p["Dense_1"], p["Modulation_0"], p["DitBlock_0"]["Modulation_0"]

    leaves = jax.tree.leaves(jax.jit(layers)(KEY))
    assert [leaf.size for leaf in leaves] == [2, 8 * 2, 2 * 8, 8 * 2 * 8, 6 * 8, 8 * 6 * 8]
    assert not any(leaf.any() for leaf in leaves)


@networks
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"t": np.zeros(4)},
            r"t has shape \(4,\); allowed for a trajectory x of shape \(2, 4, 3\): \(\), \(2,\), \(2, 4\)",
        ),
        ({"cond": None}, r"cond=None, and the network has cond_sizes=\(2, 1\)"),
        ({"cond": np.zeros((2, 3))}, r"it must be a pair"),
        ({"cond": (np.zeros((2, 2)), np.zeros((2, 2)))}, r"values \(2, 2\) and .* they must be \(2, 3\) and \(2, 2\)"),
        ({"cond": (np.zeros((2, 3)), np.zeros((2, 3)))}, r"keep \(2, 3\); .* they must be \(2, 3\) and \(2, 2\)"),
        ({"cond": (np.zeros(3), np.zeros(2))}, r"values \(3,\) and keep \(2,\)"),
        ({"cond_sizes": ()}, r"cond is given, and the network has cond_sizes=\(\)"),
        ({"x": np.zeros(3)}, r"x has shape \(3,\); a trajectory has at least two axes"),
    ],
)
def test_every_network_refuses_arguments_of_another_shape(name, options, message):
    cond = (np.zeros((2, 3)), np.zeros((2, 2)))
    given = {"x": np.zeros((2, HORIZON, DIM)), "t": np.zeros(2), "cond": cond, **options}
    network = small(name, cond_sizes=given.get("cond_sizes", SIZES))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, KEY, given["x"], given["t"], given["cond"])


@pytest.mark.parametrize("name", ["dit", "lstm", "transformer"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth=0; it must be at least 1"),
        ({"width": 7}, "width=7; it must be even and at least 4"),
        ({"cond_sizes": (1, 0)}, r"cond_sizes=\(1, 0\); every group"),
    ],
)
def test_sizes_out_of_range_are_refused_before_tracing(name, options, message):
    with pytest.raises(ValueError, match=message):
        small(name, **options)
