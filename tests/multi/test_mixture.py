"""IGD on a mixture with coordinates as agents, and XOR: what agents draw one by one is the product of their own shares.

The condition (individual-global-identically-distributed) is that samples of the team are samples of its agents put side
by side. On this task the product is not the data: a model that has learned the data cannot be taken apart, and agents
that draw for themselves cannot have learned them.

Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms import diffusion_bc
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.data.games import mixture_samples
from jaxdiff.envs import games
from jaxdiff.multi import wrapped
from jaxdiff.types import Transition

ROWS, UPDATES, DRAWN, BATCH = 4000, 500, 4000, 256
LEARNED = 0.06  # of a share: five standard errors of a draw are 0.04, and the data's own are as large
SPLIT = 0.04  # five standard errors of a share of DRAWN samples


def shares(action):
    """Of the quadrants in the order of MODES."""
    signs = np.sign(np.asarray(games.MODES))
    return (np.sign(action)[:, None] == signs).all(axis=-1).mean(axis=0)


def drawn(wrapper, spec, actions):
    """Joint actions [DRAWN, A, U] of agents that were trained on joint actions [N, A, U], all seeing the same."""
    policy = PolicyConfig(hidden=(32, 32), kind="x0", num_levels=10, num_steps=10, time_dim=8)
    algorithm = wrapped(wrapper, diffusion_bc.make, diffusion_bc.Config(policy), spec)
    data = jnp.asarray(actions, jnp.float32)

    def obs(count):
        return jnp.zeros((count, spec.num_agents, spec.obs_dim))

    @jax.jit
    def learn(hparams):
        def update(k, state):
            key_rows, key_update = jax.random.split(jax.random.fold_in(jax.random.key(1), k))
            action = data[jax.random.randint(key_rows, (BATCH,), 0, len(data))]
            zeros = jnp.zeros((BATCH, spec.num_agents))
            return algorithm.update(key_update, state, Transition(obs(BATCH), action, zeros, zeros, obs(BATCH)))[0]

        state = jax.lax.fori_loop(0, UPDATES, update, algorithm.init(jax.random.key(0), hparams))
        return algorithm.act(jax.random.key(2), state, obs(DRAWN), algorithm.init_memory((DRAWN,)))[0]

    hparams = jax.tree.map(np.float32, diffusion_bc.HParams(lr=3e-3, ema_rate=0.05))
    return np.asarray(learn(hparams))[:, 0]


def drawn_points(wrapper):
    points = mixture_samples(0, np.array(games.MODES), np.array(games.MODE_WEIGHTS), games.MODE_STD, ROWS)
    return drawn(wrapper, games.mixture().spec, points)[..., 0]


def test_a_joint_model_has_the_modes_of_the_data():
    np.testing.assert_allclose(shares(drawn_points("joint")), games.MODE_WEIGHTS, atol=LEARNED)


def test_agents_one_by_one_draw_the_product_of_fair_coordinates():
    action = drawn_points("independent")
    positive = (action > 0).mean(axis=0)
    np.testing.assert_allclose(positive, 0.5, atol=LEARNED)
    each = np.where(np.array(games.MODES) > 0, positive, 1 - positive).prod(axis=-1)
    np.testing.assert_allclose(shares(action), each, atol=SPLIT)


@pytest.mark.parametrize(("wrapper", "low", "high"), [("joint", 0.95, 1.0), ("independent", 0.45, 0.55)])
def test_only_a_joint_model_says_one_or_the_other_but_never_both(wrapper, low, high):
    """Two joint actions of `game-xor-02_20`, equally often: who chooses alone differs by chance, half of the time."""
    chosen = np.eye(2)[np.array([(0, 1), (1, 0)])]  # [2, A, U] one-hot
    scores = drawn(wrapper, games.xor().spec, 2.0 * chosen - 1.0)
    first, second = scores.argmax(axis=-1).T
    assert low <= (first != second).mean() <= high
    assert abs(first.mean() - 0.5) < 0.1  # both of them
