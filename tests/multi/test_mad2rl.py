"""MAD2RL against its equations in float64 numpy, its masks, and a game with a known best joint action.

Reference: Liu et al. 2025, arXiv:2406.06986.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff import envs, train
from jaxdiff.cli import config as configs
from jaxdiff.cli.settings import make_settings
from jaxdiff.diffusion import vp_betas
from jaxdiff.multi import mad2rl
from jaxdiff.networks import MlpDenoiser
from jaxdiff.types import Spec, TrainState, Transition

A, N, SEEN, B = 2, 4, 3, 6
SPEC = Spec("team", SEEN + N, N, max_episode_steps=8, num_agents=A, num_actions=N, mask_dim=N)
SMALL = {"hidden": (8,), "time_dim": 4, "num_steps": 2, "mixer_width": 4, "mixer_hidden": (4,)}


def knobs(**changes):
    return jax.tree.map(np.float32, mad2rl.HParams(**changes))


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: (0.5 * rng.normal(size=leaf.shape)).astype(leaf.dtype), shapes)


def built(**changes):
    """The algorithm, and a state before its first update whose weights are numpy's: nothing to compile."""
    algorithm = mad2rl.make(mad2rl.Config(**SMALL | changes), SPEC)
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0), knobs())
    moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    return algorithm, TrainState(np.int32(0), drawn(shapes.params), drawn(shapes.target_params, 1), moments, knobs())


def team_obs(rng, batch=B):
    """Observations whose masks allow one action at least, and none in the first."""
    mask = rng.random((batch, A, N)) < 0.5
    mask[..., 1] |= ~mask.any(axis=-1)
    mask[0] = False
    return np.concatenate([rng.normal(size=(batch, A, SEEN)), mask], axis=-1).astype(np.float32)


def team_batch(seed=0):
    rng = np.random.default_rng(seed)
    discount = np.repeat(rng.integers(2, size=(B, 1)), A, axis=1).astype(np.float32)
    reward = rng.normal(size=(B, A)).astype(np.float32)
    scores = rng.uniform(-1, 1, size=(B, A, N)).astype(np.float32)
    return Transition(*map(jnp.asarray, (team_obs(rng), scores, reward, discount, team_obs(rng))))


def open_mask(obs):
    mask = np.asarray(obs)[..., SEEN:] > 0
    return mask | ~mask.any(axis=-1, keepdims=True)


@pytest.mark.usefixtures("x64")
def test_a_chain_is_the_papers_recurrence(monkeypatch):
    steps, rng = 7, np.random.default_rng(0)
    config = mad2rl.Config(utility="logits", hidden=(8,), time_dim=4, num_steps=steps)
    init, values = mad2rl.make_agent(config, SEEN, N)
    shapes = jax.eval_shape(init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)
    obs, noise = jnp.asarray(rng.normal(size=(B, SEEN))), rng.normal(size=(steps, B, N))
    rows = {(B, N): noise[0], (steps - 1, B, N): noise[1:]}
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype=float: jnp.asarray(rows[tuple(shape)], dtype))
    network = MlpDenoiser(N, (8,), 4, "mish")

    beta = -np.expm1(-0.1 / steps - (2 * np.arange(1, steps + 1) - 1) / (2 * steps**2) * (10.0 - 0.1))
    np.testing.assert_allclose(beta, vp_betas(steps), rtol=1e-12)
    alpha, alpha_bar, x = 1.0 - beta, np.cumprod(1.0 - beta), noise[0]
    for m in range(steps, 0, -1):
        eps = np.asarray(network.apply(params, jnp.asarray(x), jnp.asarray(float(m)), obs))
        mean = (x - (1 - alpha[m - 1]) / np.sqrt(1 - alpha_bar[m - 1]) * eps) / np.sqrt(alpha[m - 1])
        if m == 1:
            x = mean
            break
        variance = (1 - alpha_bar[m - 2]) / (1 - alpha_bar[m - 1]) * beta[m - 1]
        x = mean + np.sqrt(variance) * noise[steps - m + 1]
    assert np.abs(x).max() > 1.5  # nothing keeps it in [-1, 1]
    np.testing.assert_allclose(values(jax.random.key(0), params, obs), x, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_the_gradient_flows_through_all_steps():
    rng = np.random.default_rng(0)
    init, values = mad2rl.make_agent(mad2rl.Config(**SMALL, utility="logits"), SEEN, N)
    params = jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), jax.eval_shape(init, jax.random.key(0)))
    way = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    obs = jnp.asarray(rng.normal(size=(B, SEEN)))

    @jax.jit
    def first(shift):
        moved = jax.tree.map(lambda p, w: p + shift * w, params, way)
        return jnp.sum(values(jax.random.key(1), moved, obs)[:, 0])

    slope = (first(1e-6) - first(-1e-6)) / 2e-6
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(jax.grad(first)(0.0), slope, rtol=1e-4)


