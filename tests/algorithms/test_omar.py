"""OMAR's update and its search against their equations in float64 numpy, with policies that are constants.

Reference: Pan et al. 2022, arXiv:2111.11188, sections 3.2 and 4, and the released code.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import q_values, random_params, relu, scaled_critics, zeros
import pytest

from jaxdiff.algorithms import omar
from jaxdiff.envs import probes
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
BATCH = 16
MANY = 1000  # actions of the penalty and of the search, so that both are close to their limits
GRID = (np.arange(400) + 0.5) / 200.0 - 1.0  # midpoints of [-1, 1]
ONLINE, TARGET = 0.3, -0.6  # what the two policies do


class Built(NamedTuple):
    algorithm: Algorithm
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> omar.HParams:
    return jax.tree.map(np.float32, omar.HParams(**{"max_grad_norm": 1e9, **changes}))


def constant_actor(params: Any, action: float) -> Any:
    layers = params["params"]
    last = {"kernel": np.zeros_like(layers["Dense_1"]["kernel"]), "bias": np.full(1, np.arctanh(action), np.float32)}
    return {"params": {**layers, "Dense_1": last}}


def build(*, losses_only: bool = False, **changes: Any) -> Built:
    config = omar.Config(actor_hidden=(8,), critic_hidden=(16,), cql_samples=MANY, **changes)
    algorithm = omar.make(config, SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 8))
    params = {"policy": constant_actor(first["policy"], ONLINE), "critic": scaled_critics(first["critic"], 4.0)}
    target = {"policy": constant_actor(first["policy"], TARGET), "critic": scaled_critics(second["critic"], 4.0)}
    start = state.replace(params=params, target_params=target)

    def losses(key: jax.Array, state: TrainState, batch: Transition) -> Any:
        """The policy's gradient is not read, so it is not compiled."""
        after, metrics = algorithm.update(key, state, batch)
        return state.replace(params=state.params | {"critic": after.params["critic"]}), {
            name: metrics[name] for name in ("critic_loss", "policy_loss")
        }

    return Built(algorithm, jax.jit(losses if losses_only else algorithm.update), start)


@pytest.fixture(scope="module")
def built() -> Built:
    return build(cem_rounds=1, cem_samples=MANY)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(2.0 * rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 1)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.asarray([1.0, 0.0, 1.0, 1.0] * (BATCH // 4), jnp.float32),
        next_obs=jnp.asarray(2.0 * rng.normal(size=(BATCH, 3)), jnp.float32),
    )


def everywhere(action: float) -> np.ndarray:
    return np.full((BATCH, 1), action)


def gaps(critic: Any, batch: Transition) -> np.ndarray:
    """[E, B] log of the integral of exp Q over actions, less Q of the data."""
    q = np.stack([q_values(critic, batch.obs, everywhere(a), relu) for a in GRID])
    return np.log(np.exp(q).sum(axis=0) * (2.0 / len(GRID))) - q_values(critic, batch.obs, batch.action, relu)


@pytest.mark.parametrize("cql_weight", [0.0, 3.0])
def test_critics_descend_the_error_to_the_target_policys_value_plus_the_weighted_gap(built, batch, cql_weight):
    state = built.start.replace(hparams=hparams(cql_weight=cql_weight))
    _, metrics = built.update(jax.random.key(0), state, batch)
    next_q = q_values(state.target_params["critic"], batch.next_obs, everywhere(TARGET), relu).min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.95 * np.asarray(batch.discount, np.float64) * next_q
    error = q_values(state.params["critic"], batch.obs, batch.action, relu) - y
    gap = gaps(state.params["critic"], batch)
    assert abs(gap.mean()) > 0.1
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-5)
    assert float(metrics["cql_gap"]) == pytest.approx(gap.mean(), abs=0.01)
    wanted = ((error**2).mean(axis=1) + cql_weight * gap.mean(axis=1)).sum()
    assert float(metrics["critic_loss"]) == pytest.approx(wanted, abs=1e-4 + 0.02 * cql_weight)


