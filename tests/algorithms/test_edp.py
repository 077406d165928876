"""EDP's update against its equations in float64 numpy, and what it learns on the bandit.

A network that predicts x0 and answers a constant makes every sample and every approximated action that constant; one
that predicts eps makes the approximated action depend on one call alone, which is what the last gradient test uses.

Reference: Kang et al. 2023, arXiv:2305.20081, and the released code.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import constant_policy, last_layer, mlp, q_values, random_params, scaled_critics, zeros
import pytest
from scipy.optimize import brentq

from jaxdiff import train
from jaxdiff.algorithms import edp
from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.data import Dataset
from jaxdiff.envs import probes
from jaxdiff.networks import NETWORKS
from jaxdiff.types import Algorithm, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
POLICY = PolicyConfig(hidden=(16,), kind="x0", num_levels=2, num_steps=2)
ONLINE, TARGET = np.array([0.3, -0.5]), np.array([-0.2, 0.6])  # what the online and the target policy do
BATCH = 16


class Built(NamedTuple):
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState  # online and target policies are constants, all critics and values differ


def hparams(**changes: float) -> edp.HParams:
    return jax.tree.map(np.float32, edp.HParams(**{"max_grad_norm": 1e9, **changes}))


def build(policy: PolicyConfig = POLICY, critic_hidden: tuple[int, ...] = (16,), **changes: Any) -> Built:
    algorithm = edp.make(edp.Config(policy=policy, critic_hidden=critic_hidden, **changes), SPEC)
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    parts = []
    for seed, action in enumerate((ONLINE, TARGET)):
        params = random_params(state.params, seed)
        params["policy"] = constant_policy(params["policy"], action)
        params["critic"] = scaled_critics(params["critic"], 5.0)
        parts.append(params)
    start = state.replace(params=parts[0], target_params=parts[1], hparams=hparams())
    return Built(jax.jit(algorithm.update), start)


@pytest.fixture(scope="module")
def td3() -> Built:
    return build()


@pytest.fixture(scope="module")
def crr() -> Built:
    return build(guide="crr", num_value_actions=3)


@pytest.fixture(scope="module")
def iql() -> Built:
    return build(guide="iql")


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


def everywhere(action: np.ndarray) -> np.ndarray:
    return np.broadcast_to(action, (BATCH, 2))


def policy_gradient(state: TrainState) -> Any:
    """The gradient of the first update: Adam's first moment is a tenth of it."""
    moments = optax.tree.get(state.opt_state["policy"], "mu")
    return jax.tree.map(lambda m: 10.0 * np.asarray(m, np.float64), moments)


def last_bias(gradient: Any) -> np.ndarray:
    layers = gradient["params"]["Mlp_0"]
    return layers[last_layer(layers)]["bias"]


def guides(built: Built, batch: Transition, updates: int, **changes: float) -> tuple[np.ndarray, TrainState]:
    """The guide's loss under as many keys, from one state with a critic that moves far; and a state after."""
    state = built.start.replace(hparams=hparams(critic_lr=0.3, **changes))
    rows = [built.update(jax.random.key(k), state, batch) for k in range(updates)]
    return np.array([float(metrics["guide_loss"]) for _, metrics in rows]), rows[0][0]


def sides(critic: Any, batch: Transition) -> tuple[np.ndarray, np.ndarray]:
    """(mean Q_i, mean |Q_i|) [2] each, of the online policy's action."""
    q = q_values(critic, batch.obs, everywhere(ONLINE))
    return q.mean(axis=1), np.abs(q).mean(axis=1)


def test_td3_critic_regresses_on_the_target_policys_action(td3, batch):
    _, metrics = td3.update(jax.random.key(0), td3.start, batch)
    next_q = q_values(td3.start.target_params["critic"], batch.next_obs, everywhere(TARGET)).min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q
    q = q_values(td3.start.params["critic"], batch.obs, batch.action)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-5)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-5)


def test_td3_throws_one_coin_and_divides_the_old_critic_by_its_own_size(td3, batch):
    found, after = guides(td3, batch, 48)
    mean, size = sides(td3.start.params["critic"], batch)
    own = -mean / size
    distance = np.abs(found[:, None] - own[None, :])
    assert distance.min(axis=1).max() < 1e-5
    assert 8 <= distance.argmin(axis=1).sum() <= 40  # 48 throws of a fair coin, one for the whole batch
    new_mean, new_size = sides(after.params["critic"], batch)
    wrong = [*(-mean / size[::-1]), *(-new_mean / new_size), *(-new_mean / new_size[::-1])]
    assert np.abs(own[:, None] - np.array(wrong)[None, :]).min() > 1e-3  # the other readings can be told apart


