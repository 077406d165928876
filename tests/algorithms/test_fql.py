"""FQL against its losses in float64 numpy, on networks that answer a constant, and on the bandit.

A flow of constant velocity u takes z to clip(z - u): with u far outside, to a corner whatever z is. A one-step network
that answers a constant makes its action one, too. So no noise has to be reproduced.

Reference: Park, Li and Levine 2025, arXiv:2502.02538, algorithm 1, and the released code.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from corner_bandit import SPEC as BANDIT
from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import constant_policy, last_layer, q_values, random_params, scaled_critics, with_layer, zeros
import pytest

from jaxdiff.algorithms import fql
from jaxdiff.algorithms.actor_critic import FLOW
from jaxdiff.algorithms.one_step import make_flow, make_one_step
from jaxdiff.types import Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
POLICY = dataclasses.replace(FLOW, hidden=(16,), activation="mish", num_steps=3)
ANSWER = np.array([0.3, -1.7])  # of the one-step network, one of its numbers out of bounds
CLIPPED = np.array([0.3, -1.0])
VELOCITY = np.array([-40.0, 40.0])  # of the flow, from data to noise: its samples are at (1, -1)
SAMPLE = np.array([1.0, -1.0])
BATCH = 64


class Built(NamedTuple):
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> fql.HParams:
    return jax.tree.map(np.float32, fql.HParams(**changes))


def one_step_constant(params: Any, answer: np.ndarray) -> Any:
    """An Mlp's own parameters, so that it answers a constant."""
    name = last_layer(params["params"])
    layer = {"kernel": np.zeros_like(params["params"][name]["kernel"]), "bias": np.float32(answer)}
    return {"params": {**params["params"], name: layer}}


def build(**changes: Any) -> Built:
    small = {"critic_hidden": (16,), "critic_activation": "mish", "critic_layer_norm": False}
    config = fql.Config(policy=POLICY, **small, **changes)
    algorithm = fql.make(config, SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    policy = {
        "flow": constant_policy(first["policy"]["flow"], VELOCITY),
        "one_step": one_step_constant(first["policy"]["one_step"], ANSWER),
    }
    params = {"policy": policy, "critic": scaled_critics(first["critic"], 5.0)}
    targets = {"policy": second["policy"], "critic": scaled_critics(second["critic"], 5.0)}
    start = state.replace(params=params, target_params=targets, hparams=hparams())
    return Built(jax.jit(algorithm.update), start)


@pytest.fixture(scope="module")
def mean() -> Built:
    return build()


@pytest.fixture(scope="module")
def other() -> Built:
    """Every static switch of the update the other way."""
    return build(aggregate="min", normalise_q=True)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(0.6, 1, size=(BATCH, 2)), jnp.float32),  # all positive: its sign shows
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
    )


def run(built: Built, batch: Transition, **changes: float) -> tuple[TrainState, dict[str, Any]]:
    return built.update(jax.random.key(0), built.start.replace(hparams=hparams(**changes)), batch)


def everywhere(action: np.ndarray) -> np.ndarray:
    return np.broadcast_to(action, (BATCH, 2))


def policy_gradient(state: TrainState, part: str) -> Any:
    """The gradient of the first update: Adam's first moment is a tenth of it."""
    moment = optax.tree.get(state.opt_state["policy"], "mu")[part]
    return jax.tree.map(lambda m: 10.0 * np.asarray(m, np.float64), moment)


def last_bias(gradient: Any, part: str) -> np.ndarray:
    layers = gradient["params"]["Mlp_0"] if part == "flow" else gradient["params"]
    return layers[last_layer(layers)]["bias"]


@pytest.mark.parametrize("which", ["mean", "min"])
def test_target_takes_the_online_one_step_action_clipped_and_the_targets_aggregated(mean, other, batch, which):
    built = mean if which == "mean" else other
    _, metrics = run(built, batch)
    next_q = q_values(built.start.target_params["critic"], batch.next_obs, everywhere(CLIPPED))
    next_q = next_q.mean(axis=0) if which == "mean" else next_q.min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q
    q = q_values(built.start.params["critic"], batch.obs, batch.action)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-4)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(), rel=1e-4)  # a mean over both


def test_distillation_is_to_the_flows_clipped_action_and_from_the_answer_before_it_is_clipped(mean, batch):
    state, metrics = run(mean, batch, bc_weight=7.0, q_weight=0.0)
    assert float(metrics["distill_loss"]) == pytest.approx(((ANSWER - SAMPLE) ** 2).mean(), rel=1e-5)
    assert float(metrics["policy_loss"]) == pytest.approx(
        float(metrics["bc_loss"]) + 7.0 * ((ANSWER - SAMPLE) ** 2).mean(), rel=1e-5
    )
    found = last_bias(policy_gradient(state, "one_step"), "one_step")
    np.testing.assert_allclose(found, 7.0 * (ANSWER - SAMPLE), rtol=1e-4)  # 2 / U with U = 2


