"""Variational autoencoders: bounds on log p(x) in nats, per example, from functions of the latent z.

    z = reparameterise(mean, log_std, eps)                   # [*B, Z], mean and log_std from an encoder of x
    bound = elbo(lambda z: log_px(x, z), mean, log_std, eps)                          # maximise its mean
    bound = iwae(log_importance_weight(log_px, log_pz, log_qz, z))                    # z [K, *B, Z]

A diffusion model is a VAE with a fixed encoder and one latent per noise level.
"""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxdiff.types import Array

LogDensity = Callable[[Array], Array]  # z [*B, Z] -> [*B], in nats


def reparameterise(mean: Array, log_std: Array, eps: Array) -> Array:
    """z = mean + exp(log_std) eps: a Gaussian sample that gradients pass through to mean and log_std.

    Args:
      mean: [*B, Z].
      log_std: broadcasts with mean.
      eps: standard normal noise [*B, Z], or [K, *B, Z] for K samples where mean has its leading axis of length 1.

    Reference: Kingma and Welling 2014, arXiv:1312.6114, section 2.4.
    """
    return mean + jnp.exp(log_std) * eps


def gaussian_log_prob(x: Array, mean: ArrayLike = 0.0, log_std: ArrayLike = 0.0) -> Array:
    """log N(x; mean, exp(log_std)**2) summed over the last axis, in nats, [*B]."""
    standard = (x - mean) * jnp.exp(-jnp.asarray(log_std))
    each = -0.5 * (jnp.square(standard) + math.log(2.0 * math.pi)) - log_std
    return jnp.sum(jnp.broadcast_to(each, jnp.shape(x)), axis=-1)


def gaussian_kl(mean: Array, log_std: Array, prior_mean: ArrayLike = 0.0, prior_log_std: ArrayLike = 0.0) -> Array:
    """KL(N(mean, exp(log_std)**2) || N(prior_mean, exp(prior_log_std)**2)) summed over the last axis, in nats, [*B].

    log(s_p / s) + (s**2 + (m - m_p)**2) / (2 s_p**2) - 1/2 in each coordinate

    Args:
      mean: m [*B, Z].
      log_std: log s [*B, Z].
      prior_mean: m_p, broadcasts with mean; scalar 0 by default.
      prior_log_std: log s_p, likewise.

    Reference: Kingma and Welling 2014, arXiv:1312.6114, appendix B.
    """
    log_ratio = log_std - prior_log_std
    distance = (mean - prior_mean) * jnp.exp(-jnp.asarray(prior_log_std))
    # expm1: of two nearly equal Gaussians the sum below is a difference of numbers near 1.
    return 0.5 * jnp.sum(jnp.expm1(2.0 * log_ratio) - 2.0 * log_ratio + jnp.square(distance), axis=-1)


def elbo(log_likelihood: LogDensity, mean: Array, log_std: Array, eps: Array, *, kl_weight: ArrayLike = 1.0) -> Array:
    """Evidence lower bound, one sample and the exact KL to a standard normal prior: log p(x|z) - w KL(q(z|x) || p(z)).

    Its mean over eps is at most log p(x), with equality where q is the posterior. The loss of a VAE is minus its mean.

    Args:
      log_likelihood: z [*B, Z] -> log p(x|z) [*B], x bound.
      mean: of q(z|x), [*B, Z].
      log_std: of q(z|x), [*B, Z].
      eps: standard normal noise [*B, Z].
      kl_weight: w; other than 1 it is a beta-VAE and no bound. May be traced.

    Returns:
      [*B], in nats.

    Reference: Kingma and Welling 2014, arXiv:1312.6114, eq. 7; Higgins et al. 2017 for w.
    """
    return log_likelihood(reparameterise(mean, log_std, eps)) - kl_weight * gaussian_kl(mean, log_std)


def log_importance_weight(log_px: LogDensity, log_pz: LogDensity, log_qz: LogDensity, z: Array) -> Array:
    """log p(x|z) + log p(z) - log q(z|x), [*B], for samples z ~ q(z|x), of which its mean is the ELBO for any prior.

    Where q is the posterior it is log p(x) for every z.

    Args:
      log_px: z -> log p(x|z), x bound.
      log_pz: z -> log p(z).
      log_qz: z -> log q(z|x), x bound.
      z: [*B, Z], usually [K, B, Z].
    """
    return log_px(z) + log_pz(z) - log_qz(z)


def iwae(log_weight: Array) -> Array:
    """The importance-weighted bound of K samples: log mean_k exp(log_weight_k).

    In expectation it grows with K, from the ELBO at K = 1 to log p(x).

    Args:
      log_weight: [K, *B], from `log_importance_weight`.

    Returns:
      [*B], in nats.

    Reference: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """
    return jax.nn.logsumexp(log_weight, axis=0) - math.log(log_weight.shape[0])
