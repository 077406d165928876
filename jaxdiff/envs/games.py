"""Games that ask one thing of a team: to choose together. Whoever acts alone loses, and it can be said how much.

| name | agents | an agent's action | pays the team | joint data, agents imitated alone |
|---|---|---|---|---|
| game-xor | 2 | one of 2, 50 times | 1 where they differ | 50 becomes 0 (data of `02_20`) |
| game-bridge | 2 | one of 5, until both have crossed | see `bridge` | |
| game-landmarks | 3 | a point of the plane | 1 where every landmark is covered | 1 becomes 2/9 |
| game-payoff | 2 | one of 3 | an entry of a matrix | |
| game-mixture | 2 | a number | density of a mixture at their pair | modes that are none appear |

The payment is repeated for every agent. Observations are constant but for the bridge's: what is missing is not
knowledge of the state but of what the others do.

Reference: XOR and the bridge are the coordination games of Matsunaga et al. 2023, AlberDICE, arXiv:2311.02194.
"""

from collections.abc import Callable, Sequence
import math

from flax import struct
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.discrete import decode_onehot
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, Spec, TimeStep

XOR_STEPS = 50
XOR_OBS = (0.0, 1.0, 0.0, 1.0)
XOR = ((0.0, 1.0), (1.0, -2.0))  # [agent 0's action][agent 1's]
PAYOFFS: dict[str, tuple[tuple[float, ...], ...]] = {
    # Table 1 of Son et al. 2019, QTRAN, arXiv:1905.05408: no monotone mixture of two utilities has these values.
    "non_monotone": ((8.0, -12.0, -12.0), (-12.0, 0.0, 0.0), (-12.0, 0.0, 0.0)),
    # 8 / 2**(i + j): a product of utilities, so a monotone mixture has these values and a sum has not.
    "monotone": ((8.0, 4.0, 2.0), (4.0, 2.0, 1.0), (2.0, 1.0, 0.5)),
}
LANDMARK_DISTANCE = 0.7  # from the origin
MODES = ((0.5, 0.5), (-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5))  # [M, 2]
MODE_WEIGHTS = (0.4, 0.4, 0.1, 0.1)  # of the quadrants; the product of the two marginals gives each 1/4
MODE_STD = 0.1  # per coordinate


@struct.dataclass
class GameState:
    """The clock; nothing else changes."""

    time: Array  # [] int32


def xor() -> Env:
    """game-xor: 50 rounds of one matrix game. reward = XOR[a0][a1]: 1 where the actions differ, 0 for (0, 0), else -2.

    The clock truncates it. Returns: 50 at best, 0 for uniform actions, and 0 for the product of the marginals of the
    two best answers, (0, 1) and (1, 0).

    Returns:
      Env with obs [2, 4], always (0, 1, 0, 1), and action [2, 2] of scores.
    """
    return _matrix_game("game-xor", np.array(XOR), XOR_OBS, steps=XOR_STEPS, terminates=False)


def payoff(matrix: str | Sequence[Sequence[float]] = "non_monotone") -> Env:
    """game-payoff: one round, reward = matrix[a0][a1].

    Args:
      matrix: a name in PAYOFFS, or n rows of n numbers, n at least 2; rows are agent 0's actions.

    Returns:
      Env with obs [2, 1] of zeros and action [2, n] of scores; named game-payoff, or -monotone, or -custom. Reference
      scores are the mean entry and the largest, and None where the two are equal.

    Raises:
      KeyError: an unknown name.
      ValueError: not a square matrix of finite numbers.
    """
    if isinstance(matrix, str) and matrix not in PAYOFFS:
        raise unknown_name("payoff matrix", matrix, PAYOFFS)
    given = PAYOFFS[matrix] if isinstance(matrix, str) else matrix
    try:
        table = np.array(given, np.float64)
    except ValueError as error:
        raise ValueError(f"matrix={matrix}: {error}; give n rows of n numbers.") from error
    if table.ndim != 2 or table.shape[0] != table.shape[1] or len(table) < 2 or not np.isfinite(table).all():
        raise ValueError(f"matrix={matrix}; give n rows of n finite numbers, n at least 2.")
    kind = matrix if isinstance(matrix, str) else "custom"
    name = "game-payoff" if kind == "non_monotone" else f"game-payoff-{kind}"
    return _matrix_game(name, table, (0.0,), steps=1, terminates=True)


