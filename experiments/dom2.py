"""DOM2 on any dataset, with labelled presets.

  jaxdiff train --config=dom2 --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5
  jaxdiff train --config=dom2:reconstructed-spread-medium ...

Neither the paper's table of hyperparameters (arXiv:2307.01472) nor its code is public, so there is no preset `paper`.
`reconstructed` takes each number from the nearest public source, named beside it, and `reconstructed-TASK` the weight
of the penalty that OMAR's code has for that dataset. Tasks named spread, tag and world are played in mpe-TASK on the
dataset of that name, which for medium-replay is mpe-TASK-replay; those named halfcheetah want --config.env and
--config.dataset.

The paper draws episodes of high return more often. Its thresholds are here those of a later method by the first author
(utils/buffer.py of github.com/lizr16/OM2P), see THRESHOLDS: quantiles, or returns of OMAR's data; none for random data.
They are set where they are quantiles, and in spread, where jaxdiff's data have the returns of OMAR's. In tag and world
jaxdiff's prey is harder to catch, and returns are half as large: there the rest is not set, and all episodes are drawn
alike. With OMAR's data give

  --config.reweight="(200,250,300,350,400)"          tag-expert
  --config.reweight="(100,150,200,250,300)"          tag-medium
  --config.reweight="(75,100,125,150,175)"           world-expert

Halfcheetah draws alike too: that code compares its thresholds there, up to 4000, with sums over 25 of an episode's 1000
steps, which reach none of them. `--config.reweight="()"` draws alike everywhere.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.config import load
from jaxdiff.cli.settings import anneal_over_run, base_config
from jaxdiff.suggest import unknown_name

TASKS = tuple(
    f"{task}-{quality}"
    for task in ("spread", "tag", "world", "halfcheetah")
    for quality in ("random", "medium-replay", "medium", "expert")
)
THRESHOLDS: dict[str, tuple[float | str, ...]] = {  # a quantile twice counts twice
    "spread-expert": (525, 550, 575, 600, 625),
    "spread-medium": (200, 250, 300, 350, 400, 450, 500, 550),
    **dict.fromkeys(
        ("spread-medium-replay", "tag-medium-replay", "world-medium-replay", "world-medium"),
        ("q0.5", "q0.75", "q0.875", "q0.875"),
    ),
}
PRESETS = ("default", "reconstructed", *(f"reconstructed-{task}" for task in TASKS))


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config: default, reconstructed or reconstructed-TASK; see the comments at each line."""
    if preset not in PRESETS:
        raise unknown_name("preset of dom2", preset, PRESETS)
    # The algorithm's own defaults: three layers of 256, mish, Adam at 3e-4 and averages of 0.995 as Diffusion-QL,
    # discount 0.95 and polyak 0.01 as OMAR; five network calls and q_weight 0.5 are ours.
    config = base_config("dom2")
    config.normalise_obs = True  # as OMAR, by batch normalisation
    if preset == "default":
        use_default(config)
        return config
    config.batch_size = 1024  # OMAR
    config.num_updates = 200_000  # ours
    config.eval_interval = config.checkpoint_interval = 20_000
    config.eval_episodes = 1000
    if preset != "reconstructed":
        use_task(config, preset.removeprefix("reconstructed-"))
    return config


def use_task(config: ConfigDict, task: str) -> None:
    """The weight of the penalty and the task, as OMAR's preset has them, and the thresholds of the returns."""
    omar = load(f"omar:paper-{task}")
    config.hparams.cql_weight = omar.hparams.cql_weight
    config.env, config.dataset = omar.env, omar.dataset
    config.reweight = THRESHOLDS.get(task, ())
    if task.startswith("halfcheetah"):
        config.hparams.discount_factor, config.hparams.polyak = 0.99, 0.005  # OMAR
        config.batch_size = 256  # OMAR
        config.num_updates = 1_000_000  # as the first author's later method (lizr16/OM2P)
        config.eval_episodes = 10


def use_default(config: ConfigDict) -> None:
    """One setting that trains on a CPU. Not tuned: as diffusion_ql's default, for the same reasons."""
    config.normalise_reward = True
    config.hparams.discount_factor = 0.99
    config.hparams.polyak = 0.05
    config.hparams.cql_weight = 1.0
    config.hparams.q_start = 4000.0
    config.model.critic_layer_norm = True
    config.model.policy.hidden = config.model.critic_hidden = (256, 256)
    config.hparams.lr = config.hparams.critic_lr = 1e-3
    anneal_over_run(config)


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Five seeds."""
    for seed in range(5):
        yield {"seed": seed}


def sweep_q_weight() -> Iterator[dict[str, Any]]:
    """How far the policy may leave the data."""
    for q_weight in (0.1, 0.5, 1.0, 2.5):
        yield {"hparams.q_weight": q_weight}


def sweep_cql_weight() -> Iterator[dict[str, Any]]:
    """How far values are held down off the data."""
    for cql_weight in (0.5, 1.0, 5.0):
        yield {"hparams.cql_weight": cql_weight}
