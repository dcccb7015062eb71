"""Plots as SVG text for a page, in the page's own text colour: light and dark both work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from zerolabel.errors import UsageError

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 16, 48
ROOM = 36  # between two numbers on the horizontal axis
MARK = "#d9593d"  # contrast over 3:1 on white and on near-black


def line_chart(
    x: Sequence[float],
    y: Sequence[float],
    *,
    mark: float | None = None,
    title: str,
    x_label: str,
    y_label: str,
) -> str:
    """Draw a curve, e.g. a score over the number of categories, and the point that was chosen.

    Args:
        x: positions, rising.
        y: values, one per position; pairs that are not finite are left out.
        mark: the position to point out; it is one of `x`.
        title: what the curve shows, for readers who cannot see it.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.

    Returns:
        An `<svg>` element to stand in an HTML page.

    Raises:
        UsageError: no finite point, or `x` and `y` differ in length.
    """
    points = [(float(a), float(b)) for a, b in zip(x, y, strict=False) if math.isfinite(a + b)]
    if len(x) != len(y) or not points:
        raise UsageError(
            f"A line chart needs as many x as y values and one finite pair; found {len(x)} x and "
            f"{len(y)} y values, {len(points)} finite pairs."
        )
    parts, place = axes(
        [a for a, _ in points],
        [b for _, b in points],
        title=title,
        x_label=x_label,
        y_label=y_label,
    )
    parts.append(_curve([place(a, b) for a, b in points]))
    parts.extend(_mark(place(a, b), b) for a, b in points if a == mark)
    return "".join([*parts, "</svg>"])


def axes(
    x: Sequence[float],
    y: Sequence[float],
    *,
    title: str,
    x_label: str,
    y_label: str,
    names: Sequence[str] | None = None,
    below: float = 0,
) -> tuple[list[str], Callable[[float, float], tuple[float, float]]]:
    """Begin a plot: everything up to its axes.

    Args:
        x: all positions, finite.
        y: all values, finite.
        title: what it shows, for readers who cannot see it.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        names: what stands below the positions 0, 1, ...; None for their numbers.
        below: height to leave free under the axes, for a legend.

    Returns:
        Parts of an `<svg>` element that is still open, and where a point lies in it.
    """
    x_low, x_high = min(x), max(x)
    y_ticks = ticks(min(y), max(y))

    def place(a: float, b: float) -> tuple[float, float]:
        across = (a - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (b - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + below:g}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">'
    ]
    for tick in y_ticks:
        _, at = place(x_low, tick)
        parts.append(_line(LEFT, at, WIDTH - RIGHT, at))
        parts.append(text(LEFT - 8, at + 4, _number(tick), "end"))
    numbered = {tick: _number(tick) for tick in _below(x)}
    for tick, words in (numbered if names is None else dict(enumerate(names))).items():
        parts.append(text(place(tick, y_ticks[0])[0], HEIGHT - BOTTOM + 18, words))
    middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
    parts.append(text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 8, x_label))
    parts.append(
        f'<text transform="translate(14 {middle:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>"
    )
    return parts, place


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers, steps of 1, 2 or 5 times a power of ten, that enclose low..high."""
    if high <= low:
        pad = abs(low) / 2 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _below(x: Sequence[float]) -> list[float]:
    """Return the numbers below the curve: its own positions where they have room."""
    own = sorted(set(x))
    gap = min((b - a for a, b in zip(own, own[1:], strict=False)), default=1.0)
    if len(own) == 1 or gap / (own[-1] - own[0]) * (WIDTH - LEFT - RIGHT) >= ROOM:
        return own
    return [tick for tick in ticks(own[0], own[-1]) if own[0] <= tick <= own[-1]]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.4g}"


def _line(x0: float, y0: float, x1: float, y1: float) -> str:
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" '
        'stroke="currentColor" stroke-opacity="0.15"/>'
    )


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    """Write words at a place of a plot; `anchor` is start, middle or end."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def rect(x: float, y: float, width: float, height: float, rest: str) -> str:
    """Draw a rectangle; `rest` holds its other attributes."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {rest}/>'


def label(x: float, y: float, name: str, anchor: str = "middle", *, longest: int = 21) -> str:
    """Write a name, cut if it is long; the whole of it shows under a resting pointer."""
    cut = name if len(name) <= longest else f"{name[: longest - 1]}…"
    return f"<g><title>{escape(name)}</title>{text(x, y, cut, anchor)}</g>"


def _curve(places: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in places)
    return (
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.75" '
        f'stroke-linejoin="round"/>{dots if len(places) <= 60 else ""}'
    )


def _mark(place: tuple[float, float], value: float) -> str:
    a, b = place
    anchor = "end" if a > WIDTH - RIGHT - 40 else "middle"
    above = b - 12 if b > TOP + 20 else b + 22
    return (
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="6" fill="{MARK}"/>'
        f'<g font-weight="600">{text(a, above, _number(value), anchor)}</g>'
    )