def best_actions(critic: Any, batch: Transition) -> np.ndarray:
    """[B] where Q_1 is largest, the policy's own action among them."""
    candidates = np.concatenate([[ONLINE, -1.0, 1.0], GRID])
    q = np.stack([q_values(critic, batch.obs, everywhere(a), relu)[0] for a in candidates])
    return candidates[q.argmax(axis=0)]


def policy_gradient(state: TrainState) -> float:
    """The gradient of the first update: Adam's first moment is a tenth of it."""
    return 10.0 * float(optax.tree.get(state.opt_state["policy"], "mu")["params"]["Dense_1"]["bias"][0])


@pytest.mark.parametrize("omar_weight", [1.0, 0.7, 0.0])
def test_policy_is_drawn_to_the_best_action_and_climbs_the_updated_first_critic(built, batch, omar_weight):
    state = built.start.replace(hparams=hparams(omar_weight=omar_weight, action_penalty=0.05, critic_lr=0.1))
    after, metrics = built.update(jax.random.key(0), state, batch)
    best = best_actions(after.params["critic"], batch)
    assert len(np.unique(best.round(1))) > 1

    def loss(critic: Any, which: int, action: float, best: np.ndarray) -> float:
        q = q_values(critic, batch.obs, everywhere(action), relu)[which].mean()
        return float(omar_weight * ((action - best) ** 2).mean() - (1.0 - omar_weight) * q + 0.05 * action**2)

    def slope(critic: Any, which: int, best: np.ndarray) -> float:
        rise = loss(critic, which, ONLINE + 1e-4, best) - loss(critic, which, ONLINE - 1e-4, best)
        return rise / 2e-4 * (1.0 - ONLINE**2)

    critic, old = after.params["critic"], state.params["critic"]
    assert float(metrics["policy_loss"]) == pytest.approx(loss(critic, 0, ONLINE, best), abs=0.01)
    assert policy_gradient(after) == pytest.approx(slope(critic, 0, best), abs=0.01)
    assert abs(slope(old, 0, best_actions(old, batch)) - slope(critic, 0, best)) > 0.03
    assert omar_weight == 1.0 or abs(slope(critic, 1, best) - slope(critic, 0, best)) > 0.03


def test_without_a_search_the_policy_climbs_q_alone(batch):
    plain = build(losses_only=True, cem_rounds=0)
    state = plain.start.replace(hparams=hparams(action_penalty=0.05, omar_weight=0.9))
    after, metrics = plain.update(jax.random.key(0), state, batch)
    q = q_values(after.params["critic"], batch.obs, everywhere(ONLINE), relu)[0].mean()
    assert float(metrics["policy_loss"]) == pytest.approx(-q + 0.05 * ONLINE**2, abs=1e-4)


def test_both_targets_follow_with_every_update(built, batch):
    state = built.start.replace(hparams=hparams(polyak=0.25))
    after, _ = built.update(jax.random.key(0), state, batch)
    for now, new, old in zip(
        *map(jax.tree.leaves, (after.target_params, after.params, state.target_params)), strict=True
    ):
        np.testing.assert_allclose(now, 0.25 * new + 0.75 * old, atol=1e-5)


