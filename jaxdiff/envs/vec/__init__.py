"""Vehicular edge computing: clients on a road hand parts of their networks to a roadside unit or to other vehicles.

    env = vec()                  # 5 clients, 3 service vehicles
    state, obs = env.reset(key)  # obs [I, 2 J + 1 + n]
    state, timestep = env.step(state, action)  # action [I, n] scores, timestep.reward [I]
    state.outcome.delay          # [I] seconds of the slot that was decided

`offloading` says what a decision costs, `road` where the vehicles are.
"""

from collections.abc import Mapping, Sequence
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.envs.discrete import decode_onehot
from jaxdiff.envs.vec import road as roads
from jaxdiff.envs.vec.road import TRACE_ORIGINS, Road, Traffic
from jaxdiff.offloading import (
    ARCHITECTURES,
    Outcome,
    Profile,
    Slot,
    System,
    decide_slot,
    empty_queues,
    kinds_from_counts,
    legal,
    make_profile,
    rates,
    reachable,
    split_action,
    tables,
)
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Env, Key, Spec, TimeStep

__all__ = ["MAX_EPISODE_STEPS", "TRACE_ORIGINS", "Traffic", "VecState", "make_system", "observe", "vec"]

MAX_EPISODE_STEPS = 30
UNITS = {"work": "GFLOP", "speed": "GHz", "data": "1e6 bytes", "rate": "Mbit/s", "delay": "s", "position": "m"}


@struct.dataclass
class VecState:
    """What is known when deciding on the next slot, and what came of the last one."""

    slot: Slot
    traffic: Traffic
    key: Key  # of the fading to come
    time: Array  # [] int32, slots since reset
    outcome: Outcome  # of the last slot, zeros at reset

    @property
    def positions(self) -> Array:
        """[I + J - 1] metres along the road, clients first."""
        return self.traffic.position


def vec(
    *,
    num_clients: int = 5,
    num_servers: int = 3,
    profiles: Sequence[str | Profile] = tuple(ARCHITECTURES),
    clients_per_type: Sequence[int] | None = None,
    convention: str = "lit",
    v: float = 10.0,
    gamma: str = "exact",
    trace: np.ndarray | None = None,
    trace_origin: str = "rsu",
    coverage: float = 300.0,
    reward_scale: float = 1.0,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    constants: Mapping[str, Any] | None = None,
) -> Env:
    """Each slot every client cuts its network and chooses a node for the rest; all earn minus the slot's objective.

    reward = -reward_scale P2,   P2 = V sum_i delay_i + sum over all queues of Q (arrivals - f tau)

    An action is scores of (L + 1) J choices, L the layers of the deepest network: choice c J + node keeps c layers and
    hands the rest to the node, 0 the roadside unit (RSU). Allowed are cuts that the client's network has, at the RSU
    and at service vehicles within reach. A positive reward is no error: it pays to serve a backlog, which somebody
    paid for before. What passengers feel is `state.outcome.delay`.

    Processors' speeds are drawn once per episode, fading in each slot. An observation is, for client i with network k,

        log(1 + Q_loc,i), log(1 + Q_rsu,k), log(1 + Q_vehicle) [J - 1]     queues in GFLOP
        own position, positions of service vehicles [J - 1]                in units of the coverage
        mask [n]                                                           1 for what is allowed

    An episode never terminates; it is truncated after `max_episode_steps`. `bind` takes V from a lane's
    `lyapunov_weight`, where its hyperparameters have one.

    Args:
      num_clients: I, the agents.
      num_servers: service vehicles, J - 1.
      profiles: the K networks: names of ARCHITECTURES, or Profiles.
      clients_per_type: how many clients run each of them; None: in turn.
      convention: how operations of named networks are counted, see `make_profile`.
      v: V, the weight of delays against backlogs.
      gamma: how the RSU's share is weighed, see `allocation.GAMMAS`.
      trace: [S, I + J - 1] metres, clients first, a row per slot: an episode starts at a random row. None: vehicles on
        a `road.straight`.
      trace_origin: "rsu": the RSU is at x = 0; "fleet": at the mean of each row.
      coverage: of the RSU, metres to each side.
      reward_scale: above 0.
      max_episode_steps: clock of the episode.
      constants: other fields of `System`, such as {"rsu_ghz": 60.0}.

    Returns:
      Env named vec with obs [I, 2 J + 1 + n], action [I, n], reward [I]. `facts` names networks, kinds, depths, nodes,
      coverage and units.

    Raises:
      KeyError: an unknown network, convention, gamma, trace_origin or constant.
      ValueError: a number out of range, counts that do not sum to num_clients, a trace that does not fit.

    Reference: Liu et al. 2025, arXiv:2406.06986. Its roads and speeds come from maps; the straight road is ours.
    """
    for name, value in (("coverage", coverage), ("reward_scale", reward_scale)):
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name}={value} must be positive and finite.")
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps={max_episode_steps} must be at least 1; {MAX_EPISODE_STEPS} is usual.")
    system = make_system(
        num_clients=num_clients,
        num_servers=num_servers,
        profiles=profiles,
        clients_per_type=clients_per_type,
        convention=convention,
        constants={"v": v, "gamma": gamma, **(constants or {})},
    )
    num_vehicles = num_clients + num_servers
    if trace is None:
        road = roads.straight(num_vehicles, coverage, system.slot_seconds)
    else:
        road = roads.recorded(trace, num_vehicles, coverage, max_episode_steps, trace_origin)
    spec = Spec(
        name="vec",
        obs_dim=2 * system.num_nodes + 1 + system.num_actions,
        action_dim=system.num_actions,
        max_episode_steps=max_episode_steps,
        num_agents=num_clients,
        num_actions=system.num_actions,
        mask_dim=system.num_actions,
    )
    return _build(system, road, spec, coverage, reward_scale, None)