def test_normaliser_and_age_of_the_critic_can_be_diffusion_qls(batch):
    built = build(cross_normaliser=True, updated_critic=True)
    found, after = guides(built, batch, 12)
    mean, size = sides(after.params["critic"], batch)
    distance = np.abs(found[:, None] - (-mean / size[::-1])[None, :])
    assert distance.min(axis=1).max() < 1e-4
    assert set(distance.argmin(axis=1)) == {0, 1}


def test_losses_are_weighted_and_the_guide_waits_for_q_start(td3, batch):
    error = ((ONLINE - np.asarray(batch.action, np.float64)) ** 2).mean()
    for step, weight in ((4, 0.0), (5, 2.0)):
        state = td3.start.replace(step=jnp.int32(step), hparams=hparams(bc_weight=0.5, q_weight=2.0, q_start=5.0))
        after, metrics = td3.update(jax.random.key(0), state, batch)
        assert float(metrics["bc_loss"]) == pytest.approx(error, rel=1e-5)
        total = 0.5 * error + weight * float(metrics["guide_loss"])
        assert float(metrics["policy_loss"]) == pytest.approx(total, rel=1e-5)
        imitation = 0.5 * (ONLINE - np.asarray(batch.action, np.float64)).mean(axis=0)
        is_imitation = np.abs(last_bias(policy_gradient(after)) - imitation).max() < 1e-6
        assert is_imitation == (weight == 0.0)


def regression_loss(weight: np.ndarray, batch: Transition) -> float:
    return float((weight * 0.5 * ((np.asarray(batch.action, np.float64) - ONLINE) ** 2).sum(axis=-1)).mean())


def test_crr_weighs_by_the_advantage_over_the_policys_samples(crr, batch):
    state = crr.start.replace(hparams=hparams(bc_weight=0.0, awr_temperature=6.0, critic_lr=0.3))
    after, metrics = crr.update(jax.random.key(0), state, batch)
    critic = crr.start.params["critic"]  # before its step
    middle = q_values(critic, batch.obs, everywhere(ONLINE)).min(axis=0)
    q = q_values(critic, batch.obs, batch.action).min(axis=0)
    weight = np.minimum(np.exp(6.0 * (q - middle)), 20.0)
    assert 0 < (weight == 20.0).sum() < BATCH
    assert float(metrics["weight_mean"]) == pytest.approx(weight.mean(), rel=1e-4)
    assert float(metrics["guide_loss"]) == pytest.approx(regression_loss(weight, batch), rel=1e-4)
    # No gradient through the weights: of the mean alone.
    slope = (weight[:, None] * (ONLINE - np.asarray(batch.action, np.float64))).mean(axis=0)
    np.testing.assert_allclose(last_bias(policy_gradient(after)), slope, rtol=1e-4, atol=1e-5)


def test_crr_of_the_code_compares_with_a_unit_gaussian_around_the_approximated_action(batch):
    """Linear critics that are equal: the middle is Q(s, a0_hat) + w . mean z, with z of unit variance, not clipped."""
    built = build(guide="crr", critic_hidden=(), value_actions="gaussian", num_value_actions=2)
    critic = jax.tree.map(lambda leaf: np.stack([leaf[0], leaf[0]]), built.start.params["critic"])
    critic = scaled_critics(critic, 0.5)
    state = built.start.replace(
        params={**built.start.params, "critic": critic}, hparams=hparams(critic_lr=0.0, awr_temperature=1.0)
    )
    w = np.asarray(critic["params"]["Mlp_0"]["Dense_0"]["kernel"], np.float64)[0, 3:, 0]
    q, middle = (q_values(critic, batch.obs, a)[0] for a in (np.asarray(batch.action), everywhere(ONLINE)))
    # E exp(-w . mean z) = exp(|w|**2 / (2 n)) for the mean of n normal vectors.
    wanted = np.exp(q - middle).mean() * np.exp((w**2).sum() / 4.0)
    found = [float(built.update(jax.random.key(k), state, batch)[1]["weight_mean"]) for k in range(128)]
    error = 4.5 * np.std(found) / np.sqrt(len(found))
    assert np.mean(found) == pytest.approx(wanted, abs=error)
    assert wanted - np.exp(q - middle).mean() > 2 * error  # the spread shows