def softmax_fit(action: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weight = np.exp(q) / np.exp(q).sum(axis=0)
    mean = (weight[..., None] * action).sum(axis=0)
    return mean, np.sqrt(((action - mean) ** 2).mean(axis=0))


def elite_fit(action: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    best = np.take_along_axis(action, np.argsort(-q, axis=0)[:3, :, None], axis=0)
    return best.mean(axis=0), np.sqrt(((best - best.mean(axis=0)) ** 2).sum(axis=0) / 2.0)


def test_a_round_is_refitted_by_softmax_or_to_its_elites(x64):
    rng = np.random.default_rng(1)
    action, q = rng.uniform(-1, 1, size=(7, 4, 2)), 3.0 * rng.normal(size=(7, 4))
    np.testing.assert_allclose(omar.refit(jnp.asarray(action), jnp.asarray(q)), softmax_fit(action, q), rtol=1e-12)
    elites = np.take_along_axis(action, np.argsort(-q, axis=0)[:3, :, None], axis=0)
    found = omar.refit(jnp.asarray(action), jnp.asarray(q), (jnp.asarray(elites),))
    np.testing.assert_allclose(found, elite_fit(action, q), rtol=1e-12)


@pytest.mark.parametrize(("num_elites", "fit"), [(0, softmax_fit), (3, elite_fit)])
def test_a_search_draws_each_round_around_what_the_last_one_found(num_elites, fit):
    """The value is called once per round: what it was given is what was drawn, elites of the round before behind."""
    count, seen = 4000, []

    def value(action: jax.Array) -> jax.Array:
        q = -50.0 * jnp.sum(jnp.square(action - jnp.asarray([[[0.3, -0.2], [0.1, 0.4]]])), axis=-1)
        seen.append((np.asarray(action, np.float64), np.asarray(q, np.float64)))
        return q

    options = {"rounds": 2, "num_samples": count, "num_elites": num_elites}
    found = omar.cross_entropy_search(jax.random.key(0), value, (2, 2), std=0.15, **options)
    (first, q_first), (second, q_second) = seen
    assert first.shape == (count, 2, 2)
    assert second.shape == (count + num_elites, 2, 2)
    np.testing.assert_allclose(first.mean(axis=0), 0.0, atol=5 * 0.15 / np.sqrt(count))
    np.testing.assert_allclose(first.std(axis=0), 0.15, rtol=5 / np.sqrt(2 * count))
    mean, std = fit(first, q_first)
    drawn = second[:count]
    assert (np.abs(drawn.mean(axis=0) - mean) < 5 * std / np.sqrt(count)).all()
    np.testing.assert_allclose(drawn.std(axis=0), std, rtol=5 / np.sqrt(2 * count))
    np.testing.assert_allclose(found, second[q_second.argmax(axis=0), np.arange(2)], atol=1e-6)
    if num_elites:
        best = np.take_along_axis(first, np.argsort(-q_first, axis=0)[:3, :, None], axis=0)
        np.testing.assert_allclose(np.sort(second[count:], axis=0), np.sort(best, axis=0), atol=1e-6)


def test_actions_around_the_policy_come_with_their_density_and_are_clipped():
    centre = np.array([[0.2, -0.4], [0.97, 0.0]])
    action, log_density = omar.noisy_actions(jax.random.key(0), jnp.asarray(centre, jnp.float32), 500, 0.1)
    assert np.abs(action).max() == 1.0
    z = (np.asarray(action, np.float64)[:, 0] - centre[0]) / 0.1
    wanted = (-0.5 * z**2 - np.log(0.1) - 0.5 * np.log(2 * np.pi)).sum(axis=-1)
    np.testing.assert_allclose(log_density[:, 0], wanted, atol=1e-3)
    assert z.std() == pytest.approx(1.0, abs=0.15)


def test_finds_the_best_corner_of_the_bandit():
    """With elites and with the policy's actions in the penalty: the settings of HalfCheetah."""
    search = {"cem_rounds": 2, "cem_samples": 8, "cem_elites": 3}
    config = omar.Config(actor_hidden=(8,), critic_hidden=(32, 32), cql_samples=3, cql_policy_samples=2, **search)
    bandit = CornerBandit(omar, config, lr=1e-2, critic_lr=1e-2, max_grad_norm=1e9, cql_weight=0.5)
    share = near_corners(bandit.actions(bandit.learn(300)), radius=0.25)
    assert share[probes.CORNER_REWARDS.argmax()] > 0.9


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"cql_samples": 0}, "cql_samples=0 and .*at least 1.*cql_weight = 0"),
        ({"cql_policy_samples": -1}, "cql_policy_samples=-1"),
        ({"cem_rounds": -1}, "cem_rounds=-1 .*no search"),
        ({"cem_samples": 0}, "cem_samples=0"),
        ({"cem_elites": 1}, "cem_elites=1; allowed: 0 .*, or 2 to cem_samples=10"),
        ({"cem_elites": 11}, "cem_elites=11"),
    ],
)
def test_make_refuses_counts_out_of_range(change, match):
    with pytest.raises(ValueError, match=match):
        omar.make(omar.Config(**change), SPEC)
