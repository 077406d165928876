"""A slot against loops over clients in float64 numpy, episode by episode."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.offloading import (
    Profile,
    Queues,
    Slot,
    System,
    bound_constant,
    decide_slot,
    empty_queues,
    lyapunov,
)

SYSTEM = System(num_clients=5, num_servers=3, slot_seconds=0.8)
EPISODES, SLOTS = 100, 10
RANDOM = np.random.default_rng(0)


def by_hand(system, queues, known, cut, node, rsu_ghz):
    """One slot in plain loops: delays [4, I], next queues, P2."""
    rate, client_ghz, server_ghz = known
    local, rsu, server = (np.array(queue) for queue in queues)
    profiles = [system.profiles[kind] for kind in system.kinds]
    cut = [min(c, profile.depth) for c, profile in zip(cut, profiles, strict=True)]
    head = [sum(profile.work_gflop[:c]) for c, profile in zip(cut, profiles, strict=True)]
    tail = [sum(profile.work_gflop[c:]) for c, profile in zip(cut, profiles, strict=True)]
    sent = [c < profile.depth for c, profile in zip(cut, profiles, strict=True)]
    delays = np.zeros((4, system.num_clients))
    came_rsu, came_server = np.zeros_like(rsu), np.zeros_like(server)
    for i, kind in enumerate(system.kinds):
        if cut[i] > 0:
            delays[0, i] = (local[i] + head[i]) / client_ghz[i]
        if not sent[i]:
            continue
        delays[1, i] = 8 * profiles[i].data_mb[cut[i]] / rate[i, node[i]]
        beside = [j for j in range(system.num_clients) if j != i and sent[j] and node[j] == node[i]]
        if node[i] == 0:
            waits, speed = rsu[kind], rsu_ghz[kind]
            beside = [j for j in beside if system.kinds[j] == kind]
            came_rsu[kind] += tail[i]
        else:
            waits, speed = server[node[i] - 1], server_ghz[node[i] - 1]
            came_server[node[i] - 1] += tail[i]
        delays[2, i] = (waits + tail[i]) / speed
        delays[3, i] = sum(tail[j] for j in beside) / (2 * speed)
    objective = system.v * delays.sum()
    result = []
    for waits, came, ghz in ((local, head, client_ghz), (rsu, came_rsu, rsu_ghz), (server, came_server, server_ghz)):
        change = np.array(came) - np.array(ghz) * system.slot_seconds
        objective += float(waits @ change)
        result.append(np.maximum(waits + change, 0))
    return delays, result, objective


def draw(shape, system=SYSTEM):
    """Random knowledge and decisions, some cuts beyond a network's depth."""
    clients, nodes = system.num_clients, system.num_nodes
    rate = RANDOM.uniform(20, 250, (*shape, clients, nodes))
    client_ghz, server_ghz = RANDOM.uniform(4, 6, (*shape, clients)), RANDOM.uniform(6, 8, (*shape, nodes - 1))
    cut = RANDOM.integers(0, system.max_depth + 1, (*shape, clients))
    return (rate, client_ghz, server_ghz), cut, RANDOM.integers(0, nodes, (*shape, clients))


def as_slot(queues, known):
    rate, client_ghz, server_ghz = (jnp.asarray(array) for array in known)
    return Slot(queues, rate, jnp.ones(rate.shape, bool), client_ghz, server_ghz)


@pytest.fixture(scope="module")
def episodes():
    """(knowledge, decisions, queues at the start of each slot, outcomes) in float64."""
    known, cut, node = draw((SLOTS, EPISODES))

    def step(queues, inputs):
        slot = as_slot(queues, inputs[0])
        outcome = jax.vmap(lambda s, c, n: decide_slot(SYSTEM, s, c, n))(slot, *inputs[1:])
        return outcome.queues, (queues, outcome)

    with jax.enable_x64(True):
        start = jax.tree.map(lambda queue: jnp.zeros((EPISODES, *queue.shape)), empty_queues(SYSTEM))
        _, (queues, outcomes) = jax.jit(lambda q, xs: jax.lax.scan(step, q, xs))(start, (known, cut, node))
    return known, (cut, node), *jax.tree.map(np.asarray, (queues, outcomes))


