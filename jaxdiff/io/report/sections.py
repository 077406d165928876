"""The sections of the page, in reading order. Each is markup, or None where the run has nothing to show."""

from collections.abc import Mapping, Sequence
import datetime
import shlex
from typing import Any

from jaxdiff.io.report import best, cost, curves, good, maze, metrics, plans, road, sensitivity, tables
from jaxdiff.io.report.answer import answer, seeds, spoken
from jaxdiff.io.report.looks import NUM_COLOURS, Look, is_large, legend, said
from jaxdiff.io.report.markup import Child, Markup, join, tag
from jaxdiff.io.report.results import Results

MAX_METRICS = 12  # of a large study, the others are folded away


def header(results: Results, told: Sequence[str] = (), asked: Sequence[tuple[str, Child]] = ()) -> Markup:
    """What was asked, with what, and the answer.

    Args:
      results: of the whole study.
      told: sentences; default: the answer of a study of one task.
      asked: facts in the place of environment, dataset and numbers of settings and members.
    """
    stamp = results.run.stamp
    study, env = stamp.get("study"), stamp.get("env")
    title = str(study or env or results.run.dir.path.name)
    eyebrow = "Sweep report" if study else "Run report"
    sentences = [tag("p", sentence) for sentence in told or answer(results)]
    return tag(
        "header",
        tag("p", f"{eyebrow} · jaxdiff", class_="eyebrow"),
        tag("h1", title),
        tag("div", *sentences, class_="answer"),
        _facts(asked or _asked(results, stamp), stamp),
        tag("p", "Command", class_="eyebrow"),
        copy_box(command_line(stamp)),
        _versions(stamp),
    )


def command_line(stamp: Mapping[str, Any]) -> str:
    """The command as it can be pasted into a shell."""
    command = stamp.get("command") or []
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)


def copy_box(command: str) -> Markup:
    """A command with a button that copies it."""
    button = tag("button", "Copy", type="button", data_copy="")
    return tag("div", tag("pre", tag("code", command)), button, class_="copy")


def _asked(results: Results, stamp: Mapping[str, Any]) -> list[tuple[str, Child]]:
    data = described(stamp.get("dataset") or {})
    asked = f"{len(results.settings)} settings, {len(results.members)} members"
    return [("Environment", stamp.get("env")), *([("Dataset", data)] if data else []), ("Asked", asked)]


def described(dataset: Mapping[str, Any]) -> Markup | None:
    """A dataset's name, size and hash; None where it has no name."""
    if not dataset.get("name"):
        return None
    size = f"{dataset.get('num_transitions', 0):,} transitions, {dataset.get('num_episodes', 0):,} episodes"
    digest = tag("code", f"sha256 {str(dataset.get('sha256'))[:16]}…", title=str(dataset.get("sha256")))
    return join([dataset["name"], tag("br"), tag("small", size), tag("br"), digest])


def _facts(asked: Sequence[tuple[str, Child]], stamp: Mapping[str, Any]) -> Markup:
    facts = list(asked)
    device = stamp.get("device_kind")
    facts.append(("Device", f"{stamp.get('device_count', 1)} × {device}" if device else None))
    facts.append(("Date", _date(stamp.get("created"))))
    commit = stamp.get("git_commit")
    dirty = " with uncommitted changes" if stamp.get("git_dirty") else ""
    facts.append(("Code", join([tag("code", str(commit)[:12]), dirty]) if commit else "no git commit recorded"))
    shown = [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value]
    return tag("dl", *shown, class_="facts")


def _date(created: Any) -> str | None:
    try:
        return datetime.datetime.fromisoformat(str(created)).strftime("%d %B %Y, %H:%M %Z").strip()
    except ValueError:
        return str(created) if created else None


def _versions(stamp: Mapping[str, Any]) -> Markup:
    rows = [[name, version] for name, version in sorted((stamp.get("versions") or {}).items())]
    table = tables.plain(["package", "version"], rows, "Versions", numbers=set()) if rows else None
    return tag("details", tag("summary", "Versions"), table) if table else Markup()


