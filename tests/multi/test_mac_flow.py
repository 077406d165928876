"""MAC-Flow against its losses in float64 numpy, on networks that answer constants, and on two teams of two.

A flow of constant velocity u takes z to clip(z - u): with u far outside, to a corner whatever z is. Students that
answer a constant make their actions constants, too. So no noise has to be reproduced.

Reference: Lee, Lee and Zhang 2025, arXiv:2511.05005.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.actor_critic import FLOW
from jaxdiff.multi import mac_flow
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("team", obs_dim=3, action_dim=2, max_episode_steps=10, num_agents=2)
POLICY = dataclasses.replace(FLOW, hidden=(16,), activation="mish", num_steps=3)
SMALL = {"policy": POLICY, "critic_hidden": (16,), "critic_activation": "mish", "critic_layer_norm": False}
ANSWERS = np.array([[0.3, -1.7], [-0.4, 0.1]])  # of the two students, one number out of bounds
CLIPPED = ANSWERS.clip(-1.0, 1.0)
VELOCITY = np.array([-40.0, 40.0, 40.0, 40.0])  # of the flow, from data to noise
SAMPLE = np.array([[1.0, -1.0], [-1.0, -1.0]])
BATCH = 256


class Built(NamedTuple):
    algorithm: Algorithm
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> mac_flow.HParams:
    return jax.tree.map(np.float32, mac_flow.HParams(**changes))


def drawn(shapes: Any, seed: int) -> Any:
    """Weights of the given shapes; those of the critics' last layers are large, so that their values differ."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(-0.5, 0.5, size=leaf.shape).astype(np.float32), shapes)


def constant(layers: Any, name: str, answer: np.ndarray) -> Any:
    """Layers whose last one, of that name, answers a constant whatever it sees."""
    last = {"kernel": np.zeros_like(layers[name]["kernel"]), "bias": np.float32(answer)}
    return {**layers, name: last}


def build(*, losses_only: bool = False, **changes: Any) -> Built:
    algorithm = mac_flow.make(mac_flow.Config(**SMALL, **changes), SPEC)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), hparams())
    params, target = drawn(state.params, 0), drawn(state.target_params, 1)
    flow, students = params["policy"]["flow"]["params"], params["policy"]["students"]["params"]
    params["policy"] = {
        "flow": {"params": {**flow, "Mlp_0": constant(flow["Mlp_0"], "Dense_1", VELOCITY)}},
        "students": {"params": constant(students, "Dense_1", ANSWERS)},
    }
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.opt_state)
    start = TrainState(np.int32(0), params, target, zeros, hparams())

    def losses(key: jax.Array, state: TrainState, batch: Transition) -> Any:
        """No gradient is read, so none is compiled."""
        metrics = algorithm.update(key, state, batch)[1]
        return state, {name: value for name, value in metrics.items() if "norm" not in name}

    return Built(algorithm, jax.jit(losses if losses_only else algorithm.update), start)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 2, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 2, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=(BATCH, 2)), jnp.float32),
        discount=jnp.asarray(np.repeat(rng.integers(0, 2, size=(BATCH, 1)), 2, axis=1), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 2, 3)), jnp.float32),
    )


@pytest.fixture(scope="module")
def default() -> Built:
    return build()


@pytest.fixture(scope="module")
def other() -> Built:
    """The switches of the losses the other way."""
    return build(losses_only=True, mixer="mean", aggregate="min", normalise_q=False)


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(0.0, x))


def team_values(critics: Any, obs: Any, action: Any, mixer: str) -> np.ndarray:
    """[E, B] of two critics for each of two agents, parameters [A, E, ..]."""
    layers = critics["params"]["Mlp_0"]
    action = np.broadcast_to(action, (BATCH, 2, 2))
    q = np.zeros((2, BATCH, 2))
    for agent in range(2):
        for e in range(2):
            first, last = (
                {key: np.asarray(leaf, np.float64)[agent, e] for key, leaf in layers[name].items()}
                for name in ("Dense_0", "Dense_1")
            )
            x = np.concatenate([np.asarray(obs, np.float64)[:, agent], action[:, agent]], axis=-1)
            q[e, :, agent] = (mish(x @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"])[:, 0]
    return q.sum(axis=-1) if mixer == "sum" else q.mean(axis=-1)


@pytest.mark.parametrize("which", ["default", "other"])
def test_critics_regress_the_teams_value_on_the_mean_reward_and_the_students_next_actions(request, which, batch):
    built, mixer = request.getfixturevalue(which), {"default": "sum", "other": "mean"}[which]
    _, metrics = built.update(jax.random.key(0), built.start, batch)
    next_q = team_values(built.start.target_params["critic"], batch.next_obs, CLIPPED, mixer)
    next_q = next_q.mean(axis=0) if which == "default" else next_q.min(axis=0)
    reward, discount = np.asarray(batch.reward, np.float64), np.asarray(batch.discount, np.float64)
    y = reward.mean(axis=1) + 0.995 * discount[:, 0] * next_q
    q = team_values(built.start.params["critic"], batch.obs, np.asarray(batch.action, np.float64), mixer)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-4)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(), rel=1e-4)


