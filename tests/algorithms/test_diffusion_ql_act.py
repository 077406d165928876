"""How Diffusion-QL acts: candidates of one network, chosen by another with probability softmax(Q)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import coin_policy, q_values, random_params, scaled_critics
import pytest

from jaxdiff.algorithms import diffusion_ql
from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.types import Algorithm, Spec, TrainState

SPEC = Spec("test", obs_dim=3, action_dim=1, max_episode_steps=10)
COIN = PolicyConfig(hidden=(16,), kind="x0", num_levels=1, num_steps=1)  # candidates of -1 and 1, see coin_policy


def build(policy: PolicyConfig, **changes: Any) -> Algorithm:
    return diffusion_ql.make(diffusion_ql.Config(policy=policy, critic_hidden=(8,), **changes), SPEC)


def init(algorithm: Algorithm, seed: int = 0) -> TrainState:
    hparams = jax.tree.map(np.float32, diffusion_ql.HParams())
    state = jax.eval_shape(algorithm.init, jax.random.key(0), hparams)
    params = random_params(state.params, seed)
    return TrainState(np.int32(0), params, params, None, hparams)


def with_part(state: TrainState, where: str, name: str, value: Any) -> TrainState:
    return state.replace(**{where: {**getattr(state, where), name: value}})  # type: ignore[attr-defined]


@pytest.mark.parametrize(("act_with_ema", "actor"), [(False, "params"), (True, "target_params")])
def test_one_policy_proposes_and_the_target_critic_selects(act_with_ema, actor):
    """By default the online policy acts. Each of the four networks is replaced in turn; two of them must matter."""
    algorithm = build(PolicyConfig(hidden=(8,), num_levels=1, num_steps=1), num_candidates=3, act_with_ema=act_with_ema)
    act = jax.jit(algorithm.act)
    state, other = init(algorithm), init(algorithm, seed=1)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3)), jnp.float32)
    before, _ = act(jax.random.key(0), state, obs, ())
    matters = set()
    for where in ("params", "target_params"):
        for name in ("policy", "critic"):
            value = other.params[name] if name == "policy" else scaled_critics(other.params[name], 10.0)
            after, _ = act(jax.random.key(0), with_part(state, where, name, value), obs, ())
            if (np.asarray(before) != np.asarray(after)).any():
                matters.add((where, name))
    assert matters == {(actor, "policy"), ("target_params", "critic")}


@pytest.fixture(scope="module")
def coin() -> tuple[Any, TrainState]:
    """Two candidates, each -1 or 1 with equal chance."""
    algorithm = build(COIN, num_candidates=2)
    state = init(algorithm, seed=3)  # where the smaller Q is that of one critic for -1 and of the other for 1
    state = with_part(state, "params", "policy", coin_policy(state.params["policy"]))
    critics = scaled_critics(state.params["critic"], 5.0)
    return jax.jit(algorithm.act), with_part(state, "target_params", "critic", critics)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 10.0])
def test_candidates_are_drawn_by_the_softmax_of_the_smaller_target_q(coin, temperature):
    act, state = coin
    count, obs = 20_000, np.array([0.7, -1.1, 0.4], np.float32)
    state = state.replace(hparams=state.hparams.replace(selection_temperature=np.float32(temperature)))
    action, _ = act(jax.random.key(0), state, jnp.broadcast_to(obs, (count, 3)), ())
    assert set(np.unique(action)) == {-1.0, 1.0}

    q = q_values(state.target_params["critic"], np.stack([obs, obs]), np.array([[-1.0], [1.0]]))
    pair = q.min(axis=0)
    others = [*(q[:, 1] - q[:, 0]), np.diff(q.mean(axis=0))[0], np.diff(q.max(axis=0))[0], 0.0]
    assert np.abs(pair[1] - pair[0] - np.array(others)).min() > 0.2  # the smaller of the two can be told from the rest
    chance = 1.0 / (1.0 + np.exp(-(pair[1] - pair[0]) / temperature))
    expected = 0.25 + 0.5 * chance  # both candidates are 1, or one of them is and the softmax takes it
    assert (np.asarray(action) > 0).mean() == pytest.approx(expected, abs=4.5 * np.sqrt(0.25 / count))


def test_each_observation_chooses_for_itself(coin):
    act, state = coin
    obs = np.array([[0.7, -1.1, 0.4], [-2.0, 1.5, 0.3], [3.0, 0.2, -1.0]], np.float32)
    state = state.replace(hparams=state.hparams.replace(selection_temperature=np.float32(1e-4)))
    action, _ = act(jax.random.key(0), state, jnp.broadcast_to(obs[:, None], (3, 4000, 3)), ())
    share = (np.asarray(action)[..., 0, 0] > 0).mean(axis=1)
    for row, found in zip(obs, share, strict=True):
        pair = q_values(state.target_params["critic"], np.stack([row, row]), np.array([[-1.0], [1.0]])).min(axis=0)
        assert found == pytest.approx(0.75 if pair[1] > pair[0] else 0.25, abs=0.035)  # the better of two coins
    assert share.min() < 0.5 < share.max()
