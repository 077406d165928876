"""One-step samplers of the DDIM family, DDPM among them."""

from typing import Any

from jax.typing import ArrayLike
import numpy as np

from jaxdiff.diffusion.schedules import Level, array_namespace
from jaxdiff.diffusion.solvers.table import Table, as_float32


def split_levels(levels: Level) -> tuple[Level, Level]:
    """Levels [K + 1] as (starts, ends) of the K steps."""
    return Level(*(leaf[:-1] for leaf in levels)), Level(*(leaf[1:] for leaf in levels))


def safe_sqrt(x: Any) -> Any:
    """sqrt(max(x, 0)) with zero gradient at 0, where the plain root has none."""
    xp = array_namespace(x)
    positive = x > 0
    return xp.where(positive, xp.sqrt(xp.where(positive, x, 1.0)), 0.0)


def noise_fraction(start: Level, end: Level) -> Any:
    """1 - exp(-2h) with h the gain in log(alpha/sigma): the share of a level's variance that one step redraws."""
    xp = array_namespace(start, end)
    return -xp.expm1(-2.0 * (end.half_logsnr - start.half_logsnr))


def x0_table(levels: Level, anchor: Any, slope: Any, noise: Any, noisy_rows: int) -> Table:
    """A table whose slope is the x0-prediction and that keeps no history: x' = anchor x + slope x0_hat + noise z."""
    xp = array_namespace(levels, anchor, slope, noise)
    start, _ = split_levels(levels)
    zero = xp.zeros_like(xp.asarray(anchor))
    return as_float32(Table(start, zero, zero + 1.0, anchor, slope[:, None], zero + noise, noisy_rows))


def _noisy_rows(levels: Level) -> int:
    """All steps but the last draw noise; the last does too when it stops short of clean data (never a traced choice)."""
    steps = levels.log_sigma.shape[0] - 1
    if array_namespace(levels) is np and np.isfinite(levels.log_sigma[-1]):
        return steps
    return steps - 1


def ddim(levels: Level, *, eta: ArrayLike = 0.0) -> Table:
    """DDIM: x' = alpha' x0_hat + sqrt(sigma'**2 - c**2) eps_hat + c z,  c = eta sigma' sqrt(1 - exp(-2h)).

    eta = 0 is deterministic (equal to DPM-Solver-1 and, on the flow schedule, to Euler); eta = 1 is DDPM with the
    posterior variance (beta tilde). eps_hat is recomputed from the possibly clipped x0_hat.

    Args:
      levels: [K + 1] decreasing noise.
      eta: standard deviation as a fraction of the posterior's, in [0, 1]; may be traced.

    Reference: Song et al. 2021, arXiv:2010.02502, eq. 12 and 16.
    """
    start, end = split_levels(levels)
    c = eta * end.sigma * safe_sqrt(noise_fraction(start, end))
    keep = safe_sqrt(end.sigma**2 - c**2) / start.sigma
    deterministic = array_namespace(eta) is np and np.all(np.asarray(eta) == 0.0)
    return x0_table(levels, keep, end.alpha - keep * start.alpha, c, 0 if deterministic else _noisy_rows(levels))


def ddpm(levels: Level, *, variance: str = "small") -> Table:
    """Ancestral sampling: x' ~ N((sigma'/sigma) exp(-h) x + alpha' (1 - exp(-2h)) x0_hat, variance).

    Args:
      levels: [K + 1] decreasing noise. On the training levels this is the posterior of DDPM exactly.
      variance: "small" for the posterior variance sigma'**2 (1 - exp(-2h)) (beta tilde), "large" for
        sigma**2 (1 - exp(-2h)) (beta). No noise is added in a last step that ends at clean data.

    Raises:
      ValueError: unknown variance.

    Reference: Ho et al. 2020, arXiv:2006.11239, eq. 6-7 and section 3.2.
    """
    if variance not in ("small", "large"):
        raise ValueError(f"variance={variance!r}; allowed: 'small' (beta tilde), 'large' (beta).")
    start, end = split_levels(levels)
    xp = array_namespace(levels)
    fraction = noise_fraction(start, end)
    anchor = end.sigma / start.sigma * xp.exp(start.half_logsnr - end.half_logsnr)
    sigma = end.sigma if variance == "small" else start.sigma
    noise = xp.where(end.sigma > 0, sigma * safe_sqrt(fraction), 0.0)
    return x0_table(levels, anchor, end.alpha * fraction, noise, _noisy_rows(levels))
