"""The whole page, and the files written beside it."""

from importlib import resources

from jaxdiff.io.report import curves, sections
from jaxdiff.io.report.markup import Markup, join, tag
from jaxdiff.io.report.results import Results


def page(results: Results) -> str:
    """One HTML document that refers to nothing outside itself."""
    looks = curves.assign_looks(results)
    parts = [
        sections.header(results),
        sections.final(results),
        sections.learning(results, looks),
        sections.sensitivities(results, looks),
        sections.improvement(results),
        sections.rollouts(results, looks),
        sections.training(results, looks),
        sections.trouble_and_cost(results),
        sections.repeat(results),
        tag("footer", "Written by jaxdiff. This page needs no network and no other file."),
    ]
    stamp = results.run.stamp
    title = f"{stamp.get('study') or stamp.get('env') or results.run.dir.path.name} · jaxdiff report"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", _asset("theme.css")),
    )
    body = tag("body", tag("main", join(parts)), tag("script", _asset("theme.js")))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _asset(name: str) -> Markup:
    """A file beside this one, to be inlined."""
    return Markup(resources.files(__package__).joinpath(name).read_text(encoding="utf-8"))