@pytest.mark.parametrize("which", ["default", "other"])
def test_policy_loss_is_imitation_plus_distance_to_the_flows_sample_less_the_value_of_the_old_critics(
    request, which, batch
):
    built, mixer = request.getfixturevalue(which), {"default": "sum", "other": "mean"}[which]
    state = built.start.replace(hparams=hparams(bc_weight=0.7, q_weight=1.3, critic_lr=0.1))
    _, metrics = built.update(jax.random.key(0), state, batch)
    distance = ((ANSWERS - SAMPLE) ** 2).mean()
    q = team_values(state.params["critic"], batch.obs, CLIPPED, mixer).mean(axis=0)
    scale = np.abs(q).mean() if which == "default" else 1.0
    assert float(metrics["distill_loss"]) == pytest.approx(distance, rel=1e-5)
    wanted = 0.7 * distance - 1.3 * q.mean() / scale
    assert float(metrics["policy_loss"]) - float(metrics["bc_loss"]) == pytest.approx(wanted, abs=2e-3)
    data = np.asarray(batch.action, np.float64).reshape(BATCH, 4)
    imitation = ((VELOCITY + data) ** 2).mean() + 1.0  # eps has variance 1
    assert float(metrics["bc_loss"]) == pytest.approx(imitation, rel=5 * 80.0 / np.sqrt(4 * BATCH) / imitation)


def test_nothing_but_its_own_loss_moves_the_flow(default, batch):
    states = [
        default.update(jax.random.key(0), default.start.replace(hparams=hparams(bc_weight=w, q_weight=w)), batch)[0]
        for w in (0.0, 10.0)
    ]
    flows, students = ([state.params["policy"][name] for state in states] for name in ("flow", "students"))
    jax.tree.map(np.testing.assert_array_equal, *flows)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, students), strict=True))


@pytest.mark.parametrize(("share_params", "shared_noise"), [(False, False), (True, True)])
def test_an_agents_action_does_not_see_what_others_observe(share_params, shared_noise):
    config = mac_flow.Config(**SMALL, share_params=share_params, shared_noise=shared_noise)
    algorithm = mac_flow.make(config, SPEC)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), hparams())
    state = TrainState(np.int32(0), drawn(state.params, 3), None, None, hparams())
    act = jax.jit(lambda obs: algorithm.act(jax.random.key(1), state, obs, ())[0])
    rng = np.random.default_rng(2)
    obs = rng.normal(size=(4, 5, 2, 3)).astype(np.float32)
    elsewhere = obs.copy()
    elsewhere[..., 1, :] = rng.normal(size=(4, 5, 3))
    first, second = np.asarray(act(obs)), np.asarray(act(elsewhere))
    assert first.shape == (4, 5, 1, 2, 2)
    np.testing.assert_array_equal(first[..., 0, :], second[..., 0, :])
    assert (first[..., 1, :] != second[..., 1, :]).any()


def test_agents_alike_that_see_the_same_part_by_their_own_noise_alone(default):
    """The same parameters and observations for both: what differs is z_i, and at temperature 0 nothing does."""
    policy = default.start.params["policy"]
    alike = jax.tree.map(lambda leaf: np.stack([leaf[0], leaf[0]]), drawn(policy["students"], 4))
    state = default.start.replace(params={"policy": {**policy, "students": alike}})
    obs = jnp.ones((7, 2, 3))
    act = jax.jit(default.algorithm.act)
    warm, _ = act(jax.random.key(0), state, obs, ())
    assert (warm[:, 0, 0] != warm[:, 0, 1]).all()
    assert len(np.unique(warm[:, 0, 0, 0])) == 7
    cold, _ = act(jax.random.key(0), state.replace(hparams=hparams(act_temperature=0.0)), obs, ())
    np.testing.assert_array_equal(cold[:, 0, 0], cold[:, 0, 1])
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[:1], cold.shape))


PAIR = Spec("pair", obs_dim=1, action_dim=1, max_episode_steps=1, num_agents=2)


ROWS = 2000


