"""Rows of the coordination games: joint actions from tables and searches, played in the game itself."""

import itertools
from typing import Any

import jax
import numpy as np

from jaxdiff import envs
from jaxdiff.data import card as cards
from jaxdiff.data import catalog, games
from jaxdiff.data.columns import Columns
from jaxdiff.envs import bridge
from jaxdiff.envs.discrete import encode_onehot
from jaxdiff.types import Env


def rows_of(name: str, made: catalog.Game, arguments: catalog.Arguments) -> tuple[Columns, cards.Origin]:
    """The rows of a game's dataset, and what its card says of them.

    Raises:
      ValueError: fewer than 2 rows.
    """
    env = envs.make(made.env)
    episodes: jax.Array | np.ndarray
    if made.env == "game-bridge":
        episodes = _on_bridge(env, made.quality, arguments)
    elif env.spec.num_actions is not None:
        episodes = _choices(env, made.quality, arguments)
    else:
        episodes = _points(env, made.quality, arguments)
    columns = games.play(env, episodes, arguments.num_steps)
    origin = cards.Origin(
        name=name,
        generator=f"{made.quality}: {catalog.GAME_QUALITIES[made.env][made.quality]}",
        licence=catalog.LICENCE,
        env=env.spec.name,
        arguments={"num_steps": arguments.num_steps, "quality": made.quality},
        seed=arguments.seed,
        reference_scores=env.spec.reference_scores,
        true_next_observations=True,
    )
    return columns, origin


def _choices(env: Env, quality: str, arguments: catalog.Arguments) -> jax.Array:
    """Joint actions of a matrix game, drawn each by itself: [E, H, A, n]."""
    count, horizon = env.spec.num_actions, env.spec.max_episode_steps
    uniform = list(itertools.product(range(count or 0), repeat=env.spec.num_agents or 1))
    choices = uniform if quality == "random" else games.XOR_CHOICES[quality]
    index = games.joint_choices(arguments.seed, choices, (-(-arguments.num_steps // horizon), horizon))
    return encode_onehot(index, count or 0)


def _on_bridge(env: Env, quality: str, arguments: catalog.Arguments) -> jax.Array:
    """Crossings, found by a search over the rules, and uniform actions: [E, H, 2, 5]."""
    count = len(bridge.MOVES)
    plans = np.stack(np.divmod(games.cheapest_plans(*bridge.transitions()), count), axis=-1)  # [P, H, 2]
    # No crossing is shorter than a plan, and hardly one in a hundred uniform episodes ends before the clock.
    num_episodes = -(-arguments.num_steps // (plans.shape[1] if quality == "optimal" else 20)) + 4
    seeds = np.random.SeedSequence(arguments.seed).generate_state(2)
    best = games.planned(int(seeds[0]), plans, num_episodes)
    uniform = list(itertools.product(range(count), repeat=2))
    poor = games.joint_choices(int(seeds[1]), uniform, (num_episodes, env.spec.max_episode_steps))
    episodes = {"optimal": best, "random": poor, "mixed": games.alternate(poor, best)}[quality]
    return encode_onehot(episodes, count)


def _points(env: Env, quality: str, arguments: catalog.Arguments) -> np.ndarray:
    """Points of a task that ends after one step: [N, 1, A, U]."""
    facts: dict[str, Any] = dict(env.facts)
    seed, num_points = arguments.seed, arguments.num_steps
    if quality == "samples":
        drawn = games.mixture_samples(
            seed, np.array(facts["modes"]), np.array(facts["weights"]), facts["std"], num_points
        )
    elif quality == "optimal":
        drawn = games.assignments(seed, np.array(facts["landmarks"]), num_points)
    else:
        shape = (num_points, env.spec.num_agents or 1, env.spec.action_dim)
        drawn = np.random.default_rng(seed).uniform(-1.0, 1.0, shape).astype(np.float32)
    return drawn[:, None]
