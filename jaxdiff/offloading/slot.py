"""One time slot: what is known, what a decision costs, and the backlogs it leaves.

Letters and units as in `system`; arrays are of one task, callers vmap.
"""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.offloading.allocation import GAMMAS, allocate
from jaxdiff.offloading.system import System, tables
from jaxdiff.types import Array


@struct.dataclass
class Queues:
    """Work that waits, in GFLOP; also arrivals and terms of the drift, one number per queue."""

    local: Array  # [I] at the clients
    rsu: Array  # [K] at the RSU, one queue per network
    server: Array  # [J - 1] at the service vehicles


@struct.dataclass
class Slot:
    """Everything that is known when deciding."""

    queues: Queues
    rate: Array  # [I, J] Mbit/s from client to node
    allowed: Array  # [I, J] bool: the node can be reached; the RSU always can
    client_ghz: Array  # [I]
    server_ghz: Array  # [J - 1]


@struct.dataclass
class Outcome:
    """What a decision came to; delays in seconds, of each client's task."""

    local: Array  # [I] backlog and head at the client
    transfer: Array  # [I]
    processing: Array  # [I] backlog and tail at the node
    waiting: Array  # [I] half of the others' tails at the node
    delay: Array  # [I] the sum of the four
    rsu_ghz: Array  # [K] the RSU's frequency as it was shared out
    queues: Queues  # at the start of the next slot
    arrivals: Queues  # GFLOP that came in during the slot
    drift: Queues  # Q (arrivals - f tau), GFLOP**2
    penalty: Array  # [] V times the sum of delays
    objective: Array  # [] P2: penalty plus all of drift; to be minimised, the reward is minus it


def empty_queues(system: System) -> Queues:
    """Queues at the start of an episode."""
    return Queues(
        local=jnp.zeros(system.num_clients),
        rsu=jnp.zeros(system.num_profiles),
        server=jnp.zeros(system.num_servers),
    )


def lyapunov(queues: Queues) -> Array:
    """L(Q) = half the sum of squares of all queues, in GFLOP**2."""
    return 0.5 * (jnp.sum(queues.local**2) + jnp.sum(queues.rsu**2) + jnp.sum(queues.server**2))


def decide_slot(system: System, slot: Slot, cut: Array, node: Array, v: Array | float | None = None) -> Outcome:
    """Carry out the clients' decisions, the RSU's frequency shared out by `allocate`.

        local       (Q_i + head_i) / f_i                  if any layer is kept, else 0
        transfer    8 D_i / R_{i,node}                    D_i in megabytes; 0 if nothing is sent, as the next two
        processing  (Q_k + tail_i) / f_k at the RSU,      (Q_j + tail_i) / f_j at service vehicle j
        waiting     sum of the other tails / (2 f)        at the RSU those of the same network, at a vehicle all
        Q'          max(Q + arrivals - f tau, 0)          arrivals: heads at the client, tails at the node
        P2          V sum_i delay_i + sum over all queues of Q (arrivals - f tau)

    In print the waiting term is not limited to tasks that use the RSU (eq. 11, and eq. 15 for vehicles): a task that
    stays at its client would wait for those that do not. Here only tasks at a node wait there. A task whose network
    ends in layers without work (backlog and tail 0) takes no time at the node even where f is 0.

    Args:
      system: constants.
      slot: what is known; `allowed` is not looked at, that is the policy's business.
      cut: [I] int, layers that the client keeps, 0 sends the raw input; clipped to [0, L_i], where nothing is sent.
      node: [I] int in [0, J), 0 is the RSU; clipped; without meaning where nothing is sent.
      v: scalar above 0, may be traced, instead of `system.v`.

    Reference: Liu et al. 2025, arXiv:2406.06986, system model and problems P2 and P3.
    """
    v = system.v if v is None else v
    table, queues, tau = tables(system), slot.queues, system.slot_seconds
    cut, node = jnp.clip(cut, 0, table.depth), jnp.clip(node, 0, system.num_nodes - 1)
    head, tail, data = (_pick(jnp.asarray(rows), cut) for rows in (table.head, table.tail, table.data_mb))
    sent = cut < jnp.asarray(table.depth)
    at_node = sent[:, None] & (node[:, None] == jnp.arange(system.num_nodes)[None, :])  # [I, J]
    load = jnp.where(at_node, tail[:, None], 0.0)
    at_rsu = _of_kind(system) * at_node[:, :1]  # [I, K]

    rsu_work = jnp.sum(at_rsu * tail[:, None], axis=0)
    gamma = GAMMAS[system.gamma](v, queues.rsu, jnp.sum(at_rsu, axis=0), rsu_work)
    rsu_ghz = allocate(queues.rsu, gamma, system.rsu_ghz, tau)

    arrivals = Queues(local=head, rsu=rsu_work, server=jnp.sum(load[:, 1:], axis=0))
    backlog, arrived, speed = (
        _pick(at_nodes(system, rsu, server), node)
        for rsu, server in (
            (queues.rsu, queues.server),
            (arrivals.rsu, arrivals.server),
            (rsu_ghz, slot.server_ghz),
        )
    )
    local = jnp.where(cut > 0, (queues.local + head) / slot.client_ghz, 0.0)
    transfer = jnp.where(sent, 8.0 * data / _pick(slot.rate, node), 0.0)
    processing = jnp.where(sent, _seconds(backlog + tail, speed), 0.0)
    waiting = jnp.where(sent, _seconds(0.5 * jnp.maximum(arrived - tail, 0.0), speed), 0.0)
    delay = local + transfer + processing + waiting

    served = Queues(local=slot.client_ghz * tau, rsu=rsu_ghz * tau, server=slot.server_ghz * tau)
    drift = jax.tree.map(lambda waits, came, done: waits * (came - done), queues, arrivals, served)
    penalty = v * jnp.sum(delay)
    return Outcome(
        local=local,
        transfer=transfer,
        processing=processing,
        waiting=waiting,
        delay=delay,
        rsu_ghz=rsu_ghz,
        queues=jax.tree.map(lambda waits, came, done: jnp.maximum(waits + came - done, 0.0), queues, arrivals, served),
        arrivals=arrivals,
        drift=drift,
        penalty=penalty,
        objective=penalty + jnp.sum(drift.local) + jnp.sum(drift.rsu) + jnp.sum(drift.server),
    )


