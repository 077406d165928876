"""OMAR and MA-CQL on any dataset, with labelled presets.

  jaxdiff train --config=omar --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5
  jaxdiff train --config=omar:paper-spread-medium ...       OMAR on a dataset of the particle tasks
  jaxdiff train --config=omar:macql-spread-medium ...       the same without the search: MA-CQL

`paper` is Pan, Huang, Ma and Xu 2022 (arXiv:2111.11188) as its code is released, with the weights of one dataset, and
`paper-TASK` has those of the others. The code says num_steps = 200,000 and updates once in 100 of them: the published
policies of the particle tasks have learnt from 1000 to 6000 updates. Tasks named spread, tag and world are played in
mpe-TASK on the dataset of that name, which for medium-replay is mpe-TASK-replay; those named halfcheetah want
--config.env and --config.dataset.

The released code scores 10 episodes, which leaves a standard error of 6 to 13 normalised points; here it is 1000.
`default` is one setting for all tasks, with or without agents.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config
from jaxdiff.suggest import unknown_name


class Row(NamedTuple):
    """What the released code sets per dataset."""

    omar_weight: float  # omar_coe
    cql_weight: float  # cql_alpha
    num_updates: int  # num_steps / steps_per_update


# From algorithms/maddpg.py (env_config_map) and main.py of the released code (ling-pan/OMAR).
TASKS: dict[str, Row] = {
    "spread-random": Row(1.0, 0.5, 6000),
    "spread-medium-replay": Row(1.0, 1.0, 2000),
    "spread-medium": Row(1.0, 5.0, 2000),
    "spread-expert": Row(1.0, 5.0, 2000),
    "tag-random": Row(0.9, 0.5, 2000),
    "tag-medium-replay": Row(0.9, 0.5, 1000),
    "tag-medium": Row(0.7, 5.0, 2000),
    "tag-expert": Row(0.9, 5.0, 2000),
    "world-random": Row(1.0, 0.5, 1000),
    "world-medium-replay": Row(0.7, 1.0, 1000),
    "world-medium": Row(0.1, 0.5, 1000),
    "world-expert": Row(0.9, 5.0, 1000),
    "halfcheetah-random": Row(1.0, 1.0, 100_000),
    "halfcheetah-medium-replay": Row(0.9, 5.0, 100_000),
    "halfcheetah-medium": Row(0.7, 1.0, 100_000),
    "halfcheetah-expert": Row(0.5, 5.0, 100_000),
}
LABELS = ("paper", "macql")
PRESETS = ("default", *LABELS, *(f"{label}-{task}" for label in LABELS for task in TASKS))


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config: default, paper, macql, or one of the last two and a task; see the comments."""
    if preset not in PRESETS:
        raise unknown_name("preset of omar", preset, PRESETS)
    config = base_config("omar")  # the algorithm's own defaults are those of the particle tasks
    config.normalise_obs = True  # stands for the batch normalisation that the code's networks begin with
    if preset == "default":
        use_default(config)
        return config
    label, _, task = preset.partition("-")
    config.batch_size = 1024
    use_row(config, task or "spread-medium")
    if task and not task.startswith("halfcheetah"):
        use_particles(config, task)
    if label == "macql":
        config.model.cem_rounds = 0
    return config


def use_row(config: ConfigDict, task: str) -> None:
    """The numbers of one dataset."""
    row = TASKS[task]
    config.hparams.omar_weight, config.hparams.cql_weight = row.omar_weight, row.cql_weight
    config.num_updates = row.num_updates
    config.eval_interval = config.checkpoint_interval = row.num_updates // 10
    config.eval_episodes = 1000
    if task.startswith("halfcheetah"):
        config.batch_size = 256
        config.eval_episodes = 10
        config.model.actor_hidden = config.model.critic_hidden = (256, 256)
        config.hparams.lr = config.hparams.critic_lr = 3e-4
        config.hparams.discount_factor, config.hparams.polyak = 0.99, 0.005
        config.model.cql_policy_samples = 10
        config.model.cem_rounds, config.model.cem_samples, config.model.cem_elites = 2, 20, 5


def use_particles(config: ConfigDict, task: str) -> None:
    """The environment and the dataset of a particle task."""
    name, _, quality = task.partition("-")
    quality = "replay" if quality == "medium-replay" else quality  # the same kind of data: random to medium, in order
    config.env, config.dataset = f"mpe-{name}", f"mpe-{name}-{quality}"


def use_default(config: ConfigDict) -> None:
    """One setting that trains on a CPU. Not tuned: as cql's default, for the same reasons."""
    config.normalise_reward = True  # the penalty is in units of Q
    config.model.actor_hidden = config.model.critic_hidden = (256, 256)
    config.model.critic_layer_norm = True
    config.hparams.lr, config.hparams.critic_lr = 3e-4, 1e-3
    config.hparams.discount_factor = 0.99
    config.hparams.polyak = 0.05
    config.hparams.cql_weight = 1.0
    anneal_over_run(config)


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Five seeds."""
    for seed in range(5):
        yield {"seed": seed}


def sweep_omar_weight() -> Iterator[dict[str, Any]]:
    """From climbing Q to imitating what the search finds."""
    for omar_weight in (0.1, 0.5, 0.7, 0.9, 1.0):
        yield {"hparams.omar_weight": omar_weight}


def sweep_cql_weight() -> Iterator[dict[str, Any]]:
    """How far values are held down off the data."""
    for cql_weight in (0.5, 1.0, 5.0):
        yield {"hparams.cql_weight": cql_weight}
