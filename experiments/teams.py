"""Methods for teams on data of the particle tasks, four seeds each: the runs behind docs/teams.md.

  jaxdiff sweep --config=teams:spread-medium:madiff --sweep=seed
  python -m experiments.studies.teams --out=runs/teams            # all of them, and the tables

Each method runs with its `default` preset, those of one agent under agents=independent. What is set here is the same
for all, and none was tuned on these data. The data and the prey are jaxdiff's own (docs/mpe.md): scores compare with
one another, and in `tag` with no paper's.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments.results import WARMUP_SHARE, set_widths
from jaxdiff.cli.config import load
from jaxdiff.suggest import unknown_name

QUALITIES = ("expert", "medium", "replay")
DATASETS = tuple(f"{task}-{quality}" for task in ("spread", "tag", "world") for quality in QUALITIES)
COMPARED = ("bc", "diffusion_bc", "dom2", "madiff", "dof_policy", "dof_planner", "mac_flow", "td3_bc", "omar")
PLANNERS = ("madiff", "dof_planner")
NUM_UPDATES, BATCH_SIZE, WIDTH, EVAL_EPISODES = 5000, 256, 64, 1000
PLAN_BATCH, PLAN_CALLS = 32, 5  # of the planners: stretches per update, network calls per plan
DISCOUNT_FACTOR = 0.95  # OMAR, arXiv:2111.11188: episodes are of 25 steps


def get_config(which: str = "spread-medium:madiff") -> ConfigDict:
    """DATASET:METHOD."""
    dataset, _, method = which.partition(":")
    if dataset not in DATASETS:
        raise unknown_name("dataset of teams", dataset, DATASETS)
    if method not in COMPARED:
        raise unknown_name("method of teams", method, COMPARED)
    config = load(method)
    config.env, config.dataset = f"mpe-{dataset.partition('-')[0]}", f"mpe-{dataset}"
    config.num_updates, config.eval_episodes = NUM_UPDATES, EVAL_EPISODES
    config.eval_interval = config.checkpoint_interval = NUM_UPDATES // 5
    config.record_episodes = 0
    if method in PLANNERS:
        config.batch_size, config.model.planner.num_steps = PLAN_BATCH, PLAN_CALLS
        config.hparams.ema_start = NUM_UPDATES / 10.0
        config.eval_interval = NUM_UPDATES  # acting is dear: a plan of everybody in each step
        return config
    config.batch_size, config.normalise_obs = BATCH_SIZE, True
    set_widths(config.model, WIDTH)
    for key, value in {"discount_factor": DISCOUNT_FACTOR, "polyak": 0.01}.items():
        if key in config.hparams:
            config.hparams[key] = value
    if "q_start" in config.hparams:
        config.hparams.q_start = float(NUM_UPDATES // WARMUP_SHARE)
    return config


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}
