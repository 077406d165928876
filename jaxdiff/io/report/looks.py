"""The look that a setting keeps in every chart, which settings are drawn at all, and the legend that says so."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses

from jaxdiff.io.report.markup import Markup, join, tag
from jaxdiff.io.report.results import Results, Setting

NUM_COLOURS = 8  # the theme's palette; more colours could not be told apart
DASHES = (None, "7 4", "2 4", "10 3 2 3")  # by algorithm, so that colour is never the only cue
MAX_LINES = 30  # with more settings than this, those beyond the palette are drawn as one band, and tables are folded
MAX_ROWS = 20  # of a long table that are not folded away
REST = -1  # identifies that band to the legend's button


@dataclasses.dataclass(frozen=True)
class Look:
    """How a setting is drawn everywhere."""

    series: int  # identifies the setting's marks to the legend's buttons
    class_: str  # its colour
    dash: str | None
    main: bool  # False: beyond the palette, drawn thin and grey


def assign_looks(results: Results) -> dict[str, Look]:
    """The best settings and the baseline get the palette's colours, in alphabetical order; the others are grey."""
    return looks_of(results.settings, results.baseline)


def looks_of(settings: Sequence[Setting], baseline: Setting | None) -> dict[str, Look]:
    """`assign_looks` of settings that come best first."""
    coloured = [setting.label for setting in settings[:NUM_COLOURS]]
    if baseline is not None and baseline.label not in coloured:
        coloured[-1] = baseline.label
    algorithms = sorted({setting.algorithm for setting in settings})
    order = {label: index for index, label in enumerate(sorted(coloured))}
    looks = {}
    for series, setting in enumerate(settings):
        colour = order.get(setting.label)
        dash = DASHES[algorithms.index(setting.algorithm) % len(DASHES)]
        class_ = "other" if colour is None else f"c{colour}"
        looks[setting.label] = Look(series, class_, dash, colour is not None)
    return looks


def is_large(results: Results) -> bool:
    """Whether there are too many settings to draw and list each."""
    return len(results.settings) > MAX_LINES


def folded(results: Results, looks: Mapping[str, Look]) -> tuple[Setting, ...]:
    """The settings that are no line of their own: in a large study all that have no colour."""
    return tuple(s for s in results.settings if not looks[s.label].main) if is_large(results) else ()


def said(results: Results, looks: Mapping[str, Look]) -> str:
    """' 8 of 200 settings are drawn: ...', or nothing where all are."""
    rest = folded(results, looks)
    if not rest:
        return ""
    total = len(results.settings)
    baseline = results.baseline is not None and results.baseline not in results.settings[: total - len(rest)]
    best = total - len(rest) - baseline
    which = f"the best {best}" + (" and the baseline" if baseline else "")
    return f" {total - len(rest)} of {total} settings are drawn: {which}. The grey bands hold the other {len(rest)}"


def legend(results: Results, looks: Mapping[str, Look]) -> Markup:
    """One button a setting; pressing it hides or shows the setting in every chart. The grey ones are folded away."""
    settings = sorted(results.settings, key=lambda setting: setting.label)
    rest = folded(results, looks)
    main = [_button(s.label, looks[s.label]) for s in settings if looks[s.label].main]
    grey = [_button(s.label, looks[s.label]) for s in settings if not looks[s.label].main] if not rest else []
    if rest:
        main.append(_button(f"the other {len(rest)} settings", Look(REST, "other", None, main=False)))
    if results.dataset_mean is not None:
        words = tag("span", f"dataset mean {results.dataset_mean:.1f}")
        main.append(tag("div", key("level", None), words))
    shown = tag("div", *main, class_="legend")
    if not grey:
        return shown
    more = tag("details", tag("summary", f"{len(grey)} more, in grey"), tag("div", *grey, class_="legend"))
    return join([shown, more])


def _button(label: str, look: Look) -> Markup:
    state = {"type": "button", "aria_pressed": "true"}
    name = tag("span", label)
    return tag("button", key("line", look.dash), name, class_=look.class_, data_toggle=look.series, **state)


def key(class_: str, dash: str | None) -> Markup:
    """A short piece of a line, for a legend."""
    sample = tag("path", class_=class_, d="M0 6H26", stroke_dasharray=dash)
    return tag("svg", sample, viewBox="0 0 26 12", class_="key", aria_hidden="true")


def keys(lines: Iterable[tuple[str, str, str | None]]) -> Markup:
    """The lines of one chart: (name, class, dash) of each."""
    items = [tag("li", key("line", dash), tag("span", name), class_=class_) for name, class_, dash in lines]
    return tag("ul", *items, class_="keys")
