"""IDQL and its flow twin: they imitate, rank what they draw by implicit critics, and select in three ways.

The critics' update is tested with the Gaussian policy that shares it.

Reference: Hansen-Estruch et al. 2023, arXiv:2304.10573, and the released code.
"""

import dataclasses
from types import ModuleType
from typing import Any, NamedTuple

from corner_bandit import SPEC as BANDIT
from corner_bandit import CornerBandit, near_corners
import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import (
    coin_policy,
    constant_policy,
    last_layer,
    mlp,
    q_values,
    random_params,
    relu,
    scaled_critics,
    with_layer,
    zeros,
)
import pytest

from jaxdiff.algorithms import idql, ifql
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.algorithms.process import make_schedule
from jaxdiff.diffusion import make_table
from jaxdiff.envs import probes
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
X0 = PolicyConfig(hidden=(16,), kind="x0", num_levels=2, num_steps=2)
BATCH = 32


def hparams(module: ModuleType = idql, **changes: float) -> Any:
    return jax.tree.map(np.float32, module.HParams(**changes))


def blank(algorithm: Algorithm, h: Any, seed: int = 0) -> TrainState:
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), h))
    params = random_params(state.params, seed)
    return state.replace(params=params, target_params=params, hparams=h)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def updated() -> tuple[TrainState, TrainState, dict[str, jax.Array], Transition]:
    """One update of a policy that answers (0.3, -0.5) whatever it sees."""
    algorithm = idql.make(idql.Config(policy=X0, critic_hidden=(16,)), SPEC)
    before = blank(algorithm, hparams(lr=0.1, critic_lr=0.1, value_lr=0.1, ema_rate=0.125, polyak=0.5))
    params = {**before.params, "policy": constant_policy(before.params["policy"], np.array([0.3, -0.5]))}
    before = before.replace(params=params, target_params=random_params(params, seed=1))
    rng = np.random.default_rng(0)
    batch = Transition(
        obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(BATCH, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=BATCH), jnp.float32),
        discount=jnp.ones(BATCH),
        next_obs=jnp.asarray(rng.normal(size=(BATCH, 3)), jnp.float32),
    )
    after, metrics = jax.jit(algorithm.update)(jax.random.key(0), before, batch)
    return before, after, metrics, batch


def test_policy_imitates_every_action_alike(updated):
    """Weights of one: the gradient of the last bias is the mean error, averaged over the action's numbers."""
    before, after, metrics, batch = updated
    error = np.array([0.3, -0.5]) - np.asarray(batch.action, np.float64)
    assert float(metrics["bc_loss"]) == pytest.approx((error**2).mean(), rel=1e-5)
    layers = optax.tree.get(after.opt_state["policy"], "mu")["params"]["Mlp_0"]
    np.testing.assert_allclose(10.0 * np.asarray(layers[last_layer(layers)]["bias"]), error.mean(axis=0), rtol=1e-4)


def test_critic_bootstraps_from_the_new_value(updated):
    before, after, metrics, batch = updated
    v = mlp(after.params["value"]["params"]["Mlp_0"], np.asarray(batch.next_obs, np.float64), relu)[..., 0]
    target = np.asarray(batch.reward, np.float64) + 0.99 * v
    assert float(metrics["target_mean"]) == pytest.approx(target.mean(), rel=1e-4)


@pytest.mark.parametrize(("part", "rate"), [("policy", 0.125), ("critic", 0.5)])
def test_policy_and_critics_are_averaged_at_their_own_rates(updated, part, rate):
    before, after, _, _ = updated
    trees = (before.target_params, after.params, after.target_params)
    for old, online, new in zip(*(jax.tree.leaves(tree[part]) for tree in trees), strict=True):
        np.testing.assert_allclose(new, (1 - rate) * np.asarray(old) + rate * np.asarray(online), atol=1e-6)


