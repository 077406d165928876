"""Which settings are good: their hyperparameters, what trying n of them brings, how the best ones' runs spread."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxdiff.io.report import parallel, statistics, svg
from jaxdiff.io.report.budget import Budget, tuning_budget
from jaxdiff.io.report.knobs import swept_keys
from jaxdiff.io.report.looks import REST, Look, keys
from jaxdiff.io.report.markup import Child, Markup, tag
from jaxdiff.io.report.results import Results, Setting

MANY = 12  # settings; with more, tables alone no longer tell which are good
MANY_KEYS = 3
PROFILE_SEEDS = 5  # with fewer, a profile has too few steps to say more than the table
MAX_PROFILES = 5
MIN_SEARCH = 8  # settings of an algorithm that has a budget curve of its own
SIZE = (430, 300)


def parts(results: Results, looks: Mapping[str, Look]) -> list[Markup]:
    """Charts with their notes; none for a small study, whose final table says it all."""
    drawn: list[Markup] = []
    swept, ranked = swept_keys(results), [setting for setting in results.settings if setting.last is not None]
    if len(ranked) > 1 and (len(swept) >= MANY_KEYS or (len(ranked) > MANY and len(swept) > 1)):
        drawn += [tag("p", _parallel_note(results), class_="note"), _scrolled(parallel.drawing(results, looks))]
    pair = [
        _budget(results) if len(ranked) > MANY else None,
        _profiles(results, looks),
    ]
    shown = [chart for chart in pair if chart is not None]
    return [*drawn, tag("div", *shown, class_="pair")] if shown else drawn


def _scrolled(chart: Markup) -> Markup:
    name = "Hyperparameters and score"
    return tag("div", chart, class_="scroll strands", tabindex=0, role="region", aria_label=name)


def _parallel_note(results: Results) -> str:
    swept, ranked = swept_keys(results), sum(setting.last is not None for setting in results.settings)
    axes, lines = len(parallel.chosen(results)), len(parallel.strands(results))
    note = (
        "A line is a setting: its values from left to right, its last-checkpoint IQM on the last axis. The better its "
        "rank, the stronger the line; colours are those of the learning curves. “Explains”: share of the variance of "
        "the settings' IQMs that a key explains alone, its values taken in groups and corrected for their number; keys "
        "that matter only together show little here."
    )
    if axes < len(swept):
        note += f" {axes} of {len(swept)} swept keys are drawn: those that explain most."
    if lines < ranked:
        half = parallel.MAX_STRANDS // 2
        note += f" {lines} of {ranked} settings are drawn: the best {half} and an even sample of the others."
    return note


def searched(settings: Sequence[Setting]) -> list[np.ndarray]:
    """What a search would have met: every finished setting's scores, one per seed.

    A setting that went non-finite with all its seeds has cost its trial too; it counts as the worst score seen.
    """
    finished = [setting for setting in settings if setting.last is not None and not setting.provisional]
    found = [setting.last.scores for setting in finished if setting.last is not None]
    if not found:
        return []
    worst = min(float(scores.min()) for scores in found)
    lost = [setting for setting in settings if setting.num_nonfinite == len(setting.members)]
    return found + [np.full(len(setting.members), worst) for setting in lost]


def _budget(results: Results) -> Markup | None:
    """Expected score of the best of n settings, of each algorithm that has enough of them."""
    names = list(dict.fromkeys(setting.algorithm for setting in results.settings))
    pools = {name: searched([s for s in results.settings if s.algorithm == name]) for name in names}
    pools = {name: pool for name, pool in sorted(pools.items()) if len(pool) >= MIN_SEARCH}
    if len(pools) < 2:
        pools = {"all settings": searched(results.settings)}
    if not all(pools.values()):
        return None
    budgets = {}
    for name, pool in pools.items():
        draws = np.unique(np.geomspace(1, len(pool), 40).round().astype(int))
        budgets[name] = tuning_budget(pool, draws)
    ends = np.concatenate([np.concatenate([b.expected, b.low, b.high, _held_out(b)]) for b in budgets.values()])
    most = max(len(pool) for pool in pools.values())
    frame = svg.Frame.make(*SIZE, (1.0, float(most)), svg.span(ends), x_kind="log" if most > 30 else "linear")
    title = f"settings tried{', log scale' if most > 30 else ''}"
    drawn = [svg.axes(frame, title, f"expected {results.quantity_name} of the best")]
    listed: list[tuple[str, str, str | None]] = []
    for index, (name, budget) in enumerate(budgets.items()):
        class_ = f"c{index % 8}" if len(budgets) > 1 else "pooled"
        drawn.append(_budget_line(frame, name, budget, class_))
        listed.append((name, class_, None))
        if budget.held_out is not None:
            listed.append((f"{name}, chosen by the other seeds", class_, "3 4"))
    chart = svg.drawing(frame, *drawn, label="expected score of the best of n settings")
    note = (
        "If only n settings, drawn at random from those of this study, had been tried: the expected score of the one "
        "with the best mean over seeds. Exact, not simulated"
    )
    has_bands = any(np.isfinite(budget.low).any() for budget in budgets.values())
    note += "; band: 95 % bootstrap over seeds." if has_bands else "; one seed of each gives no band."
    note += " Choosing by the seeds that are reported flatters"
    told = any(budget.held_out is not None for budget in budgets.values())
    note += "; dotted: every setting is chosen by all its seeds but one and scored by that one." if told else "."
    caption = [tag("figcaption", tag("b", "Tuning budget")), tag("p", note, class_="note")]
    return tag("figure", *caption, chart, keys(listed), *[_budget_words(n, b) for n, b in budgets.items()])


def _held_out(budget: Budget) -> np.ndarray:
    return budget.held_out if budget.held_out is not None else np.zeros(0)


def _budget_line(frame: svg.Frame, name: str, budget: Budget, class_: str) -> Markup:
    marks: list[Child] = [svg.band(frame, budget.draws, budget.low, budget.high, class_="band")]
    marks.append(svg.line(frame, budget.draws, budget.expected, class_="line"))
    if budget.held_out is not None:
        marks.append(svg.line(frame, budget.draws, budget.held_out, class_="line thin", stroke_dasharray="3 4"))
    for index, n in enumerate(budget.draws):
        words = f"{name}, best of {n}: {budget.expected[index]:.1f}"
        if np.isfinite(budget.low[index]):
            words += f"\n95 % interval {budget.low[index]:.1f} to {budget.high[index]:.1f}"
        if budget.held_out is not None:
            words += f"\nchosen by the other seeds: {budget.held_out[index]:.1f}"
        marks.append(svg.dot(frame.x(n), frame.y(budget.expected[index]), words, radius=0.0))
    return tag("g", *marks, class_=class_)


def _budget_words(name: str, budget: Budget) -> Markup:
    start, end = float(budget.expected[0]), float(budget.expected[-1])
    near = int(budget.draws[np.argmax(budget.expected >= start + 0.9 * (end - start))])
    words = f"{name}: one setting is expected to give {start:.1f}, all {budget.draws[-1]} give {end:.1f}"
    if budget.held_out is not None:
        words += f" ({float(budget.held_out[-1]):.1f} by seeds that had no say)"
    return tag("p", f"{words}; nine tenths of that gain come with {near}.", class_="note")


def _profiles(results: Results, looks: Mapping[str, Look]) -> Markup | None:
    """Fraction of runs above a score, of the best settings, the baseline and all others together."""
    ranked = [s for s in results.settings if s.last is not None and not s.provisional and looks[s.label].main]
    shown = ranked[:MAX_PROFILES]
    if results.baseline in ranked and results.baseline not in shown and results.baseline is not None:
        shown.append(results.baseline)
    best = [(setting, setting.last.scores) for setting in shown if setting.last is not None]
    if len(best) < 2 or max(len(scores) for _, scores in best) < PROFILE_SEEDS:
        return None
    rest = [s for s in results.settings if s not in shown and s.last is not None and not s.provisional]
    pooled = np.concatenate([s.last.scores for s in rest if s.last is not None] or [np.zeros(0)])
    ends = np.concatenate([scores for _, scores in best] + [np.quantile(pooled, [0.25, 1.0]) if len(pooled) else []])
    frame = svg.Frame.make(*SIZE, svg.span(ends), (-0.02, 1.04))
    thresholds = np.linspace(frame.x.low, frame.x.high, 160)
    drawn = [svg.axes(frame, results.quantity_name, "fraction of runs above")]
    listed: list[tuple[str, str, str | None]] = []
    if len(pooled):
        above = (pooled[:, None] > thresholds).mean(axis=0)
        name = f"the other {len(rest)} settings, {len(pooled)} runs"
        line = svg.line(frame, thresholds, above, class_="line")
        drawn.append(tag("g", line, tag("title", name), class_="series other", data_series=REST))
        listed.append((name, "other", None))
    for setting, scores in reversed(best):
        look, (above, low, high) = looks[setting.label], statistics.performance_profile(scores, thresholds)
        marks = [svg.band(frame, thresholds, low, high, class_="band"), tag("title", setting.label)]
        marks.append(svg.line(frame, thresholds, above, class_="line thin", stroke_dasharray=look.dash))
        drawn.append(tag("g", *marks, class_=f"series {look.class_}", data_series=look.series))
        listed.append((setting.label, look.class_, look.dash))
    chart = svg.drawing(frame, *drawn, label=f"performance profiles of {len(best)} settings")
    baseline = " and the baseline" if results.baseline in shown[MAX_PROFILES:] else ""
    note = (
        "The fraction of a setting's seeds that score above the number below; further right is better, steeper is more "
        "reliable. Band: pointwise 95 % bootstrap over seeds. "
        f"{len(best)} of {len(best) + len(rest)} finished settings are drawn: the best "
        f"{min(len(best), MAX_PROFILES)}{baseline}."
    )
    caption = [tag("figcaption", tag("b", "Performance profile")), tag("p", note, class_="note")]
    return tag("figure", *caption, chart, keys(reversed(listed)))
