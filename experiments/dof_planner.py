"""DoF as a planner on data of teams, with labelled presets.

  jaxdiff train --config=dof_planner --config.env=mpe-tag --config.dataset=mpe-tag-expert

`code` has the numbers of the released config for spread (DoF_Trajectory/cfg of github.com/xmu-rl-3dv/DoF), which are
madiff's but for 100,000 steps of Adam, each on the mean gradient of two batches of 32 as there. `default` is madiff's,
so that the two differ by what agents know of one another alone.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments.madiff import use_code, use_small_planner
from jaxdiff.cli.settings import base_config
from jaxdiff.suggest import unknown_name

PRESETS = ("default", "code")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config: default or code; see the comments at each line."""
    if preset not in PRESETS:
        raise unknown_name("preset of dof_planner", preset, PRESETS)
    config = base_config("dof_planner")
    config.env, config.dataset = "mpe-spread", "mpe-spread-expert"
    config.eval_episodes = 1000  # [code] 5 to 10
    if preset == "code":
        use_code(config)
        config.num_updates = 100_000  # [code] n_train_steps
        config.eval_interval = config.checkpoint_interval = 10_000
    else:
        use_small_planner(config)
    return config


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}


def sweep_noise_factor() -> Iterator[dict[str, Any]]:
    """Both factors that leave agents to themselves."""
    for noise_factor in ("concat", "wconcat"):
        yield {"model.noise_factor": noise_factor}