def test_delays_and_queues_are_those_of_plain_loops(episodes):
    known, (cut, node), _, outcomes = episodes
    parts = np.stack([outcomes.local, outcomes.transfer, outcomes.processing, outcomes.waiting], axis=-2)
    after = np.concatenate([outcomes.queues.local, outcomes.queues.rsu, outcomes.queues.server], axis=-1)
    expected = np.zeros_like(parts), np.zeros_like(after), np.zeros_like(outcomes.objective)
    for episode in range(EPISODES):
        queues = [np.zeros(5), np.zeros(3), np.zeros(3)]
        for time in range(SLOTS):
            at = (time, episode)
            delays, queues, objective = by_hand(
                SYSTEM, queues, [array[at] for array in known], cut[at], node[at], outcomes.rsu_ghz[at]
            )
            for array, value in zip(expected, (delays, np.concatenate(queues), objective), strict=True):
                array[at] = value
    np.testing.assert_allclose(parts, expected[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(after, expected[1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(outcomes.objective, expected[2], rtol=1e-9, atol=1e-6)


def test_drift_plus_penalty_stays_below_its_bound(x64, episodes):
    _, _, queues, outcomes = episodes
    before, after = (np.asarray(jax.jit(jax.vmap(jax.vmap(lyapunov)))(queue)) for queue in (queues, outcomes.queues))
    excess = after - before + outcomes.penalty - outcomes.objective
    assert (excess <= bound_constant(SYSTEM)).all()
    assert (excess > 0).any()  # so a constant is needed


def test_the_bounds_constant_adds_the_worst_of_each_queue():
    profile = Profile("p", ("a",), (1.0,), (20.0,))
    small = System(num_clients=2, num_servers=1, profiles=(profile,), client_ghz=(1.0, 25.0))
    assert bound_constant(small) == 0.5 * (2 * 25**2 + 40**2 + 40**2 + 30**2)


def test_float32_agrees_with_float64(episodes):
    known, (cut, node), queues, outcomes = episodes
    slot = as_slot(queues, known)
    single = jax.tree.map(lambda leaf: leaf[-1].astype(np.float32) if leaf.dtype == np.float64 else leaf[-1], slot)
    got = jax.jit(jax.vmap(lambda s, c, n: decide_slot(SYSTEM, s, c, n)))(single, cut[-1], node[-1])
    assert got.objective.dtype == np.float32
    np.testing.assert_allclose(got.delay, outcomes.delay[-1], rtol=1e-5, atol=1e-5)
    scale = np.abs(np.asarray(outcomes.objective[-1])).max()
    np.testing.assert_allclose(got.objective, outcomes.objective[-1], rtol=1e-5, atol=1e-5 * scale)


WEIGHTS = (0.5, 50.0)
BACKLOGS = (np.arange(5.0), np.array([20.0, 3.0, 10.0]), np.ones(3))


@pytest.fixture(scope="module")
def crowded():
    """Everyone sends the raw input to an RSU with backlogs, at two weights: (knowledge, slot, outcomes)."""
    known, _, _ = draw(())
    slot = as_slot(Queues(*(jnp.asarray(queue, jnp.float32) for queue in BACKLOGS)), known)
    none = jnp.zeros(5, int)
    return known, slot, jax.jit(jax.vmap(lambda v: decide_slot(SYSTEM, slot, none, none, v)))(jnp.array(WEIGHTS))


def test_the_frequencies_minimise_the_slots_objective(crowded):
    known, _, outcomes = crowded
    for row, v in enumerate(WEIGHTS):
        found = np.asarray(outcomes.rsu_ghz[row], np.float64)
        near = found * np.exp(0.05 * RANDOM.normal(size=(200, 3)))
        shares = [found, *(SYSTEM.rsu_ghz * near / near.sum(axis=1, keepdims=True))]
        weighed = dataclasses.replace(SYSTEM, v=v)
        objectives = [by_hand(weighed, BACKLOGS, known, [0] * 5, [0] * 5, share)[2] for share in shares]
        assert objectives[0] <= min(objectives[1:])


def test_a_lanes_own_weight_replaces_the_systems(crowded):
    _, slot, got = crowded
    none = jnp.zeros(5, int)
    expected = jax.jit(lambda: decide_slot(dataclasses.replace(SYSTEM, v=WEIGHTS[1]), slot, none, none))()
    np.testing.assert_allclose(got.objective[1], expected.objective, rtol=1e-5)
    np.testing.assert_allclose(got.rsu_ghz[1], expected.rsu_ghz, rtol=1e-4)
    np.testing.assert_allclose(got.penalty, np.array(WEIGHTS) * got.delay.sum(axis=1), rtol=1e-5)
    assert not np.allclose(got.rsu_ghz[0], got.rsu_ghz[1], rtol=0.01)


PROFILE = Profile("p", ("a", "b"), (1.0, 2.0), (6.0, 0.0))  # the last layer has no work
ALONE = System(num_clients=2, num_servers=0, profiles=(PROFILE,), v=1.0)


@jax.jit
def decide_alone(cut):
    slot = Slot(empty_queues(ALONE), jnp.full((2, 1), 8.0), jnp.ones((2, 1), bool), jnp.full(2, 3.0), jnp.zeros(0))
    return decide_slot(ALONE, slot, cut, jnp.zeros(2, int))


def test_without_service_vehicles_two_raw_inputs_share_the_rsu():
    outcome = decide_alone(jnp.array([0, 0]))
    np.testing.assert_allclose(outcome.transfer, [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(outcome.processing, [0.2, 0.2], rtol=1e-6)  # 6 GFLOP at 30 GHz
    np.testing.assert_allclose(outcome.waiting, [0.1, 0.1], rtol=1e-6)


def test_a_task_that_stays_at_its_client_neither_waits_nor_is_waited_for():
    outcome = decide_alone(jnp.array([0, 9]))  # 9 is cut to the depth
    np.testing.assert_allclose(outcome.waiting, [0.0, 0.0])
    np.testing.assert_allclose(outcome.delay, [1.0 + 0.2, 2.0], rtol=1e-6)
    np.testing.assert_allclose(outcome.queues.local, [0.0, 3.0], rtol=1e-6)


def test_layers_without_work_are_sent_and_take_no_time():
    outcome = decide_alone(jnp.array([1, 1]))
    np.testing.assert_allclose(outcome.delay, [2.0 + 2.0, 2.0 + 2.0], rtol=1e-6)
    assert np.isfinite(outcome.objective)
