"""Bars by class, as SVG: one for every group that is compared, legible on the narrowest screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import palette
from zerolabel.outputs.plots import label, rect, text, ticks

WIDTH, NAMES, VALUES = 440, 132, 42  # all, room for class names, for the numbers behind the bars
WIDEST = 560  # pixels on the page
BAR, BETWEEN = 13, 9  # height of a bar, room between classes
KEY = 20  # height of a line that names a colour
AXIS = 22  # room for the numbers above the bars


@dataclass(frozen=True)
class Bars:
    """One bar for every class.

    Attributes:
        name: what they belong to.
        values: shares 0..1; None leaves the bar out.
        spread: standard deviation of each, or None where there is none.
    """

    name: str
    values: Sequence[float | None]
    spread: Sequence[float | None]


def bar_chart(names: Sequence[str], groups: Sequence[Bars], *, title: str) -> str:
    """Draw a share for every class in percent, the bars of all groups below each other.

    Args:
        names: of the C classes.
        groups: each with C values.
        title: what the chart shows, for readers who cannot see it.

    Returns:
        An `<svg>` element to stand in an HTML page.

    Raises:
        UsageError: nothing to draw, or a group with another number of values.
    """
    counts = [len(values) for group in groups for values in (group.values, group.spread)]
    if not names or not groups or set(counts) != {len(names)}:
        raise UsageError(
            f"A bar chart needs as many values in every group as there are names: expected "
            f"{len(names)}, found {counts}."
        )
    colours = [f"rgb({r} {g} {b})" for r, g, b in palette(len(groups)).tolist()]
    first = KEY * len(groups) + AXIS
    pitch = BAR * len(groups) + BETWEEN
    height = first + pitch * len(names)
    marks = ticks(0, max([1.0, *_shown(groups)]))
    scale = (WIDTH - NAMES - VALUES) / marks[-1]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" style="max-width:{WIDEST}px" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12" '
        'fill="currentColor">'
    ]
    for i, group in enumerate(groups):
        parts.append(rect(0, KEY * i + 4, 11, 11, f'fill="{colours[i]}" rx="2"'))
        parts.append(text(18, KEY * i + 14, group.name, "start"))
    for mark in marks:
        x = NAMES + mark * scale
        parts.append(rect(x, first - 4, 1, height - first + 4, 'fill-opacity="0.13"'))
        parts.append(text(x, first - 8, f"{mark:g}"))
    for c, name in enumerate(names):
        top = first + pitch * c + BETWEEN / 2
        parts.append(label(NAMES - 8, top + (pitch - BETWEEN) / 2 + 4, name, "end"))
        for i, group in enumerate(groups):
            words = f"{name}, {group.name}"
            bar = _bar(group.values[c], group.spread[c], top + BAR * i, scale, colours[i], words)
            parts.append(bar)
    return "".join([*parts, "</svg>"])


def _shown(groups: Sequence[Bars]) -> list[float]:
    """Collect where all bars and deviations end, in percent."""
    return [
        100 * (value + (spread or 0))
        for group in groups
        for value, spread in zip(group.values, group.spread, strict=True)
        if value is not None
    ]


def _bar(
    value: float | None, spread: float | None, top: float, scale: float, colour: str, words: str
) -> str:
    """Draw a bar, the standard deviation at its end, and its number."""
    if value is None:
        return f'<g opacity="0.6">{text(NAMES + 5, top + 10.5, "–", "start")}</g>'
    end = NAMES + 100 * value * scale
    number = f"{100 * value:.1f}"
    deviation = "" if spread is None else f" ± {100 * spread:.1f}"
    parts = [
        f"<g><title>{escape(f'{words}: {number}{deviation}')}</title>",
        rect(NAMES, top + 1, end - NAMES, BAR - 2, f'fill="{colour}" rx="1.5"'),
    ]
    if spread:
        low = max(NAMES, end - 100 * spread * scale)
        end = min(end + 100 * spread * scale, WIDTH)
        parts.append(rect(low, top + BAR / 2 - 0.6, end - low, 1.2, ""))
    parts.append(text(min(end + 5, WIDTH - 26), top + 10.5, number, "start"))
    return "".join([*parts, "</g>"])