def test_iql_regresses_q_on_v_and_weighs_by_the_target_critics_advantage(iql, batch):
    state = iql.start.replace(hparams=hparams(bc_weight=0.0, awr_temperature=2.0, value_lr=0.05, critic_lr=0.3))
    after, metrics = iql.update(jax.random.key(0), state, batch)
    reward, discount = (np.asarray(x, np.float64) for x in (batch.reward, batch.discount))

    def v(params: Any, obs: Any) -> np.ndarray:
        return mlp(params["params"]["Mlp_0"], np.asarray(obs, np.float64))[:, 0]

    target_q = q_values(state.target_params["critic"], batch.obs, batch.action).min(axis=0)
    gap = target_q - v(state.params["value"], batch.obs)
    assert float(metrics["value_loss"]) == pytest.approx((np.where(gap < 0, 0.3, 0.7) * gap**2).mean(), rel=1e-4)
    new = after.params["value"]  # V first, and its new weights in both other losses
    y = reward + 0.99 * discount * v(new, batch.next_obs)
    q = q_values(state.params["critic"], batch.obs, batch.action)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-4)
    weight = np.minimum(np.exp(2.0 * (target_q - v(new, batch.obs))), 100.0)
    assert float(metrics["guide_loss"]) == pytest.approx(regression_loss(weight, batch), rel=1e-3)
    slope = (weight[:, None] * (ONLINE - np.asarray(batch.action, np.float64))).mean(axis=0)
    np.testing.assert_allclose(last_bias(policy_gradient(after)), slope, rtol=1e-3, atol=1e-5)


def test_gradient_of_the_guide_flows_through_one_call_of_the_network(batch):
    """a0_hat = (a_t - sigma eps_hat) / alpha, so d a0_hat / d eps_hat = -sigma / alpha, and dQ/da = w for linear Q.

    The chain of four steps, which the critics' targets are sampled by, would have another slope.
    """
    near = dataclasses.replace(batch, action=0.05 * batch.action)
    policy = PolicyConfig(hidden=(16,), kind="eps", num_levels=1, beta_max=0.02, sampler="ddim", num_steps=4)
    built = build(policy=policy, critic_hidden=())
    params = built.start.params
    critic = jax.tree.map(np.array, params["critic"])
    critic["params"]["Mlp_0"]["Dense_0"]["bias"] += 100.0  # Q > 0 everywhere, so that |Q| has a known mean
    params = {"policy": constant_policy(params["policy"], [0.1, -0.1]), "critic": critic}
    state = built.start.replace(params=params, hparams=hparams(bc_weight=0.0, q_weight=3.0))
    after, metrics = built.update(jax.random.key(5), state, near)
    found = last_bias(policy_gradient(after))
    log_alpha = -0.5 * 0.1 - 0.25 * (0.02 - 0.1)
    ratio = np.sqrt(np.exp(-2.0 * log_alpha) - 1.0)  # sigma / alpha at t = 1
    w = np.asarray(critic["params"]["Mlp_0"]["Dense_0"]["kernel"], np.float64)[:, 3:, 0]  # [2, U]
    either = 3.0 * ratio * w / float(metrics["q_policy"])
    assert np.abs(found / either - 1.0).max(axis=1).min() < 0.02  # the two critics' sizes differ by a percent
    assert np.abs(either[0] / either[1] - 1.0).max() > 0.1