def landmarks(num_agents: int = 3, *, radius: float = 0.2) -> Env:
    """game-landmarks: every agent names a point, and together they must cover all landmarks.

    reward = 1 where each of the A landmarks has an agent within `radius`, else 0; one step.

    The landmarks lie evenly on the circle of radius 0.7 around the origin, the first at (0, 0.7). A return is success:
    A agents that each choose a landmark at random succeed with chance A! / A**A, which is 2/9 for three.

    Args:
      num_agents: A, at least 2.
      radius: such that discs around the landmarks neither touch nor leave the square: at most 0.3, and less for more
        than 7 agents.

    Returns:
      Env with obs [A, 2 A], the landmarks, and action [A, 2]; named game-landmarks, or -A for another number of agents.

    Raises:
      ValueError: fewer than 2 agents; a radius out of range.
    """
    if num_agents < 2:
        raise ValueError(f"num_agents={num_agents} must be at least 2; one agent has nobody to agree with.")
    largest = min(0.3, LANDMARK_DISTANCE * math.sin(math.pi / num_agents))
    if not 0.0 < radius <= largest:
        raise ValueError(f"radius={radius} must be positive and at most {largest:.3f} with {num_agents} landmarks.")
    angle = np.pi / 2 + 2 * np.pi * np.arange(num_agents) / num_agents
    points = LANDMARK_DISTANCE * np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # [A, 2]

    def reward(action: Array) -> Array:
        distance = jnp.linalg.norm(action[:, None, :] - jnp.asarray(points, jnp.float32)[None], axis=-1)
        return (distance <= radius).any(axis=0).all().astype(jnp.float32)

    chance = math.factorial(num_agents) * (math.pi * radius**2 / 4.0) ** num_agents  # of uniform actions
    return _one_step(
        "game-landmarks" if num_agents == 3 else f"game-landmarks-{num_agents}",
        reward,
        obs=points.ravel(),
        num_agents=num_agents,
        action_dim=2,
        reference_scores=(chance, 1.0),
        facts={"landmarks": points.tolist(), "radius": radius},
    )


def mixture() -> Env:
    """game-mixture: two agents, one coordinate each, of a point that is to be likely under a mixture of four Gaussians.

    reward = p(a0, a1) / max p,  p = sum_m w_m N((a0, a1); mu_m, 0.1**2 I);  one step

    The modes are (+-0.5, +-0.5). Quadrants where the signs agree have weight 0.4, the others 0.1; both marginals are
    fair, so agents that are right one by one give every quadrant 1/4.

    Returns:
      Env with obs [2, 1] of zeros and action [2, 1]. A uniform pair earns pi / 80, the mode 1.
    """

    def reward(action: Array) -> Array:
        offset = (action[:, 0][None] - jnp.asarray(MODES, jnp.float32)) / MODE_STD
        near = jnp.exp(-0.5 * jnp.sum(offset**2, axis=-1))
        return jnp.sum(jnp.asarray(MODE_WEIGHTS, jnp.float32) * near) / max(MODE_WEIGHTS)

    return _one_step(
        "game-mixture",
        reward,
        obs=np.zeros(1),
        num_agents=2,
        action_dim=1,
        reference_scores=(math.pi * MODE_STD**2 / (2.0 * max(MODE_WEIGHTS)), 1.0),
        facts={"modes": [list(mode) for mode in MODES], "weights": list(MODE_WEIGHTS), "std": MODE_STD},
    )


def _matrix_game(name: str, matrix: np.ndarray, obs: Sequence[float], *, steps: int, terminates: bool) -> Env:
    """Two agents choose a row and a column, `steps` times."""
    seen = jnp.tile(jnp.array(obs, jnp.float32), (2, 1))

    def step(state: GameState, action: Array) -> tuple[GameState, TimeStep]:
        chosen = decode_onehot(action)
        earned = jnp.asarray(matrix, jnp.float32)[chosen[0], chosen[1]]
        ended = state.time + 1 >= steps
        flags = (ended & terminates, ended & (not terminates))
        return GameState(state.time + 1), TimeStep(seen, jnp.full(2, earned), *flags)

    scores = (steps * float(matrix.mean()), steps * float(matrix.max()))
    spec = Spec(
        name,
        obs_dim=len(obs),
        action_dim=len(matrix),
        max_episode_steps=steps,
        num_agents=2,
        reference_scores=scores if scores[0] < scores[1] else None,
        num_actions=len(matrix),
    )
    return Env(_reset_to(seen), step, spec, {"matrix": matrix.tolist()})


def _one_step(
    name: str,
    reward: Callable[[Array], Array],
    *,
    obs: np.ndarray,
    num_agents: int,
    action_dim: int,
    reference_scores: tuple[float, float],
    facts: dict[str, object],
) -> Env:
    """A continuous task that ends after its first joint action; everyone sees `obs` [O] and earns `reward` []."""
    seen = jnp.tile(jnp.asarray(obs, jnp.float32), (num_agents, 1))

    def step(state: GameState, action: Array) -> tuple[GameState, TimeStep]:
        earned = jnp.full(num_agents, reward(jnp.clip(action, -1.0, 1.0)))
        return GameState(state.time + 1), TimeStep(seen, earned, jnp.array(True), jnp.array(False))

    spec = Spec(
        name,
        obs_dim=len(obs),
        action_dim=action_dim,
        max_episode_steps=1,
        num_agents=num_agents,
        reference_scores=reference_scores,
    )
    return Env(_reset_to(seen), step, spec, facts)


def _reset_to(obs: Array) -> Callable[[Key], tuple[GameState, Array]]:
    """The reset of a task that always starts alike."""

    def reset(key: Key) -> tuple[GameState, Array]:
        del key
        return GameState(jnp.int32(0)), obs

    return reset
