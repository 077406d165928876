"""The page of `jaxdiff plan`: what was done, then one section per episode."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from jaxdiff.io.plans.player import player
from jaxdiff.io.report import plans as pictures
from jaxdiff.io.report.markup import Child, Markup, tag
from jaxdiff.io.report.maze import Maze, read_maze
from jaxdiff.io.report.page import asset, document
from jaxdiff.io.report.plans import Plan
from jaxdiff.io.report.sections import copy_box, section
from jaxdiff.io.report.tables import plain

CANDIDATES = 16  # whose values are listed in the page without being unfolded


@dataclasses.dataclass(frozen=True)
class Episode:
    """A plan, and what the episode that followed it was worth."""

    plan: Plan
    total: float  # undiscounted return
    length: int  # steps until it ended
    score: float | None = None  # normalised; None where the task has no reference scores


@dataclasses.dataclass(frozen=True)
class Planned:
    """All that the page shows."""

    title: str
    facts: Mapping[str, Child]  # what was done, in words
    command: str
    followed: str  # sentences: how the drawn plans and the executed ones hang together
    scene: Mapping[str, Any]  # the environment's facts; a maze in them is drawn
    episodes: Sequence[Episode]


def page(planned: Planned) -> str:
    """One HTML document that refers to nothing outside itself.

    Raises:
      ValueError: a plan holds numbers that are not finite, or fewer than two steps.
    """
    for e, episode in enumerate(planned.episodes, 1):
        if not episode.plan.is_drawable():
            raise ValueError(
                f"the plan of episode {e} cannot be drawn: it has {episode.plan.best.shape[0]} steps, its episode "
                f"{len(episode.plan.executed)}, at least 2 are needed, all finite; try another member or checkpoint."
            )
    maze = read_maze(planned.scene)
    parts: list[Child] = [_header(planned), _overview(planned)]
    parts += [_section(maze, e, episode) for e, episode in enumerate(planned.episodes, 1)]
    parts.append(tag("footer", "Written by jaxdiff. This page needs no network and no other file."))
    style, script = asset(__package__, "plans.css"), asset(__package__, "plans.js")
    return document(f"{planned.title} · jaxdiff plan", parts, style=style, script=script)


def _header(planned: Planned) -> Markup:
    shown = [
        tag("div", tag("dt", name), tag("dd", value)) for name, value in planned.facts.items() if value is not None
    ]
    return tag(
        "header",
        tag("p", "Plans · jaxdiff", class_="eyebrow"),
        tag("h1", planned.title),
        tag("div", tag("p", planned.followed), class_="answer"),
        tag("dl", *shown, class_="facts"),
        tag("p", "Command", class_="eyebrow"),
        copy_box(planned.command),
    )


def _overview(planned: Planned) -> Markup:
    rows: list[list[Child]] = []
    for e, episode in enumerate(planned.episodes, 1):
        score = "–" if episode.score is None else f"{episode.score:.1f}"
        values = episode.plan.values
        ranked = f"{values[0]:.4g}" if values.any() else "–"
        rows.append([e, f"{episode.total:.4g}", score, f"{episode.length:,}", ranked, len(values)])
    heads = ["episode", "return", "normalised score", "steps", "value of its plan", "plans to choose from"]
    return section("episodes", "Episodes", plain(heads, rows, "Episodes", numbers=set(range(6))))


def _section(maze: Maze | None, e: int, episode: Episode) -> Markup:
    score = "" if episode.score is None else f", normalised score {episode.score:.1f}"
    parts = [_outcome(maze, e, episode)]
    if maze is not None:
        steps = episode.plan.best.shape[0]
        beads = "each of its" if steps <= pictures.MAX_WAYPOINTS else f"{pictures.MAX_WAYPOINTS} of its"
        note = f"The best plan on its way out of noise: a bead for {beads} {steps} steps. Ring: now."
        parts += [tag("h3", "Out of noise"), tag("p", note, class_="note"), pictures.denoising(maze, episode.plan)]
        parts.append(player(maze, episode.plan, f"Denoising of episode {e}, step by step"))
    return section(f"episode-{e}", f"Episode {e}: return {episode.total:.4g}{score}", *parts)


def _outcome(maze: Maze | None, e: int, episode: Episode) -> Markup:
    """The plan and what came of it, what it was chosen from, and by what."""
    plan = episode.plan
    others = len(plan.values) > 1
    values = plan.values if plan.values.any() else None
    figures: list[Child] = []
    if maze is not None:
        has_goal = plan.goal is not None or maze.goal is not None
        drawn = pictures.over_plan(maze, plan, f"The path of episode {e} over its plan")
        words = "The plan made at the start, and the path that was executed"
        figures.append(tag("figure", drawn, tag("figcaption", words), pictures.keys(goal=has_goal)))
    if maze is not None and others:
        drawn = pictures.candidates(maze, plan, f"All {len(plan.values)} plans of episode {e}, the best on top")
        count = min(len(plan.candidates), pictures.MAX_THREADS)
        words = f"{count} of {len(plan.candidates)} plans" if count < len(plan.candidates) else f"All {count} plans"
        figures.append(tag("figure", drawn, tag("figcaption", f"{words}, the best on top")))
    if values is not None and others:
        strip = pictures.value_strip(values, f"Values of the {len(values)} plans of episode {e}, by rank")
        numbers = ", ".join(f"{value:.4g}" for value in values.tolist())
        opened = "" if len(values) <= CANDIDATES else None
        listed = tag("details", tag("summary", f"All {len(values)} values"), tag("p", numbers), open=opened)
        figures.append(tag("figure", strip, tag("figcaption", "What the plans are ranked by, best first"), listed))
    if maze is None:
        note = tag("p", pictures.LINES + (" Thin: the other plans." if others else ""), class_="note")
        lines = tag("div", *pictures.dimensions(plan), class_="panels")
        return Markup(tag("div", *figures, class_="panels") + note + lines + _verdict(others, values is not None))
    return Markup(tag("div", *figures, class_="panels") + _verdict(others, values is not None))


def _verdict(others: bool, ranked: bool) -> Markup:
    if ranked and others:
        return Markup()
    words = "A single plan was made, so there was nothing to choose from." if not others else "Nothing ranks the plans."
    return tag("p", words, class_="note")
