"""DoF's policy against its losses in float64 numpy, on agents whose policies answer constants and on all their critics.

A policy that predicts the clean action as a constant errs by its distance from the data, whatever the noise is, and
acts by that constant.

Reference: Li et al. 2025, DoF, ICLR, https://openreview.net/forum?id=OTFKVkxSlL; its losses: Wang, Hunt and Zhou 2023,
arXiv:2208.06193.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.policy import PolicyConfig
from jaxdiff.multi import dof_policy
from jaxdiff.multi.team_value import CriticConfig
from jaxdiff.types import Spec, TrainState, Transition

A, B, OBS = 3, 32, 3
SPEC = Spec("team", obs_dim=OBS, action_dim=2, max_episode_steps=10, num_agents=A)
POLICY = PolicyConfig(hidden=(8,), kind="x0", num_levels=2, num_steps=2, time_dim=4)
CONFIG = dof_policy.Config(policy=POLICY, critic=CriticConfig(hidden=(16,)), noise_factor="wconcat")
ONLINE = np.array([[0.3, -0.7], [-0.4, 0.1], [0.9, 0.5]])  # what the agents' policies do
TARGET = np.array([[-0.6, 0.2], [0.5, -0.8], [-0.1, 0.4]])
LOGITS = np.array([0.0, 1.0, -0.5])  # of the agents' weights


class Built(NamedTuple):
    update: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    start: TrainState


def hparams(**changes: float) -> dof_policy.HParams:
    return jax.tree.map(np.float32, dof_policy.HParams(**{"max_grad_norm": 1e9, **changes}))


def drawn(shapes: Any, seed: int) -> Any:
    """Weights of the given shapes, large enough that values differ by more than a little."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(-0.7, 0.7, size=leaf.shape).astype(np.float32), shapes)


def constants(policy: Any, action: np.ndarray) -> Any:
    """Parameters by which agent i answers action[i] whatever it sees."""
    tree = policy["net"]["params"]
    last = {"kernel": np.zeros_like(tree["Mlp_0"]["Dense_1"]["kernel"]), "bias": np.float32(action)}
    net = {"params": {**tree, "Mlp_0": {**tree["Mlp_0"], "Dense_1": last}}}
    return {"net": net, "weights": np.float32(LOGITS)}


@pytest.fixture(scope="module")
def built() -> Built:
    algorithm = dof_policy.make(CONFIG, SPEC)
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0), hparams())
    params, target = drawn(shapes.params, 0), drawn(shapes.target_params, 1)
    moments = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state)
    start = TrainState(
        np.int32(0),
        {**params, "policy": constants(params["policy"], ONLINE)},
        {**target, "policy": constants(target["policy"], TARGET)},
        moments,
        hparams(),
    )
    return Built(jax.jit(algorithm.update), start)


@pytest.fixture(scope="module")
def batch() -> Transition:
    rng = np.random.default_rng(0)
    return Transition(
        obs=jnp.asarray(rng.normal(size=(B, A, OBS)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(B, A, 2)), jnp.float32),
        reward=jnp.asarray(rng.normal(size=(B, A)), jnp.float32),
        discount=jnp.asarray(rng.integers(0, 2, size=(B, A)), jnp.float32),
        next_obs=jnp.asarray(rng.normal(size=(B, A, OBS)), jnp.float32),
    )


def mish(x: np.ndarray) -> np.ndarray:
    return x * np.tanh(np.logaddexp(0.0, x))


def values(critics: Any, obs: Any, action: Any) -> np.ndarray:
    """[E, B, A] of two critics for each agent, parameters [A, E, ..]."""
    layers = critics["own"]["params"]["Mlp_0"]
    x = np.concatenate([np.asarray(obs, np.float64), np.broadcast_to(action, (B, A, 2))], axis=-1)
    q = np.zeros((2, B, A))
    for agent in range(A):
        for e in range(2):
            first, last = (
                {key: np.asarray(leaf, np.float64)[agent, e] for key, leaf in layers[name].items()}
                for name in ("Dense_0", "Dense_1")
            )
            hidden = mish(x[:, agent] @ first["kernel"] + first["bias"])
            q[e, :, agent] = (hidden @ last["kernel"] + last["bias"])[:, 0]
    return q


def test_each_agents_critics_regress_on_the_smaller_of_its_target_critics_at_the_target_policies_action(built, batch):
    _, metrics = built.update(jax.random.key(0), built.start, batch)
    next_q = values(built.start.target_params["critic"], batch.next_obs, TARGET).min(axis=0)
    y = np.asarray(batch.reward, np.float64) + 0.99 * np.asarray(batch.discount, np.float64) * next_q
    q = values(built.start.params["critic"], batch.obs, batch.action)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-4, abs=1e-5)
    assert float(metrics["q_mean"]) == pytest.approx(q.mean(), rel=1e-4, abs=1e-5)
    assert float(metrics["critic_loss"]) == pytest.approx(((q - y) ** 2).mean(axis=1).sum(), rel=1e-4)


def test_a_weighted_concat_imitates_by_the_sum_of_the_agents_losses_times_the_squares_of_their_weights(built, batch):
    _, metrics = built.update(jax.random.key(0), built.start, batch)
    weights = A * np.exp(LOGITS) / np.exp(LOGITS).sum()
    each = ((ONLINE - np.asarray(batch.action, np.float64)) ** 2).mean(axis=(0, 2))
    assert float(metrics["bc_loss"]) == pytest.approx((weights**2 * each).sum(), rel=1e-4)


def test_policies_climb_the_new_critics_each_agents_by_the_magnitude_of_its_other_one(built, batch):
    state = built.start.replace(hparams=hparams(q_weight=1.7, critic_lr=0.1))
    after, metrics = built.update(jax.random.key(0), state, batch)
    q = values(after.params["critic"], batch.obs, ONLINE)
    assert float(metrics["q_policy"]) == pytest.approx(q.mean(), rel=1e-4, abs=1e-4)
    means, sizes = q.mean(axis=1), np.abs(q).mean(axis=1)  # [E, A]
    climbed = [float((means[e] / sizes[1 - e]).sum()) for e in (0, 1)]  # the coin is one for the team
    found = (float(metrics["bc_loss"]) - float(metrics["policy_loss"])) / 1.7
    assert min(abs(found - term) for term in climbed) < 1e-4
    by_itself = [float((means[e] / sizes[e]).sum()) for e in (0, 1)]
    assert min(abs(a - b) for a in climbed for b in by_itself) > 1e-2


def test_only_the_policies_wait_for_the_value(built, batch):
    state = built.start.replace(hparams=hparams(q_weight=1.7, q_start=1.0))
    after, first = built.update(jax.random.key(0), state, batch)
    assert float(first["policy_loss"]) == float(first["bc_loss"])
    assert float(first["critic_loss"]) > 0.0
    _, second = built.update(jax.random.key(1), after, batch)
    assert float(second["policy_loss"]) != float(second["bc_loss"])
