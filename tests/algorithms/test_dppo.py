"""DPPO against its losses in float64 numpy, on chains that are given, and on the bandit."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from plain_networks import constant_policy, last_layer, mlp, noise_model, random_params, with_layer, zeros
import pytest

from jaxdiff import envs, train
from jaxdiff.algorithms import dppo
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.rl import Moments
from jaxdiff.types import Rollout, Spec, TrainState, Transition

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
CALLS, LEARNT = 4, 2
POLICY = PolicyConfig(hidden=(16,), time_dim=4, num_levels=CALLS, num_steps=CALLS)
T, E = 5, 4


class Built(NamedTuple):
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    decide: Callable[..., tuple[jax.Array, dppo.Record]]
    act: Callable[..., tuple[jax.Array, Any]]
    start: TrainState


def hparams(**changes: float) -> dppo.HParams:
    return jax.tree.map(np.float32, dppo.HParams(**changes))


def build(policy: PolicyConfig = POLICY, **changes: Any) -> Built:
    options = {"num_finetuned": LEARNT, "value_hidden": (8,), "num_epochs": 1, **changes}
    algorithm = dppo.make(dppo.Config(policy=policy, **options), SPEC)
    assert algorithm.decide is not None
    state = zeros(jax.eval_shape(algorithm.init, jax.random.key(0), hparams()))
    first, second = (random_params(state.params, seed) for seed in (0, 1))
    reward = Moments(np.float32(0.0), np.float32(0.0), np.float32(1.0))
    start = state.replace(
        params=first, target_params=second, opt_state={**state.opt_state, "reward": reward}, hparams=hparams()
    )
    return Built(jax.jit(algorithm.update), jax.jit(algorithm.decide), jax.jit(algorithm.act), start)


@pytest.fixture(scope="module")
def whole() -> Built:
    """One minibatch that holds everything, so that its metrics are those of the rollout."""
    return build()


@pytest.fixture(scope="module")
def whole_by_sums() -> Built:
    return build(ratio="sum")


@pytest.fixture(scope="module")
def pieces() -> Built:
    """Two passes of three minibatches, each pass without four of the 40 rows."""
    return build(num_epochs=2, minibatch_size=12)


def bars() -> np.ndarray:
    """alpha_bar of the vp schedule after i = 0 .. CALLS levels: exp(-0.1 t - 9.9 t**2 / 2)."""
    t = np.arange(CALLS + 1) / CALLS
    return np.exp(-0.1 * t - 0.5 * 9.9 * t**2)


def posterior(policy: Any, k: int, x: np.ndarray, obs: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean and deviation of DDPM's step k, of which CALLS - 1 is the last: Ho et al. 2020, eq. 7."""
    i, bar = CALLS - k, bars()
    beta = 1.0 - bar[i] / bar[i - 1]
    eps = noise_model(policy, x, i - 1.0, obs, POLICY.time_dim)
    x0 = np.clip((x - np.sqrt(1.0 - bar[i]) * eps) / np.sqrt(bar[i]), -1.0, 1.0)
    mean = np.sqrt(bar[i - 1]) * beta / (1.0 - bar[i]) * x0
    mean += np.sqrt(1.0 - beta) * (1.0 - bar[i - 1]) / (1.0 - bar[i]) * x
    return mean, float(np.sqrt((1.0 - bar[i - 1]) / (1.0 - bar[i]) * beta))


def log_probs(policy: Any, chain: Any, obs: Any, min_std: float, ratio: str = "mean") -> np.ndarray:
    """[N, LEARNT] of the learning steps, from the chain [N, LEARNT + 1, U]."""
    chain, obs, found = np.asarray(chain, np.float64), np.asarray(obs, np.float64), []
    for k in range(LEARNT):
        mean, own = posterior(policy, CALLS - LEARNT + k, chain[:, k], obs)
        std = max(own, min_std)
        each = -((chain[:, k + 1] - mean) ** 2) / (2 * std**2) - np.log(std * np.sqrt(2 * np.pi))
        found.append(getattr(np, ratio)(np.clip(each, -5.0, 2.0), axis=-1))
    return np.stack(found, axis=1)


