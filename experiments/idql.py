"""IDQL on any dataset, with three labelled presets.

  jaxdiff train --config=idql --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5
  jaxdiff eval DIR --set model.num_candidates=128      # how much selection is worth, on the same weights
  jaxdiff eval DIR --set model.select=weights

`paper` and `code` are Hansen-Estruch et al. 2023 (arXiv:2304.10573) on locomotion, as printed and as released;
`default` is one setting for all tasks. Published, table 1 there: the nine locomotion tasks of D4RL sum to 739.2 (tuned
per task) and 711.6 (one setting).
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config

PRESETS = ("default", "paper", "code")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config; see the comments at each difference."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r} of idql; known: {', '.join(PRESETS)}.")
    config = base_config("idql")
    anneal_over_run(config)
    if preset == "default":
        use_default(config)
        return config
    # In AntMaze: iql_antmaze and hparams.expectile=0.9.
    config.reward_transform = "iql_locomotion"
    config.model.policy.network = "ln_resnet"
    config.model.policy.time_dim = 64
    config.model.policy.clip = "sample"  # [code] the noisy action is clipped in every step
    config.num_updates = 3_000_000
    # Printed: batches of 1024 for the policy and 256 for the critics, 128 candidates (32 in AntMaze).
    config.batch_size, config.model.num_candidates = (1024, 128) if preset == "paper" else (512, 64)
    return config


def use_default(config: ConfigDict) -> None:
    """One setting for all tasks. Every line departs from the paper, and says why; none was tuned for this algorithm."""
    # As in the `default` preset of diffusion_ql, and for the same reasons.
    config.normalise_obs = True
    config.normalise_reward = True
    config.model.policy.hidden = (256, 256)
    config.hparams.lr = config.hparams.critic_lr = config.hparams.value_lr = 1e-3
    # The paper's average spans a thousand of three million updates; a run here has a hundred thousand.
    config.hparams.ema_rate = 0.005
    # Fewer candidates, for speed; more can be asked for when evaluating.
    config.model.num_candidates = 32


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Five seeds."""
    for seed in range(5):
        yield {"seed": seed}


def sweep_expectile() -> Iterator[dict[str, Any]]:
    """The knob that matters most while learning: from the mean of Q over the data's actions towards their best."""
    for expectile in (0.5, 0.7, 0.8, 0.9):
        yield {"hparams.expectile": expectile}
