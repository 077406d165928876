"""Which loop a config trains in: offline on its dataset, online with a replay buffer, or on-policy."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdiff import sweep, train
from jaxdiff.cli.settings import is_online, setting
from jaxdiff.data import Segment
from jaxdiff.envs import HostEnv
from jaxdiff.types import Algorithm, Env


class Loop(NamedTuple):
    """A lane's start and its way on.

    init(hparams, seed) -> lane before its first update
    chunk: see `train.Chunk`
    """

    init: Callable[[Any, Any], train.Lane]
    chunk: train.Chunk


def make_loop(config: Mapping[str, Any], algorithm: Algorithm, env: Env | HostEnv, mode: str = "vmap") -> Loop:
    """The loop of a config. An algorithm that must decide for itself trains on-policy, any other as config.online says.

    Args:
      config: resolved.
      algorithm: what trains.
      env: where an online loop acts.
      mode: how its lanes will run; data divides each batch over the devices.

    Raises:
      ValueError: sizes out of range, an online loop with a simulator that runs on the host or in mode data.
    """
    batch_size = int(config["batch_size"])
    if not is_online(config):
        if algorithm.decide is not None:
            raise ValueError(
                f"{config['algorithm']} learns from its own rollouts, and config.online.num_envs=0; set it, for "
                "example --config.online.num_envs=32."
            )
        constrain = sweep.split_batch(batch_size) if mode == "data" else lambda batch: batch
        return Loop(
            lambda hparams, seed: train.init_lane(algorithm, hparams, seed),
            train.make_chunk(algorithm, batch_size, constrain=constrain),
        )
    if mode == "data":
        raise ValueError(
            f"lanes=data divides the batches of a dataset over the devices, and {config['algorithm']} learns online "
            "here; use lanes=shard."
        )
    if isinstance(algorithm.window, Segment):
        raise ValueError(
            f"config.online.num_envs={config['online']['num_envs']}, and {config['algorithm']} plans from stretches of "
            "recorded episodes; leave it 0 and give a dataset."
        )
    if isinstance(env, HostEnv):
        raise ValueError(
            f"config.online.num_envs={config['online']['num_envs']} needs an environment on the device, and "
            f"{env.spec.name} runs on the host; choose a pointmaze, brax or probe environment."
        )
    online = dict(setting(config, "online"))
    length = online.pop("rollout_length")
    if algorithm.decide is not None:
        rollouts = train.OnPolicyConfig(online["num_envs"], length)
        return Loop(
            lambda hparams, seed: train.init_on_policy_lane(algorithm, env, rollouts, hparams, seed),
            train.make_on_policy_chunk(algorithm, env, rollouts),
        )
    replay = train.OnlineConfig(**online)
    return Loop(
        lambda hparams, seed: train.init_online_lane(algorithm, env, replay, hparams, seed),
        train.make_online_chunk(algorithm, env, batch_size, replay),
    )
