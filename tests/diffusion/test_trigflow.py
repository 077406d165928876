"""The tangent of sCM: zero at the exact consistency function of a Gaussian, and the derivative it claims to be."""

import exact
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import Level, denoiser, level_at, vp
from jaxdiff.diffusion.kinds import trigflow_kind
from jaxdiff.diffusion.trigflow import (
    normalise_tangent,
    scm_distillation_loss,
    scm_tangent,
    scm_training_loss,
    tangent_warmup,
    trigflow_angle,
    trigflow_angles,
    trigflow_level,
)

MEAN, VARIANCE = 0.4, 0.3
RANDOM = np.random.default_rng(0)
X0, EPS = RANDOM.normal(size=(2, 5, 3))
ANGLE = np.array([0.05, 0.4, 0.8, 1.2, 1.55])
COS, SIN = np.cos(ANGLE)[:, None], np.sin(ANGLE)[:, None]


def exact_network(d):
    """F of the exact consistency function f(x, a) = MEAN + sqrt(v / (v cos**2 + d**2 sin**2)) (x - cos MEAN)."""

    def network(z, a, cond):
        cos, sin = jnp.cos(a)[..., None], jnp.sin(a)[..., None]
        f = MEAN + jnp.sqrt(VARIANCE / (VARIANCE * cos**2 + d**2 * sin**2)) * (d * z - cos * MEAN)
        return (cos * d * z - f) / (d * sin)

    return network


def some_network(z, a, cond):
    w = jnp.array([0.7, -0.4]) if cond is None else cond
    return jnp.tanh(w[0] * z + w[1] * a[..., None])


def teacher(x, level):
    return exact.gaussian(MEAN, VARIANCE)(x, Level(*(jnp.asarray(leaf)[..., None] for leaf in level)))


def ode_velocity(x, d):
    """(cos x - E[x0 | x]) / sin in numpy."""
    x0_hat = MEAN + COS * VARIANCE / (COS**2 * VARIANCE + d**2 * SIN**2) * (x - COS * MEAN)
    return (COS * x - x0_hat) / SIN


@pytest.mark.parametrize("d", [0.5, VARIANCE**0.5, 2.0])
def test_the_tangent_of_the_exact_model_is_0(d, x64):
    x = COS * X0 + SIN * d * EPS
    velocity = ode_velocity(x, d)
    out, tangent = scm_tangent(exact_network(d), ANGLE, x, velocity, sigma_data=d)
    np.testing.assert_allclose(tangent, 0.0, atol=1e-9)
    loss = scm_distillation_loss(exact_network(d), teacher, ANGLE, jnp.asarray(X0), jnp.asarray(EPS), sigma_data=d)
    np.testing.assert_allclose(loss, 0.0, atol=1e-14)

    # Before the warm-up is over what is left is the error of F as a diffusion model.
    for r in (0.0, 0.3):
        _, early = scm_tangent(exact_network(d), ANGLE, x, velocity, sigma_data=d, warmup=r)
        np.testing.assert_allclose(early, -(1 - r) * COS**2 * (d * np.asarray(out) - velocity), atol=1e-9)
        assert np.abs(early).max() > 0.01


def test_the_tangent_is_the_derivative_of_f_along_the_velocity(x64):
    d, h = 0.8, 1e-5
    x, velocity = COS * X0 + SIN * d * EPS, RANDOM.normal(size=X0.shape)

    def f(x, a):
        return np.cos(a)[:, None] * x - np.sin(a)[:, None] * d * np.tanh(0.7 * x / d - 0.4 * a[:, None])

    difference = (f(x + h * velocity, ANGLE + h) - f(x - h * velocity, ANGLE - h)) / (2 * h)
    out, tangent = scm_tangent(some_network, ANGLE, x, velocity, sigma_data=d)
    np.testing.assert_allclose(tangent, COS * difference, atol=1e-8)
    np.testing.assert_allclose(out, np.tanh(0.7 * x / d - 0.4 * ANGLE[:, None]), rtol=1e-12)

    # A network that reads t = 2 a / pi is the same function of the angle, and has the same derivative.
    _, by_time = scm_tangent(
        lambda z, t, cond: some_network(z, t * (np.pi / 2), cond),
        ANGLE, x, velocity, sigma_data=d, c_noise=lambda level: level.t,
    )  # fmt: skip
    np.testing.assert_allclose(by_time, tangent, rtol=1e-10)


