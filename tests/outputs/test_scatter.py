"""Points of a plane as SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerolabel.errors import UsageError
from zerolabel.outputs.scatter import WIDTH, Dots, Mark, as_file, scatter

BLUE, RED = (66, 133, 212), (200, 50, 40)
SQUARE = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])


def groups(svg):
    """Name of every group of dots, and where they are; in the order in which they are drawn."""
    found = {}
    for group in ElementTree.fromstring(svg).iter("g"):
        title, path = group.find("title"), group.find("path")
        if title is not None and path is not None:
            places = re.findall(r"M(\S+) (\S+)h0", path.get("d"))
            found[title.text] = np.array(places, float)
    return found


def words(svg):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter("text")]


def height(svg):
    return float(ElementTree.fromstring(svg).get("viewBox").split()[3])


def test_points_keep_their_shape_and_y_points_upwards():
    places = groups(scatter([Dots("a", BLUE, SQUARE)], title="t"))["a"]
    (ox, oy), (rx, ry), (ux, uy) = places
    assert rx - ox == pytest.approx(2 * (oy - uy), abs=0.2)  # one scale
    assert rx > ox
    assert uy < oy
    assert (oy, ox) == (ry, ux)


def test_every_group_has_its_colour_in_plot_and_legend():
    two = [Dots("a < b", BLUE, SQUARE), Dots("c", RED, SQUARE + 1)]
    svg = scatter(two, title='"t" & more', x_label="x < 1", y_label="y")
    assert svg.count('stroke="#4285d4"') == svg.count('stroke="#c83228"') == 2
    assert list(groups(svg)) == ["a < b", "c"]
    assert {"a < b", "c", "x < 1", "y"} <= set(words(svg))
    assert ElementTree.fromstring(svg).get("aria-label") == '"t" & more'
    assert height(svg) > height(scatter(two, title="t"))  # room for the name of an axis


def test_dots_without_a_colour_are_faint_and_at_the_bottom():
    svg = scatter([Dots("a", BLUE, SQUARE), Dots("rest", None, SQUARE)], title="t")
    assert list(groups(svg)) == ["rest", "a"]
    assert svg.index(">rest</title>") < svg.index(">a</title>")
    assert [word for word in words(svg) if word in ("rest", "a")] == ["a", "rest"]


def test_marks_stand_above_and_hollow_ones_have_no_colour():
    marks = [Mark("0", RED, np.array([3.0, 3.0])), Mark("unused", None, np.array([-1.0, 0.0]))]
    svg = scatter([Dots("a", BLUE, SQUARE)], marks, title="t", mark_label="concept")
    assert svg.count('fill="#c83228"') == 1
    assert svg.count("stroke-dasharray") == 1
    assert {"0", "unused", "concept"} <= set(words(svg))
    assert svg.index("#c83228") > svg.index(">a</title>")
    assert "concept" not in words(scatter([Dots("a", BLUE, SQUARE)], title="t", mark_label="x"))


def test_names_stay_inside_at_the_right_end():
    far = [Mark("unused", None, np.array([9.0, 0.0])), Mark("0", RED, np.array([0.0, 0.0]))]
    root = ElementTree.fromstring(scatter([], far, title="t"))
    ends = {e.text: e for e in root.iter("text") if e.text in ("unused", "0")}
    assert ends["unused"].get("text-anchor") == "end"
    assert ends["0"].get("text-anchor") == "start"


def test_a_thousand_dots_are_light():
    rng = np.random.default_rng(0)
    svg = scatter([Dots(str(i), BLUE, rng.normal(size=(112, 2))) for i in range(7)], title="t")
    assert len(svg) < 20 * 784 + 4000
    assert max(len(n.partition(".")[2]) for n in re.findall(r"\d+\.\d+(?=[ h])", svg)) == 1


def test_a_long_legend_has_lines_and_cuts_names():
    many = [Dots(f"category {i} " + "x" * 40, BLUE, SQUARE) for i in range(30)]
    svg = scatter(many, title="t")
    assert height(svg) > height(scatter(many[:2], title="t")) + 9 * 20
    assert all(len(word) <= 24 for word in words(svg))
    assert many[0].name in svg  # shows under a resting pointer


POINTS = st.lists(
    st.tuples(*[st.floats(-1e9, 1e9, allow_nan=False, allow_subnormal=False)] * 2), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(POINTS, st.booleans())
def test_whatever_the_points_they_lie_inside(points, marked):
    points = np.array(points, float)
    marks = [Mark("0", None, points[0])] if marked else []
    svg = scatter([Dots("a", BLUE, points)], marks, title="t", x_label="x")
    assert "nan" not in svg
    assert "inf" not in svg
    places = groups(svg)["a"]
    assert len(places) == len(points)
    assert (places >= 0).all()
    assert (places <= (WIDTH, height(svg))).all()


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.full((49, 2), 0.3), SQUARE * (1, 0)])
def test_one_point_equal_points_and_a_line(points):
    places = groups(scatter([Dots("a", BLUE, points)], title="t"))["a"]
    assert len(places) == len(points)
    assert np.isfinite(places).all()


def test_nothing_and_what_is_not_finite_are_errors():
    with pytest.raises(UsageError, match="found 0"):
        scatter([], title="t")
    with pytest.raises(UsageError, match="found 3, 2 of them finite"):
        scatter([Dots("a", BLUE, np.array([[0, 0], [np.nan, 1], [1, 1.0]]))], title="t")


def test_a_file_says_what_it_is_and_brings_both_colours():
    data = as_file(scatter([Dots("a > b", BLUE, SQUARE)], title="x > y")).decode()
    root = ElementTree.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label") == "x > y"
    assert "prefers-color-scheme:dark" in root.find("{*}style").text
