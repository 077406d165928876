"""Mixers of agents' values: the formula in float64, the sign of their slopes, and what a sum cannot represent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_layers import dense, random_like
import pytest

from jaxdiff.networks import MIXERS, QmixMixer, VdnMixer

KEY = jax.random.key(0)
AGENTS, STATE = 3, 4


def inputs(batch=(6,)):
    rng = np.random.default_rng(0)
    return rng.standard_normal((*batch, AGENTS)), rng.standard_normal((*batch, STATE))


def random_params(network):
    return random_like(jax.eval_shape(network.init, KEY, *inputs()), 1)


def plain_mixer(params, q, state, monotone):
    """One example: four MLPs of two ReLU layers give W_1 [A, W], b_1, w_2 and b_2."""
    given = []
    for k in range(4):
        p, hidden = params[f"Mlp_{k}"], state
        for layer in range(2):
            hidden = np.maximum(dense(p[f"Dense_{layer}"], hidden), 0.0)
        given.append(dense(p["Dense_2"], hidden))
    first, first_bias, second, bias = given
    first = first.reshape(len(q), -1)
    if not monotone:
        return second @ (q @ first + first_bias) + bias[0]
    hidden = q @ np.abs(first) + first_bias
    hidden = np.where(hidden > 0, hidden, np.exp(np.minimum(hidden, 0)) - 1)
    return np.abs(second) @ hidden + bias[0]


@pytest.mark.parametrize("monotone", [True, False])
def test_qmix_equals_its_formula(x64, monotone):
    network, (q, state) = QmixMixer(width=5, hidden=(8, 8), monotone=monotone), inputs((2, 3))
    params = random_params(network)
    answer = jax.jit(network.apply)(params, q, state)
    assert answer.shape == (2, 3)
    wanted = [[plain_mixer(params["params"], q[i, j], state[i, j], monotone) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(answer, wanted, rtol=1e-9)


def slopes(name):
    """d Q_tot / d q_i of a random mixer at many values, [N, A]."""
    network = MIXERS[name](width=5, hidden=(8,))
    rng = np.random.default_rng(2)
    q, state = 3 * rng.standard_normal((200, AGENTS)), rng.standard_normal((200, STATE))
    return jax.jit(jax.grad(lambda q: network.apply(random_params(network), q, state).sum()))(q)


def test_no_agents_value_lowers_the_teams_unless_the_mixer_is_linear(x64):
    assert (slopes("qmix") >= 0.0).all()
    assert (slopes("qmix") > 1e-3).any(axis=0).all()
    assert (slopes("linear") < -1e-3).any(axis=0).all()


def test_the_linear_mixer_is_a_linear_function_plus_a_constant(x64):
    network, (q, state) = QmixMixer(width=5, hidden=(8,), monotone=False), inputs()
    params = random_params(network)
    apply = jax.jit(network.apply)

    def at(values):
        return np.asarray(apply(params, values, state))

    origin = at(np.zeros_like(q))
    other = q[::-1]
    wanted = 2.0 * (at(q) - origin) - 3.0 * (at(other) - origin)
    np.testing.assert_allclose(at(2.0 * q - 3.0 * other) - origin, wanted, rtol=1e-9, atol=1e-9)


def test_vdn_is_the_sum_and_has_no_parameters():
    network, (q, state) = VdnMixer(), inputs()
    params = network.init(KEY, q, state)
    assert not jax.tree.leaves(params)
    np.testing.assert_allclose(network.apply(params, q, state), q.sum(axis=-1), rtol=1e-6)


def test_qmix_reconstructs_a_monotone_payoff_that_no_sum_can():
    """r(i, j) = i j for actions 0, 1, 2: the best sum leaves (i - 1)(j - 1), of mean square (2 / 3)**2."""
    first, second = np.divmod(np.arange(9), 3)
    payoff, state = (first * second).astype(np.float32), jnp.ones((9, 1))
    mixers = {name: MIXERS[name](width=4, hidden=()) for name in ("vdn", "qmix")}
    optimiser = optax.adam(0.1)

    def losses(params):
        values = {}
        for name, mixer in mixers.items():
            q = jnp.stack([params[name]["q"][0, first], params[name]["q"][1, second]], axis=-1)
            values[name] = jnp.mean(jnp.square(mixer.apply(params[name]["mixer"], q, state) - payoff))
        return values

    def step(carry, _):
        params, memory = carry
        updates, memory = optimiser.update(jax.grad(lambda params: sum(losses(params).values()))(params), memory)
        return (optax.apply_updates(params, updates), memory), None

    def learn(key):
        start = {
            name: {"mixer": mixer.init(key, jnp.zeros((9, 2)), state), "q": 0.1 * jax.random.normal(key, (2, 3))}
            for name, mixer in mixers.items()
        }
        return losses(jax.lax.scan(step, (start, optimiser.init(start)), length=300)[0][0])

    error = jax.jit(learn)(KEY)
    assert error["vdn"] == pytest.approx(4 / 9, abs=1e-3)
    assert error["qmix"] < 0.05


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_is_built_from_the_same_options_and_keeps_the_leading_axes(name):
    network = MIXERS[name](width=5, hidden=(8,))
    for batch in ((), (2, 3)):
        assert jax.eval_shape(network.init_with_output, KEY, *inputs(batch))[0].shape == batch


def test_mixers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="width=0; a mixer needs at least 1"):
        QmixMixer(width=0)
    with pytest.raises(ValueError, match=r"q has shape \(2, 3\) and state \(4,\); they must be"):
        jax.eval_shape(QmixMixer().init, KEY, np.zeros((2, 3)), np.zeros(4))
