"""Who is on the road: clients with networks to run, the roadside unit (RSU) and vehicles that lend computing time.

Letters: I clients, J edge nodes (0 is the RSU, 1 .. J - 1 the service vehicles), K networks, c layers kept by a client.
Units: GFLOP, GHz (one operation per cycle, so GFLOP per second), megabyte = 1e6 bytes, Mbit/s, second, metre.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.offloading.allocation import GAMMAS
from jaxdiff.offloading.profiles import Profile, standard_profiles
from jaxdiff.suggest import unknown_name


@dataclasses.dataclass(frozen=True)
class System:
    """Constants of the task; hashable, so it can select a compiled program.

    Reference: Liu et al. 2025, arXiv:2406.06986, table of parameters.
    """

    num_clients: int = 5  # I; the paper has 3 to 7
    num_servers: int = 3  # service vehicles, J - 1; the paper has 3 to 7
    profiles: tuple[Profile, ...] = dataclasses.field(default_factory=standard_profiles)  # K of them
    kinds: tuple[int, ...] = ()  # which profile each client runs; () is round robin in their order
    bandwidth_mhz: float = 10.0
    noise_dbm: float = -114.0
    power_dbm: float = 23.0
    rsu_ghz: float = 30.0  # what the RSU shares out among its K queues
    client_ghz: tuple[float, float] = (4.0, 6.0)  # range from which a vehicle's speed is drawn
    server_ghz: tuple[float, float] = (6.0, 8.0)
    range_m: float = 150.0  # how far a service vehicle can be reached
    slot_seconds: float = 1.0  # tau
    v: float = 10.0  # weight of delays against backlogs; the paper studies 10, 50, 150
    gamma: str = "exact"  # a name of GAMMAS

    def __post_init__(self) -> None:
        for name, least in (("num_clients", 1), ("num_servers", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number of at least {least}.")
        if not self.profiles or not all(isinstance(profile, Profile) for profile in self.profiles):
            raise ValueError(
                f"profiles={self.profiles!r} must be a tuple of at least one Profile; "
                "build them by make_profile or standard_profiles."
            )
        _set(self, "profiles", tuple(self.profiles))
        _set(self, "kinds", _kinds(self.kinds, self.num_clients, len(self.profiles)))
        for name in ("bandwidth_mhz", "rsu_ghz", "range_m", "slot_seconds", "v"):
            if not _is_positive(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} must be finite and above 0.")
        for name in ("noise_dbm", "power_dbm"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r} must be finite: a power in dBm, of either sign.")
        for name in ("client_ghz", "server_ghz"):
            ends = tuple(getattr(self, name))
            if len(ends) != 2 or not all(_is_positive(end) for end in ends) or ends[0] > ends[1]:
                raise ValueError(f"{name}={ends} must be (lowest, highest) with 0 < lowest <= highest, in GHz.")
            _set(self, name, ends)
        if self.gamma not in GAMMAS:
            raise unknown_name("gamma", self.gamma, GAMMAS)

    @property
    def num_nodes(self) -> int:
        """J, the RSU included."""
        return self.num_servers + 1

    @property
    def num_profiles(self) -> int:
        """K, the RSU's queues."""
        return len(self.profiles)

    @property
    def max_depth(self) -> int:
        """Layers of the deepest network that a client runs."""
        return max(self.profiles[kind].depth for kind in self.kinds)

    @property
    def num_actions(self) -> int:
        """(max_depth + 1) J: action c J + node keeps c layers and hands the rest to the node."""
        return (self.max_depth + 1) * self.num_nodes


class Tables(NamedTuple):
    """What each client's network weighs at each cut; beyond a network's depth the last entry is repeated."""

    head: np.ndarray  # [I, max_depth + 1] GFLOP of layers 1 .. c
    tail: np.ndarray  # [I, max_depth + 1] GFLOP of layers c + 1 .. L_i
    data_mb: np.ndarray  # [I, max_depth + 1] what is sent, the input of layer c + 1; 0 where nothing is
    depth: np.ndarray  # [I] int, L_i
    kind: np.ndarray  # [I] int, which profile


def tables(system: System) -> Tables:
    """Tables of a system in float64, the caller's own.

    Computed once per system and copied: JAX remembers the type that a read-only array had when it first saw it, and
    would take float64 for it after `enable_x64` has ended.
    """
    return Tables(*(table.copy() for table in _tables(system)))


@functools.lru_cache(maxsize=64)
def _tables(system: System) -> Tables:
    width = system.max_depth + 1
    rows: list[tuple[np.ndarray, ...]] = []
    for kind in system.kinds:
        profile = system.profiles[kind]
        head = np.concatenate([[0.0], np.cumsum(profile.work_gflop)])
        tail = np.concatenate([np.cumsum(profile.work_gflop[::-1])[::-1], [0.0]])
        data = np.concatenate([profile.data_mb, [0.0]])
        rows.append(tuple(np.pad(row, (0, width - row.size), mode="edge") for row in (head, tail, data)))
    head, tail, data = (np.stack(column) for column in zip(*rows, strict=True))
    depth = np.array([system.profiles[kind].depth for kind in system.kinds])
    return Tables(head, tail, data, depth, np.array(system.kinds))


def split_action(action: Any, num_nodes: int) -> tuple[Any, Any]:
    """(layers kept, node) of an action c J + node, ints or arrays of ints; node 0 is the RSU.

    The paper prints phi = floor(a / J) and xi = a mod J with all three counted from 1, which is off by one; counted
    from 0 the same formulas are right.
    """
    return action // num_nodes, action % num_nodes


def legal(system: System, allowed: Any) -> Any:
    """Which choices c J + node are allowed: c up to the client's depth, at nodes that are.

    Args:
      system: networks and nodes.
      allowed: [I, J] bool, nodes that each client reaches.

    Returns:
      [I, n] bool.
    """
    cut, node = split_action(np.arange(system.num_actions), system.num_nodes)
    return (cut[None, :] <= tables(system).depth[:, None]) & allowed[:, node]


def kinds_from_counts(counts: Sequence[int]) -> tuple[int, ...]:
    """(2, 0, 1) clients of the three networks -> (0, 0, 2)."""
    if not counts or any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in counts):
        raise ValueError(f"clients per network {tuple(counts)} must be whole numbers of at least 0, one per profile.")
    if not sum(counts):
        raise ValueError(f"clients per network {tuple(counts)} leave no client; at least one must be above 0.")
    return tuple(kind for kind, count in enumerate(counts) for _ in range(count))


def _set(system: System, name: str, value: Any) -> None:
    object.__setattr__(system, name, value)


def _is_positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _kinds(kinds: Sequence[int], num_clients: int, num_profiles: int) -> tuple[int, ...]:
    if not len(kinds):
        return tuple(client % num_profiles for client in range(num_clients))
    if len(kinds) != num_clients:
        raise ValueError(f"kinds={tuple(kinds)} has {len(kinds)} entries; give one per client, {num_clients}.")
    if not all(0 <= kind < num_profiles for kind in kinds):
        raise ValueError(f"kinds={tuple(kinds)} must be profiles' indices, from 0 to {num_profiles - 1}.")
    return tuple(int(kind) for kind in kinds)
