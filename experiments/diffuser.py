"""Diffuser: plans by denoising whole trajectories, with five labelled presets.

  jaxdiff train --config=diffuser                                  # pointmaze-umaze, followed by the PD controller
  jaxdiff plan RUN --html=plans.html                               # look at the plans
  jaxdiff eval RUN --set model.act.control=actions                 # the same model executing its own actions
  jaxdiff train --config=diffuser:gym --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5

`umaze`, `medium`, `large` and `gym`, `halfcheetah` hold the numbers of the released code of Janner et al. 2022
(arXiv:2205.09991); `default` is small enough for two CPU cores. Published, D4RL's maze2d, PD controller: 113.9 +- 3.1,
121.5 +- 2.7, 123.0 +- 6.4 on umaze, medium, large (table 1 there); on multi-goal mazes 128.9, 127.2, 132.1. With the
diffused actions in place of the controller: 6.3, 13.5, 6.3 (Chen et al. 2024, arXiv:2407.01392, table 1). Different
from the code in all presets: one Adam for each network in the place of two gradients added up, so a batch of 64 stands
for 32 twice; the value is trained beside the model in the place of a run of its own.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config

# (horizon, noise levels), Janner et al. 2022, released configs.
MAZES = {"umaze": (128, 64), "medium": (256, 256), "large": (384, 256)}
PRESETS = ("default", *MAZES, "gym", "halfcheetah")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config; see the comments at each difference."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r} of diffuser; known: {', '.join(PRESETS)}.")
    config = base_config("diffuser")
    config.model.planner.bias = "torch"
    if preset in ("gym", "halfcheetah"):
        use_gym(config, preset)
        return config
    size = "umaze" if preset == "default" else preset
    use_maze(config, size)
    if preset == "default":
        use_default(config)
    return config


def use_maze(config: ConfigDict, size: str) -> None:
    """A maze of the released code: the goal is inpainted, one plan per episode, a controller follows it."""
    config.env = config.dataset = f"pointmaze-{size}"
    planner = config.model.planner
    planner.horizon, planner.num_levels = MAZES[size]
    planner.num_steps = planner.num_levels
    planner.mults = (1, 4, 8)
    planner.clip = True
    config.model.normaliser = "limits"
    config.model.padding = "none"
    config.model.reach_goal = True
    config.model.value, config.model.guidance = False, "none"
    config.model.act.control, config.model.act.replan_period = "pd", 0
    config.hparams.action_weight = 1.0
    config.batch_size, config.num_updates = 64, 2_000_000
    config.eval_interval = config.checkpoint_interval = 100_000


def use_default(config: ConfigDict) -> None:
    """The U maze with a smaller network, in minutes. Every line departs from the code, and says why."""
    # Four steps make one token of the network: fewer and wider tokens are what a CPU is quick with.
    config.model.planner.patch, config.model.planner.mults = 4, (1, 2, 4)
    # Few updates want large steps that end small, and an average that forgets the start.
    config.hparams.lr = 1e-3
    config.hparams.ema_start = 500.0
    config.batch_size, config.num_updates = 32, 15_000
    config.eval_interval = config.checkpoint_interval = 2000
    anneal_over_run(config)


def use_gym(config: ConfigDict, preset: str) -> None:
    """Locomotion of the released code: plans are ranked and steered by a value, and made anew in every step."""
    # [code] halfcheetah plans four steps, with attention between them.
    config.model.planner.horizon = 4 if preset == "halfcheetah" else 32
    config.model.planner.mults = (1, 4, 8) if preset == "halfcheetah" else (1, 2, 4, 8)
    config.model.planner.attention = preset == "halfcheetah"
    config.model.act.search.num_candidates = 64
    config.model.value_scale = False
    # [code] hopper-medium-expert 1e-4 and 4, halfcheetah 1e-3 and 4, elsewhere 0.1 and 2.
    config.hparams.guidance_scale, config.hparams.guidance_stop = (1e-3, 4.0) if preset == "halfcheetah" else (0.1, 2.0)
    config.batch_size, config.num_updates = 64, 1_000_000
    config.eval_interval = config.checkpoint_interval = 50_000
    config.eval_episodes = 16


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}
