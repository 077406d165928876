"""How far guidance by a value is from the distribution it stands for, on plans where that is known in closed form.

  python -m experiments.studies.value_guidance [--horizon=8] [--out=FILE.md]

Plans x = (s_0, u_0, ..., s_{H-1}, u_{H-1}) of a double integrator with Gaussian start and Gaussian actions follow
N(m, C), so the denoiser is linear and exact. The return J(x) = -(x - g)' Q (x - g) / 2 counts states and actions. A
guided planner stands for p(x) exp(w J(x)), which is N(m*, C*) with C* = (C^-1 + w Q)^-1 and m* = m + w C* Q (g - m):
with a known start, the plan of the linear-quadratic regulator.

Everything compared is affine in x and in the noise, so the mean of all samples is what the sampler makes of the mean of
x_T without noise: nothing is estimated from samples. Chains start at the mean alpha m*, so no error is the start's.

Three values of the noisy plan x_t, of which x0 has the posterior N(x0_hat, P):

  exact       log E[exp(w J(x0)) | x_t]: with its gradient in the score, the guided chain is the exact one
  regression  E[J(x0) | x_t] = J(x0_hat) - tr(Q P) / 2, what a network regressed on returns of noisy plans learns
  noisy       J(x_t), the return read off the noisy plan

What to expect. w E[J | x_t] is the first term in w of log E[exp(w J) | x_t], so with the regression value the mean is
off by O(w**2), and with J(x_t) by O(w). J being quadratic, the gradients of E[J | x_t] and of J(x0_hat) are equal: dps
is here the regression value, and with P in its value the exact one. With the score's gain (`score_gain`) and the exact
value the mean is right for any number of steps K, since an exact guided denoiser moves alpha m* to alpha' m* in any
step; the covariance is right up to O(1 / K). Guidance by the variance of a step (`posterior_gain`, `mean_gradient`,
`guide_before`) agrees with that up to O(1 / K), an order that shows fully with thousands of calls only. In that limit
two gradient steps before each call guide by 2 w, so here they are given w / 2.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff import diffusion
from jaxdiff.types import Array

SCALES = (0.1, 0.3, 1.0, 3.0)  # w of the table
SMALL = (0.01, 0.02)  # w from which the order in w is taken
CALLS = (32, 64, 128, 256)  # K, each twice the last: differences of the last three give the order in 1 / K
ROUNDING = 1e-8  # errors below this share of the shift m* - m count as none

Name = tuple[str, str]  # value, form
Value = Callable[[Array, diffusion.Level], Array]


class Problem(NamedTuple):
    """Gaussian plans of n = 3 H numbers and a quadratic return."""

    mean: np.ndarray  # [n] m
    cov: np.ndarray  # [n, n] C, which may be singular
    goal: np.ndarray  # [n] g
    cost: np.ndarray  # [n, n] Q


def double_integrator(horizon: int, *, time_step: float = 0.3, start_std: float = 0.3) -> Problem:
    """s = (position, velocity), s' = (position + dt velocity, velocity + dt u) with u ~ N(0, 1), to be brought to 0."""
    step, push = np.array([[1.0, time_step], [0.0, 1.0]]), np.array([0.0, time_step])
    start, state = np.array([-1.0, 0.5]), np.zeros((2, horizon + 2))  # of (start, actions) in order
    state[:, :2] = np.eye(2)
    plan = []
    for h in range(horizon):
        action = np.eye(horizon + 2)[2 + h]
        plan += [*state, action]
        state = step @ state + np.outer(push, action)
    of_sources = np.stack(plan)  # [3 H, 2 + H]
    std = np.r_[start_std, start_std, np.ones(horizon)]
    cost = np.diag(np.tile([1.0, 0.1, 0.1], horizon))
    mean = of_sources @ np.r_[start, np.zeros(horizon)]
    return Problem(mean, of_sources @ np.diag(std**2) @ of_sources.T, np.zeros(3 * horizon), cost)