def test_flow_regresses_on_noise_less_action(mean, batch):
    """The gradient of a constant velocity u is 2 / U (u - mean(eps - a)), and the mean of eps is small."""
    state, _ = run(mean, batch)
    target = VELOCITY - last_bias(policy_gradient(state, "flow"), "flow")
    noise = target + np.asarray(batch.action, np.float64).mean(axis=0)
    assert np.abs(noise).max() < 4.0 / np.sqrt(BATCH)


def test_nothing_but_its_own_loss_moves_the_flow(mean, batch):
    alone, _ = run(mean, batch, bc_weight=0.0, q_weight=0.0)
    all_of_it, _ = run(mean, batch, bc_weight=1e3, q_weight=1e3)
    jax.tree.map(np.testing.assert_array_equal, policy_gradient(alone, "flow"), policy_gradient(all_of_it, "flow"))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(policy_gradient(alone, "one_step")))


def test_the_actors_losses_do_not_move_the_critics(mean, batch):
    without, _ = run(mean, batch, q_weight=0.0)
    with_q, _ = run(mean, batch, q_weight=1e3)
    jax.tree.map(np.testing.assert_array_equal, without.params["critic"], with_q.params["critic"])


def slope(critics: Any, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
    """[U] mean over batch and critics of dQ/da."""
    h = 1e-5
    steps = [
        q_values(critics, obs, everywhere(action + h * axis)) - q_values(critics, obs, everywhere(action - h * axis))
        for axis in np.eye(2)
    ]
    return np.array([step.mean() / (2 * h) for step in steps])


def test_one_step_policy_climbs_the_mean_of_the_old_critics_at_its_clipped_action(mean, batch):
    """critic_lr is large: the critics after the update are elsewhere."""
    state, metrics = run(mean, batch, bc_weight=0.0, q_weight=3.0, critic_lr=0.3)
    old = mean.start.params["critic"]
    q = q_values(old, batch.obs, everywhere(CLIPPED)).mean()
    assert float(metrics["q_policy"]) == pytest.approx(q, rel=1e-4)
    assert float(metrics["policy_loss"] - metrics["bc_loss"]) == pytest.approx(-3.0 * q, abs=1e-3)
    found = last_bias(policy_gradient(state, "one_step"), "one_step")
    np.testing.assert_allclose(found[0], -3.0 * slope(old, batch.obs, CLIPPED)[0], rtol=1e-3)
    assert found[1] == 0.0  # out of bounds: only distillation brings it back
    assert abs(q_values(state.params["critic"], batch.obs, everywhere(CLIPPED)).mean() - q) > 0.1


def test_normalised_q_has_no_scale(other, batch):
    larger = {**other.start.params, "critic": scaled_critics(other.start.params["critic"], 1000.0)}
    state, metrics = run(other, batch, bc_weight=0.0)
    scaled, _ = run(other._replace(start=other.start.replace(params=larger)), batch, bc_weight=0.0)
    q = q_values(other.start.params["critic"], batch.obs, everywhere(CLIPPED)).mean(axis=0)
    assert float(metrics["policy_loss"] - metrics["bc_loss"]) == pytest.approx(-q.mean() / np.abs(q).mean(), abs=1e-3)
    for a, b in zip(*(jax.tree.leaves(policy_gradient(s, "one_step")) for s in (state, scaled)), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6)


def test_target_critics_follow_the_new_critics(mean, batch):
    state, _ = run(mean, batch, polyak=0.25, critic_lr=0.01)
    jax.tree.map(
        lambda new, old, now: np.testing.assert_allclose(now, 0.25 * new + 0.75 * old, atol=1e-5),
        state.params["critic"],
        mean.start.target_params["critic"],
        state.target_params["critic"],
    )


def test_acting_is_one_clipped_call_and_temperature_scales_its_noise(mean):
    """With a one-step network that hands its noise on, an action is the noise."""
    config = fql.Config(policy=dataclasses.replace(POLICY, activation="relu"), critic_hidden=(4,))
    act = jax.jit(fql.make(config, SPEC).act)
    layers = mean.start.params["policy"]["one_step"]
    first, last = np.zeros((5, 16)), np.zeros((16, 2))
    for u in range(2):  # relu(z) - relu(-z) = z
        first[u, 2 * u : 2 * u + 2], last[2 * u : 2 * u + 2, u] = (1.0, -1.0), (1.0, -1.0)
    plain = with_layer({"params": {"Mlp_0": layers["params"]}}, "Dense_0", kernel=first, bias=0.0)
    plain = with_layer(plain, "Dense_1", kernel=last, bias=0.0)["params"]["Mlp_0"]
    params = {**mean.start.params, "policy": {**mean.start.params["policy"], "one_step": {"params": plain}}}

    def actions(temperature: float) -> np.ndarray:
        state = mean.start.replace(params=params, hparams=hparams(act_temperature=temperature))
        return np.asarray(act(jax.random.key(0), state, jnp.zeros((4000, 3)), ())[0])[:, 0]

    assert not actions(0.0).any()
    assert actions(0.2).std() == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(actions(1.0), np.clip(5.0 * actions(0.2), -1, 1), atol=1e-5)


def test_flow_clips_its_action_at_the_end_only():
    """Velocity 1.5 x in two steps: x0 = z (1 - 0.75)**2, on whose way the clean prediction -z / 2 is out of bounds."""
    config = dataclasses.replace(FLOW, hidden=(16,), activation="relu", num_steps=2)
    flow = make_flow(config, SPEC)
    params = zeros(jax.eval_shape(flow.init, jax.random.key(0)))
    inputs = params["params"]["Mlp_0"]["Dense_0"]["kernel"].shape[0]
    first, last = np.zeros((inputs, 16)), np.zeros((16, 2))
    for u in range(2):
        first[u, 2 * u : 2 * u + 2], last[2 * u : 2 * u + 2, u] = (1.5, -1.5), (1.0, -1.0)
    params = with_layer(with_layer(params, "Dense_0", kernel=first), "Dense_1", kernel=last)
    z = np.array([[3.0, -0.4], [-4.0, 20.0]], np.float32)
    wanted = np.clip(0.0625 * z, -1, 1)
    np.testing.assert_allclose(flow.action(params, jnp.zeros((2, 3)), z), wanted, rtol=1e-5)


def test_a_sampler_that_draws_noise_is_refused():
    with pytest.raises(ValueError, match="sampler='ddpm' draws noise in 9 steps.*'euler'"):
        fql.make(fql.Config(policy=dataclasses.replace(FLOW, sampler="ddpm")), SPEC)


def test_an_unknown_aggregate_is_refused():
    with pytest.raises(KeyError, match="unknown aggregate 'max'.*known: mean, min"):
        fql.make(fql.Config(aggregate="max"), SPEC)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("hparams", "lr", 3e-4),
        ("hparams", "critic_lr", 3e-4),
        ("hparams", "bc_weight", 10.0),
        ("hparams", "q_weight", 1.0),
        ("hparams", "polyak", 0.005),
        ("hparams", "discount_factor", 0.99),
        ("config", "aggregate", "mean"),
        ("config", "normalise_q", False),
        ("config", "act_with_ema", False),
        ("config", "critic_hidden", (512, 512, 512, 512)),
        ("config", "critic_activation", "gelu"),
        ("config", "critic_layer_norm", True),
        ("policy", "hidden", (512, 512, 512, 512)),
        ("policy", "activation", "gelu"),
        ("policy", "layer_norm", False),
        ("policy", "num_steps", 10),
    ],
)
def test_defaults_are_the_codes(group, name, value):
    holder = {"hparams": fql.HParams(), "config": fql.Config(), "policy": fql.Config().policy}[group]
    assert getattr(holder, name) == value


