"""Diffusion behaviour cloning on any dataset: the baseline of every diffusion policy.

jaxdiff train --config=diffusion_bc --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config


def get_config() -> ConfigDict:
    """The settings that the `default` preset of diffusion_ql has for its policy, for the same reasons."""
    config = base_config("diffusion_bc")
    config.normalise_obs = True
    config.model.policy.hidden = (256, 256)
    config.hparams.lr = 1e-3
    anneal_over_run(config)
    return config


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Five seeds."""
    for seed in range(5):
        yield {"seed": seed}
