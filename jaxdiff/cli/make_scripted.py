"""Rows of the particle tasks: episodes of scripted agents, some of whose actions are uniform."""

from collections.abc import Callable
import functools

import jax
import numpy as np

from jaxdiff import envs
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, scripted
from jaxdiff.data.columns import Columns
from jaxdiff.envs import mpe
from jaxdiff.types import Env


def rows_of(name: str, made: catalog.Scripted, arguments: catalog.Arguments) -> tuple[Columns, cards.Origin]:
    """The rows of a scripted dataset, and what its card says of them."""
    env, policy_of = _scripted(made.env, made.behaviour)
    noise = made.noise if arguments.noise is None else arguments.noise
    num_episodes = -(-arguments.num_steps // env.spec.max_episode_steps)
    chances = noise_of_episodes(noise, made.power, num_episodes)
    key = jax.random.key(arguments.seed, impl="threefry2x32")
    columns = scripted.generate(key, env, policy_of, chances, num_steps=arguments.num_steps)
    prey = "" if env.facts["prey"] == "none" else " against jaxdiff's own scripted prey"
    origin = cards.Origin(
        name=name,
        generator=f"{made.quality}: {catalog.SCRIPTED_QUALITIES[made.quality]}; jaxdiff's scripted agents{prey}, not "
        "the dataset of OMAR, whose task and statistics it follows",
        licence=catalog.LICENCE,
        env=env.spec.name,
        arguments={
            "num_steps": arguments.num_steps,
            "quality": made.quality,
            "behaviour": made.behaviour,
            "noise": noise,
            "power": made.power,
            "max_episode_steps": env.spec.max_episode_steps,
            "prey": env.facts["prey"],
        },
        seed=arguments.seed,
        reference_scores=env.spec.reference_scores,
        true_next_observations=True,
    )
    return columns, origin


@functools.cache
def _scripted(env: str, behaviour: str) -> tuple[Env, Callable[[jax.Array], mpe.Behaviour]]:
    """One object per task and behaviour, so that making a dataset again does not compile again."""
    return envs.make(env), functools.partial(mpe.with_noise, mpe.BEHAVIOURS[behaviour])


def noise_of_episodes(noise: float, power: float | None, num_episodes: int) -> np.ndarray:
    """Chance of a uniform action in each episode [E]: noise, or 1 - (1 - noise) u**power with u from 0 to 1."""
    if power is None:
        return np.full(num_episodes, noise, np.float32)
    return (1.0 - (1.0 - noise) * np.linspace(0.0, 1.0, num_episodes) ** power).astype(np.float32)
