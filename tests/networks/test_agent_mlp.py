"""The denoiser of joint actions: its formula in float64, what agents know of one another, refusals."""

import functools

import jax
import numpy as np
from plain_layers import attention, dense, feed_forward, layer_norm, random_like, sines
import pytest

from jaxdiff.networks import AGENT_NETWORKS, AgentMlp

KEY = jax.random.key(0)
AGENTS, DIM, OBS = 3, 2, 5
SIZES = {"out": DIM, "hidden": (8, 8), "time_dim": 4, "activation": "tanh", "layer_norm": True}


def inputs(batch, agents=AGENTS, seed=0):
    rng = np.random.default_rng(seed)
    x, obs = rng.standard_normal((*batch, agents, DIM)), rng.standard_normal((*batch, agents, OBS))
    return x, rng.uniform(0, 9, batch), obs


@functools.cache
def program(agent_id=False):
    network = AgentMlp(agent_id=agent_id, **SIZES)
    return jax.jit(network.apply), random_like(jax.eval_shape(network.init, KEY, *inputs((2,))), 1)


@pytest.mark.parametrize("agent_id", [False, True])
def test_agent_mlp_equals_its_formula(x64, agent_id):
    apply, params = program(agent_id)
    batch = inputs((2,))
    x, t, obs = (leaf[1] for leaf in batch)
    p = params["params"]
    time = dense(p["Dense_1"], np.tanh(dense(p["Dense_0"], sines(t, 4))))
    identity = [np.eye(AGENTS)] if agent_id else []
    z = np.concatenate([x, np.tile(time, (AGENTS, 1)), obs, *identity], axis=1)
    z = dense(p["Mlp_0"]["Dense_1"], np.tanh(dense(p["Mlp_0"]["Dense_0"], z)))
    for k in range(2):
        z = z + attention(p[f"MultiHeadDotProductAttention_{k}"], layer_norm(p[f"LayerNorm_{k}"], z))
        z = z + feed_forward(p[f"FeedForward_{k}"], z)
    wanted = dense(p["Dense_2"], layer_norm(p["LayerNorm_2"], z))
    np.testing.assert_allclose(apply(params, *batch)[1], wanted, rtol=1e-8, atol=1e-10)


def test_permuting_agents_permutes_the_answer_unless_they_have_a_place(x64):
    x, t, obs = inputs((2,))
    order = [2, 0, 1]
    for agent_id in (False, True):
        apply, params = program(agent_id)
        answer = apply(params, x, t, obs)
        moved = apply(params, x[:, order], t, obs[:, order])
        assert np.allclose(moved, answer[:, order], rtol=1e-9) != agent_id


def test_every_agent_reads_every_observation(x64):
    apply, params = program()
    x, t, obs = inputs((2,))
    answer = apply(params, x, t, obs)
    for agent in range(AGENTS):
        other = obs.copy()
        other[:, agent] += 1.0
        assert np.abs(apply(params, x, t, other) - answer).max(axis=(0, 2)).min() > 1e-4


def test_a_level_for_each_agent_is_the_level_of_all_where_they_agree(x64):
    apply, params = program()
    x, t, obs = inputs((2,))
    each = np.repeat(t[:, None], AGENTS, axis=1)
    wanted = apply(params, x, t, obs)
    np.testing.assert_allclose(apply(params, x, each, obs), wanted, rtol=1e-9)
    each[:, 0] += 1.0
    assert np.abs(apply(params, x, each, obs) - wanted).max() > 1e-4


@pytest.mark.parametrize("name", AGENT_NETWORKS)
def test_parameters_fit_any_number_of_agents_and_any_leading_axes(name):
    network = AGENT_NETWORKS[name](**SIZES)
    params = jax.eval_shape(network.init, KEY, *inputs(()))
    for batch, agents in (((), 1), ((2, 0), 5)):
        x, t, obs = inputs(batch, agents)
        for level in (np.zeros(()), t):
            assert jax.eval_shape(network.apply, params, x, level, obs).shape == x.shape


def test_arguments_and_sizes_that_do_not_fit_are_refused():
    x, t, obs = inputs((2,))
    with pytest.raises(ValueError, match=r"hidden=\(8, 4\); agent_mlp has one residual block per number"):
        AgentMlp(out=DIM, hidden=(8, 4))
    with pytest.raises(ValueError, match=r"t has shape \(4,\); .* \(2, 3, 2\): \(\), \(2,\), \(2, 3\)\."):
        jax.eval_shape(AgentMlp(**SIZES).init, KEY, x, np.zeros(4), obs)
    with pytest.raises(ValueError, match=r"x has shape \(2,\); joint actions have at least two axes"):
        jax.eval_shape(AgentMlp(**SIZES).init, KEY, np.zeros(2), t, obs)
