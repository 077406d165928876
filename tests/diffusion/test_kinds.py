"""Parameterisations against their papers' formulas, and against each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    PARAMETERISATIONS,
    SCHEDULES,
    Level,
    add_noise,
    consistency_kind,
    convert,
    denoiser,
    edm_kind,
    flow,
    level_at,
    trigflow_kind,
    vp,
)

kinds = pytest.mark.parametrize("kind", PARAMETERISATIONS)
RANDOM = np.random.default_rng(0)
X0, EPS, OUT = RANDOM.normal(size=(3, 5, 3))
T = np.array([0.02, 0.2, 0.5, 0.8, 0.97])
SD, FLOOR = 0.5, 0.002


@kinds
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_target_as_output_gives_the_data_back(kind, schedule, x64):
    level = level_at(SCHEDULES[schedule](), T)
    x_t = level.alpha[:, None] * X0 + level.sigma[:, None] * EPS  # Ho et al. 2020, eq. 4, in numpy
    np.testing.assert_allclose(add_noise(level, jnp.asarray(X0), jnp.asarray(EPS)), x_t, rtol=1e-12)
    target = PARAMETERISATIONS[kind].target(level, jnp.asarray(X0), jnp.asarray(EPS))
    np.testing.assert_allclose(denoiser(lambda x, t, cond: target, kind)(jnp.asarray(x_t), level), X0, atol=1e-9)


ENDS = {"vp at 0": (vp(), 0.0), "vp at 1": (vp(), 1.0), "flow at 0": (flow(), 0.0), "flow at 1": (flow(), 1.0)}


@pytest.mark.parametrize(
    ("kind", "end"),
    [(k, e) for k in PARAMETERISATIONS for e in ENDS if not (k in ("eps", "score") and e == "flow at 1")],
)
def test_so_it_does_at_the_ends_of_a_schedule(kind, end, x64):
    """Not for eps and score on pure noise, where alpha = 0: they then say nothing of x0."""
    level = jax.tree.map(jnp.asarray, level_at(*ENDS[end]))
    x0, eps = jnp.asarray(X0), jnp.asarray(EPS)
    target = PARAMETERISATIONS[kind].target(level, x0, eps)
    denoise = denoiser(lambda x, t, cond: target, kind)
    x = add_noise(level, x0, eps)
    np.testing.assert_allclose(denoise(x, level), X0, atol=1e-9)
    assert jnp.isfinite(jax.grad(lambda x: denoise(x, level).sum())(x)).all()


def in_ve(a, s):
    """Their papers' formulas are in y = x / alpha and rho = sigma / alpha."""
    return s / a, lambda c_skip, c_out, c_in: (c_skip / a, c_out, c_in / a)


def edm_table(a, s):
    """Karras et al. 2022, table 1."""
    rho, back = in_ve(a, s)
    total = np.sqrt(rho**2 + SD**2)
    return back(SD**2 / total**2, rho * SD / total, 1 / total)


def consistency_table(a, s):
    """Song et al. 2023, appendix C."""
    rho, back = in_ve(a, s)
    beyond = rho - FLOOR
    return back(SD**2 / (beyond**2 + SD**2), SD * beyond / np.sqrt(SD**2 + rho**2), 1 / np.sqrt(rho**2 + SD**2))


def trigflow_table(a, s):
    """Lu and Song 2024: f(x, theta) = cos(theta) x - sin(theta) d F(x / d) for x = cos(theta) x0 + sin(theta) d eps."""
    theta = np.arctan2(s, a * SD)
    to_trig = np.cos(theta) / a  # x_t -> the state on their schedule
    return np.cos(theta) * to_trig, -np.sin(theta) * SD, to_trig / SD