def bound_constant(system: System) -> float:
    """C of the bound L(Q') - L(Q) + V sum_i delay_i <= C + P2, for every slot and decision, in GFLOP**2.

    Since Q'**2 <= (Q + a - f tau)**2 with a the arrivals, C is half of the largest possible sum of (a - f tau)**2:

        C = (sum_i max(B_i, f_i tau)**2 + sum_j max(B, f_j tau)**2 + sum_k B_k**2 + (F tau)**2) / 2

    with B_i a client's whole network, B_k of all clients that run network k, B of all clients, f the upper ends of the
    ranges of speeds, and F the RSU's, of which the squares of its parts sum to F**2 at most.

    Reference: Liu et al. 2025, arXiv:2406.06986, drift-plus-penalty bound; the constant is ours.
    """
    table, tau = tables(system), system.slot_seconds
    whole = table.head[:, -1]
    per_kind = np.bincount(table.kind, whole, minlength=system.num_profiles)
    local = np.maximum(whole, system.client_ghz[1] * tau)
    server = max(float(whole.sum()), system.server_ghz[1] * tau)
    squares = np.sum(local**2) + system.num_servers * server**2 + np.sum(per_kind**2) + (system.rsu_ghz * tau) ** 2
    return 0.5 * float(squares)


def _pick(rows: Array, index: Array) -> Array:
    """rows [I, n] at index [I] -> [I]."""
    return jnp.take_along_axis(rows, index[:, None], axis=1)[:, 0]


def _of_kind(system: System) -> np.ndarray:
    """[I, K]: 1 where the client runs the network."""
    return np.eye(system.num_profiles)[list(system.kinds)]


def at_nodes(system: System, rsu: Array, server: Array) -> Array:
    """Numbers of the RSU's queues [K] and of vehicles [J - 1], as each client meets them: [I, J]."""
    vehicles = jnp.broadcast_to(server, (system.num_clients, system.num_servers))
    return jnp.concatenate([rsu[tables(system).kind][:, None], vehicles], axis=1)


def _seconds(work: Array, speed: Array) -> Array:
    """Time for work, 0 where there is none; a queue with work is never left without frequency while V is above 0."""
    some = work > 0
    return jnp.where(some, work / jnp.where(some, speed, 1.0), 0.0)
