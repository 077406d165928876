"""Values and noises of teams: sums, greedy actions, and the factors of a joint diffusion."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.rl import DATA_FACTORS, NOISE_FACTORS, agent_weights, ensure_decentralised, factored_loss, greedy, vdn

AGENTS, DIM = 3, 2


def rows(seed):
    return np.random.default_rng(seed).standard_normal((4, AGENTS, DIM))


def test_vdn_sums_over_agents():
    np.testing.assert_allclose(vdn(jnp.array([[1.0, 2.0, 4.0], [0.5, 0.0, -1.0]])), [7.0, -0.5])


def test_greedy_agents_take_the_best_of_what_is_allowed():
    q = jnp.array([[[3.0, 1.0, 2.0], [0.0, -5.0, -1.0]]])
    action, value = greedy(q)
    np.testing.assert_array_equal(action, [[0, 0]])
    np.testing.assert_array_equal(value, [[3.0, 0.0]])
    action, value = greedy(q, jnp.array([[[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]]]))
    np.testing.assert_array_equal(action, [[2, 1]])
    np.testing.assert_array_equal(value, [[2.0, -5.0]])


def test_concat_loss_is_the_sum_of_the_agents_losses(x64):
    noise, prediction = rows(0), rows(1)
    each = np.square(noise - prediction).sum(axis=-1)  # [B, A]
    np.testing.assert_allclose(factored_loss(NOISE_FACTORS["concat"], noise, prediction), each.sum(axis=-1), rtol=1e-12)
    weights = jnp.array([0.5, 1.0, 2.0])
    loss = factored_loss(NOISE_FACTORS["wconcat"], noise, prediction, weights)
    np.testing.assert_allclose(loss, each @ np.array([0.25, 1.0, 4.0]), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "how"), [("concat", None), ("wconcat", jnp.array([3.0, 0.1, 2.0])), ("attention", jnp.eye(3)[::-1])]
)
def test_a_perfect_prediction_costs_nothing_whatever_the_weights(name, how):
    """Scaling only the prediction, as the released code does, would ask for another one."""
    np.testing.assert_array_equal(factored_loss(NOISE_FACTORS[name], rows(0), rows(0), how), 0.0)
    assert (factored_loss(NOISE_FACTORS[name], rows(0), rows(1), how) > 0.0).all()


def test_factors_put_every_agent_where_their_formulas_say(x64):
    x = rows(0)
    joined = np.concatenate([x[:, i] for i in range(AGENTS)], axis=-1)
    np.testing.assert_array_equal(DATA_FACTORS["concat"].apply(x, None), joined)
    weights = np.array([2.0, -1.0, 0.5])
    scaled = np.concatenate([weights[i] * x[:, i] for i in range(AGENTS)], axis=-1)
    np.testing.assert_allclose(DATA_FACTORS["wconcat"].apply(x, weights), scaled)
    np.testing.assert_allclose(DATA_FACTORS["vdn"].apply(x, None), x[:, 0] + x[:, 1] + x[:, 2])
    mix = np.random.default_rng(1).standard_normal((AGENTS, AGENTS))
    read = [sum(mix[i, j] * x[:, j] for j in range(AGENTS)) for i in range(AGENTS)]
    np.testing.assert_allclose(NOISE_FACTORS["attention"].apply(x, mix), np.concatenate(read, axis=-1))
    product = DATA_FACTORS["qmix"].apply(x, lambda q: jnp.prod(q, axis=-1))
    np.testing.assert_allclose(product, x[:, 0] * x[:, 1] * x[:, 2])


@pytest.mark.parametrize(
    ("name", "how", "apart"),
    [("concat", None, True), ("wconcat", np.array([0.5, 1.0, 2.0]), True), ("attention", np.full((3, 3), 0.5), False)],
)
def test_concats_alone_make_an_agents_share_of_the_loss_independent_of_the_others(x64, name, how, apart):
    """Whether what the first agent's noise adds to the loss is the same for other predictions of the others."""
    noise, prediction = rows(0), rows(1)
    moved, others = noise.copy(), prediction.copy()
    moved[:, 0] += 1.0
    others[:, 1:] -= 2.0

    def added(prediction):
        losses = [factored_loss(NOISE_FACTORS[name], one, prediction, how) for one in (moved, noise)]
        return np.asarray(losses[0] - losses[1])

    assert np.allclose(added(others), added(prediction), atol=1e-9) == apart


def test_agent_weights_start_at_one_and_keep_their_mean():
    np.testing.assert_allclose(agent_weights(jnp.zeros(AGENTS)), np.ones(AGENTS), rtol=1e-6)
    weights = agent_weights(jnp.array([1.0, -2.0, 0.3]))
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-6)


@pytest.mark.parametrize("factors", [NOISE_FACTORS, DATA_FACTORS])
def test_a_factor_that_agents_cannot_execute_alone_says_why(factors):
    for name, factor in factors.items():
        ensure_decentralised(name, "centralised", factors)
        assert factor.decentralised == (not factor.reason)
        if factor.decentralised:
            ensure_decentralised(name, "decentralised", factors)
        else:
            with pytest.raises(ValueError, match=f"factor='{name}' cannot be executed decentralised: {factor.reason}"):
                ensure_decentralised(name, "decentralised", factors)


def test_concats_alone_make_noise_that_needs_no_other_agent():
    assert {name for name, factor in NOISE_FACTORS.items() if factor.decentralised} == {"concat", "wconcat"}
    with pytest.raises(ValueError, match=r"not Gaussian.*choose one of concat, wconcat, or execution='centralised'\."):
        ensure_decentralised("qmix", "decentralised")


def test_misspelt_factors_and_executions_are_refused():
    with pytest.raises(KeyError, match="unknown factor 'concta'; did you mean 'concat'"):
        ensure_decentralised("concta", "decentralised")
    with pytest.raises(KeyError, match="unknown execution 'local'; .*known: centralised, decentralised"):
        ensure_decentralised("concat", "local")
