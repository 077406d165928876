"""PettingZoo's parallel environments as copies of a `HostEnv`, named after their modules. Needs the extra `pettingzoo`.

    env = make_host("pettingzoo-simple_spread_v3", 64)
    env = make_host("pettingzoo-simple_spread_v3", 64, N=5, max_cycles=50)
    env = make_host("pettingzoo-my_package.my_task", 64)      any module with a `parallel_env`

    observations  each agent's own vector, zeros at its end where others' are longer
    actions       boxes of one size: [-1, 1] is mapped onto [low, high]. In mpe2 an agent that moves has five numbers in
                  [0, 1], (nothing, left, right, down, up), of which differences count: here it has two, to the right
                  and up, before those that it says
    rewards       PettingZoo's own, in the order of `possible_agents`
    agents out    see zeros and earn what PettingZoo still gives them; an episode ends when nobody is left, by the clock
                  if anyone was truncated then

A plain name is looked for in mpe2, pettingzoo.sisl and pettingzoo.butterfly. Where an environment can be told to take
numbers (`continuous_actions` of mpe2, `continuous`), it is.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import importlib
import importlib.util
import inspect
import io
import pkgutil
import re
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.suggest import unknown_name
from jaxdiff.types import Spec

PREFIX = "pettingzoo-"
HOMES = ("mpe2", "pettingzoo.sisl", "pettingzoo.butterfly")
CONTINUOUS = ("continuous_actions", "continuous")  # options that make actions numbers
INSTALL = (
    'PettingZoo and its particles come with: pip install "jaxdiff[pettingzoo]", what its other families need with: '
    'pip install "pettingzoo[sisl,butterfly]"'
)
MOVES = 5  # numbers in mpe2 by which an agent moves


class Range(NamedTuple):
    """What an action is mapped onto."""

    low: np.ndarray  # [A, U]
    high: np.ndarray  # [A, U]


class Team:
    """One parallel environment as gymnasium would have it, with the agents as first axis of what it gives and takes.

    Attributes:
      action_space: the range of `step`'s action.
    """

    def __init__(self, env: Any, obs_dim: int, action_space: Range, is_moving: bool):
        self.action_space = action_space
        self._env, self._agents, self._obs_dim, self._is_moving = env, list(env.possible_agents), obs_dim, is_moving

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        """A new episode: obs [A, O], {}."""
        return self._rows(self._env.reset(seed=seed)[0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, bool, dict[str, Any]]:
        """action [A, U] in `action_space` -> obs [A, O], reward [A], terminated, truncated, {}."""
        given = pushes(action) if self._is_moving else action
        rows = dict(zip(self._agents, np.asarray(given, np.float32), strict=True))
        playing = {agent: rows[agent] for agent in self._env.agents}
        obs, reward, _, truncated, _ = self._env.step(playing)
        is_over, is_cut = not self._env.agents, any(truncated.values())
        rewards = np.array([reward.get(agent, 0.0) for agent in self._agents], np.float32)
        return self._rows(obs), rewards, is_over and not is_cut, is_over and is_cut, {}

    def close(self) -> None:
        """Frees the simulator."""
        self._env.close()

    def _rows(self, obs: Mapping[str, Any]) -> np.ndarray:
        rows = np.zeros((len(self._agents), self._obs_dim), np.float32)
        for i, agent in enumerate(self._agents):
            seen = obs.get(agent, ())
            rows[i, : len(seen)] = seen
        return rows


def pushes(action: np.ndarray) -> np.ndarray:
    """Two signed numbers as mpe2's five, (0, (-x)+, x+, (-y)+, y+), the rest as it is; [..., 2 + C] -> [..., 5 + C].

    mpe2 moves an agent by right - left and up - down, that is by x and y again.
    """
    x, y, said = action[..., 0:1], action[..., 1:2], action[..., 2:]
    parts = [np.zeros_like(x), *(np.maximum(part, 0.0) for part in (-x, x, -y, y)), said]
    return np.concatenate(parts, axis=-1)


def is_pettingzoo(name: str) -> bool:
    """True for names that start with "pettingzoo-"."""
    return name.startswith(PREFIX)


def make_teams(name: str, num_envs: int, options: Mapping[str, Any]) -> tuple[Spec, list[Team]]:
    """B copies of a parallel environment, and what they have in common.

    Args:
      name: "pettingzoo-" and a module: one of PettingZoo's or mpe2's, or one of yours by its dotted name.
      num_envs: B.
      options: keyword arguments of its `parallel_env`.

    Raises:
      ImportError: PettingZoo or what a module needs is not installed; the message has the line that installs it.
      KeyError: no such module.
      ValueError: options that it refuses, observations that are not vectors, actions that are not bounded boxes of one
        size, or no clock.
    """
    with _silence():
        module = _module(name)
        takes = _parameters(module)
        numbers = {option: True for option in CONTINUOUS if option in takes}
        try:
            copies = [module.parallel_env(**{**numbers, **options}) for _ in range(num_envs)]
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: {error}") from error
    is_mpe = module.__name__.startswith("mpe2.")
    for copy in copies if is_mpe else ():
        copy.unwrapped.screen = None  # 2 MB each, for pictures that nobody looks at
    first = copies[0]
    obs_dim = max(_obs_dims(name, first))
    low, high = _bounds(name, first)
    is_moving = is_mpe and all(agent.movable for agent in first.unwrapped.world.agents)
    if is_moving:
        sides = np.ones((len(low), 2), np.float32)
        low, high = np.hstack([-sides, low[:, MOVES:]]), np.hstack([sides, high[:, MOVES:]])
    spec = Spec(
        name=name,
        obs_dim=obs_dim,
        action_dim=low.shape[1],
        max_episode_steps=_clock(name, first, takes, options),
        num_agents=len(low),
    )
    return spec, [Team(copy, obs_dim, Range(low, high), is_moving) for copy in copies]


def _module(name: str) -> ModuleType:
    """The module of a task; raises as `make_teams`."""
    task = name.removeprefix(PREFIX)
    try:
        if "." in task:
            module = importlib.import_module(task)
        else:
            module = importlib.import_module(f"{_home(name, task)}.{task}")
    except ImportError as error:
        missing = f"{error.name} is not installed" if error.name else str(error)
        raise ImportError(f"{name}: {missing}; {INSTALL}") from error
    if not hasattr(module, "parallel_env"):
        raise ValueError(f"{name}: {module.__name__} has no parallel_env; only PettingZoo's parallel API is supported.")
    return module


def _home(name: str, task: str) -> str:
    """The package that has the task; raises as `make_teams`."""
    known = []
    for home in HOMES:
        importlib.import_module(home.partition(".")[0])
        spec = importlib.util.find_spec(home)
        found = [module.name for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None)]
        if re.search(r"_v\d+$", task) and task in found:
            return home
        known += [module for module in found if re.search(r"_v\d+$", module)]
    raise unknown_name("task of PettingZoo", task, known)


def _parameters(module: ModuleType) -> dict[str, inspect.Parameter]:
    """Options of an environment, as far as they can be seen: `parallel_env` is often a wrapper without names."""
    makers: Sequence[Any] = (module.parallel_env, getattr(module, "raw_env", None))
    return {name: option for maker in makers if maker for name, option in inspect.signature(maker).parameters.items()}


def _obs_dims(name: str, env: Any) -> list[int]:
    dims = []
    for agent in env.possible_agents:
        space = env.observation_space(agent)
        if len(getattr(space, "shape", None) or ()) != 1:
            raise ValueError(f"{name}: {agent} observes {space}; only one vector for each agent is supported.")
        dims.append(space.shape[0])
    return dims


def _bounds(name: str, env: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the agents' actions, [A, U] float32."""
    spaces = [env.action_space(agent) for agent in env.possible_agents]
    if all(hasattr(space, "low") for space in spaces) and len({space.shape for space in spaces}) == 1:
        low = np.asarray([space.low for space in spaces], np.float32)
        high = np.asarray([space.high for space in spaces], np.float32)
        if low.ndim == 2 and low.shape[1] and np.isfinite([low, high]).all():
            return low, high
    found = ", ".join(f"{agent} {space}" for agent, space in zip(env.possible_agents, spaces, strict=True))
    raise ValueError(f"{name} has the actions {found}; only bounded boxes of one size for all agents are supported.")


def _clock(name: str, env: Any, takes: Mapping[str, inspect.Parameter], options: Mapping[str, Any]) -> int:
    """Steps of an episode: as given, as the environment has it, or as it would be."""
    inner = env.unwrapped
    holders = (inner, getattr(inner, "env", None))
    clocks = [options.get("max_cycles"), *(getattr(holder, "max_cycles", None) for holder in holders)]
    if "max_cycles" in takes:
        clocks.append(takes["max_cycles"].default)
    for clock in clocks:
        if isinstance(clock, int) and clock > 0:
            return clock
    raise ValueError(f"{name} has no max_cycles; a task needs a time limit to be evaluated: give one as an option.")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the greeting of pygame, which mpe2 draws with."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
