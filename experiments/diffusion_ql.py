"""Diffusion-QL on any dataset, with two labelled presets.

  jaxdiff train --config=diffusion_ql --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5
  jaxdiff train --config=diffusion_ql:paper ...

`paper` is Wang, Hunt and Zhou 2023 (arXiv:2208.06193) in every detail; `default` is one setting for all tasks.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import base_config

PRESETS = ("default", "paper")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config; see the comments at each difference."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r} of diffusion_ql; known: {', '.join(PRESETS)}.")
    config = base_config("diffusion_ql")  # the algorithm's own defaults are the paper's
    if preset == "default":
        use_default(config)
    return config


def use_default(config: ConfigDict) -> None:
    """One setting for all tasks. Every line departs from the paper, and says why."""
    # Joint angles vary by 0.1 and joint speeds by 10: on raw observations the denoiser needs five times the updates.
    config.normalise_obs = True


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Five seeds."""
    for seed in range(5):
        yield {"seed": seed}


def sweep_q_weight() -> Iterator[dict[str, Any]]:
    """The knob that matters most: how far the policy may leave the data."""
    for q_weight in (0.1, 0.3, 1.0, 3.0):
        yield {"hparams.q_weight": q_weight}
