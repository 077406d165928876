"""Between a config and the objects it describes: an algorithm's default settings, and its dataclasses from values."""

from collections.abc import Mapping
import dataclasses
import typing
from typing import Any

from ml_collections import ConfigDict

from jaxdiff.algorithms import ALGORITHMS
from jaxdiff.multi import METHODS
from jaxdiff.suggest import did_you_mean

MPE_OPTIONS: Mapping[str, Any] = {"force": "omar", "speed_scale": 1.0, "sensitivity_scale": 1.0, "prey": "scripted"}
VEC_OPTIONS: Mapping[str, Any] = {
    "num_clients": 5,
    "num_servers": 3,
    "profiles": "alexnet+resnet18+vgg16",
    "clients_per_type": (),
    "convention": "lit",
    "v": 10.0,
    "gamma": "exact",
    "trace": "",
    "trace_origin": "rsu",
    "coverage": 300.0,
    "reward_scale": 1.0,
}
# What runs did that are older than the setting: their configs are read by `eval` and `rerun` and lack these keys.
OLDER_RUNS: Mapping[str, Any] = {
    "normalise_reward": False,
    "reward_transform": "none",
    "reweight": (),
    "history": 1,
    "action_chunk": 1,
    "online": {"num_envs": 0},
    "init_from": "",
    "init_setting": "",
    "maze": "",
    "agents": "independent",
    "shared_noise": False,
    "mpe": MPE_OPTIONS,
    "vec": VEC_OPTIONS,
    "env_options": "",
}


def setting(config: Mapping[str, Any], key: str) -> Any:
    """config[key]; in a run's config from before the setting existed, what was done then."""
    return config[key] if key in config or key not in OLDER_RUNS else OLDER_RUNS[key]


