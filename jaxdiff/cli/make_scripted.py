"""Rows of the particle tasks: episodes of scripted agents, some of whose actions are uniform."""

from collections.abc import Callable
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from jaxdiff import envs
from jaxdiff.cli import preys
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, scripted
from jaxdiff.data.columns import Columns
from jaxdiff.envs import mpe
from jaxdiff.types import Env

HUNTS = ("mpe-tag", "mpe-world")  # tasks with a prey


def rows_of(name: str, made: catalog.Scripted, arguments: catalog.Arguments) -> tuple[Columns, cards.Origin]:
    """The rows of a scripted dataset, and what its card says of them.

    Against a prey out of a file the scores are OMAR's where the file is, and there are none where it is another.

    Raises:
      FileNotFoundError: no file of the prey.
      ValueError: a bad file, or one of the other task: see `prey_file.read`.
    """
    env, policy_of = _scripted(made.env, made.behaviour)
    prey, told, scores = "", {"prey": env.facts["prey"]}, env.spec.reference_scores
    if env.facts["prey"] != "none":
        prey = " against jaxdiff's own scripted prey"
    if arguments.prey:
        env, told = _against(made.env, pathlib.Path(arguments.prey).expanduser())
        prey = f" against the prey in {told['prey_file']} (sha256 {told['prey_sha256'][:12]}...)"
        scores = env.spec.reference_scores
    noise = made.noise if arguments.noise is None else arguments.noise
    num_episodes = -(-arguments.num_steps // env.spec.max_episode_steps)
    chances = noise_of_episodes(noise, made.power, num_episodes)
    key = jax.random.key(arguments.seed, impl="threefry2x32")
    columns = scripted.generate(key, env, policy_of, chances, num_steps=arguments.num_steps)
    origin = cards.Origin(
        name=name,
        generator=f"{made.quality}: {catalog.SCRIPTED_QUALITIES[made.quality]}; jaxdiff's scripted agents{prey}, not "
        "the dataset of OMAR, whose task and statistics it follows",
        licence=catalog.LICENCE,
        env=made.env,
        arguments={
            "num_steps": arguments.num_steps,
            "quality": made.quality,
            "behaviour": made.behaviour,
            "noise": noise,
            "power": made.power,
            "max_episode_steps": env.spec.max_episode_steps,
            **told,
        },
        seed=arguments.seed,
        reference_scores=scores,
        true_next_observations=True,
    )
    return columns, origin


@functools.cache
def _scripted(env: str, behaviour: str) -> tuple[Env, Callable[[jax.Array], mpe.Behaviour]]:
    """One object per task and behaviour, so that making a dataset again does not compile again."""
    return envs.make(env), functools.partial(mpe.with_noise, mpe.BEHAVIOURS[behaviour])


def _against(env: str, path: pathlib.Path) -> tuple[Env, dict[str, Any]]:
    """The task with the prey of a file, and what a card says of it."""
    made = envs.make(env, prey=preys.of_file(path))
    return made, {"prey": "network", "prey_file": path.name, "prey_sha256": cards.file_sha256(path)}


def noise_of_episodes(noise: float, power: float | None, num_episodes: int) -> np.ndarray:
    """Chance of a uniform action in each episode [E]: noise, or 1 - (1 - noise) u**power with u from 0 to 1."""
    if power is None:
        return np.full(num_episodes, noise, np.float32)
    return (1.0 - (1.0 - noise) * np.linspace(0.0, 1.0, num_episodes) ** power).astype(np.float32)
