"""Denoising losses, per example: the caller takes the mean.

Each is w(level) |x0 - x0_hat|**2; the name of a weight says whose plain error it is, or where it was published.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.diffusion.denoiser import Network, predict
from jaxdiff.diffusion.kinds import Kind, edm_kind, parameterisation
from jaxdiff.diffusion.level import Level, add_noise, expand_to
from jaxdiff.diffusion.metrics import METRICS, Metric
from jaxdiff.diffusion.schedules import Schedule, diffusion_squared
from jaxdiff.diffusion.solvers.loop import Projection
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array

Weight = Callable[[Level], Any]  # level [*B] -> weight [*B] of the squared x0 error


def _snr(level: Level) -> Any:
    return jnp.exp(2.0 * level.half_logsnr)


def min_snr_weight(gamma: ArrayLike = 5.0) -> Weight:
    """min(snr, gamma): the eps loss, held back where there is little noise.

    Args:
      gamma: cap, > 0; scalar, may be traced.

    Reference: Hang et al. 2023, arXiv:2303.09556, section 3.4.
    """
    return lambda level: jnp.minimum(_snr(level), gamma)


def edm_weight(sigma_data: ArrayLike = 0.5) -> Weight:
    """(sigma**2 + alpha**2 d**2) / (sigma d)**2 with d = sigma_data: the plain error of `edm_kind`'s output.

    Args:
      sigma_data: standard deviation of the data, > 0; scalar, may be traced.

    Raises:
      ValueError: sigma_data <= 0.

    Reference: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    scaling = edm_kind(sigma_data).scaling
    return lambda level: jnp.square(1.0 / jnp.asarray(scaling(level).c_out))


def sigmoid_weight(bias: ArrayLike = 0.0) -> Weight:
    """exp(b) sigmoid(logsnr - b) = 1 / (exp(-b) + 1 / snr): the snr, levelling off at exp(b).

    The published objective is an integral over logSNR: with times drawn uniformly it is
    `per_logsnr(sigmoid_weight(b), schedule)`, whose factor -dlogSNR/dt this weight does not have.

    Args:
      bias: b in nats of logSNR; the lower, the less fine detail counts. Scalar, may be traced.

    Reference: Hoogeboom et al. 2024, arXiv:2410.19324.
    """
    return lambda level: jnp.exp(bias) * jax.nn.sigmoid(2.0 * level.half_logsnr - bias)


def per_logsnr(weight: str | Weight, schedule: Schedule) -> Weight:
    """weight(level) (-dlogSNR/dt): makes the mean over uniform times an integral of the weight over logSNR.

    -dlogSNR/dt = g(t)**2 / sigma(t)**2, infinite where sigma = 0.

    Args:
      weight: a name in WEIGHTS or a function of the level.
      schedule: where level.t is a time; its constants may be traced.

    Raises:
      KeyError: unknown weight.

    Reference: Kingma and Gao 2023, arXiv:2303.00848.
    """
    weigh = weight_of(weight)
    return lambda level: weigh(level) * diffusion_squared(schedule, level.t) * jnp.exp(-2.0 * level.log_sigma)


def likelihood_weight(schedule: Schedule) -> Weight:
    """snr (-dlogSNR/dt), score matching with lambda(t) = g(t)**2: half of it bounds -log p(x0), in nats.

    For times uniform in [0, 1]. The bound has two more terms, which train nothing here.

    Args:
      schedule: where level.t is a time.

    Reference: Song et al. 2021, arXiv:2101.09258, theorem 1; Kingma et al. 2021, arXiv:2107.00630, eq. 17.
    """
    return per_logsnr("snr", schedule)


# Weights of |x0 - x0_hat|**2; snr = alpha**2 / sigma**2.
WEIGHTS: dict[str, Weight] = {
    # plain regression on the data
    "x0": lambda level: jnp.ones_like(level.alpha),
    # equal to |eps - eps_hat|**2. Reference: arXiv:2006.11239, eq. 14.
    "eps": _snr,
    "snr": _snr,
    # equal to sigma**2 |S - S_hat|**2, score matching with lambda(t) = sigma**2. Reference: arXiv:2011.13456, eq. 7.
    "score": _snr,
    # equal to |v - v_hat|**2; snr + 1 where the schedule preserves variance. Reference: arXiv:2202.00512, section 4.
    "v": lambda level: jnp.square((level.alpha**2 + level.sigma**2) * jnp.exp(-level.log_sigma)),
    # equal to |u - u_hat|**2 with u = eps - x0
    "flow": lambda level: jnp.square(1.0 + jnp.exp(level.half_logsnr)),
    "edm": edm_weight(),
    "min_snr": min_snr_weight(),
    "sigmoid": sigmoid_weight(),
}


def weight_of(weight: str | Weight) -> Weight:
    """Looks a weight up by name; a function comes back as it is.

    Raises:
      KeyError: unknown name; the message lists the known ones.
    """
    if not isinstance(weight, str):
        return weight
    if weight not in WEIGHTS:
        raise unknown_name("loss weight", weight, WEIGHTS)
    return WEIGHTS[weight]