def final(results: Results) -> Markup | None:
    """The final table and how to read it."""
    if not results.settings:
        return None
    steps = sorted({setting.last_step for setting in results.settings if setting.last is not None})
    when = f" at {steps[0]:,} updates" if len(steps) == 1 else ""
    note = (
        f"Sorted by the last checkpoint{when}. A seed's score is the mean over its evaluation episodes. IQM is the "
        "mean of the middle half of the seeds; with fewer than 4 seeds nothing is trimmed and it is their mean. "
        "Intervals are 95 % percentile bootstraps of the IQM, seeds resampled inside each task (here: one). "
        "Filled dot and bar: last checkpoint; hollow dot: best; dashed: dataset mean."
    )
    warning = (
        "* Best checkpoint: the highest evaluation of each seed. It is selected by the very evaluation it reports and "
        "so is optimistic; compare methods by the last checkpoint."
    )
    if len(results.settings) > 5:
        warning += " The winner of many settings is chosen by the same seeds, so its own score is a little flattered."
    parts = [tag("p", note, class_="note"), tables.final(results), tag("p", warning, class_="note")]
    return section("final", "Final scores", *parts, *_best(results))


def _best(results: Results) -> list[Markup]:
    """The best setting's score and the command that trains it."""
    found = results.best
    if found is None or found.last is None:
        return []
    words = f"{found.label}: last-checkpoint IQM {spoken(found.last)} ({seeds(found.last)})"
    command = best.command(results.run.stamp, found)
    if command is not None:
        parts = [tag("p", f"{words}. Its seed of median score alone:"), copy_box(shlex.join(command))]
    else:
        parts = [
            tag("p", f"{words}. As a study of its own, for the config file; run it with --sweep=best:"),
            copy_box(best.study(found)),
        ]
    return [tag("h3", "The best setting"), *parts]


def which(results: Results, looks: Mapping[str, Look]) -> Markup | None:
    """What the good settings have in common, and what searching brings."""
    parts = good.parts(results, looks)
    return section("good", "Which settings are good", *parts) if parts else None


def learning(results: Results, looks: Mapping[str, Look]) -> Markup | None:
    """Learning curves, drawn for a wide and for a narrow screen."""
    wide = curves.learning_curves(results, looks, 960, 420)
    if not wide:
        return None
    narrow = curves.learning_curves(results, looks, 350, 320)
    note = (
        "Line: mean over seeds. Band: 95 % bootstrap interval of that mean. Faint: single seeds. "
        "A cross marks a seed's last evaluation before it went non-finite. Press a name to hide or show it everywhere."
    )
    if said(results, looks):
        note += f"{said(results, looks)}: the middle 80 % and the middle half of their means, and the median as a line."
    elif len(results.settings) > NUM_COLOURS:
        note += f" Settings beyond the best {NUM_COLOURS} are grey, without band and seeds."
    drawn = [tag("div", wide, class_="wide-only"), tag("div", narrow, class_="narrow")]
    return section("curves", "Learning curves", tag("p", note, class_="note"), legend(results, looks), *drawn)


def training(results: Results, looks: Mapping[str, Look]) -> Markup | None:
    """Training metrics as small multiples."""
    panels = metrics.panels(results, looks)
    if not panels:
        return None
    note = (
        "Mean over the seeds still healthy, colours as above. “log”: logarithmic axis; “cut”: values beyond the 1st "
        "and 99th percentile lie outside the axis."
    )
    if said(results, looks):
        note += f"{said(results, looks)}: as in the learning curves."
    most = MAX_METRICS if is_large(results) else len(panels)
    first, more = list(panels.values())[:most], list(panels)[most:]
    parts = [tag("p", note, class_="note"), tag("div", *first, class_="panels")]
    if more:
        words = f"{len(more)} more of {len(panels)} metrics: {', '.join(more)}"
        charts = tag("div", *(panels[name] for name in more), class_="panels")
        parts.append(tag("details", tag("summary", words), charts))
    return section("training", "Training metrics", *parts)


def sensitivities(results: Results, looks: Mapping[str, Look]) -> Markup | None:
    """Score against every swept hyperparameter."""
    panels = sensitivity.panels(results, looks)
    if not panels:
        return None
    note = (
        "Last-checkpoint IQM and 95 % interval along each swept key, every other key held; marks are set side by side, "
        "hollow where a setting is unfinished. Colours belong to the key under each panel."
    )
    if sensitivity.is_sampled(results):
        note = (
            "A dot is a setting at its last-checkpoint IQM, hollow while unfinished; colours are those of the learning "
            "curves. Large dots: means over the settings with a value, or in stretches of equally many settings, with "
            "95 % bootstrap intervals over settings. All other keys vary too, so this shows a key on average."
        )
    return section("sensitivity", "Sensitivity", tag("p", note, class_="note"), tag("div", *panels, class_="panels"))


