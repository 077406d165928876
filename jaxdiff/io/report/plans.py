"""A planner's plans as pictures: how one comes out of noise, what it was chosen from, and what came of it."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from jaxdiff.io.report import maze as mazes
from jaxdiff.io.report import svg
from jaxdiff.io.report.markup import Markup, join, tag
from jaxdiff.io.report.maze import Maze, picture, read_maze, thin, walk
from jaxdiff.io.report.results import MemberResult, Results, best_of_each, median_seed
from jaxdiff.io.runs import Pack

NUM_STAGES = 8  # of one denoising side by side, the noise and the plan among them
MAX_WAYPOINTS = 128  # of one plan
MAX_THREADS = 64  # candidates drawn
MAX_DIMENSIONS = 24  # of an observation, where there is no maze
NAMED_VALUES = 5  # values written beside their dots; of more only the first, the middle and the last
PLAN, PATH = "c0", "c1"  # colours
LINES = "The numbers of the observation, each against the step. Dashed: planned. Solid: executed."


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was planned at the start of an episode, and what came of it; in the units of the task, all finite."""

    candidates: np.ndarray  # [N, H, O] best first
    values: np.ndarray  # [N]
    stages: np.ndarray  # [J, H, O] the best one on its way out of noise
    calls: tuple[int, ...]  # J numbers of network calls before each stage; the last is all of them
    executed: np.ndarray  # [T, O'] observations while the episode ran; the first O numbers are a plan's
    goal: np.ndarray | None = None  # [O''] of this episode, for the first numbers of an observation

    @property
    def best(self) -> np.ndarray:
        """The plan that was followed."""
        return np.asarray(self.candidates[0])

    def is_drawable(self) -> bool:
        """Whether there are at least two points each, and no number in them is lost."""
        arrays = (self.candidates, self.values, self.stages, self.executed)
        return min(self.candidates.shape[1], len(self.executed)) > 1 and all(np.isfinite(a).all() for a in arrays)


def stage_indices(num_calls: int, count: int = NUM_STAGES) -> list[int]:
    """At most `count` numbers of network calls from 0 to `num_calls`, both among them, evenly spread."""
    return np.unique(np.linspace(0, num_calls, min(count, num_calls + 1)).round().astype(int)).tolist()


def after(calls: Sequence[int], j: int) -> str:
    """How stage j is called."""
    return f"after {calls[j]} of {calls[-1]} network calls"


def _goal(maze: Maze, plan: Plan) -> Sequence[float] | None:
    return maze.goal if plan.goal is None else plan.goal[:2].tolist()


def waypoints(maze: Maze, path: np.ndarray) -> Markup:
    """A plan [H, O] as a bead at each step on a thread, with a ring at its start."""
    points = maze.pixels(thin(path[:, :2], MAX_WAYPOINTS))
    beads = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    ring = tag("circle", class_="start", cx=points[0][0], cy=points[0][1], r=4.5)
    return tag("g", tag("path", class_="thread", d=svg.path(points)), tag("path", class_="beads", d=beads), ring)


def stage(maze: Maze, plan: Plan, j: int) -> Markup:
    """The best plan after `calls[j]` network calls."""
    drawn = tag("g", waypoints(maze, plan.stages[j]), class_=PLAN)
    words = after(plan.calls, j)
    return tag(
        "figure",
        picture(maze, drawn, goal=_goal(maze, plan), label=f"The best plan {words}", names=False),
        tag("figcaption", words),
    )


def denoising(maze: Maze, plan: Plan) -> Markup:
    """A few stages side by side."""
    shown = (min(range(len(plan.calls)), key=lambda j: abs(plan.calls[j] - k)) for k in stage_indices(plan.calls[-1]))
    return tag("div", *(stage(maze, plan, j) for j in dict.fromkeys(shown)), class_="stages")


def over_plan(maze: Maze, plan: Plan, label: str) -> Markup:
    """The executed path over the plan."""
    planned = tag("g", waypoints(maze, plan.best), class_=PLAN)
    path = tag("g", *walk(maze, plan.executed[:, :2]), class_=PATH)
    return picture(maze, planned, path, goal=_goal(maze, plan), label=label)