def denoising_loss(
    network: Network,
    kind: Kind,
    level: Level,
    x0: Array,
    eps: Array,
    cond: Any = None,
    *,
    weight: str | Weight | None = None,
    c_noise: Callable[[Level], Any] | None = None,
    metric: str | Metric = "l2",
    project: Projection | None = None,
) -> Array:
    """Weighted squared error of the prediction, mean over D: w(level) |x0 - x0_hat|**2 / D.

    Computed through c_out (F - target), which is the same and stays accurate where sigma is small. With the kind's own
    weight there is no such factor, at sigma = 0 either; other weights that grow like the snr have no value there.

    Args:
      network: F, called (x [*B, D], t [*B], cond) -> [*B, D].
      kind: what F predicts: a name in PARAMETERISATIONS, or a Parameterisation.
      level: noise levels [*B], or of fewer axes: x0 [B, H, D] may have one level [B] or one per token [B, H].
      x0: data [*B, D].
      eps: standard normal noise [*B, D].
      cond: conditioning for the network.
      weight: a name in WEIGHTS or a function of the level; None takes the kind's own loss, the plain error of F
        ("score": times sigma; "consistency": the error of x0_hat).
      c_noise: the network's noise input as a function of the level; None takes the kind's own.
      metric: how an error [*B, D] is measured, a name in METRICS or a function to [*B]. A weight multiplies the metric
        of the x0 error; there is no such thing as another kind's error in a metric that is not a square. A function to
        fewer axes, such as one number per plan, goes with the kind's own weight, or with levels of no more axes.
      project: (x_t, level, eps) -> x_t, applied before the network sees x_t, as `sample` does with the same hook; the
        target stays that of x0 and eps. For example `keep_known`.

    Returns:
      Loss per example, [*B].

    Raises:
      KeyError: unknown kind, weight or metric.
      ValueError: eps, the projected x_t or the network's output is not shaped like x0; a metric with fewer axes than
        the weight.
    """
    param = parameterisation(kind)
    weigh = None if weight is None else weight_of(weight)
    if isinstance(metric, str) and metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    measure = METRICS[metric] if isinstance(metric, str) else metric
    if eps.shape != x0.shape:
        raise ValueError(f"eps has shape {eps.shape} and x0 {x0.shape}; each example needs noise of its own shape.")
    scaling = param.scaling(level)
    x_t = add_noise(level, x0, eps)
    if project is not None:
        x_t = _projected(project, x_t, level, eps)
    error = predict(network, scaling.c_in, x_t, (c_noise or param.c_noise)(level), cond) - param.target(level, x0, eps)
    if weigh is None or (isinstance(weight, str) and weight == kind):
        own = error if param.error_scale is None else expand_to(param.error_scale(level), error) * error
        return measure(own)
    measured = measure(expand_to(scaling.c_out, error) * error)
    factor = weigh(level)
    if jnp.ndim(factor) > measured.ndim:
        raise ValueError(
            f"the weight has shape {jnp.shape(factor)} and the metric's result {measured.shape}: a metric of whole "
            "examples needs one level for each, or the kind's own loss (weight=None)."
        )
    return expand_to(factor, measured) * measured


def _projected(project: Projection, x_t: Array, level: Level, eps: Array) -> Array:
    moved = project(x_t, level, eps)
    if moved.shape != x_t.shape:
        raise ValueError(f"project made shape {moved.shape} of x_t {x_t.shape}; they must be equal.")
    return moved


def score_matching_loss(
    network: Network,
    kind: Kind,
    level: Level,
    x0: Array,
    eps: Array,
    cond: Any = None,
    *,
    coefficient: Weight | None = None,
    c_noise: Callable[[Level], Any] | None = None,
) -> Array:
    """Denoising score matching, mean over D: lambda(t) |s_theta(x_t, t) - grad log p(x_t | x0)|**2 / D.

    s_theta = (alpha x0_hat - x_t) / sigma**2 and grad log p(x_t | x0) = -eps / sigma, so this is `denoising_loss` with
    w = lambda alpha**2 / sigma**4: the eps loss at lambda = sigma**2, `likelihood_weight` at lambda = g**2.

    Args:
      network: F, called (x [*B, D], t [*B], cond) -> [*B, D].
      kind: what F predicts: a name in PARAMETERISATIONS, or a Parameterisation.
      level: noise levels [*B], sigma > 0.
      x0: data [*B, D].
      eps: standard normal noise [*B, D].
      cond: conditioning for the network.
      coefficient: lambda as a function of the level, such as lambda level: diffusion_squared(schedule, level.t);
        None: sigma**2.
      c_noise: the network's noise input as a function of the level; None takes the kind's own.

    Returns:
      Loss per example, [*B].

    Raises:
      KeyError: unknown kind.
      ValueError: eps or the network's output is not shaped like x0.

    Reference: Song et al. 2021, arXiv:2011.13456, eq. 7.
    """

    def weigh(level: Level) -> Any:
        if coefficient is None:
            return _snr(level)
        return coefficient(level) * jnp.exp(2.0 * level.half_logsnr - 2.0 * level.log_sigma)

    return denoising_loss(network, kind, level, x0, eps, cond, weight=weigh, c_noise=c_noise)
