"""Brax's bodies driven by several agents, each of which moves some joints and sees those nearby.

    mabrax-halfcheetah-2x3    2 agents of 3 joints: the back leg, the front leg
    mabrax-halfcheetah-6x1    one agent per joint
    mabrax-ant-2x4            2 agents of two legs each: 1 and 2, 3 and 4
    mabrax-ant-4x2            one agent per leg
    mabrax-hopper-3x1         one agent per joint
    mabrax-walker2d-2x3       2 agents of one leg each

Two joints are neighbours where one body part ends at both: the shin is between knee and ankle, the torso between all
hips. An agent sees the angles and speeds of the joints at most `obsk` steps from one of its own. Physics and reward are
those of `brax_env`, and every agent has the body's reward.

Reference: the factorisations are those of Multi-Agent MuJoCo (Peng et al. 2021, FACMAC, arXiv:2003.06709); what an
agent sees is put together as there in kind, not in order.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.brax_env import BraxState, brax_locomotion
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, Spec, TimeStep


class Body(NamedTuple):
    """What an observation of brax's contains: root positions, joint angles, root velocities, joint velocities."""

    parents: Mapping[str, str]  # joint -> the joint it hangs from, "" for the torso, in the order of observations
    actuators: tuple[str, ...]  # joints in the order of actions
    root_positions: int  # numbers: height and angle, or height and a quaternion
    root_velocities: int


class Factorisation(NamedTuple):
    """Who sees and moves what, as indices into the body's own vectors."""

    joints: tuple[tuple[str, ...], ...]  # [A][U] own joints
    obs_index: np.ndarray  # [A, o] int, -1 where a neighbourhood is smaller than the largest: the agent sees 0
    action_index: np.ndarray  # [A, U] int, the actuator that a number drives

    def split_obs(self, obs: Array) -> Array:
        """The body's observation [*B, O] as the agents see it: [*B, A, o]."""
        return jnp.where(jnp.asarray(self.obs_index) < 0, 0.0, obs[..., self.obs_index])

    def split_action(self, action: Array) -> Array:
        """The body's action [*B, J] as the agents' own [*B, A, U]."""
        return action[..., self.action_index]

    def join_action(self, action: Array) -> Array:
        """The agents' actions [*B, A, U] as the body's [*B, J]."""
        flat = action.reshape(*action.shape[:-2], -1)
        return flat[..., np.argsort(self.action_index.ravel())]


_WALKER = {
    "thigh": "", "leg": "thigh", "foot": "leg",
    "thigh_left": "", "leg_left": "thigh_left", "foot_left": "leg_left",
}  # fmt: skip
_CHEETAH = {"bthigh": "", "bshin": "bthigh", "bfoot": "bshin", "fthigh": "", "fshin": "fthigh", "ffoot": "fshin"}
_ANT = {name: "" if name.startswith("hip") else f"hip_{i}" for i in range(1, 5) for name in (f"hip_{i}", f"ankle_{i}")}
BODIES: Mapping[str, Body] = {
    "hopper": Body({"thigh": "", "leg": "thigh", "foot": "leg"}, ("thigh", "leg", "foot"), 2, 3),
    "halfcheetah": Body(_CHEETAH, tuple(_CHEETAH), 2, 3),
    "walker2d": Body(_WALKER, tuple(_WALKER), 2, 3),
    "ant": Body(_ANT, tuple(f"{joint}_{i}" for i in (4, 1, 2, 3) for joint in ("hip", "ankle")), 5, 6),
}
# Body and number of agents; joints are shared out in the order of observations.
TASKS: Mapping[str, tuple[str, int]] = {
    "halfcheetah-2x3": ("halfcheetah", 2),
    "halfcheetah-6x1": ("halfcheetah", 6),
    "ant-2x4": ("ant", 2),
    "ant-4x2": ("ant", 4),
    "hopper-3x1": ("hopper", 3),
    "walker2d-2x3": ("walker2d", 2),
}