LINE = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
COIN = PolicyConfig(hidden=(16,), kind="x0", num_levels=1, num_steps=1)  # candidates of -1 and 1, see coin_policy
OBS = np.array([0.7, -1.1, 0.4], np.float32)


def coins(select: str, **changes: float) -> tuple[np.ndarray, TrainState]:
    """Actions of 20,000 choices between two candidates, each -1 or 1 with equal chance, where Q < V < Q."""
    algorithm = idql.make(idql.Config(policy=COIN, critic_hidden=(8,), num_candidates=2, select=select), LINE)
    state = blank(algorithm, hparams(**changes), seed=3)
    critic = scaled_critics(state.params["critic"], 5.0)
    value = state.params["value"]
    middle = q_pair(critic).mean()
    params = {
        "policy": coin_policy(state.params["policy"]),
        "critic": critic,
        "value": with_layer(value, last_layer(value["params"]["Mlp_0"]), kernel=0.0, bias=middle),
    }
    state = state.replace(params=params, target_params=params)
    action, _ = jax.jit(algorithm.act)(jax.random.key(0), state, jnp.broadcast_to(OBS, (20_000, 3)), ())
    assert set(np.unique(action)) == {-1.0, 1.0} or select == "best"
    return np.asarray(action)[:, 0, 0], state


def q_pair(critic: Any) -> np.ndarray:
    """[2] the smaller Q of -1 and of 1."""
    return q_values(critic, np.stack([OBS, OBS]), np.array([[-1.0], [1.0]]), relu).min(axis=0)


def share_of_better(action: np.ndarray, state: TrainState) -> float:
    pair = q_pair(state.params["critic"])
    assert abs(pair[1] - pair[0]) > 0.2
    return float((action == (-1.0, 1.0)[pair.argmax()]).mean())


def within(chance: float) -> Any:
    return pytest.approx(chance, abs=5 * np.sqrt(chance * (1 - chance) / 20_000))


def test_best_takes_the_better_candidate_whenever_it_is_drawn():
    assert share_of_better(*coins("best")) == within(3 / 4)


@pytest.mark.parametrize("expectile", [0.7, 0.9])
def test_weights_are_the_expectile_above_the_value_and_its_complement_below(expectile):
    """Half of the pairs differ, and there the better one has the chance expectile / (expectile + 1 - expectile)."""
    assert share_of_better(*coins("weights", expectile=expectile)) == within(1 / 4 + expectile / 2)


@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_softmax_is_in_units_of_q(temperature):
    action, state = coins("softmax", selection_temperature=temperature)
    chance = 1.0 / (1.0 + np.exp(-abs(np.diff(q_pair(state.params["critic"]))[0]) / temperature))
    assert share_of_better(action, state) == within(1 / 4 + chance / 2)


@pytest.mark.parametrize(
    ("module", "policy", "critic"), [(idql, "target_params", "target_params"), (ifql, "params", "params")]
)
def test_which_networks_act(module, policy, critic):
    """Each of the four is replaced in turn; averaged ones act by default, and the flow twin's do not."""
    chain = dataclasses.replace(module.Config().policy, hidden=(8,), num_steps=1, num_levels=0)
    chain = dataclasses.replace(chain, sampler="euler", kind="x0")
    algorithm = module.make(module.Config(policy=chain, critic_hidden=(8,), num_candidates=3), SPEC)
    act = jax.jit(algorithm.act)
    state, other = (blank(algorithm, hparams(module), seed) for seed in (0, 1))
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)), jnp.float32)
    before, _ = act(jax.random.key(0), state, obs, ())
    matters = set()
    for where in ("params", "target_params"):
        for name in ("policy", "critic"):
            changed = state.replace(**{where: {**getattr(state, where), name: other.params[name]}})
            if (np.asarray(before) != np.asarray(act(jax.random.key(0), changed, obs, ())[0])).any():
                matters.add((where, name))
    assert matters == {(policy, "policy"), (critic, "critic")}


