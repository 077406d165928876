"""Tasks small enough to solve on paper, to tell which part of an algorithm is broken.

Each isolates one thing, in the order an algorithm must get them right; `SOLUTIONS` holds the answers.

| name | obs s | reward | ends after | V*(s) | isolates |
|---|---|---|---|---|---|
| probe-constant | 0 | 1 | 1 step | 1 | the value loss |
| probe-obs | -1 or 1 | s | 1 step | s | the value network reads obs |
| probe-delay | 0, then 1 | 0, then 1 | 2 steps | discount_factor, 1 | bootstrapping and the discount |
| probe-action | 0 | 1 - (a - 0.5)**2 | 1 step | 1 | the policy improves |
| probe-both | -1 or 1 | s - (a - s/2)**2 | 1 step | s | the policy reads obs |
| probe-bandit | 0 | 0, 1.5, 3, 5 by corner | 1 step | 5 | the policy has several modes |
| probe-recall | -1 or 1, then 0 | at the last step 1 where a s_0 > 0 | 4 steps | see `recall` | the policy remembers |

Every episode ends by termination, so nothing beyond it is bootstrapped. `SOLUTIONS` leaves out probe-recall, whose
answer is no function of the observation.

Reference: the bandit is the toy of Wang et al. 2023, Diffusion-QL, arXiv:2208.06193, section 4.
"""

from collections.abc import Callable
from typing import NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.types import Array, Env, Key, Spec, TimeStep

CORNERS = np.array([[-0.8, 0.8], [-0.8, -0.8], [0.8, 0.8], [0.8, -0.8]], np.float32)  # [4, 2] actions
CORNER_REWARDS = np.array([3.0, 0.0, 1.5, 5.0], np.float32)  # [4] mean reward around each corner
CORNER_STD = 0.05  # of the data's actions, per axis; of probe-recall's too
REWARD_STD = 0.5  # of the data's rewards
RECALL_DELAY = 3  # k of probe-recall: steps from the cue to the action that repeats it


@struct.dataclass
class ProbeState:
    """What a probe remembers between steps."""

    obs: Array  # [1]
    time: Array  # [] int32


@struct.dataclass
class RecallState:
    """What probe-recall remembers and the policy must."""

    cue: Array  # [] -1 or 1
    time: Array  # [] int32


class Solution(NamedTuple):
    """What a perfect algorithm finds, unbatched.

    value(obs [1], discount_factor) -> [], the optimal value;
    action_value(obs [1], action [U], discount_factor) -> [], the optimal action-value;
    best_action(obs [1]) -> [U]; zeros where every action is as good.
    """

    value: Callable[[Array, float], Array]
    action_value: Callable[[Array, Array, float], Array]
    best_action: Callable[[Array], Array]


def constant() -> Env:
    """probe-constant: obs 0, reward 1, one step. V* = 1."""
    return _one_step("probe-constant", is_signed=False, reward=lambda obs, action: jnp.ones(()))


def obs() -> Env:
    """probe-obs: obs s is -1 or 1 with equal chance, reward s, one step. V*(s) = s."""
    return _one_step("probe-obs", is_signed=True, reward=lambda obs, action: obs[0])


def delay() -> Env:
    """probe-delay: obs 0 with reward 0, then obs 1 with reward 1, then the end. V*(0) = discount_factor, V*(1) = 1."""

    def step(state: ProbeState, action: Array) -> tuple[ProbeState, TimeStep]:
        del action
        state = ProbeState(obs=jnp.ones(1), time=state.time + 1)
        ended = state.time >= 2
        return state, TimeStep(state.obs, ended.astype(jnp.float32), terminated=ended, truncated=jnp.array(False))

    spec = Spec("probe-delay", obs_dim=1, action_dim=1, max_episode_steps=2)
    return Env(_reset_zero, step, spec)


def action() -> Env:
    """probe-action: obs 0, reward 1 - (a - 0.5)**2, one step. V* = 1 at a = 0.5; a uniform action earns 5/12."""
    return _one_step(
        "probe-action",
        is_signed=False,
        reward=lambda obs, action: 1.0 - (action[0] - 0.5) ** 2,
        reference_scores=(5.0 / 12.0, 1.0),
    )


def both() -> Env:
    """probe-both: obs s is -1 or 1, reward s - (a - s/2)**2, one step. V*(s) = s at a = s/2; uniform earns s - 7/12."""
    return _one_step(
        "probe-both",
        is_signed=True,
        reward=lambda obs, action: obs[0] - (action[0] - 0.5 * obs[0]) ** 2,
        reference_scores=(-7.0 / 12.0, 0.0),
    )


