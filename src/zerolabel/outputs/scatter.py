"""Points of a plane as SVG: dots in the colours of their groups, and marks that stand out.

The dots of a group are one path of points with round ends: a thousand of them stay light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError
from zerolabel.outputs.plots import label, rect, text

WIDTH = 560
LEFT, TOP, EDGE = 26, 2, 18  # room for the name of the vertical axis, above, and in the frame
LOWEST, TALLEST = 220, 420  # the frame
DOT, MARK, KEY = 7, 9, 10  # diameter of a dot, half the diagonal of a mark, diameter of a key
ROW, LETTER, LONGEST = 20, 6.6, 24  # the legend: height of a line, width and number of letters
FRAME = 'stroke="currentColor" stroke-opacity="0.15"'
FAINT = 'stroke="currentColor" stroke-opacity="0.35"'  # dots without a colour
EDGED = 'stroke="currentColor" stroke-width="1.6" stroke-linejoin="round"'  # marks
HOLLOW = 'style="fill:var(--paper,#fff)" stroke-dasharray="3 2"'
SOME = 'fill="currentColor" fill-opacity="0.3"'  # a mark of any colour, in the legend
HALO = "paint-order:stroke;stroke:var(--paper,#fff);stroke-width:3px;stroke-linejoin:round"
ALONE = (  # the colours that a plot has from its page, for one that is a file of its own
    "<style>:root{color:#1d1c1a;--paper:#fdfcfa;background:var(--paper)}"
    "@media (prefers-color-scheme:dark){:root{color:#ebe8e2;--paper:#151514}}</style>"
)

Colour = tuple[int, int, int]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Dots:
    """Points of one group.

    Attributes:
        name: in the legend.
        colour: RGB, each 0..255; None draws them faint, in the colour of the text.
        points: float64 (n, 2).
    """

    name: str
    colour: Colour | None
    points: Points


@dataclass(frozen=True)
class Mark:
    """A point that stands out.

    Attributes:
        name: written beside it.
        colour: RGB, each 0..255; None leaves it hollow.
        point: float64 (2,).
    """

    name: str
    colour: Colour | None
    point: Points


def scatter(
    dots: Sequence[Dots],
    marks: Sequence[Mark] = (),
    *,
    title: str,
    x_label: str = "",
    y_label: str = "",
    mark_label: str = "",
) -> str:
    """Draw points; both axes have one scale, so that distances can be compared.

    Args:
        dots: groups in the order of the legend; later ones lie on top, faint ones at the bottom.
        marks: drawn above all dots.
        title: what it shows, for readers who cannot see it.
        x_label: name of the horizontal axis, or nothing.
        y_label: name of the vertical axis, or nothing.
        mark_label: what a mark is, for the legend.

    Returns:
        An `<svg>` element to stand in an HTML page.

    Raises:
        UsageError: no point at all, or one that is not finite.
    """
    points = np.concatenate([np.empty((0, 2)), *(own.points for own in dots)])
    points = np.concatenate([points, *(mark.point[None] for mark in marks)])
    finite = np.isfinite(points).all(1)
    if not finite.any() or not finite.all():
        raise UsageError(
            f"A scatter plot needs at least one point and finite ones only; found {len(points)}, "
            f"{int(finite.sum())} of them finite."
        )
    height, place = _frame(points)
    bottom = TOP + height + (22 if x_label else 4)
    keys = [(own.name, _stroke([(0, 0)], own.colour, KEY)) for own in dots]
    if marks:
        keys.append((mark_label, _diamond(0, 0, KEY - 4, SOME)))
    legend, end = _legend(keys, bottom + ROW)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {end:g}" role="img" aria-label="{escape(title)}" '
        'font-family="system-ui, sans-serif" font-size="13" fill="currentColor">',
        rect(LEFT, TOP, WIDTH - LEFT - 1, height, f'fill="none" rx="4" {FRAME}'),
        text((LEFT + WIDTH) / 2, TOP + height + 18, x_label) if x_label else "",
        _upwards(TOP + height / 2, y_label) if y_label else "",
    ]
    parts += [_group(own, place) for own in sorted(dots, key=lambda own: own.colour is not None)]
    parts += [_mark(mark, place) for mark in marks]
    return "".join([*parts, *legend, "</svg>"])


def as_file(svg: str) -> bytes:
    """Make a plot a file of its own, light or dark as its reader likes."""
    start, _, rest = svg.partition(">")
    start = start.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{start}>{ALONE}{rest}".encode("utf-8", "replace")


def _frame(points: Points) -> tuple[float, Callable[[Points], Points]]:
    """Fit all points into a frame: its height, and where points (n, 2) lie in the plot."""
    low, high = points.min(0), points.max(0)
    room = np.array([WIDTH - LEFT - 1, TALLEST]) - 2 * EDGE
    span = high - low
    scale = float((room[span > 0] / span[span > 0]).min(initial=np.inf)) if span.any() else 1.0
    height = float(max(LOWEST, span[1] * scale + 2 * EDGE))
    middle = np.array([(LEFT + WIDTH - 1) / 2, TOP + height / 2])

    def place(own: Points) -> Points:
        placed: Points = middle + (own - (low + high) / 2) * (scale, -scale)  # y grows downwards
        return placed

    return height, place


def _group(own: Dots, place: Callable[[Points], Points]) -> str:
    drawn = _stroke(place(own.points).tolist(), own.colour, DOT)
    return f"<g><title>{escape(own.name)}</title>{drawn}</g>"


def _stroke(places: Sequence[Sequence[float]], colour: Colour | None, width: float) -> str:
    """Draw dots: lines of no length whose ends are round."""
    path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places)
    ink = FAINT if colour is None else f'stroke="{_rgb(colour)}" stroke-opacity="0.85"'
    return f'<path d="{path}" fill="none" stroke-width="{width:g}" stroke-linecap="round" {ink}/>'


def _mark(mark: Mark, place: Callable[[Points], Points]) -> str:
    """Draw a diamond and its name, to the left of it where there is no room on the right."""
    x, y = place(mark.point).tolist()
    fill = HOLLOW if mark.colour is None else f'fill="{_rgb(mark.colour)}"'
    if x + MARK + LETTER * (len(mark.name) + 1) < WIDTH:
        name = text(x + MARK + 3, y + 4.5, mark.name, "start")
    else:
        name = text(x - MARK - 3, y + 4.5, mark.name, "end")
    return f'{_diamond(x, y, MARK, fill)}<g font-weight="600" style="{HALO}">{name}</g>'


def _diamond(x: float, y: float, r: float, fill: str) -> str:
    path = f"M{x:.1f} {y - r:.1f}l{r} {r}l{-r} {r}l{-r} {-r}z"
    return f'<path d="{path}" {fill} {EDGED}/>'


def _legend(keys: Sequence[tuple[str, str]], top: float) -> tuple[list[str], float]:
    """Lay keys and their names out in columns; returns them, and where the legend ends."""
    longest = min(LONGEST, max((len(name) for name, _ in keys), default=0))
    column = 30 + LETTER * longest
    across = max(1, int((WIDTH - LEFT) / column))
    parts = []
    for i, (name, key) in enumerate(keys):
        x, y = LEFT + 6 + i % across * column, top + i // across * ROW
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})">{key}</g>')
        parts.append(label(x + 11, y + 4.5, name, "start", longest=LONGEST))
    return parts, top + (len(keys) - 1) // across * ROW + 12


def _upwards(y: float, words: str) -> str:
    turned = f"translate(15 {y:.1f}) rotate(-90)"
    return f'<text transform="{turned}" text-anchor="middle">{escape(words)}</text>'


def _rgb(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
