"""Consistency losses against the exact consistency function of a Gaussian, and iCT's curriculum by hand."""

import math

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import Level, denoiser, flow, level_at, vp
from jaxdiff.diffusion.consistency import (
    ODE_STEPS,
    consistency_distillation_loss,
    consistency_training_loss,
    euler_step,
    heun_step,
    neighbours,
    noise_ratio,
    step_weight,
)
from jaxdiff.diffusion.ict import ict_num_levels, ict_probabilities, ict_sigmas, sample_index
from jaxdiff.diffusion.metrics import METRICS, pseudo_huber

MEAN, VARIANCE = 0.4, 0.3
RANDOM = np.random.default_rng(0)
X0, EPS = RANDOM.normal(size=(2, 6, 3))


def exact_consistency(x, level):
    """Where the probability-flow ODE of N(MEAN, VARIANCE) leads: standardised x is constant along it."""
    alpha, sigma = np.asarray(level.alpha)[..., None], np.asarray(level.sigma)[..., None]
    return MEAN + np.sqrt(VARIANCE / (VARIANCE * alpha**2 + sigma**2)) * (x - alpha * MEAN)


def teacher(x, level):
    return exact.gaussian(MEAN, VARIANCE)(x, Level(*(jnp.asarray(leaf)[..., None] for leaf in level)))


def ve_levels(sigmas):
    return Level(jnp.linspace(1.0, 0.0, len(sigmas)), jnp.zeros(len(sigmas)), jnp.log(sigmas))


