"""Wrappers over agents: each is compared with the single-agent method on rows arranged by plain loops."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.data import Dataset, Segments, Windows
from jaxdiff.multi import WRAPPERS, wrapped
from jaxdiff.multi.batches import fold, side_by_side, split, with_own_rewards
from jaxdiff.types import Spec, Transition

A, B = 3, 4
SPEC = Spec("team", obs_dim=2, action_dim=2, max_episode_steps=8, num_agents=A)
DIFFUSION = ALGORITHMS["diffusion_bc"]
CONFIG = DIFFUSION.Config(policy=PolicyConfig(hidden=(8,), kind="x0", num_levels=2, num_steps=2, time_dim=4))


def hparams(module, **changes):
    return jax.tree.map(np.float32, module.HParams(**changes))


def make_batch(seed=0, team_reward=False):
    rng = np.random.default_rng(seed)
    numbers = (B,) if team_reward else (B, A)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(B, A, 2)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(B, A, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=numbers), jnp.float32),
        discount=jnp.ones(numbers, jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(B, A, 2)), jnp.float32),
    )


@functools.cache
def trained(name):
    """A diffusion policy under a wrapper, after one update: state, metrics, action of an observation [B, A, O]."""
    algorithm = wrapped(name, DIFFUSION.make, CONFIG, SPEC)
    state = jax.jit(algorithm.init)(jax.random.key(0), hparams(DIFFUSION))
    state, metrics = jax.jit(algorithm.update)(jax.random.key(1), state, make_batch())
    act = jax.jit(lambda obs: algorithm.act(jax.random.key(2), state, obs, algorithm.init_memory((B,)))[0])
    return state, metrics, act


@pytest.fixture(scope="module", params=list(WRAPPERS))
def team(request):
    """Of each wrapper: name, state, metrics, action."""
    return request.param, *trained(request.param)


def test_a_team_has_one_count_one_set_of_knobs_and_scalar_metrics(team):
    _, state, metrics, act = team
    assert state.step.shape == ()
    assert all(leaf.shape == () for leaf in jax.tree.leaves((state.hparams, metrics)))
    assert act(make_batch().obs).shape == (B, 1, A, 2)


def test_only_a_joint_policy_listens_to_the_others(team):
    name, _, _, act = team
    obs = make_batch(1).obs
    changed = obs.at[:, 1].add(1.0)
    before, after = act(obs), act(changed)
    others = [0, 2]
    assert (np.asarray(before[:, :, 1]) != np.asarray(after[:, :, 1])).any()
    assert (np.asarray(before[:, :, others]) == np.asarray(after[:, :, others])).all() == (name != "joint")


def test_agents_start_apart_when_independent_and_as_one_when_not(team):
    name, state, _, _ = team
    kernels = [leaf for leaf in jax.tree.leaves(state.params) if leaf.ndim == (3 if name == "independent" else 2)]
    assert kernels
    if name == "independent":
        assert all(leaf.shape[0] == A and (leaf[0] != leaf[1]).any() for leaf in kernels)


def test_independent_agents_are_as_many_lone_ones():
    (new, metrics, _), batch = trained("independent"), make_batch()
    lone = DIFFUSION.make(CONFIG, SPEC)
    init, update, losses = jax.jit(lone.init), jax.jit(lone.update), []
    for i in range(A):
        start = init(jax.random.split(jax.random.key(0), A)[i], hparams(DIFFUSION))
        rows = Transition(*(getattr(batch, field.name)[:, i] for field in dataclasses.fields(batch)))
        alone, its_metrics = update(jax.random.split(jax.random.key(1), A)[i], start, rows)
        losses.append(its_metrics["bc_loss"])
        for together, single in zip(jax.tree.leaves(new.params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(together[i], single, atol=1e-6)
    np.testing.assert_allclose(metrics["bc_loss"], np.mean(losses), rtol=1e-5)


def test_shared_noise_makes_equal_agents_act_alike():
    state, _, _ = trained("independent")
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), state.target_params)
    state = dataclasses.replace(state, target_params=same)

    def actions(shared_noise):
        team = wrapped("independent", DIFFUSION.make, CONFIG, SPEC, shared_noise=shared_noise)
        return np.asarray(jax.jit(team.act)(jax.random.key(1), state, jnp.ones((B, A, 2)), ())[0][:, 0])

    common, own = actions(True), actions(False)
    np.testing.assert_array_equal(common[:, 0], common[:, 1])
    assert np.abs(own[:, 0] - own[:, 1]).max() > 1e-3


@pytest.mark.parametrize("team_reward", [False, True])
def test_batches_are_arranged_agent_by_agent(team_reward):
    batch = make_batch(team_reward=team_reward)
    shares, folded, big = split(batch, A), fold(batch, A), side_by_side(batch)
    for i in range(A):
        for b in range(B):
            reward = batch.reward[b] if team_reward else batch.reward[b, i]
            assert shares.reward[i, b] == folded.reward[i * B + b] == reward
            np.testing.assert_array_equal(shares.obs[i, b], batch.obs[b, i])
            np.testing.assert_array_equal(folded.obs[i * B + b], [*batch.obs[b, i], *np.eye(A)[i]])
            np.testing.assert_array_equal(folded.action[i * B + b], batch.action[b, i])
            np.testing.assert_array_equal(big.next_obs[b, 2 * i : 2 * i + 2], batch.next_obs[b, i])
    np.testing.assert_allclose(big.reward, batch.reward if team_reward else batch.reward.mean(axis=1))


@pytest.mark.parametrize("team_reward", [False, True])
def test_a_reward_of_the_team_is_everyones_and_ones_own_stays(team_reward):
    batch = make_batch(team_reward=team_reward)
    own = with_own_rewards(batch, A)
    for i in range(A):
        np.testing.assert_array_equal(own.reward[:, i], batch.reward if team_reward else batch.reward[:, i])
        np.testing.assert_array_equal(own.discount[:, i], batch.discount if team_reward else batch.discount[:, i])


def test_stretches_and_windows_have_their_agents_on_the_same_axes():
    rng = np.random.default_rng(0)
    obs, action = jnp.asarray(rng.normal(size=(B, 5, A, 2))), jnp.asarray(rng.normal(size=(B, 5, A, 1)))
    stretches = split(Segments(obs, action, jnp.ones((B, 5)), jnp.asarray(rng.normal(size=(B, A)))), A)
    np.testing.assert_array_equal(stretches.obs[1], obs[:, :, 1])
    assert (stretches.mask.shape, stretches.return_to_go.shape) == ((A, B, 5), (A, B))
    reward = jnp.asarray(rng.normal(size=(B, 5, A)))
    windows = split(Windows(obs, action, reward, jnp.ones(B, jnp.int32), jnp.ones((B, A)), obs), A)
    np.testing.assert_array_equal(windows.reward[2], reward[..., 2])
    assert (windows.length.shape, windows.discount.shape) == ((A, B), (A, B))


def run(function, *args):
    return jax.jit(function)(*args)


@pytest.mark.parametrize("name", list(WRAPPERS))
def test_planners_measure_units_train_and_act_under_every_wrapper(name):
    module = ALGORITHMS["diffuser"]
    planner = PlannerConfig("lstm", width=8, depth=1, horizon=4, num_levels=2, num_steps=2)
    config = module.Config(planner=planner, value=False, guidance="none", normaliser="limits")
    team = wrapped(name, module.make, config, SPEC)
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.uniform(-1, 1, size=(12, A, 2)) * np.asarray([1.0, 2.0, 4.0])[:, None], jnp.float32)
    rows = Transition(obs, jnp.tanh(obs), jnp.ones((12, A)), jnp.ones((12, A)), obs)
    dataset = Dataset(rows, jnp.repeat(jnp.arange(2, dtype=jnp.int32), 6))
    call = run if name == "independent" else jax.eval_shape  # arithmetic is the planner's own: one wrapper shows it
    state = call(lambda h: team.fit(team.init(jax.random.key(0), h), dataset), hparams(module))
    low = jax.tree.leaves(state.opt_state["data"].obs)[0]
    assert low.shape == {"independent": (A, 2), "shared": (2 + A,), "joint": (2 * A,)}[name]
    batch = Segments(obs[None, :4], jnp.tanh(obs)[None, :4], jnp.ones((1, 4)), jnp.ones((1, A)))
    state, metrics = call(team.update, jax.random.key(1), state, batch)
    assert all(value.shape == () for value in metrics.values())
    assert call is jax.eval_shape or all(np.isfinite(value) for value in metrics.values())
    memory = team.init_memory((2,))
    action, again = call(team.act, jax.random.key(2), state, obs[:2], memory)
    assert action.shape == (2, 1, A, 2)
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, memory)


def test_what_cannot_be_is_refused():
    with pytest.raises(KeyError, match="unknown agents 'independant'.*independent"):
        wrapped("independant", DIFFUSION.make, CONFIG, SPEC)
    with pytest.raises(ValueError, match="shared_noise=True; a joint policy draws for all at once"):
        wrapped("joint", DIFFUSION.make, CONFIG, SPEC, shared_noise=True)
    with pytest.raises(ValueError, match="learns from its own rollouts"):
        wrapped("shared", ALGORITHMS["dppo"].make, ALGORITHMS["dppo"].Config(), SPEC)
    with pytest.raises(ValueError, match=r"obs has shape \(4, 3, 2\), and the task has 2 agents"):
        split(make_batch(), 2)


def test_a_task_without_agents_gets_the_method_as_it_is():
    alone = wrapped("independent", DIFFUSION.make, CONFIG, dataclasses.replace(SPEC, num_agents=None))
    state = jax.eval_shape(alone.init, jax.random.key(0), hparams(DIFFUSION))
    action, _ = jax.eval_shape(alone.act, jax.random.key(1), state, jnp.ones((B, 2)), ())
    assert action.shape == (B, 1, 2)
