"""What else a method shows of an image: its maps, each as a picture of colours.

Shapes: `h w` grid of a map, `H W` pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from zerolabel.ops.maps import normalise, to_pixels
from zerolabel.outputs.heat import heat
from zerolabel.outputs.views import inline_view, png
from zerolabel.store import write_bytes
from zerolabel.types import Exhibit, Image

MOST = 12  # maps on a page
FILE = "map-{:02d}.png"
CAPTION = (
    "Every map has a scale of its own: its lowest value has the darkest colour and its highest the "
    "brightest, and both stand below it, so colours of two maps do not compare."
)


@dataclass(frozen=True)
class Drawn:
    """A map as it is shown.

    Attributes:
        name: what the method calls it.
        low: its lowest value.
        high: its highest value.
        picture: uint8 (H, W, 3).
    """

    name: str
    low: float
    high: float
    picture: Image

    @property
    def label(self) -> str:
        """The name and the ends of the scale."""
        if self.low == self.high:
            return f"{self.name}: {self.low:.3g} everywhere"
        return f"{self.name}: {self.low:.3g} to {self.high:.3g}"


def draw_maps(maps: Mapping[str, Tensor], size: tuple[int, int]) -> list[Drawn]:
    """Draw the first maps that a method gives, cell by cell.

    Args:
        maps: name -> float (h, w), each of any size, over the whole image.
        size: (H, W) of the pictures.

    Returns:
        At most `MOST`, in the order given.
    """
    drawn = []
    for name, values in islice(maps.items(), MOST):
        values = values.detach().float().cpu()
        picture = heat(to_pixels(normalise(values)[None], size)[0].numpy())
        drawn.append(Drawn(name, float(values.min()), float(values.max()), picture))
    return drawn


def write_maps(folder: Path, drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """Write the pictures, in place of those of an earlier image.

    Args:
        folder: of the page, already marked as ours.
        drawn: from `draw_maps`.

    Returns:
        Per map its name, its lowest and highest value, and the file.

    Raises:
        StoreError: a file cannot be written.
    """
    for i in range(len(drawn), MOST):
        (folder / FILE.format(i)).unlink(missing_ok=True)
    facts = []
    for i, one in enumerate(drawn):
        file = FILE.format(i)
        write_bytes(folder / file, png(one.picture))
        facts.append({"name": one.name, "low": one.low, "high": one.high, "file": file})
    return facts


def maps_exhibit(drawn: Sequence[Drawn], *, name: str, total: int) -> list[Exhibit]:
    """Lay maps out for a page.

    Args:
        drawn: from `draw_maps`.
        name: of the image.
        total: how many maps the method gave.

    Returns:
        One exhibit; none without maps.
    """
    if not drawn:
        return []
    # A mask's picture keeps the edges of the cells, as these must.
    views = [(inline_view("mask", one.picture), one.label) for one in drawn]
    more = f" These are the first {len(drawn)} of {total}." if total > len(drawn) else ""
    data = {"rows": [{"name": name, "views": views}], "legend": []}
    return [Exhibit("images", "Maps", data, CAPTION + more)]