class Learned(NamedTuple):
    bandit: CornerBandit
    cloned: TrainState  # q_weight 0
    improved: TrainState


@pytest.fixture(scope="module")
def learned() -> Learned:
    policy = dataclasses.replace(FLOW, hidden=(64, 64), activation="relu")
    config = fql.Config(policy=policy, critic_hidden=(64, 64), critic_activation="relu", critic_layer_norm=False)
    bandit = CornerBandit(fql, config, lr=3e-3, critic_lr=3e-3, polyak=0.05, bc_weight=1.0)
    return Learned(bandit, bandit.learn(1500, q_weight=0.0), bandit.learn(500))


def test_one_step_policy_finds_the_best_corner(learned):
    assert near_corners(learned.bandit.actions(learned.improved), 0.2)[3] > 0.9


def test_without_q_the_one_step_policy_lands_where_the_flow_takes_the_same_noise(learned):
    policy = dataclasses.replace(FLOW, hidden=(64, 64), activation="relu")
    flow, one_step = make_flow(policy, BANDIT), make_one_step(BANDIT, policy.hidden, policy.activation)
    params = learned.cloned.params["policy"]
    noise, obs = np.random.default_rng(0).normal(size=(2000, 2)).astype(np.float32), jnp.zeros((2000, 1))
    slow = np.asarray(jax.jit(flow.action)(params["flow"], obs, noise))
    fast = np.asarray(one_step.answer(params["one_step"], obs, noise))
    assert near_corners(slow, 0.3).min() > 0.1
    assert near_corners(fast, 0.3).min() > 0.1
    assert np.median(np.abs(fast - slow).max(axis=-1)) < 0.2
    # Noise that is not the same says nothing about the corner.
    assert np.median(np.abs(fast - slow[::-1]).max(axis=-1)) > 1.0
