"""Where the vehicles are: a straight road past the roadside unit, on which all drive one way."""

from collections.abc import Callable
from typing import NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key

RSU_OFFSET_M = 20.0  # of the roadside unit from the road
SPEED_MEAN, SPEED_DEVIATION = 25.0, 2.0  # m/s
TRACE_ORIGINS = ("rsu", "fleet")


@struct.dataclass
class Traffic:
    """N vehicles, clients first."""

    position: Array  # [N] metres along the road; the roadside unit is at 0
    speed: Array  # [N] m/s; 0 where a trace says where they are
    row: Array  # [] int32, of the trace; 0 without


class Road(NamedTuple):
    """start(key) -> Traffic; move(Traffic) -> Traffic, one slot later."""

    start: Callable[[Key], Traffic]
    move: Callable[[Traffic], Traffic]


def straight(num_vehicles: int, coverage: float, slot_seconds: float) -> Road:
    """Vehicles that keep their speeds, and a roadside unit that stays in the middle of them.

        x_i = u_i - mean(u), u ~ U(-coverage, coverage);   speed_i ~ N(25, 2**2) m/s
        y_i = x_i + speed_i tau;   x_i' = y_i - mean(y)

    The whole fleet leaves a coverage of 300 m within an episode, which the task rules out: so the formation is put back
    over the unit in each slot, and only distances within it change. Positions are clipped to the coverage.
    """

    def centred(position: Array) -> Array:
        return jnp.clip(position - jnp.mean(position), -coverage, coverage)

    def start(key: Key) -> Traffic:
        key_position, key_speed = jax.random.split(key)
        position = jax.random.uniform(key_position, (num_vehicles,), minval=-coverage, maxval=coverage)
        speed = SPEED_MEAN + SPEED_DEVIATION * jax.random.normal(key_speed, (num_vehicles,))
        return Traffic(centred(position), speed, jnp.int32(0))

    def move(traffic: Traffic) -> Traffic:
        return Traffic(centred(traffic.position + traffic.speed * slot_seconds), traffic.speed, traffic.row)

    return Road(start, move)


def recorded(trace: np.ndarray, num_vehicles: int, coverage: float, num_slots: int, origin: str) -> Road:
    """Positions out of a trace, from a row that is drawn anew for each episode.

    Args:
      trace: [S, N] metres, one row per slot.
      num_vehicles: N.
      coverage: how far from the unit a vehicle may be.
      num_slots: of an episode, which sees so many rows and one more.
      origin: "rsu": x = 0 is the roadside unit; "fleet": the mean of each row is, as on the straight road.

    Raises:
      KeyError: an unknown origin.
      ValueError: another shape, too few rows, a number that is not finite, a vehicle out of coverage.
    """
    if origin not in TRACE_ORIGINS:
        raise unknown_name("trace_origin", origin, TRACE_ORIGINS)
    rows = np.asarray(trace, np.float64)
    if rows.ndim != 2 or rows.shape[1] != num_vehicles:
        raise ValueError(
            f"trace has shape {rows.shape}; (slots, {num_vehicles}) is needed, clients first and then service "
            "vehicles: leave vehicles out, or set num_clients and num_servers so that they sum to what it has."
        )
    if len(rows) <= num_slots:
        raise ValueError(
            f"trace has {len(rows)} rows; an episode of {num_slots} slots needs {num_slots + 1}: give a longer one, or "
            "a smaller max_episode_steps."
        )
    if not np.isfinite(rows).all():
        slot, vehicle = np.argwhere(~np.isfinite(rows))[0]
        raise ValueError(f"trace: x of vehicle {vehicle} in row {slot} is {rows[slot, vehicle]}; it must be finite.")
    if origin == "fleet":
        rows = rows - rows.mean(axis=1, keepdims=True)
    if np.abs(rows).max() > coverage:
        slot, vehicle = np.argwhere(np.abs(rows) > coverage)[0]
        advice = ' or trace_origin="fleet"' if origin == "rsu" else ""
        raise ValueError(
            f"trace: vehicle {vehicle} in row {slot} is {abs(rows[slot, vehicle]):g} m from the roadside unit, out of "
            f"coverage={coverage:g}; give a larger one, a shorter trace{advice}."
        )
    table = rows.astype(np.float32)
    still = np.zeros(num_vehicles, np.float32)

    def at(row: Array) -> Traffic:
        return Traffic(jnp.asarray(table)[row], jnp.asarray(still), row)

    return Road(
        start=lambda key: at(jax.random.randint(key, (), 0, len(table) - num_slots, dtype=jnp.int32)),
        move=lambda traffic: at(jnp.minimum(traffic.row + 1, len(table) - 1)),
    )


def distances(position: Array, num_clients: int) -> Array:
    """[N] -> [I, J] metres from each client to the roadside unit and to the service vehicles."""
    own, servers = position[:num_clients], position[num_clients:]
    to_rsu = jnp.sqrt(own**2 + RSU_OFFSET_M**2)
    return jnp.concatenate([to_rsu[:, None], jnp.abs(own[:, None] - servers[None, :])], axis=1)