def mabrax(
    task: str, *, obsk: int = 1, root: bool = True, backend: str = "spring", max_episode_steps: int = 1000
) -> Env:
    """A body of brax's as a team.

    Args:
      task: a key of TASKS.
      obsk: how many steps away from an own joint an agent sees others; 0: its own only.
      root: whether everyone also sees the torso's height, angle and velocities.
      backend: of `brax_env.BACKENDS`.
      max_episode_steps: at least 1.

    Returns:
      Env with obs [A, o], action [A, U] and the body's reward for each agent, [A]. An observation has the angles of its
      joints, own ones first and then by distance, their velocities in the same order, then the root's numbers; agents
      with fewer neighbours than others have zeros there. `facts` tells backend and joints by agent.

    Raises:
      KeyError: unknown task or backend.
      ValueError: obsk < 0; max_episode_steps < 1.
    """
    if task not in TASKS:
        raise unknown_name("task of mabrax", task, TASKS)
    name, num_agents = TASKS[task]
    parts = factorise(name, num_agents, obsk=obsk, root=root)
    body = brax_locomotion(name, backend=backend, max_episode_steps=max_episode_steps)

    def reset(key: Key) -> tuple[BraxState, Array]:
        state, obs = body.reset(key)
        return state, parts.split_obs(obs)

    def step(state: BraxState, action: Array) -> tuple[BraxState, TimeStep]:
        state, timestep = body.step(state, parts.join_action(action))
        reward = jnp.full(num_agents, timestep.reward)
        return state, timestep._replace(obs=parts.split_obs(timestep.obs), reward=reward)

    spec = Spec(
        name=f"mabrax-{task}",
        obs_dim=parts.obs_index.shape[1],
        action_dim=parts.action_index.shape[1],
        max_episode_steps=max_episode_steps,
        num_agents=num_agents,
    )
    return Env(reset, step, spec, {**body.facts, "joints": [list(own) for own in parts.joints]})


def factorise(body: str, num_agents: int, *, obsk: int = 1, root: bool = True) -> Factorisation:
    """Shares a body's joints out among agents, in the order of observations; turns data of the body into a team's too.

    Args:
      body: a key of BODIES.
      num_agents: A, a divisor of the number of joints.
      obsk: see `mabrax`.
      root: see `mabrax`.

    Raises:
      KeyError: unknown body.
      ValueError: joints that cannot be shared out evenly; obsk < 0.
    """
    if body not in BODIES:
        raise unknown_name("body", body, BODIES)
    parents, actuators, positions, velocities = BODIES[body]
    names = list(parents)
    if num_agents < 1 or len(names) % num_agents:
        raise ValueError(f"num_agents={num_agents} must divide the {len(names)} joints of {body}.")
    if obsk < 0:
        raise ValueError(f"obsk={obsk} must be at least 0; 0 shows every agent its own joints only.")
    own = np.arange(len(names)).reshape(num_agents, -1)
    distance = _distances(parents)[own].min(axis=1)  # [A, J]
    ranked = np.argsort(distance, axis=1, kind="stable")
    near = np.take_along_axis(distance, ranked, axis=1) <= obsk
    width = int(near.sum(axis=1).max())
    joint, seen = ranked[:, :width], near[:, :width]
    after = positions + len(names) + velocities
    index = [np.where(seen, positions + joint, -1), np.where(seen, after + joint, -1)]
    if root:
        of_root = np.r_[:positions, positions + len(names) : after]
        index.append(np.tile(of_root, (num_agents, 1)))
    return Factorisation(
        joints=tuple(tuple(names[j] for j in agent) for agent in own),
        obs_index=np.concatenate(index, axis=1),
        action_index=np.array([[actuators.index(names[j]) for j in agent] for agent in own]),
    )


def _distances(parents: Mapping[str, str]) -> np.ndarray:
    """Steps [J, J] between joints: 1 to the joint one hangs from, and between two that hang from the torso."""
    names = list(parents)
    count = len(names)
    distance = np.full((count, count), count)
    np.fill_diagonal(distance, 0)
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            if a != b and (parents[a] == b or parents[b] == a or parents[a] == parents[b] == ""):
                distance[i, j] = 1
    for k in range(count):
        distance = np.minimum(distance, distance[:, k, None] + distance[None, k])
    return distance
