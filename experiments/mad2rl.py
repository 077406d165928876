"""MAD2RL, online, with labelled presets. Arguments: PRESET, `vec` if none is given.

  jaxdiff train --config=mad2rl                            # vehicular edge computing, 7 clients and 5 service vehicles
  jaxdiff train --config=mad2rl:pqmix --config.vec.num_clients=3
  jaxdiff sweep --config=mad2rl:lbf --sweep=seed

`vec` is the paper's (Liu et al. 2025, arXiv:2406.06986): 1000 episodes of 30 slots in one environment and an update per
slot, with the sizes of its networks. It leaves open how large batches and the buffer are (here 128 and 30,000), how
agents explore (epsilon from 1 to 0.05 over the first 300 episodes) and how rewards are scaled (here the logarithm of a
tenth of them is learned: docs/mad2rl.md); the mixer is monotone, --config.model.mixer=linear is the printed one.
`pqmix` is its baseline, an MLP for each chain. `vdn` sums the agents' values and `iql` keeps them apart; both need
values without a softmax, since nothing else could say what a state is worth.

`lbf` and `rware` are jumanji's foragers and warehouse, with one network for all agents, whose own
numbers are ours and not tuned.

`--config.hparams.lyapunov_weight` is the V of the task `vec`, in place of config.vec.v. Averaging eight chains while
acting is `jaxdiff eval RUN --set model.act_chains=8`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.cli.settings import base_config
from jaxdiff.suggest import unknown_name

EPISODES, SLOTS = 1000, 30


def get_config(preset: str = "vec") -> ConfigDict:
    """The preset's config: vec, pqmix, vdn, iql, lbf or rware."""
    if preset not in PRESETS:
        raise unknown_name("preset of mad2rl", preset, PRESETS)
    config = base_config("mad2rl")
    config.dataset = ""
    config.batch_size = 128
    PRESETS[preset](config)
    return config


def use_vec(config: ConfigDict) -> None:
    """The paper's sizes; an iteration is one slot and one update."""
    config.env = "vec"
    config.update({"vec": {"num_clients": 7, "num_servers": 5}})
    config.online.num_envs, config.online.updates_per_step = 1, 1
    config.online.replay_capacity, config.online.warmup = 30_000, 10 * SLOTS
    config.model.rewards, config.hparams.reward_scale = "symlog", 0.1
    config.num_updates = EPISODES * SLOTS
    config.eval_interval = config.checkpoint_interval = 100 * SLOTS


def use_pqmix(config: ConfigDict) -> None:
    """P-QMIX."""
    use_vec(config)
    config.model.agent = "mlp"


def use_vdn(config: ConfigDict) -> None:
    """Values of chains, summed."""
    use_vec(config)
    config.model.mixer, config.model.utility = "vdn", "logits"


def use_iql(config: ConfigDict) -> None:
    """Values of chains, each agent for itself."""
    use_vec(config)
    config.model.mixer, config.model.utility = "own", "logits"


def use_lbf(config: ConfigDict) -> None:
    """Foragers: an episode pays 1 for all its food."""
    use_grid_world(config)
    config.env = "jumanji-lbf"
    config.num_updates = 50_000
    config.eval_interval = config.checkpoint_interval = 10_000


def use_rware(config: ConfigDict) -> None:
    """A warehouse: 1 per delivered shelf, which random robots hardly ever earn."""
    use_grid_world(config)
    config.env = "jumanji-rware"
    config.online.replay_capacity = 200_000
    config.hparams.epsilon_updates = 50_000.0
    config.num_updates = 200_000
    config.eval_interval = config.checkpoint_interval = 20_000


def use_grid_world(config: ConfigDict) -> None:
    """One network for all agents, eight environments, faster targets, rewards as they are."""
    config.normalise_obs = True
    config.online.num_envs, config.online.warmup = 8, 1000
    config.model.share_params, config.model.hidden, config.model.act_chains = True, (128, 128), 8
    config.hparams.reward_scale, config.hparams.target_rate = 1.0, 0.005
    config.hparams.epsilon_updates = 10_000.0


PRESETS: Mapping[str, Callable[[ConfigDict], None]] = {
    "vec": use_vec,
    "pqmix": use_pqmix,
    "vdn": use_vdn,
    "iql": use_iql,
    "lbf": use_lbf,
    "rware": use_rware,
}


def sweep_seed() -> Iterator[dict[str, Any]]:
    """Four seeds."""
    for seed in range(4):
        yield {"seed": seed}


def sweep_num_steps() -> Iterator[dict[str, Any]]:
    """Lengths of the chain that the paper compares."""
    for num_steps in (3, 5, 7, 9):
        yield {"model.num_steps": num_steps}


def sweep_lyapunov_weight() -> Iterator[dict[str, Any]]:
    """Weights of delay against queues that the paper compares."""
    for weight in (10.0, 50.0, 150.0):
        yield {"hparams.lyapunov_weight": weight}


def sweep_mixer() -> Iterator[dict[str, Any]]:
    """A mixer of values out of a softmax, as printed and monotone."""
    for mixer in ("linear", "qmix"):
        yield {"model.mixer": mixer}