@pytest.mark.parametrize("schedule", [vp(), flow()], ids=["vp", "flow"])
@pytest.mark.parametrize(
    ("kind", "table", "target"),
    [
        ("x0", lambda a, s: (0 * a, 1 + 0 * a, 1 + 0 * a), lambda a, s, x0, eps: x0),
        ("eps", lambda a, s: (1 / a, -s / a, 1 + 0 * a), lambda a, s, x0, eps: eps),
        ("v", lambda a, s: (a / (a * a + s * s), -s / (a * a + s * s), 1 + 0 * a), lambda a, s, x0, e: a * e - s * x0),
        ("flow", lambda a, s: (1 / (a + s), -s / (a + s), 1 + 0 * a), lambda a, s, x0, eps: eps - x0),
        ("score", lambda a, s: (1 / a, s * s / a, 1 + 0 * a), lambda a, s, x0, eps: -eps / s),
        ("edm", edm_table, None),
        ("consistency", consistency_table, None),
        (
            "trigflow",
            trigflow_table,
            lambda a, s, x0, e: np.cos(np.arctan2(s, SD * a)) * e - np.sin(np.arctan2(s, SD * a)) * x0 / SD,
        ),
    ],
)
def test_coefficients_and_targets_are_the_published_ones(kind, table, target, schedule, x64):
    level = level_at(schedule, T)
    a, s = level.alpha[:, None], level.sigma[:, None]
    param = PARAMETERISATIONS[kind]
    c_skip, c_out, c_in = table(a, s)
    for got, expected in zip(param.scaling(level), (c_skip, c_out, c_in), strict=True):
        np.testing.assert_allclose(got, expected[:, 0], rtol=1e-10)
    expected = target(a, s, X0, EPS) if target else (X0 - c_skip * (a * X0 + s * EPS)) / c_out
    np.testing.assert_allclose(param.target(level, jnp.asarray(X0), jnp.asarray(EPS)), expected, rtol=1e-9, atol=1e-9)


def test_edm_keeps_input_and_target_at_the_variance_of_the_noise(x64):
    """Karras et al. 2022, appendix B.6: with data of deviation d both have variance 1, at every level."""
    level = level_at(vp(), T)
    for d in (0.3, 2.0):
        param = edm_kind(d)
        of_x0, of_eps = (
            param.target(level, jnp.ones((5, 1)), jnp.zeros((5, 1))),
            param.target(level, jnp.zeros((5, 1)), jnp.ones((5, 1))),
        )
        np.testing.assert_allclose((d * of_x0) ** 2 + of_eps**2, 1.0, rtol=1e-12)
        np.testing.assert_allclose(param.scaling(level).c_in ** 2 * (level.alpha**2 * d**2 + level.sigma**2), 1.0)
        np.testing.assert_allclose(param.c_noise(level), 0.25 * np.log(level.sigma / level.alpha), rtol=1e-12)
    ends = edm_kind().c_noise(level_at(flow(), np.array([0.0, 1.0])))
    np.testing.assert_array_equal(ends, [-5.0, 5.0])


def test_trigflow_is_v_on_unit_data_and_consistency_without_a_floor_is_edm(x64):
    level, x0, eps = level_at(vp(), T), jnp.asarray(X0), jnp.asarray(EPS)
    for one, other in [(trigflow_kind(1.0), PARAMETERISATIONS["v"]), (consistency_kind(0.7, 0.0), edm_kind(0.7))]:
        for a, b in zip(one.scaling(level)[:2], other.scaling(level)[:2], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)
        np.testing.assert_allclose(one.target(level, x0, eps), other.target(level, x0, eps), rtol=1e-10)


@pytest.mark.parametrize("sigma", [0.002, 0.001, 0.0])
def test_a_consistency_model_is_the_identity_at_its_boundary_and_below(sigma, x64):
    with np.errstate(divide="ignore"):
        level = Level(np.float64(0.0), np.float64(0.0), np.log(np.float64(sigma)))
    f = denoiser(lambda x, t, cond: 100.0 * jnp.cos(x), consistency_kind(0.5, 0.002))
    np.testing.assert_allclose(f(jnp.asarray(X0), level), X0, rtol=1e-14)


