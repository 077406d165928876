"""What every algorithm of the registry promises to the loops: shapes, purity, traced knobs, lanes."""

from collections.abc import Callable
import dataclasses
import functools
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.data import Segment, Segments
from jaxdiff.types import Algorithm, Rollout, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
BATCH = 8


class Entry(NamedTuple):
    """An algorithm at its smallest, with its functions compiled once for the whole module."""

    name: str
    module: ModuleType
    algorithm: Algorithm
    init: Callable[..., TrainState]
    donating: Callable[..., Any]  # update that takes the state's buffers for its result
    act: Callable[..., Any]
    traces: list[None]  # one for each time `donating` was traced

    def batch(self, seed: int = 0) -> Any:
        """Transitions; a rollout for a method that learns from its own decisions, stretches for a planner."""
        if isinstance(self.algorithm.window, Segment):
            return make_segments(self.algorithm.window.horizon, seed)
        return make_batch(seed) if self.algorithm.decide is None else make_rollout(self, seed)

    def update(self, key: jax.Array, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        return self.donating(key, jax.tree.map(jnp.copy, state), batch)  # type: ignore[no-any-return]


def small_config(module: ModuleType) -> Any:
    """The algorithm's Config with its sizes cut down by their names, so that a new algorithm needs no new line."""
    small = {
        "policy": PolicyConfig(hidden=(8,), kind="x0", num_levels=1, num_steps=1, time_dim=4),
        "planner": PlannerConfig("lstm", width=8, depth=1, horizon=4, num_levels=2, num_steps=2),
        "value": False,  # test_planners.py has it
        "guidance": "none",
        "inverse_hidden": (8,),
        "critic_hidden": (8,),
        "actor_hidden": (8,),
        "num_candidates": 2,
    }
    names = {field.name for field in dataclasses.fields(module.Config)}
    return module.Config(**{name: value for name, value in small.items() if name in names})


def has_chain(module: ModuleType) -> bool:
    """Whether its policy is a `PolicyConfig`; plain networks have sizes only."""
    return any(field.name == "policy" for field in dataclasses.fields(module.Config))


def hparams_of(module: ModuleType, **changes: float) -> Any:
    return jax.tree.map(np.float32, module.HParams(**changes))


def learning_rates(module: ModuleType, value: float) -> dict[str, float]:
    return {f.name: value for f in dataclasses.fields(module.HParams) if f.name == "lr" or f.name.endswith("_lr")}


def make_batch(seed: int = 0, size: int = BATCH) -> Transition:
    rng = np.random.default_rng(seed)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(size, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(size, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=size), jnp.float32),
        discount=jnp.asarray(rng.integers(0, 2, size=size), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(size, 3)), jnp.float32),
    )


def make_segments(horizon: int, seed: int) -> Segments:
    rng = np.random.default_rng(seed)
    return Segments(
        obs=jnp.asarray(rng.normal(size=(BATCH, horizon, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, horizon, 2)), jnp.float32),
        mask=jnp.asarray(np.arange(horizon) < rng.integers(1, horizon + 1, size=(BATCH, 1)), jnp.float32),
        return_to_go=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
    )