def values(params: Any, obs: Any) -> np.ndarray:
    return mlp(params["params"]["Mlp_0"], np.asarray(obs, np.float64))[..., 0]


def flat(leaf: Any) -> np.ndarray:
    return np.asarray(leaf, np.float64).reshape(T * E, *np.shape(leaf)[2:])


def make_rollout(built: Built, min_std: float, ratio: str = "mean") -> Rollout:
    """Chains near the policy's own, their recorded densities some way from what the policy gives them."""
    rng = np.random.default_rng(5)
    obs = rng.normal(size=(T, E, 3)).astype(np.float32)
    chain = [rng.normal(size=(T * E, 2))]
    for k in range(LEARNT):
        mean, own = posterior(built.start.params["policy"], CALLS - LEARNT + k, chain[-1], flat(obs))
        chain.append(mean + max(own, min_std) * rng.normal(size=mean.shape))
    chain = np.stack(chain, axis=1).astype(np.float32)
    old = log_probs(built.start.params["policy"], chain, flat(obs), min_std, ratio)
    old += 0.2 * rng.normal(size=old.shape)
    ended = np.zeros((T, E), bool)
    ended[1, 0] = ended[2, 1] = ended[4, 2] = True
    discount = np.ones((T, E), np.float32)
    discount[1, 0] = 0.0
    record = dppo.Record(*(jnp.asarray(x.reshape(T, E, *x.shape[1:]), jnp.float32) for x in (chain, old)))
    batch = Transition(
        obs=jnp.asarray(obs),
        action=jnp.clip(record.chain[:, :, -1], -1.0, 1.0),
        reward=jnp.asarray(3.0 + 2.0 * rng.normal(size=(T, E)), jnp.float32),
        discount=jnp.asarray(discount),
        next_obs=jnp.asarray(rng.normal(size=(T, E, 3)), jnp.float32),
    )
    return Rollout(batch, jnp.asarray(ended), record)


def reward_moments(rollout: Rollout, gamma: float, seen: Moments) -> tuple[float, float, float]:
    """Count, mean and variance after the rollout's running returns, as if all numbers seen were there at once."""
    running, total = [], np.zeros(E)
    for r, ended in zip(np.asarray(rollout.batch.reward, np.float64), np.asarray(rollout.ended), strict=True):
        total = gamma * total + r
        running.append(total.copy())
        total[ended] = 0.0
    new, count = np.concatenate(running), float(seen.count)
    mean = (count * float(seen.mean) + new.sum()) / (count + new.size)
    squares = count * (float(seen.var) + float(seen.mean) ** 2) + (new**2).sum()
    return count + new.size, mean, squares / (count + new.size) - mean**2


def advantages(value: Any, rollout: Rollout, h: Any, seen: Moments) -> np.ndarray:
    """[T, E] by generalised advantage estimation of the scaled rewards."""
    batch = rollout.batch
    spread = np.sqrt(reward_moments(rollout, h.discount_factor, seen)[2])
    reward = np.clip(np.asarray(batch.reward, np.float64) / spread, -10.0, 10.0)
    now, after = values(value, batch.obs), values(value, batch.next_obs)
    found, later = np.zeros((T, E)), np.zeros(E)
    for t in reversed(range(T)):
        delta = reward[t] + h.discount_factor * np.asarray(batch.discount)[t] * after[t] - now[t]
        later = delta + h.discount_factor * h.gae_lambda * np.where(np.asarray(rollout.ended)[t], 0.0, later)
        found[t] = later
    return found


class Expected(NamedTuple):
    policy_loss: float
    kl: float
    clip_fraction: float
    value_loss: float
    explained_variance: float


