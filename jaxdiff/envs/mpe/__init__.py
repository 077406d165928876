"""The multi-agent particle environments of OMAR: three learners spread over landmarks, or hunt a prey.

    env = mpe("spread")          # mpe-spread; also "tag" and "world"
    state, obs = env.reset(key)  # obs [3, O]
    state, timestep = env.step(state, action)  # action [3, 2], timestep.reward [3]

`world` moves discs, `tasks` says who sees and earns what, `prey` runs away, `scripted` has behaviours to make data
with. `mpe_prey("tag")`, mpe-tag-prey, is the same task seen from the prey, which learns there.
"""

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

from jaxdiff.envs.mpe.prey import NetworkPrey, PolicyPrey, Prey, prey_network, scripted_prey
from jaxdiff.envs.mpe.scripted import BEHAVIOURS, BEHAVIOURS_OF, Behaviour, with_noise
from jaxdiff.envs.mpe.tasks import (
    NUM_LEARNERS,
    TASKS,
    Task,
    bodies_of,
    observe,
    observe_prey,
    prey_reward,
    reset_state,
    reward,
)
from jaxdiff.envs.mpe.world import Bodies, MPEState, physics_step
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, Spec, TimeStep

__all__ = [
    "BEHAVIOURS",
    "BEHAVIOURS_OF",
    "FORCES",
    "TASKS",
    "Behaviour",
    "MPEState",
    "NetworkPrey",
    "PolicyPrey",
    "mpe",
    "mpe_prey",
    "prey_network",
    "with_noise",
]

MAX_EPISODE_STEPS = 25
FORCES = {"omar": 2, "openai": 1}  # how often actions are multiplied by the acceleration
# (random, expert) returns. OMAR's, arXiv:2111.11188, hold with its own prey; spread has none.
OMAR_SCORES: dict[str, tuple[float, float]] = {
    "spread": (159.8, 516.8),
    "tag": (-4.1, 185.6),
    "world": (-6.8, 79.5),
}
# With the scripted prey, see `mpe`.
SCRIPTED_SCORES: dict[str, tuple[float, float]] = {"tag": (-5.90, 99.05), "world": (-7.02, 45.11)}
PREY_SCORES: dict[str, tuple[float, float]] = {"tag": (-130.87, -118.00), "world": (-98.68, -61.72)}  # see `mpe_prey`