def folded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a batch as a rollout of two decisions; of one where it cannot be halved."""
    steps = 2 if shape[0] % 2 == 0 else 1
    return (steps, shape[0] // steps, *shape[1:])


def make_rollout(entry: Entry, seed: int) -> Rollout:
    """Two decisions in four environments; what they recorded is arbitrary."""
    batch = jax.tree.map(lambda x: x.reshape(folded(x.shape)), make_batch(seed))
    state = jax.eval_shape(entry.algorithm.init, jax.random.key(0), hparams_of(entry.module))
    _, record = jax.eval_shape(entry.algorithm.decide, jax.random.key(0), state, batch.obs)
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), record)
    return Rollout(batch, jnp.asarray(rng.integers(0, 2, size=batch.reward.shape), bool), drawn)


@pytest.fixture(scope="module", params=list(ALGORITHMS))
def entry(request: pytest.FixtureRequest) -> Entry:
    return entry_of(request.param)


@pytest.fixture(scope="module")
def start(entry: Entry) -> TrainState:
    return start_of(entry.name)


@pytest.fixture(scope="module")
def after(entry: Entry) -> tuple[TrainState, dict[str, jax.Array]]:
    return after_of(entry.name)


@functools.cache
def entry_of(name: str) -> Entry:
    module = ALGORITHMS[name]
    algorithm = module.make(small_config(module), SPEC)
    traced: list[None] = []

    def update(key: jax.Array, state: TrainState, batch: Any) -> Any:
        traced.append(None)
        return algorithm.update(key, state, batch)

    donating = jax.jit(update, donate_argnums=1)
    return Entry(name, module, algorithm, jax.jit(algorithm.init), donating, jax.jit(algorithm.act), traced)


@functools.cache
def start_of(name: str) -> TrainState:
    entry = entry_of(name)
    return entry.init(jax.random.key(0), hparams_of(entry.module))  # type: ignore[no-any-return]


@functools.cache
def after_of(name: str) -> tuple[TrainState, dict[str, jax.Array]]:
    """The first state after one update, and its metrics."""
    entry = entry_of(name)
    return entry.update(jax.random.key(1), start_of(name), entry.batch())


def leaves_of(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def kernels_of(params: Any) -> list[np.ndarray]:
    """Weight matrices: unlike biases they never start at a constant."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    found = [np.asarray(leaf) for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path)]
    assert found
    return found


def assert_same_bits(first: Any, second: Any) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(leaves_of(first), leaves_of(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_config_is_hashable_and_the_module_offers_what_the_registry_says(entry):
    assert hash(small_config(entry.module)) == hash(small_config(entry.module))
    assert entry.module.__doc__
    assert "Reference:" in entry.module.__doc__


def test_init_counts_from_zero_in_float32_and_starts_the_targets_at_the_weights(entry, start):
    assert start.step.dtype == jnp.int32
    assert int(start.step) == 0
    assert all(leaf.dtype == np.float32 for leaf in leaves_of((start.params, start.hparams)))
    assert_same_bits(start.params, start.target_params)


def test_init_depends_on_the_key_alone(entry, start):
    again = entry.init(jax.random.key(0), hparams_of(entry.module, **learning_rates(entry.module, 0.5)))
    assert_same_bits(again.params, start.params)
    other = entry.init(jax.random.key(1), hparams_of(entry.module))
    for a, b in zip(kernels_of(start.params), kernels_of(other.params), strict=True):
        assert np.abs(a - b).max() > 1e-3


def test_update_moves_every_parameter_and_keeps_shapes(entry, start, after):
    state, _ = after
    assert jax.tree.structure(state) == jax.tree.structure(start)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), start)
    for old, new in zip(leaves_of(start.params), leaves_of(state.params), strict=True):
        assert (old != new).any()


def test_update_counts_itself_and_keeps_the_hyperparameters(entry, start, after):
    state, _ = after
    assert int(state.step) == 1
    assert_same_bits(state.hparams, start.hparams)


def test_metrics_are_finite_float32_scalars(entry, after):
    _, metrics = after
    assert metrics
    assert all(value.shape == () and value.dtype == jnp.float32 for value in metrics.values())
    assert all(np.isfinite(value) for value in metrics.values())


def test_everything_stays_finite_over_many_updates(entry, start):
    state = start
    for k in range(30):
        state, metrics = entry.update(jax.random.key(k), state, entry.batch(k))
    assert all(np.isfinite(leaf).all() for leaf in leaves_of((state.params, state.target_params, metrics)))


def test_no_hyperparameter_seed_or_second_call_traces_again(entry, start):
    before = len(entry.traces)
    state, _ = entry.update(jax.random.key(1), start, entry.batch())
    traced = len(entry.traces)
    assert traced - before <= 1
    for name in (field.name for field in dataclasses.fields(entry.module.HParams)):
        changed = dataclasses.replace(state.hparams, **{name: np.float32(0.125)})
        entry.update(jax.random.key(7), state.replace(hparams=changed), entry.batch(1))
    entry.update(jax.random.key(3), entry.init(jax.random.key(9), hparams_of(entry.module)), entry.batch(2))
    assert len(entry.traces) == traced


