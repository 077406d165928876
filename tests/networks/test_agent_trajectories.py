"""Denoisers of joint trajectories: agents as a team, their attention in float64, the published size, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from plain_convolutions import conv, conv_block, conv_transpose, mish, residual_block, token_features
from plain_layers import attention, dense, layer_norm, random_like
import pytest

from jaxdiff.networks import AGENT_TRAJECTORY_NETWORKS, AgentTransformer, AgentUnet
from jaxdiff.networks.agent_unet import AgentAttention, by_agent

KEY = jax.random.key(0)
HORIZON, AGENTS, DIM = 4, 3, 2
SIZES = (2, 1)  # of two conditions
networks = pytest.mark.parametrize("name", AGENT_TRAJECTORY_NETWORKS)


def small(name, **options):
    defaults = {"width": 8, "mults": (1, 2), "depth": 1, "kernel_size": 3, "attention": False, "cond_sizes": SIZES}
    return AGENT_TRAJECTORY_NETWORKS[name](out=DIM, **{**defaults, **options})


def inputs(batch, seed=0, agents=AGENTS, horizon=HORIZON):
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((*batch, horizon, agents, DIM)), rng.uniform(0, 9, batch)
    return x, t, (rng.standard_normal((*batch, agents, 3)), rng.uniform(0.5, 1.5, (*batch, agents, 2)))


def random_params(network, *arguments):
    return random_like(jax.eval_shape(network.init, KEY, *arguments), 1)


def with_gain(params, gain):
    """The parameters with the gain of every attention between agents set."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full_like(leaf, gain) if getattr(path[-1], "key", "") == "gain" else leaf, params
    )


@functools.cache
def program(name, **options):
    """(compiled apply, parameters in which attention counts), in float64."""
    network = small(name, **options)
    params = with_gain(jax.tree.map(lambda leaf: leaf / 2, random_params(network, *inputs((2,)))), 2.0)
    return jax.jit(network.apply), params


def influence(apply, params):
    """[A] by how much the first agent's answer changes with the trajectory of each."""
    x, t, cond = inputs((2,))
    answer = apply(params, x, t, cond)[..., 0, :]
    changes = []
    for agent in range(AGENTS):
        moved = x.copy()
        moved[..., agent, :] = -x[..., agent, :]
        changes.append(np.abs(apply(params, moved, t, cond)[..., 0, :] - answer).max())
    return np.array(changes)


def permuted(arguments, order):
    x, t, (values, keep) = arguments
    return x[..., order, :], t, (values[..., order, :], keep[..., order, :])


@networks
def test_permuting_agents_permutes_the_answer(x64, name):
    apply, params = program(name)
    arguments, order = inputs((2,)), [2, 0, 1]
    answer = apply(params, *arguments)
    assert answer.shape == (2, HORIZON, AGENTS, DIM)
    np.testing.assert_allclose(apply(params, *permuted(arguments, order)), answer[..., order, :], rtol=1e-9)
    assert np.abs(answer[..., order, :] - answer).max() > 1e-3


@networks
def test_agents_depend_on_one_another_through_attention_alone(x64, name):
    assert influence(*program(name)).min() > 1e-5
    alone = influence(*program(name, agent_attention=False, mults=(1,)))
    assert alone[0] > 1e-5
    np.testing.assert_array_equal(alone[1:], 0.0)


def test_agents_depend_on_no_other_where_the_gain_is_zero_as_in_a_new_network(x64):
    apply, params = program("agent_unet")
    np.testing.assert_array_equal(influence(apply, with_gain(params, 0.0))[1:], 0.0)
    new = jax.jit(AgentAttention(2).init)(KEY, np.zeros((2, 1, 8)), np.zeros((1, 1, 2)))
    assert new["params"]["gain"] == 0.0


def test_the_gain_gets_a_gradient_where_it_is_zero_and_then_so_do_other_agents(x64):
    rng = np.random.default_rng(0)
    z, features, network = rng.standard_normal((3, 4, 16)), rng.standard_normal((3, 1, 4)), AgentAttention(3)
    params = random_params(network, z, features)
    slope = jax.jit(jax.grad(lambda params, z: jnp.square(network.apply(params, z, features)[0]).sum(), (0, 1)))
    of_params, of_z = slope(with_gain(params, 0.0), z)
    assert abs(of_params["params"]["gain"]) > 1e-3
    np.testing.assert_array_equal(of_z[1:], 0.0)
    assert np.abs(slope(with_gain(params, 1.0), z)[1]).max(axis=(1, 2)).min() > 1e-3