def candidates(maze: Maze, plan: Plan, label: str) -> Markup:
    """All plans, thin, and the best on top."""
    others = [svg.path(maze.pixels(thin(path[:, :2], MAX_WAYPOINTS // 2))) for path in plan.candidates[1:MAX_THREADS]]
    thin_ones = tag("g", *(tag("path", class_="hair", d=d) for d in others), class_="other")
    best = tag("g", waypoints(maze, plan.best), class_=PLAN)
    return picture(maze, thin_ones, best, goal=_goal(maze, plan), label=label)


def value_strip(values: np.ndarray, label: str, width: int = 340, height: int = 250) -> Markup:
    """What the plans are ranked by, one dot each, best first."""
    count = len(values)
    frame = svg.Frame.make(width, height, (0.4, count + 0.6), svg.span(values, pad=0.16), left=60)
    inner = (round(tick) for tick in frame.x.ticks(5) if 1 < tick < 0.92 * count)
    ranks = [(float(k), str(k)) for k in sorted({1, *inner, count})]
    named = range(count) if count <= NAMED_VALUES else (0, count // 2, count - 1)
    dots = []
    for k, value in enumerate(values.tolist()):
        at = frame.x(k + 1.0), frame.y(value)
        mark = svg.dot(*at, f"plan {k + 1}: {value:.4g}", radius=5.0 if k == 0 else 3.5)
        # Values fall to the right, so there is room above a dot to its right; below the last one, to its left.
        side, rise = ("end", 18) if 0 < k == count - 1 else ("start", -9)
        words = tag("text", f"{value:.4g}", class_="tick", x=at[0], y=at[1] + rise, text_anchor=side)
        dots.append(tag("g", mark, words if k in named else Markup(), class_=PLAN if k == 0 else "other"))
    return svg.drawing(frame, svg.axes(frame, "rank", "value", x_ticks=ranks), *dots, label=label)


def dimensions(plan: Plan) -> list[Markup]:
    """Planned and executed values of each number of an observation, for tasks that no plane shows."""
    return [_dimension(plan, i) for i in range(min(plan.best.shape[1], MAX_DIMENSIONS))]


def _dimension(plan: Plan, i: int, width: int = 340, height: int = 210) -> Markup:
    steps = np.arange(plan.best.shape[0])
    others = [path[:, i] for path in plan.candidates[1:MAX_THREADS]]
    executed = plan.executed[: len(steps), i]
    frame = svg.Frame.make(width, height, (0.0, float(steps[-1])), svg.span([*plan.best[:, i], *executed]), left=60)
    hairs = [svg.line(frame, steps, path, class_="hair") for path in others]
    lines = [
        tag("g", *hairs, class_="other"),
        tag("g", svg.line(frame, steps, plan.best[:, i], class_="line", stroke_dasharray="5 4"), class_=PLAN),
        tag("g", svg.line(frame, steps[: len(executed)], executed, class_="line thin"), class_=PATH),
    ]
    inside = frame.x.start, frame.y.stop, frame.x.stop - frame.x.start, frame.y.start - frame.y.stop
    window = {"x": inside[0], "y": inside[1], "width": inside[2], "height": inside[3]}
    clipped = tag("svg", *lines, viewBox=" ".join(f"{side:g}" for side in inside), **window)
    words = f"Number {i} of the observation, planned and executed, against the step"
    return tag("figure", svg.drawing(frame, svg.axes(frame, "step", f"obs {i}"), clipped, label=words))


def keys(*, goal: bool) -> Markup:
    """What the colours of a plan and its path mean."""
    drawn = [(PLAN, "beads", "M3 6h0M10 6h0M17 6h0M24 6h0", "plan"), (PATH, "line", "M0 6H26", "executed")]
    items = []
    for class_, kind, data, words in drawn:
        sample = tag("svg", tag("path", class_=kind, d=data), viewBox="0 0 26 12", class_="key", aria_hidden="true")
        items.append(tag("li", sample, tag("span", words), class_=class_))
    marks = [tag("li", "ring: start"), tag("li", "dot: end"), *([tag("li", "star: goal")] if goal else [])]
    return tag("ul", *items, *marks, class_="keys")


def panels(results: Results) -> list[Markup]:
    """The best setting of each planner, its seed of median score: plans, and the paths that came of them."""
    maze, drawn = read_maze(results.run.facts), []
    for setting in best_of_each(results.settings):
        chosen = median_seed(setting)
        found = _recorded(results, chosen)
        if found:
            title = tag("h3", f"{setting.label}, seed {chosen.member.seed}")
            drawn.append(join([title, _panel(maze, found)]))
    return drawn[: mazes.MAX_PANELS]


def _panel(maze: Maze | None, plans: Sequence[Plan]) -> Markup:
    if maze is None:
        return join([tag("p", LINES, class_="note"), tag("div", *dimensions(plans[0]), class_="panels")])
    episodes = [
        tag("figure", over_plan(maze, plan, f"Plan and path of episode {e}"), tag("figcaption", f"episode {e}"))
        for e, plan in enumerate(plans, 1)
    ]
    parts = [tag("div", *episodes, class_="stages"), keys(goal=_goal(maze, plans[0]) is not None)]
    parts += [tag("p", "How the first of these plans came out of noise:", class_="note"), denoising(maze, plans[0])]
    return join(parts)


def _recorded(results: Results, chosen: MemberResult) -> list[Plan]:
    """The plans of a member that its pack has recorded; none in runs from before they were."""
    pack = next(pack for pack in results.run.packs if pack.id == chosen.pack)
    lane = next(i for i, member in enumerate(pack.members) if member.id == chosen.member.id)
    if not _are_whole(pack, lane):
        return []
    assert pack.plans is not None and pack.rollouts is not None
    count = min(len(pack.plans["obs"][lane]), len(pack.rollouts["obs"][lane]))
    plans = [from_tables(pack.plans, pack.rollouts, lane, episode) for episode in range(count)]
    return [plan for plan in plans if plan.is_drawable()]


def _are_whole(pack: Pack, lane: int) -> bool:
    tables, wanted = (pack.plans, pack.rollouts), (("obs", "value", "path", "calls"), ("obs", "mask"))
    return all(
        table is not None and all(name in table and (name == "calls" or lane < len(table[name])) for name in names)
        for table, names in zip(tables, wanted, strict=True)
    )


def from_tables(plans: Mapping[str, Any], rollouts: Mapping[str, Any], lane: int, episode: int) -> Plan:
    """An episode's plan out of plans.npz and rollouts.npz, float64.

    Args:
      plans: obs [L, R, H, O] of the best, value [L, R, N], path [L, R, J, H, O], calls [J]; goal [L, R, G] or absent.
      rollouts: obs [L, R, T, O'], mask [L, R, T].
      lane: index of the member.
      episode: below R.
    """

    def of(table: Mapping[str, Any], name: str) -> np.ndarray:
        return np.asarray(table[name][lane, episode], np.float64)

    running = of(rollouts, "mask").astype(bool)
    goal = of(plans, "goal") if "goal" in plans else None
    calls = tuple(int(k) for k in plans["calls"])
    return Plan(
        of(plans, "obs")[None], of(plans, "value"), of(plans, "path"), calls, of(rollouts, "obs")[running], goal
    )