def tilted(problem: Problem, w: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of p(x) exp(w J(x)) / Z."""
    m, cov, goal, cost = problem
    spread = np.linalg.solve(np.eye(len(m)) + w * cov @ cost, cov)
    return m + w * spread @ cost @ (goal - m), spread


class Model:
    """What is known of x0 given x_t, in the eigenbasis of C."""

    def __init__(self, problem: Problem) -> None:
        variances, basis = np.linalg.eigh(problem.cov)
        self.variances, self.basis = np.maximum(variances, 0.0), basis
        self.problem = problem

    def denoise(self, x: Array, level: diffusion.Level) -> Array:
        """x0_hat = m + alpha C (alpha**2 C + sigma**2)^-1 (x - alpha m)."""
        gain = level.alpha * self.variances / (level.alpha**2 * self.variances + level.sigma**2)
        x0_hat: Array = self.problem.mean + self.basis @ (gain * (self.basis.T @ (x - level.alpha * self.problem.mean)))
        return x0_hat

    def cov(self, level: diffusion.Level) -> Array:
        """P = C sigma**2 (alpha**2 C + sigma**2)^-1."""
        left = self.variances * level.sigma**2 / (level.alpha**2 * self.variances + level.sigma**2)
        return (self.basis * left[None]) @ self.basis.T

    def gain(self, x0: Array) -> Array:
        """J(x0)."""
        away = x0 - self.problem.goal
        return -0.5 * away @ (self.problem.cost @ away)

    def log_mean_exp(self, x0_hat: Array, level: diffusion.Level, w: Array) -> Array:
        """log E[exp(w J)] under N(x0_hat, P), without what does not depend on x0_hat."""
        cost, away = w * self.problem.cost, x0_hat - self.problem.goal
        return -0.5 * away @ (cost @ jnp.linalg.solve(jnp.eye(len(away)) + self.cov(level) @ cost, away))

    def values(self, w: Array) -> dict[str, tuple[Value, Any]]:
        """name -> (value of x_t, its scale)."""
        return {
            "exact": (lambda x, level: self.log_mean_exp(self.denoise(x, level), level, w), 1.0),
            "regression": (lambda x, level: self.gain(self.denoise(x, level)), w),
            "noisy": (lambda x, level: self.gain(x), w),
        }


Guided = tuple[diffusion.Denoiser, diffusion.Projection | None]


def forms(model: Model, table: diffusion.Table, w: Array) -> dict[Name, Guided]:
    """(value, form) -> (denoiser, hook)."""
    gain = diffusion.posterior_gain(table)
    chosen: dict[Name, Guided] = {}
    for name, (value, scale) in model.values(w).items():
        chosen |= {
            (name, "score_gain"): (diffusion.value_gradient(model.denoise, value, scale), None),
            (name, "posterior_gain"): (diffusion.value_gradient(model.denoise, value, scale, gain=gain), None),
            (name, "mean_gradient"): (diffusion.mean_gradient(model.denoise, value, table, scale), None),
        }
        for n, form in ((1, "guide_before"), (2, "guide_before twice, w / 2")):
            chosen[name, form] = model.denoise, diffusion.guide_before(value, table, scale / n, num_steps=n)

    def with_cov(x: Array, level: diffusion.Level) -> Array:
        return diffusion.dps(model.denoise, lambda x0: model.log_mean_exp(x0, level, w))(x, level)

    chosen["J(x0_hat)", "dps"] = diffusion.dps(model.denoise, model.gain, w), None
    chosen["J(x0_hat) and P", "dps"] = with_cov, None
    return chosen


def sampled_means(
    problem: Problem,
    calls: int,
    scales: Sequence[float],
    names: Sequence[Name] | None = None,
    jit: Callable[..., Any] = jax.jit,
) -> dict[Name, np.ndarray]:
    """Means [W, n] of DDPM with so many calls, guided by each scale, of the named forms or of all. Needs x64."""
    model = Model(problem)
    options: dict[str, Any] = {"temperature": 0.0, "unroll": False}

    def means(w: Array, target: Array) -> dict[Name, Array]:
        table = diffusion.ddpm(diffusion.grid_levels(diffusion.vp(), calls))
        start, key = table.level.alpha[0] * target, jax.random.key(0)
        return {
            name: diffusion.sample(denoise, table, start, key, project=hook, **options)
            for name, (denoise, hook) in forms(model, table, w).items()
            if names is None or name in names
        }

    targets = jnp.asarray([tilted(problem, w)[0] for w in scales])
    return {name: np.asarray(found) for name, found in jit(jax.vmap(means))(jnp.asarray(scales), targets).items()}


def sampled_cov(problem: Problem, calls: int, w: float) -> np.ndarray:
    """Covariance [n, n] of DDPM guided by the exact value with the score's gain: M C M' + s**2 per row. Needs x64."""
    model, n = Model(problem), len(problem.mean)
    table = diffusion.ddpm(diffusion.grid_levels(diffusion.vp(), calls))
    value, scale = model.values(jnp.asarray(w))["exact"]
    guided = diffusion.value_gradient(model.denoise, value, scale)
    by_row = jax.vmap(guided, (None, 0))
    points = jnp.concatenate([jnp.zeros((1, n)), jnp.eye(n)])
    starts = diffusion.Level(*(leaf[:-1] for leaf in table.level))
    x0_hat = np.asarray(jax.jit(jax.vmap(by_row, (0, None)))(points, starts))  # [1 + n, K, n]
    keep, pull, noise = (np.asarray(leaf) for leaf in (table.anchor, table.slopes[:, 0], table.noise))
    cov = np.eye(n)
    for k in range(calls):
        step = keep[k] * np.eye(n) + pull[k] * (x0_hat[1:, k] - x0_hat[0, k]).T
        cov = step @ cov @ step.T + noise[k] ** 2 * np.eye(n)
    return cov


def errors_of(problem: Problem, means: np.ndarray, scales: Sequence[float]) -> np.ndarray:
    """|mean - m*| / |m* - m| of means [..., W, n], with the optimum m* of each scale."""
    targets = np.stack([tilted(problem, w)[0] for w in scales])
    return np.asarray(np.linalg.norm(means - targets, axis=-1) / np.linalg.norm(targets - problem.mean, axis=-1))


def order(x: Sequence[float], y: np.ndarray) -> float | None:
    """Slope of log y against log x; None where y is nothing but rounding."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if np.min(y) > ROUNDING else None


class Row(NamedTuple):
    """What is found of one form."""

    errors: np.ndarray  # [len(SCALES)] at the most calls, see `errors_of`
    coarse: float  # the same with the fewest calls, at w = 1
    in_scale: float | None  # a, where the mean is off by O(w**a) in the limit of many steps
    in_calls: float | None  # b, where that limit is reached like O(1 / K**b), at w = 1


def measure(problem: Problem) -> dict[Name, Row]:
    """Errors and orders of every form. Runs in float64."""
    scales = (*SMALL, *SCALES)
    with jax.enable_x64(True):
        found = [sampled_means(problem, K, scales) for K in CALLS]
    rows = {}
    for name in found[0]:
        means = np.stack([by_name[name] for by_name in found])  # [len(CALLS), W, n]
        limit = errors_of(problem, 2.0 * means[-1] - means[-2], scales)  # without the term in 1 / K
        steps = np.linalg.norm(np.diff(means[-3:, scales.index(1.0)], axis=0), axis=-1)
        in_scale = None if name[0] in ("exact", "J(x0_hat) and P") else order(SMALL, limit[:2] * SMALL)
        in_calls = order([1.0 / K for K in CALLS[-2:]], steps)
        errors = errors_of(problem, means, scales)
        rows[name] = Row(errors[-1, len(SMALL) :], float(errors[0, scales.index(1.0)]), in_scale, in_calls)
    return rows


def cov_errors(problem: Problem, calls: Sequence[int] = CALLS, w: float = 1.0) -> np.ndarray:
    """[len(calls)] relative error of the exact value's covariance, Frobenius. Runs in float64."""
    target = tilted(problem, w)[1]
    with jax.enable_x64(True):
        found = np.stack([sampled_cov(problem, K, w) for K in calls])
    return np.asarray(np.linalg.norm(found - target, axis=(-2, -1)) / np.linalg.norm(target))


def report(problem: Problem) -> str:
    """Two markdown tables and what is in them."""
    lines = [
        f"Error of the guided mean in percent of |m* - m|, with K = {CALLS[-1]} calls where no K is named; its order",
        "a in w for many calls, and the order b in 1 / K at which that limit is reached:",
        "",
        f"| value | form | {' | '.join(f'w = {w:g}' for w in SCALES)} | w = 1, K = {CALLS[0]} | a | b |",
        "|:--|:--|" + "--:|" * (len(SCALES) + 3),
    ]
    for (value, form), row in measure(problem).items():
        errors = " | ".join(f"{100 * error:.2f}" for error in (*row.errors, row.coarse))
        orders = " | ".join("-" if found is None else f"{found:.2f}" for found in (row.in_scale, row.in_calls))
        lines.append(f"| {value} | {form} | {errors} | {orders} |")
    errors = " | ".join(f"{100 * error:.1f}" for error in cov_errors(problem))
    lines += [
        "",
        "Error of the covariance in percent of |C*|, exact value, score_gain, w = 1:",
        "",
        f"| K | {' | '.join(map(str, CALLS))} |",
        "|:--|" + "--:|" * len(CALLS),
        f"| error | {errors} |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints the tables and, with --out, writes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--horizon", type=int, default=8)
    parser.add_argument("--out", type=Path, help="markdown file to write")
    flags = parser.parse_args()
    text = report(double_integrator(flags.horizon))
    print(text)
    if flags.out:
        flags.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