def _build(
    system: System, road: Road, spec: Spec, coverage: float, reward_scale: float, v: Array | float | None
) -> Env:
    """The Env, with a V of its own or the system's."""

    def reset(key: Key) -> tuple[VecState, Array]:
        key_road, key_client, key_server, key_fading, key_later = jax.random.split(key, 5)
        traffic = road.start(key_road)
        slot = Slot(
            queues=empty_queues(system),
            **_links(system, traffic, key_fading),
            client_ghz=_speeds(key_client, system.num_clients, system.client_ghz),
            server_ghz=_speeds(key_server, system.num_servers, system.server_ghz),
        )
        state = VecState(slot, traffic, key_later, jnp.int32(0), _nothing_yet(system, slot))
        return state, observe(system, coverage, state)

    def step(state: VecState, action: Array) -> tuple[VecState, TimeStep]:
        chosen = decode_onehot(action, legal(system, state.slot.allowed))
        outcome = decide_slot(system, state.slot, *split_action(chosen, system.num_nodes), v)
        key_fading, key_later = jax.random.split(state.key)
        traffic, time = road.move(state.traffic), state.time + 1
        slot = state.slot.replace(queues=outcome.queues, **_links(system, traffic, key_fading))  # type: ignore[attr-defined]
        state = VecState(slot, traffic, key_later, time, outcome)
        reward = jnp.broadcast_to(-reward_scale * outcome.objective, (system.num_clients,))
        truncated = time >= spec.max_episode_steps
        return state, TimeStep(observe(system, coverage, state), reward, jnp.array(False), truncated)

    def bind(hparams: Any) -> Env:
        weight = getattr(hparams, "lyapunov_weight", None)
        return env if weight is None else _build(system, road, spec, coverage, reward_scale, weight)

    env = Env(reset, step, spec, _facts(system, coverage), bind)
    return env