def test_zero_learning_rates_leave_the_parameters_alone(entry, start):
    still = start.replace(hparams=hparams_of(entry.module, **learning_rates(entry.module, 0.0)))
    state, _ = entry.update(jax.random.key(1), still, entry.batch())
    assert_same_bits(state.params, start.params)


def reads_key(function: Callable[..., Any], *args: Any) -> bool:
    """Whether it draws anything: a regression on the data's own actions need not, nor a deterministic policy."""
    jaxpr = jax.make_jaxpr(function)(jax.random.key(0), *args).jaxpr
    return any(variable is jaxpr.invars[0] for equation in jaxpr.eqns for variable in equation.invars)


def test_update_is_a_function_of_its_arguments(entry, start, after):
    again = entry.update(jax.random.key(1), start, entry.batch())
    assert_same_bits(again, after)
    other, _ = entry.update(jax.random.key(2), start, entry.batch())
    pairs = zip(leaves_of(other.params), leaves_of(after[0].params), strict=True)
    drawn = reads_key(entry.algorithm.update, start, entry.batch())
    assert any((a != b).any() for a, b in pairs) == drawn
    assert drawn or not has_chain(entry.module)


# A plain regression, and an on-policy chain with a scan inside the update: an eager update compiles every operation by
# itself, which is dear. What eager execution could show, such as a branch on a value, tracing refuses in all of them.
EAGER = ("bc", "dppo")

# Networks with periods, a chain that a critic climbs, a flow, a scan inside the update, trajectories. What vmap lacks a
# rule for shows in tracing, which every algorithm has to pass; its arithmetic is JAX's own.
LANES = ("td3_bc", "diffusion_ql", "fql", "dppo", "diffuser")