def bandit() -> Env:
    """probe-bandit: obs 0, action [2], reward the mean of the nearest corner, one step. V* = 5; uniform earns 2.375.

    The corner in the quadrant (sign a0, sign a1) is the nearest: (-, +) pays 3, (-, -) 0, (+, +) 1.5, (+, -) 5.
    `bandit_corners` is data for it; its rewards are noisy, the task's are not.
    """
    return _one_step(
        "probe-bandit",
        is_signed=False,
        reward=lambda obs, action: _corner_reward(action),
        action_dim=2,
        reference_scores=(2.375, 5.0),
        facts={"corners": CORNERS.tolist(), "rewards": CORNER_REWARDS.tolist()},
    )


def bandit_corners(seed: int, *, num_points: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Data of the bandit: a quarter of the points around each corner.

    action = clip(corner + 0.05 N(0, I), -1, 1),  reward = mean of the corner + 0.5 N(0, 1)

    The other columns of a dataset are constant: obs and next_obs 0 of width 1, terminated True, truncated False.
    The points come corner by corner, in the order of CORNERS.

    Args:
      seed: of numpy's default_rng.
      num_points: N, a positive multiple of 4.

    Returns:
      (action [N, 2] in [-1, 1], reward [N]), float32.

    Raises:
      ValueError: num_points is not a positive multiple of 4.
    """
    if num_points < 4 or num_points % 4:
        raise ValueError(f"num_points={num_points} must be a positive multiple of 4, one quarter per corner")
    generator = np.random.default_rng(seed)
    corner = np.repeat(np.arange(4), num_points // 4)
    actions = CORNERS[corner] + CORNER_STD * generator.standard_normal((num_points, 2))
    rewards = CORNER_REWARDS[corner] + REWARD_STD * generator.standard_normal(num_points)
    return np.clip(actions, -1.0, 1.0).astype(np.float32), rewards.astype(np.float32)


def recall(delay: int = RECALL_DELAY) -> Env:
    """probe-recall: a cue is shown once, and the action k steps later must have its sign.

    The first observation is the cue c, -1 or 1 with equal chance; the k others are 0. Step k, the last, pays 1 where
    a_k c > 0, and every other step 0: a return is 1 (success) or 0.

    Whatever a policy does, it succeeds with chance 1/2 at most, unless it is shown step 0 when it decides on a_k:
    given what it is shown otherwise (zeros) and its own noise, a_k is independent of c, so

    P(a_k c > 0) = P(c = 1) P(a_k > 0) + P(c = -1) P(a_k < 0) = (1 - P(a_k = 0)) / 2 <= 1/2,

    with equality for every policy that never answers exactly 0. So a policy that sees its last h <= k observations is
    at chance, whatever its network and training; from h = k + 1 on, a_k = s_0 always succeeds. (A chunk of more than k
    actions decides on a_k at step 0, and needs no memory either.)

    Args:
      delay: k >= 1; an episode has k + 1 steps.

    Raises:
      ValueError: delay < 1.
    """
    _check_delay(delay)

    def reset(key: Key) -> tuple[RecallState, Array]:
        cue = jnp.where(jax.random.bernoulli(key), jnp.float32(1.0), -1.0)
        return RecallState(cue, jnp.int32(0)), cue[None]

    def step(state: RecallState, action: Array) -> tuple[RecallState, TimeStep]:
        ended = state.time >= delay
        reward = (ended & (action[0] * state.cue > 0.0)).astype(jnp.float32)
        after = RecallState(state.cue, state.time + 1)
        return after, TimeStep(jnp.zeros(1), reward, terminated=ended, truncated=jnp.array(False))

    spec = Spec("probe-recall", obs_dim=1, action_dim=1, max_episode_steps=delay + 1, reference_scores=(0.5, 1.0))
    return Env(reset, step, spec, {"delay": delay})


def recall_episodes(seed: int, *, num_episodes: int = 1000, delay: int = RECALL_DELAY) -> dict[str, np.ndarray]:
    """Data of the recall task: an expert that answers with half the cue at every step, and so always succeeds.

    action = clip(c / 2 + 0.05 N(0, 1), -1, 1)

    Nothing but step 0 tells the cue, since actions are not observed. `np.savez(FILE, **recall_episodes(0))` is a
    dataset that `jaxdiff train` reads.

    Args:
      seed: of numpy's default_rng.
      num_episodes: half of them, rounded down, have the cue 1.
      delay: k >= 1.

    Returns:
      Columns under D4RL's names, N = num_episodes (k + 1) rows in the order they were lived: observations and
      next_observations [N, 1], actions [N, 1], rewards [N], float32; terminals and timeouts [N], bool.

    Raises:
      ValueError: delay < 1 or num_episodes < 2.
    """
    _check_delay(delay)
    if num_episodes < 2:
        raise ValueError(f"num_episodes={num_episodes} must be at least 2, one per cue")
    generator = np.random.default_rng(seed)
    cue = generator.permutation(np.where(np.arange(num_episodes) < num_episodes // 2, 1.0, -1.0))
    obs, last = np.zeros((num_episodes, delay + 1)), np.zeros((num_episodes, delay + 1), bool)
    obs[:, 0], last[:, -1] = cue, True
    noise = CORNER_STD * generator.standard_normal(obs.shape)
    action = np.clip(0.5 * cue[:, None] + noise, -1.0, 1.0).astype(np.float32)
    return {
        "observations": obs.reshape(-1, 1).astype(np.float32),
        "next_observations": np.zeros((obs.size, 1), np.float32),
        "actions": action.reshape(-1, 1),
        "rewards": (last & (action * cue[:, None] > 0.0)).reshape(-1).astype(np.float32),
        "terminals": last.reshape(-1),
        "timeouts": np.zeros(last.size, bool),
    }


def _check_delay(delay: int) -> None:
    if delay < 1:
        raise ValueError(f"delay={delay} must be at least 1; at 0 the cue is still in sight")


def _corner_reward(action: Array) -> Array:
    distance = jnp.sum((action[None, :] - CORNERS) ** 2, axis=-1)
    return jnp.asarray(CORNER_REWARDS)[jnp.argmin(distance)]


def _reset_zero(key: Key) -> tuple[ProbeState, Array]:
    del key
    state = ProbeState(obs=jnp.zeros(1), time=jnp.int32(0))
    return state, state.obs


def _reset_sign(key: Key) -> tuple[ProbeState, Array]:
    sign = jnp.where(jax.random.bernoulli(key), jnp.float32(1.0), -1.0)
    state = ProbeState(obs=sign[None], time=jnp.int32(0))
    return state, state.obs


def _one_step(
    name: str,
    *,
    is_signed: bool,
    reward: Callable[[Array, Array], Array],
    action_dim: int = 1,
    reference_scores: tuple[float, float] | None = None,
    facts: dict[str, object] | None = None,
) -> Env:
    """A task that ends after its first action; obs is 0, or a fair sign when `is_signed`."""

    def step(state: ProbeState, action: Array) -> tuple[ProbeState, TimeStep]:
        earned = reward(state.obs, jnp.clip(action, -1.0, 1.0))
        after = ProbeState(obs=state.obs, time=state.time + 1)
        return after, TimeStep(state.obs, earned, terminated=jnp.array(True), truncated=jnp.array(False))

    spec = Spec(name, obs_dim=1, action_dim=action_dim, max_episode_steps=1, reference_scores=reference_scores)
    return Env(_reset_sign if is_signed else _reset_zero, step, spec, facts or {})


def _indifferent(value: Callable[[Array, float], Array]) -> Solution:
    """The solution of a task where the action changes nothing."""
    return Solution(value, lambda obs, action, discount_factor: value(obs, discount_factor), lambda obs: jnp.zeros(1))


SOLUTIONS: dict[str, Solution] = {
    "probe-constant": _indifferent(lambda obs, discount_factor: jnp.ones(())),
    "probe-obs": _indifferent(lambda obs, discount_factor: obs[0]),
    "probe-delay": _indifferent(lambda obs, discount_factor: jnp.where(obs[0] < 0.5, discount_factor, 1.0)),
    "probe-action": Solution(
        value=lambda obs, discount_factor: jnp.ones(()),
        action_value=lambda obs, action, discount_factor: 1.0 - (action[0] - 0.5) ** 2,
        best_action=lambda obs: jnp.full(1, 0.5),
    ),
    "probe-both": Solution(
        value=lambda obs, discount_factor: obs[0],
        action_value=lambda obs, action, discount_factor: obs[0] - (action[0] - 0.5 * obs[0]) ** 2,
        best_action=lambda obs: 0.5 * obs,
    ),
    "probe-bandit": Solution(
        value=lambda obs, discount_factor: jnp.float32(5.0),
        action_value=lambda obs, action, discount_factor: _corner_reward(action),
        best_action=lambda obs: jnp.asarray(CORNERS[3]),
    ),
}
