"""Decisions without learning: what learned methods are compared with.

A heuristic is decide(key, system, slot, v=None) -> (cut [I], node [I]) as `decide_slot` takes them, always legal. Those
without chance drop the key, those that do not weigh delay against queues drop v.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxdiff.offloading.slot import Slot, at_nodes, decide_slot
from jaxdiff.offloading.system import System, legal, split_action, tables
from jaxdiff.suggest import unknown_name
from jaxdiff.types import Array, Key

Decision = tuple[Array, Array]  # cut [*B, I], node [*B, I]
Heuristic = Callable[..., Decision]

POPULATION, GENERATIONS = 64, 40  # of `genetic`: decisions in a population, and how often it is renewed
ELITE, TOURNAMENT = 2, 3  # decisions that live on as they are; candidates of which the best becomes a parent
SWEEPS = 3  # of `coordinate_descent`


def all_local(key: Key, system: System, slot: Slot, v: Array | float | None = None) -> Decision:
    """Everybody runs the whole network at home."""
    del key, slot, v
    return _depth(system), jnp.zeros(system.num_clients, jnp.int32)


def random_feasible(key: Key, system: System, slot: Slot, v: Array | float | None = None) -> Decision:
    """A cut and a node of those that are allowed, each uniformly drawn for each client."""
    del v
    return _draw(key, system, slot, ())


def greedy(key: Key, system: System, slot: Slot, v: Array | float | None = None, *, rule: str = "smallest") -> Decision:
    """Each client by itself, by a rule of RULES; the paper's words allow both, and give no tables of layers.

    "smallest" cuts before the layer with the smallest input (the first of equals) and sends to the shortest queue in
    reach, the RSU's being that of the client's network. As small inputs come last, nearly everything is run at home.

    "delay" lets one client after another take what makes its own delay least, knowing the tails that those before it
    sent, with the RSU's frequency split equally over its K queues:

        (Q_i + head) / f_i  +  8 D / R  +  (Q + tail) / f  +  (tails sent there before) / (2 f)

    Raises:
      KeyError: an unknown rule.

    Reference: Liu et al. 2025, arXiv:2406.06986, baselines.
    """
    del key, v
    if rule not in RULES:
        raise unknown_name("rule of greedy", rule, RULES)
    return RULES[rule](system, slot)


def genetic(
    key: Key,
    system: System,
    slot: Slot,
    v: Array | float | None = None,
    *,
    population: int = POPULATION,
    generations: int = GENERATIONS,
) -> Decision:
    """The best decision of a population that evolves within the slot; fitness is minus P2 of `decide_slot`.

    It starts with random legal decisions of all clients. In each generation the `ELITE` best live on; every other child
    has two parents, each the best of `TOURNAMENT` drawn ones, takes each client's (cut, node) from either by a fair
    coin, and each client's is redrawn with chance 1 / I. The paper gives no sizes: all numbers are ours.

    Args:
      key: consumed.
      system, slot, v: as `decide_slot`.
      population: decisions, more than ELITE.
      generations: at least 0.

    Raises:
      ValueError: a size out of range.

    Reference: Liu et al. 2025, arXiv:2406.06986, baselines (named there, not described).
    """
    if population <= ELITE or generations < 0:
        raise ValueError(
            f"population={population}, generations={generations}; a population has more than {ELITE} decisions and is "
            "renewed at least 0 times."
        )
    cost = jax.vmap(lambda cut, node: decide_slot(system, slot, cut, node, v).objective)

    def renew(generation: Array, carry: tuple[Decision, Array]) -> tuple[Decision, Array]:
        old, costs = carry
        key_pick, key_side, key_new, key_coin = jax.random.split(jax.random.fold_in(key, generation), 4)
        candidates = jax.random.randint(key_pick, (2, population, TOURNAMENT), 0, population)
        best = jnp.argmin(costs[candidates], axis=-1)
        parents = jnp.take_along_axis(candidates, best[..., None], axis=-1)[..., 0]  # [2, population]
        side = jax.random.bernoulli(key_side, 0.5, (population, system.num_clients))
        redrawn = jax.random.bernoulli(key_coin, 1.0 / system.num_clients, side.shape)
        elite = jax.lax.top_k(-costs, ELITE)[1]

        def child(genes: Array, drawn: Array) -> Array:
            mixed = jnp.where(redrawn, drawn, jnp.where(side, genes[parents[0]], genes[parents[1]]))
            return mixed.at[:ELITE].set(genes[elite])

        new = jax.tree.map(child, old, _draw(key_new, system, slot, (population,)))
        return new, cost(*new)

    first = _draw(jax.random.fold_in(key, generations), system, slot, (population,))
    (cut, node), costs = jax.lax.fori_loop(0, generations, renew, (first, cost(*first)))
    best = jnp.argmin(costs)
    return cut[best], node[best]


def coordinate_descent(key: Key, system: System, slot: Slot, v: Array | float | None = None) -> Decision:
    """One client after another takes the (cut, node) of least P2 while the others keep theirs, `SWEEPS` times.

    Started once from everything local and once from everything at the RSU; the better of the two ends is taken. Not in
    the paper: a strong answer to a slot that is looked at by itself, at (max_depth + 1) J slots' costs per client.
    """
    del key
    choices = split_action(jnp.arange(system.num_actions, dtype=jnp.int32), system.num_nodes)
    forbidden = ~legal(system, slot.allowed)

    def cost(cut: Array, node: Array) -> Array:
        return decide_slot(system, slot, cut, node, v).objective

    def improve(turn: Array, decision: Decision) -> Decision:
        client = turn % system.num_clients
        tried = jax.vmap(
            lambda c, n: cost(decision[0].at[client].set(c), decision[1].at[client].set(n))
        )(*choices)  # fmt: skip
        best = jnp.argmin(jnp.where(forbidden[client], jnp.inf, tried))
        cut, node = (old.at[client].set(new[best]) for old, new in zip(decision, choices, strict=True))
        return cut, node

    def descend(start: Array) -> tuple[Decision, Array]:
        begin = start, jnp.zeros_like(start)
        end: Decision = jax.lax.fori_loop(0, SWEEPS * system.num_clients, improve, begin)
        return end, cost(*end)

    ends, costs = jax.vmap(descend)(jnp.stack([_depth(system), jnp.zeros_like(_depth(system))]))
    best = jnp.argmin(costs)
    return ends[0][best], ends[1][best]


def _smallest_input(system: System, slot: Slot) -> Decision:
    table = tables(system)
    inside = np.arange(system.max_depth + 1)[None, :] < table.depth[:, None]
    cut = np.argmin(np.where(inside, table.data_mb, np.inf), axis=1)
    waits = at_nodes(system, slot.queues.rsu, slot.queues.server)
    return jnp.asarray(cut, jnp.int32), _index(jnp.argmin(jnp.where(slot.allowed, waits, jnp.inf), axis=1))


def _least_delay(system: System, slot: Slot) -> Decision:
    table = tables(system)
    head, tail, data = (jnp.asarray(rows, slot.rate.dtype) for rows in (table.head, table.tail, table.data_mb))
    equal = jnp.full(system.num_profiles, system.rsu_ghz / system.num_profiles)
    waits = at_nodes(system, slot.queues.rsu, slot.queues.server)  # [I, J]
    speed = at_nodes(system, equal, slot.server_ghz)
    same = jnp.asarray(table.kind[:, None] == table.kind[None, :])
    kept = jnp.arange(system.max_depth + 1)[None, :]
    sent = kept < jnp.asarray(table.depth)[:, None]  # [I, max_depth + 1]
    local = jnp.where(kept > 0, (slot.queues.local[:, None] + head) / slot.client_ghz[:, None], 0.0)
    forbidden = ~legal(system, slot.allowed).reshape(system.num_clients, -1, system.num_nodes)

    def choose(before: Array, client: Array) -> tuple[Array, Decision]:
        """before [I, J]: tails sent so far, at the RSU as each client's network meets them."""
        there = (waits[client] + 0.5 * before[client])[None, :] + tail[client][:, None]
        transfer = 8.0 * data[client][:, None] / slot.rate[client][None, :]
        remote = jnp.where(sent[client][:, None], transfer + there / speed[client][None, :], 0.0)
        delay = local[client][:, None] + remote
        best = jnp.argmin(jnp.where(forbidden[client], jnp.inf, delay))
        cut, node = split_action(_index(best), system.num_nodes)
        meets = jnp.ones_like(before, bool).at[:, 0].set(same[client])
        here = meets & (jnp.arange(system.num_nodes) == node)[None, :]
        return before + jnp.where(here, tail[client, cut], 0.0), (cut, node)

    _, decision = jax.lax.scan(choose, jnp.zeros_like(slot.rate), jnp.arange(system.num_clients))
    return decision


RULES: dict[str, Callable[[System, Slot], Decision]] = {"smallest": _smallest_input, "delay": _least_delay}

HEURISTICS: dict[str, Heuristic] = {
    "all_local": all_local,
    "random_feasible": random_feasible,
    "greedy": greedy,
    "greedy_delay": functools.partial(greedy, rule="delay"),
    "genetic": genetic,
    "coordinate_descent": coordinate_descent,
}


def _depth(system: System) -> Array:
    return jnp.asarray(tables(system).depth, jnp.int32)


def _index(index: Array) -> Array:
    return index.astype(jnp.int32)


def _draw(key: Key, system: System, slot: Slot, shape: tuple[int, ...]) -> Decision:
    """Random legal decisions [*shape, I]."""
    key_cut, key_node = jax.random.split(key)
    highest = jnp.broadcast_to(_depth(system), (*shape, system.num_clients))
    cut = jax.random.randint(key_cut, highest.shape, 0, highest + 1, jnp.int32)
    order = jax.random.uniform(key_node, (*highest.shape, system.num_nodes))
    return cut, _index(jnp.argmax(jnp.where(jnp.broadcast_to(slot.allowed, order.shape), order, -1.0), axis=-1))
