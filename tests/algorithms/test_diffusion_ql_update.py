"""Diffusion-QL's update against its equations in float64 numpy, on policies that are known in closed form.

A network that predicts x0 and answers a constant makes every sample that constant, so no noise has to be reproduced:
what the losses, gradients and targets must be follows from the batch and the critics' weights alone.

Reference: Wang et al. 2023, arXiv:2208.06193, equations 1-3 and 9-10, and the released code.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import constant_policy, last_layer, q_values, random_params, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import diffusion_bc, diffusion_ql
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
POLICY = PolicyConfig(hidden=(16,), kind="x0", num_levels=2, num_steps=2)
ONLINE = np.array([0.3, -0.5])  # what the online policy does
TARGET = np.array([-0.2, 0.6])  # what the target policy does
BATCH = 16


class Built(NamedTuple):
    algorithm: Algorithm
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState  # online and target policies are constants, all four critics differ


def build(**changes: Any) -> Built:
    config = diffusion_ql.Config(policy=POLICY, critic_hidden=(16,), **changes)
    algorithm = diffusion_ql.make(config, SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    params = {
        "policy": constant_policy(first["policy"], ONLINE),
        "critic": scaled_critics(first["critic"], 5.0),
    }
    targets = {
        "policy": constant_policy(first["policy"], TARGET),
        "critic": scaled_critics(second["critic"], 5.0),
    }
    start = state.replace(params=params, target_params=targets, hparams=hparams())
    return Built(algorithm, jax.jit(algorithm.update), start)


def hparams(**changes: float) -> diffusion_ql.HParams:
    return jax.tree.map(np.float32, diffusion_ql.HParams(max_grad_norm=1e9, **changes))


@pytest.fixture(scope="module")
def paper() -> Built:
    """The defaults, but for the sizes and for what the network predicts."""
    return build()


@pytest.fixture(scope="module")
def other() -> Built:
    """Every static switch of the update the other way."""
    return build(cross_normaliser=False, ema_period=3)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
    )


@pytest.fixture(scope="module")
def many(paper: Built, batch: Transition) -> tuple[list[TrainState], dict[str, np.ndarray]]:
    """Sixty-four updates of one state under as many keys, with a critic that moves far."""
    state = paper.start.replace(hparams=hparams(critic_lr=0.3, q_weight=1.7))
    rows = [paper.update(jax.random.key(k), state, batch) for k in range(64)]
    return [after for after, _ in rows], {
        name: np.array([float(metrics[name]) for _, metrics in rows]) for name in rows[0][1]
    }


def everywhere(action: np.ndarray) -> np.ndarray:
    return np.broadcast_to(action, (BATCH, 2))


def gradient(state: TrainState, part: str) -> Any:
    """The gradient of the first update: Adam's first moment is a tenth of it."""
    return jax.tree.map(lambda m: 10.0 * np.asarray(m, np.float64), optax.tree.get(state.opt_state[part], "mu"))


def policy_bias_gradient(state: TrainState) -> np.ndarray:
    layers = gradient(state, "policy")["params"]["Mlp_0"]
    return layers[last_layer(layers)]["bias"]


def test_critic_regresses_on_the_smaller_target_value_of_the_target_policys_action(paper, batch):
    _, metrics = paper.update(jax.random.key(0), paper.start, batch)
    next_q = q_values(paper.start.target_params["critic"], batch.next_obs, everywhere(TARGET)).min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q
    q = q_values(paper.start.params["critic"], batch.obs, batch.action)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-5)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-5)
    assert float(metrics["q_mean"]) == pytest.approx(q.mean(), rel=1e-4)


def test_what_comes_after_a_termination_has_no_say(paper, batch):
    ended = dataclasses.replace(batch, discount=jnp.zeros(BATCH))
    elsewhere = dataclasses.replace(ended, next_obs=batch.next_obs + 3.0)
    _, metrics = paper.update(jax.random.key(0), paper.start, ended)
    _, moved = paper.update(jax.random.key(0), paper.start, elsewhere)
    q = q_values(paper.start.params["critic"], batch.obs, batch.action)
    loss = ((q - np.asarray(batch.reward, np.float64)) ** 2).mean(axis=1).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(moved["critic_loss"]) == float(metrics["critic_loss"])


