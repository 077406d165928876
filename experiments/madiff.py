"""MADiff on data of teams, with labelled presets.

  jaxdiff train --config=madiff --config.env=mpe-tag --config.dataset=mpe-tag-expert
  jaxdiff train --config=madiff:code --config.dataset=FOLDER ...

`code` has the numbers of the released configs for the particle tasks (exp_specs/mpe of github.com/zbzhu99/madiff): a
model of 60 million parameters, 200 noise levels, a million steps. Each step there is one of Adam, on the mean gradient
of two batches of 32 (diffuser/utils/training.py). `default` departs from them line by line, for a CPU.
arXiv:2305.17330 reports, decentralised, normalised with OMAR's prey and data: spread expert 95.0, medium 64.9,
medium-replay 30.3; tag 120.9, 77.2, 62.3; centralised: spread 116.7, 58.2, 42.2; tag 167.6, 132.9, 95.0.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config
from jaxdiff.suggest import unknown_name

PRESETS = ("default", "code")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config: default or code; see the comments at each line."""
    if preset not in PRESETS:
        raise unknown_name("preset of madiff", preset, PRESETS)
    config = base_config("madiff")
    config.env, config.dataset = "mpe-spread", "mpe-spread-expert"
    config.eval_episodes = 1000  # [code] 10, whose standard error is 6 to 13 points
    if preset == "code":
        use_code(config)
    else:
        use_small_planner(config)
    return config


def use_code(config: ConfigDict) -> None:
    """The released configs of the particle tasks; the algorithm's own defaults are theirs."""
    config.model.planner.bias = "torch"
    config.model.planner.schedule = "cosine_betas"
    config.batch_size = 2 * 32  # [code] gradient_accumulate_every * batch_size, for each step of Adam
    config.num_updates = 1_000_000  # [code] n_train_steps
    config.eval_interval = config.checkpoint_interval = 50_000  # [code] save_freq; it scores afterwards


def use_small_planner(config: ConfigDict) -> None:
    """A CPU. Every line departs from the code, and says why."""
    # A smaller network and a shorter plan; 20 noise levels, 10 calls per plan.
    planner = config.model.planner
    planner.width, planner.mults, planner.horizon = 32, (1, 2), 8
    planner.num_levels, planner.num_steps, planner.sampler = 20, 10, "ddim"
    planner.kind = "x0"  # a small network's noise does not continue the present: docs/planners.md
    planner.tell_known = True  # nor does it find out which agent's present is given: docs/teams.md
    config.model.normaliser = "limits"  # exact at the ends, and quick
    config.hparams.lr = 1e-3
    config.hparams.ema_start = 500.0
    config.batch_size, config.num_updates = 64, 10_000
    config.eval_interval = config.checkpoint_interval = 2_000
    anneal_over_run(config)


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}


def sweep_execution() -> Iterator[dict[str, Any]]:
    """Everyone's observation, one's own with a model of the others, and without one."""
    yield {"model.execution": "centralised"}
    yield {"model.execution": "decentralised"}
    yield {"model.execution": "decentralised", "model.teammates": False}