def in_env(config: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """The config in another environment, None for its own.

    A maze stays behind unless the other is pointmaze-custom, and env_options unless it is the same one.
    """
    if name is None:
        return dict(config)
    maze = setting(config, "maze") if name.startswith("pointmaze-custom") else ""
    options = setting(config, "env_options") if name == config["env"] else ""
    return {**config, "env": name, "maze": maze, "env_options": options}


def is_online(config: Mapping[str, Any]) -> bool:
    """Whether a config's members act in environments while they train, and need no dataset."""
    return int(setting(config, "online")["num_envs"]) > 0


def algorithm_module(name: str) -> Any:
    """The algorithm's module.

    Raises:
      KeyError: unknown name; the nearest one is offered.
    """
    known = {**ALGORITHMS, **METHODS}
    if name not in known:
        raise KeyError(f"unknown algorithm {name!r}; {did_you_mean(name, known)}")
    return known[name]


def algorithm_settings(name: str) -> dict[str, Any]:
    """`model` (static choices) and `hparams` (traced numbers) of an algorithm, as its dataclasses default them."""
    module = algorithm_module(name)
    return {"model": dataclasses.asdict(module.Config()), "hparams": dataclasses.asdict(module.HParams())}


def base_config(algorithm: str) -> ConfigDict:
    """A complete experiment with every key a command may override.

    Returns:
      ConfigDict with the task (env, dataset), the loop's sizes, and the algorithm's `model` and `hparams`.
    """
    return ConfigDict(
        {
            "algorithm": algorithm,
            "env": "pointmaze-umaze",  # a name of jaxdiff.envs, or gymnasium-<Task>-v5 for real MuJoCo
            "maze": "",  # pointmaze-custom only: rows of #, O and G parted by backslashes, see docs/mazes.md
            "env_backend": "spring",  # brax tasks only: spring, positional, generalized or mjx
            # Options of the environment that have no key here, "num_agents=4,grid_size=12": see docs/games.md.
            "env_options": "",
            # Tasks mpe-* only: their physics, the shift of a test, and the prey: scripted, OMAR's file, or the folder
            # of a run of mpe-TASK-prey.
            "mpe": dict(MPE_OPTIONS),
            # Task vec only: who is there, networks (names or files, joined by +), how many clients run each (none: in
            # turn), the weight V of delays, a file of where the vehicles were; see `envs.vec.vec`.
            "vec": dict(VEC_OPTIONS),
            # Tasks with agents: how a method of one agent becomes theirs, one of WRAPPERS; "" if it is made for agents.
            "agents": "" if algorithm in METHODS else "independent",
            "shared_noise": False,  # agents draw the same noise while acting
            "dataset": "pointmaze-umaze",  # a file or folder, or a name of `jaxdiff data list`; A+B joins two
            "reweight": (),  # an episode counts once more for each return, or quantile as "q0.75", that it reaches
            "normalise_obs": False,  # centre and scale observations by the dataset's statistics
            # Loops that act: environments side by side (0: offline, on the dataset) and their sizes, see jaxdiff.train.
            "online": {
                "num_envs": 0,
                "updates_per_step": 1,  # with replay: updates per step of all environments
                "replay_capacity": 100_000,
                "warmup": 1000,  # transitions of random actions before the first update
                "rollout_length": 64,  # on-policy: decisions of each environment per update
            },
            "init_from": "",  # run folder whose trained networks a run starts from, seed by seed
            "init_setting": "",  # which of its settings, by label, where it has several
            "reward_transform": "none",  # of the dataset, one of REWARD_TRANSFORMS, before any scaling
            "reward_scale": 1.0,  # multiplies the dataset's rewards; evaluation reports the task's own
            "normalise_reward": False,  # scale rewards so that the largest discounted return in the data is 10
            "history": 1,  # observations the algorithm is shown, the newest last
            "action_chunk": 1,  # actions it decides on at once and carries out open loop
            "seed": 0,
            "batch_size": 256,
            "num_updates": 100_000,
            "chunk": 500,  # updates per dispatch, at most
            "eval_interval": 10_000,  # updates between evaluations; the last update is always evaluated
            "eval_episodes": 64,
            "record_episodes": 4,  # episodes per member kept for pictures
            "checkpoint_interval": 10_000,  # a kill loses at most this many updates
            **algorithm_settings(algorithm),
        }
    )


def anneal_over_run(config: ConfigDict) -> None:
    """Makes the learning rate decay over the whole run, however long an override makes it."""
    with config.unlocked():
        config.hparams.lr_decay_steps = config.get_oneway_ref("num_updates").to_float()


def with_algorithm(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The config for another algorithm; every setting whose name the new one has too keeps its value."""
    settings = algorithm_settings(name)
    merged = {part: _carry_over(settings[part], config[part]) for part in ("model", "hparams")}
    # A method that is made for agents has no wrapper, and any other needs one.
    agents = "" if name in METHODS else setting(config, "agents") or "independent"
    return {**config, **merged, "agents": agents, "algorithm": name}


def _carry_over(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _carry_over(value, old[key]) if isinstance(value, Mapping) and key in old else old.get(key, value)
        for key, value in new.items()
    }


def check_sizes(config: Mapping[str, Any]) -> None:
    """Raises ValueError unless the loop's sizes are positive, the seed fits 31 bits, and data have a use."""
    if is_online(config) and config["dataset"]:
        raise ValueError(
            f"config.dataset={config['dataset']!r} has no use while config.online.num_envs="
            f"{config['online']['num_envs']}: members learn from what they live through. Give --config.dataset= "
            "without a name; trained networks to start from are --config.init_from=RUN."
        )
    if is_online(config) and setting(config, "reweight"):
        raise ValueError(
            f"config.reweight={tuple(config['reweight'])} has no use while config.online.num_envs="
            f"{config['online']['num_envs']}: it is of datasets; leave it empty."
        )
    if not is_online(config) and not config["dataset"]:
        raise ValueError("config.dataset is empty; give a file or a name, or act online: --config.online.num_envs=8.")
    for name in (
        "batch_size",
        "num_updates",
        "chunk",
        "history",
        "action_chunk",
        "eval_interval",
        "eval_episodes",
        "checkpoint_interval",
    ):
        if setting(config, name) < 1:
            raise ValueError(f"config.{name}={config[name]}; it must be at least 1.")
    if config["record_episodes"] < 0:
        raise ValueError(f"config.record_episodes={config['record_episodes']}; it must be at least 0.")
    if not 0 <= config["seed"] < 2**31:
        raise ValueError(f"config.seed={config['seed']}; it must lie in 0 .. 2**31 - 1.")


def make_settings(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """(Config, HParams) of the algorithm from a resolved config.

    Raises:
      KeyError: a setting the algorithm does not have.
    """
    module = algorithm_module(config["algorithm"])
    return _build(module.Config, config["model"], "model"), _build(module.HParams, config["hparams"], "hparams")


def _build(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise KeyError(f"unknown setting '{where}.{key}'; {did_you_mean(key, hints)}")
    built = {key: _value(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    return cls(**built)


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    # JSON and command lines have no tuples.
    return tuple(value) if isinstance(value, list) else value
