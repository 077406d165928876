import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.diffusion import (
    PARAMETERISATIONS,
    WEIGHTS,
    add_noise,
    denoiser,
    denoising_loss,
    edm_weight,
    flow,
    keep_known,
    level_at,
    likelihood_weight,
    min_snr_weight,
    per_logsnr,
    score_matching_loss,
    sigmoid_weight,
    vp,
)
from jaxdiff.diffusion.schedules import diffusion_squared

kinds = pytest.mark.parametrize("kind", PARAMETERISATIONS)
schedules = pytest.mark.parametrize("schedule", [vp(), flow()], ids=["vp", "flow"])
RANDOM = np.random.default_rng(0)
X0, EPS, GUESS = RANDOM.normal(size=(3, 5, 3))
T = np.array([0.05, 0.2, 0.5, 0.8, 0.9])


def network_guessing(kind, level):
    """A network of this kind whose x0_hat is GUESS wherever it is asked."""
    param = PARAMETERISATIONS[kind]

    def network(scaled, t, cond):
        x = scaled / jnp.asarray(param.scaling(level).c_in)[:, None]
        eps = (x - level.alpha[:, None] * GUESS) / level.sigma[:, None]
        return param.target(level, jnp.asarray(GUESS), eps)

    return network


def loss(kind, level, weight, metric="l2"):
    network, x0, eps = network_guessing(kind, level), jnp.asarray(X0), jnp.asarray(EPS)
    return denoising_loss(network, kind, level, x0, eps, weight=weight, metric=metric)


FACTORS = {
    "x0": lambda a, s: 1.0,
    "eps": lambda a, s: a**2 / s**2,
    "snr": lambda a, s: a**2 / s**2,
    "score": lambda a, s: s**2 * (a / s**2) ** 2,  # lambda = sigma**2 times the error of (alpha x0_hat - x) / sigma**2
    "v": lambda a, s: (a**2 + s**2) ** 2 / s**2,
    "flow": lambda a, s: (a + s) ** 2 / s**2,
    "edm": lambda a, s: (s**2 + 0.25 * a**2) / (0.5 * s) ** 2,
    "min_snr": lambda a, s: np.minimum(a**2 / s**2, 5.0),
    "sigmoid": lambda a, s: 1.0 / (1.0 + s**2 / a**2),
}


@kinds
@schedules
def test_a_weighted_loss_does_not_depend_on_the_kind(kind, schedule, x64):
    level = level_at(schedule, T)
    assert FACTORS.keys() == WEIGHTS.keys()
    for weight, factor in FACTORS.items():
        expected = factor(level.alpha, level.sigma) * np.mean((X0 - GUESS) ** 2, axis=-1)
        np.testing.assert_allclose(loss(kind, level, weight), expected, rtol=1e-9, err_msg=weight)


@kinds
@schedules
def test_a_kind_s_own_loss_is_the_error_of_its_output(kind, schedule, x64):
    """Of the score: times sigma. Of the consistency boundary, where the output explodes: of x0_hat."""
    level = level_at(schedule, T)
    a, s, d = level.alpha[:, None], level.sigma[:, None], 0.5
    eps_guess = (a * X0 + s * EPS - a * GUESS) / s
    edm = (s * (X0 - GUESS) - a * d**2 * (EPS - eps_guess)) / (d * np.sqrt(a**2 * d**2 + s**2))
    error = {
        "x0": X0 - GUESS,
        "eps": EPS - eps_guess,
        "v": (a * EPS - s * X0) - (a * eps_guess - s * GUESS),
        "flow": (EPS - X0) - (eps_guess - GUESS),
        "score": s * (EPS / s - eps_guess / s),
        "edm": edm,
        "trigflow": edm,
        "consistency": X0 - GUESS,
    }[kind]
    plain = np.mean(error**2, axis=-1)
    np.testing.assert_allclose(loss(kind, level, None), plain, rtol=1e-9)
    if kind in WEIGHTS:
        np.testing.assert_allclose(loss(kind, level, kind), plain, rtol=1e-9)
        np.testing.assert_allclose(loss("x0", level, kind), plain, rtol=1e-9)


@schedules
def test_score_matching_is_the_eps_loss_and_the_likelihood_s_by_its_coefficient(schedule, x64):
    """The tutorial's form, lambda(t) |s_theta - grad log p(x_t | x0)|**2, in numpy; g**2 = -2 sigma**2 dlambda/dt."""
    level = level_at(schedule, T)
    a, s = level.alpha[:, None], level.sigma[:, None]
    score = (a * GUESS - (a * X0 + s * EPS)) / s**2
    error = np.mean((score + EPS / s) ** 2, axis=-1)
    step = 1e-5
    slope = (level_at(schedule, T + step).half_logsnr - level_at(schedule, T - step).half_logsnr) / (2 * step)
    g2 = -2.0 * level.sigma**2 * slope
    network, x0, eps = network_guessing("v", level), jnp.asarray(X0), jnp.asarray(EPS)

    def matching(coefficient):
        return score_matching_loss(network, "v", level, x0, eps, coefficient=coefficient)

    np.testing.assert_allclose(matching(None), level.sigma**2 * error, rtol=1e-9)
    np.testing.assert_allclose(matching(None), loss("v", level, "eps"), rtol=1e-9)
    np.testing.assert_allclose(matching(lambda level: 1.0 + level.t), (1.0 + T) * error, rtol=1e-9)
    by_rate = matching(lambda level: diffusion_squared(schedule, level.t))
    np.testing.assert_allclose(by_rate, g2 * error, rtol=1e-6)
    np.testing.assert_allclose(by_rate, loss("v", level, likelihood_weight(schedule)), rtol=1e-9)