def improvement(results: Results) -> Markup | None:
    """Who beats whom."""
    table = tables.improvement(results)
    if table is None:
        return None
    note = (
        "How often a seed of the row's setting scores above a seed of the column's, ties counted half "
        "(Mann–Whitney), with its 95 % bootstrap interval. 0.50 means no tendency; an interval that holds 0.50 settles "
        "nothing. Numbers are ranks of the final table; unfinished settings are left out."
    )
    if sum(setting.last is not None for setting in results.settings) > tables.MAX_MATRIX:
        note += f" Only the best {tables.MAX_MATRIX} settings are shown."
    return section("improvement", "Probability of improvement", tag("p", note, class_="note"), table)


def rollouts(results: Results, looks: Mapping[str, Look]) -> Markup | None:
    """Paths in the maze."""
    panels = maze.panels(results, looks)
    if not panels:
        return None
    note = (
        "The best setting of each algorithm, its seed of median score, in the last evaluation. "
        "Ring: start. Dot: end. Star: goal, with the region that counts as reached."
    )
    return section("rollouts", "Rollouts", tag("p", note, class_="note"), tag("div", *panels, class_="panels"))


def offloaded(results: Results) -> Markup | None:
    """Vehicles, their queues and what they hand to whom."""
    panels = road.panels(results)
    if not panels:
        return None
    note = (
        "The best setting of each algorithm, its seed of median score: the first episode recorded in the last "
        f"evaluation, at most {road.MAX_SLOTS} slots of it. Positions and queues are those at the start of each slot. "
        "A decision is a cell: above, who runs the rest of the network; below, and as the filled part, the layers that "
        "the client keeps."
    )
    return section("road", "Vehicles, queues and decisions", tag("p", note, class_="note"), *panels)


def planned(results: Results) -> Markup | None:
    """Plans against the paths that came of them."""
    panels = plans.panels(results)
    if not panels:
        return None
    note = (
        "The best setting of each planner, its seed of median score: what it planned at the start of the episodes "
        "recorded in the last evaluation, and where it went. All candidates, their values and the whole denoising:"
    )
    task = results.run.stamp.get("task")
    which = "" if task is None else f" {shlex.quote(f'--task={task}')}"
    command = copy_box(f"jaxdiff plan {shlex.quote(str(results.run.dir.path))}{which} --html=plans.html")
    return section("plans", "Plans", tag("p", note, class_="note"), command, *panels)


def trouble_and_cost(results: Results) -> Markup:
    """What failed, what is unfinished, and what everything took."""
    failed, waiting = cost.failures(results), cost.unfinished(results)
    problems = [*results.run.problems, *(f"{p.id}: {problem}" for p in results.run.packs for problem in p.problems)]
    return section(
        "cost",
        "Failures and cost",
        *([tag("h3", "Members that went non-finite"), failed] if failed else [tag("p", "No member went non-finite.")]),
        *([tag("h3", "Packs that have not finished"), waiting] if waiting else []),
        *([tag("h3", "Files that could not be read")] if problems else []),
        *([tag("ul", *(tag("li", problem) for problem in problems))] if problems else []),
        tag("h3", "Cost"),
        tag("p", cost.total(results), class_="note"),
        cost.packs(results),
    )


def repeat(results: Results) -> Markup:
    """Commands that give the same run again."""
    folder = shlex.quote(str(results.run.dir.path))
    parts: list[Child] = [tag("p", "The run from its own record (config, seeds and dataset hash are in run.json):")]
    parts.append(copy_box(f"jaxdiff rerun {folder}"))
    parts.append(tag("p", "This page from the files beside it:"))
    parts.append(copy_box(f"jaxdiff report {folder}"))
    waiting = any(pack.status != "finished" for pack in results.run.packs)
    command = command_line(results.run.stamp)
    if command and waiting:
        parts.append(tag("p", "To go on with the unfinished packs, give the original command again:"))
        parts.append(copy_box(command))
    parts.append(tag("p", "The numbers of the final table are also in report.json and report.csv.", class_="note"))
    return section("repeat", "How to repeat it", *parts)


def section(anchor: str, title: str, *parts: Child) -> Markup:
    """A section with a heading."""
    return tag("section", tag("h2", title), *parts, id=anchor)
