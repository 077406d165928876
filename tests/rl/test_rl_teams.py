"""The factors of a joint diffusion: who can be executed alone, and the weights of a weighted concat."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.rl import NOISE_FACTORS, agent_weights, ensure_decentralised
from jaxdiff.rl.factors import EXECUTIONS


def test_agent_weights_start_at_one_and_keep_their_mean():
    np.testing.assert_allclose(agent_weights(jnp.zeros(3)), np.ones(3), rtol=1e-6)
    weights = agent_weights(jnp.array([1.0, -2.0, 0.3]))
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.mean(), 1.0, rtol=1e-6)


def test_a_factor_that_agents_cannot_execute_alone_says_why():
    for name, factor in NOISE_FACTORS.items():
        ensure_decentralised(name, "centralised")
        assert factor.decentralised == (not factor.reason)
        if factor.decentralised:
            ensure_decentralised(name, "decentralised")
        else:
            with pytest.raises(ValueError, match=f"^noise_factor='{name}' cannot be .* decentralised: {factor.reason}"):
                ensure_decentralised(name, "decentralised")


def test_concats_alone_make_noise_that_needs_no_other_agent():
    assert {name for name, factor in NOISE_FACTORS.items() if factor.decentralised} == {"concat", "wconcat"}
    with pytest.raises(ValueError, match=r"others'; choose one of concat, wconcat, or execution='centralised'\."):
        ensure_decentralised("attention", "decentralised")


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_a_mixture_of_noises_is_refused_and_every_choice_that_is_offered_works(execution):
    with pytest.raises(ValueError, match="^noise_factor='qmix' is a factor of values: .* is not Gaussian") as caught:
        ensure_decentralised("qmix", execution)
    alone, together = re.search("Choose one of (.*), or (.*) with execution='centralised'", str(caught.value)).groups()
    for name in alone.split(", "):
        ensure_decentralised(name, execution)
    ensure_decentralised(together, "centralised")
    assert {*alone.split(", "), together} == set(NOISE_FACTORS)


def test_misspelt_factors_and_executions_are_refused():
    with pytest.raises(KeyError, match="unknown noise_factor 'concta'; did you mean 'concat'"):
        ensure_decentralised("concta", "decentralised")
    with pytest.raises(KeyError, match="unknown execution 'local'; .*known: centralised, decentralised"):
        ensure_decentralised("concat", "local")