def test_discount_factor_scales_the_bootstrap(paper, batch):
    def target_mean(discount_factor: float) -> float:
        state = paper.start.replace(hparams=hparams(discount_factor=discount_factor))
        return float(paper.update(jax.random.key(0), state, batch)[1]["target_mean"])

    reward = float(np.asarray(batch.reward, np.float64).mean())
    assert target_mean(0.0) == pytest.approx(reward, rel=1e-5)
    assert target_mean(0.5) - reward == pytest.approx((target_mean(1.0) - reward) / 2, rel=1e-4)


def test_gradient_of_the_critics_last_bias_is_the_mean_error(paper, batch):
    state, _ = paper.update(jax.random.key(0), paper.start, batch)
    next_q = q_values(paper.start.target_params["critic"], batch.next_obs, everywhere(TARGET)).min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q
    error = 2.0 * (q_values(paper.start.params["critic"], batch.obs, batch.action) - y).mean(axis=1)
    layers = gradient(state, "critic")["params"]["Mlp_0"]
    np.testing.assert_allclose(layers[last_layer(layers)]["bias"][:, 0], error, rtol=1e-4)


def test_policy_climbs_one_updated_critic_over_the_size_of_the_other(many, paper, batch):
    after, metrics = many
    updated = after[0].params["critic"]
    q = q_values(updated, batch.obs, everywhere(ONLINE)).mean(axis=1)
    size = np.abs(q_values(updated, batch.obs, everywhere(ONLINE))).mean(axis=1)
    found = (metrics["policy_loss"] - metrics["bc_loss"]) / 1.7
    crossed = np.array([-q[0] / size[1], -q[1] / size[0]])
    distance = np.abs(found[:, None] - crossed[None, :])
    assert distance.min(axis=1).max() < 1e-4
    # The four other readings of the paper are all far away: an old critic, and a critic divided by its own size.
    old = q_values(paper.start.params["critic"], batch.obs, everywhere(ONLINE))
    wrong = [-q[0] / size[0], -q[1] / size[1], -old[0].mean() / np.abs(old[1]).mean()]
    assert np.abs(found[:, None] - np.array(wrong)[None, :]).min() > 1e-2


def test_coin_is_thrown_once_per_update_and_is_fair(many, batch):
    after, metrics = many
    updated = after[0].params["critic"]
    q = q_values(updated, batch.obs, everywhere(ONLINE))
    size = np.abs(q).mean(axis=1)
    found = (metrics["policy_loss"] - metrics["bc_loss"]) / 1.7
    heads = np.abs(found + q[0].mean() / size[1]) < np.abs(found + q[1].mean() / size[0])
    assert 12 <= heads.sum() <= 52  # 64 throws, five standard deviations either way


def test_normaliser_can_be_the_same_critics(other, batch):
    state = other.start.replace(hparams=hparams(critic_lr=0.3, q_weight=1.7))
    found = []
    for k in range(12):
        after, metrics = other.update(jax.random.key(k), state, batch)
        found.append(float(metrics["policy_loss"] - metrics["bc_loss"]) / 1.7)
    q = q_values(after.params["critic"], batch.obs, everywhere(ONLINE))
    own = -q.mean(axis=1) / np.abs(q).mean(axis=1)
    distance = np.abs(np.array(found)[:, None] - own[None, :])
    assert distance.min(axis=1).max() < 1e-4
    assert set(distance.argmin(axis=1)) == {0, 1}


def test_gradient_flows_through_the_action_and_not_through_the_normaliser(many, batch):
    """Of the last bias: imitation pulls to the data, Q pushes along dQ/da divided by a constant."""
    after, metrics = many
    updated = after[0].params["critic"]
    h = 1e-5
    slope = np.stack([
        (q_values(updated, batch.obs, everywhere(ONLINE + h * axis)) -
         q_values(updated, batch.obs, everywhere(ONLINE - h * axis))).mean(axis=1) / (2 * h)
        for axis in np.eye(2)
    ], axis=-1)  # fmt: skip
    size = np.abs(q_values(updated, batch.obs, everywhere(ONLINE))).mean(axis=1)
    imitation = 2.0 * (ONLINE - np.asarray(batch.action, np.float64)).mean(axis=0) / 2.0  # a mean over U = 2
    either = np.stack([imitation - 1.7 * slope[0] / size[1], imitation - 1.7 * slope[1] / size[0]])
    for i in range(8):
        found = policy_bias_gradient(after[i])
        assert np.abs(either - found).max(axis=1).min() < 1e-4


