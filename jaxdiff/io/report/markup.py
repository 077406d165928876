"""HTML and SVG text in which whatever is not markup already is escaped.

A string that came from a user (a label, a path, a command line) is a `str` and is escaped on its way in; only what
`tag` and `join` return is `Markup` and passes untouched. Nothing has to remember to escape.
"""

from collections.abc import Iterable
import html
import math

VOID = frozenset({"br", "hr", "meta", "input"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | float | None


def text(value: Child) -> Markup:
    """Markup untouched, None as nothing, anything else as escaped text."""
    if value is None:
        return Markup()
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[Child], separator: str = "") -> Markup:
    """Several pieces as one; each is escaped unless it is markup."""
    return Markup(html.escape(separator).join(text(part) for part in parts))


def tag(name: str, /, *children: Child, **attributes: Child) -> Markup:
    """One element.

    `class_` is written `class` and `stroke_width` as `stroke-width`; an attribute that is None is left out, one that
    is the empty string is written without a value. Floats are rounded to two decimals: they are drawing coordinates.
    """
    written = []
    for key, value in attributes.items():
        if value is None:
            continue
        attribute = key.rstrip("_").replace("_", "-") if key != "viewBox" else key
        written.append(f" {attribute}" if value == "" else f' {attribute}="{text(number(value))}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening) if name in VOID else Markup(f"{opening}{join(children)}</{name}>")


def number(value: Child) -> Child:
    """A float as a short coordinate; anything else unchanged."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        raise ValueError(f"a drawing coordinate must be finite, got {value}; drop missing points before drawing.")
    return f"{value:.2f}".rstrip("0").rstrip(".")
