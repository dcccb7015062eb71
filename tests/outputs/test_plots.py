import re
import xml.etree.ElementTree as ElementTree

import pytest

from zerolabel.errors import UsageError
from zerolabel.outputs.plots import HEIGHT, WIDTH, line_chart

WORDS = {"title": 'Curve <of> "k"', "x_label": "k & more", "y_label": "score"}


def _points(svg: str) -> list[tuple[float, float]]:
    found = re.search(r'points="([^"]*)"', svg)
    assert found
    return [(float(a), float(b)) for a, b in (pair.split(",") for pair in found[1].split())]


def test_the_curve_rises_where_the_values_rise() -> None:
    points = _points(line_chart([2, 4, 8], [0.1, 0.5, 0.3], mark=4, **WORDS))
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x1 - x0) * 2 == pytest.approx(x2 - x1, abs=0.2)
    assert y1 < y2 < y0  # downwards in SVG
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_words_are_escaped_and_the_mark_is_drawn_once() -> None:
    svg = line_chart([2, 4, 8], [0.1, 0.5, 0.3], mark=4, **WORDS)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == WORDS["title"]
    assert WORDS["x_label"] in ["".join(e.itertext()) for e in root.iter("text")]
    assert svg.count('r="6"') == 1
    assert 'r="6"' not in line_chart([2, 4], [0.1, 0.5], **WORDS)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([5], [0.0]),
        ([1, 2, 3], [7.0, 7.0, 7.0]),
        ([1, 2, 3], [-1e9, 0, 1e9]),
        ([1, 1], [1e-12, 2e-12]),
        (range(500), [float(i % 7) for i in range(500)]),
    ],
)
def test_unusual_curves_stay_inside(x: list[float], y: list[float]) -> None:
    svg = line_chart(list(x), y, **WORDS)
    ElementTree.fromstring(svg)
    assert all(0 <= a <= WIDTH and 0 <= b <= HEIGHT for a, b in _points(svg))


def test_gaps_are_left_out_and_nothing_is_an_error() -> None:
    assert len(_points(line_chart([1, 2, 3], [1, float("nan"), 2], **WORDS))) == 2
    with pytest.raises(UsageError, match="0 finite"):
        line_chart([1], [float("inf")], **WORDS)
    with pytest.raises(UsageError, match="2 x and 1 y"):
        line_chart([1, 2], [1], **WORDS)