def test_network_is_shown_fractional_step_indices_at_the_papers_fifteen_points(monkeypatch):
    """Four steps of order 3, one of 2 and one of 1, even in t from 1 to 1/N; inner points even in log(alpha/sigma).

    Between levels log alpha is linear in t, and the network sees N t - 1.
    """
    seen: list[float] = []

    class Clock:
        def apply(self, params: Any, x: jax.Array, t: jax.Array, cond: jax.Array) -> jax.Array:
            seen.append(float(t))
            return jnp.zeros_like(x)

    monkeypatch.setitem(NETWORKS, "clock", lambda **sizes: Clock())
    make_policy(dataclasses.replace(edp.POLICY, network="clock"), SPEC).sample(jax.random.key(0), {}, jnp.zeros((1, 3)))

    log_alpha = 0.5 * np.cumsum(np.log1p(-np.linspace(1e-4, 0.02, 1000)))

    def half_logsnr(t: float) -> float:
        at = np.interp(1000.0 * t, np.arange(1001), np.append(0.0, log_alpha))
        return float(at - 0.5 * np.log(-np.expm1(2.0 * at)))

    wanted, edges = [], np.linspace(1.0, 1e-3, 7)
    for start, end, order in zip(edges[:-1], edges[1:], (3, 3, 3, 3, 2, 1), strict=True):
        low, high = half_logsnr(start), half_logsnr(end)
        inner = [low + part / order * (high - low) for part in range(1, order)]
        wanted += [start, *(brentq(lambda t, point=point: half_logsnr(t) - point, end, start) for point in inner)]
    assert len(wanted) == 15
    np.testing.assert_allclose(seen, 1000.0 * np.array(wanted) - 1.0, atol=2e-3)
    assert np.abs(np.array(seen) - np.round(seen)).max() > 0.1


def operations(guide: str, num_levels: int, num_steps: int) -> int:
    """Operations of the update's program, loops written out."""
    policy = dataclasses.replace(edp.POLICY, hidden=(4,), num_levels=num_levels, num_steps=num_steps, time_dim=4)
    algorithm = edp.make(edp.Config(policy=policy, critic_hidden=(4,), guide=guide), SPEC)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), hparams())
    rows = Transition(*(jax.ShapeDtypeStruct(s, np.float32) for s in ((8, 3), (8, 2), (8,), (8,), (8, 3))))
    return str(jax.make_jaxpr(algorithm.update)(jax.random.key(0), state, rows)).count(" = ")


def test_cost_of_training_depends_on_the_samplers_calls_and_not_on_the_number_of_levels():
    assert operations("td3", 1000, 4) == operations("td3", 100, 4) < operations("td3", 100, 7)
    assert operations("iql", 1000, 4) == operations("iql", 100, 4) == operations("iql", 100, 7)  # nothing is sampled


def test_target_policy_moves_every_fifth_update_after_a_thousand_and_the_target_critic_always(td3, batch):
    state = td3.start.replace(hparams=hparams(lr=0.01, critic_lr=0.01, ema_rate=0.25, polyak=0.1))
    for step, moves in ((4, False), (999, False), (1000, False), (1003, False), (1004, True), (1009, True)):
        after, _ = td3.update(jax.random.key(0), state.replace(step=jnp.int32(step)), batch)
        for part, rate in (("policy", 0.25 if moves else 0.0), ("critic", 0.1)):
            old, new, online = (tree[part] for tree in (state.target_params, after.target_params, after.params))
            jax.tree.map(
                lambda o, n, w, r=rate: np.testing.assert_allclose(
                    np.asarray(n, np.float64) - o, r * (np.asarray(w, np.float64) - o), atol=3e-7
                ),
                old, new, online,
            )  # fmt: skip


@pytest.mark.parametrize("guide", edp.GUIDES)
def test_every_guide_moves_every_parameter_and_stays_finite(guide, batch, request):
    built = request.getfixturevalue(guide)
    state = start = built.start.replace(params=random_params(built.start.params, 4))
    for k in range(10):
        state, metrics = built.update(jax.random.key(k), state, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.target_params, metrics)))
    for old, new in zip(jax.tree.leaves(start.params), jax.tree.leaves(state.params), strict=True):
        assert (np.asarray(old) != np.asarray(new)).any()