GRIDS = {
    "vp": lambda n: level_at(vp(), np.linspace(0.8, 0.3, n + 1)),
    "flow": lambda n: level_at(flow(), np.linspace(0.9, 0.2, n + 1)),
    "ve": lambda n: ve_levels(np.linspace(3.0**0.2, 0.1**0.2, n + 1) ** 5),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_the_exact_model_disagrees_by_the_local_error_of_the_teacher_s_step(grid, solver, order, x64):
    def residual(steps):
        start, end = neighbours(GRIDS[grid](steps), np.full(len(X0), steps // 2))
        loss = consistency_distillation_loss(
            exact_consistency, exact_consistency, teacher, start, end, X0, EPS, solver=solver, metric="l1"
        )
        assert loss.shape == (len(X0),)
        return np.asarray(loss)

    coarse, fine = residual(128), residual(256)
    assert (fine > 0).all()
    np.testing.assert_allclose(np.log2(coarse / fine), order + 1, atol=0.15)


@pytest.mark.parametrize("name", ODE_STEPS)
def test_a_step_with_the_data_point_as_teacher_stays_on_its_noise(name, x64):
    """Which makes training a distillation: the same loss by both routes."""
    start, end = neighbours(GRIDS["vp"](5), np.arange(5).repeat(2)[: len(X0)])
    x = start.alpha[:, None] * X0 + start.sigma[:, None] * EPS
    moved = ODE_STEPS[name](lambda x, level: jnp.asarray(X0), x, start, end)
    np.testing.assert_allclose(moved, end.alpha[:, None] * X0 + end.sigma[:, None] * EPS, rtol=1e-12)

    arguments = (teacher, lambda x, level: 0.9 * teacher(x, level))
    distilled = consistency_distillation_loss(
        *arguments, lambda x, level: jnp.asarray(X0), start, end, X0, EPS, solver=name, weight=step_weight
    )
    trained = consistency_training_loss(*arguments, start, end, X0, EPS, metric="l2")
    np.testing.assert_allclose(trained, distilled, rtol=1e-10)


def test_heun_is_the_trapezium_rule_in_sigma_over_alpha(x64):
    start, end = neighbours(GRIDS["flow"](4), np.arange(4))
    x = X0[:4]
    rho, rho_end = (np.asarray(noise_ratio(level))[:, None] for level in (start, end))
    y = x / np.asarray(start.alpha)[:, None]

    def slope(y, rho):  # (y - E[x0 | y]) / rho, which is eps_hat
        return (y - (MEAN + VARIANCE / (VARIANCE + rho**2) * (y - MEAN))) / rho

    predicted = y + (rho_end - rho) * slope(y, rho)
    expected = y + (rho_end - rho) * 0.5 * (slope(y, rho) + slope(predicted, rho_end))
    np.testing.assert_allclose(heun_step(teacher, x, start, end), expected * np.asarray(end.alpha)[:, None], rtol=1e-11)


def test_a_step_to_clean_data_or_from_pure_noise_is_euler_s():
    levels = level_at(flow(), jnp.array([1.0, 0.5, 0.0]))
    start, end = neighbours(levels, np.array([0, 1]))
    x = jnp.asarray(EPS[:2], jnp.float32)
    np.testing.assert_array_equal(heun_step(teacher, x, start, end), euler_step(teacher, x, start, end))
    np.testing.assert_allclose(heun_step(teacher, x, start, end)[1], teacher(x, start)[1], rtol=1e-6)  # alpha' = 1


def network_model(w, x, level):
    """Any function of parameters, state and level."""
    return jnp.tanh(w[0] * x + w[1] * level.t[:, None])


def test_gradients_reach_the_model_alone_and_are_finite_at_the_ends():
    start, end = neighbours(level_at(flow(), jnp.linspace(1.0, 0.0, 4)), np.array([0, 1, 2, 0, 1, 2]))
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)

    def distillation(w, w_target, w_teacher):
        return jnp.sum(
            consistency_distillation_loss(
                lambda x, level: network_model(w, x, level),
                lambda x, level: network_model(w_target, x, level),
                lambda x, level: w_teacher * teacher(x, level),
                start, end, x0, eps, weight=step_weight,
            )
        )  # fmt: skip

    w = jnp.array([0.5, 0.2])
    own, target, of_teacher = jax.jit(jax.grad(distillation, argnums=(0, 1, 2)))(w, w, 1.0)
    assert jnp.isfinite(own).all()
    assert (own != 0).all()
    assert (target == 0).all()
    assert of_teacher == 0

    for name, metric in METRICS.items():  # at a difference of exactly 0
        slope = jax.grad(lambda d, metric=metric: jnp.sum(metric(d)))(jnp.zeros((2, 3)))
        assert (jnp.abs(slope) <= (1 / 3 + 1e-6 if name == "l1" else 0.0)).all(), name  # |d| has only bounds there


def test_at_the_last_pair_the_target_is_the_state_itself(x64):
    """The boundary condition is the parameterisation's: at sigma_min the network has no say."""
    start, end = neighbours(ve_levels(np.array([0.5, 0.002])), np.zeros(len(X0), int))
    f = denoiser(lambda x, t, cond: jnp.sin(7.0 * x), "consistency")
    loss = consistency_training_loss(lambda x, level: 0.0 * x, f, start, end, X0, EPS, metric="l1", weight=None)
    np.testing.assert_allclose(loss, np.mean(np.abs(X0 + 0.002 * EPS), axis=-1), rtol=1e-9)


def test_one_dropout_mask_for_both_calls_leaves_only_the_difference_of_levels():
    """Bound into f, the key is the same in both: at equal levels the loss is 0 with any mask."""
    start = level_at(flow(), jnp.linspace(0.3, 0.9, len(X0)))
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)

    def dropped(seed):
        keep = jnp.asarray(np.random.default_rng(seed).random(X0.shape) < 0.5)
        return lambda x, level: jnp.where(keep, 2.0 * x, 0.0)

    same = consistency_training_loss(dropped(0), dropped(0), start, start, x0, eps, weight=None)
    other = consistency_training_loss(dropped(0), dropped(1), start, start, x0, eps, weight=None)
    np.testing.assert_array_equal(same, np.zeros(len(X0)))
    assert (other > 0.1).any()


def test_examples_do_not_interact_and_compiling_changes_nothing():
    start, end = neighbours(level_at(vp(), jnp.linspace(1.0, 0.1, 7)), np.arange(6))
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)

    def f(x, level):
        return jnp.tanh(x) + jnp.asarray(level.half_logsnr)[..., None]

    def losses(start, end, x0, eps):
        return consistency_distillation_loss(f, f, f, start, end, x0, eps), consistency_training_loss(
            f, f, start, end, x0, eps
        )

    whole = losses(start, end, x0, eps)
    for got in (jax.jit(losses)(start, end, x0, eps), jax.jit(jax.vmap(losses))(start, end, x0, eps)):
        np.testing.assert_allclose(got, whole, rtol=2e-5)


