"""Small SVG drawings: scales with readable ticks, axes, lines, bands, dots.

Coordinates are CSS pixels of the `viewBox`. Colours are never written here: a series has a class that sets the
`color` of its group and marks use `currentColor`, so that the page's light and dark themes decide.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import math
from typing import Literal

import numpy as np

from jaxdiff.io.report.markup import Child, Markup, join, tag

Kind = Literal["linear", "log"]
Floats = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps data in [low, high] to pixels in [start, stop]."""

    low: float
    high: float
    start: float
    stop: float
    kind: Kind = "linear"

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, float(value)
        if self.kind == "log":
            low, high, at = math.log10(low), math.log10(high), math.log10(at)
        return self.start + (at - low) / (high - low) * (self.stop - self.start)

    def ticks(self, count: int) -> list[float]:
        """About `count` round numbers inside the scale."""
        if self.kind == "log":
            return log_ticks(self.low, self.high, count)
        return linear_ticks(self.low, self.high, count)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten inside [low, high], as near to `count` of them as that allows."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda size: abs(math.log(size / rough)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Powers of ten inside [low, high], thinned to about `count`; with 2 and 5 between where there are few."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    stride = max(1, round((last - first + 1) / max(count, 1)))
    powers = [10.0**power for power in range(first, last + 1, stride)]
    inside = [tick for tick in powers if low * 0.999 <= tick <= high * 1.001]
    if len(inside) >= 3 or last - first > 3:
        return inside
    fine = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [tick for tick in fine if low * 0.999 <= tick <= high * 1.001] or [low, high]


def span(values: Iterable[float], kind: Kind = "linear", pad: float = 0.06) -> tuple[float, float]:
    """Range of the finite values (positive ones for a log scale), padded, and never empty."""
    array = np.asarray(list(values), np.float64)
    array = array[np.isfinite(array) & ((array > 0) | (kind != "log"))]
    if not array.size:
        return (0.1, 10.0) if kind == "log" else (0.0, 1.0)
    low, high = float(array.min()), float(array.max())
    if kind == "log":
        margin = (high / low) ** pad if high > low * 1.0001 else 2.0
        return low / margin, high * margin
    margin = (high - low) * pad or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def short(value: float) -> str:
    """A number as an axis writes it: 0.5, 20, 1.5k, 10k, 2M, 3e-4."""
    size = abs(value)
    if size == 0 or not math.isfinite(value):
        return f"{value:g}"
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if limit * 0.999999 <= size < 1e12:
            return f"{value / limit:.4g}{suffix}"
    if size < 1e-3 or size >= 1e12:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.4g}"


@dataclasses.dataclass(frozen=True)
class Frame:
    """A drawing with two axes."""

    width: int
    height: int
    x: Scale
    y: Scale

    @classmethod
    def make(
        cls,
        width: int,
        height: int,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        x_kind: Kind = "linear",
        y_kind: Kind = "linear",
        left: int = 52,
    ) -> "Frame":
        """Margins leave room for tick labels below and at the left, and for the y title above."""
        x = Scale(*x_range, left, width - 16, x_kind)
        return cls(width, height, x, Scale(*y_range, height - 44, 30, y_kind))


def axes(
    frame: Frame,
    x_title: str,
    y_title: str,
    *,
    x_ticks: Sequence[tuple[float, str]] | None = None,
) -> Markup:
    """Grid, tick labels and titles. `x_ticks` are (value, label) pairs where the axis is not a plain number line."""
    x, y = frame.x, frame.y
    parts = []
    for tick in y.ticks(max(3, round((y.start - y.stop) / 45))):
        at = y(tick)
        parts.append(tag("line", class_="grid", x1=x.start, x2=x.stop, y1=at, y2=at))
        parts.append(tag("text", short(tick), class_="tick", x=x.start - 8, y=at + 4, text_anchor="end"))
    shown = x_ticks if x_ticks is not None else [(t, short(t)) for t in x.ticks(round((x.stop - x.start) / 75))]
    for value, label in shown:
        at = x(value)
        parts.append(tag("line", class_="axis", x1=at, x2=at, y1=y.start, y2=y.start + 4))
        parts.append(tag("text", label, class_="tick", x=at, y=y.start + 19, text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=x.start, x2=x.stop, y1=y.start, y2=y.start))
    parts.append(tag("text", x_title, class_="title", x=x.stop, y=y.start + 38, text_anchor="end"))
    parts.append(tag("text", y_title, class_="title", x=4, y=15))
    return tag("g", *parts)


def path(points: Iterable[tuple[float, float]]) -> str:
    """Path data through pixel points; a gap is made where a coordinate is not finite."""
    written, pen_up = [], True
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen_up = True
            continue
        written.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = False
    return "".join(written)


def line(frame: Frame, xs: Floats, ys: Floats, **attributes: Child) -> Markup:
    """A line through data points, with gaps where y is not finite (or not positive on a log scale)."""
    points = ((frame.x(x), _pixel(frame.y, y)) for x, y in zip(xs, ys, strict=True))
    return tag("path", d=path(points), fill="none", **attributes)


def band(frame: Frame, xs: Floats, lows: Floats, highs: Floats, **attributes: Child) -> Markup:
    """The area between two lines; points where either is not finite are left out."""
    kept = [(x, a, b) for x, a, b in zip(xs, lows, highs, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(kept) < 2:
        return Markup()
    outline = [(frame.x(x), frame.y(b)) for x, _, b in kept] + [(frame.x(x), frame.y(a)) for x, a, _ in reversed(kept)]
    return tag("path", d=path(outline) + "Z", **attributes)


def dot(x: float, y: float, title: str, *, radius: float = 3.5, class_: str = "dot") -> Markup:
    """A mark with a tooltip, inside a larger transparent disc that a pointer can hit."""
    return tag(
        "g",
        tag("circle", class_="hit", cx=x, cy=y, r=9.0),
        tag("circle", class_=class_, cx=x, cy=y, r=radius),
        tag("title", title),
    )


def cross(x: float, y: float, title: str) -> Markup:
    """A small x, for where a member failed."""
    data = f"M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"
    hit = tag("circle", class_="hit", cx=x, cy=y, r=9.0)
    return tag("g", hit, tag("path", class_="cross", d=data), tag("title", title))


def drawing(canvas: Frame | tuple[float, float], *parts: Markup, label: str, class_: str | None = None) -> Markup:
    """The svg element. `label` says in words what is drawn, for readers who do not see it."""
    size = canvas if isinstance(canvas, tuple) else (canvas.width, canvas.height)
    box = f"0 0 {size[0]:g} {size[1]:g}"
    return tag("svg", join(parts), viewBox=box, role="img", aria_label=label, class_=class_)


def _pixel(scale: Scale, value: float) -> float:
    if not math.isfinite(value) or (scale.kind == "log" and value <= 0):
        return math.nan
    return scale(value)