def expected(params: Any, start: TrainState, rollout: Rollout, h: Any, ratio: str = "mean") -> Expected:
    """Of all rows, at any parameters; advantages and targets are those of the start."""
    seen = start.opt_state["reward"]
    advantage = advantages(start.params["value"], rollout, h, seen).ravel()
    obs = flat(rollout.batch.obs)
    new = log_probs(params["policy"], flat(rollout.record.chain), obs, h.min_std, ratio)
    log_ratio = new - flat(rollout.record.log_prob)
    rows = np.repeat(advantage, LEARNT)
    normal = (advantage - rows.mean()) / rows.std(ddof=1)
    losses, clipped = [], []
    for k in range(LEARNT):  # the noisiest first
        a, rho = normal * h.denoising_discount ** (LEARNT - 1 - k), np.exp(log_ratio[:, k])
        clip = (h.clip_base, h.clip)[k]  # the ends of the exponential, and there are but two steps
        losses.append(-np.minimum(rho * a, np.clip(rho, 1 - clip, 1 + clip) * a))
        clipped.append(np.abs(rho - 1) > clip)
    now, target = values(start.params["value"], obs), advantage + values(start.params["value"], obs)
    return Expected(
        np.mean(losses),
        np.mean(np.exp(log_ratio) - 1 - log_ratio),
        np.mean(clipped),
        0.5 * np.mean((values(params["value"], obs) - target) ** 2),
        1.0 - np.var(target - now) / np.var(target),
    )


CASES = {
    "mean": {"min_std": 0.5, "clip": 0.15, "clip_base": 0.05, "denoising_discount": 0.7, "gae_lambda": 0.8},
    "sum": {"min_std": 0.3, "clip": 0.05, "clip_base": 0.2, "denoising_discount": 0.9, "discount_factor": 0.8},
    "tight": {"min_std": 0.02, "clip": 0.1, "clip_base": 0.01},  # many densities are cut at exp(2)
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, whole: Built, whole_by_sums: Built) -> tuple[Built, str, Any, Rollout]:
    ratio = "sum" if request.param == "sum" else "mean"
    built = whole_by_sums if ratio == "sum" else whole
    h = hparams(lr=1e-3, **CASES[request.param])
    return built, ratio, h, make_rollout(built, h.min_std, ratio)


