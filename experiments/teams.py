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
NUM_UPDATES, BATCH_SIZE, WIDTH, LR, EVAL_EPISODES = 2000, 256, 64, 1e-3, 1000
PLAN_BATCH, PLAN_CALLS, HORIZON = 32, 5, 4  # of the planners: stretches per update, network calls and steps per plan
X0 = ("diffusion_bc", "dof_policy")  # small networks that predict noise have half the score by then (docs/teams.md)
PLAN_EPISODES = 250  # of each seed: acting is dear, a plan of everybody's in each step
CQL_SAMPLES = 4  # uniform actions in the penalties: of ten an update of DOM2 takes twice as long
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
        planner = config.model.planner
        config.batch_size, planner.num_steps, planner.horizon = PLAN_BATCH, PLAN_CALLS, HORIZON
        config.hparams.ema_start, config.model.ema_period = NUM_UPDATES / 10.0, 1
        config.eval_interval, config.eval_episodes = NUM_UPDATES, PLAN_EPISODES
        return config
    config.batch_size, config.normalise_obs = BATCH_SIZE, True
    set_widths(config.model, WIDTH)
    same = {"lr": LR, "critic_lr": LR, "discount_factor": DISCOUNT_FACTOR, "polyak": 0.01, "ema_start": 0.0}
    for key, value in (same | {"q_start": float(NUM_UPDATES // WARMUP_SHARE)}).items():
        if key in config.hparams:
            config.hparams[key] = value
    for key, value in {"ema_period": 1, "cql_samples": CQL_SAMPLES}.items():
        if key in config.model:
            config.model[key] = value
    if method in X0:
        config.model.policy.kind = "x0"
    return config


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}