def test_size_of_the_rewards_does_not_change_the_policys_gradient(paper, batch):
    """With every Q a thousand times larger, Q over |Q| is the same."""
    state = paper.start.replace(hparams=hparams(critic_lr=0.0))
    larger = state.replace(params={**state.params, "critic": scaled_critics(state.params["critic"], 1000.0)})
    first, second = (paper.update(jax.random.key(3), s, batch)[0] for s in (state, larger))
    for a, b in zip(
        jax.tree.leaves(gradient(first, "policy")), jax.tree.leaves(gradient(second, "policy")), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_policy_climbs_the_online_and_not_the_target_critic(paper, batch):
    state = paper.start.replace(hparams=hparams(critic_lr=0.0))
    target = {**state.target_params, "critic": scaled_critics(state.target_params["critic"], 3.0)}
    first, _ = paper.update(jax.random.key(3), state, batch)
    second, _ = paper.update(jax.random.key(3), state.replace(target_params=target), batch)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), first.params["policy"], second.params["policy"])
    )


@pytest.fixture(scope="module")
def imitated(paper: Built, batch: Transition) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update of diffusion_bc from the same policy."""
    bc = diffusion_bc.make(diffusion_bc.Config(policy=POLICY), SPEC)
    default = jax.tree.map(np.float32, diffusion_bc.HParams(max_grad_norm=1e9))
    state = zeros(jax.eval_shape(bc.init, jax.random.key(0), default))
    state = state.replace(params={"policy": paper.start.params["policy"]}, hparams=default)
    return jax.jit(bc.update)(jax.random.key(0), state, batch)


@pytest.mark.parametrize("off", [{"q_weight": 0.0}, {"q_weight": 5.0, "q_start": 1.0}])
def test_without_the_q_term_the_gradient_is_that_of_diffusion_bc(paper, imitated, batch, off):
    state, metrics = paper.update(jax.random.key(0), paper.start.replace(hparams=hparams(**off)), batch)
    bc_after, bc_metrics = imitated

    error = ONLINE - np.asarray(batch.action, np.float64)
    assert float(metrics["policy_loss"]) == pytest.approx((error**2).mean(), rel=1e-5)
    assert float(bc_metrics["bc_loss"]) == pytest.approx((error**2).mean(), rel=1e-5)
    np.testing.assert_allclose(policy_bias_gradient(state), error.mean(axis=0), rtol=1e-4)
    moment = optax.tree.get(bc_after.opt_state, "mu")["policy"]["params"]["Mlp_0"]
    np.testing.assert_allclose(10.0 * np.asarray(moment[last_layer(moment)]["bias"]), error.mean(axis=0), rtol=1e-4)


def test_q_term_starts_at_q_start(paper, batch):
    for step, is_on in ((4, False), (5, True)):
        state = paper.start.replace(step=jnp.int32(step), hparams=hparams(q_weight=2.0, q_start=5.0))
        _, metrics = paper.update(jax.random.key(0), state, batch)
        assert (abs(float(metrics["policy_loss"] - metrics["bc_loss"])) > 1e-3) is is_on


def test_target_policy_stays_at_its_first_weights_for_a_thousand_updates(paper, batch):
    state = paper.start
    for k in range(3):
        state, _ = paper.update(jax.random.key(k), state, batch)
    for step in (0, 5, 995, 999):
        after, _ = paper.update(jax.random.key(0), state.replace(step=jnp.int32(step)), batch)
        first, now = paper.start.target_params["policy"], after.target_params["policy"]
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, now))
    after, _ = paper.update(jax.random.key(0), state.replace(step=jnp.int32(1000)), batch)
    assert not np.array_equal(
        after.target_params["policy"]["params"]["Mlp_0"]["Dense_0"]["kernel"],
        paper.start.target_params["policy"]["params"]["Mlp_0"]["Dense_0"]["kernel"],
    )


def test_target_policy_moves_every_ema_period_and_the_target_critic_always(other, batch):
    state = other.start.replace(hparams=hparams(ema_start=4.0, ema_rate=0.25, polyak=0.1, lr=0.01, critic_lr=0.01))
    moved = []
    for step in range(10):
        after, _ = other.update(jax.random.key(step), state, batch)
        change = jax.tree.map(
            lambda new, old: np.asarray(new, np.float64) - np.asarray(old), after.target_params, state.target_params
        )
        gap = jax.tree.map(
            lambda online, old: np.asarray(online, np.float64) - np.asarray(old), after.params, state.target_params
        )
        jax.tree.map(lambda c, g: np.testing.assert_allclose(c, 0.1 * g, atol=2e-7), change["critic"], gap["critic"])
        if any(np.any(leaf) for leaf in jax.tree.leaves(change["policy"])):
            moved.append(step)
            jax.tree.map(
                lambda c, g: np.testing.assert_allclose(c, 0.25 * g, atol=2e-7), change["policy"], gap["policy"]
            )
        state = after
    assert moved == [6, 9]


def test_gradients_are_clipped_by_their_norm(paper, batch):
    free, metrics = paper.update(jax.random.key(0), paper.start, batch)
    limit = float(metrics["critic_grad_norm"]) / 4.0
    clipped_hparams = dataclasses.replace(hparams(), max_grad_norm=np.float32(limit))
    clipped, _ = paper.update(jax.random.key(0), paper.start.replace(hparams=clipped_hparams), batch)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient(free, "critic"))))
    assert float(metrics["critic_grad_norm"]) == pytest.approx(norm, rel=1e-4)
    for a, b in zip(
        jax.tree.leaves(gradient(free, "critic")), jax.tree.leaves(gradient(clipped, "critic")), strict=True
    ):
        np.testing.assert_allclose(b, a / 4.0, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("step", "decay_steps", "share"),
    [
        (0, 100.0, 1.0),
        (25, 100.0, 0.5 * (1.0 + np.cos(np.pi / 4))),
        (50, 100.0, 0.5),
        (100, 100.0, 0.0),
        (400, 100.0, 0.0),
        (400, 0.0, 1.0),
    ],
)
def test_both_rates_follow_the_cosine_update_by_update(paper, batch, step, decay_steps, share):
    """Adam's first step moves a number with a gradient by the learning rate, whatever the gradient."""
    rates = {"policy": 1e-2, "critic": 2e-2}
    state = paper.start.replace(
        step=jnp.int32(step),
        hparams=hparams(lr=rates["policy"], critic_lr=rates["critic"], lr_decay_steps=decay_steps),
    )
    after, _ = paper.update(jax.random.key(0), state, batch)
    for name, rate in rates.items():
        moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), after.params[name], state.params[name])
        assert max(jax.tree.leaves(moved)) == pytest.approx(share * rate, rel=1e-3)


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        # the paper and its code
        ("hparams", "lr", 3e-4),
        ("hparams", "critic_lr", 3e-4),
        ("hparams", "discount_factor", 0.99),
        ("hparams", "polyak", 0.005),
        ("config", "critic_hidden", (256, 256, 256)),
        ("config", "critic_activation", "mish"),
        ("policy", "hidden", (256, 256, 256)),
        ("policy", "activation", "mish"),
        ("policy", "time_dim", 16),
        ("policy", "schedule", "vp"),
        ("policy", "beta_max", 10.0),
        ("policy", "kind", "eps"),
        ("policy", "num_levels", 5),
        ("policy", "num_steps", 5),
        ("policy", "sampler", "ddpm"),
        # the code alone
        ("hparams", "ema_rate", 0.005),
        ("hparams", "ema_start", 1000.0),
        ("hparams", "selection_temperature", 1.0),
        ("hparams", "q_start", 0.0),
        ("config", "ema_period", 5),
        ("config", "num_candidates", 50),
        ("config", "cross_normaliser", True),
        ("config", "act_with_ema", False),
    ],
)
def test_defaults_are_the_papers(group, name, value):
    config = diffusion_ql.Config()
    holder = {"hparams": diffusion_ql.HParams(), "config": config, "policy": config.policy}[group]
    assert getattr(holder, name) == value