def test_online_policy_and_online_critics_act(batch):
    config = edp.Config(policy=POLICY, critic_hidden=(8,), num_candidates=3)
    algorithm = edp.make(config, SPEC)
    act = jax.jit(algorithm.act)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), hparams())
    first, other = (random_params(state.params, seed) for seed in (0, 1))
    other["critic"] = scaled_critics(other["critic"], 30.0)
    state = TrainState(np.int32(0), first, first, None, hparams())
    before, _ = act(jax.random.key(0), state, jnp.tile(batch.obs, (8, 1)), ())
    matters = set()
    for where in ("params", "target_params"):
        for name in ("policy", "critic"):
            changed = state.replace(**{where: {**getattr(state, where), name: other[name]}})
            after, _ = act(jax.random.key(0), changed, jnp.tile(batch.obs, (8, 1)), ())
            if (np.asarray(before) != np.asarray(after)).any():
                matters.add((where, name))
    assert matters == {("params", "policy"), ("params", "critic")}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"guide": "crrr"}, KeyError, "unknown guide 'crrr'; did you mean 'crr'.* known: crr, iql, td3"),
        ({"value_actions": "normal"}, KeyError, "unknown value_actions 'normal'; .*gaussian, policy"),
        ({"num_value_actions": 0}, ValueError, "num_value_actions=0; it must be at least 1"),
    ],
)
def test_mistakes_are_named(change, error, match):
    with pytest.raises(error, match=match):
        edp.make(edp.Config(**change), SPEC)


@pytest.mark.parametrize(
    ("holder", "name", "value"),
    [
        # the paper
        (edp.Config().policy, "num_levels", 1000),
        (edp.Config().policy, "sampler", "dpm_solver_3"),
        (edp.Config().policy, "num_steps", 15),
        (edp.Config(), "num_candidates", 10),
        (edp.HParams(), "q_weight", 1.0),
        (edp.HParams(), "max_grad_norm", 5.0),
        # the code alone
        (edp.Config().policy, "schedule", "linear"),
        (edp.Config().policy, "t_end", 1e-3),
        (edp.Config(), "cross_normaliser", False),
        (edp.Config(), "updated_critic", False),
        (edp.HParams(), "ema_start", 1000.0),
        (edp.Config(), "ema_period", 5),
    ],
)
def test_defaults_are_the_papers(holder, name, value):
    assert getattr(holder, name) == value


# Short of the paper's fifteen calls and thousand levels, for time.
BANDIT = PolicyConfig(
    hidden=(64, 64),
    activation="relu",
    schedule="linear",
    num_levels=100,
    sampler="dpm_solver_3",
    num_steps=6,
    t_end=0.01,
)
BANDIT_SPEC = Spec("bandit", obs_dim=1, action_dim=2, max_episode_steps=1)


@pytest.mark.parametrize(
    ("guide", "num_updates", "changes"),
    [("td3", 600, {"lr": 1e-3, "critic_lr": 1e-3, "q_weight": 2.5}), ("iql", 1200, {"lr": 3e-3, "polyak": 0.05})],
)
def test_guided_policy_finds_the_best_corner_without_selecting(guide, num_updates, changes):
    """One sample acts, so what is seen is the policy. Regression sharpens slowly: iql is asked for the right quadrant.

    crr is not asked: with its temperature of 1 a corner weighs exp(Q), and 15 % of the policy stays on the second best.
    """
    config = edp.Config(policy=BANDIT, critic_hidden=(64, 64), critic_activation="relu", num_candidates=1, guide=guide)
    chosen = edp.HParams(**{"critic_lr": 3e-3, "value_lr": 3e-3, "ema_start": 0.0, **changes})
    share = corner_shares(edp.make(config, BANDIT_SPEC), chosen, num_updates, radius=0.2 if guide == "td3" else 0.8)
    assert probes.CORNER_REWARDS.argmax() == 3
    assert share[3] > 0.9


def corner_shares(algorithm: Algorithm, chosen: edp.HParams, num_updates: int, radius: float) -> np.ndarray:
    """[4] share of the actions within the radius of each corner, by the larger of the two distances."""
    action, reward = probes.bandit_corners(0, num_points=4000)
    obs = np.zeros((4000, 1), np.float32)
    rows = Transition(obs, action, reward, np.zeros(4000, np.float32), obs)
    chunk = jax.jit(train.make_chunk(algorithm, 64))
    lane = jax.jit(lambda h, seed: train.init_lane(algorithm, h, seed))(jax.tree.map(np.float32, chosen), np.int32(0))
    lane, _ = chunk(lane, jnp.int32(num_updates), Dataset(rows, np.arange(4000, dtype=np.int32)))
    assert bool(lane.alive)
    found, _ = jax.jit(algorithm.act)(jax.random.key(1), lane.state, jnp.zeros((2000, 1)), ())
    distance = np.abs(np.asarray(found)[:, 0, None, :] - probes.CORNERS).max(axis=-1)
    return (distance < radius).mean(axis=0)
