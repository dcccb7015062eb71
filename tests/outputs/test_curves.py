"""Several curves in one plot."""

from xml.etree import ElementTree

import pytest

from zerolabel.errors import UsageError
from zerolabel.outputs.curves import curves

LABELS = {"title": "scores", "x_label": "k", "y_label": "mIoU"}


def parts(svg, tag):
    return list(ElementTree.fromstring(svg).iter(tag))


def positions(line):
    return [tuple(map(float, point.split(","))) for point in line.get("points").split()]


def test_one_curve_has_bars_and_no_legend():
    svg = curves({"": [(1, 10, 2), (2, 20, 0), (3, 15, 1)]}, **LABELS)
    assert len(parts(svg, "circle")) == 3
    assert len(parts(svg, "path")) == 2  # a deviation of 0 has no bar
    [line] = parts(svg, "polyline")
    (x1, y1), (x2, y2), (x3, _) = positions(line)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y2 < y1  # higher scores are further up


def test_bars_end_one_deviation_from_the_mean():
    svg = curves({"": [(1, 10, 5), (2, 15, 0), (3, 5, 0)]}, **LABELS)
    [(_, _), (_, high), (_, low)] = positions(parts(svg, "polyline")[0])
    [bar] = parts(svg, "path")
    bottom, top = bar.get("d").split("M")[1].split(" ")[1].split("V")
    assert float(bottom) == pytest.approx(low, abs=0.1)
    assert float(top) == pytest.approx(high, abs=0.1)


def test_each_of_several_curves_has_a_colour_and_a_name():
    svg = curves({"a < b": [(0, 1, 0), (1, 2, 0)], "c": [(0, 2, 0)]}, names=["x", "y"], **LABELS)
    lines = [group.get("stroke") for group in parts(svg, "g")]
    assert len(set(lines)) == 2
    words = [element.text for element in parts(svg, "text")]
    assert {"a < b", "c", "x", "y"} <= set(words)


def test_no_point_is_no_plot():
    with pytest.raises(UsageError):
        curves({"a": []}, **LABELS)
