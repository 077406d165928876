"""Advantages, ratios and running scales against their definitions in float64 numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.rl import (
    clipped_surrogate,
    generalised_advantage,
    init_moments,
    kl_estimate,
    running_returns,
    update_moments,
)

RANDOM = np.random.default_rng(0)
T, E = 7, 3
GAMMA = 0.9


class Rows:
    """Rewards and values of three environments: one ends by its task, one by its clock, one goes on."""

    reward, value, next_value = RANDOM.normal(size=(3, T, E))
    discount, ended = np.ones((T, E)), np.zeros((T, E), bool)
    discount[2, 0] = 0.0
    ended[2, 0] = ended[4, 1] = True


def advantage(gae_lambda, gamma=GAMMA, **changes):
    names = ("reward", "discount", "ended", "value", "next_value")
    rows = [jnp.asarray(changes.get(name, getattr(Rows, name))) for name in names]
    return generalised_advantage(*rows, gamma, gae_lambda)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.6, 1.0])
def test_an_advantage_is_the_sum_of_the_errors_until_the_episode_s_end(x64, gae_lambda):
    wanted = np.zeros((T, E))
    for e in range(E):
        for t in range(T):
            weight = 1.0
            for later in range(t, T):
                bootstrap = GAMMA * Rows.next_value[later, e] if Rows.discount[later, e] else 0.0
                wanted[t, e] += weight * (Rows.reward[later, e] + bootstrap - Rows.value[later, e])
                weight *= GAMMA * gae_lambda
                if Rows.ended[later, e]:
                    break
    np.testing.assert_allclose(advantage(gae_lambda), wanted, rtol=1e-12)


def test_with_lambda_0_it_is_the_one_step_error(x64):
    target = Rows.reward + GAMMA * Rows.discount * Rows.next_value
    np.testing.assert_allclose(advantage(0.0), target - Rows.value, rtol=1e-12)


def test_with_lambda_1_the_values_between_cancel_and_the_return_stays(x64):
    """Where V(s'_t) = V(s_{t+1}): A + V(s) is the discounted return, with the value where a clock or the rows end."""
    after = np.concatenate([Rows.value[1:], Rows.next_value[-1:]])
    next_value = np.where(Rows.ended, Rows.next_value, after)
    returns = np.zeros((T + 1, E))
    returns[-1] = next_value[-1]
    for t in reversed(range(T)):
        later = np.where(Rows.ended[t], Rows.discount[t] * next_value[t], returns[t + 1])
        returns[t] = Rows.reward[t] + GAMMA * later
    np.testing.assert_allclose(advantage(1.0, next_value=next_value) + Rows.value, returns[:-1], rtol=1e-10)


def test_nothing_leaks_over_an_end_and_a_clock_s_end_keeps_its_value(x64):
    reward, next_value = Rows.reward.copy(), Rows.next_value.copy()
    reward[3:, 0] += 100.0
    reward[5:, 1] += 100.0
    changed = advantage(0.9, reward=reward) - advantage(0.9)
    np.testing.assert_array_equal(changed[:3, 0], 0.0)
    np.testing.assert_array_equal(changed[:5, 1], 0.0)
    assert (changed[3:, 0] > 99.0).all()
    next_value[2, 0] += 1.0
    next_value[4, 1] += 1.0
    changed = np.asarray(advantage(0.9, next_value=next_value) - advantage(0.9))
    np.testing.assert_array_equal(changed[:, 0], 0.0)  # a task's end has no value
    np.testing.assert_allclose(changed[:5, 1], GAMMA * (0.9 * GAMMA) ** np.arange(4.0, -1.0, -1.0), rtol=1e-9)


def test_flags_may_be_numbers():
    rows = jnp.asarray(Rows.ended, jnp.float32)
    np.testing.assert_array_equal(advantage(0.9, ended=rows), advantage(0.9))


@pytest.mark.parametrize("ratio", [0.5, 0.95, 1.05, 2.0])
@pytest.mark.parametrize("sign", [-1.5, 1.5])
def test_the_surrogate_is_the_worse_of_two(x64, ratio, sign):
    got = clipped_surrogate(jnp.log(jnp.asarray(ratio)), jnp.asarray(sign), 0.1)
    nearest = min(max(ratio, 0.9), 1.1)
    np.testing.assert_allclose(got, max(-ratio * sign, -nearest * sign), rtol=1e-12)


@pytest.mark.parametrize(
    ("ratio", "sign", "is_clipped"),
    [(1.5, 1.0, True), (0.5, -1.0, True), (1.5, -1.0, False), (0.5, 1.0, False), (1.05, 1.0, False)],
)
def test_only_a_change_that_has_gone_far_enough_the_right_way_has_no_gradient(x64, ratio, sign, is_clipped):
    slope = jax.grad(clipped_surrogate)(np.log(ratio), sign, 0.1)
    np.testing.assert_allclose(slope, 0.0 if is_clipped else -ratio * sign, rtol=1e-12)


def test_a_clip_per_example_bounds_its_own():
    got = clipped_surrogate(jnp.log(jnp.full(2, 3.0)), jnp.ones(2), jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(got, [-1.1, -1.5], rtol=1e-6)


def test_the_estimate_of_kl_is_positive_and_0_only_where_nothing_changed():
    log_ratio = jnp.asarray(np.concatenate([[0.0], RANDOM.normal(size=200), [1e-4, -1e-4]]), jnp.float32)
    estimate = np.asarray(kl_estimate(log_ratio))
    assert estimate[0] == 0.0
    assert (estimate[1:-2] > 0.0).all()
    assert (estimate >= 0.0).all()
    assert estimate[-1] < 1e-7


def test_its_mean_under_the_old_policy_is_the_kl_of_two_gaussians(x64):
    """KL(N(0, 1) || N(m, s**2)) = log s + (1 + m**2) / (2 s**2) - 1/2, by Gauss and Hermite's quadrature."""
    m, s = 0.4, 1.3
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    log_ratio = -np.log(s) - 0.5 * ((nodes - m) / s) ** 2 + 0.5 * nodes**2
    mean = np.sum(weights / np.sqrt(2.0 * np.pi) * np.asarray(kl_estimate(jnp.asarray(log_ratio))))
    np.testing.assert_allclose(mean, np.log(s) + (1 + m**2) / (2 * s**2) - 0.5, rtol=1e-8)


@pytest.mark.parametrize("features", [(), (2,)])
def test_moments_of_pieces_are_those_of_the_whole(x64, features):
    pieces = [5.0 + 3.0 * RANDOM.normal(size=(*shape, *features)) for shape in ((4,), (1,), (3, 5), (2, 2, 2))]
    moments = init_moments(features)
    for piece in pieces:
        moments = update_moments(moments, jnp.asarray(piece))
    everything = np.concatenate([piece.reshape(-1, *features) for piece in pieces])
    assert float(moments.count) == len(everything) == 28
    np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.var, everything.var(axis=0), rtol=1e-6)


def test_before_anything_was_seen_moments_change_nothing():
    moments = init_moments((3,))
    np.testing.assert_array_equal(moments.mean, np.zeros(3))
    np.testing.assert_array_equal(moments.var, np.ones(3))
    assert float(moments.count) == 0.0


def test_running_returns_discount_the_past_and_forget_it_at_an_end(x64):
    wanted = np.zeros((T, E))
    for e in range(E):
        total = 0.0
        for t in range(T):
            total = GAMMA * total + Rows.reward[t, e]
            wanted[t, e] = total
            if Rows.ended[t, e]:
                total = 0.0
    got = running_returns(jnp.asarray(Rows.reward), jnp.asarray(Rows.ended), GAMMA)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
