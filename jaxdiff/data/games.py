"""Joint actions for the coordination games, and the rows they make when they are played.

    index = joint_choices(seed, XOR_CHOICES["02_20"], (num_episodes, 50))    # [E, 50, 2]
    columns = play(env, encode_onehot(index, 2), num_steps)

Everything is drawn by numpy and played on the environment that is handed in. The mixed datasets hold several ways to
act that are good together and bad across: what a model of every agent alone cannot keep apart.

Reference: the datasets of XOR follow Matsunaga et al. 2023, AlberDICE, arXiv:2311.02194, in their statistics.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.data.columns import Columns
from jaxdiff.types import Array, Env, PyTree, TimeStep

# Joint actions (agent 0's, agent 1's), all as likely; in the names an action counts 0, 2 for 0, 1.
XOR_CHOICES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "02": ((0, 1),),
    "02_20": ((0, 1), (1, 0)),
    "00_02_20": ((0, 0), (0, 1), (1, 0)),
    "random": ((0, 0), (0, 1), (1, 0), (1, 1)),
}
ASSIGNMENT_STD = 0.05  # of the points around a landmark, per axis
MAX_PLAN_STEPS = 1000


def joint_choices(seed: int, choices: Sequence[Sequence[int]], shape: tuple[int, ...]) -> np.ndarray:
    """Joint actions drawn from `choices` [K, A] with equal chance: [*shape, A] int."""
    table = np.array(choices)
    return table[np.random.default_rng(seed).integers(len(table), size=shape)]


def assignments(seed: int, landmarks: np.ndarray, num_points: int) -> np.ndarray:
    """Every agent near a landmark of its own, who where being drawn anew for every point.

    action_i = clip(landmark_{p(i)} + 0.05 N(0, I), -1, 1),  p a random permutation

    Args:
      seed: of numpy's default_rng.
      landmarks: [A, 2].
      num_points: N.

    Returns:
      [N, A, 2] float32.
    """
    generator = np.random.default_rng(seed)
    owner = generator.permuted(np.tile(np.arange(len(landmarks)), (num_points, 1)), axis=1)
    noise = ASSIGNMENT_STD * generator.standard_normal((num_points, *np.shape(landmarks)))
    return np.clip(np.asarray(landmarks)[owner] + noise, -1.0, 1.0).astype(np.float32)


def mixture_samples(seed: int, modes: np.ndarray, weights: np.ndarray, std: float, num_points: int) -> np.ndarray:
    """Samples of sum_m w_m N(mu_m, std**2 I), one coordinate per agent, clipped to [-1, 1].

    Args:
      seed: of numpy's default_rng.
      modes: [M, A], the means.
      weights: [M], summing to 1.
      std: per coordinate.
      num_points: N.

    Returns:
      [N, A, 1] float32.
    """
    generator = np.random.default_rng(seed)
    mode = generator.choice(len(modes), size=num_points, p=weights)
    points = np.asarray(modes)[mode] + std * generator.standard_normal((num_points, np.shape(modes)[1]))
    return np.clip(points, -1.0, 1.0).astype(np.float32)[..., None]


def cheapest_plans(following: np.ndarray, cost: np.ndarray, start: int) -> np.ndarray:
    """All sequences of actions of least total cost from `start` to a state without cost, by dynamic programming.

    V(s) = 0 where c(s) = 0, else c(s) + min_a V(s');  a plan takes every s' with V(s') = V(s) - c(s)

    Plans are told apart by their states: of the actions that lead to one state the lowest is taken.

    Args:
      following: [S, K] int, the next state.
      cost: [S] of leaving a state, not negative; 0 marks the goals.
      start: a state.

    Returns:
      [P, H] int, H the length of the longest; shorter ones end in zeros.

    Raises:
      ValueError: no goal within reach.
    """
    value = np.where(cost == 0, 0.0, np.inf)
    for _ in range(MAX_PLAN_STEPS):
        updated = np.where(cost == 0, 0.0, cost + value[following].min(axis=1))
        if np.array_equal(updated, value):
            break
        value = updated
    if not np.isfinite(value[start]):
        raise ValueError(f"no state without cost can be reached from {start} within {MAX_PLAN_STEPS} steps.")
    plans: list[list[int]] = []
    unfinished: list[tuple[int, list[int]]] = [(start, [])]
    while unfinished:
        state, plan = unfinished.pop()
        if cost[state] == 0:
            plans.append(plan)
            continue
        reached, action = np.unique(following[state], return_index=True)
        best = np.isclose(value[reached], value[state] - cost[state])
        unfinished += [(int(s), [*plan, int(a)]) for s, a in zip(reached[best], action[best], strict=True)]
    longest = max(map(len, plans))
    return np.array(sorted(plan + [0] * (longest - len(plan)) for plan in plans))


def planned(seed: int, plans: np.ndarray, num_episodes: int) -> np.ndarray:
    """Plans [P, H, A] drawn with equal chance: [E, H, A]."""
    return plans[np.random.default_rng(seed).integers(len(plans), size=num_episodes)]


def alternate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Episodes [E, H, A] and [E, h, A] in turns, the first's first, so that a cut anywhere leaves halves.

    Returns:
      [2 E, max(H, h), A]; the shorter ones end in zeros.
    """
    horizon = max(first.shape[1], second.shape[1])
    padded = [np.pad(x, ((0, 0), (0, horizon - x.shape[1]), (0, 0))) for x in (first, second)]
    return np.stack(padded, axis=1).reshape(-1, horizon, first.shape[2])


def play(env: Env, action: np.ndarray | Array, num_steps: int) -> Columns:
    """Plays episodes side by side and lays their rows end to end, each up to its own end.

    Args:
      env: a task with agents whose reset draws nothing.
      action: [E, H, A, U]; an episode must end within H steps, what is left of it then is not played.
      num_steps: N, at least 2: rows to keep; the episode they end in is cut there by a time limit.

    Returns:
      Columns with true next_obs: [N, A, ...].

    Raises:
      ValueError: num_steps < 2; an episode that does not end in time; fewer rows than num_steps.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps={num_steps} must be at least 2; 200000 is usual.")
    obs, timestep = jax.jit(_episodes(env))(jnp.asarray(action))
    ends = np.asarray(timestep.terminated | timestep.truncated)
    if not ends.any(axis=1).all():
        raise ValueError(
            f"{int((~ends.any(axis=1)).sum())} of {len(ends)} episodes do not end in {ends.shape[1]} steps."
        )
    lived = np.cumsum(ends, axis=1) - ends == 0
    if lived.sum() < num_steps:
        raise ValueError(f"{len(ends)} episodes have {lived.sum()} rows, num_steps={num_steps}; play more episodes.")
    rows = [np.asarray(x)[lived][:num_steps] for x in (obs, action, *timestep)]
    seen, chosen, next_obs, reward, terminated, truncated = rows
    truncated[-1] |= not terminated[-1]
    return Columns(
        obs=seen,
        action=chosen,
        reward=reward,
        terminated=np.tile(terminated[:, None], reward.shape[1]),
        truncated=truncated,
        next_obs=next_obs,
    )


def _episodes(env: Env) -> Callable[[Array], tuple[Array, TimeStep]]:
    """actions [E, H, A, U] -> (obs [E, H, A, O], TimeStep [E, H, ...])."""

    def step(carry: tuple[PyTree, Array], action: Array) -> tuple[tuple[PyTree, Array], tuple[Array, TimeStep]]:
        state, obs = carry
        state, timestep = env.step(state, action)
        return (state, timestep.obs), (obs, timestep)

    def episode(action: Array) -> tuple[Array, TimeStep]:
        return jax.lax.scan(step, env.reset(jax.random.key(0)), action)[1]

    return jax.vmap(episode)
