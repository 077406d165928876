"""MAC-Flow on data of teams, with labelled presets.

  jaxdiff train --config=mac_flow --config.env=mpe-tag --config.dataset=mpe-tag-medium

`reported` has the numbers with which a later comparison trained it (four layers of 512, Adam at 3e-4, batch 64,
discount 0.995, polyak 0.005, weight 3 of the distillation, ten Euler steps); the paper is arXiv:2511.05005. `default`
is smaller, for a CPU.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config
from jaxdiff.suggest import unknown_name

PRESETS = ("default", "reported")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config: default or reported."""
    if preset not in PRESETS:
        raise unknown_name("preset of mac_flow", preset, PRESETS)
    config = base_config("mac_flow")
    config.env, config.dataset = "mpe-spread", "mpe-spread-medium"
    config.eval_episodes = 1000
    if preset == "reported":
        config.batch_size, config.num_updates = 64, 500_000
        config.eval_interval = config.checkpoint_interval = 50_000
        return config
    config.normalise_obs = True
    config.normalise_reward = True
    config.model.policy.hidden = config.model.critic_hidden = (256, 256)
    config.hparams.lr = config.hparams.critic_lr = 1e-3
    config.hparams.discount_factor = 0.95  # OMAR: episodes of 25 steps
    config.hparams.polyak = 0.01
    config.num_updates = 20_000
    config.eval_interval = config.checkpoint_interval = 5_000
    anneal_over_run(config)
    return config


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}


def sweep_bc_weight() -> Iterator[dict[str, Any]]:
    """How close the students stay to the flow."""
    for bc_weight in (0.3, 1.0, 3.0, 10.0):
        yield {"hparams.bc_weight": bc_weight}