@pytest.mark.parametrize("name", EAGER)
def test_jit_equals_eager(name):
    entry = entry_of(name)
    eager = entry.algorithm.update(jax.random.key(1), start_of(name), entry.batch())
    for a, b in zip(leaves_of(eager), leaves_of(after_of(name)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_update_takes_a_leading_axis_of_lanes(entry, start, after):
    def lanes(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), tree)

    update = jax.vmap(entry.algorithm.update, in_axes=(0, 0, None))
    assert jax.eval_shape(update, lanes(jax.random.key(0)), lanes(start), entry.batch()) == lanes(after)


@pytest.mark.parametrize("name", LANES)
def test_lanes_under_vmap_equal_lone_runs(name):
    entry = entry_of(name)
    batches = [entry.batch(k) for k in range(3)]
    rates = [hparams_of(entry.module, **learning_rates(entry.module, 1e-3 * lane)) for lane in range(3)]
    starts = [entry.init(jax.random.key(lane), rate) for lane, rate in enumerate(rates)]
    singles = []
    for lane, state in enumerate(starts):
        for k, batch in enumerate(batches):
            state, metrics = entry.update(jax.random.key(10 * lane + k), state, batch)
        singles.append((state, metrics))

    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    update = jax.jit(jax.vmap(entry.algorithm.update, in_axes=(0, 0, None)))
    for k, batch in enumerate(batches):
        state, metrics = update(jnp.stack([jax.random.key(10 * lane + k) for lane in range(3)]), state, batch)

    for lane, single in enumerate(singles):
        lone = jax.tree.map(lambda leaf, i=lane: leaf[i], (state, metrics))
        for a, b in zip(leaves_of(lone), leaves_of(single), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_act_takes_any_leading_axes(entry, start, shape):
    memory = entry.algorithm.init_memory(shape)
    obs = jax.ShapeDtypeStruct((*shape, 3), jnp.float32)
    action, after_memory = jax.eval_shape(entry.algorithm.act, jax.random.key(0), start, obs, memory)
    assert action.shape[: len(shape)] == shape
    assert action.shape[len(shape) + 1 :] == (SPEC.action_dim,)
    assert action.shape[len(shape)] >= 1
    assert action.dtype == jnp.float32
    assert jax.tree.structure(after_memory) == jax.tree.structure(memory)


def test_actions_are_in_the_box_however_large_the_observation(entry, start):
    obs = 10.0 * jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    action, _ = entry.act(jax.random.key(0), start, obs, entry.algorithm.init_memory((3,)))
    assert np.abs(action).max() <= 1.0


def test_act_depends_on_the_key_and_gives_each_observation_its_own_noise(entry, start):
    obs, memory = jnp.zeros((3, 3)), entry.algorithm.init_memory((3,))
    first, again, other = (np.asarray(entry.act(jax.random.key(k), start, obs, memory)[0]) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    drawn = reads_key(entry.algorithm.act, start, obs, memory)
    assert (first != other).any() == drawn
    assert len(np.unique(first[:, 0], axis=0)) == (3 if drawn else 1)
    assert drawn or not has_chain(entry.module)


def test_no_array_stands_twice_in_a_new_state(entry):
    """Two places of one state that share a buffer cannot both be donated."""
    jaxpr = jax.make_jaxpr(entry.algorithm.init)(jax.random.key(0), hparams_of(entry.module)).jaxpr
    assert len({id(variable) for variable in jaxpr.outvars}) == len(jaxpr.outvars)


def test_a_state_can_be_donated(entry, start):
    state = jax.tree.map(jnp.copy, start)
    entry.donating(jax.random.key(1), state, entry.batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.target_params, state.opt_state)))


@pytest.mark.parametrize(
    ("field", "shape"),
    [("obs", (BATCH, 4)), ("next_obs", (BATCH, 2)), ("action", (BATCH, 1)), ("reward", (BATCH, 1)), ("reward", (3,))],
)
def test_a_batch_of_another_shape_is_refused_with_the_shape(entry, start, field, shape):
    batch = entry.batch()
    if isinstance(batch, Rollout):
        inner = dataclasses.replace(batch.batch, **{field: jnp.zeros(folded(shape))})
        batch = dataclasses.replace(batch, batch=inner)
    elif isinstance(batch, Segments):
        field = {"next_obs": "mask", "reward": "return_to_go"}.get(field, field)
        batch = dataclasses.replace(batch, **{field: jnp.zeros(shape)})
    else:
        batch = dataclasses.replace(batch, **{field: jnp.zeros(shape)})
    with pytest.raises(AssertionError, match=str(shape[0] if shape == (3,) else shape[-1])):
        entry.algorithm.update(jax.random.key(0), start, batch)


def test_an_observation_of_another_width_is_refused(entry, start):
    with pytest.raises(AssertionError, match="3"):
        entry.algorithm.act(jax.random.key(0), start, jnp.zeros((2, 5)), entry.algorithm.init_memory((2,)))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"sampler": "ddmp"}, KeyError, "unknown sampler 'ddmp'; .*ddpm"),
        ({"network": "unet"}, KeyError, "unknown network 'unet'; .*mlp"),
        ({"activation": "swish"}, KeyError, "unknown activation 'swish'; .*silu"),
        ({"schedule": "sigmoid"}, KeyError, "unknown schedule 'sigmoid'; .*cosine"),
        ({"kind": "epsilon"}, KeyError, "unknown kind 'epsilon'; .*known: .*eps"),
        ({"schedule": "flow"}, ValueError, "kind='eps' is undefined on schedule='flow'.*use 'flow'"),
        ({"num_steps": 0}, ValueError, "num_steps=0"),
        ({"num_levels": -1}, ValueError, "num_levels=-1"),
        ({"grad_steps": 6}, ValueError, "grad_steps=6; allowed: 0 .all. to num_steps=5"),
        ({"grad_steps": -1}, ValueError, "grad_steps=-1"),
    ],
)
@pytest.mark.parametrize("module", [m for m in ALGORITHMS.values() if has_chain(m)], ids=lambda m: m.__name__)
def test_make_refuses_a_policy_that_cannot_be(module, change, error, match):
    config = dataclasses.replace(small_config(module), policy=PolicyConfig(**change))
    with pytest.raises(error, match=match):
        module.make(config, SPEC)


@pytest.mark.parametrize("change", [{"num_candidates": 0}, {"ema_period": 0}])
def test_diffusion_ql_refuses_counts_below_one(change):
    (name,) = change
    module = ALGORITHMS["diffusion_ql"]
    with pytest.raises(ValueError, match=f"{name}=0.*at least 1"):
        module.make(module.Config(**change), SPEC)
