"""Every policy on three kinds of tasks, four seeds each: the runs behind docs/results.md.

  jaxdiff sweep --config=results:pointmaze:diffusion_ql --sweep=seed
  jaxdiff sweep --config=results:hopper:edp --sweep=seed --config.dataset=hopper_mixed.hdf5
  jaxdiff sweep --config=results:brax:iql --sweep=seed
  python -m experiments.studies.results --out=runs/results        # all of them, and the table

Each policy runs with its `default` preset, the same on every task and tuned on none of them but Diffusion-QL's on
another Hopper file (docs/hopper.md). What a domain sets is listed in DOMAINS and is the same for all policies.

Scores with intervals, and minutes, to expect: docs/results.md. On two busy virtual cores the four seeds of a run took
0.2 to 29 minutes in the maze, 5 to 45 on Hopper and 3 to 26 on brax.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxdiff.cli.config import load
from jaxdiff.suggest import unknown_name


class Domain(NamedTuple):
    """What a kind of task sets, for every policy alike; sized for two CPU cores."""

    env: str
    dataset: str
    width: int  # units of both hidden layers of every network
    batch_size: int
    num_updates: int
    eval_interval: int
    eval_episodes: int


DOMAINS = {
    "pointmaze": Domain("pointmaze-umaze", "pointmaze-umaze", 64, 128, 5000, 500, 64),
    # 200,000 steps of real Hopper-v5 by four agents under action noise: --config.dataset=FILE names the file.
    "hopper": Domain("gymnasium-Hopper-v5", "hopper_mixed.hdf5", 256, 256, 10_000, 1000, 10),
    "brax": Domain("brax-halfcheetah", "brax-halfcheetah-replay", 256, 256, 5000, 500, 8),
}
POLICIES = (
    "bc", "td3_bc", "cql", "iql", "diffusion_bc", "diffusion_ql", "edp", "idql", "ifql", "fql", "fbrac",
    "consistency_ac", "qgpo",
)  # fmt: skip
# The start of the climb on Q and such were set for longer runs; here they come after this share of the run.
WARMUP_SHARE = 6


def get_config(which: str = "pointmaze:diffusion_ql") -> ConfigDict:
    """DOMAIN:POLICY."""
    domain_name, _, policy = which.partition(":")
    if domain_name not in DOMAINS:
        raise unknown_name("domain of results", domain_name, DOMAINS)
    if policy not in POLICIES:
        raise unknown_name("policy of results", policy, POLICIES)
    domain, config = DOMAINS[domain_name], load(policy)
    config.env, config.dataset, config.batch_size = domain.env, domain.dataset, domain.batch_size
    config.num_updates = domain.num_updates
    config.eval_interval = config.checkpoint_interval = domain.eval_interval
    config.eval_episodes = domain.eval_episodes
    set_widths(config.model, domain.width)
    if "q_start" in config.hparams:
        config.hparams.q_start = min(config.hparams.q_start, float(domain.num_updates // WARMUP_SHARE))
    return config


def set_widths(model: ConfigDict, width: int) -> None:
    """Gives every network of the policy two layers of `width` units."""
    for key, value in model.items():
        if isinstance(value, ConfigDict):
            set_widths(value, width)
        elif key == "hidden" or key.endswith("_hidden"):
            model[key] = (width, width)


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds, two for each of two cores."""
    for seed in range(4):
        yield {"seed": seed}
