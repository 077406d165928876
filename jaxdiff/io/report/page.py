"""The whole page, and the files written beside it."""

from collections.abc import Iterable
from importlib import resources

from jaxdiff.io.report import sections
from jaxdiff.io.report.looks import assign_looks
from jaxdiff.io.report.markup import Child, Markup, join, tag
from jaxdiff.io.report.results import Results


def page(results: Results, refresh_seconds: float | None = None) -> str:
    """One HTML document that refers to nothing outside itself.

    Args:
      results: what it shows.
      refresh_seconds: a browser reads the page anew that often, while it is being rewritten; None: never.
    """
    looks = assign_looks(results)
    parts = [
        sections.header(results),
        sections.final(results),
        sections.learning(results, looks),
        sections.which(results, looks),
        sections.sensitivities(results, looks),
        sections.improvement(results),
        sections.rollouts(results, looks),
        sections.offloaded(results),
        sections.planned(results),
        sections.training(results, looks),
        sections.trouble_and_cost(results),
        sections.repeat(results),
        tag("footer", "Written by jaxdiff. This page needs no network and no other file."),
    ]
    stamp = results.run.stamp
    title = f"{stamp.get('study') or stamp.get('env') or results.run.dir.path.name} · jaxdiff report"
    return document(title, parts, refresh_seconds=refresh_seconds)


def document(
    title: str, parts: Iterable[Child], *, style: str = "", script: str = "", refresh_seconds: float | None = None
) -> str:
    """A page in the report's looks that refers to nothing outside itself.

    Args:
      title: of the window.
      parts: what is on it.
      style: CSS beside the theme's.
      script: JavaScript beside the theme's.
      refresh_seconds: a browser reads the page anew that often; None: never.
    """
    again = None
    if refresh_seconds is not None:
        again = tag("meta", http_equiv="refresh", content=max(round(refresh_seconds), 1))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        again,
        tag("title", title),
        tag("style", Markup(asset(__package__, "theme.css") + style)),
    )
    code = Markup(asset(__package__, "theme.js") + script)
    body = tag("body", tag("main", join(parts)), tag("script", code))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def asset(package: str | None, name: str) -> str:
    """A file of a package, to be inlined."""
    assert package is not None
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")
