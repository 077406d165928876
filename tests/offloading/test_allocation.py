"""The RSU's frequency: against random search, by its optimality conditions, and in every corner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.offloading import allocate, gamma_exact, gamma_paper

TOTAL, TAU = 30.0, 0.5
INSTANCES = 300


def objective(backlog, gamma, share):
    """sum gamma / f - Q f tau over the last axis; 0 / 0 counts as 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(gamma > 0, gamma / share, 0.0)
    return np.sum(inverse - backlog * share * TAU, axis=-1)


@pytest.fixture(scope="module")
def instances():
    """Backlogs and gammas over six decades; a third of each is 0, so that every corner occurs."""
    random = np.random.default_rng(0)
    backlog, gamma = 10 ** random.uniform(-3, 3, (2, INSTANCES, 3))
    backlog[random.uniform(size=backlog.shape) < 1 / 3] = 0
    gamma[random.uniform(size=gamma.shape) < 1 / 3] = 0
    backlog[0] = gamma[0] = 0
    return backlog, gamma


def solve(backlog, gamma):
    return np.asarray(batched(jnp.asarray(backlog), jnp.asarray(gamma)), np.float64)


batched = jax.jit(jax.vmap(lambda waits, weight: allocate(waits, weight, TOTAL, TAU)))


def test_no_random_split_is_better(instances):
    backlog, gamma = instances
    share = solve(backlog, gamma)
    assert (share >= 0).all()
    np.testing.assert_allclose(share.sum(axis=1), TOTAL, rtol=1e-6)
    random = np.random.default_rng(1)
    splits = np.concatenate([random.dirichlet(np.full(3, spread), 1500) for spread in (0.1, 0.3, 1.0)]) * TOTAL
    near = share[:, None] * np.exp(random.normal(size=(INSTANCES, 300, 3)) * 0.1)
    near *= TOTAL / near.sum(axis=-1, keepdims=True)
    found = objective(backlog, gamma, share)
    for others in (splits[None], near):
        best = objective(backlog[:, None], gamma[:, None], others).min(axis=1)
        assert (found <= best + 1e-5 * np.maximum(np.abs(best), 1e-3)).all()


def test_marginal_gains_are_equal_where_there_is_frequency_and_lower_where_not(x64, instances):
    backlog, gamma = instances
    share = solve(backlog, gamma)
    some = share > 0
    assert some[gamma > 0].all()
    marginal = np.where(some, gamma / np.where(some, share, 1.0) ** 2, 0.0) + backlog * TAU
    eta = np.max(np.where(some, marginal, -np.inf), axis=1, keepdims=True)
    equal = np.broadcast_to(eta, marginal.shape)
    np.testing.assert_allclose(np.where(some, marginal, equal), equal, rtol=1e-9, atol=1e-12)
    assert (np.where(some, eta, marginal) <= eta * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    ("backlog", "gamma", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], [10, 10, 10]),  # nothing to do: equally
        ([0, 7, 3], [0, 0, 0], [0, 30, 0]),  # nobody sends: the longest queue
        ([0, 7, 7], [0, 0, 0], [0, 15, 15]),  # two as long
        ([0, 0, 0], [0, 5, 0], [0, 30, 0]),  # one sends and none waits
        ([0, 0, 0], [4, 1, 0], [20, 10, 0]),  # by the square root
        ([0, 32, 1], [4, 0, 0], [0.5, 29.5, 0]),  # the idle queue leads: eta = 16, sqrt(4 / 16)
        ([0, 0.02, 0], [25, 0, 0], [30, 0, 0]),  # it leads, but the other one asks for more than there is
        ([500, 0, 0], [1, 1, 0], None),  # a long queue that is sent to
    ],
)
def test_corner_cases_have_their_known_solution(backlog, gamma, expected):
    got = solve(np.array([backlog], float), np.array([gamma], float))[0]
    if expected is None:
        eta = 250.0 + 1 / got[0] ** 2
        expected = [30 - np.sqrt(1 / eta), np.sqrt(1 / eta), 0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_one_network_gets_everything():
    backlog, gamma = np.array([[0.0], [3.0], [3.0], [0.0]]), np.array([[0.0], [0.0], [2.0], [2.0]])
    np.testing.assert_allclose(solve(backlog, gamma), np.full((4, 1), TOTAL), rtol=1e-6)


def test_exact_gamma_weighs_the_delays_of_every_task(x64):
    tails, backlog, v = [[2.0, 3.0, 7.0], [4.0], []], np.array([5.0, 6.0, 8.0]), 10.0
    delays = [
        sum(backlog[k] + tail + 0.5 * sum(other for j, other in enumerate(row) if j != i) for i, tail in enumerate(row))
        for k, row in enumerate(tails)
    ]
    count, work = jnp.array([3.0, 1.0, 0.0]), jnp.array([12.0, 4.0, 0.0])
    np.testing.assert_allclose(gamma_exact(v, jnp.asarray(backlog), count, work), v * np.array(delays), rtol=1e-12)
    printed = gamma_paper(v, jnp.asarray(backlog), count, work)
    np.testing.assert_allclose(printed, v * (np.array(delays) - (count - 1) * backlog), rtol=1e-12)
