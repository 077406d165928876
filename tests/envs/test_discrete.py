"""Actions as scores and as bits: round trips, ties, masks, and the wrapper against a search by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import discrete
from jaxdiff.envs.games import mixture, xor
from jaxdiff.types import Env, Spec, TimeStep


def nearest(bits, num_actions, allowed):
    """By counting the signs that differ, action by action."""
    width = len(bits)
    written = ["".join("1" if b > 0 else "0" for b in bits), *(format(i, f"0{width}b") for i in range(num_actions))]
    distance = [sum(a != b for a, b in zip(written[0], code, strict=True)) for code in written[1:]]
    return min((d, i) for i, d in enumerate(distance) if allowed[i])[1]


@pytest.mark.parametrize(("num_actions", "width"), [(2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4)])
def test_codes_return_the_action_they_were_made_of(num_actions, width):
    index = np.arange(num_actions).reshape(1, -1)
    scores, bits = discrete.encode_onehot(index, num_actions), discrete.encode_bits(index, num_actions)
    assert scores.shape == (1, num_actions, num_actions)
    assert bits.shape == (1, num_actions, width)
    assert discrete.num_bits(num_actions) == width
    assert set(np.unique(scores)) == set(np.unique(bits)) == {-1.0, 1.0}
    np.testing.assert_array_equal(np.asarray(scores).sum(axis=-1), 2 - num_actions)
    np.testing.assert_array_equal(discrete.decode_onehot(scores), index)
    np.testing.assert_array_equal(discrete.decode_bits(bits, num_actions), index)
    spelt = ["".join("1" if b > 0 else "0" for b in row) for row in np.asarray(bits[0])]
    assert [int(code, 2) for code in spelt] == list(range(num_actions))


def test_the_best_allowed_score_wins_and_the_lowest_of_equal_ones():
    scores = jnp.array([[0.1, 0.9, 0.9, -1.0], [0.1, 0.9, 0.9, -1.0], [-0.5, 0.9, 0.9, -1.0], [0.1, 0.9, 0.3, 0.0]])
    mask = jnp.array([[1.0, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(discrete.decode_onehot(scores, mask), [1, 2, 0, 1])


@pytest.mark.parametrize("num_actions", [3, 5, 6])
def test_a_code_without_an_action_becomes_the_nearest_allowed_one(num_actions):
    generator, width = np.random.default_rng(0), discrete.num_bits(num_actions)
    bits = generator.uniform(-1, 1, (200, width)).astype(np.float32)
    mask = generator.integers(0, 2, (200, num_actions))
    mask[np.arange(200), generator.integers(0, num_actions, 200)] = 1
    got = discrete.decode_bits(jnp.asarray(bits), num_actions, jnp.asarray(mask))
    expected = [nearest(b, num_actions, m) for b, m in zip(bits, mask, strict=True)]
    np.testing.assert_array_equal(got, expected)
    assert len(set(expected)) == num_actions


def test_zero_is_an_unset_bit():
    assert discrete.decode_bits(jnp.zeros(3), 8) == 0


def masked_counter() -> Env:
    """Three agents choose among five; obs is (what each took last, the mask), and the mask forbids it next time."""
    spec = Spec("counter", obs_dim=6, action_dim=5, max_episode_steps=9, num_agents=3, num_actions=5, mask_dim=5)

    def observe(taken):
        return jnp.concatenate([taken[:, None].astype(jnp.float32), 1.0 - jax.nn.one_hot(taken, 5)], axis=1)

    def reset(key):
        del key
        return jnp.array([4, 4, 0]), observe(jnp.array([4, 4, 0]))

    def step(state, action):
        taken = discrete.decode_onehot(action, 1.0 - jax.nn.one_hot(state, 5))
        return taken, TimeStep(observe(taken), jnp.zeros(3), jnp.array(False), jnp.array(False))

    return Env(reset, step, spec)


def test_the_wrapper_spells_actions_and_heeds_the_mask_of_the_moment():
    env = discrete.bits(masked_counter())
    assert (env.spec.name, env.spec.action_dim, env.spec.num_actions) == ("counter-bits", 3, None)
    assert (env.spec.obs_dim, env.spec.mask_dim, env.spec.num_agents) == (6, 5, 3)
    actions = np.random.default_rng(1).uniform(-1, 1, (40, 3, 3)).astype(np.float32)
    state, obs = env.reset(jax.random.key(0))
    _, timestep = jax.lax.scan(env.step, state, actions)
    mask = np.asarray(obs)[:, 1:]
    for action, after in zip(actions, np.asarray(timestep.obs), strict=True):
        np.testing.assert_array_equal(after[:, 0], [nearest(b, 5, m) for b, m in zip(action, mask, strict=True)])
        mask = after[:, 1:]


def test_a_task_without_a_mask_allows_everything():
    env = discrete.bits(xor())
    state, _ = env.reset(jax.random.key(0))
    for bits, reward in [((-1, 1), 1), ((1, -1), 1), ((-1, -1), 0), ((1, 1), -2)]:
        np.testing.assert_array_equal(env.step(state, jnp.array(bits, jnp.float32)[:, None])[1].reward, [reward] * 2)


def test_what_cannot_be_spelt_is_refused():
    with pytest.raises(ValueError, match="game-mixture: its actions are continuous"):
        discrete.bits(mixture())
    with pytest.raises(ValueError, match="num_actions=1 leaves nothing to choose"):
        discrete.num_bits(1)
