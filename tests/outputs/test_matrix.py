import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from zerolabel.errors import UsageError
from zerolabel.outputs.matrix import CELL, MANY, RIGHT, SMALL, heat_map
from zerolabel.outputs.plots import MARK

SPOT = re.compile(r"M(\d+) (\d+)h(\d+)v")


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<all>{markup}</all>")


def painted(root: ElementTree.Element) -> dict[tuple[int, int], tuple[str, float]]:
    """(row, column) -> colour and opacity."""
    found = {}
    for path in root.iter("path"):
        for x, y, cell in (map(int, spot) for spot in SPOT.findall(path.get("d", ""))):
            shade = path.get("fill", ""), float(path.get("fill-opacity", ""))
            assert (y // cell, x // cell) not in found
            found[y // cell, x // cell] = shade
    return found


def test_cells_are_where_their_shares_are_and_right_ones_on_the_diagonal() -> None:
    shares = np.array([[0.7, 0.3, 0.0], [0.001, 0.999, 0.0]])
    root = parsed(heat_map(shares, rows=["a", "b"], columns=["a", "b", "none"], title="t"))
    cells = painted(root)
    assert set(cells) == {(0, 0), (0, 1), (1, 1)}  # 0.1 percent is not seen
    assert [cells[place][0] for place in sorted(cells)] == [RIGHT, MARK, RIGHT]
    assert cells[0, 1][1] < cells[0, 0][1] < cells[1, 1][1]
    numbers = ["".join(t.itertext()) for t in root.iter("text") if t.get("text-anchor") == "middle"]
    assert numbers == ["70", "30", "100"]
    titles = ["".join(element.itertext()) for element in root.iter("title")]
    assert "a: a 70 %, b 30 %" in titles


def test_a_class_without_pixels_has_an_empty_row() -> None:
    shares = np.array([[np.nan, np.nan], [0.5, 0.5]])
    root = parsed(heat_map(shares, rows=["<gone>", "b"], columns=["<gone>", "b"], title="t"))
    assert set(painted(root)) == {(1, 0), (1, 1)}
    assert "<gone>" in ["".join(element.itertext()) for element in root.iter("title")]


@pytest.mark.parametrize(("C", "cell"), [(MANY - 1, CELL), (171, SMALL)])
def test_every_class_has_its_name_and_room_for_it(C: int, cell: int) -> None:
    names = [f"class {i}" for i in range(C)]
    root = parsed(heat_map(np.full((C, C), 1 / C), rows=names, columns=names, title="t"))
    above, beside, cells = root.findall("svg")
    texts = [e for e in beside.iter("text") if (e.text or "").startswith("class")]
    assert [e.text for e in texts] == names
    steps = np.diff([float(e.get("y", "")) for e in texts])
    assert np.allclose(steps, cell)  # letters are 12 pixels high
    assert steps.min() >= 12
    assert len(list(above.iter("text"))) == C
    assert (cells.get("width"), cells.get("height")) == (str(C * cell + 2),) * 2
    assert beside.get("height") == cells.get("height")
    assert above.get("width") == cells.get("width")


def test_names_and_shares_must_agree() -> None:
    with pytest.raises(UsageError, match=r"expected \(2, 2\), found \(1, 2\)"):
        heat_map(np.zeros((2, 2)), rows=["a"], columns=["a", "b"], title="t")
