"""Several curves with their spread in one SVG plot, e.g. scores of a sweep over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zerolabel.errors import UsageError
from zerolabel.outputs.colours import palette
from zerolabel.outputs.plots import HEIGHT, LEFT, axes, text

Point = tuple[float, float, float]  # position, mean, deviation
ROW = 18  # height of one line of the legend
CAP = 3  # half the width of the ends of an error bar


def curves(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    names: Sequence[str] | None = None,
) -> str:
    """Draw one curve per series, with bars of one deviation up and down.

    Args:
        series: name -> points, positions rising; a deviation of 0 has no bar.
        title: what it shows, for readers who cannot see it.
        x_label: name of the horizontal axis.
        y_label: name of the vertical axis.
        names: what stands below the positions 0, 1, ...; None for their numbers.

    Returns:
        An `<svg>` element to stand in an HTML page or in a file.

    Raises:
        UsageError: there is no point.
    """
    points = [point for own in series.values() for point in own]
    if not points:
        raise UsageError("A plot needs one point, found none.")
    rows = len(series) if len(series) > 1 else 0
    parts, place = axes(
        [a for a, _, _ in points],
        [end for _, b, spread in points for end in (b - spread, b + spread)],
        title=title,
        x_label=x_label,
        y_label=y_label,
        names=names,
        below=rows * ROW,
    )
    colours = palette(len(series)).tolist()
    for row, (name, own) in enumerate(series.items()):
        colour = "#{:02x}{:02x}{:02x}".format(*colours[row])
        bars = "".join(
            _bar(place(a, b - spread), place(a, b + spread)) for a, b, spread in own if spread
        )
        at = [place(a, b) for a, b, _ in own]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in at)
        dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in at)
        parts.append(
            f'<g stroke="{colour}" stroke-width="1.5" fill="none"><polyline points="{line}" '
            f'stroke-linejoin="round"/>{bars}</g>{dots}'
        )
        if rows:
            y = HEIGHT + ROW * row
            parts.append(f'<circle cx="{LEFT + 4}" cy="{y}" r="4" fill="{colour}"/>')
            parts.append(text(LEFT + 14, y + 4, name, "start"))
    return "".join([*parts, "</svg>"])


def _bar(low: tuple[float, float], high: tuple[float, float]) -> str:
    (x, bottom), (_, top) = low, high
    ends = "".join(f"M{x - CAP:.1f} {y:.1f}h{2 * CAP}" for y in (bottom, top))
    return f'<path d="M{x:.1f} {bottom:.1f}V{top:.1f}{ends}"/>'