def plain_mlp(layers, x, activation):
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layers)
    for k in range(len(layers)):
        x = x @ layers[f"Dense_{k}"]["kernel"] + layers[f"Dense_{k}"]["bias"]
        x = activation(x) if k < len(layers) - 1 else x
    return x


def plain_values(params, obs):
    """[B, A, n] of agents that are MLPs."""
    values = []
    for i in range(A):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], params["own"]["params"])
        x = plain_mlp(own, np.asarray(obs, np.float64)[:, i, :SEEN], lambda z: z * np.tanh(np.log1p(np.exp(z))))
        values.append(np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True))
    return np.stack(values, axis=1)


def plain_total(params, q, obs):
    """[B], the linear mixer of the paper."""
    state = np.asarray(obs, np.float64)[..., :SEEN].reshape(B, -1)
    mixer = params["mixer"]["params"]
    first, first_bias, second, bias = (
        plain_mlp(mixer[f"Mlp_{k}"], state, lambda z: np.maximum(z, 0.0)) for k in range(4)
    )
    hidden = np.einsum("ba,baw->bw", q, first.reshape(B, A, -1)) + first_bias
    return np.sum(second * hidden, axis=1) + bias[:, 0]


def test_the_loss_is_the_papers_with_masks_terminal_states_and_the_action_that_was_taken():
    algorithm, start = built(agent="mlp", mixer="linear")
    batch, params, target = team_batch(), start.params, start.target_params
    state = dataclasses.replace(start, hparams=knobs(reward_scale=0.5, discount_factor=0.9, target_rate=0.25))
    after = np.where(open_mask(batch.next_obs), plain_values(target["value"], batch.next_obs), -1e9).max(axis=-1)
    next_total = plain_total(target["value"], after, batch.next_obs)
    y = 0.5 * np.asarray(batch.reward).mean(axis=1) + 0.9 * np.asarray(batch.discount)[:, 0] * next_total
    chosen = np.where(open_mask(batch.obs), batch.action, -np.inf).argmax(axis=-1)
    assert (chosen != np.asarray(batch.action).argmax(axis=-1)).any()  # some best scores were forbidden
    q = np.take_along_axis(plain_values(params["value"], batch.obs), chosen[..., None], axis=-1)[..., 0]
    new, metrics = jax.jit(algorithm.update)(jax.random.key(0), state, batch)
    loss = 0.5 * np.mean((y - plain_total(params["value"], q, batch.obs)) ** 2)
    np.testing.assert_allclose(metrics["value_loss"], loss, rtol=1e-4)
    for old, moved, online in zip(*map(jax.tree.leaves, (target, new.target_params, new.params)), strict=True):
        np.testing.assert_allclose(moved, 0.75 * old + 0.25 * online, rtol=1e-5, atol=1e-6)


def test_rewards_may_be_learned_by_their_logarithm():
    algorithm, start = built(agent="mlp", rewards="symlog")
    state = dataclasses.replace(start, hparams=knobs(reward_scale=3.0, discount_factor=0.0))
    _, metrics = jax.jit(algorithm.update)(jax.random.key(0), state, team_batch())
    scaled = 3.0 * np.asarray(team_batch().reward, np.float64).mean(axis=1)
    assert (scaled < 0).any()
    np.testing.assert_allclose(metrics["target_mean"], (np.sign(scaled) * np.log1p(np.abs(scaled))).mean(), rtol=1e-5)


def test_agents_for_themselves_learn_from_their_own_rewards():
    algorithm, start = built(agent="mlp", mixer="own", utility="logits")
    update, batch = jax.jit(algorithm.update), team_batch()
    assert start.params["value"]["mixer"] == {}
    other = batch.replace(reward=batch.reward.at[:, 1].add(1e4))
    one, two = (update(jax.random.key(0), start, data)[0].opt_state["value"] for data in (batch, other))
    share = jax.tree.map(lambda x: np.asarray(x)[0] / np.abs(x[0]).max(), one[1][0].mu["own"]["params"]["Dense_1"])
    same = jax.tree.map(lambda x: np.asarray(x)[0] / np.abs(x[0]).max(), two[1][0].mu["own"]["params"]["Dense_1"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), share, same)  # but for the clipped norm


def test_what_is_forbidden_is_never_chosen_and_the_rest_is_explored_evenly():
    algorithm, state = built()
    obs = np.repeat(team_obs(np.random.default_rng(2)), 500, axis=0)
    mask = open_mask(obs)
    random = dataclasses.replace(state, hparams=knobs(epsilon_start=1.0))
    for choose in (algorithm.act, algorithm.explore):
        action = np.asarray(jax.jit(choose)(jax.random.key(1), random, obs, ())[0])
        assert action.shape == (len(obs), 1, A, N)
        assert set(np.unique(action)) == {-1.0, 1.0}
        assert (action[:, 0].sum(axis=-1) == 2 - N).all()
        assert mask[action[:, 0] > 0].all()
    even = mask / mask.sum(axis=-1, keepdims=True)
    share = (action[:, 0] > 0).reshape(B, 500, A, N).mean(axis=1)
    np.testing.assert_allclose(share, even[::500], atol=0.1)