def test_metrics_are_the_published_ones(x64):
    d = RANDOM.normal(size=(4, 3)) * 10.0 ** np.arange(-6, 2, 2)[:, None]
    np.testing.assert_allclose(METRICS["l1"](d), np.abs(d).sum(-1) / 3, rtol=1e-12)
    np.testing.assert_allclose(METRICS["l2"](d), (d**2).sum(-1) / 3, rtol=1e-12)
    c = 0.00054 * math.sqrt(3)
    np.testing.assert_allclose(pseudo_huber(d)[1:], np.sqrt((d**2).sum(-1) + c**2)[1:] - c, rtol=1e-6)
    np.testing.assert_allclose(pseudo_huber(d)[0], (d[0] ** 2).sum() / (2 * c), rtol=1e-4)  # far below c
    np.testing.assert_allclose(pseudo_huber(1e6 * d, c=0.1)[3], 1e6 * np.sqrt((d[3] ** 2).sum()), rtol=1e-6)
    np.testing.assert_allclose(pseudo_huber(d, c=2.0), np.sqrt((d**2).sum(-1) + 4.0) - 2.0, rtol=1e-6, atol=1e-15)


def test_the_step_weight_is_the_inverse_gap_and_0_from_pure_noise(x64):
    sigmas = np.array([3.0, 1.0, 0.2])
    start, end = neighbours(ve_levels(sigmas), np.arange(2))
    np.testing.assert_allclose(step_weight(start, end), 1.0 / (sigmas[:-1] - sigmas[1:]), rtol=1e-12)
    start, end = neighbours(level_at(flow(), np.array([1.0, 0.5])), np.array([0]))
    np.testing.assert_array_equal(step_weight(start, end), [0.0])


def test_what_cannot_be_meant_is_refused():
    levels = ve_levels(np.array([3.0, 1.0, 0.2]))
    start, end = neighbours(levels, np.array([0]))
    x = jnp.ones((1, 3))
    with pytest.raises(ValueError, match="3 levels have pairs 0 to 1"):
        neighbours(levels, np.array([2]))
    with pytest.raises(ValueError, match=r"levels have shape \(1,\)"):
        neighbours(start, np.array([0]))
    with pytest.raises(KeyError, match="unknown ODE step 'huen'; did you mean 'heun'"):
        consistency_distillation_loss(teacher, teacher, teacher, start, end, x, x, solver="huen")
    with pytest.raises(KeyError, match="unknown metric 'l3'"):
        consistency_training_loss(teacher, teacher, start, end, x, x, metric="l3")
    with pytest.raises(ValueError, match=r"eps has shape \(3,\) and x0 \(1, 3\)"):
        consistency_training_loss(teacher, teacher, start, end, x, x[0])
    with pytest.raises(ValueError, match="c=0.0; the turning point must be > 0"):
        pseudo_huber(x, c=0.0)


