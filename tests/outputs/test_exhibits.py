import re
from pathlib import Path

import numpy as np

from zerolabel.outputs.report import write_exhibits
from zerolabel.outputs.views import inline_view
from zerolabel.types import Exhibit


def page(path: Path, *exhibits: Exhibit) -> str:
    write_exhibits(path, title="T", lead="L", exhibits=exhibits)
    return path.read_text()


def test_rows_of_pictures_are_inside_the_page_with_names_and_legend(tmp_path: Path) -> None:
    picture = np.zeros((3, 4, 3), np.uint8)
    views = [(inline_view("photo", picture), "photo"), (inline_view("mask", picture), "run: 12.0")]
    data = {
        "rows": [{"name": "<a>.jpg", "views": views}],
        "legend": [{"name": "cat & dog", "colour": (1, 2, 3)}],
    }
    html = page(tmp_path / "p.html", Exhibit("images", "Best", data, "words"))
    sources = re.findall(r'src="(data:image/\w+)', html)
    assert sources == ["data:image/jpeg", "data:image/png"]
    assert "run: 12.0" in html
    assert "cat &amp; dog" in html
    assert "rgb(1 2 3)" in html
    assert "&lt;a&gt;.jpg" in html
    assert "<a>" not in html


def test_columns_can_be_set_right_and_plots_can_be_wide(tmp_path: Path) -> None:
    data = {"columns": ["a", "b"], "rows": [["x", "1 ± 2"]], "right": [1]}
    html = page(tmp_path / "p.html", Exhibit("table", "t", data))
    assert re.search(r'<td>x</td><td class="n">1 ± 2</td>', html)
    assert 'class="exhibit"' in html
    html = page(tmp_path / "p.html", Exhibit("svg", "t", {"svg": "<svg/>", "wide": True}))
    assert 'class="exhibit wide"' in html
    assert '<div class="plot"><svg/></div>' in html
