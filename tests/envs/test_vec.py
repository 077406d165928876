"""Vehicular edge computing: against the task written in numpy, masks, where vehicles are, what is refused."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.envs import auto_reset, discrete, make
from jaxdiff.envs.vec import make_system, road, vec
from jaxdiff.offloading import Layer, legal, make_profile

SMALL = {"num_clients": 3, "num_servers": 2, "max_episode_steps": 4}


@pytest.fixture(scope="module")
def small():
    """An environment of which reset and step are compiled once."""
    env = vec(**SMALL)
    return env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))


def numpy_slot(networks, state, cut, node):
    """Delays, next queues and P2 of a slot from the printed equations, one client after another; float64."""
    works, datas = networks
    slot = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), state.slot)
    kinds = [i % 3 for i in range(len(cut))]
    head = [sum(works[k][:c]) for k, c in zip(kinds, cut, strict=True)]
    tail = [sum(works[k][c:]) for k, c in zip(kinds, cut, strict=True)]
    sent = [c < len(works[k]) for k, c in zip(kinds, cut, strict=True)]
    share = np.asarray(state.next_rsu_ghz, np.float64)  # P3 has tests of its own
    delay = np.zeros(len(cut))
    for i, k in enumerate(kinds):
        if cut[i] > 0:
            delay[i] += (slot.queues.local[i] + head[i]) / slot.client_ghz[i]
        if not sent[i]:
            continue
        delay[i] += 8.0 * datas[k][cut[i]] / slot.rate[i, node[i]]
        at_rsu = node[i] == 0
        speed = share[k] if at_rsu else slot.server_ghz[node[i] - 1]
        queue = slot.queues.rsu[k] if at_rsu else slot.queues.server[node[i] - 1]
        others = sum(tail[j] for j in range(len(cut))
                     if j != i and sent[j] and node[j] == node[i] and (kinds[j] == k or not at_rsu))  # fmt: skip
        delay[i] += (queue + tail[i]) / speed + 0.5 * others / speed
    came_rsu = np.array([sum(tail[i] for i in range(len(cut)) if sent[i] and node[i] == 0 and kinds[i] == k)
                         for k in range(3)])  # fmt: skip
    came_server = np.array([sum(tail[i] for i in range(len(cut)) if sent[i] and node[i] == j + 1) for j in range(2)])
    queues = (slot.queues.local, slot.queues.rsu, slot.queues.server)
    change = (np.array(head) - slot.client_ghz, came_rsu - share, came_server - slot.server_ghz)
    objective = 10.0 * delay.sum() + sum((q * c).sum() for q, c in zip(queues, change, strict=True))
    return delay, [np.maximum(q + c, 0.0) for q, c in zip(queues, change, strict=True)], objective


@pytest.mark.usefixtures("x64")
def test_slots_follow_the_equations():
    env, system = vec(**SMALL, reward_scale=0.5), make_system(num_clients=3, num_servers=2)
    networks = [p.work_gflop for p in system.profiles], [p.data_mb for p in system.profiles]
    step = jax.jit(env.step)
    state, obs = jax.jit(env.reset)(jax.random.key(3))
    rng = np.random.default_rng(0)
    for _ in range(4):
        mask = np.asarray(obs[:, -system.num_actions :])
        choice = np.array([rng.choice(np.flatnonzero(row)) for row in mask])
        cut, node = choice // 3, choice % 3
        before = state
        state, timestep = step(state, discrete.encode_onehot(choice, system.num_actions))
        with_share = types.SimpleNamespace(slot=before.slot, next_rsu_ghz=state.outcome.rsu_ghz)
        delay, queues, objective = numpy_slot(networks, with_share, cut, node)
        np.testing.assert_allclose(state.outcome.delay, delay, rtol=1e-6)
        now = state.slot.queues
        for got, expected in zip((now.local, now.rsu, now.server), queues, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(timestep.reward, np.full(3, -0.5 * objective), rtol=1e-6)
        position = np.asarray(state.positions)
        expected = np.concatenate([
            np.log1p(queues[0])[:, None], np.log1p(queues[1])[[0, 1, 2], None], np.tile(np.log1p(queues[2]), (3, 1)),
            position[:3, None] / 300.0, np.tile(position[3:] / 300.0, (3, 1)),
        ], axis=1)  # fmt: skip
        assert expected.shape == (3, 2 * 3 + 1)
        np.testing.assert_allclose(timestep.obs[:, :7], expected, rtol=1e-6, atol=1e-6)
        near = np.abs(position[:3, None] - position[None, 3:]) <= 150.0
        allowed = np.concatenate([np.ones((3, 1), bool), near], axis=1)
        depth = np.array([11, 12, 21])
        expected = [[allowed[i, a % 3] and a // 3 <= depth[i] for a in range(66)] for i in range(3)]
        np.testing.assert_array_equal(timestep.obs[:, 7:], np.array(expected, float))
    assert timestep.truncated
    assert not timestep.terminated


def test_sizes_follow_from_who_is_there():
    spec = make("vec").spec
    assert (spec.num_agents, spec.num_actions, spec.obs_dim) == (5, 22 * 4, 2 * 4 + 1 + 22 * 4)
    alone = vec(num_clients=1, num_servers=0, profiles=("alexnet",))
    assert (alone.spec.num_actions, alone.spec.obs_dim) == (12, 3 + 12)
    state, obs = jax.eval_shape(alone.reset, jax.random.key(0))
    assert obs.shape == (1, 15)
    after, timestep = jax.eval_shape(alone.step, state, jnp.zeros((1, 12)))
    assert (timestep.reward.shape, after.outcome.queues.server.shape) == ((1,), (0,))
    assert vec(num_clients=4, clients_per_type=(0, 1, 3)).facts["kinds"] == [1, 2, 2, 2]


def test_what_is_forbidden_is_not_done(small):
    state, _ = small.reset(jax.random.key(0))
    state = state.replace(slot=state.slot.replace(allowed=jnp.array([[True, False, False]] * 3)))
    # Best of all: the last node and a cut that only the deepest network has; next the second layer at the RSU.
    scores = jnp.full((3, 66), -1.0).at[:, 65].set(1.0).at[:, 3].set(0.5)
    after, _ = small.step(state, scores)
    assert (after.slot.queues.server == 0).all()
    assert (after.outcome.arrivals.rsu > 0).all()
    allowed = legal(make_system(num_clients=3, num_servers=2), state.slot.allowed)
    assert allowed.sum(axis=1).tolist() == [12, 13, 22]


def test_vehicles_stay_in_coverage_and_the_fleet_over_the_unit():
    way = road.straight(6, 300.0, 1.0)

    def drive(key):
        return jax.lax.scan(lambda t, _: (way.move(t), t.position), way.start(key), None, length=31)

    last, seen = jax.jit(jax.vmap(drive))(jax.random.split(jax.random.key(0), 64))
    assert np.abs(seen).max() <= 300.0
    inside = np.abs(seen).max(axis=(1, 2)) < 299.9  # of fleets that were never clipped
    assert inside.sum() > 5
    np.testing.assert_allclose(np.asarray(seen)[inside].mean(axis=-1), 0.0, atol=1e-3)
    speed, moved = np.asarray(last.speed)[inside], np.asarray(seen)[inside]
    drift = (speed - speed.mean(axis=-1, keepdims=True)) * 30
    np.testing.assert_allclose(moved[:, 30] - moved[:, 0], drift, atol=1e-2)
    assert abs(np.asarray(last.speed).mean() - 25.0) < 5 * 2 / np.sqrt(64 * 6)


def test_a_trace_is_followed_from_a_random_row():
    rng = np.random.default_rng(0)
    trace = rng.uniform(-290, 290, (9, 5))
    env = vec(**SMALL, trace=trace)

    def drive(key):
        state, _ = env.reset(key)
        scores = jnp.zeros((4, 3, env.spec.num_actions))
        seen = jax.lax.scan(lambda s, a: (lambda n: (n, n.positions))(env.step(s, a)[0]), state, scores)[1]
        return jnp.concatenate([state.positions[None], seen])

    seen = np.asarray(jax.jit(jax.vmap(drive))(jax.random.split(jax.random.key(0), 40)))
    starts = [int(np.argmin(np.abs(trace - episode[0]).sum(axis=1))) for episode in seen]
    assert set(starts) == set(range(5))
    for start, episode in zip(starts, seen, strict=True):
        np.testing.assert_allclose(episode, trace[start : start + 5], rtol=1e-6)
    moving = trace + 1000.0
    fleet = road.recorded(moving, 5, 600.0, 4, "fleet").start(jax.random.key(1))
    np.testing.assert_allclose(fleet.position.mean(), 0.0, atol=1e-3)


def test_a_lane_may_bring_its_own_weight_of_delays(small):
    env = vec(**SMALL)
    assert env.bind(types.SimpleNamespace(lr=1.0)) is env
    state, _ = small.reset(jax.random.key(0))
    all_local = jnp.full((3, 66), -1.0).at[np.arange(3), np.array([11, 12, 21]) * 3].set(1.0)

    def outcome(weight):
        return env.bind(types.SimpleNamespace(lyapunov_weight=weight)).step(state, all_local)[0].outcome

    light, heavy = map(jax.jit(outcome), (10.0, 50.0))
    assert light.delay.min() > 0
    np.testing.assert_allclose(heavy.penalty, 5.0 * light.penalty, rtol=1e-6)
    np.testing.assert_allclose(light.penalty, small.step(state, all_local)[0].outcome.penalty, rtol=1e-6)
    assert auto_reset(env).bind is not None


@pytest.mark.parametrize(("convention", "expected"), [("lit", 36.1), ("std", 27.9)])
def test_doing_everything_locally_takes_as_long_as_in_the_reference_simulator(convention, expected):
    """3 clients and 5 vehicles over 30 slots; 20 episodes there, 128 here."""
    env = vec(num_clients=3, num_servers=5, convention=convention)
    all_local = jnp.full((3, env.spec.num_actions), -1.0).at[np.arange(3), np.array([11, 12, 21]) * 6].set(1.0)

    def episode(key):
        state = env.reset(key)[0]
        return jax.lax.scan(lambda s, _: (lambda n: (n, n.outcome.delay))(env.step(s, all_local)[0]), state, length=30)

    delays = np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 128))[1]).mean(axis=(1, 2))
    error = delays.std() * np.sqrt(1 / 20 + 1 / 128)
    assert abs(delays.mean() - expected) < 3 * error + 0.05


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"coverage": 0.0}, ValueError, "coverage=0.0 must be positive"),
        ({"reward_scale": -1.0}, ValueError, "reward_scale=-1.0 must be positive"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps=0 must be at least 1"),
        ({"profiles": ("alexnot",)}, KeyError, "unknown network 'alexnot'; did you mean 'alexnet'"),
        ({"convention": "list"}, KeyError, "unknown convention of counting 'list'"),
        ({"v": -1.0}, ValueError, "v=-1.0 must be finite and above 0"),
        ({"constants": {"rsu_ghz": -1.0}}, ValueError, "rsu_ghz=-1.0 must be finite and above 0"),
        ({"constants": {"rsu_gzh": 1.0}}, KeyError, "unknown constant of vec 'rsu_gzh'; did you mean 'rsu_ghz'"),
        ({"clients_per_type": (1, 1, 1)}, ValueError, "sums to 3; it needs one for each of 3 networks.*num_clients=5"),
        ({"clients_per_type": (3, 2)}, ValueError, "has 2 entries"),
        ({"trace": np.zeros((31, 7))}, ValueError, r"trace has shape \(31, 7\); \(slots, 8\) is needed"),
        ({"trace": np.zeros((30, 8))}, ValueError, "trace has 30 rows; an episode of 30 slots needs 31"),
        ({"trace": np.full((31, 8), np.nan)}, ValueError, "x of vehicle 0 in row 0 is nan"),
        ({"trace": np.full((31, 8), 301.0)}, ValueError, 'is 301 m from the roadside unit.*trace_origin="fleet"'),
        ({"trace": np.zeros((31, 8)), "trace_origin": "flet"}, KeyError, "unknown trace_origin 'flet'"),
    ],
)
def test_what_does_not_go_together_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        vec(**options)


def test_a_profile_of_ones_own_stands_beside_named_ones():
    own = make_profile("own", [Layer("fc1", "fc", (10,), 10), Layer("fc2", "fc", (10,), 2)])
    env = vec(num_clients=2, num_servers=0, profiles=("resnet18", own))
    assert env.facts["networks"] == ["resnet18", "own"]
    assert env.facts["depths"] == [12, 2]
