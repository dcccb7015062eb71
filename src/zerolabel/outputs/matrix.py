"""A confusion matrix as SVG: as large as its labels need, it scrolls within the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from zerolabel.errors import UsageError
from zerolabel.outputs.plots import MARK, label, rect, text

LETTER, LONGEST = 7.0, 21  # width of a letter at most, letters of a name that are shown
CELL, SMALL = 26, 14
MANY = 40  # classes from which on cells are small and carry no numbers
LEVELS = 24  # shades
LIFT = 0.6  # exponent below 1: small shares stay visible
LIGHTEST, DARKEST = 0.06, 0.8  # opacity; the numbers stay legible on both
FAINTEST = 0.005  # share from which on a cell is painted
RIGHT = "#4285d4"
FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="currentColor"'
HIDDEN = f'{FONT} aria-hidden="true"'


def heat_map(
    shares: NDArray[np.float64], *, rows: Sequence[str], columns: Sequence[str], title: str
) -> str:
    """Draw what the pixels of every class were taken for; what lies on the diagonal is right.

    Args:
        shares: float64 (C, P), 0..1, NaN in the rows of classes without pixels; column i < C
            stands for class i, later ones for no class.
        rows: C names.
        columns: P names.
        title: what it shows, for readers who cannot see it.

    Returns:
        Elements for a grid of two columns: a corner, the names of the columns, those of the rows,
        and the map; the names stay in sight while it scrolls.

    Raises:
        UsageError: names and shares differ in number.
    """
    if shares.shape != (len(rows), len(columns)):
        raise UsageError(
            f"A heat map needs a name for every row and column: expected {shares.shape}, found "
            f"{(len(rows), len(columns))}."
        )
    C, P = shares.shape
    cell = CELL if C < MANY else SMALL
    side, top = (round(LETTER * min(LONGEST, max(map(len, n)))) + 10 for n in (rows, columns))
    over = [_upright((p + 0.5) * cell + 4, top - 6, name) for p, name in enumerate(columns)]
    beside = [label(side - 6, (c + 0.5) * cell + 4, name, "end") for c, name in enumerate(rows)]
    width, height = P * cell + 2, C * cell + 2
    cells = [
        *_paint(shares, cell),
        rect(0, 0, P * cell, C * cell, 'fill="none" stroke="currentColor" opacity="0.3"'),
        *(_digits(shares, cell) if C < MANY else []),
        *(_answer(shares[c], rows[c], columns, c * cell, cell) for c in range(C)),
    ]
    return "".join(
        [
            f'<i class="corner"></i><svg class="above" width="{width}" height="{top}" {HIDDEN}>',
            *over,
            f'</svg><svg class="beside" width="{side}" height="{height}" {HIDDEN}>',
            *beside,
            f'</svg><svg width="{width}" height="{height}" {FONT} role="img" ',
            f'aria-label="{escape(title)}">',
            *cells,
            "</svg>",
        ]
    )


def _paint(shares: NDArray[np.float64], cell: int) -> list[str]:
    """Paint the cells, with one path for all of one colour and shade."""
    seen = np.where(shares >= FAINTEST, shares, 0)  # NaN too is not painted
    levels = np.ceil(seen**LIFT * LEVELS).astype(int)
    right = np.eye(*shares.shape) > 0
    paths = []
    for colour, own in ((RIGHT, right), (MARK, ~right)):
        for level in range(1, LEVELS + 1):
            spots = np.argwhere(own & (levels == level)).tolist()
            path = "".join(f"M{p * cell} {c * cell}h{cell}v{cell}h-{cell}z" for c, p in spots)
            shade = LIGHTEST + (DARKEST - LIGHTEST) * level / LEVELS
            if path:
                paths.append(f'<path d="{path}" fill="{colour}" fill-opacity="{shade:.2f}"/>')
    return paths


def _digits(shares: NDArray[np.float64], cell: int) -> list[str]:
    """Write the percentage into every cell that is painted."""
    spots = np.argwhere(shares >= FAINTEST).tolist()
    digits = [
        text((p + 0.5) * cell, (c + 0.5) * cell + 4, f"{100 * shares[c, p]:.0f}") for c, p in spots
    ]
    return ['<g font-size="10.5">', *digits, "</g>"]


def _answer(
    shares: NDArray[np.float64], name: str, columns: Sequence[str], top: int, cell: int
) -> str:
    """Say to a resting pointer what a class was mostly taken for."""
    order = np.argsort(-np.nan_to_num(shares), kind="stable")[:4]
    said = [f"{columns[p]} {100 * shares[p]:.0f} %" for p in order if shares[p] >= FAINTEST]
    area = rect(0, top, len(columns) * cell, cell, 'fill="none" pointer-events="all"')
    words = f"{name}: {', '.join(said)}" if said else name
    return f"<g><title>{escape(words)}</title>{area}</g>"


def _upright(x: float, y: float, name: str) -> str:
    """Write a name upwards, from the frame on."""
    turned = label(0, 0, name, "start")
    return f'<g transform="translate({x:.1f} {y}) rotate(-90)">{turned}</g>'