def plain_agent_attention(params, z, features):
    """z [A, H, C] and features [A, H or 1, F]: agents in pairs, heads one after the other, as numbers in float64."""
    agents, horizon, channels = z.shape
    keys, values = max(channels // 16, 1), channels // 4
    qkv = dense(params["Dense_1"], z) + dense(params["Dense_0"], mish(features))
    q, k, v = np.split(qkv, [4 * keys, 8 * keys], axis=-1)
    out = np.zeros_like(z)
    for head in range(4):
        narrow, wide = slice(keys * head, keys * (head + 1)), slice(values * head, values * (head + 1))
        for i in range(agents):
            scores = [np.sum(q[i, :, narrow] * k[j, :, narrow]) / np.sqrt(keys * horizon) for j in range(agents)]
            weight = np.exp(scores) / np.exp(scores).sum()
            out[i, :, wide] = sum(weight[j] * v[j, :, wide] for j in range(agents))
    return z + params["gain"] * out


def test_agent_attention_equals_its_formula(x64):
    """Two teams of three; 32 channels, so that keys have 2 numbers per token and values 8."""
    rng = np.random.default_rng(0)
    z, features = rng.standard_normal((6, 5, 32)), rng.standard_normal((6, 1, 4))
    network = AgentAttention(3)
    params = random_params(network, z, features)
    p = params["params"]
    wanted = np.concatenate([plain_agent_attention(p, z[i : i + 3], features[i : i + 3]) for i in (0, 3)])
    np.testing.assert_allclose(jax.jit(network.apply)(params, z, features), wanted, rtol=1e-9)


def test_unet_equals_its_formula(x64):
    """Two levels of 8 and 16 channels; attention after the middle and in the one skip that is read."""
    apply, params = program("agent_unet")
    batch = inputs((2,))
    x, t, values, keep = batch[0][0], batch[1][0], batch[2][0][0], batch[2][1][0]
    p, team = params["params"], range(AGENTS)
    conds = [[(values[i, :2], keep[i, 0]), (values[i, 2:], keep[i, 1])] for i in team]
    features = np.stack([token_features(p["TokenFeatures_0"], t[None], 8, conds[i]) for i in team])

    def twice(z, first):
        for k in (first, first + 1):
            z = [residual_block(p[f"ResidualBlock_{k}"], z[i], features[i]) for i in team]
        return z

    z = [conv(p["Conv_0"], one, stride=2) for one in twice([x[:, i] for i in team], 0)]
    kept = twice(z, 2)
    z = plain_agent_attention(p["AgentAttention_0"], np.stack(twice(kept, 4)), features)
    skip = plain_agent_attention(p["AgentAttention_1"], np.stack(kept), features)
    z = twice([np.concatenate([z[i], skip[i]], axis=1) for i in team], 6)
    z = [dense(p["Dense_0"], conv_block(p["ConvBlock_0"], conv_transpose(p["ConvTranspose_0"], one))) for one in z]
    np.testing.assert_allclose(apply(params, *batch)[0], np.stack(z, axis=1), rtol=1e-8, atol=1e-10)


def test_transformer_equals_its_formula(x64):
    apply, params = program("agent_transformer")
    batch = inputs((2,))
    x, t, values, keep = batch[0][0], batch[1][0], batch[2][0][0], batch[2][1][0]
    p, team = params["params"], range(AGENTS)
    angle = np.arange(HORIZON)[:, None] * np.exp(-np.arange(4) * np.log(1e4) / 3)
    place = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    z = np.zeros((AGENTS, HORIZON, 8))
    for i in team:
        conds = [(values[i, :2], keep[i, 0]), (values[i, 2:], keep[i, 1])]
        told = dense(p["Dense_0"], token_features(p["TokenFeatures_0"], t[None], 8, conds))
        z[i] = dense(p["Dense_1"], x[:, i]) + told + place
    layers = p["MultiHeadDotProductAttention_0"], p["MultiHeadDotProductAttention_1"]
    z = np.stack([one + attention(layers[0], layer_norm(p["LayerNorm_0"], one)) for one in z])
    for h in range(HORIZON):
        z[:, h] = z[:, h] + attention(layers[1], layer_norm(p["LayerNorm_1"], z[:, h]))
    wide = dense(p["FeedForward_0"]["Dense_0"], layer_norm(p["FeedForward_0"]["LayerNorm_0"], z))
    z = z + dense(p["FeedForward_0"]["Dense_1"], mish(wide))
    wanted = dense(p["Dense_2"], layer_norm(p["LayerNorm_2"], z))
    np.testing.assert_allclose(apply(params, *batch)[0], np.moveaxis(wanted, 0, 1), rtol=1e-8, atol=1e-10)


@networks
def test_parameters_fit_any_number_of_agents_and_any_leading_axes(x64, name):
    network, params = small(name), program(name)[1]
    for batch, agents, t in (((), 1, np.zeros(())), ((2, 0), 5, np.zeros((2, 0, 8)))):
        x, _, cond = inputs(batch, agents=agents, horizon=8)
        assert jax.eval_shape(network.apply, params, x, t, cond).shape == x.shape


def test_every_agent_has_the_level_of_its_example_and_step_or_its_own(x64):
    x, t, _ = inputs((2,))
    each, levels = by_agent(x, t)
    np.testing.assert_array_equal(each, [[x[b, :, i] for i in range(AGENTS)] for b in range(2)])
    np.testing.assert_array_equal(levels, [[t[b]] * AGENTS for b in range(2)])
    assert by_agent(x, 0.5)[1].shape == ()
    steps = np.arange(2.0 * HORIZON).reshape(2, HORIZON)
    np.testing.assert_array_equal(by_agent(x, steps)[1], [[steps[b]] * AGENTS for b in range(2)])
    np.testing.assert_array_equal(by_agent(x[0], steps[0])[1], [steps[0]] * AGENTS)
    own = np.arange(2.0 * HORIZON * AGENTS).reshape(2, HORIZON, AGENTS)
    np.testing.assert_array_equal(by_agent(x, own)[1], own.swapaxes(1, 2))


def test_unet_and_attention_have_the_published_sizes():
    """59.7 million and 4.6: a return as condition, width 128, resolutions (1, 4, 8), 24 steps of 18 numbers."""

    def attention_size(channels):
        """q and k of a quarter of the channels and v of all, linear in tokens and in 256 features; the gain."""
        return sum((inputs + 1) * (channels // 4 + channels // 4 + channels) for inputs in (channels, 256)) + 1

    network = AgentUnet(out=18, width=128, mults=(1, 4, 8), cond_sizes=(1,))
    arguments = jnp.zeros((24, 3, 18)), jnp.zeros(()), (jnp.zeros((3, 1)), jnp.zeros((3, 1)))
    plain, added = 0, 0
    for name, part in jax.eval_shape(network.init, KEY, *arguments)["params"].items():
        size = sum(leaf.size for leaf in jax.tree.leaves(part))
        plain, added = (plain, added + size) if name.startswith("AgentAttention") else (plain + size, added)
    assert plain == pytest.approx(59.7e6, abs=0.05e6)
    assert added == attention_size(1024) + attention_size(1024) + attention_size(512)
    assert added + attention_size(128) == pytest.approx(4.6e6, abs=0.05e6)  # level 0's, which is never called


@networks
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": np.zeros((4, 3))}, r"x has shape \(4, 3\); a joint trajectory has at least three axes"),
        ({"t": np.zeros(3)}, r"t has shape \(3,\); allowed .* \(2, 4, 3, 2\): \(\), \(2,\), \(2, 4\), \(2, 4, 3\)\."),
        ({"t": np.zeros((2, 3))}, r"t has shape \(2, 3\); allowed"),
        ({"cond": None}, r"cond=None, and the network has cond_sizes=\(2, 1\)"),
        ({"cond": (np.zeros((2, 3)), np.zeros((2, 2)))}, r"they must be \(2, 3, 3\) and \(2, 3, 2\)"),
    ],
)
def test_arguments_of_another_shape_are_refused(name, changed, message):
    x, t, cond = inputs((2,))
    given = {"x": x, "t": t, "cond": cond, **changed}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(name).init, KEY, given["x"], given["t"], given["cond"])


def test_sizes_out_of_range_are_refused_before_tracing():
    with pytest.raises(ValueError, match="width=12; it must be a multiple of 8"):
        AgentUnet(out=2, width=12)
    with pytest.raises(ValueError, match="depth=0; it must be at least 1"):
        AgentTransformer(out=2, depth=0)
    with pytest.raises(ValueError, match="horizon=6 must be a multiple of 4"):
        jax.eval_shape(AgentUnet(out=2, width=8, mults=(1, 1, 1)).init, KEY, jnp.zeros((6, 3, 2)), jnp.zeros(()), None)