def test_metrics_of_a_first_minibatch_are_the_formula_s(case):
    built, ratio, h, rollout = case
    _, metrics = built.update(jax.random.key(0), built.start.replace(hparams=h), rollout)
    wanted = expected(built.start.params, built.start, rollout, h, ratio)
    assert 0.1 < wanted.clip_fraction < 0.95
    for name in Expected._fields:
        np.testing.assert_allclose(metrics[name], getattr(wanted, name), rtol=2e-3, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(metrics["reward_mean"], np.mean(rollout.batch.reward), rtol=1e-5)
    assert float(metrics["used_share"]) == 1.0


@pytest.mark.parametrize("network", ["policy", "value"])
def test_gradients_are_the_slopes_of_the_formula(case, network):
    built, ratio, h, rollout = case
    state, _ = built.update(jax.random.key(0), built.start.replace(hparams=h), rollout)
    moment = optax.tree.get(state.opt_state[network], "mu")  # a tenth of the first gradient
    name = last_layer(moment["params"]["Mlp_0"])
    got = 10.0 * np.asarray(moment["params"]["Mlp_0"][name]["bias"], np.float64)
    bias = np.asarray(built.start.params[network]["params"]["Mlp_0"][name]["bias"], np.float64)
    slopes = []
    for i in range(len(bias)):
        losses = []
        for side in (3e-5, -3e-5):
            moved = bias.copy()
            moved[i] += side
            params = {**built.start.params, network: with_layer(built.start.params[network], name, bias=moved)}
            losses.append(getattr(expected(params, built.start, rollout, h, ratio), f"{network}_loss"))
        slopes.append((losses[0] - losses[1]) / 6e-5)
    assert np.abs(slopes).max() > 1e-3
    np.testing.assert_allclose(got, slopes, rtol=0.05, atol=2e-3)


def test_rewards_are_scaled_by_what_was_seen_before_too_and_kept_in_bounds(whole):
    seen = Moments(np.float32(5000.0), np.float32(0.5), np.float32(0.01))
    rollout = make_rollout(whole, 0.5)
    start = whole.start.replace(opt_state={**whole.start.opt_state, "reward": seen}, hparams=hparams(min_std=0.5))
    reward = (0.01 * rollout.batch.reward).at[0, :2].set(jnp.array([4.0, -4.0]))
    rollout = rollout.replace(batch=dataclasses.replace(rollout.batch, reward=reward))
    state, metrics = whole.update(jax.random.key(0), start, rollout)
    count, mean, var = reward_moments(rollout, 0.99, seen)
    assert 4.0 / np.sqrt(var) > 20.0
    after = state.opt_state["reward"]
    np.testing.assert_allclose([after.count, after.mean, after.var], [count, mean, var], rtol=1e-4)
    wanted = expected(start.params, start, rollout, start.hparams)
    np.testing.assert_allclose(metrics["value_loss"], wanted.value_loss, rtol=1e-3)


def test_the_clip_goes_from_its_base_to_its_end_and_only_up():
    h = hparams(clip=0.2, clip_base=0.01)
    clips = np.asarray(dppo.clip_of(jnp.arange(7), 7, h))
    np.testing.assert_allclose(clips[[0, -1]], [0.01, 0.2], rtol=1e-6)
    assert (np.diff(clips) > 0).all()
    u = np.arange(7) / 6
    np.testing.assert_allclose(clips, 0.01 + 0.19 * (np.exp(3 * u) - 1) / (np.exp(3) - 1), rtol=1e-5)
    np.testing.assert_allclose(dppo.clip_of(jnp.zeros(2, jnp.int32), 1, h), [0.2, 0.2])


def decide(built: Built, state: TrainState | None = None, count: int = 200, seed: int = 0, **changes: float) -> Any:
    state = (state or built.start).replace(hparams=hparams(**changes))
    obs = jnp.asarray(np.random.default_rng(1).normal(size=(count, 3)), jnp.float32)
    action, record = built.decide(jax.random.key(seed), state, obs)
    return obs, np.asarray(action), jax.tree.map(np.asarray, record)


@pytest.mark.parametrize("min_std", [0.02, 0.4])
def test_a_decision_records_its_own_chain_with_its_densities(whole, min_std):
    obs, action, record = decide(whole, min_std=min_std)
    assert record.chain.shape == (200, LEARNT + 1, 2)
    np.testing.assert_array_equal(action[:, 0], np.clip(record.chain[:, -1], -1.0, 1.0))
    wanted = log_probs(whole.start.params["policy"], record.chain, obs, min_std)
    np.testing.assert_allclose(record.log_prob, wanted, rtol=1e-3, atol=2e-3)


def test_steps_draw_standard_noise_with_at_least_the_floor_and_cut_where_told(whole):
    obs, _, record = decide(whole, min_std=0.4, noise_clip=1.0)
    for k in range(LEARNT):
        mean, own = posterior(
            whole.start.params["policy"], CALLS - LEARNT + k, record.chain[:, k].astype(float), np.asarray(obs)
        )
        noise = (record.chain[:, k + 1] - mean) / max(own, 0.4)
        np.testing.assert_allclose(np.abs(noise).max(), 1.0, atol=1e-3)
        # A normal number falls outside one deviation with chance 0.317.
        assert np.mean(np.abs(noise) > 0.999) == pytest.approx(0.317, abs=0.08)
        assert np.mean(noise) == pytest.approx(0.0, abs=0.15)


def assert_same(first: Any, second: Any) -> None:
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def differ(first: Any, second: Any) -> bool:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


def test_the_first_calls_are_the_pretrained_policy_s_and_the_last_the_learning_one_s(whole):
    start, other = whole.start, random_params(whole.start.params, 7)
    _, _, record = decide(whole)
    _, _, learnt = decide(whole, start.replace(params={**start.params, "policy": other["policy"]}))
    _, _, frozen = decide(whole, start.replace(target_params={**start.target_params, "policy": other["policy"]}))
    np.testing.assert_array_equal(learnt.chain[:, 0], record.chain[:, 0])
    assert (learnt.chain[:, 1:] != record.chain[:, 1:]).any(axis=(0, 1)).all()
    assert np.mean(np.abs(frozen.chain[:, 0] - record.chain[:, 0])) > 1e-3


def test_an_update_leaves_the_pretrained_policy_alone(pieces):
    rollout = make_rollout(pieces, 0.5)
    state, _ = pieces.update(jax.random.key(0), pieces.start.replace(hparams=hparams(lr=0.1, min_std=0.5)), rollout)
    assert_same(state.target_params, pieces.start.target_params)
    assert differ(state.params, pieces.start.params)


def test_acting_draws_what_the_sampler_draws_and_deciding_at_least_the_floor():
    """A network that answers x0 = a: the sampler's last step has no noise and ends there exactly."""
    built = build(dataclasses.replace(POLICY, kind="x0"))
    answer = np.array([0.25, -0.5])
    params = {**built.start.params, "policy": constant_policy(built.start.params["policy"], answer)}
    state = built.start.replace(params=params)
    acted, _ = built.act(jax.random.key(0), state, jnp.zeros((200, 3)), ())
    np.testing.assert_allclose(acted[:, 0], np.broadcast_to(answer, (200, 2)), atol=1e-6)
    _, decided, _ = decide(built, state, min_std=0.05)
    np.testing.assert_allclose(decided[:, 0].mean(axis=0), answer, atol=0.02)
    np.testing.assert_allclose(decided[:, 0].std(axis=0), 0.05, rtol=0.2)


def test_without_temperature_acting_injects_no_noise(whole):
    def act(**changes: float) -> np.ndarray:
        state = whole.start.replace(hparams=hparams(**changes))
        return np.asarray(whole.act(jax.random.key(3), state, jnp.ones((50, 3)), ())[0])

    cold = act(act_temperature=0.0)
    np.testing.assert_array_equal(cold, act(noise_clip=0.0))  # no number is left to inject
    assert np.mean(np.abs(cold - act())) > 1e-2
    assert len(np.unique(cold[:, 0], axis=0)) > 25  # each starts elsewhere


def own_rollout(built: Built, **changes: float) -> Rollout:
    """A rollout in which the policy itself decided."""
    rollout = make_rollout(built, 0.5)
    state = built.start.replace(hparams=hparams(**changes))
    action, record = built.decide(jax.random.key(4), state, rollout.batch.obs)
    return rollout.replace(batch=dataclasses.replace(rollout.batch, action=action[:, :, 0]), record=record)


def test_a_policy_that_does_not_move_stays_at_ratio_1(pieces):
    changes = {"lr": 0.0, "min_std": 0.2, "denoising_discount": 1.0}
    state = pieces.start.replace(hparams=hparams(**changes))
    new, metrics = pieces.update(jax.random.key(0), state, own_rollout(pieces, **changes))
    assert 0.0 <= float(metrics["kl"]) < 1e-6
    assert float(metrics["clip_fraction"]) == 0.0
    assert float(metrics["policy_loss"]) == pytest.approx(0.0, abs=1e-5)  # minus the mean of normalised advantages
    assert_same(new.params["policy"], state.params["policy"])
    moving = state.replace(hparams=hparams(**{**changes, "lr": 1e-2}))
    _, metrics = pieces.update(jax.random.key(0), moving, own_rollout(pieces, **changes))
    assert float(metrics["kl"]) > 1e-4


def steps_taken(state: TrainState, network: str) -> int:
    return int(optax.tree.get(state.opt_state[network], "count"))


def test_an_update_ends_after_the_minibatch_that_went_too_far(pieces):
    rollout = make_rollout(pieces, 0.5)
    free, metrics = pieces.update(jax.random.key(0), pieces.start.replace(hparams=hparams(target_kl=9.0)), rollout)
    assert float(metrics["used_share"]) == 1.0
    assert steps_taken(free, "policy") == steps_taken(free, "value") == 6
    strict = pieces.start.replace(hparams=hparams(target_kl=1e-6, min_std=0.5))
    state, metrics = pieces.update(jax.random.key(0), strict, rollout)
    assert float(metrics["kl"]) > 1e-6
    assert float(metrics["used_share"]) == pytest.approx(1 / 6)
    assert steps_taken(state, "policy") == steps_taken(state, "value") == 1
    assert int(state.step) == 1


def test_minibatches_are_parts_of_the_rollout(pieces):
    """While nothing moves, the averages of many passes are those over all rows."""
    h = hparams(lr=0.0, value_lr=0.0, min_std=0.5, target_kl=9.0)
    rollout, found = make_rollout(pieces, 0.5), []
    for k in range(15):
        _, metrics = pieces.update(jax.random.key(k), pieces.start.replace(hparams=h), rollout)
        found.append((float(metrics["kl"]), float(metrics["value_loss"])))
    wanted = expected(pieces.start.params, pieces.start, rollout, h)
    assert len(set(found)) == 15  # other rows each time
    np.testing.assert_allclose(np.mean(found, axis=0), [wanted.kl, wanted.value_loss], rtol=0.05)


def test_the_policy_waits_for_its_value_and_then_starts_as_if_new(pieces):
    rollout = make_rollout(pieces, 0.5)
    h = hparams(policy_start=2.0, min_std=0.5, target_kl=9.0)
    state = pieces.start.replace(hparams=h)
    for k in range(2):
        state, _ = pieces.update(jax.random.key(k), state, rollout)
        assert_same(state.params["policy"], pieces.start.params["policy"])
        assert steps_taken(state, "policy") == 0  # else Adam would take its empty averages for settled ones
        assert steps_taken(state, "value") == 6 * (k + 1)
    assert differ(state.params["value"], pieces.start.params["value"])
    state, _ = pieces.update(jax.random.key(2), state, rollout)
    assert differ(state.params["policy"], pieces.start.params["policy"])
    assert steps_taken(state, "policy") == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_finetuned": CALLS + 1}, f"num_finetuned={CALLS + 1}; allowed: 0 .all. to num_steps={CALLS}"),
        ({"num_finetuned": -1}, "num_finetuned=-1"),
        ({"ratio": "max"}, "ratio='max'; allowed: mean, sum"),
        ({"num_epochs": 0}, "num_epochs=0; it must be at least 1"),
        ({"minibatch_size": 0}, "minibatch_size=0"),
        ({"policy": dataclasses.replace(POLICY, sampler="dpmpp_2m")}, "use ddpm, ddpm_large, ddim or euler"),
        ({"policy": dataclasses.replace(POLICY, clip="sample")}, "clip='sample' leaves no Gaussian steps"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dppo.make(dppo.Config(**{"policy": POLICY, **changes}), SPEC)


def test_it_finds_the_best_corner_of_the_bandit_from_nothing():
    """A uniform policy earns 2.375 on average, the best corner pays 5."""
    env = envs.make("probe-bandit")
    policy = PolicyConfig(hidden=(32, 32), time_dim=8, schedule="cosine_betas", num_levels=5, num_steps=5)
    config = dppo.Config(policy=policy, value_hidden=(16,), minibatch_size=640, num_epochs=4)
    algorithm = dppo.make(config, env.spec)
    h = hparams(lr=1e-3, clip=0.1, clip_base=0.05)
    loop = train.OnPolicyConfig(num_envs=128, rollout_length=1)
    chunk = jax.jit(train.make_on_policy_chunk(algorithm, env, loop))
    lane = train.init_on_policy_lane(algorithm, env, loop, h, np.int32(0))
    lane, before = chunk(lane, 1, None)
    assert float(before["reward_mean"]) < 4.0
    lane, _ = chunk(lane, 60, None)
    _, after = chunk(lane, 5, None)
    assert float(after["reward_mean"]) > 4.5
