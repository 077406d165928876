"""What every method for teams promises: the protocol of the loops, and who may listen to whom while acting."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.data import Segments
from jaxdiff.multi import METHODS, dof_planner, dof_policy, independent
from jaxdiff.multi.team_policy import make_team_policy
from jaxdiff.multi.team_value import CriticConfig, make_team_value
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

A, B, T = 3, 4, 4
SPEC = Spec("team", obs_dim=3, action_dim=2, max_episode_steps=8, num_agents=A)
POLICY = PolicyConfig(hidden=(8,), kind="x0", num_levels=2, num_steps=2, time_dim=4)
PLANNER = PlannerConfig("agent_transformer", width=8, depth=1, horizon=T, num_levels=2, num_steps=2)
SMALL = {
    "policy": POLICY,
    "planner": PLANNER,
    "critic": CriticConfig(hidden=(8,), mixer_width=4, mixer_hidden=(4,)),
    "critic_hidden": (8,),
    "hidden": (8,),
    "num_steps": 2,
    "time_dim": 4,
    "mixer_width": 4,
    "mixer_hidden": (4,),
    "inverse_hidden": (8,),
    "normaliser": "gaussian",
}
CENTRAL = {"execution": "centralised"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    "madiff, centralised": ("madiff", CENTRAL),
    "dof_planner, wconcat": ("dof_planner", {"noise_factor": "wconcat"}),
    "dof_policy, qmix": ("dof_policy", {"value_factor": "qmix", "num_candidates": 2, "noise_factor": "wconcat"}),
    "dof_policy, vdn, shared": ("dof_policy", {"value_factor": "vdn", "share_params": True}),
    "mad2rl, vdn, shared": ("mad2rl", {"mixer": "vdn", "utility": "logits", "share_params": True}),
    "dof_policy, attention": ("dof_policy", {"value_factor": "central", "noise_factor": "attention", **CENTRAL}),
}
DISCRETE = dataclasses.replace(SPEC, num_actions=2)  # of which `mad2rl` compares the values
LISTENING = {"madiff, centralised", "dof_policy, attention"}


def config_of(module, **changes):
    names = {field.name for field in dataclasses.fields(module.Config)}
    small = {name: value for name, value in SMALL.items() if name in names}
    if module is METHODS["mac_flow"]:  # its policy is a flow
        small["policy"] = dataclasses.replace(module.Config().policy, hidden=(8,), num_steps=2)
    return module.Config(**small | changes)


def knobs(module, **changes):
    return jax.tree.map(np.float32, module.HParams(**changes))


def team_batch(seed=0):
    rng = np.random.default_rng(seed)
    obs, after = (jnp.asarray(rng.normal(size=(B, A, 3)), jnp.float32) for _ in range(2))
    action = jnp.asarray(rng.uniform(-1, 1, size=(B, A, 2)), jnp.float32)
    return Transition(obs, action, jnp.asarray(rng.normal(size=(B, A)), jnp.float32), jnp.ones((B, A)), after)


def team_stretches(seed=0):
    rng = np.random.default_rng(seed)
    obs = jnp.asarray(rng.normal(size=(B, T, A, 3)), jnp.float32)
    action = jnp.asarray(rng.uniform(-1, 1, size=(B, T, A, 2)), jnp.float32)
    return Segments(obs, action, jnp.ones((B, T)), jnp.asarray(rng.uniform(size=(B, A)), jnp.float32))


class Case(NamedTuple):
    name: str
    module: Any
    algorithm: Algorithm
    start: TrainState
    update: Callable[..., Any]
    act: Callable[..., Any]
    traces: list[None]

    def batch(self, seed=0):
        return team_batch(seed) if self.algorithm.window is None else team_stretches(seed)

    def action(self, obs, state=None, key=2):
        state = opened(self.start) if state is None else state
        return np.asarray(self.act(jax.random.key(key), state, obs, self.algorithm.init_memory((B,)))[0][:, 0])


def opened(state):
    """With every gain 1: agents of a new network do not attend to one another."""

    def one(path, leaf):
        return jnp.ones_like(leaf) if "gain" in jax.tree_util.keystr(path) else leaf

    return dataclasses.replace(state, target_params=jax.tree_util.tree_map_with_path(one, state.target_params))


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    name, changes = CASES[request.param]
    module = METHODS[name]
    algorithm = module.make(config_of(module, **changes), DISCRETE if name == "mad2rl" else SPEC)
    traces: list[None] = []

    def update(key, state, batch):
        traces.append(None)
        return algorithm.update(key, state, batch)

    start = jax.jit(algorithm.init)(jax.random.key(0), knobs(module))
    return Case(request.param, module, algorithm, start, jax.jit(update), jax.jit(algorithm.act), traces)


def test_an_update_counts_itself_keeps_the_knobs_and_is_traced_once(case):
    state, metrics = case.update(jax.random.key(1), case.start, case.batch())
    assert int(state.step) == 1
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), case.start)
    assert metrics
    assert all(value.shape == () and np.isfinite(value) for value in metrics.values())
    other = dataclasses.replace(state, hparams=knobs(case.module, lr=0.1))
    for k in range(2, 12):
        other, metrics = case.update(jax.random.key(k), other, case.batch(k))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((other.params, metrics)))
    assert len(case.traces) == 1


def test_agents_listen_to_one_another_only_where_execution_is_centralised(case):
    obs = team_batch().obs
    far = 100.0 if case.module is METHODS["mad2rl"] else 1.0  # enough to change the better one of two actions
    before, after = (case.action(obs.at[:, 1].multiply(by), key=3) for by in (far, -far))
    assert before.shape == (B, A, 2)
    assert (np.abs(before) <= 1.0).all()
    assert (before[:, 1] != after[:, 1]).any()
    changed = before[:, [0, 2]] != after[:, [0, 2]]
    assert changed.any() if case.name in LISTENING else not changed.any()


def test_dom2_acts_decentrally_as_any_wrapped_method():
    module = ALGORITHMS["dom2"]
    names = {field.name for field in dataclasses.fields(module.Config)}
    config = module.Config(**{k: v for k, v in SMALL.items() if k in names}, num_candidates=2)
    team = independent(module.make, config, SPEC)
    state = jax.jit(team.init)(jax.random.key(0), knobs(module))
    act = jax.jit(lambda obs: team.act(jax.random.key(1), state, obs, team.init_memory((B,)))[0][:, 0])
    obs = team_batch().obs
    before, after = np.asarray(act(obs)), np.asarray(act(obs.at[:, 1].add(1.0)))
    np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
    assert (before[:, 1] != after[:, 1]).any()


def test_the_null_branch_of_guidance_does_not_know_the_wanted_return():
    algorithm = dof_planner.make(config_of(dof_planner), SPEC)
    state = jax.jit(algorithm.init)(jax.random.key(0), knobs(dof_planner))
    act = jax.jit(algorithm.act)

    def action(scale, wanted):
        asked = dataclasses.replace(state, hparams=knobs(dof_planner, guidance_scale=scale, target_return=wanted))
        return np.asarray(act(jax.random.key(1), asked, team_batch().obs, algorithm.init_memory((B,)))[0])

    np.testing.assert_array_equal(action(0.0, 0.1), action(0.0, 0.9))
    assert (action(1.2, 0.1) != action(1.2, 0.9)).any()


def test_a_concatenated_loss_is_the_sum_of_the_agents_own():
    alone = make_policy(POLICY, dataclasses.replace(SPEC, num_agents=None))
    team = make_team_policy("concat", POLICY, SPEC)
    params, batch, key = jax.jit(team.init)(jax.random.key(0)), team_batch(), jax.random.key(1)
    together = jax.jit(lambda params: team.loss(key, params, batch.obs, batch.action).sum(axis=-1))
    np.testing.assert_array_equal(team.weights(params), np.ones(A))
    loss, total = jax.jit(alone.loss), 0.0
    for i in range(A):
        own = jax.tree.map(lambda x, i=i: x[i], params["net"])
        total = total + loss(jax.random.split(key, A)[i], own, batch.obs[:, i], batch.action[:, i])
    np.testing.assert_allclose(together(params), total, rtol=1e-5)


@pytest.mark.parametrize("value_factor", ["own", "qmix"])
def test_the_value_teaches_every_agents_policy(value_factor):
    algorithm = dof_policy.make(config_of(dof_policy, value_factor=value_factor), SPEC)
    start = jax.jit(algorithm.init)(jax.random.key(0), knobs(dof_policy))
    update = jax.jit(algorithm.update)

    def after(q_weight):
        state = dataclasses.replace(start, hparams=knobs(dof_policy, q_weight=q_weight))
        moments = update(jax.random.key(1), state, team_batch())[0].opt_state["policy"]
        return optax.tree.get(moments, "mu")["net"]  # a tenth of the gradient: Adam's first step keeps its sign only

    for with_value, without in zip(jax.tree.leaves(after(1.0)), jax.tree.leaves(after(0.0)), strict=True):
        assert ((with_value != without).reshape(A, -1).any(axis=1)).all()


def test_values_of_a_team_are_what_their_factor_says():
    params = {}
    values = {f: make_team_value(f, SMALL["critic"], SPEC) for f in ("own", "vdn", "qmix", "central")}
    batch = team_batch()
    for factor, value in values.items():
        params[factor] = jax.jit(value.init)(jax.random.key(0))
    own = values["own"].own(params["own"], batch.obs, batch.action)
    assert own.shape == (2, B, A)
    summed = values["vdn"].total({"own": params["own"]["own"]}, batch.obs, batch.action)
    np.testing.assert_allclose(summed[..., 0], own.sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(values["vdn"].rewards(batch.reward)[:, 0], batch.reward.mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(values["own"].rewards(batch.reward), batch.reward)
    for factor in ("qmix", "central"):
        assert values[factor].total(params[factor], batch.obs, batch.action).shape == (2, B, 1)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"noise_factor": "attention"}, ValueError, "^noise_factor='attention' cannot be executed decentralised"),
        ({"noise_factor": "qmix"}, ValueError, "^noise_factor='qmix' is a factor of values"),
        ({"noise_factor": "qmix", **CENTRAL}, ValueError, "^noise_factor='qmix' is a factor of values"),
        ({"value_factor": "central", "num_candidates": 2}, ValueError, "give 1 candidate"),
        ({"value_factor": "qplex"}, KeyError, "unknown value_factor 'qplex'"),
        ({"num_candidates": 0}, ValueError, "num_candidates=0; it must be at least 1"),
        ({"noise_factor": "attention", "shared_noise": True, **CENTRAL}, ValueError, "a joint policy draws once"),
    ],
)
def test_policies_that_cannot_be_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        dof_policy.make(config_of(dof_policy, **changes), SPEC)


def test_planners_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="^noise_factor='attention' cannot be executed decentralised"):
        dof_planner.make(config_of(dof_planner, noise_factor="attention"), SPEC)
    for execution in ("centralised", "decentralised"):
        with pytest.raises(ValueError, match="^noise_factor='qmix' is a factor of values"):
            dof_planner.make(config_of(dof_planner, noise_factor="qmix", execution=execution), SPEC)


@pytest.mark.parametrize("name", list(METHODS))
def test_methods_for_teams_refuse_tasks_without_agents(name):
    module = METHODS[name]
    with pytest.raises(ValueError, match="has no agents"):
        module.make(config_of(module), dataclasses.replace(SPEC, num_agents=None))
