"""The task of a config: data on the device, environment, algorithm. Hands floors 2 and 3 to the loops of floor 5."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jaxdiff import data, envs, multi
from jaxdiff.algorithms.normalise import normalise_obs, normalise_obs_running, obs_statistics
from jaxdiff.algorithms.windows import windowed
from jaxdiff.cli import advice, pretrained, preys
from jaxdiff.cli import env_options as further
from jaxdiff.cli.ensure import ensure_all
from jaxdiff.cli.loops import make_loop
from jaxdiff.cli.rewards import reward_transform, transform_rewards
from jaxdiff.cli.settings import algorithm_module, is_online, make_settings, setting
from jaxdiff.cli.vec_options import vec_options
from jaxdiff.types import Algorithm, Env, Spec

# Not the member's own discount factor: lanes that sweep it share one dataset.
NOMINAL_DISCOUNT = 0.99


@dataclasses.dataclass(frozen=True)
class Task:
    """Everything a pack needs that does not depend on its members' numbers."""

    algorithm: Algorithm
    env: Env | envs.HostEnv
    dataset: data.Dataset | None  # None: only acting is wanted, or training is online
    info: data.DatasetInfo | None
    statistics: tuple[np.ndarray, np.ndarray] | None  # mean and deviation of the observations, where normalised
    # What was compiled or measured for one pack and serves the next: see `pack`.
    kept: dict[Any, Any] = dataclasses.field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def spec(self) -> Spec:
        return self.env.spec


def make_env(config: Mapping[str, Any]) -> Env | envs.HostEnv:
    """The environment of a config; a simulator that runs on the host comes with eval_episodes copies.

    Raises:
      ValueError: config.maze beside an environment that is no maze of one's own, or missing, or malformed; for
        config.env_options see `env_options.make` and `make_host`.
      KeyError, ImportError: an unknown name, a missing extra.
    """
    name, maze, options = config["env"], setting(config, "maze"), setting(config, "env_options")
    if name in envs.CUSTOM_MAZES:
        if not maze:
            raise ValueError(
                rf"config.env={name} needs config.maze, its rows parted by backslashes: "
                rf"--config.maze='#####\#GOO#\###O#\#OOO#\#####'"
            )
        return further.make(name, options, {"maze": maze})
    if maze and (name in envs.ENVS or envs.is_host(name)):
        raise ValueError(
            f"config.maze={maze!r} has no use in config.env={name}; give --config.env=pointmaze-custom, or no maze."
        )
    if envs.is_host(name):
        return further.make_host(name, options, int(config["eval_episodes"]))
    return further.make(name, options, env_options(config))


def env_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What keys of a config say of its environment beside the name; `config.env_options` has what has no key.

    Raises:
      ValueError, FileNotFoundError: a file of a prey, a network or a trace that is not there, or not one; a run
        that is no prey, see `trained_prey.load`.
    """
    name = config["env"]
    if name == "vec":
        return vec_options(config)
    if name.startswith(("brax-", "mabrax-")):
        return {"backend": config["env_backend"]}
    if not name.startswith("mpe-"):
        return {}
    options = dict(setting(config, "mpe"))
    if name.endswith("-prey"):
        if (prey := options.pop("prey")) != "scripted":
            raise ValueError(f"config.mpe.prey={prey} has no use in config.env={name}, where the prey is who learns.")
    elif options["prey"] != "scripted":
        options["prey"] = preys.of_config(options["prey"], name)
    return options


def load_dataset(config: Mapping[str, Any]) -> tuple[data.Dataset, data.DatasetInfo]:
    """The dataset of a config, on the host, of several joined by "+"; what can be generated is made when missing."""
    transform = reward_transform(setting(config, "reward_transform"))
    loaded = [data.load(path) for path in ensure_all(config["dataset"])]
    dataset, info = data.join([part for part, _ in loaded], [facts for _, facts in loaded])
    dataset = data.reweight(dataset, setting(config, "reweight"))  # thresholds are in the data's own rewards
    dataset = transform_rewards(dataset, transform)
    return scale_rewards(dataset, reward_scale(config, dataset)), info


def scale_rewards(dataset: data.Dataset, scale: float) -> data.Dataset:
    """The dataset with every reward multiplied by scale."""
    reward: Any = (np.asarray(dataset.transitions.reward) * scale).astype(np.float32)
    transitions = dataclasses.replace(dataset.transitions, reward=reward)
    return dataclasses.replace(dataset, transitions=transitions)


def reward_scale(config: Mapping[str, Any], dataset: data.Dataset) -> float:
    """What the config asks for: its own factor, or the one that makes the data's largest discounted return 10."""
    if not setting(config, "normalise_reward"):
        return float(config["reward_scale"])
    returns = discounted_returns(dataset, NOMINAL_DISCOUNT)
    largest = float(np.abs(returns).max())
    return float(config["reward_scale"]) * (10.0 / largest if largest > 0 else 1.0)


def discounted_returns(dataset: data.Dataset, discount_factor: float) -> np.ndarray:
    """Discounted return from each transition to the end of its episode in the data, [N] or [N, A], float64."""
    reward = np.asarray(dataset.transitions.reward, np.float64)
    carries_on = np.append(np.diff(np.asarray(dataset.episode)) == 0, False)
    returns, running = np.empty_like(reward), np.zeros(reward.shape[1:])
    for i in range(len(reward) - 1, -1, -1):
        running = reward[i] + (discount_factor * running if carries_on[i] else 0.0)
        returns[i] = running
    return returns