@pytest.mark.parametrize("module", [idql, ifql])
def test_unknown_selections_and_no_candidates_are_refused(module):
    with pytest.raises(KeyError, match="unknown select 'max'; .*best, softmax, weights"):
        module.make(module.Config(select="max"), SPEC)
    with pytest.raises(ValueError, match="num_candidates=0; it must be at least 1"):
        module.make(module.Config(num_candidates=0), SPEC)


def test_a_sampling_step_draws_noise_of_variance_beta_and_the_last_none():
    policy = idql.Config().policy
    table = make_table(policy.sampler, make_schedule(policy), policy.num_steps)
    step = np.arange(5, 0, -1)
    beta = 1.0 - np.exp(-0.1 / 5 - 0.5 * (10.0 - 0.1) * (2 * step - 1) / 5**2)
    np.testing.assert_allclose(table.noise, np.sqrt(beta) * (step > 1), rtol=1e-5)


class Trained(NamedTuple):
    """Weights trained once on the bandit, with one candidate."""

    module: ModuleType
    config: Any
    state: TrainState

    def actions(self, **changes: Any) -> np.ndarray:
        """[500, 2] with other acting-time settings and the same weights."""
        algorithm = self.module.make(dataclasses.replace(self.config, **changes), BANDIT)
        return np.asarray(jax.jit(algorithm.act)(jax.random.key(1), self.state, jnp.zeros((500, 1)), ())[0])[:, 0]


def trained(module: ModuleType, policy: PolicyConfig, num_updates: int, **changes: float) -> Trained:
    config = module.Config(policy=policy, critic_hidden=(64, 64), critic_activation="mish", num_candidates=1)
    bandit = CornerBandit(module, config, lr=3e-3, critic_lr=3e-3, value_lr=3e-3, polyak=0.05, **changes)
    return Trained(module, config, bandit.learn(num_updates))


@pytest.fixture(scope="module")
def diffusion() -> Trained:
    # Five levels cannot draw spots this small: between two corners the mean of the posterior is neither.
    policy = PolicyConfig(hidden=(64, 64), activation="relu", num_levels=20, num_steps=20)
    return trained(idql, policy, 1200, ema_rate=0.01, expectile=0.9)


def nearest_rewards(action: np.ndarray) -> np.ndarray:
    return probes.CORNER_REWARDS[np.square(action[:, None] - probes.CORNERS).sum(axis=-1).argmin(axis=-1)]


def test_score_rises_with_the_number_of_candidates_on_the_same_weights(diffusion):
    """One candidate is cloning, at the mean of the four rewards; the best of four and of 32 by the order statistics."""
    one, four, many = (nearest_rewards(diffusion.actions(num_candidates=n)).mean() for n in (1, 4, 32))
    ordered = np.sort(probes.CORNER_REWARDS)
    chance = np.arange(1, 5) / 4  # of a candidate at most as good as that corner
    of_four = (ordered * np.diff(chance**4, prepend=0.0)).sum()
    assert one == pytest.approx(ordered.mean(), abs=0.4)
    assert four == pytest.approx(of_four, abs=0.4)
    assert many > 4.9
    assert one + 1.0 < four < many - 0.3


def test_weights_of_the_implied_policy_count_the_corners_above_the_value(diffusion):
    """At 0.9 V is 4.125: the best corner has weight 0.9 and each other 0.1, so three of four choices are good."""
    good = nearest_rewards(diffusion.actions(num_candidates=32, select="weights")) == 5.0
    assert good.mean() == pytest.approx(0.9 / 1.2, abs=0.12)


def test_flows_best_of_32_is_at_the_best_corner():
    policy = dataclasses.replace(ifql.Config().policy, hidden=(64, 64), activation="relu")
    actions = trained(ifql, policy, 600).actions(num_candidates=32)
    assert probes.CORNER_REWARDS.argmax() == 3
    assert near_corners(actions, radius=0.3)[3] > 0.9
