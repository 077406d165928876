"""Floor 0: the words every room shares.

Shape letters, used in every docstring and field comment of the package:
L lanes, S seeds, A agents, B batch, H horizon, C chunk, O observation, U action, E critics, K updates, N transitions;
`*B` is any number of leading axes, none included. Features are always last.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

from flax import struct
import jax

Array = jax.Array
Key = jax.Array  # a typed key, jax.random.key(...)
PyTree = Any
Metrics = dict[str, Array]  # name -> scalar, one number per update


@struct.dataclass
class Transition:
    """One step of experience, or a batch of them."""

    obs: Array  # [*B, O]
    action: Array  # [*B, U] in [-1, 1]
    reward: Array  # [*B]
    discount: Array  # [*B] 1 - terminated: 0 where the task ended, 1 elsewhere, time limits included
    next_obs: Array  # [*B, O]


@struct.dataclass
class Rollout:
    """What E environments lived through in T decisions of the newest policy, in order."""

    batch: PyTree  # [T, E, ...] `Transition`, or what the algorithm's `window` says
    ended: Array  # [T, E] 1 where the episode ended with this decision, by its task or by its clock
    record: PyTree  # [T, E, ...] what `decide` gave beside the action


@struct.dataclass
class Trajectory:
    """Episodes as the evaluator returns them, padded to one length."""

    obs: Array  # [*B, H, O]
    action: Array  # [*B, H, U]
    reward: Array  # [*B, H], 0 after the episode's end
    mask: Array  # [*B, H] 1 while the episode runs, its last step included


@dataclasses.dataclass(frozen=True)
class Region:
    """A named box in the first numbers of an observation: a room of a maze, for example."""

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Spec:
    """Static facts about a task: hashable, so it can select a compiled program.

    Actions are always in [-1, 1]; an adapter whose simulator wants another range rescales inside.
    """

    name: str
    obs_dim: int
    action_dim: int
    max_episode_steps: int
    num_agents: int | None = None  # None: no agent axis; otherwise arrays carry [A, ...] before features
    reference_scores: tuple[float, float] | None = None  # (random, expert) returns: normalised scores 0 and 100
    history: int = 1  # obs holds so many observations in a row, oldest first, each of obs_dim / history numbers
    goal: tuple[float, ...] | None = None  # the observation to arrive at, where the task has one that never changes
    goal_dim: int = 0  # the last so many numbers of obs are this episode's goal, for the first so many numbers of obs
    regions: tuple[Region, ...] = ()  # what a plan may be asked to visit or to avoid
    num_actions: int | None = None  # discrete tasks: an action is scores, of which the task takes the best allowed one
    mask_dim: int = 0  # the last so many numbers of obs say which actions are allowed: 1, or 0 for those that are not


@struct.dataclass
class TrainState:
    """Everything that changes while training, and nothing else: no functions, no optimiser objects.

    Hyperparameters are inside, traced: one leading axis over the whole state is the sweep, the seeds or the agents.
    """

    step: Array  # [] int32, updates applied so far
    params: PyTree
    target_params: PyTree
    opt_state: PyTree
    hparams: Any  # a struct.dataclass of float32 scalars


@struct.dataclass
class Plans:
    """Trajectories that a planner would choose from, best first, in the units of the task.

    An observation here is the task's without its goal (`Spec.goal_dim`).
    """

    obs: Array  # [*B, N, H, O]; [..., 0, :] is the present
    action: Array  # [*B, N, H, U] in [-1, 1]
    value: Array  # [*B, N] what they are ranked by, 0 where nothing ranks them
    path: Array  # [K + 1, *B, H, O] how the best came out of noise, one row per network call


class Algorithm(NamedTuple):
    """A learning method as pure functions.

    init(key, hparams) -> TrainState
    update(key, state, batch [B]) -> (TrainState, Metrics); the batch is a `Transition`, or see window and decide
    act(key, state, obs [*B, O], memory) -> (action chunk [*B, C, U], memory)
    init_memory(batch_shape) -> memory
    window: what update's batches are, `data.Window` (history, chunk) or `data.Segment`; None: single transitions
    explore: as act, for the online loop; None: act
    decide: (key, state, obs [*B, O], or [*B, h, O] with a window) -> (action chunk [*B, C, U], record [*B, ...]), for
      methods that learn from what the newest policy did: update then takes a `Rollout`. None: any data will do
    fit: (state, dataset) -> state, called once before the first update: what is measured on the data, such as their
      range. None: nothing is
    plan: (key, state, obs [*B, O]) -> Plans, of a planner: what it would choose from, for pictures. None: no planner
    """

    init: Callable[[Key, Any], TrainState]
    update: Callable[[Key, TrainState, Any], tuple[TrainState, Metrics]]
    act: Callable[[Key, TrainState, Array, PyTree], tuple[Array, PyTree]]
    init_memory: Callable[[tuple[int, ...]], PyTree]
    window: Any = None
    explore: Callable[[Key, TrainState, Array, PyTree], tuple[Array, PyTree]] | None = None
    decide: Callable[[Key, TrainState, Array], tuple[Array, PyTree]] | None = None
    fit: Callable[[TrainState, Any], TrainState] | None = None
    plan: Callable[[Key, TrainState, Array], Plans] | None = None


class TimeStep(NamedTuple):
    """What an environment answers to an action.

    With agents everyone has a reward, the team's own one repeated; an episode's return is the mean over agents.
    """

    obs: Array  # [O] or [A, O]
    reward: Array  # [] or [A]
    terminated: Array  # [] bool: the task ended, no bootstrap
    truncated: Array  # [] bool: the clock ended, bootstrap


class Env(NamedTuple):
    """A simulator as two pure functions of one (unbatched) environment; callers vmap.

    reset(key) -> (env_state, obs)
    step(env_state, action) -> (env_state, TimeStep)
    spec: static facts
    facts: names and arrays a picture or a report may want (a maze's walls, a goal); never read by training
    bind(hparams) -> the same task, those of its numbers that are a lane's own taken from its hyperparameters; loops and
      evaluation call it where they are traced. None: the task has no such numbers
    """

    reset: Callable[[Key], tuple[PyTree, Array]]
    step: Callable[[PyTree, Array], tuple[PyTree, TimeStep]]
    spec: Spec
    facts: Mapping[str, Any] = {}
    bind: Callable[[Any], "Env"] | None = None


def bound(env: Env, state: TrainState) -> Env:
    """The task as a lane in this state meets it: `env` itself unless it has numbers of a lane's own."""
    return env if env.bind is None else env.bind(state.hparams)