@pytest.mark.parametrize("t", [0.0, 0.02, 0.5, 1.0])
def test_a_prediction_converts_into_any_other_kind(t, x64):
    """To the other kind's target, whatever the level, and so back again where nothing was lost on the way."""
    level = jax.tree.map(jnp.asarray, level_at(vp(), t))
    x0, eps = jnp.asarray(X0), jnp.asarray(EPS)
    x = add_noise(level, x0, eps)
    for source, target in itertools.product(PARAMETERISATIONS, repeat=2):
        given, expected = (PARAMETERISATIONS[kind].target(level, x0, eps) for kind in (source, target))
        got = convert(given, x, level, source, target)
        if t == 0.0 and source in ("x0", "score", "consistency") and target not in ("x0", "score", "consistency"):
            expected = PARAMETERISATIONS[target].target(level, x0, 0.0 * eps)  # the noise cannot be known
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=f"{source} to {target}")
        x0_hat = denoiser(lambda x, t, cond, got=got: got, target)(x, level)
        np.testing.assert_allclose(x0_hat, X0, atol=1e-9, err_msg=f"{source} to {target}")


def test_a_wrong_prediction_keeps_its_meaning_when_converted(x64):
    """Not only targets: any output of a network stands for one x0_hat."""
    level, x, out = level_at(flow(), T), jnp.asarray(X0), jnp.asarray(OUT)
    for source, target in itertools.product(PARAMETERISATIONS, repeat=2):
        x0_hat = denoiser(lambda x, t, cond: out, source)(x, level)
        got = denoiser(lambda x, t, cond, s=source, k=target: convert(out, X0 + 0 * x, level, s, k), target)(x, level)
        np.testing.assert_allclose(got, x0_hat, rtol=1e-9, atol=1e-9, err_msg=f"{source} to {target}")


def test_small_noise_loses_nothing_in_single_precision():
    """At sigma = 1e-4, (x - x0_hat) / sigma would keep three digits of eps."""
    level = Level(jnp.float32(0.0), jnp.float32(-5e-9), jnp.log(jnp.float32(1e-4)))
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)
    v = PARAMETERISATIONS["v"].target(level, x0, eps)
    np.testing.assert_allclose(convert(v, add_noise(level, x0, eps), level, "v", "eps"), eps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [edm_kind, trigflow_kind, consistency_kind])
def test_constants_are_traced_and_swept(make, trace_counter):
    level = jax.tree.map(jnp.asarray, level_at(vp(), 0.4))
    x = jnp.asarray(X0, jnp.float32)

    def run(sigma_data):
        return denoiser(lambda x, t, cond: jnp.tanh(x), make(sigma_data))(x, level)

    swept = jax.jit(jax.vmap(trace_counter(run)))
    lanes = swept(jnp.array([0.5, 1.0]))
    swept(jnp.array([0.2, 2.0]))
    assert trace_counter.count == 1
    np.testing.assert_allclose(lanes, jnp.stack([run(0.5), run(1.0)]), rtol=1e-5)


def test_constants_out_of_range_and_shapes_that_differ_are_refused():
    for make in (edm_kind, trigflow_kind, consistency_kind):
        with pytest.raises(ValueError, match=r"sigma_data=0.0; the data's standard deviation must be > 0"):
            make(0.0)
    with pytest.raises(ValueError, match="sigma_min=-0.1; the boundary needs sigma_min >= 0"):
        consistency_kind(0.5, -0.1)
    with pytest.raises(ValueError, match=r"the prediction has shape \(3,\) and x \(5, 3\)"):
        convert(jnp.asarray(X0)[0], jnp.asarray(X0), level_at(vp(), 0.5), "eps", "v")
    with pytest.raises(KeyError, match=r"unknown parameterisation 'trig'; did you mean 'trigflow'\?"):
        convert(jnp.asarray(X0), jnp.asarray(X0), level_at(vp(), 0.5), "trig", "v")