def test_weights_over_logsnr_do_not_care_how_time_runs(x64):
    """A mean over uniform t of a weight per logSNR is an integral over logSNR, the same for two schedules."""
    t = (np.arange(4000) + 0.5) / 4000
    integrals = []
    for schedule in (vp(0.1, 20.0), flow()):
        level = level_at(schedule, t)
        inside = (level.half_logsnr > -4.0) & (level.half_logsnr < 3.0)
        integrals.append(np.mean(np.where(inside, per_logsnr(sigmoid_weight(-1.0), schedule)(level), 0.0)))
    # e**b sigmoid(l - b) has the integral e**b log(1 + e**(l - b)); l = logSNR from -8 to 6
    exact = np.exp(-1.0) * (np.logaddexp(0.0, 7.0) - np.logaddexp(0.0, -7.0))
    np.testing.assert_allclose(integrals, exact, rtol=2e-3)


def test_constants_of_weights_are_traced():
    level = jax.tree.map(jnp.asarray, level_at(vp(), T))
    for make in (min_snr_weight, edm_weight, sigmoid_weight):
        swept = jax.vmap(lambda c, make=make: make(c)(level))(jnp.array([0.5, 2.0]))
        np.testing.assert_allclose(swept, jnp.stack([make(0.5)(level), make(2.0)(level)]), rtol=1e-5)
    with pytest.raises(ValueError, match="sigma_data=-1.0"):
        edm_weight(-1.0)


def test_the_error_may_be_measured_otherwise(x64):
    level = level_at(vp(), T)
    c = 0.00054 * np.sqrt(3)
    huber = np.sqrt(np.sum((X0 - GUESS) ** 2, axis=-1) + c**2) - c
    for kind in ("x0", "eps"):
        got = loss(kind, level, "min_snr", "pseudo_huber")
        np.testing.assert_allclose(got, np.minimum(level.alpha**2 / level.sigma**2, 5.0) * huber, rtol=1e-9)
    np.testing.assert_allclose(
        loss("x0", level, None, lambda error: jnp.max(jnp.abs(error), axis=-1)), np.abs(X0 - GUESS).max(axis=-1)
    )
    with pytest.raises(KeyError, match=r"unknown metric .huber.; known: l1, l2, pseudo_huber"):
        loss("x0", level, None, "huber")


def test_snr_plus_one_is_the_v_weight_where_variance_is_preserved(x64):
    level = level_at(vp(), T)
    np.testing.assert_allclose(WEIGHTS["v"](level), level.alpha**2 / level.sigma**2 + 1.0, rtol=1e-12)


@kinds
def test_the_own_weight_and_its_gradient_are_finite_at_the_clean_end(kind):
    level = level_at(vp(), jnp.zeros(5))
    x0, eps = jnp.asarray(X0, jnp.float32), jnp.asarray(EPS, jnp.float32)
    for weight in (None, *({kind} & WEIGHTS.keys()), "x0", "min_snr", "sigmoid"):
        value, gradient = jax.value_and_grad(
            lambda w, weight=weight: jnp.mean(
                denoising_loss(lambda x, t, cond: w * x, kind, level, x0, eps, weight=weight)
            )
        )(0.5)
        assert jnp.isfinite(value), weight
        assert jnp.isfinite(gradient), weight


def test_the_loss_is_the_error_of_the_denoiser(x64):
    """Two routes to |x0 - x0_hat|**2: through the loss, and through x_t and the denoiser."""
    level = level_at(vp(), T)
    x0, eps = jnp.asarray(X0), jnp.asarray(EPS)

    def network(x, t, cond):
        return jnp.tanh(x) * cond + t[:, None]

    cond = jnp.asarray(GUESS)
    x0_hat = denoiser(network, "eps", cond)(add_noise(level, x0, eps), level)
    expected = np.mean((X0 - np.asarray(x0_hat)) ** 2, axis=-1)
    np.testing.assert_allclose(denoising_loss(network, "eps", level, x0, eps, cond, weight="x0"), expected, rtol=1e-10)


