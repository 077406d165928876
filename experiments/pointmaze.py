"""Diffusion policies in point mazes, on data that are made on the spot: `jaxdiff demo`'s study, a large one, two mazes.

jaxdiff sweep --config=pointmaze --sweep=demo
jaxdiff sweep --config=pointmaze --sweep=large
jaxdiff sweep --config=pointmaze --sweep=tasks,demo
jaxdiff tune --config=pointmaze --space=shape --sweep=demo --trials=6
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxdiff import points
from jaxdiff.cli.settings import anneal_over_run, base_config


def get_config(env: str = "pointmaze-umaze") -> ConfigDict:
    """Small networks and few updates: learning shows within minutes on two CPU cores."""
    config = base_config("diffusion_ql")
    config.env = config.dataset = env
    config.normalise_obs = config.normalise_reward = True
    config.model.policy.hidden = config.model.critic_hidden = (64, 64)
    config.model.critic_layer_norm = True
    config.model.num_candidates = 8
    config.model.ema_period = 1
    config.model.act_with_ema = True
    config.hparams.ema_start = 0.0
    config.hparams.q_start = 500.0
    config.hparams.polyak = 0.05
    config.hparams.selection_temperature = 0.05
    config.hparams.lr = config.hparams.critic_lr = 1e-3
    config.batch_size = 128
    anneal_over_run(config)
    config.num_updates = 3000
    config.eval_interval = config.checkpoint_interval = 1000
    return config


def sweep_demo() -> Iterator[dict[str, Any]]:
    """Imitation against three strengths of the Q term, four seeds each."""
    for seed in range(4):
        yield {"algorithm": "diffusion_bc", "seed": seed}
    for q_weight in (0.3, 1.0, 3.0):
        for seed in range(4):
            yield {"hparams.q_weight": q_weight, "seed": seed}


def space_shape() -> dict[str, list[Any]]:
    """Widths of the policy, and calls of it for an action: each of the nine is a program of its own."""
    return {"model.policy.hidden": [(32, 32), (64, 64), (128, 128)], "model.policy.num_steps": [2, 3, 5]}


def sweep_tasks() -> Iterator[dict[str, Any]]:
    """Two mazes, each with its own data; together with another study, as --sweep=tasks,demo."""
    for maze in ("pointmaze-umaze", "pointmaze-medium"):
        yield {"env": maze, "dataset": maze}


def sweep_large() -> list[dict[str, Any]]:
    """A diffusion policy against a deterministic one, each at 16 settings of two knobs times 8 seeds.

    256 members of two programs, so small that many are trained in a minute.
    """
    size = {"num_updates": 300, "batch_size": 64, "model.critic_hidden": (32, 32)}
    looks = {"eval_interval": 300, "eval_episodes": 8, "record_episodes": 1, "checkpoint_interval": 50}
    policies = [
        {"algorithm": "diffusion_ql", "model.policy.hidden": (32, 32), "hparams.q_start": 100.0},
        {"algorithm": "td3_bc", "model.actor_hidden": (32, 32)},
    ]
    knobs = points.sobol({"hparams.lr": (3e-4, 1e-2, "log"), "hparams.q_weight": (0.1, 10.0, "log")}, 16)
    return points.product(policies, [size | looks], knobs, points.seeds(8))