def test_without_a_teacher_the_tangent_of_the_exact_model_is_0_on_average(x64):
    """The mean over x0 given x, by Gauss-Hermite quadrature; a single draw is not 0."""
    d, nodes, weights = 0.5, *np.polynomial.hermite_e.hermegauss(5)
    x = COS * X0 + SIN * d * EPS
    gain = COS * VARIANCE / (COS**2 * VARIANCE + d**2 * SIN**2)
    spread = np.sqrt(VARIANCE * (1 - gain * COS))
    tangents = []
    for node in nodes:
        x0 = MEAN + gain * (x - COS * MEAN) + spread * node
        velocity = COS * (x - COS * x0) / SIN - SIN * x0  # of the example that goes through x with this x0
        tangents.append(scm_tangent(exact_network(d), ANGLE, x, velocity, sigma_data=d)[1])
    np.testing.assert_allclose(np.average(tangents, axis=0, weights=weights), 0.0, atol=1e-9)
    assert np.abs(tangents[0]).max() > 0.1


def test_the_losses_and_their_gradients_are_the_formulas(x64):
    d, w, r = 0.8, jnp.array([0.7, -0.4]), 0.6
    x = COS * X0 + SIN * d * EPS
    arguments = (ANGLE, jnp.asarray(X0), jnp.asarray(EPS))
    of_x = (COS * x - 0.5 * x) / SIN
    routes = {
        "training": (COS * d * EPS - SIN * X0, lambda w, **kw: scm_training_loss(some_network, *arguments, w, **kw)),
        "distillation": (
            of_x,
            lambda w, **kw: scm_distillation_loss(some_network, lambda x, level: 0.5 * x, *arguments, w, **kw),
        ),
    }
    options = {"sigma_data": d, "warmup": r}
    for velocity, loss in routes.values():
        _, g = scm_tangent(some_network, ANGLE, x, velocity, w, **options)
        g = np.asarray(g) / (np.linalg.norm(g, axis=-1, keepdims=True) + 0.1)
        np.testing.assert_allclose(normalise_tangent(jnp.asarray(g), 1.0), g / (np.linalg.norm(g, axis=1)[:, None] + 1))
        plain = np.sum(g**2, axis=-1) / 3
        np.testing.assert_allclose(loss(w, **options), plain, rtol=1e-10)
        np.testing.assert_allclose(
            loss(w, log_weight=lambda a: 0.2 * a, **options), np.exp(0.2 * ANGLE) * plain - 0.2 * ANGLE, rtol=1e-10
        )
        # F moves by +g: the gradient is -2 / D g . dF / dw, with nothing through g itself.
        _, pull = jax.vjp(lambda w: some_network(x / d, ANGLE, w), w)
        expected = pull(jnp.asarray(-2 / 3 * g))[0]
        got = jax.grad(lambda w, loss=loss: jnp.sum(loss(w, **options)))(w)
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        # The learned weight of a level is stationary where exp(w) evens out its loss.
        slope = jax.grad(lambda b, loss=loss: jnp.sum(loss(w, log_weight=lambda a: b + 0.0 * a, **options)))(0.3)
        np.testing.assert_allclose(slope, np.sum(np.exp(0.3) * plain - 1), rtol=1e-10)


