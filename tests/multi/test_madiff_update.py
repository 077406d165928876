"""MADiff's losses, and the noise that its plans start from, against float64 numpy on networks that answer 0.

A denoiser that predicts the clean plan as 0 errs by x0 itself, whatever the noise is. One that predicts no noise, in a
chain of one call, returns x_T / alpha(1). So no noise has to be reproduced; what the planner's loss is told is kept.

Reference: Zhu et al. 2024, arXiv:2305.17330; the scale of x_T is in its code.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.algorithms.planner import PlannerConfig
from jaxdiff.algorithms.trajectories import Statistics, with_statistics
from jaxdiff.data import Segments
from jaxdiff.data.normaliser import Affine
from jaxdiff.multi import madiff
from jaxdiff.types import Spec

A, B, T, OBS, HISTORY = 3, 64, 5, 2, 2
SPEC = Spec("team", obs_dim=OBS, action_dim=2, max_episode_steps=8, num_agents=A)
PLANNER = PlannerConfig("agent_transformer", width=8, depth=1, horizon=T, kind="x0", num_levels=2, num_steps=2)
CONFIG = madiff.Config(planner=PLANNER, history=HISTORY, weighted=True, inverse_hidden=(), normaliser="gaussian")
LOGITS = np.array([0.0, 1.0, -0.5])  # of the agents' weights
SHIFT, SCALE = np.array([0.5, -0.3]), np.array([2.0, 0.7])  # units of observations
ACTION_SHIFT, ACTION_SCALE = np.array([0.1, -0.2]), np.array([0.5, 0.8])
RETURNS = np.array([-1.0, 3.0])  # smallest and largest of the data
DROPOUT = 0.4


def hparams(**changes: float) -> madiff.HParams:
    return jax.tree.map(np.float32, madiff.HParams(**changes))


def start_of(algorithm: Any) -> Any:
    """A state whose networks answer 0, with units that are not those of the data."""
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0), hparams())
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    obs, action = (
        Affine(jnp.asarray(shift, jnp.float32), jnp.asarray(scale, jnp.float32), jnp.float32(np.inf))
        for shift, scale in ((SHIFT, SCALE), (ACTION_SHIFT, ACTION_SCALE))
    )
    state = with_statistics(state, Statistics(obs, action, jnp.asarray(RETURNS, jnp.float32)))
    return state.replace(hparams=hparams(condition_dropout=DROPOUT))


@pytest.fixture(scope="module")
def batch() -> Segments:
    """Stretches of which some end before the plan does."""
    rng = np.random.default_rng(0)
    lived = np.arange(T) < rng.integers(1, T + 1, size=(B, 1))
    return Segments(
        obs=jnp.asarray(rng.normal(size=(B, T, A, OBS)), jnp.float32),
        action=jnp.asarray(rng.uniform(-1, 1, size=(B, T, A, 2)) * np.array([1.0, 2.0, 3.0])[:, None], jnp.float32),
        mask=jnp.asarray(lived, jnp.float32),
        return_to_go=jnp.asarray(rng.uniform(-1, 3, size=(B, A)), jnp.float32),
    )


class Seen(NamedTuple):
    """One update: its losses, and what the loss of the planner was told."""

    metrics: dict[str, np.ndarray]
    returns: np.ndarray  # [B, A]
    keep: np.ndarray  # [B, A]
    mask: np.ndarray  # [B, T, A, OBS]
    values: np.ndarray  # [B, T, A, OBS]


def seen_by_an_update(execution: str, batch: Segments) -> Seen:
    told: list[Any] = []

    def watched(*args: Any) -> Any:
        planner = make_planner(*args)

        def loss(key: Any, params: Any, x0: Any, cond: Any, known: Any, weight: Any) -> Any:
            told.append((cond, known))
            return planner.loss(key, params, x0, cond, known, weight)

        return planner._replace(loss=loss)

    make_planner = madiff.make_planner
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(madiff, "make_planner", watched)
        algorithm = madiff.make(dataclasses.replace(CONFIG, execution=execution), SPEC)

    def losses(key: Any, state: Any) -> Any:
        """No gradient is read, so none is compiled."""
        metrics = algorithm.update(key, state, batch)[1]
        return {name: value for name, value in metrics.items() if "norm" not in name}, told[0]

    state = start_of(algorithm)
    state = state.replace(params={**state.params, "weights": np.float32(LOGITS)})
    metrics, ((returns, keep), known) = jax.tree.map(np.asarray, jax.jit(losses)(jax.random.key(3), state))
    mask, values = (np.broadcast_to(part, (B, T, A * OBS)).reshape(B, T, A, OBS) for part in known)
    return Seen(metrics, returns[..., 0], keep[..., 0], mask, values)


@pytest.fixture(scope="module")
def decentralised(batch: Segments) -> Seen:
    return seen_by_an_update("decentralised", batch)


@pytest.fixture(scope="module")
def centralised(batch: Segments) -> Seen:
    return seen_by_an_update("centralised", batch)


def in_units(batch: Segments) -> np.ndarray:
    return (np.asarray(batch.obs, np.float64) - SHIFT) / SCALE


def planner_loss(x0: np.ndarray, counted: np.ndarray) -> float:
    """Of a model that answers 0: each example's weighted squares, averaged over what it counts."""
    weights = A * np.exp(LOGITS) / np.exp(LOGITS).sum()
    squares = weights[:, None] ** 2 * x0**2
    return float(np.mean([squares[b][counted[b]].mean() for b in range(len(x0))]))