def test_averaged_chains_agree_more_often_than_single_ones():
    obs = jnp.concatenate([jnp.zeros((200, A, SEEN)), jnp.ones((200, A, N))], axis=-1)
    agreement = {}
    for chains in (1, 64):
        algorithm, state = built(act_chains=chains)
        network = jax.tree.map(np.zeros_like, state.params["value"]["own"]["params"])
        network["Mlp_0"]["Dense_1"]["bias"] += 0.3 * np.arange(N, dtype=np.float32)
        state.params["value"]["own"]["params"] = network
        best = np.asarray(jax.jit(algorithm.act)(jax.random.key(1), state, obs, ())[0])[:, 0].argmax(axis=-1)
        agreement[chains] = (best == 0).mean()  # the noise that is predicted is taken away
    assert agreement[1] < 0.6
    assert agreement[64] > 0.8


def test_epsilon_falls_on_a_straight_line_and_stays():
    h = mad2rl.HParams(epsilon_start=0.8, epsilon_end=0.2, epsilon_updates=100.0)
    steps = jnp.array([0, 25, 100, 1000])
    np.testing.assert_allclose(mad2rl.epsilon(steps, h), [0.8, 0.65, 0.2, 0.2], rtol=1e-6)


def test_the_team_finds_the_best_joint_action_and_its_value():
    """The largest entry is 8, for (1, 2): a product of the agents' utilities, which a monotone mixer can represent."""
    rows = ((1.0, 2.0, 4.0), (2.0, 4.0, 8.0), (0.5, 1.0, 2.0))
    env = envs.make("game-payoff", matrix=rows)
    config = mad2rl.Config(hidden=(32,), time_dim=4, num_steps=2, mixer_hidden=(), mixer_width=8)
    algorithm = mad2rl.make(config, env.spec)
    hparams = knobs(lr=3e-3, reward_scale=0.125, target_rate=0.05, epsilon_updates=300.0, epsilon_end=0.0)
    online = train.OnlineConfig(num_envs=8, replay_capacity=800, warmup=64)
    lane = jax.jit(lambda: train.init_online_lane(algorithm, env, online, hparams, np.int32(0)))()
    chunk = jax.jit(train.make_online_chunk(algorithm, env, 64, online))
    _, metrics = chunk(chunk(lane, jnp.int32(900), None)[0], jnp.int32(10), None)
    assert float(metrics["train_return"]) == 8.0  # of all environments' newest episodes
    np.testing.assert_allclose(
        metrics["q_mean"], 1.0, atol=0.1
    )  # in units of 8: the buffer holds nothing else any more
    np.testing.assert_allclose(metrics["target_mean"], 1.0, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"agent": "chian"}, KeyError, "unknown agent 'chian'; did you mean 'chain'"),
        ({"utility": "sigmoid"}, KeyError, "unknown utility 'sigmoid'"),
        ({"rewards": "sqrt"}, KeyError, "unknown rewards 'sqrt'; known: linear, symlog"),
        ({"mixer": "qmx"}, KeyError, "unknown mixer 'qmx'; did you mean 'qmix'"),
        ({"num_steps": 0}, ValueError, "num_steps=0; it must be at least 1"),
        ({"act_chains": 0}, ValueError, "act_chains=0; it must be at least 1"),
        ({"beta_min": 2.0, "beta_max": 1.0}, ValueError, "beta_min=2.0, beta_max=1.0; noise rates must be"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        mad2rl.make(mad2rl.Config(**SMALL | changes), SPEC)


def test_continuous_tasks_are_refused():
    with pytest.raises(ValueError, match=r"game-landmarks has continuous actions[^;]*; choose a discrete task"):
        mad2rl.make(mad2rl.Config(), envs.make("game-landmarks").spec)


@pytest.mark.parametrize(
    ("preset", "agent", "mixer", "utility"),
    [
        ("vec", "chain", "qmix", "softmax"),
        ("pqmix", "mlp", "qmix", "softmax"),
        ("vdn", "chain", "vdn", "logits"),
        ("iql", "chain", "own", "logits"),
        ("lbf", "chain", "qmix", "softmax"),
        ("rware", "chain", "qmix", "softmax"),
    ],
)
def test_presets_say_what_makes_the_values(preset, agent, mixer, utility):
    config = configs.load(f"mad2rl:{preset}")
    model, hparams = make_settings(config.to_dict())
    assert (model.agent, model.mixer, model.utility) == (agent, mixer, utility)
    assert (config.dataset, config.batch_size, config.agents) == ("", 128, "")
    if config.env == "vec":
        assert (model.num_steps, model.hidden) == (7, (256, 256, 256))
        assert (config.num_updates, config.online.num_envs, config.online.replay_capacity) == (30_000, 1, 30_000)
        assert (hparams.lr, hparams.discount_factor, hparams.target_rate) == (5e-4, 0.99, 1e-3)
    with pytest.raises(KeyError, match="unknown preset of mad2rl 'vce'; did you mean 'vec'"):
        configs.load("mad2rl:vce")
