"""Heuristics against enumeration, plain loops and another simulator's delays."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.offloading import Profile, Queues, Slot, System, decide_slot, empty_queues, heuristics, rates, reachable
from jaxdiff.offloading.heuristics import HEURISTICS

PROFILES = (
    Profile("wide", ("a", "b", "c"), (0.5, 4.0, 0.25), (3.0, 9.0, 2.0)),
    Profile("thin", ("a", "b"), (0.75, 0.5), (5.0, 1.0)),
)
SMALL = System(num_clients=3, num_servers=2, profiles=PROFILES, v=20.0)
BATCH = 12
PUBLISHED = System(num_clients=3, num_servers=5)


def draw_slots(system):
    """Random queues, rates, speeds and reach, [BATCH, ...]."""
    rng = np.random.default_rng(0)
    shape = (BATCH, system.num_clients, system.num_nodes)
    allowed = rng.random(shape) < 0.6
    allowed[..., 0] = True
    sizes = system.num_clients, system.num_profiles, system.num_servers
    queues = Queues(*(jnp.asarray(rng.exponential(8.0, (BATCH, size)), jnp.float32) for size in sizes))
    rate, client, server = (
        jnp.asarray(rng.uniform(*ends), jnp.float32)
        for ends in ((5, 200, shape), (4, 6, shape[:2]), (6, 8, (BATCH, system.num_servers)))
    )
    return Slot(queues, rate, jnp.asarray(allowed), client, server)


@pytest.fixture(scope="module")
def decisions():
    """name -> (cut [BATCH, I], node [BATCH, I]) in the slots of SMALL."""
    keys = jax.random.split(jax.random.key(0), BATCH)

    def all_of_them(key, slot):
        return {name: decide(key, SMALL, slot) for name, decide in HEURISTICS.items()}

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(all_of_them))(keys, draw_slots(SMALL)))


@pytest.mark.parametrize("name", HEURISTICS)
def test_choices_are_legal(name, decisions):
    slots, (cut, node) = draw_slots(SMALL), decisions[name]
    assert cut.shape == node.shape == (BATCH, 3)
    assert ((cut >= 0) & (cut <= np.array([3, 2, 3]))).all()
    reached = np.take_along_axis(np.asarray(slots.allowed), node[..., None], axis=-1)[..., 0]
    assert reached.all()


@pytest.fixture(scope="module")
def every_decision():
    """(cut [D, I], node [D, I], P2 [BATCH, D], infinite where forbidden) of all decisions in all slots."""
    slots = draw_slots(SMALL)
    choices = [list(itertools.product(range(SMALL.profiles[kind].depth + 1), range(3))) for kind in SMALL.kinds]
    joint = np.array(list(itertools.product(*choices)))
    cut, node = joint[..., 0], joint[..., 1]
    one_slot = jax.vmap(lambda s, c, n: decide_slot(SMALL, s, c, n).objective, (None, 0, 0))
    cost = np.asarray(jax.jit(jax.vmap(one_slot, (0, None, None)))(slots, cut, node))
    legal = np.asarray(slots.allowed)[:, np.arange(3)[None, :], node].all(axis=-1)
    return cut, node, np.where(legal, cost, np.inf)


def costs_of(decision, every):
    cut, node, cost = every
    found = (cut[None] == decision[0][:, None]) & (node[None] == decision[1][:, None])
    index = np.argmax(found.all(axis=-1), axis=1)
    assert found.all(axis=-1).any(axis=1).all()
    return cost[np.arange(BATCH), index]


def test_the_genetic_search_finds_the_best_of_all_decisions_of_a_small_task(decisions, every_decision):
    found = costs_of(decisions["genetic"], every_decision)
    chance = costs_of(decisions["random_feasible"], every_decision)
    best = every_decision[2].min(axis=1)
    np.testing.assert_allclose(found, best, rtol=1e-4, atol=0.5)
    assert (chance > best + 1.0).mean() > 0.8


def test_after_coordinate_descent_no_client_alone_can_do_better(decisions, every_decision):
    cut, node, cost = every_decision
    decision = decisions["coordinate_descent"]
    found = costs_of(decision, every_decision)
    same = (cut[None] == decision[0][:, None]) & (node[None] == decision[1][:, None])  # [BATCH, D, I]
    one_apart = same.sum(axis=-1) >= SMALL.num_clients - 1
    best_near = np.where(one_apart, cost, np.inf).min(axis=1)
    np.testing.assert_allclose(found, best_near, rtol=1e-4, atol=0.5)


def test_greedy_cuts_before_the_smallest_input_and_takes_the_shortest_queue_in_reach():
    queues = Queues(jnp.zeros(3), jnp.array([5.0, 1.0, 7.0]), jnp.array([2.0, 3.0, 4.0, 6.0, 8.0]))
    allowed = jnp.ones((3, 6), bool).at[0, 1].set(False)
    slot = Slot(queues, jnp.ones((3, 6)), allowed, jnp.ones(3), jnp.ones(5))
    cut, node = HEURISTICS["greedy"](jax.random.key(0), PUBLISHED, slot)
    names = [PUBLISHED.profiles[k].layers[c] for k, c in zip(PUBLISHED.kinds, np.asarray(cut), strict=True)]
    assert names == ["fc7", "fc", "fc7"]
    assert node.tolist() == [2, 0, 1]


def test_greedy_by_delay_is_that_of_plain_loops(decisions):
    cut, node = decisions["greedy_delay"]
    flat = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), draw_slots(SMALL))
    moved = 0
    for b in range(BATCH):
        sent = []
        for i, kind in enumerate(SMALL.kinds):
            profile, best = SMALL.profiles[kind], (np.inf, 0, 0)
            for c, j in itertools.product(range(profile.depth + 1), range(3)):
                if not flat.allowed[b, i, j]:
                    continue
                head, tail = sum(profile.work_gflop[:c]), sum(profile.work_gflop[c:])
                delay = (flat.queues.local[b, i] + head) / flat.client_ghz[b, i] if c else 0.0
                if c < profile.depth:
                    speed = flat.server_ghz[b, j - 1] if j else SMALL.rsu_ghz / 2
                    waits = flat.queues.server[b, j - 1] if j else flat.queues.rsu[b, kind]
                    before = sum(t for k, n, t in sent if n == j and (j or k == kind))
                    delay += 8 * profile.data_mb[c] / flat.rate[b, i, j] + (waits + tail + before / 2) / speed
                if delay < best[0]:
                    best = delay, c, j
            assert (cut[b, i], node[b, i]) == best[1:]
            sent.append((kind, best[2], sum(profile.work_gflop[best[1] :])))
            moved += best[1] < profile.depth
    assert BATCH < moved < 3 * BATCH


def mean_delay(name, episodes):
    """Seconds per task over 30 slots with vehicles that keep their distances; queues start empty."""
    rng = np.random.default_rng(0)
    place = rng.uniform(-300, 300, (episodes, 8))
    place -= place.mean(axis=1, keepdims=True)
    own = place[:, :3, None]
    distance = np.concatenate([np.sqrt(own**2 + 20**2), np.abs(own - place[:, None, 3:])], axis=-1)
    client, server = rng.uniform(4, 6, (episodes, 3)), rng.uniform(6, 8, (episodes, 5))
    fading = rng.exponential(size=(30, episodes, 3, 6))

    def episode(key, distance, client, server, fading):
        allowed = reachable(PUBLISHED, distance)

        def step(queues, inputs):
            slot = Slot(queues, rates(PUBLISHED, distance, inputs[1]), allowed, client, server)
            outcome = decide_slot(PUBLISHED, slot, *HEURISTICS[name](inputs[0], PUBLISHED, slot))
            return outcome.queues, outcome.delay

        return jax.lax.scan(step, empty_queues(PUBLISHED), (jax.random.split(key, 30), fading))[1]

    keys = jax.random.split(jax.random.key(1), episodes)
    inputs = (jnp.asarray(array, jnp.float32) for array in (distance, client, server))
    run = jax.jit(jax.vmap(episode, (0, 0, 0, 0, 1)))
    return float(np.mean(run(keys, *inputs, jnp.asarray(fading, jnp.float32))))


@pytest.mark.parametrize(
    ("name", "expected", "episodes", "tolerance"),
    [("all_local", 36.1, 64, 0.03), ("random_feasible", 20.1, 64, 0.1), ("coordinate_descent", 1.81, 4, 0.2)],
)
def test_delays_are_near_those_of_another_simulator(name, expected, episodes, tolerance):
    assert mean_delay(name, episodes) == pytest.approx(expected, rel=tolerance)


def test_unknown_rules_and_sizes_out_of_range_are_refused():
    slot = jax.tree.map(lambda leaf: leaf[0], draw_slots(SMALL))
    with pytest.raises(KeyError, match="rule of greedy 'delays'"):
        heuristics.greedy(jax.random.key(0), SMALL, slot, rule="delays")
    with pytest.raises(ValueError, match="population=2, generations=5"):
        heuristics.genetic(jax.random.key(0), SMALL, slot, population=2, generations=5)
