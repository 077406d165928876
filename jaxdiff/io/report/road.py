"""Vehicular edge computing, slot by slot: where the vehicles are, what waits in queues, who sends how much to whom."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxdiff.io.report import svg
from jaxdiff.io.report.looks import DASHES
from jaxdiff.io.report.markup import Markup, join, tag
from jaxdiff.io.report.results import MemberResult, Results, best_of_each, median_seed

MAX_PANELS = 4
MAX_SLOTS = 40  # of an episode; cells of more could not be read
CELL, ROW = 26, 40  # pixels of a decision
CLIENT, RSU, VEHICLE = "c2", "c0", "c1"  # colours of the three kinds of places, the same in every picture
PLACES = ("at home", "RSU", "service vehicles")
LEAST_GAP = 12.0  # pixels between names at the ends of lines
NEEDED = ("networks", "kinds", "depths", "clients", "nodes", "num_actions", "coverage", "range")


@dataclasses.dataclass(frozen=True)
class Scene:
    """What of facts.json is drawn: I clients, J nodes of which 0 is the roadside unit (RSU), K networks."""

    networks: tuple[str, ...]  # K names
    kinds: tuple[int, ...]  # [I] which network each client runs
    depths: tuple[int, ...]  # [I] layers of each client's
    clients: tuple[str, ...]  # I names
    nodes: tuple[str, ...]  # J names
    num_actions: int  # n; action c J + node keeps c layers
    coverage: float  # metres to each side
    reach: float  # metres from a client to a service vehicle

    @property
    def obs_shape(self) -> tuple[int, int]:
        """[I, 2 J + 1 + n]."""
        return len(self.kinds), 2 * len(self.nodes) + 1 + self.num_actions

    @property
    def run(self) -> list[int]:
        """Networks that some client runs, in order: of the others nobody observes the queue."""
        return sorted(set(self.kinds))


def read_scene(facts: Mapping[str, Any]) -> Scene | None:
    """The task in facts.json; None where it is another one, or says too little."""
    if any(name not in facts for name in NEEDED):
        return None
    networks, clients, nodes = (tuple(str(name) for name in facts[key]) for key in ("networks", "clients", "nodes"))
    kinds, depths = (tuple(int(number) for number in facts[key]) for key in ("kinds", "depths"))
    coverage, reach = float(facts["coverage"]), float(facts["range"])
    return Scene(networks, kinds, depths, clients, nodes, int(facts["num_actions"]), coverage, reach)


@dataclasses.dataclass(frozen=True)
class Episode:
    """T slots as they were when deciding on them."""

    position: np.ndarray  # [T, I + J - 1] metres along the road, clients first; the RSU is at 0
    local: np.ndarray  # [T, I] GFLOP that wait at the clients
    rsu: np.ndarray  # [T, K'] at the RSU, of the networks that are run
    server: np.ndarray  # [T, J - 1] at the service vehicles
    kept: np.ndarray | None  # [T, I] layers that a client runs itself; None where actions were not recorded
    node: np.ndarray | None  # [T, I] who was sent the rest; -1: nobody, nothing is left

    @property
    def num_slots(self) -> int:
        """T."""
        return len(self.position)


def read_episode(scene: Scene, obs: np.ndarray, action: np.ndarray | None) -> Episode:
    """What an episode's observations and scores of actions say.

    An observation holds log(1 + queue) of the client, of its network at the RSU and of the service vehicles, then
    positions in units of the coverage, then the mask of allowed actions; taken is the best score among those.

    Args:
      scene: of the task.
      obs: [T, I, 2 J + 1 + n].
      action: [T, I, n]; None: not recorded.
    """
    num_nodes, obs = len(scene.nodes), np.asarray(obs, np.float64)
    waiting, where = np.expm1(obs[..., : num_nodes + 1]), scene.coverage * obs[..., num_nodes + 1 : 2 * num_nodes + 1]
    runs_first = [scene.kinds.index(kind) for kind in scene.run]
    kept = node = None
    if action is not None:
        mask = obs[..., -scene.num_actions :] > 0
        allowed = mask | ~mask.any(axis=-1, keepdims=True)
        kept, node = np.divmod(np.argmax(np.where(allowed, action, -np.inf), axis=-1), num_nodes)
        kept = np.minimum(kept, scene.depths)
        node = np.where(kept < scene.depths, node, -1)
    return Episode(
        position=np.concatenate([where[..., 0], where[:, 0, 1:]], axis=1),
        local=waiting[..., 0],
        rsu=waiting[:, runs_first, 1],
        server=waiting[:, 0, 2:],
        kept=kept,
        node=node,
    )


class Series(NamedTuple):
    """A line over the slots."""

    short: str  # at its end
    words: str
    class_: str
    values: np.ndarray  # [T]


def road(scene: Scene, episode: Episode) -> Markup:
    """Positions of all vehicles, the RSU, the edges of its coverage, and how far a client reaches another vehicle."""
    frame = _frame(900, 340, episode.num_slots, (-1.06 * scene.coverage, 1.06 * scene.coverage))
    names = [(f"C{i}", client, CLIENT) for i, client in enumerate(scene.clients, 1)]
    names += [(f"V{j}", vehicle, VEHICLE) for j, vehicle in enumerate(scene.nodes[1:], 1)]
    drawn = [Series(*name, values) for name, values in zip(names, episode.position.T, strict=True)]
    unit = _level(frame, 0.0, "line", "RSU")
    edges = [_level(frame, side * scene.coverage, "level", "edge of the coverage") for side in (-1, 1)]
    label = f"Positions of {len(scene.clients)} clients and {len(scene.nodes) - 1} service vehicles along the road"
    parts = [tag("g", unit, class_=RSU), *edges, _scale_bar(frame, scene), *_curves(frame, drawn)]
    return svg.drawing(frame, svg.axes(frame, "slot", "metres from the RSU"), *parts, label=label)


def _level(frame: svg.Frame, value: float, class_: str, words: str) -> Markup:
    at = frame.y(value)
    return tag("g", tag("line", class_=class_, x1=frame.x.start, x2=frame.x.stop, y1=at, y2=at), tag("title", words))


def _scale_bar(frame: svg.Frame, scene: Scene) -> Markup:
    """The reach as a length at the right edge."""
    x, low, high = frame.width - 20.0, frame.y(-scene.coverage), frame.y(-scene.coverage + scene.reach)
    bar = tag("path", class_="whisker", d=f"M{x - 4:.1f} {low:.1f}h8M{x:.1f} {low:.1f}V{high:.1f}m-4 0h8")
    words = tag("text", f"{svg.short(scene.reach)} m", class_="tick", x=x, y=high - 6, text_anchor="middle")
    return tag("g", bar, words, tag("title", "how far a client reaches a service vehicle"), class_="other")


def queues(scene: Scene, episode: Episode) -> list[Markup]:
    """What waits at the clients, at the RSU by network, and at the service vehicles, in GFLOP; a picture each."""
    clients = [(f"C{i}", name, CLIENT) for i, name in enumerate(scene.clients, 1)]
    networks = [(scene.networks[k], f"{scene.networks[k]} at the RSU", RSU) for k in scene.run]
    vehicles = [(f"V{j}", name, VEHICLE) for j, name in enumerate(scene.nodes[1:], 1)]
    groups = (
        ("Queues of clients", clients, episode.local),
        ("Queues of the RSU", networks, episode.rsu),
        ("Queues of service vehicles", vehicles, episode.server),
    )
    return [_queue(title, names, values) for title, names, values in groups if names]


def _queue(title: str, names: Sequence[tuple[str, str, str]], values: np.ndarray) -> Markup:
    drawn = [Series(*name, values=column) for name, column in zip(names, values.T, strict=True)]
    frame = _frame(380, 250, len(values), (0.0, 1.06 * max(float(values.max()), 1.0)))
    last = ", ".join(f"{series.words} {series.values[-1]:.3g}" for series in drawn)
    label = f"{title} in GFLOP against the slot; at the last slot: {last}"
    picture = svg.drawing(frame, svg.axes(frame, "slot", "GFLOP"), *_curves(frame, drawn), label=label)
    return tag("figure", picture, tag("figcaption", title))


def _frame(width: int, height: int, num_slots: int, y_range: tuple[float, float]) -> svg.Frame:
    """Axes with room for names at the right."""
    x = svg.Scale(1.0, float(max(num_slots, 2)), 52, width - 66)
    return svg.Frame(width, height, x, svg.Scale(*y_range, height - 44, 30))


def _curves(frame: svg.Frame, drawn: Sequence[Series]) -> list[Markup]:
    """Lines with their names at their ends; those of one colour differ in their dashes."""
    places = spread([frame.y(series.values[-1]) for series in drawn], LEAST_GAP, frame.y.start)
    lines, seen = [], dict.fromkeys((series.class_ for series in drawn), 0)
    for series, at in zip(drawn, places, strict=True):
        dash = DASHES[seen[series.class_] % len(DASHES)]
        seen[series.class_] += 1
        slots = np.arange(1, len(series.values) + 1)
        line = svg.line(frame, slots, series.values, class_="line thin", stroke_dasharray=dash)
        name = tag("text", series.short, class_="tick", x=frame.x.stop + 6, y=at + 4)
        lines.append(tag("g", line, name, tag("title", series.words), class_=series.class_))
    return lines


def spread(places: Sequence[float], gap: float, lowest: float) -> list[float]:
    """The places moved apart by at least `gap`, in their order, down first and up again where that passes `lowest`."""
    moved = np.asarray(places, np.float64)
    order = np.argsort(moved, kind="stable")
    for before, after in zip(order, order[1:], strict=False):
        moved[after] = max(moved[after], moved[before] + gap)
    for after, before in zip([-1, *order[::-1]], order[::-1], strict=False):
        moved[before] = min(moved[before], lowest if after < 0 else moved[after] - gap)
    return [float(place) for place in moved]


def decisions(scene: Scene, kept: np.ndarray, node: np.ndarray) -> Markup:
    """Who sent the rest of its task where, a row per client and a cell per slot.

    Args:
      scene: of the task.
      kept: [T, I] layers.
      node: [T, I], -1: nobody.
    """
    left, top = 150, 24
    size = left + CELL * len(kept) + 6.0, top + ROW * len(scene.clients) + 6.0
    parts = [_slot_number(left + CELL * (t + 0.5), top - 8, t + 1) for t in range(len(kept)) if t % 5 == 4 or t == 0]
    for i, client in enumerate(scene.clients):
        y = top + ROW * i
        parts.append(tag("text", f"C{i + 1} {scene.networks[scene.kinds[i]]}", class_="title", x=4, y=y + 16))
        parts.append(tag("text", f"of {scene.depths[i]} layers", class_="tick", x=4, y=y + 31))
        for t, (layers, place) in enumerate(zip(kept[:, i].tolist(), node[:, i].tolist(), strict=True)):
            words = f"slot {t + 1}, {client}: {told(scene, i, layers, place)}"
            parts.append(_cell(left + CELL * t, y, layers / scene.depths[i], layers, place, words))
    return svg.drawing(size, *parts, label=f"Decisions by client and slot: {shares(node)}")


def told(scene: Scene, client: int, layers: int, node: int) -> str:
    """A decision in words."""
    if node < 0:
        return f"keeps all {layers} layers"
    kept = "sends all layers" if not layers else f"keeps {layers} of {scene.depths[client]} layers, sends the rest"
    return f"{kept} to {'the RSU' if node == 0 else scene.nodes[node]}"


def shares(node: np.ndarray) -> str:
    """How many of the tasks stayed at home, went to the RSU and to service vehicles."""
    counts = [int(place.sum()) for place in (node < 0, node == 0, node > 0)]
    return ", ".join(f"{100 * count / node.size:.0f} % {where}" for count, where in zip(counts, PLACES, strict=True))


def _slot_number(x: float, y: float, slot: int) -> Markup:
    return tag("text", slot, class_="tick", x=x, y=float(y), text_anchor="middle")


def _cell(x: float, y: float, share: float, layers: int, node: int, words: str) -> Markup:
    width, height = CELL - 2.0, ROW - 3.0
    filled = height * share
    short, class_ = ("–", CLIENT) if node < 0 else ("R", RSU) if node == 0 else (f"V{node}", VEHICLE)
    middle = x + CELL / 2
    return tag(
        "g",
        tag("rect", class_="cell", x=x + 1.0, y=float(y), width=width, height=height),
        tag("rect", class_="cell kept", x=x + 1.0, y=y + height - filled, width=width, height=filled),
        tag("text", short, class_="told", x=middle, y=y + 15.0, text_anchor="middle"),
        tag("text", layers, class_="told", x=middle, y=y + 30.0, text_anchor="middle"),
        tag("title", words),
        class_=class_,
    )


def keys() -> Markup:
    """What the colours mean."""
    items, line = [], tag("path", class_="line", d="M0 6H26")
    for class_, words in ((CLIENT, "client; –: at home"), (RSU, "R: roadside unit"), (VEHICLE, "V: service vehicle")):
        sample = tag("svg", line, viewBox="0 0 26 12", class_="key", aria_hidden="true")
        items.append(tag("li", sample, tag("span", words), class_=class_))
    return tag("ul", *items, class_="keys")


def panels(results: Results) -> list[Markup]:
    """The best setting of each algorithm, its seed of median score, its first recorded episode; nothing elsewhere."""
    scene, drawn = read_scene(results.run.facts), []
    if scene is None:
        return []
    for setting in best_of_each(results.settings):
        chosen = median_seed(setting)
        episode = _recorded(results, chosen, scene)
        if episode is not None:
            title = tag("h3", f"{setting.label}, seed {chosen.member.seed}")
            drawn.append(join([title, panel(scene, episode)]))
    return drawn[:MAX_PANELS]


def panel(scene: Scene, episode: Episode) -> Markup:
    """All pictures of an episode."""
    parts = [keys(), _wide(road(scene, episode), "The road; bar: reach of a client")]
    parts.append(tag("div", *queues(scene, episode), class_="panels"))
    if episode.kept is not None and episode.node is not None:
        words = f"Decisions: {shares(episode.node)}"
        parts.append(_wide(decisions(scene, episode.kept, episode.node), words))
    return join(parts)


def _wide(picture: Markup, words: str) -> Markup:
    """A picture that is scrolled where the screen is too narrow to read it."""
    box = tag("div", picture, class_="scroll slots", tabindex="0", role="region", aria_label=words)
    return tag("figure", box, tag("figcaption", words))


def _recorded(results: Results, chosen: MemberResult, scene: Scene) -> Episode | None:
    """The first whole episode that a member's pack has recorded, its first MAX_SLOTS slots."""
    pack = next(pack for pack in results.run.packs if pack.id == chosen.pack)
    lane = next(i for i, member in enumerate(pack.members) if member.id == chosen.member.id)
    table = pack.rollouts or {}
    if not {"obs", "mask"} <= table.keys() or table["obs"].shape[3:] != scene.obs_shape or lane >= len(table["obs"]):
        return None
    obs, mask, action = table["obs"][lane], table["mask"][lane].astype(bool), table.get("action")
    if action is not None and action.shape[3:] != (len(scene.kinds), scene.num_actions):
        action = None  # actions in another code, such as bits
    for e in range(len(obs)):
        seen = obs[e][mask[e]][:MAX_SLOTS]
        taken = None if action is None else action[lane, e][mask[e]][:MAX_SLOTS]
        if len(seen) and np.isfinite(seen).all() and (taken is None or not np.isnan(taken).any()):
            return read_episode(scene, seen, taken)
    return None