def make_algorithm(
    config: Mapping[str, Any], spec: Spec, statistics: tuple[np.ndarray, np.ndarray] | None
) -> Algorithm:
    """The config's algorithm for a task, on observations normalised by the statistics, or by running ones online."""
    model, _ = make_settings(config)
    window = data.Window(setting(config, "history"), setting(config, "action_chunk"))

    def make(model: Any, spec: Spec) -> Algorithm:
        return windowed(algorithm_module(config["algorithm"]).make, model, spec, window)

    algorithm = _for_agents(config, make, model, spec)
    if algorithm.fit is not None and config["normalise_obs"]:
        raise ValueError(
            f"config.normalise_obs=True, and {config['algorithm']} measures units of its own on the data; leave it "
            "False and choose config.model.normaliser."
        )
    if statistics is not None:
        return normalise_obs(algorithm, *statistics)
    return normalise_obs_running(algorithm, spec) if config["normalise_obs"] and is_online(config) else algorithm


def _for_agents(config: Mapping[str, Any], make: Callable[[Any, Spec], Algorithm], model: Any, spec: Spec) -> Algorithm:
    """The method as the task wants it: as it is, under a wrapper, or one that is made for agents."""
    name, agents, shared_noise = config["algorithm"], setting(config, "agents"), setting(config, "shared_noise")
    if name not in multi.METHODS:
        return multi.wrapped(agents, make, model, spec, shared_noise=shared_noise)
    if spec.num_agents is None:
        raise ValueError(f"{name} is made for agents, and {spec.name} has none; choose another --config.env.")
    if (setting(config, "history"), setting(config, "action_chunk")) != (1, 1):
        raise ValueError(
            f"config.history={setting(config, 'history')} and action_chunk={setting(config, 'action_chunk')}; {name} "
            "is made for agents and takes neither: leave both 1, and see its own settings."
        )
    if agents:
        raise ValueError(
            f"config.agents={agents!r}; {name} is made for agents and takes no wrapper: leave it ''."
            + _own_setting(model, "execution", "centralised", "to let agents act together")
        )
    if shared_noise:
        raise ValueError(
            f"config.shared_noise=True is for wrapped methods, and {name} is made for agents: leave it False."
            + _own_setting(model, "shared_noise", "True", "to let agents draw the same noise")
        )
    return make(model, spec)


def _own_setting(model: Any, name: str, value: str, purpose: str) -> str:
    """What to set instead, where a method made for agents has a setting for what was asked of a wrapper."""
    return f" Set config.model.{name}={value} {purpose}." if hasattr(model, name) else ""


def make_task(config: Mapping[str, Any]) -> Task:
    """Builds the task of a config.

    Raises:
      ValueError: the data and the environment do not fit together, or a setting is out of range.
      KeyError, FileNotFoundError, ImportError: an unknown name, a missing file, a missing extra.
    """
    make_settings(config)  # a mistyped setting is an error before any data are read
    env = make_env(config)
    saved = pretrained.statistics(config)
    make_loop(config, make_algorithm(config, env.spec, saved), env)  # its sizes are checked here
    if is_online(config):
        return Task(make_algorithm(config, env.spec, saved), env, None, None, saved)
    dataset, info = load_dataset(config)
    check_fit(env.spec, info)
    info = on_one_scale(env.spec, info)
    obs = np.asarray(dataset.transitions.obs)
    statistics = obs_statistics(obs, env.spec.mask_dim) if config["normalise_obs"] else None
    statistics = statistics if saved is None else saved  # those that the weights to start from were trained with
    algorithm = make_algorithm(config, env.spec, statistics)
    if isinstance(algorithm.window, data.Segment):
        data.check_segment(dataset, algorithm.window)
    return Task(algorithm, env, jax.device_put(dataset), info, statistics)


def check_fit(spec: Spec, info: data.DatasetInfo) -> None:
    """Raises ValueError unless the data have the environment's observation and action sizes."""
    if info.num_agents != spec.num_agents:
        raise ValueError(
            f"dataset {info.name} has {info.num_agents or 'no'} agents, env {spec.name} {spec.num_agents or 'none'}; "
            "choose the env the data came from with --config.env=NAME, or export one agent's rows."
        )
    there, here = (info.obs_dim, info.action_dim), (spec.obs_dim, spec.action_dim)
    if there != here:
        raise ValueError(
            f"dataset {info.name} has observations of {there[0]} and actions of {there[1]} numbers, env {spec.name} "
            f"has {here[0]} and {here[1]}; choose the env the data came from with --config.env=NAME."
        )


def on_one_scale(spec: Spec, info: data.DatasetInfo) -> data.DatasetInfo:
    """What a run records of its data; without their reference scores where the environment has others.

    Two scales are two worlds, of which one has another prey, say. To train in one and act in the other is a test like
    others, and is said on stderr; but a report must not set the data's score beside those of the run.
    """
    theirs, ours = info.reference_scores, spec.reference_scores
    if theirs is None or ours is None or all(map(_is_close, theirs, ours)):
        return info
    prey = ", or the data's prey with --config.mpe.prey=scripted|FILE|RUN" if spec.name.startswith("mpe-") else ""
    advice.say_once(
        f"dataset {info.name} has its scores 0 and 100 at returns of {theirs[0]:g} and {theirs[1]:g}, env {spec.name} "
        f"at {ours[0]:g} and {ours[1]:g}: they are two worlds, and the data's return cannot be compared with the "
        f"run's. Unless this is meant, choose data of this env with --config.dataset=NAME{prey}."
    )
    return dataclasses.replace(info, reference_scores=None)


def _is_close(there: float, here: float) -> bool:
    """Whether two reference returns are one, written with as many digits as their sources have."""
    return math.isclose(there, here, rel_tol=1e-3, abs_tol=1e-3)