def make_system(
    *,
    num_clients: int = 5,
    num_servers: int = 3,
    profiles: Sequence[str | Profile] = tuple(ARCHITECTURES),
    clients_per_type: Sequence[int] | None = None,
    convention: str = "lit",
    constants: Mapping[str, Any] | None = None,
) -> System:
    """The System that `vec` has with these arguments; raises as `vec`."""
    for profile in profiles:
        if isinstance(profile, str) and profile not in ARCHITECTURES:
            raise unknown_name("network", profile, ARCHITECTURES)
    built = tuple(make_profile(p, ARCHITECTURES[p], convention) if isinstance(p, str) else p for p in profiles)
    kinds: tuple[int, ...] = ()
    if clients_per_type is not None:
        counts = tuple(clients_per_type)
        kinds = kinds_from_counts(counts)
        if len(counts) != len(built) or len(kinds) != num_clients:
            raise ValueError(
                f"clients_per_type={counts} has {len(counts)} entries and sums to {len(kinds)}; it needs one for each "
                f"of {len(built)} networks, and their sum must be num_clients={num_clients}."
            )
    own: dict[str, Any] = {"num_clients": num_clients, "num_servers": num_servers, "profiles": built, "kinds": kinds}
    free = [name for name in System.__dataclass_fields__ if name not in own]
    for name in constants or {}:
        if name not in free:
            raise unknown_name("constant of vec", name, free)
    return System(**own, **(constants or {}))


def observe(system: System, coverage: float, state: VecState) -> Array:
    """What the clients see, [I, 2 J + 1 + n]; see `vec`."""
    queues, clients = state.slot.queues, system.num_clients
    rsu, position = queues.rsu[tables(system).kind], state.positions
    # J - 1 numbers that all see alike.
    server, places = (jnp.broadcast_to(x, (clients, system.num_servers)) for x in (queues.server, position[clients:]))
    waiting = jnp.log1p(jnp.concatenate([queues.local[:, None], rsu[:, None], server], axis=1))
    where = jnp.concatenate([position[:clients, None], places], axis=1) / coverage
    mask = legal(system, state.slot.allowed).astype(waiting.dtype)
    return jnp.concatenate([waiting, where, mask], axis=1)


def _links(system: System, traffic: Traffic, key: Key) -> dict[str, Array]:
    """Rates and reach of the next slot, by new fading."""
    distance = roads.distances(traffic.position, system.num_clients)
    fading = jax.random.exponential(key, distance.shape)
    return {"rate": rates(system, distance, fading), "allowed": reachable(system, distance)}


def _speeds(key: Key, count: int, ends: tuple[float, float]) -> Array:
    return jax.random.uniform(key, (count,), minval=ends[0], maxval=ends[1])


def _nothing_yet(system: System, slot: Slot) -> Outcome:
    """An outcome of zeros, of the types that a step gives."""
    everything_local = jnp.full(system.num_clients, system.max_depth, jnp.int32)
    shapes = jax.eval_shape(lambda: decide_slot(system, slot, everything_local, jnp.zeros_like(everything_local)))
    zeros: Outcome = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros


def _facts(system: System, coverage: float) -> dict[str, Any]:
    names = [profile.name for profile in system.profiles]
    return {
        "networks": names,
        "layers": [list(profile.layers) for profile in system.profiles],
        "kinds": list(system.kinds),  # index in networks of each client's
        "depths": tables(system).depth.tolist(),
        "clients": [f"client {i + 1} ({names[kind]})" for i, kind in enumerate(system.kinds)],
        "nodes": ["RSU", *(f"vehicle {j + 1}" for j in range(system.num_servers))],
        "num_nodes": system.num_nodes,
        "num_actions": system.num_actions,
        "coverage": coverage,
        "range": system.range_m,
        "rsu_offset": roads.RSU_OFFSET_M,
        "slot_seconds": system.slot_seconds,
        "units": UNITS,
    }
