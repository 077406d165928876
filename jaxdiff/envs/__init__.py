"""Environments: a table of names, and the wrappers that apply to all of them.

    env = make("pointmaze-umaze")
    state, obs = env.reset(key)
    state, timestep = env.step(state, action)

Everything here but `make_host` is a pure function of one environment; callers vmap.
"""

from collections.abc import Callable
import functools
import inspect
from typing import Any

from jaxdiff.envs import brax_env, bridge, games, jaxmarl_env, jumanji_env, mabrax, mpe, pointmaze, probes, rooms, vec
from jaxdiff.envs.discrete import bits
from jaxdiff.envs.host import HOST_ENVS, HostEnv, is_host, make_host
from jaxdiff.envs.jaxmarl_env import is_jaxmarl
from jaxdiff.envs.wrappers import AutoResetState, auto_reset
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Env

__all__ = [
    "CUSTOM_MAZES",
    "ENVS",
    "HOST_ENVS",
    "AutoResetState",
    "HostEnv",
    "auto_reset",
    "bits",
    "is_host",
    "is_jaxmarl",
    "make",
    "make_host",
]

_maze = pointmaze.pointmaze
_brax = brax_env.brax_locomotion

# Not in ENVS, since they are nothing without their option `maze`.
CUSTOM_MAZES: dict[str, Callable[..., Env]] = {
    f"pointmaze-custom{multi}{dense}": functools.partial(pointmaze.custom, multi=bool(multi), dense=bool(dense))
    for multi in ("", "-multi")
    for dense in ("", "-dense")
}

ENVS: dict[str, Callable[..., Env]] = {
    **{
        f"pointmaze-{size}{multi}{dense}": functools.partial(_maze, size, multi=bool(multi), dense=bool(dense))
        for size in pointmaze.MAX_EPISODE_STEPS
        for multi in ("", "-multi")
        for dense in ("", "-dense")
    },
    "rooms-and": functools.partial(rooms.rooms, wanted=("south", "east")),
    "rooms-not": functools.partial(rooms.rooms, wanted=("north",), avoided=("west",)),
    "brax-hopper": functools.partial(_brax, "hopper"),
    "brax-halfcheetah": functools.partial(_brax, "halfcheetah"),
    "brax-walker2d": functools.partial(_brax, "walker2d"),
    "brax-ant": functools.partial(_brax, "ant"),
    **{f"mpe-{task}": functools.partial(mpe.mpe, task) for task in mpe.TASKS},
    "mpe-tag-prey": functools.partial(mpe.mpe_prey, "tag"),
    "mpe-world-prey": functools.partial(mpe.mpe_prey, "world"),
    **{f"mabrax-{task}": functools.partial(mabrax.mabrax, task) for task in mabrax.TASKS},
    "jumanji-rware": jumanji_env.rware,
    "jumanji-lbf": jumanji_env.lbf,
    "jumanji-connector": jumanji_env.connector,
    "jumanji-cleaner": jumanji_env.cleaner,
    "vec": vec.vec,
    "game-xor": games.xor,
    "game-bridge": bridge.bridge,
    "game-landmarks": games.landmarks,
    "game-payoff": games.payoff,
    "game-mixture": games.mixture,
    "probe-constant": probes.constant,
    "probe-obs": probes.obs,
    "probe-delay": probes.delay,
    "probe-action": probes.action,
    "probe-both": probes.both,
    "probe-bandit": probes.bandit,
    "probe-recall": probes.recall,
}


def make(name: str, **options: Any) -> Env:
    """The environment of that name.

    Args:
      name: a key of ENVS or CUSTOM_MAZES, or "jaxmarl-" and an id of JaxMARL's (see `jaxmarl_env`). A name starting
        with "gymnasium-" or "pettingzoo-" runs on the host: see `make_host`.
      **options: keyword arguments of the factory: `max_episode_steps` (pointmaze, brax, rooms, mpe), `dense`,
        `multi`, `goal` (pointmaze), `maze` (pointmaze-custom, which needs it), `wanted`, `avoided` (rooms), `backend`
        (brax, mabrax), `force`, `speed_scale`, `sensitivity_scale`, `prey` (mpe), `obsk`, `root` (mabrax),
        `num_agents` and sizes (jumanji, game-landmarks), `matrix` (game-payoff), `delay` (probe-recall), those of
        `vec.vec`; `max_episode_steps` and JaxMARL's own (jaxmarl).

    Returns:
      Env; `env.spec.name == name` unless an option renames it.

    Raises:
      ImportError: a name of JaxMARL's without the extra that installs it.
      KeyError: unknown name, or a host environment's.
      ValueError: an option the factory does not have, or has with another range.
    """
    if is_host(name):
        raise KeyError(f"{name!r} runs on the host, not on the device; use make_host({name!r}, num_envs)")
    if is_jaxmarl(name):
        return jaxmarl_env.jaxmarl(name, **options)
    factories = {**ENVS, **CUSTOM_MAZES}
    if name not in factories:
        raise unknown_name("environment", name, factories)
    known = inspect.signature(factories[name]).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; known: {', '.join(known) or 'none'}")
    return factories[name](**options)
