"""Decision Diffuser: plans of states under conditions, actions by inverse dynamics, with labelled presets.

  jaxdiff train --config=decision_diffuser                         # pointmaze-umaze, conditioned on returns
  jaxdiff eval RUN --sweep=hparams.guidance_scale=0,1,1.2,2 --sweep=hparams.target_return=0.3,0.6,0.9
  jaxdiff train --config=decision_diffuser:rooms                   # regions to visit and to avoid, composed later
  jaxdiff train --config=decision_diffuser:paper --config.dataset=FILE.hdf5 --config.env=gymnasium-Hopper-v5

`paper` and `code` are Ajay et al. 2023 (arXiv:2211.15657) on locomotion, as printed and as released; `default` and
`rooms` are small enough for two CPU cores. Published, table 1 there: the nine locomotion tasks of D4RL average 81.8,
hopper-medium 79.3.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import anneal_over_run, base_config

PRESETS = ("default", "hopper", "rooms", "paper", "code")


def get_config(preset: str = "default") -> ConfigDict:
    """The preset's config; see the comments at each difference."""
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r} of decision_diffuser; known: {', '.join(PRESETS)}.")
    config = base_config("decision_diffuser")
    if preset in ("paper", "code"):
        use_published(config, preset)
        return config
    use_small(config)
    if preset == "rooms":
        use_rooms(config)
    elif preset == "hopper":
        use_hopper(config)
    return config


def use_published(config: ConfigDict, preset: str) -> None:
    """Locomotion; a plan in every step."""
    config.model.planner.bias = "torch"
    config.model.planner.schedule = "cosine_betas"
    # Printed: 100 noise levels, 20 observations of history, 512 hidden units and two million updates.
    if preset == "paper":
        config.model.planner.num_levels = config.model.planner.num_steps = 100
        config.model.history = 20
        config.model.inverse_hidden = (512, 512)
    config.batch_size = 64  # [code] 32, gradients of two added up
    config.num_updates = 2_000_000 if preset == "paper" else 1_000_000
    config.eval_interval = config.checkpoint_interval = 50_000
    config.eval_episodes = 16


def use_small(config: ConfigDict) -> None:
    """The U maze on a CPU. Every line departs from the code, and says why."""
    # A smaller network that sees four steps as one token; 20 noise levels.
    planner = config.model.planner
    planner.width, planner.mults, planner.horizon, planner.patch = 32, (1, 2, 4), 64, 4
    planner.num_levels = planner.num_steps = 20
    config.model.normaliser = "limits"
    # An episode here is 300 steps and never terminates: no penalty, and a plan serves for eight steps.
    config.model.act.replan_period = 8
    config.model.termination_penalty = 0.0
    config.hparams.lr = 1e-3
    config.hparams.ema_start = 500.0
    config.batch_size, config.num_updates = 32, 15_000
    config.eval_interval = config.checkpoint_interval = 2000
    anneal_over_run(config)


def use_hopper(config: ConfigDict) -> None:
    """Real MuJoCo data, as `default` but for what follows; name the file with --config.dataset."""
    config.env = "gymnasium-Hopper-v5"
    # One step a token: four are 44 numbers, more than the network has channels.
    config.model.planner.horizon, config.model.planner.mults, config.model.planner.patch = 32, (1, 2), 1
    # Plans of a small network that predicts noise do not continue the present: docs/planners.md.
    config.model.planner.kind = "x0"
    config.model.normaliser = "limits"  # exact at the ends
    config.model.act.replan_period = 4
    config.eval_episodes = 16


def use_rooms(config: ConfigDict) -> None:
    """Regions to visit or to avoid; one plan per episode that must be long enough for two of them."""
    config.env, config.dataset = "rooms-and", "rooms"
    config.model.conditions = ("regions",)
    config.model.planner.horizon = 160  # the way from the start to the north takes 110 to 140 steps
    config.model.padding = "none"
    config.model.act.control, config.model.act.replan_period = "pd", 0
    config.model.visit = ("south", "east")  # those of rooms-and; any others when evaluating
    config.hparams.act_temperature = 0.1  # docs/planners.md: both regions in 54 % of episodes, at 0.5 in 18 %


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}
