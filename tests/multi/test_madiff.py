"""MADiff: what is known of a plan, what counts in its loss, and who listens to whom while acting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.planner import PlannerConfig, Team, agents_apart, agents_together, make_planner
from jaxdiff.data import Dataset, Segments
from jaxdiff.multi import madiff
from jaxdiff.multi.egos import of_ego, of_everyone
from jaxdiff.types import Spec, Transition

A, B, T, DIM = 3, 4, 4, 2
SPEC = Spec("team", obs_dim=DIM, action_dim=2, max_episode_steps=8, num_agents=A)
PLANNER = PlannerConfig("agent_transformer", width=8, depth=1, horizon=T, num_levels=2, num_steps=2)
CONFIG = madiff.Config(planner=PLANNER, inverse_hidden=(8,), normaliser="gaussian")
KNOBS = jax.tree.map(np.float32, madiff.HParams())


def batch_of(length=T, seed=0):
    rng = np.random.default_rng(seed)
    return Segments(
        obs=jnp.asarray(rng.normal(size=(B, length, A, DIM)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(B, length, A, 2)), jnp.float32),
        mask=jnp.ones((B, length)),
        return_to_go=jnp.asarray(rng.uniform(size=(B, A)), jnp.float32),
    )


def start_of(config, spec=SPEC):
    """The algorithm and a state whose agents do attend to one another."""
    algorithm = madiff.make(config, spec)
    state = jax.jit(algorithm.init)(jax.random.key(0), KNOBS)

    def open_gain(path, leaf):
        return jnp.ones_like(leaf) if "gain" in jax.tree_util.keystr(path) else leaf

    opened = jax.tree_util.tree_map_with_path(open_gain, state.params)
    return algorithm, dataclasses.replace(state, params=opened, target_params=jax.tree.map(jnp.copy, opened))


@pytest.fixture(scope="module", params=["decentralised", "centralised"])
def team(request):
    config = dataclasses.replace(CONFIG, execution=request.param, history=2)
    algorithm, state = start_of(config)
    return request.param, algorithm, state, jax.jit(algorithm.act)


def test_egos_draw_noise_of_their_own_unless_all_draw_the_first_ones():
    def act(shared_noise):
        config = dataclasses.replace(CONFIG, shared_noise=shared_noise)
        algorithm, state = start_of(config)
        obs = jnp.ones((B, A, DIM))
        return np.asarray(jax.jit(algorithm.act)(jax.random.key(1), state, obs, algorithm.init_memory((B,)))[0])

    own, common = act(shared_noise=False), act(shared_noise=True)
    np.testing.assert_array_equal(own[:, :, 0], common[:, :, 0])
    assert (own[:, :, 1:] != common[:, :, 1:]).any(axis=-1).all()


def test_a_plan_begins_with_what_was_seen(team):
    name, algorithm, state, act = team
    obs = batch_of().obs
    _, memory = act(jax.random.key(1), state, obs[:, 0], algorithm.init_memory((B,)))
    _, memory = act(jax.random.key(2), state, obs[:, 1], memory)
    x = np.asarray(memory.x)
    for i in range(A):
        rows = (x if name == "centralised" else x[:, i]).reshape(B, T, A, DIM)
        np.testing.assert_array_equal(rows[:, 0, i], obs[:, 0, i])
        np.testing.assert_array_equal(rows[:, 1, i], obs[:, 1, i])
        if name != "centralised":
            others = [j for j in range(A) if j != i]
            assert (rows[:, 0, others] == 0.0).all()
            assert (rows[:, 1, others] != 0.0).all()


@pytest.mark.parametrize("teammates", [True, False])
def test_what_an_ego_knows_is_what_the_paper_masks(teammates):
    history, horizon = 2, 4
    past = np.random.default_rng(0).normal(size=(B, history, DIM)).astype(np.float32)
    ego = np.asarray([0, 1, 2, 1])
    known = of_ego(jnp.asarray(past), jnp.asarray(ego), A, horizon, teammates=teammates)
    mask, values = (np.asarray(part).reshape(B, horizon, A, DIM) for part in known)
    for b in range(B):
        for t in range(horizon):
            for i in range(A):
                own = i == ego[b]
                given = t < history if own else (t < history - 1 or not teammates)
                assert (mask[b, t, i] == given).all()
                expected = past[b, t] if own and t < history else np.zeros(DIM)
                np.testing.assert_array_equal(values[b, t, i], expected)


def test_everyone_knows_all_rows_up_to_the_present():
    past = np.random.default_rng(0).normal(size=(B, 2, A, DIM)).astype(np.float32)
    known = of_everyone(jnp.asarray(past), 4)
    mask, values = (np.asarray(part).reshape(B, 4, A, DIM) for part in known)
    assert mask[:, :2].all()
    assert not mask[:, 2:].any()
    np.testing.assert_array_equal(values[:, :2], past)


@pytest.mark.parametrize("patch", [1, 2])
def test_agents_are_taken_apart_and_put_together_again(patch):
    x = np.arange(2 * 4 * A * DIM, dtype=np.float32).reshape(2, 4, A * DIM)
    apart = np.asarray(agents_apart(jnp.asarray(x), A, patch))
    for token in range(4 // patch):
        for i in range(A):
            steps = [x[:, token * patch + k].reshape(2, A, DIM)[:, i] for k in range(patch)]
            np.testing.assert_array_equal(apart[:, token, i], np.concatenate(steps, axis=-1))
    np.testing.assert_array_equal(agents_together(jnp.asarray(apart), patch), x)


def test_rows_that_are_known_get_no_gradient_and_the_rest_does():
    planner = make_planner(PLANNER, A * DIM, (1,), Team(A, attention=True))
    params = jax.jit(planner.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    x0 = jnp.asarray(rng.normal(size=(B, T, A * DIM)), jnp.float32)
    known = of_ego(jnp.zeros((B, 1, DIM)), jnp.asarray([0, 1, 2, 0]), A, T, teammates=True)
    cond = (jnp.ones((B, A, 1)), jnp.ones((B, A, 1)))

    def loss(x0):
        return planner.loss(jax.random.key(1), params, x0, cond, known, jnp.ones((T, A * DIM))).sum()

    gradient = np.asarray(jax.jit(jax.grad(loss))(x0))
    mask = np.asarray(jnp.broadcast_to(known.mask, x0.shape))
    assert (gradient[mask] == 0.0).all()
    assert (gradient[~mask] != 0.0).all()


@pytest.mark.parametrize("changes", [{}, {"teammates": False, "shared_inverse": False}])
def test_updates_lower_the_loss_and_move_what_they_should(changes):
    algorithm, state = start_of(dataclasses.replace(CONFIG, **changes))
    rows = batch_of(8)
    flat = Transition(*(jnp.moveaxis(x, 1, 0)[:, 0] for x in (rows.obs, rows.action)), jnp.ones((8, A)),
                      jnp.ones((8, A)), rows.obs[0])  # fmt: skip
    dataset = Dataset(flat, jnp.repeat(jnp.arange(2, dtype=jnp.int32), 4))
    state = jax.jit(algorithm.fit)(state, dataset)
    update = jax.jit(lambda k, state: algorithm.update(jax.random.key(k), state, batch_of()))
    first = state
    losses = []
    for k in range(60):
        state, metrics = update(k, state)
        losses.append(float(metrics["inverse_loss"]))
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), first.params, state.params)
    assert all(jax.tree.leaves(moved))
    ranks = {leaf.ndim for leaf in jax.tree.leaves(state.params["inverse"])}
    assert ranks == ({1, 2} if changes.get("shared_inverse", True) else {2, 3})


def test_discrete_actions_are_learned_among_those_that_are_allowed():
    spec = dataclasses.replace(SPEC, action_dim=3, num_actions=3, obs_dim=5, mask_dim=3)
    algorithm, state = start_of(CONFIG, spec)
    rng = np.random.default_rng(0)
    allowed = np.asarray([1.0, 0.0, 1.0])
    obs = np.concatenate([rng.normal(size=(B, T, A, 2)), np.broadcast_to(allowed, (B, T, A, 3))], axis=-1)
    taken = 2.0 * np.eye(3)[rng.choice([0, 2], size=(B, T, A))] - 1.0
    batch = batch_of().replace(obs=jnp.asarray(obs, jnp.float32), action=jnp.asarray(taken, jnp.float32))
    state, metrics = jax.jit(algorithm.update)(jax.random.key(0), state, batch)
    assert float(metrics["inverse_loss"]) == pytest.approx(np.log(2.0), abs=0.5)
    action, _ = jax.jit(algorithm.act)(jax.random.key(1), state, batch.obs[:, 0], algorithm.init_memory((B,)))
    assert action.shape == (B, 1, A, 3)
    np.testing.assert_allclose((np.asarray(action) + 1.0).sum(axis=-1) / 2.0, 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "spec", "message"),
    [
        ({}, dataclasses.replace(SPEC, num_agents=None), "team has no agents.*a method of one agent"),
        ({"history": 4}, SPEC, "history=4; both must be at least 1, and the history shorter than horizon=4"),
        ({"execution": "centralised", "shared_noise": True}, SPEC, "one plan has one noise"),
    ],
)
def test_what_cannot_be_is_refused(changes, spec, message):
    with pytest.raises(ValueError, match=message):
        madiff.make(dataclasses.replace(CONFIG, **changes), spec)


def test_unknown_executions_are_answered_with_the_known():
    with pytest.raises(KeyError, match="unknown execution 'central'.*centralised"):
        madiff.make(dataclasses.replace(CONFIG, execution="central"), SPEC)