def mpe(
    task: str,
    *,
    force: str = "omar",
    speed_scale: float = 1.0,
    sensitivity_scale: float = 1.0,
    prey: str | Prey = "scripted",
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> Env:
    """Three learners: cover three landmarks (spread), or hunt one prey (tag; world has forests and food besides).

    Observations and rewards are those of the state after a step: `tasks.observe`, `tasks.reward`. An episode never
    terminates; it is truncated after `max_episode_steps`. The prey sees what the learners see and acts with them.

    Scores. In spread they are OMAR's (159.8, 516.8), and so in tag and world where the prey is OMAR's own network, one
    that is `published`. With the scripted prey they are measured here, over 20,000 episodes: the return of uniform
    actions, and of `lead_chase` with 10 % uniform actions, as the card of
    `jaxdiff data make mpe-tag --quality=random --seed=1 --steps=500000 --out=FILE.hdf5` has it, and of the same with
    `--quality=expert --noise=0.1`. Scores are kept under the two scales, which are there to test a policy that was
    trained without, and are None with another prey, clock or force in tag and world.

    Args:
      task: spread, tag or world.
      force: "omar" multiplies actions by the acceleration twice (force 9 of predators, 16 of the prey), as OMAR's
        version does; "openai" once (3 and 4), as the original and its descendants do. Spread is the same either way.
      speed_scale: times the learners' maximal speed. In spread there is none, and the speed is what the force makes it,
        2 per axis at most: there the force is scaled, so that speeds scale away from contacts.
      sensitivity_scale: times the learners' force.
      prey: "scripted", or obs [14] (tag) or [22] (world) -> action [2], such as a `prey_network` or a
        `PolicyPrey`; pure, jit-able.
      max_episode_steps: clock of the episode.

    Returns:
      Env with obs [3, 18], [3, 16] or [3, 24], action [3, 2], reward [3]. `spec.name` is mpe-TASK, with -omar where
      the prey is OMAR's, -network where it is another network, -trained a policy and -custom another function.
      `facts` holds task, force, prey, and radius, collides and max_speed of all bodies.

    Raises:
      KeyError: an unknown task, force or prey.
      ValueError: a scale that is not positive and finite, a clock below 1; a prey in spread, or one that does not
        turn what it sees into 2 numbers.
    """
    chosen = _task(task, force, max_episode_steps, speed_scale=speed_scale, sensitivity_scale=sensitivity_scale)
    hunted = _prey(task, chosen, prey)
    kind = _kind(prey)
    bodies = bodies_of(chosen, power=FORCES[force], speed_scale=speed_scale, sensitivity_scale=sensitivity_scale)

    def reset(key: Key) -> tuple[MPEState, Array]:
        state = reset_state(key, chosen)
        return state, observe(chosen, state)

    def step(state: MPEState, action: Array) -> tuple[MPEState, TimeStep]:
        if hunted is not None:
            own = hunted(observe_prey(chosen, state)).astype(action.dtype)
            action = jnp.concatenate([action, own[None]])
        position, velocity = physics_step(state.position, state.velocity, state.landmarks, action, bodies)
        state = MPEState(position, velocity, state.landmarks, state.time + 1)
        truncated = state.time >= max_episode_steps
        return state, TimeStep(observe(chosen, state), reward(chosen, state), jnp.array(False), truncated)

    is_usual = max_episode_steps == MAX_EPISODE_STEPS and (force == "omar" or hunted is None)
    scores = {"scripted": SCRIPTED_SCORES, "omar": OMAR_SCORES}.get(kind, {}) if hunted else OMAR_SCORES
    spec = Spec(
        name=f"mpe-{task}" + ("" if kind == "scripted" else f"-{kind}"),
        obs_dim=chosen.obs_dim,
        action_dim=2,
        max_episode_steps=max_episode_steps,
        num_agents=NUM_LEARNERS,
        reference_scores=scores.get(task) if is_usual else None,
    )
    return Env(reset, step, spec, _facts(task, force, kind if hunted else "none", bodies))


def mpe_prey(
    task: str,
    *,
    chasers: str = "lead_chase",
    noise: float = 0.0,
    force: str = "omar",
    speed_scale: float = 1.0,
    sensitivity_scale: float = 1.0,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> Env:
    """Tag or world as the prey meets it: the one who learns, hunted by three scripted predators.

    What is learnt here is a prey of `mpe`: the same physics, what it sees and does the same; it earns `prey_reward`.
    Scores: 0 is the return of uniform actions, 100 that of the scripted prey, both over 20,000 episodes of the task
    with its usual options; with others there are none.

    Args:
      task: tag or world.
      chasers: the predators' script, of `BEHAVIOURS_OF`.
      noise: chance in [0, 1] that a predator's action is replaced by a uniform one.
      force, speed_scale, sensitivity_scale, max_episode_steps: see `mpe`; the scales are the predators'.

    Returns:
      Env without agents, obs [14] or [22], action [2], `spec.name` mpe-TASK-prey; `facts` as in `mpe`, and chasers.

    Raises:
      KeyError, ValueError: as `mpe`; spread, which has no prey; chasers that do not hunt; noise out of range.
    """
    chosen = _task(task, force, max_episode_steps, speed_scale=speed_scale, sensitivity_scale=sensitivity_scale)
    if not chosen.prey_obs_dim:
        raise ValueError(f"mpe_prey: nobody is hunted in {task}; choose tag or world.")
    if chasers not in BEHAVIOURS_OF[task]:
        raise unknown_name("chasers", chasers, BEHAVIOURS_OF[task])
    if not 0.0 <= noise <= 1.0:
        raise ValueError(f"noise={noise} is a chance, from 0 to 1.")
    hunt = with_noise(BEHAVIOURS[chasers], noise)
    bodies = bodies_of(chosen, power=FORCES[force], speed_scale=speed_scale, sensitivity_scale=sensitivity_scale)

    def reset(key: Key) -> tuple[tuple[MPEState, Key], Array]:
        key_reset, key_hunt = jax.random.split(key)
        state = reset_state(key_reset, chosen)
        return (state, key_hunt), observe_prey(chosen, state)

    def step(carry: tuple[MPEState, Key], action: Array) -> tuple[tuple[MPEState, Key], TimeStep]:
        state, key_hunt = carry
        hunted = hunt.act(jax.random.fold_in(key_hunt, state.time), (), state)[0]  # scripts that hunt have no memory
        together = jnp.concatenate([hunted, action[None]])
        position, velocity = physics_step(state.position, state.velocity, state.landmarks, together, bodies)
        state = MPEState(position, velocity, state.landmarks, state.time + 1)
        truncated = state.time >= max_episode_steps
        timestep = TimeStep(observe_prey(chosen, state), prey_reward(chosen, state), jnp.array(False), truncated)
        return (state, key_hunt), timestep

    usual = ("lead_chase", 0.0, "omar", 1.0, 1.0, MAX_EPISODE_STEPS)
    is_usual = (chasers, noise, force, speed_scale, sensitivity_scale, max_episode_steps) == usual
    spec = Spec(
        name=f"mpe-{task}-prey",
        obs_dim=chosen.prey_obs_dim,
        action_dim=2,
        max_episode_steps=max_episode_steps,
        reference_scores=PREY_SCORES[task] if is_usual else None,
    )
    return Env(reset, step, spec, {**_facts(task, force, "learner", bodies), "chasers": chasers})


def _task(task: str, force: str, max_episode_steps: int, **scales: float) -> Task:
    """The constants of a task; raises as `mpe`."""
    if task not in TASKS:
        raise unknown_name("task of mpe", task, TASKS)
    if force not in FORCES:
        raise unknown_name("force", force, FORCES)
    for name, scale in scales.items():
        if not 0.0 < scale < math.inf:
            raise ValueError(f"{name}={scale} must be positive and finite; 1 leaves the task as it is.")
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1; {MAX_EPISODE_STEPS} is usual.")
    return TASKS[task]


def _prey(name: str, task: Task, prey: str | Prey) -> Callable[[Array], Array] | None:
    """The prey's policy, None in spread; raises as `mpe`."""
    if isinstance(prey, str):
        if prey != "scripted":
            raise unknown_name("prey", prey, ["scripted"])
        return scripted_prey(task) if task.prey_obs_dim else None
    if not task.prey_obs_dim:
        raise ValueError(f"prey={prey} has no use in mpe-{name}, where nobody is hunted; leave it out.")
    if isinstance(prey, NetworkPrey | PolicyPrey) and prey.obs_dim != task.prey_obs_dim:
        raise ValueError(
            f"the prey of mpe-{name} sees {task.prey_obs_dim} numbers and the given one reads {prey.obs_dim}; "
            "each of the two tasks has a prey of its own."
        )
    answer = jax.eval_shape(prey, jax.ShapeDtypeStruct((task.prey_obs_dim,), jnp.float32))
    if getattr(answer, "shape", None) != (2,):
        raise ValueError(f"prey: what it sees [{task.prey_obs_dim}] must become an action [2], got {answer}.")
    return prey


def _kind(prey: str | Prey) -> str:
    """How the task's name and facts call the prey."""
    if isinstance(prey, str):
        return prey
    if isinstance(prey, NetworkPrey):
        return "omar" if prey.published else "network"
    return "trained" if isinstance(prey, PolicyPrey) else "custom"


def _facts(task: str, force: str, prey: str, bodies: Bodies) -> dict[str, object]:
    return {
        "task": task,
        "force": force,
        "prey": prey,
        "radius": list(bodies.radius),
        "collides": list(bodies.collides),
        "max_speed": [None if math.isinf(speed) else speed for speed in bodies.max_speed],
    }
