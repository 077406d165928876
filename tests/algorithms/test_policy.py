"""The diffusion policy that algorithms share: its chain, its loss and its gradient."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plain_networks import constant_policy, noise_model, random_params
import pytest

from jaxdiff.algorithms.policy import PolicyConfig, make_policy
from jaxdiff.diffusion import SCHEDULES, SOLVERS
from jaxdiff.types import Spec

SPEC = Spec("test", obs_dim=3, action_dim=2, max_episode_steps=10)
OBS = np.array([0.4, -0.8, 1.2], np.float32)


def diffusion_ql_chain(
    params: Any, rng: np.random.Generator, count: int, num_steps: int, time_dim: int, clip: str = "prediction"
) -> np.ndarray:
    """The sampler of Diffusion-QL in float64: betas of the vp schedule, clipped x0, posterior mean and variance."""
    i = np.arange(1, num_steps + 1)
    betas = 1.0 - np.exp(-0.1 / num_steps - 0.5 * (10.0 - 0.1) * (2 * i - 1) / num_steps**2)
    alpha_bar = np.cumprod(1.0 - betas)
    before = np.append(1.0, alpha_bar[:-1])
    x = rng.standard_normal((count, SPEC.action_dim))
    cond = np.broadcast_to(OBS.astype(np.float64), (count, SPEC.obs_dim))
    for t in reversed(range(num_steps)):
        eps = noise_model(params, x, float(t), cond, time_dim)
        x0 = (x - np.sqrt(1.0 - alpha_bar[t]) * eps) / np.sqrt(alpha_bar[t])
        x0 = np.clip(x0, -1.0, 1.0) if clip == "prediction" else x0
        mean = betas[t] * np.sqrt(before[t]) / (1.0 - alpha_bar[t]) * x0
        mean += (1.0 - before[t]) * np.sqrt(1.0 - betas[t]) / (1.0 - alpha_bar[t]) * x
        variance = betas[t] * (1.0 - before[t]) / (1.0 - alpha_bar[t])
        x = mean + np.sqrt(variance) * rng.standard_normal(x.shape) * (t > 0)
        x = np.clip(x, -1.0, 1.0) if clip == "sample" else x
    return np.clip(x, -1.0, 1.0)


@pytest.mark.parametrize("clip", ["prediction", "sample"])
def test_samples_are_distributed_as_diffusion_qls_chain(clip):
    """Means, spreads and the share of clipped actions of twenty thousand samples, noise drawn independently.

    With "sample" the noisy action is clipped after every step, as IDQL's code does, and not the noise it starts from.
    """
    config = PolicyConfig(hidden=(16,), clip=clip)
    policy = make_policy(config, SPEC)
    params = params_of(policy, 2)
    # A network that heeds the step index, so that an index off by one is another distribution.
    tree = params["params"]
    tree["Dense_1"] = jax.tree.map(lambda leaf: 12.0 * leaf, tree["Dense_1"])
    count = 20_000
    found = np.asarray(jax.jit(policy.sample)(jax.random.key(0), params, jnp.broadcast_to(OBS, (count, 3))), np.float64)
    wanted = diffusion_ql_chain(params, np.random.default_rng(0), count, config.num_steps, config.time_dim, clip)
    assert (np.abs(wanted) < 1.0).mean() > 0.05  # clipping has not swallowed everything
    error = 4.5 * np.sqrt(2.0 / count)
    np.testing.assert_allclose(found.mean(axis=0), wanted.mean(axis=0), atol=error)
    np.testing.assert_allclose((found**2).mean(axis=0), (wanted**2).mean(axis=0), atol=error)
    np.testing.assert_allclose((found[:, 0] * found[:, 1]).mean(), (wanted[:, 0] * wanted[:, 1]).mean(), atol=error)
    for edge in (-1.0, -0.5, 0.0, 0.5, 0.999):
        np.testing.assert_allclose((found <= edge).mean(axis=0), (wanted <= edge).mean(axis=0), atol=error)


def test_remat_changes_the_memory_and_not_the_gradient():
    def gradient(remat: bool) -> Any:
        policy = make_policy(PolicyConfig(hidden=(8,), num_levels=3, num_steps=3, remat=remat), SPEC)

        def total(params: Any) -> Any:
            return jnp.sum(policy.sample(jax.random.key(0), params, OBS))

        assert ("remat" in str(jax.make_jaxpr(total)(params_of(policy, 2)))) == remat
        return jax.jit(jax.grad(total))(params_of(policy, 2))

    for a, b in zip(jax.tree.leaves(gradient(True)), jax.tree.leaves(gradient(False)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_loss_of_a_constant_answer_is_the_expected_squared_distance_to_the_noise():
    """|c - eps|**2 averages to c**2 + 1, whatever the level."""
    policy = make_policy(PolicyConfig(hidden=(16,)), SPEC)
    params = constant_policy(params_of(policy, 0), [0.5, -1.5])
    count = 20_000
    loss = jax.jit(policy.loss)(jax.random.key(1), params, jnp.zeros((count, 3)), jnp.zeros((count, 2)))
    assert loss.shape == (count,)
    assert float(loss.mean()) == pytest.approx(1.0 + (0.5**2 + 1.5**2) / 2, abs=5 * float(loss.std()) / np.sqrt(count))


def test_loss_sees_each_level_equally_often():
    """For x0 = 0 a network answering x / sigma would have no loss; one answering x errs by (1 - sigma)**2 |eps|**2."""
    config = PolicyConfig(hidden=(4,), num_levels=5)
    policy = make_policy(config, SPEC)
    params = jax.tree.map(np.zeros_like, params_of(policy, 0))
    # mish(z) - mish(-z) = z for large |z|: a linear network.
    first, last = np.zeros((2 + 16 + 3, 4), np.float32), np.zeros((4, 2), np.float32)
    for u in range(2):
        first[u, 2 * u], first[u, 2 * u + 1], last[2 * u, u], last[2 * u + 1, u] = 1e4, -1e4, 1e-4, -1e-4
    layers = {**params["params"]["Mlp_0"]}
    layers["Dense_0"] = {**layers["Dense_0"], "kernel": first}
    layers["Dense_1"] = {**layers["Dense_1"], "kernel": last}
    params = {"params": {**params["params"], "Mlp_0": layers}}
    count = 40_000
    loss = jax.jit(policy.loss)(jax.random.key(1), params, jnp.zeros((count, 3)), jnp.zeros((count, 2)))
    t = np.arange(1, 6) / 5
    sigma = np.sqrt(1.0 - np.exp(-0.1 * t - 0.5 * 9.9 * t**2))
    wanted = ((1.0 - sigma) ** 2).mean()
    assert float(loss.mean()) == pytest.approx(wanted, abs=5 * float(loss.std()) / np.sqrt(count))


@pytest.mark.parametrize(("grad_steps", "is_whole"), [(0, True), (1, False)])
def test_grad_steps_says_how_much_of_the_chain_is_differentiated(x64, grad_steps, is_whole):
    config = PolicyConfig(hidden=(4,), num_levels=2, num_steps=2, grad_steps=grad_steps, time_dim=4)
    policy = make_policy(config, SPEC)
    params = jax.tree.map(lambda leaf: 0.2 * leaf.astype(np.float64), params_of(policy, 2))
    tangent = jax.tree.map(jnp.ones_like, params)

    def mean_action(shift: float) -> jax.Array:
        moved = jax.tree.map(lambda p, d: p + shift * d, params, tangent)
        return policy.sample(jax.random.key(0), moved, jnp.broadcast_to(jnp.asarray(OBS, float), (64, 3))).mean()

    value_and_slope = jax.jit(lambda shift: (mean_action(shift), jax.grad(mean_action)(shift)))
    (above, _), (below, _), (_, slope) = (value_and_slope(shift) for shift in (1e-4, -1e-4, 0.0))
    difference = float(above - below) / 2e-4
    assert abs(difference) > 1e-2
    assert (abs(float(slope) - difference) < 1e-3 * abs(difference)) is is_whole


CHOICES = [{"schedule": schedule} for schedule in SCHEDULES] + [
    # Those that walk in diffusion time end at the prediction only as their steps shrink.
    {"sampler": sampler}
    for sampler in SOLVERS
    if sampler not in ("pf_euler", "pf_heun", "reverse_sde", "predictor_corrector")
]


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: next(iter(choice.values())))
@pytest.mark.parametrize("num_levels", [0, 100])
def test_a_network_that_answers_the_action_is_sampled_exactly(choice, num_levels):
    """Every schedule and sampler ends at the x0 that is predicted at every level."""
    config = PolicyConfig(hidden=(4,), kind="x0", num_levels=num_levels, num_steps=3, time_dim=4)
    config = dataclasses.replace(config, **{"sampler": "ddim", **choice})
    policy = make_policy(config, SPEC)
    params = constant_policy(params_of(policy, 0), [0.6, -0.3])
    action = policy.sample(jax.random.key(0), params, jnp.zeros((2, 3)))
    np.testing.assert_allclose(action, [[0.6, -0.3]] * 2, atol=2e-5)


def test_imitation_gives_the_loss_and_the_prediction_of_one_call():
    """The loss is that of `loss` with the same key, and the prediction is the x0 that it measures the error of."""
    policy = make_policy(PolicyConfig(hidden=(4,), kind="x0", num_levels=5, time_dim=4), SPEC)
    params, obs = params_of(policy, 0), jnp.broadcast_to(jnp.asarray(OBS), (64, 3))
    action = jax.random.uniform(jax.random.key(1), (64, 2), minval=-1.0, maxval=1.0)
    loss, x0_hat = policy.imitate(jax.random.key(2), params, obs, action)
    np.testing.assert_allclose(loss, policy.loss(jax.random.key(2), params, obs, action), rtol=1e-6)
    inside = (np.abs(x0_hat) < 1.0).all(axis=-1)
    assert inside.sum() > 20
    np.testing.assert_allclose(loss[inside], np.mean((x0_hat - action)[inside] ** 2, axis=-1), rtol=1e-5)


def test_a_guide_wraps_the_denoiser_inside_the_bounds():
    policy = make_policy(PolicyConfig(hidden=(4,), kind="x0", time_dim=4, sampler="ddim"), SPEC)
    params = constant_policy(params_of(policy, 0), [0.6, -0.3])
    moved = policy.sample(
        jax.random.key(0), params, jnp.zeros((2, 3)), guide=lambda denoise: lambda x, level: denoise(x, level) + 0.5
    )
    np.testing.assert_allclose(moved, [[1.0, 0.2]] * 2, atol=2e-5)


def test_temperature_scales_the_injected_noise_only():
    """At 0 the chain is deterministic given its start; with one step there is nothing to inject."""
    policy = make_policy(PolicyConfig(hidden=(4,), num_levels=2, num_steps=2, time_dim=4), SPEC)
    params = constant_policy(params_of(policy, 0), [0.1, -0.1])
    obs = jnp.zeros((2000, 3))
    cold, warm, hot = (np.asarray(policy.sample(jax.random.key(0), params, obs, t)) for t in (0.0, 1.0, 2.0))
    inside = (np.abs(np.stack([cold, warm, hot])) < 1.0).all(axis=0)
    assert inside.sum() > 200
    np.testing.assert_allclose((hot - warm)[inside], (warm - cold)[inside], atol=1e-5)
    assert np.abs(warm - cold)[inside].std() > 0.01


def test_chains_start_at_the_spread_of_unit_data_under_the_noisiest_level():
    """N(0, 1) where variance is preserved, though some of the data is left at t = 1: not N(0, sigma(1)**2)."""

    def start(schedule: str) -> np.ndarray:
        seen: list[jax.Array] = []

        def watch(denoise: Any) -> Any:
            return lambda x, level: seen.append(x) or denoise(x, level)

        policy = make_policy(PolicyConfig(hidden=(4,), kind="x0", schedule=schedule, num_steps=1, time_dim=4), SPEC)
        policy.sample(jax.random.key(0), params_of(policy, 0), jnp.zeros((20_000, 3)), guide=watch)
        return np.asarray(seen[0], np.float64)

    noise = start("flow")  # alpha(1) = 0 and sigma(1) = 1: plain noise
    assert noise.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * noise.size))
    np.testing.assert_allclose(start("vp"), noise, rtol=1e-5)
    assert np.sqrt(1.0 - np.exp(-5.05)) < 0.997  # sigma(1) of that schedule
    np.testing.assert_allclose(start("edm"), np.hypot(1.0, 80.0) * noise, rtol=1e-5)


def params_of(policy: Any, seed: int) -> Any:
    return random_params(jax.eval_shape(policy.init, jax.random.key(0)), seed)
