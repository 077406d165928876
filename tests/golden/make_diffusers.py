"""Makes diffusers.npz: trajectories of Hugging Face diffusers' schedulers on a Gaussian mixture's exact denoiser.

    pip install diffusers==0.42.1 torch==2.13.0 numpy==2.4.6        # CPU is enough; nothing is downloaded
    python tests/golden/make_diffusers.py

Seeds: x_T from numpy's default_rng(4321), noise from default_rng(1234), both rounded to float32.
"""

from pathlib import Path

import diffusers
from diffusers.schedulers import scheduling_ddpm
import numpy as np
import torch

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[1.0, 0.5, -0.2], [-1.0, 0.2, 0.6], [0.1, -0.9, 0.3]])
VARIANCES = np.array([[0.05, 0.1, 0.08], [0.08, 0.04, 0.06], [0.1, 0.06, 0.05]])
STEPS = 10
X_T = np.random.default_rng(4321).standard_normal((4, 3)).astype(np.float32).astype(np.float64)
NOISE = np.random.default_rng(1234).standard_normal((STEPS, 4, 3)).astype(np.float32).astype(np.float64)

DDPM = {"clip_sample": False}
CASES = {
    "ddpm": ("DDPMScheduler", DDPM, {}),
    "ddpm_large": ("DDPMScheduler", DDPM | {"variance_type": "fixed_large", "timestep_spacing": "linspace"}, {}),
    "ddim_0": ("DDIMScheduler", {"clip_sample": False}, {"eta": 0.0}),
    "ddim_half": ("DDIMScheduler", {"clip_sample": False}, {"eta": 0.5}),
    "dpmpp_1": ("DPMSolverMultistepScheduler", {"solver_order": 1}, {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"solver_order": 2}, {}),
    "dpmpp_2m_full": ("DPMSolverMultistepScheduler", {"solver_order": 2, "lower_order_final": False}, {}),
    "flow": ("FlowMatchEulerDiscreteScheduler", {}, {}),
}


def posterior_mean(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """E[x0 | x_t] of the mixture."""
    variance = alpha**2 * VARIANCES + sigma**2
    residual = x[:, None] - alpha * MEANS
    log_weight = np.log(WEIGHTS) - 0.5 * np.sum(residual**2 / variance + np.log(variance), axis=-1)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    means = MEANS + alpha * VARIANCES / variance * residual
    return np.sum(weight[..., None] * means, axis=1)


def coefficients(scheduler, index: int, t) -> tuple[float, float]:
    """(alpha, sigma) at which the network is called."""
    if hasattr(scheduler, "sigmas"):
        sigma = float(scheduler.sigmas[index])
        flow = isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler)
        return (1.0 - sigma, sigma) if flow else ((1.0 + sigma**2) ** -0.5, sigma * (1.0 + sigma**2) ** -0.5)
    alpha_bar = float(scheduler.alphas_cumprod[int(t)])
    return alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5


def trajectory(name: str, options: dict, step_options: dict) -> dict[str, np.ndarray]:
    scheduler = getattr(diffusers, name)(**options)
    scheduler.set_timesteps(STEPS)
    draws = iter(NOISE)
    scheduling_ddpm.randn_tensor = lambda *args, **kwargs: torch.tensor(next(draws))
    x, states, levels = X_T, [X_T], []
    for index, t in enumerate(scheduler.timesteps):
        alpha, sigma = coefficients(scheduler, index, t)
        x0 = posterior_mean(x, alpha, sigma)
        eps = (x - alpha * x0) / sigma
        output = eps - x0 if alpha + sigma == 1.0 else eps
        noise = {"variance_noise": torch.tensor(NOISE[index])} if step_options.get("eta") else {}
        x = scheduler.step(torch.tensor(output), t, torch.tensor(x), **step_options, **noise).prev_sample.numpy()
        states.append(x)
        levels.append((alpha, sigma))
    return {"x": np.stack(states), "alpha": np.array([a for a, _ in levels]), "sigma": np.array([s for _, s in levels])}


if __name__ == "__main__":
    arrays = {f"{case}/{k}": v for case, spec in CASES.items() for k, v in trajectory(*spec).items()}
    np.savez_compressed(
        Path(__file__).with_name("diffusers.npz"),
        weights=WEIGHTS, means=MEANS, variances=VARIANCES, noise=NOISE, **arrays,
    )  # fmt: skip