def test_the_grid_doubles_at_the_published_steps():
    """400 000 steps are 8 stages of 50 000: 10, 20, .. 1280 pairs. Other numbers by hand from N(k)."""
    steps = np.array([0, 49_999, 50_000, 99_999, 100_000, 299_999, 349_999, 350_000, 400_000, 10**9])
    expected = [11, 11, 21, 21, 41, 321, 641, 1281, 1281, 1281]
    np.testing.assert_array_equal(ict_num_levels(steps, 400_000), expected)
    np.testing.assert_array_equal(ict_num_levels(jnp.asarray(steps), 400_000), expected)
    # floor(100 / (log2(7) + 1)) = 26 steps per stage: 3, 6, 12, then capped at 21
    levels = ict_num_levels(np.array([25, 26, 52, 78, 99]), 100, first=3, last=21)
    np.testing.assert_array_equal(levels, [4, 7, 13, 22, 22])
    assert ict_num_levels(5, 10, first=4, last=4) == 5


@pytest.mark.parametrize("num_levels", [2, 11, 641, 1281])
def test_the_padded_grid_is_karras_grid_and_its_pairs_follow_the_log_normal(num_levels, x64):
    sigmas = ict_sigmas(num_levels)
    i = np.arange(1, num_levels + 1)  # the paper counts from the smallest
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    published = (low + (i - 1) / (num_levels - 1) * (high - low)) ** 7
    np.testing.assert_allclose(sigmas[:num_levels][::-1], published, rtol=1e-12)
    assert (sigmas[num_levels - 1 :] == 0.002).all()

    probabilities = ict_probabilities(sigmas)
    mass = [math.erf((math.log(sigma) + 1.1) / (2.0 * math.sqrt(2.0))) for sigma in published]
    np.testing.assert_allclose(
        probabilities[: num_levels - 1][::-1], np.diff(mass) / (mass[-1] - mass[0]), rtol=1e-9, atol=1e-15
    )
    assert (probabilities[num_levels - 1 :] == 0).all()
    np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-12)


def test_indices_follow_their_distribution_and_never_the_padding(monkeypatch):
    probabilities = jnp.array([0.0, 0.5, 0.0, 0.3, 0.2, 0.0, 0.0])
    u = (np.arange(1000) + 0.5) / 1000  # a uniform draw without its scatter
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.asarray(u, dtype))
    counts = np.bincount(sample_index(None, probabilities, (1000,)), minlength=7)
    np.testing.assert_allclose(counts, [0, 500, 0, 300, 200, 0, 0], atol=1)
    edges = np.array([0.0, 0.5, 1.0])  # 1 never comes, but a product may round up to it
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.asarray(edges, dtype))
    np.testing.assert_array_equal(sample_index(None, probabilities, (3,)), [1, 3, 4])


def test_a_growing_grid_is_one_program(trace_counter):
    def draw(key, step):
        sigmas = ict_sigmas(ict_num_levels(step, 80))
        index = sample_index(key, ict_probabilities(sigmas), (64,))
        start, end = neighbours(ve_levels(sigmas), index)
        return index, step_weight(start, end)

    compiled = jax.jit(trace_counter(draw))
    for step, largest in ((0, 10), (39, 80), (79, 1280)):
        index, weight = compiled(jax.random.key(step), step)
        assert index.max() < largest
        assert np.unique(index).size > min(5, largest // 2)
        assert jnp.isfinite(weight).all()
        assert (weight > 0).all()
    assert trace_counter.count == 1


def test_impossible_grids_are_refused():
    with pytest.raises(ValueError, match="first=20 and last=10; needed: 1 <= first <= last"):
        ict_num_levels(0, 100, first=20, last=10)
    with pytest.raises(ValueError, match="num_steps=7; 10 to 1280 pairs need at least 8 steps"):
        ict_num_levels(0, 7)
    with pytest.raises(ValueError, match="num_levels=1282; allowed: 2 to size=1281"):
        ict_sigmas(1282)
    with pytest.raises(ValueError, match="needed: 0 < sigma_min < sigma_max"):
        ict_sigmas(11, sigma_min=3.0, sigma_max=2.0)
