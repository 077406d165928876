"""Random and expert returns that D4RL's normalised scores stand on."""

from collections.abc import Mapping
import re
from typing import TypeVar

import numpy as np

from jaxdiff.types import Array

Return = TypeVar("Return", float, np.ndarray, Array)

# (return of a random policy, return of the expert), as published with D4RL: github.com/Farama-Foundation/D4RL,
# d4rl/infos.py. One pair per environment, whatever the quality of the data.
SCORES: Mapping[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "kitchen": (0.0, 4.0),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
    "minigrid-fourrooms": (0.01442, 2.89685),
    "maze2d-open-v0": (0.01, 20.66),
    "maze2d-umaze-v1": (23.85, 161.86),
    "maze2d-medium-v1": (13.13, 277.39),
    "maze2d-large-v1": (6.7, 273.99),
    "maze2d-umaze-dense-v1": (68.537689, 193.66285642381482),
    "maze2d-medium-dense-v1": (44.264742, 297.4552547777125),
    "maze2d-large-dense-v1": (30.569041, 303.4857382709002),
    "maze2d-open-dense-v0": (11.17817, 27.166538620695782),
    "maze2d-umaze-v0": (0.94, 62.6),
    "maze2d-medium-v0": (5.77, 85.14),
    "maze2d-large-v0": (4.83, 191.99),
    "maze2d-eval-umaze-v1": (36.63, 141.4),
    "maze2d-eval-medium-v1": (13.07, 204.93),
    "maze2d-eval-large-v1": (16.4, 302.22),
}

# (return of uniform actions, return of the expert) of OMAR's particle tasks, by the names that its folders have. Every
# score in its tables and in those of its successors stands on them; tasks of other makers have other returns.
TEAM_SCORES: Mapping[str, tuple[float, float]] = {
    "simple_spread": (159.8, 516.8),
    "simple_tag": (-4.1, 185.6),
    "simple_world": (-6.8, 79.5),
}
_TEAM_NAME = re.compile(
    rf"({'|'.join(TEAM_SCORES)})(-(random|medium|medium-replay|expert|medium-expert|random-medium))?(-seed\d+)?"
)

# What may follow an environment's name in a dataset's name. Other words mean another task, with no known scores.
_LOCOMOTION = {"random", "medium", "expert", "replay", "full", "mixed", "simple"}
_ADROIT = {"human", "cloned", "expert"}
_WORDS: Mapping[str, set[str]] = {
    **dict.fromkeys(("halfcheetah", "hopper", "walker2d", "ant"), _LOCOMOTION),
    **dict.fromkeys(("pen", "hammer", "door", "relocate"), _ADROIT),
    "antmaze": {"umaze", "medium", "large", "ultra", "play", "diverse"},
    "kitchen": {"complete", "partial", "mixed"},
    "minigrid-fourrooms": {"random"},
}


def reference_scores(name: str) -> tuple[float, float] | None:
    """(random, expert) undiscounted returns for a D4RL task, dataset or Gymnasium name; None where none are published.

    "hopper", "hopper-medium-v2", "hopper_medium_replay", "Hopper-v5" and "gymnasium-Hopper-v5" give one pair. A maze2d
    name without a version means v1 (v0 for open). Other simulators of the same body, "brax-hopper", give None: their
    returns are not on D4RL's scale. Names of OMAR's data give `team_scores`.
    """
    if (team := team_scores(name)) is not None:
        return team
    words = name.lower().replace("_", "-").removeprefix("gymnasium-").split("-")
    version = words.pop() if len(words) > 1 and words[-1][:1] == "v" and words[-1][1:].isdigit() else None
    if words[0] == "maze2d":
        stem = "-".join(words)
        versions = (version,) if version else ("v1", "v0")
        return next((SCORES[f"{stem}-{v}"] for v in versions if f"{stem}-{v}" in SCORES), None)
    env = "-".join(words[:2]) if words[0] == "minigrid" else words[0]
    known = set(words[len(env.split("-")) :]) <= _WORDS.get(env, set())
    return SCORES.get(env) if known else None


def team_scores(name: str) -> tuple[float, float] | None:
    """(random, expert) returns of OMAR's own data by its folders' names, "simple_tag-medium-replay"; None for others.

    A return is the mean over agents, which is any predator's own in simple_tag and simple_world. An expert's data score
    more than 100 there.

    Reference: Pan et al. 2022 (OMAR), arXiv:2111.11188, and its code.
    """
    match = _TEAM_NAME.fullmatch(name)
    return TEAM_SCORES[match[1]] if match else None


def normalised_score(episode_return: Return, reference: tuple[float, float]) -> Return:
    """100 (R - random) / (expert - random): 0 for a random policy, 100 for the expert, unbounded on both sides.

    Args:
      episode_return: R, undiscounted, of any shape.
      reference: (random, expert), as `reference_scores` gives.

    Raises:
      ValueError: expert is not above random.

    Reference: Fu et al. 2020, arXiv:2004.07219, section 5.
    """
    low, high = reference
    if not high > low:
        raise ValueError(f"reference={reference} must be (random, expert) with expert > random; swap or look them up.")
    return 100.0 * (episode_return - low) / (high - low)