@pytest.fixture(scope="module")
def learn() -> Callable[..., np.ndarray]:
    """(rows, updates on 64 of them each, hyperparameters) -> actions [1000, A]: one program for all."""
    policy = dataclasses.replace(FLOW, hidden=(32, 32), activation="relu", num_steps=3, time_dim=8)
    critic = {"critic_hidden": (32,), "critic_activation": "relu", "critic_layer_norm": False}
    algorithm = mac_flow.make(mac_flow.Config(policy=policy, **critic, shared_noise=True), PAIR)

    def run(rows: Transition, num_updates: Any, knobs: mac_flow.HParams) -> Any:
        def step(k: Any, state: TrainState) -> TrainState:
            key_rows, key = jax.random.split(jax.random.fold_in(jax.random.key(0), k))
            index = jax.random.randint(key_rows, (64,), 0, ROWS)
            return algorithm.update(key, state, jax.tree.map(lambda x: x[index], rows))[0]

        state = jax.lax.fori_loop(0, num_updates, step, algorithm.init(jax.random.key(1), knobs))
        return algorithm.act(jax.random.key(2), state, jnp.ones((1000, 2, 1)), ())[0]

    program = jax.jit(run)

    def learn(rows: Transition, num_updates: int, **changes: float) -> np.ndarray:
        found = program(rows, jnp.int32(num_updates), hparams(lr=5e-3, critic_lr=5e-3, **changes))
        return np.asarray(found)[:, 0, :, 0]

    return learn


def single_steps(action: np.ndarray, reward: np.ndarray) -> Transition:
    obs = jnp.ones((ROWS, 2, 1))
    both = jnp.asarray(np.repeat(reward[:, None], 2, axis=1), jnp.float32)
    return Transition(obs, jnp.asarray(action[..., None], jnp.float32), both, jnp.zeros_like(both), obs)


def test_students_climb_the_teams_value(learn):
    """Uniform actions, and a team that is paid for being near (0.5, -0.5)."""
    action = np.random.default_rng(0).uniform(-1, 1, size=(ROWS, 2))
    rows = single_steps(action, 1.0 - ((action - [0.5, -0.5]) ** 2).sum(axis=1))
    found = learn(rows, 700, bc_weight=0.01)
    np.testing.assert_allclose(found.mean(axis=0), [0.5, -0.5], atol=0.12)
    assert (found.std(axis=0) < 0.15).all()


def test_shared_noise_holds_a_choice_that_must_be_made_together(learn):
    """Data (0.7, -0.7) and (-0.7, 0.7), half of the time each: two that choose alone would agree half of the time."""
    side = np.random.default_rng(0).choice([-0.7, 0.7], size=ROWS)
    found = learn(single_steps(np.stack([side, -side], axis=1), np.zeros(ROWS)), 600, q_weight=0.0)
    assert (found[:, 0] * found[:, 1] < 0).mean() > 0.95
    assert 0.3 < (found[:, 0] > 0).mean() < 0.7
    np.testing.assert_allclose(np.median(np.abs(found), axis=0), 0.7, atol=0.3)  # three steps of Euler's fall short


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"mixer": "smu"}, KeyError, "unknown mixer 'smu'.*sum"),
        ({"aggregate": "max"}, KeyError, "unknown aggregate 'max'"),
        ({"policy": dataclasses.replace(FLOW, sampler="euler_ancestral")}, ValueError, "draws noise"),
    ],
)
def test_make_refuses_what_cannot_be(change, error, match):
    with pytest.raises(error, match=match):
        mac_flow.make(mac_flow.Config(**change), SPEC)


def test_a_task_without_agents_is_refused():
    with pytest.raises(ValueError, match="alone has no agents.*a method of one agent"):
        mac_flow.make(mac_flow.Config(), dataclasses.replace(SPEC, name="alone", num_agents=None))


@pytest.mark.parametrize(("field", "shape"), [("obs", (8, 3, 3)), ("action", (8, 2, 1)), ("reward", (8, 3))])
def test_a_batch_of_another_shape_is_refused_with_the_shape(default, batch, field, shape):
    wrong = dataclasses.replace(jax.tree.map(lambda x: x[:8], batch), **{field: jnp.zeros(shape)})
    with pytest.raises(AssertionError, match=str(shape[-1])):
        default.algorithm.update(jax.random.key(0), default.start, wrong)


def test_one_reward_for_the_team_will_do(default, batch):
    team = dataclasses.replace(batch, reward=batch.reward[:, 0], discount=batch.discount[:, 0])
    state, _ = jax.eval_shape(default.algorithm.update, jax.random.key(0), default.start, team)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, default.start)
