import xml.etree.ElementTree as ElementTree

import pytest

from zerolabel.errors import UsageError
from zerolabel.outputs.bars import BAR, NAMES, VALUES, WIDTH, Bars, bar_chart

NAMED = ["sky <1>", "road & path", "a class with quite a long name"]


def drawn(svg: str) -> list[dict[str, str]]:
    """The bars, without swatches, lines of the axis and deviations."""
    rects = [dict(element.attrib) for element in ElementTree.fromstring(svg).iter("rect")]
    return [r for r in rects if float(r["height"]) == BAR - 2 and r.get("rx") == "1.5"]


def test_bars_are_as_long_as_their_shares() -> None:
    groups = [
        Bars("first", [0.5, 0.25, None], [None, None, None]),
        Bars("second", [0.1, 0.0, 0.4], [0.05, 0.0, None]),
    ]
    bars = drawn(bar_chart(NAMED, groups, title="<IoU>"))
    widths = [float(bar["width"]) for bar in bars]
    assert len(bars) == 5
    assert {float(bar["x"]) for bar in bars} == {NAMES}
    percent = (WIDTH - NAMES - VALUES) / 60  # the axis ends at the next round number
    expected = [50 * percent, 10 * percent, 25 * percent, 0, 40 * percent]
    assert widths == pytest.approx(expected, abs=0.1)
    assert len({bar["fill"] for bar in bars}) == 2


def test_names_are_escaped_cut_and_whole_under_the_pointer() -> None:
    svg = bar_chart(NAMED, [Bars("a", [0.1, 0.2, 0.3], [None] * 3)], title="t")
    root = ElementTree.fromstring(svg)
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    titles = ["".join(element.itertext()) for element in root.iter("title")]
    assert {"sky <1>", "road & path", "a class with quite a…"} <= set(texts)
    assert set(NAMED) <= set(titles)
    assert "road & path, a: 20.0" in titles


def test_a_deviation_stays_inside_and_a_missing_value_is_a_dash() -> None:
    svg = bar_chart(["x", "y"], [Bars("a", [1.0, None], [0.9, None])], title="t")
    root = ElementTree.fromstring(svg)
    ends = [float(r.get("x", "")) + float(r.get("width", "")) for r in root.iter("rect")]
    assert max(ends) <= WIDTH
    assert "–" in ["".join(element.itertext()) for element in root.iter("text")]
    starts = [float(element.get("x", "")) for element in root.iter("text")]
    assert max(starts) <= WIDTH - 26


@pytest.mark.parametrize(
    ("names", "groups"),
    [([], []), (["a"], []), (["a"], [Bars("g", [1, 2], [None])]), (["a"], [Bars("g", [1], [])])],
)
def test_numbers_must_agree(names: list[str], groups: list[Bars]) -> None:
    with pytest.raises(UsageError, match="as many values"):
        bar_chart(names, groups, title="t")