def test_a_decentralised_update_knows_one_egos_past_and_averages_over_all_that_it_does_not(decentralised, batch):
    x0, row = in_units(batch), np.arange(T)
    others_known = row < HISTORY - 1  # as zeros
    egos = []
    for b in range(B):
        own = [bool(decentralised.mask[b, HISTORY - 1, i].all()) for i in range(A)]
        assert sum(own) == 1
        egos.append(own.index(True))
        known = np.where(np.arange(A) == egos[b], (row < HISTORY)[:, None], others_known[:, None])
        np.testing.assert_array_equal(decentralised.mask[b], np.repeat(known[:, :, None], OBS, axis=2))
        values = np.zeros_like(x0[b])
        values[:HISTORY, egos[b]] = x0[b, :HISTORY, egos[b]]
        np.testing.assert_allclose(decentralised.values[b], values, rtol=1e-5, atol=1e-6)
    assert set(egos) == set(range(A))
    counted = np.ones(x0.shape, bool)
    counted[:, : HISTORY - 1] = False
    counted[np.arange(B), HISTORY - 1, egos] = False
    assert float(decentralised.metrics["planner_loss"]) == pytest.approx(planner_loss(x0, counted), rel=1e-4)


def test_a_centralised_update_knows_everyones_past_and_averages_over_the_future(centralised, batch):
    x0 = in_units(batch)
    counted = np.broadcast_to((np.arange(T) >= HISTORY)[:, None, None], x0.shape)
    np.testing.assert_array_equal(centralised.mask, ~counted)
    np.testing.assert_allclose(centralised.values, np.where(counted, 0.0, x0), rtol=1e-5, atol=1e-6)
    assert float(centralised.metrics["planner_loss"]) == pytest.approx(planner_loss(x0, counted), rel=1e-4)


def test_each_agents_return_is_relative_and_dropped_for_itself(decentralised, centralised, batch):
    relative = (np.asarray(batch.return_to_go, np.float64) - RETURNS[0]) / (RETURNS[1] - RETURNS[0])
    for seen in (decentralised, centralised):
        np.testing.assert_allclose(seen.returns, relative, rtol=1e-5, atol=1e-6)
        assert np.isin(seen.keep, [0.0, 1.0]).all()
        assert seen.keep.mean() == pytest.approx(1.0 - DROPOUT, abs=4.0 * np.sqrt(DROPOUT * (1.0 - DROPOUT) / (A * B)))
        alike = DROPOUT**2 + (1.0 - DROPOUT) ** 2  # two that do not know of each other
        for i in range(A):
            found = (seen.keep[:, i] == seen.keep[:, (i + 1) % A]).mean()
            assert found == pytest.approx(alike, abs=4.0 * np.sqrt(alike * (1.0 - alike) / B))


def test_the_inverse_counts_the_steps_that_were_lived_from_the_present_on(decentralised, centralised, batch):
    """Of a network that answers 0 the error is the action's square; a step that ends in the padding is none."""
    squares = ((np.asarray(batch.action, np.float64) - ACTION_SHIFT) / ACTION_SCALE) ** 2
    lived = np.asarray(batch.mask) > 0
    steps = [squares[b, t].mean() for b in range(B) for t in range(HISTORY - 1, T - 1) if lived[b, t + 1]]
    assert 0 < len(steps) < B * (T - HISTORY)
    for seen in (decentralised, centralised):
        assert float(seen.metrics["inverse_loss"]) == pytest.approx(np.mean(steps), rel=1e-4)


@pytest.mark.parametrize("execution", ["decentralised", "centralised"])
def test_plans_start_from_noise_of_the_start_temperature_half_by_default(execution):
    planner = dataclasses.replace(PLANNER, schedule="vp", beta_max=10.0, kind="eps", num_levels=1, num_steps=1)
    algorithm = madiff.make(dataclasses.replace(CONFIG, planner=planner, execution=execution, history=1), SPEC)
    start, obs = start_of(algorithm), jnp.zeros((4 * B, A, OBS))
    act = jax.jit(algorithm.act)

    def unknown(**changes: float) -> np.ndarray:
        state = start.replace(hparams=hparams(**changes))
        _, memory = act(jax.random.key(1), state, obs, algorithm.init_memory((4 * B,)))
        return np.asarray(memory.x)[..., 1:, :]

    alpha = np.exp(-0.1 / 2.0 - (10.0 - 0.1) / 4.0)
    half = unknown()
    assert half.std() == pytest.approx(0.5 / alpha, rel=0.05)
    np.testing.assert_allclose(unknown(start_temperature=0.8), 1.6 * half, rtol=1e-4)
    np.testing.assert_array_equal(unknown(start_temperature=0.0), 0.0)