def test_angles_and_levels_are_one_to_one(x64):
    level = trigflow_level(ANGLE, 0.5)
    np.testing.assert_allclose(level.alpha, np.cos(ANGLE), rtol=1e-12)
    np.testing.assert_allclose(level.sigma, 0.5 * np.sin(ANGLE), rtol=1e-12)
    np.testing.assert_allclose(level.t, 2 * ANGLE / np.pi, rtol=1e-12)
    np.testing.assert_allclose(trigflow_angle(level, 0.5), ANGLE, rtol=1e-12)
    of_vp = level_at(vp(), np.array([0.0, 0.1, 0.9]))
    np.testing.assert_allclose(np.tan(trigflow_angle(of_vp, 0.5)), of_vp.sigma / (0.5 * of_vp.alpha), atol=1e-12)
    ends = trigflow_level(jnp.array([0.0, np.pi / 2]))
    np.testing.assert_allclose(ends.alpha, [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(ends.sigma, [0.0, 0.5], atol=1e-12)


def test_the_model_acts_through_its_denoiser(x64):
    """f of the losses is `denoiser(network, trigflow_kind(d))` that is fed the angle."""
    d, x = 0.8, jnp.asarray(X0)
    f = denoiser(some_network, trigflow_kind(d), c_noise=lambda level: trigflow_angle(level, d))
    expected = COS * X0 - SIN * d * np.tanh(0.7 * X0 / d - 0.4 * ANGLE[:, None])
    np.testing.assert_allclose(f(x, trigflow_level(ANGLE, d)), expected, rtol=1e-10)


def test_training_angles_are_log_normal_in_the_noise_ratio(given_noise):
    angles = trigflow_angles(None, (6,), sigma_data=0.5)
    np.testing.assert_allclose(np.tan(angles) * 0.5, np.exp(-1.0 + 1.4 * given_noise((6,))), rtol=1e-4)


def test_the_warm_up_is_linear_and_then_1():
    np.testing.assert_allclose(tangent_warmup(np.array([0, 2500, 10_000, 20_000])), [0.0, 0.25, 1.0, 1.0])
    np.testing.assert_allclose(tangent_warmup(jnp.asarray(5), 10), 0.5)
    with pytest.raises(ValueError, match="num_steps=0; the warm-up takes at least 1 step"):
        tangent_warmup(0, 0)


def test_compiling_changes_nothing_and_gradients_are_finite_near_the_ends(trace_counter):
    angle = jnp.array([1e-3, 0.1, 0.8, 1.5, np.pi / 2 - 1e-3], jnp.float32)
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)

    def losses(w, angle, x0, eps, warmup):
        options = {"warmup": warmup, "log_weight": lambda a: w[0] * a}
        return jnp.stack(
            [
                scm_training_loss(some_network, angle, x0, eps, w, **options),
                scm_distillation_loss(some_network, teacher, angle, x0, eps, w, **options),
            ]
        )

    w = jnp.array([0.7, -0.4])
    compiled = jax.jit(trace_counter(jax.value_and_grad(lambda *given: jnp.sum(losses(*given)))))
    for r in (0.0, 1.0):
        whole = losses(w, angle, x0, eps, r)
        value, gradient = compiled(w, angle, x0, eps, r)
        np.testing.assert_allclose(value, whole.sum(), rtol=1e-4)
        assert jnp.isfinite(gradient).all()
        one_by_one = jax.vmap(losses, in_axes=(None, 0, 0, 0, None), out_axes=1)(w, angle, x0, eps, r)
        np.testing.assert_allclose(one_by_one, whole, rtol=1e-4)
    assert trace_counter.count == 1


def test_shapes_that_would_broadcast_are_refused():
    x = jnp.ones((5, 3))
    with pytest.raises(ValueError, match=r"eps has shape \(3,\) and x0 \(5, 3\)"):
        scm_training_loss(some_network, jnp.asarray(ANGLE), x, x[0])
    with pytest.raises(ValueError, match=r"velocity has shape \(3,\) and x \(5, 3\)"):
        scm_tangent(some_network, jnp.asarray(ANGLE), x, x[0])
    with pytest.raises(ValueError, match=r"the network returned shape \(5, 1\)"):
        scm_training_loss(lambda z, a, cond: z[:, :1], jnp.asarray(ANGLE), x, x)
