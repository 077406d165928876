"""DoF as a policy on data of teams, with labelled presets.

  jaxdiff train --config=dof_policy --config.env=mpe-tag --config.dataset=mpe-tag-medium

`code` has the numbers of the released configs (github.com/xmu-rl-3dv/DoF), but for the gradient of Q, which that code
cuts off. `default` is for a CPU.
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
        raise unknown_name("preset of dof_policy", preset, PRESETS)
    config = base_config("dof_policy")
    config.env, config.dataset = "mpe-spread", "mpe-spread-medium"
    config.eval_episodes = 1000  # [code] 5 to 10
    if preset == "code":
        use_code(config)
    else:
        use_default(config)
    return config


def use_code(config: ConfigDict) -> None:
    """The released policy: 100 noise levels whatever its config says, three layers of 256, twin critics.

    Its betas run from 1e-4 to 0.02, so that noise at t = 1 still holds 0.6 of the action; here it is vp, which ends in
    noise alone.
    """
    config.model.policy.num_levels = config.model.policy.num_steps = 100
    config.hparams.max_grad_norm = 0.5
    config.batch_size = 1024
    config.num_updates = 30_000
    config.eval_interval = config.checkpoint_interval = 5_000


def use_default(config: ConfigDict) -> None:
    """A CPU; as diffusion_ql's default. Not tuned."""
    config.normalise_obs = True
    config.normalise_reward = True
    config.hparams.discount_factor = 0.95  # OMAR: episodes of 25 steps
    config.hparams.polyak = 0.01
    config.hparams.q_start = 2000.0
    config.model.policy.hidden = config.model.critic.hidden = (256, 256)
    config.model.critic.layer_norm = True
    config.hparams.lr = config.hparams.critic_lr = 1e-3
    config.num_updates = 20_000
    config.eval_interval = config.checkpoint_interval = 5_000
    anneal_over_run(config)


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}


def sweep_value_factor() -> Iterator[dict[str, Any]]:
    """What the agents' values make together."""
    for value_factor in ("own", "vdn", "qmix", "central"):
        yield {"model.value_factor": value_factor}