def test_a_weight_may_be_a_function_and_data_may_have_more_axes(x64):
    level = level_at(vp(), T)
    x0, eps = RANDOM.normal(size=(2, 5, 4, 3))
    got = denoising_loss(
        lambda x, t, cond: jnp.zeros_like(x),
        "eps",
        level,
        jnp.asarray(x0),
        jnp.asarray(eps),
        weight=lambda level: level.t,
    )
    factor = (T * level.sigma**2 / level.alpha**2)[:, None]
    np.testing.assert_allclose(got, factor * np.mean(eps**2, axis=-1), rtol=1e-10)


def test_outputs_and_noise_that_would_broadcast_are_refused():
    level, x0 = level_at(vp(), jnp.asarray(T)), jnp.asarray(X0)
    with pytest.raises(ValueError, match=r"the network returned shape \(5, 1\)"):
        denoising_loss(lambda x, t, cond: x[:, :1], "eps", level, x0, x0)
    with pytest.raises(ValueError, match=r"eps has shape \(3,\) and x0 \(5, 3\)"):
        denoising_loss(lambda x, t, cond: x, "eps", level, x0, x0[0])


def test_unknown_names_are_answered_with_the_nearest():
    level, x0 = level_at(vp(), jnp.asarray(T)), jnp.asarray(X0)
    with pytest.raises(KeyError, match=r"unknown loss weight 'min_srn'; did you mean 'min_snr'\?"):
        denoising_loss(lambda x, t, cond: x, "eps", level, x0, x0, weight="min_srn")
    with pytest.raises(KeyError, match=r"unknown parameterisation 'scores'; did you mean 'score'\?"):
        denoising_loss(lambda x, t, cond: x, "scores", level, x0, x0)


TOKENS = np.random.default_rng(1).normal(size=(2, 2, 4, 3))  # x0 and eps [B, H, D]
TOKEN_TIMES = np.linspace(0.1, 0.9, 8).reshape(2, 4)


@kinds
def test_every_token_may_have_a_level_of_its_own(kind, x64):
    """The loss of a plan whose tokens have their own levels is that of its tokens as so many examples."""
    x0, eps = map(jnp.asarray, TOKENS)
    level = level_at(vp(), TOKEN_TIMES)

    def network(x, t, cond):
        return jnp.tanh(x) + t[..., None]

    flat = jax.tree.map(lambda leaf: leaf.reshape(8), level)
    for weight in (None, "min_snr"):
        got = denoising_loss(network, kind, level, x0, eps, weight=weight)
        each = denoising_loss(network, kind, flat, x0.reshape(8, 3), eps.reshape(8, 3), weight=weight)
        np.testing.assert_allclose(got, each.reshape(2, 4), rtol=1e-9)
    token = np.linspace(0.0, 1.0, 4)[None, :, None]
    plain = denoising_loss(network, kind, level, x0, eps)
    per_plan = denoising_loss(
        network, kind, level, x0, eps, metric=lambda error: jnp.mean(token * error**2, axis=(-2, -1))
    )
    np.testing.assert_allclose(per_plan, np.mean(token[..., 0] * plain, axis=-1), rtol=1e-9)


def test_a_metric_of_whole_plans_needs_one_level_a_plan_or_the_kind_s_own_weight(x64):
    x0, eps = map(jnp.asarray, TOKENS)

    def per_plan(error):
        return jnp.mean(jnp.square(error), axis=(-2, -1))

    def losses(level, **options):
        return denoising_loss(lambda x, t, cond: jnp.tanh(x), "x0", level, x0, eps, **options)

    one = level_at(vp(), np.array([0.3, 0.6]))
    got = losses(one, weight="snr", metric=per_plan)
    np.testing.assert_allclose(got, np.mean(losses(one, weight="snr"), axis=-1), rtol=1e-9)
    with pytest.raises(ValueError, match=r"weight has shape \(2, 4\) and the metric's result \(2,\)"):
        losses(level_at(vp(), TOKEN_TIMES), weight="snr", metric=per_plan)


def test_a_hook_changes_what_the_network_sees_and_not_what_it_is_to_say(x64):
    x0, eps = map(jnp.asarray, TOKENS)
    mask, seen = np.array([True, False, False]), []

    def network(x, t, cond):
        seen.append(x)
        return jnp.tanh(x)

    level = level_at(vp(), np.array([0.3, 0.6]))
    got = denoising_loss(network, "eps", level, x0, eps, project=keep_known(mask, x0))
    a, s = level.alpha[:, None, None], level.sigma[:, None, None]
    x_t = np.where(mask, TOKENS[0], a * TOKENS[0] + s * TOKENS[1])
    np.testing.assert_allclose(seen[0], x_t, rtol=1e-12)
    np.testing.assert_allclose(got, np.mean((np.tanh(x_t) - TOKENS[1]) ** 2, axis=-1), rtol=1e-9)
    with pytest.raises(ValueError, match=r"project made shape \(2, 3\) of x_t \(2, 4, 3\)"):
        denoising_loss(network, "eps", level, x0, eps, project=lambda x, level, eps: x[:, 0])
